//! The strict CBOR profile to and from Python values, without a value tree in between.
//! Refuses what Python would let slip: floats, sets, dataclasses, bool or text as map key, surrogates.
//! Subclasses of int, str, bytes, tuple and list (IntEnum, StrEnum, NamedTuple) count as the plain value they store.

use ehrfast_core::cbor::{DEFAULT_MAX_BYTES, Error, Item, MapKeys, Reader, Writer, deeper, key_rank};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyOverflowError, PyUnicodeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyMapping, PyMappingProxy, PyString, PyTuple};

use crate::buffer::Buffer;
use crate::errors::{Detail, Kind, Named, raise};

impl Named for Error {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn code(&self) -> &'static str {
        Error::code(self)
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match *self {
            Error::TooLarge { size, limit } => {
                vec![("size", Detail::Number(size as u64)), ("limit", Detail::Number(limit as u64))]
            }
            _ => self.offset().map(|offset| ("offset", Detail::Number(offset as u64))).into_iter().collect(),
        }
    }
}

/// The one encoding of a Python value.
pub(crate) fn encode_py(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut writer = Writer::with_capacity(64);
    write_py(&mut writer, value, 0)?;
    Ok(writer.into_bytes())
}

/// The immutable Python value that encodes to exactly `data`, which may be of any size.
pub(crate) fn decode_py(py: Python<'_>, data: &[u8]) -> PyResult<Py<PyAny>> {
    decode_within(py, data, data.len())
}

fn decode_within(py: Python<'_>, data: &[u8], max_bytes: usize) -> PyResult<Py<PyAny>> {
    let mut reader = Reader::new(data, max_bytes).map_err(raise)?;
    let value = read_py(py, &mut reader, &mut Vec::new(), 0)?;
    reader.finish().map_err(raise)?;
    Ok(value.unbind())
}

/// Appends a Python value inside `open` containers.
pub(crate) fn write_py(writer: &mut Writer, value: &Bound<'_, PyAny>, open: usize) -> PyResult<()> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        writer.bytes(bytes.as_bytes());
    } else if let Ok(flag) = value.cast::<PyBool>() {
        // Before int: bool is a subclass of int.
        writer.boolean(flag.is_true());
    } else if let Ok(number) = value.cast::<PyInt>() {
        match integer(number, writer)? {
            Integer::Signed(value) => writer.int(value),
            Integer::Large(value) => writer.uint(value),
        };
    } else if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_str().map_err(|error| not_utf8(error, value.py(), writer))?;
        writer.text(text).map_err(raise)?;
    } else if let Ok(items) = value.cast::<PyTuple>() {
        let open = deeper(open, writer.as_bytes().len()).map_err(raise)?;
        writer.array(items.len());
        for item in items.iter_borrowed() {
            write_py(writer, &item, open)?;
        }
    } else if value.is_none() {
        writer.null();
    } else if let Ok(items) = value.cast::<PyList>() {
        let open = deeper(open, writer.as_bytes().len()).map_err(raise)?;
        writer.array(items.len());
        for item in items.iter() {
            write_py(writer, &item, open)?;
        }
    } else if let Ok(pairs) = value.cast::<PyDict>() {
        write_pairs(writer, pairs.iter().collect(), open)?;
    } else if let Ok(mapping) = value.cast::<PyMapping>() {
        let pairs = mapping.items()?.iter().map(|pair| pair.extract()).collect::<PyResult<Vec<_>>>()?;
        write_pairs(writer, pairs, open)?;
    } else {
        return Err(raise(Error::Unsupported { offset: writer.as_bytes().len() }));
    }
    Ok(())
}

fn write_pairs(writer: &mut Writer, pairs: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>, open: usize) -> PyResult<()> {
    let open = deeper(open, writer.as_bytes().len()).map_err(raise)?;
    let mut ranked = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let number = match key.cast::<PyInt>() {
            Ok(number) if !key.is_instance_of::<PyBool>() => integer(number, writer)?,
            _ => return Err(raise(Error::Unsupported { offset: writer.as_bytes().len() })),
        };
        ranked.push((number, value));
    }
    ranked.sort_by_key(|(key, _)| key.rank());
    writer.map(ranked.len());
    let mut last = None;
    for (key, value) in ranked {
        // A dict cannot hold one integer twice, another Mapping may.
        if last.replace(key.rank()) == Some(key.rank()) {
            return Err(raise(Error::KeyOrder { offset: writer.as_bytes().len() }));
        }
        match key {
            Integer::Signed(key) => writer.int(key),
            Integer::Large(key) => writer.uint(key),
        };
        write_py(writer, &value, open)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Integer {
    Signed(i64),
    /// Above `i64::MAX`.
    Large(u64),
}

impl Integer {
    fn rank(self) -> (bool, u128) {
        key_rank(match self {
            Integer::Signed(value) => value.into(),
            Integer::Large(value) => value.into(),
        })
    }
}

fn integer(number: &Bound<'_, PyInt>, writer: &Writer) -> PyResult<Integer> {
    if let Ok(value) = number.extract::<i64>() {
        return Ok(Integer::Signed(value));
    }
    match number.extract::<u64>() {
        Ok(value) => Ok(Integer::Large(value)),
        Err(error) if error.is_instance_of::<PyOverflowError>(number.py()) => {
            Err(raise(Error::OutOfRange { offset: writer.as_bytes().len() }))
        }
        Err(error) => Err(error),
    }
}

fn not_utf8(error: PyErr, py: Python<'_>, writer: &Writer) -> PyErr {
    if error.is_instance_of::<PyUnicodeError>(py) {
        raise(Error::NotUtf8 { offset: writer.as_bytes().len() })
    } else {
        error
    }
}

/// Reads one value inside `open` containers. `stack` holds the items of arrays still being read.
fn read_py<'py>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    stack: &mut Vec<Bound<'py, PyAny>>,
    open: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let offset = reader.offset();
    match reader.item().map_err(raise)? {
        Item::Unsigned(value) => value.into_bound_py_any(py),
        Item::Negative(value) => value.into_bound_py_any(py),
        Item::Bytes(bytes) => Ok(PyBytes::new(py, bytes).into_any()),
        Item::Text(text) => Ok(PyString::new(py, text).into_any()),
        Item::Bool(value) => Ok(PyBool::new(py, value).to_owned().into_any()),
        Item::Null => Ok(py.None().into_bound(py)),
        Item::Tag(_) => Err(raise(Error::Unsupported { offset })),
        Item::Array(count) => {
            let open = deeper(open, offset).map_err(raise)?;
            let base = stack.len();
            for _ in 0..count {
                let item = read_py(py, reader, stack, open)?;
                stack.push(item);
            }
            Ok(PyTuple::new(py, stack.drain(base..))?.into_any())
        }
        Item::Map(count) => {
            let open = deeper(open, offset).map_err(raise)?;
            let pairs = PyDict::new(py);
            let mut keys = MapKeys::new();
            for _ in 0..count {
                let key = keys.next(reader).map_err(raise)?;
                let value = read_py(py, reader, stack, open)?;
                match i64::try_from(key) {
                    Ok(key) => pairs.set_item(key, value)?,
                    Err(_) => pairs.set_item(key, value)?,
                }
            }
            Ok(PyMappingProxy::new(py, pairs.as_mapping()).into_any())
        }
    }
}

#[pyfunction]
fn cbor_encode<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &encode_py(value)?))
}

#[pyfunction]
#[pyo3(signature = (data, max_bytes = DEFAULT_MAX_BYTES))]
fn cbor_decode(py: Python<'_>, data: Buffer<'_>, max_bytes: usize) -> PyResult<Py<PyAny>> {
    decode_within(py, data.as_slice()?, max_bytes)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cbor_encode, module)?)?;
    module.add_function(wrap_pyfunction!(cbor_decode, module)?)
}
