//! StateView and WriteSet, as Python sees them.
//! The GIL stays held while a value is read from the state database: a call reads many of them, each takes a few
//! microseconds, and getting the GIL back from a busy thread could take milliseconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ehrfast_core::cbor::Writer;
use ehrfast_core::state::{self, EmptyState, Path, StateError, StateRead, ViewError, WriteSetError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyList, PyType};

use crate::buffer::Buffer;
use crate::cbor::{decode_py, encode_py, write_py};
use crate::errors::{Detail, Kind, Named, raise};
use crate::state_db::StateDb;

fn hex(path: &Path) -> Detail {
    Detail::Text(path.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Named for StateError {
    fn kind(&self) -> Kind {
        match self {
            StateError::Unavailable(_) => Kind::Unavailable,
            StateError::Corrupt(_) => Kind::Corruption,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            StateError::Unavailable(_) => "state.unavailable",
            StateError::Corrupt(_) => "state.corrupt",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            StateError::Unavailable(_) => Vec::new(),
            StateError::Corrupt(path) => vec![("path", hex(path))],
        }
    }
}

impl Named for ViewError {
    fn kind(&self) -> Kind {
        match self {
            ViewError::State(below) => below.kind(),
            ViewError::Sealed => Kind::Conflict,
            _ => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            ViewError::State(below) => below.code(),
            ViewError::NoFrame => "state.no_frame",
            ViewError::OpenFrames(_) => "state.open_frames",
            ViewError::TooDeep => "state.too_deep",
            ViewError::Sealed => "state.sealed",
            ViewError::SaltLength(_) => "state.salt_length",
            ViewError::ContractLength(_) => "state.contract_length",
            ViewError::ContractName(_) => "state.contract_name",
            ViewError::KeyTooLarge(_) => "state.key_too_large",
            ViewError::ValueLength(_) => "state.value_length",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            ViewError::State(below) => below.details(),
            ViewError::OpenFrames(count) => vec![("count", Detail::Number(*count as u64))],
            ViewError::SaltLength(size)
            | ViewError::ContractLength(size)
            | ViewError::KeyTooLarge(size)
            | ViewError::ValueLength(size) => vec![("size", Detail::Number(*size as u64))],
            ViewError::NoFrame | ViewError::TooDeep | ViewError::Sealed | ViewError::ContractName(_) => Vec::new(),
        }
    }
}

impl Named for WriteSetError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn code(&self) -> &'static str {
        match self {
            WriteSetError::Encoding(below) => below.code(),
            WriteSetError::Order(_) => "write_set.order",
            WriteSetError::ValueLength(_) => "write_set.value_length",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            WriteSetError::Encoding(below) => Named::details(below),
            WriteSetError::Order(position) | WriteSetError::ValueLength(position) => {
                vec![("position", Detail::Number(*position as u64))]
            }
        }
    }
}

/// The path of a Python key: one encoder for the view, for proofs and for tests.
pub fn path_of(contract: &str, key: &Bound<'_, PyAny>) -> PyResult<Path> {
    let mut encoded = Writer::with_capacity(64);
    write_py(&mut encoded, key, 1)?;
    state::path(contract, encoded.as_bytes()).map_err(raise)
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct WriteSet {
    pub inner: Arc<state::WriteSet>,
}

#[pymethods]
impl WriteSet {
    fn __len__(&self) -> usize {
        self.inner.writes.len() + self.inner.erased.len()
    }

    #[getter]
    fn erased<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let pair = |(path, digest): &(Path, [u8; 32])| (PyBytes::new(py, path), PyBytes::new(py, digest));
        PyList::new(py, self.inner.erased.iter().map(pair))
    }

    fn __repr__(&self) -> String {
        format!("<WriteSet of {} writes>", self.__len__())
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let pair = |(path, stored): &(Path, Option<Vec<u8>>)| {
            (PyBytes::new(py, path), stored.as_ref().map(|bytes| PyBytes::new(py, bytes)))
        };
        PyList::new(py, self.inner.writes.iter().map(pair))?.try_iter()
    }

    fn encode<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let encoded = py.detach(|| self.inner.encode());
        PyBytes::new(py, &encoded)
    }

    #[classmethod]
    fn decode(class: &Bound<'_, PyType>, data: Buffer<'_>) -> PyResult<Self> {
        let data = data.as_slice()?;
        let inner = class.py().detach(|| state::WriteSet::decode(data)).map_err(raise)?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct StateView {
    inner: Mutex<state::StateView>,
}

impl StateView {
    fn lock(&self) -> MutexGuard<'_, state::StateView> {
        // Nothing panics while the lock is held; if it did, the maps would still be whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self, contract: &str, key: &Bound<'_, PyAny>) -> PyResult<Option<(Path, state::Stored)>> {
        let path = path_of(contract, key)?;
        let stored = self.lock().get(&path).map_err(raise)?;
        Ok(stored.map(|stored| (path, stored)))
    }
}

#[pymethods]
impl StateView {
    #[new]
    #[pyo3(signature = (state, parent = None))]
    fn new(state: Option<&Bound<'_, StateDb>>, parent: Option<&Bound<'_, Self>>) -> PyResult<Self> {
        let base: Arc<dyn StateRead> = match state {
            Some(state) => Arc::clone(&state.get().reader),
            None => Arc::new(EmptyState),
        };
        let view = match parent {
            Some(parent) => state::StateView::over(base, &mut parent.get().lock()).map_err(raise)?,
            None => state::StateView::new(base),
        };
        Ok(Self { inner: Mutex::new(view) })
    }

    fn begin(&self, salt: &[u8]) -> PyResult<()> {
        self.lock().begin(salt).map_err(raise)
    }

    fn get(&self, py: Python<'_>, contract: &str, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let Some((path, stored)) = self.stored(contract, key)? else { return Ok(None) };
        decode_py(py, stored.value()).map(Some).map_err(|_| raise(StateError::Corrupt(path)))
    }

    fn get_bytes<'py>(
        &self,
        py: Python<'py>,
        contract: &str,
        key: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.stored(contract, key)?.map(|(_, stored)| PyBytes::new(py, stored.value())))
    }

    fn put(&self, contract: &str, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let path = path_of(contract, key)?;
        let value = encode_py(value)?;
        self.lock().put(&path, &value).map_err(raise)
    }

    fn delete(&self, contract: &str, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let path = path_of(contract, key)?;
        self.lock().delete(&path).map_err(raise)
    }

    fn accept(&self) -> PyResult<u64> {
        self.lock().accept().map_err(raise)
    }

    fn drop_frame(&self) -> PyResult<()> {
        self.lock().drop_frame().map_err(raise)
    }

    #[getter]
    fn depth(&self) -> usize {
        self.lock().depth()
    }

    fn write_set(&self) -> PyResult<WriteSet> {
        let inner = self.lock().write_set().map_err(raise)?;
        Ok(WriteSet { inner: Arc::new(inner) })
    }

    fn detach_parent(&self) {
        self.lock().detach_parent();
    }
}

#[pyfunction]
fn state_path<'py>(py: Python<'py>, contract: &str, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &path_of(contract, key)?))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<WriteSet>()?;
    module.add_class::<StateView>()?;
    module.add_function(wrap_pyfunction!(state_path, module)?)
}
