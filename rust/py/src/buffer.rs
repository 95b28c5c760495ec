//! Bytes that come in and arrays that go out, for every binding: `bytes` and read-only contiguous numpy arrays
//! of uint8 are lent without a copy; a writable array is copied, since the GIL is released while we read.

use ehrfast_core::digest::{Digest, DigestError, Items};
use numpy::{PyArray1, PyArray2, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{Detail, Kind, Named, raise, raise_code};

impl Named for DigestError {
    fn kind(&self) -> Kind {
        match self {
            DigestError::NoRandomness => Kind::Unavailable,
            _ => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            DigestError::UnknownUse => "digest.unknown_use",
            DigestError::NoOffsets => "offsets.empty",
            DigestError::OffsetsDescend { .. } => "offsets.descending",
            DigestError::OffsetOutOfRange { .. } => "offsets.out_of_range",
            DigestError::NoRandomness => "random.unavailable",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match *self {
            DigestError::OffsetsDescend { index } => vec![("index", Detail::Number(index as u64))],
            DigestError::OffsetOutOfRange { offset, length } => {
                vec![("offset", Detail::Number(offset)), ("length", Detail::Number(length as u64))]
            }
            DigestError::UnknownUse | DigestError::NoOffsets | DigestError::NoRandomness => Vec::new(),
        }
    }
}

/// An argument of type `Buffer`; an array may have any number of dimensions, in C order.
pub enum Buffer<'py> {
    Bytes(Bound<'py, PyBytes>),
    Array(PyReadonlyArrayDyn<'py, u8>),
    Copied(Vec<u8>),
}

impl<'py> FromPyObject<'_, 'py> for Buffer<'py> {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = given.cast::<PyBytes>() {
            return Ok(Buffer::Bytes(bytes.to_owned()));
        }
        let array = given.cast::<PyArrayDyn<u8>>().map_err(|_| raise_code(Kind::InvalidInput, "input.not_a_buffer"))?;
        if !array.is_c_contiguous() {
            return Err(raise_code(Kind::InvalidInput, "input.not_contiguous"));
        }
        let writable = is_writable(&array)?;
        let array = array.try_readonly().map_err(|_| raise_code(Kind::Conflict, "input.borrowed"))?;
        if writable {
            let bytes = array.as_slice().map_err(|_| raise_code(Kind::InvalidInput, "input.not_contiguous"))?;
            return Ok(Buffer::Copied(bytes.to_vec()));
        }
        Ok(Buffer::Array(array))
    }
}

impl Buffer<'_> {
    /// The bytes, valid while the GIL is released: what is lent here is immutable.
    pub fn as_slice(&self) -> PyResult<&[u8]> {
        match self {
            Buffer::Bytes(bytes) => Ok(bytes.as_bytes()),
            Buffer::Array(array) => {
                array.as_slice().map_err(|_| raise_code(Kind::InvalidInput, "input.not_contiguous"))
            }
            Buffer::Copied(bytes) => Ok(bytes),
        }
    }

    /// The bytes as n values of N bytes.
    pub fn as_arrays<const N: usize>(&self) -> PyResult<&[[u8; N]]> {
        match self.as_slice()?.as_chunks::<N>() {
            (values, []) => Ok(values),
            _ => Err(raise_code(Kind::InvalidInput, "input.wrong_length")),
        }
    }
}

/// An argument of type `Offsets`: n + 1 ascending uint64 numbers into a buffer.
pub enum Offsets<'py> {
    Array(PyReadonlyArrayDyn<'py, u64>),
    Copied(Vec<u64>),
}

impl<'py> FromPyObject<'_, 'py> for Offsets<'py> {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let array =
            given.cast::<PyArrayDyn<u64>>().map_err(|_| raise_code(Kind::InvalidInput, "offsets.not_uint64"))?;
        if array.ndim() != 1 || !array.is_c_contiguous() {
            return Err(raise_code(Kind::InvalidInput, "offsets.not_contiguous"));
        }
        let writable = is_writable(&array)?;
        let array = array.try_readonly().map_err(|_| raise_code(Kind::Conflict, "input.borrowed"))?;
        if writable {
            let offsets = array.as_slice().map_err(|_| raise_code(Kind::InvalidInput, "offsets.not_contiguous"))?;
            return Ok(Offsets::Copied(offsets.to_vec()));
        }
        Ok(Offsets::Array(array))
    }
}

impl Offsets<'_> {
    /// The items these offsets cut out of `data`, checked.
    pub fn items<'a>(&'a self, data: &'a Buffer<'_>) -> PyResult<Items<'a>> {
        let offsets = match self {
            Offsets::Array(array) => {
                array.as_slice().map_err(|_| raise_code(Kind::InvalidInput, "offsets.not_contiguous"))?
            }
            Offsets::Copied(offsets) => offsets,
        };
        Items::new(data.as_slice()?, offsets).map_err(raise)
    }
}

fn is_writable(array: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = array.py();
    array.getattr(pyo3::intern!(py, "flags"))?.getattr(pyo3::intern!(py, "writeable"))?.extract()
}

/// Exactly N bytes, or `InvalidInputError(code)`.
pub fn exactly<const N: usize>(bytes: &[u8], code: &'static str) -> PyResult<[u8; N]> {
    bytes.try_into().map_err(|_| raise_code(Kind::InvalidInput, code))
}

/// A read-only n x 32 array around the digests, without a copy; it can be passed back in without one too.
pub fn digests_to_py(py: Python<'_>, digests: Vec<Digest>) -> PyResult<Bound<'_, PyArray2<u8>>> {
    let count = digests.len();
    let array = PyArray1::from_vec(py, digests.into_flattened()).reshape([count, 32])?;
    array.readwrite().make_nonwriteable();
    Ok(array)
}
