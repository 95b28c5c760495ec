//! The key store, as Python sees it. Values leave as `bytes`, which Python cannot wipe.

use std::path::Path;
use std::sync::{Arc, RwLock};

use ehrfast_core::store::files::RealFiles;
use ehrfast_core::store::key_store::{self, Entry, KeyStoreError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;

use crate::buffer::exactly;
use crate::errors::{Detail, Kind, Named, raise, raise_code};

impl Named for KeyStoreError {
    fn kind(&self) -> Kind {
        match self {
            KeyStoreError::Io(_) => Kind::Unavailable,
            KeyStoreError::Randomness(below) => below.kind(),
            KeyStoreError::Missing => Kind::NotFound,
            KeyStoreError::Exists | KeyStoreError::KeyExists { .. } | KeyStoreError::HeightGoesBack { .. } => {
                Kind::Conflict
            }
            KeyStoreError::WrongRootKey => Kind::Denied,
            KeyStoreError::SlotsDamaged | KeyStoreError::HeadDamaged | KeyStoreError::RecordDamaged { .. } => {
                Kind::Corruption
            }
            KeyStoreError::InvalidEntry | KeyStoreError::ReadOnly => Kind::InvalidInput,
            KeyStoreError::Poisoned => Kind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            KeyStoreError::Io(below) => below.code(),
            KeyStoreError::Randomness(below) => below.code(),
            KeyStoreError::Missing => "keys.missing_store",
            KeyStoreError::Exists => "keys.store_exists",
            KeyStoreError::WrongRootKey => "keys.wrong_root_key",
            KeyStoreError::SlotsDamaged => "keys.slots_damaged",
            KeyStoreError::HeadDamaged => "keys.head_damaged",
            KeyStoreError::RecordDamaged { .. } => "keys.record_damaged",
            KeyStoreError::KeyExists { .. } => "keys.exists",
            KeyStoreError::InvalidEntry => "keys.invalid_entry",
            KeyStoreError::HeightGoesBack { .. } => "keys.height_goes_back",
            KeyStoreError::ReadOnly => "keys.read_only",
            KeyStoreError::Poisoned => "keys.poisoned",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            KeyStoreError::Io(below) => below.details(),
            KeyStoreError::RecordDamaged { offset } => vec![("offset", Detail::Number(*offset))],
            KeyStoreError::KeyExists { kind } => vec![("kind", Detail::Text(kind.clone()))],
            KeyStoreError::HeightGoesBack { applied, asked } => {
                vec![("applied", Detail::Number(*applied)), ("asked", Detail::Number(*asked))]
            }
            _ => Vec::new(),
        }
    }
}

/// An open key store; closed, it answers `keys.closed`.
#[pyclass(frozen, module = "ehrfast._core")]
pub struct KeyStore {
    inner: RwLock<Option<Arc<key_store::KeyStore>>>,
}

impl KeyStore {
    fn around(inner: key_store::KeyStore) -> Self {
        KeyStore { inner: RwLock::new(Some(Arc::new(inner))) }
    }

    /// The store, for the log and for calls without the GIL.
    pub fn open_store(&self) -> PyResult<Arc<key_store::KeyStore>> {
        let inner = self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.clone().ok_or_else(|| raise_code(Kind::Conflict, "keys.closed"))
    }
}

#[pymethods]
impl KeyStore {
    #[staticmethod]
    fn create(py: Python<'_>, folder: &str, root_key: &[u8]) -> PyResult<Self> {
        let root = exactly(root_key, "keys.root_key_length")?;
        py.detach(|| key_store::KeyStore::create(Arc::new(RealFiles), Path::new(folder), &root))
            .map(Self::around)
            .map_err(raise)
    }

    #[staticmethod]
    #[pyo3(signature = (folder, root_key, *, read_only=false))]
    fn open(py: Python<'_>, folder: &str, root_key: &[u8], read_only: bool) -> PyResult<Self> {
        let root = exactly(root_key, "keys.root_key_length")?;
        py.detach(|| key_store::KeyStore::open(Arc::new(RealFiles), Path::new(folder), &root, read_only))
            .map(Self::around)
            .map_err(raise)
    }

    fn get<'py>(&self, py: Python<'py>, kind: &str, id: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.open_store()?.get(kind, id).map(|value| PyBytes::new(py, &value)))
    }

    fn ids<'py>(&self, py: Python<'py>, kind: &str) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        Ok(self.open_store()?.ids(kind).iter().map(|id| PyBytes::new(py, id)).collect())
    }

    fn kinds(&self) -> PyResult<Vec<String>> {
        Ok(self.open_store()?.kinds())
    }

    fn put(&self, py: Python<'_>, entries: Vec<(PyBackedStr, PyBackedBytes, PyBackedBytes)>) -> PyResult<()> {
        let store = self.open_store()?;
        py.detach(|| {
            let entries = entries.iter().map(|(kind, id, value)| Entry { kind, id, value });
            store.put(&entries.collect::<Vec<_>>())
        })
        .map_err(raise)
    }

    fn forget(
        &self,
        py: Python<'_>,
        ids: Vec<(PyBackedStr, PyBackedBytes)>,
        applied_erasure_height: u64,
    ) -> PyResult<()> {
        let store = self.open_store()?;
        py.detach(|| {
            let ids = ids.iter().map(|(kind, id)| (&**kind, &**id));
            store.forget(&ids.collect::<Vec<_>>(), applied_erasure_height)
        })
        .map_err(raise)
    }

    fn replace(&self, py: Python<'_>, kind: &str, id: &[u8], value: &[u8]) -> PyResult<()> {
        let store = self.open_store()?;
        py.detach(|| store.replace(&Entry { kind, id, value })).map_err(raise)
    }

    fn rotate_root(&self, py: Python<'_>, root_key: &[u8]) -> PyResult<()> {
        let root = exactly(root_key, "keys.root_key_length")?;
        let store = self.open_store()?;
        py.detach(|| store.rotate_root(&root)).map_err(raise)
    }

    #[getter]
    fn applied_erasure_height(&self) -> PyResult<u64> {
        Ok(self.open_store()?.applied_erasure_height())
    }

    #[getter]
    fn generation(&self) -> PyResult<u64> {
        Ok(self.open_store()?.generation())
    }

    #[getter]
    fn damaged_copies(&self) -> PyResult<usize> {
        Ok(self.open_store()?.damaged_copies())
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.open_store()?.count())
    }

    fn close(&self) {
        *self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }
}

#[pyfunction]
fn derive_root_key<'py>(py: Python<'py>, passphrase: &str, salt: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let key = py.detach(|| key_store::derive_root_key(passphrase, salt)).map_err(raise)?;
    Ok(PyBytes::new(py, &*key))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<KeyStore>()?;
    module.add_function(wrap_pyfunction!(derive_root_key, module)?)
}
