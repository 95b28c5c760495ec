//! Digests, derived keys and random bytes, as Python sees them.

use std::sync::{Mutex, PoisonError};

use ehrfast_core::digest::{self, Hasher, Use};
use ehrfast_core::pool::{self, PoolError};
use ehrfast_core::simd::{self, SimdError};
use numpy::PyArray2;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{Buffer, Offsets, digests_to_py, exactly};
use crate::cbor::encode_py;
use crate::errors::{Detail, Kind, Named, raise};

impl Named for SimdError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn code(&self) -> &'static str {
        match self {
            SimdError::UnknownTier { .. } => "simd.unknown_tier",
            SimdError::Unsupported { .. } => "simd.unsupported",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            SimdError::UnknownTier { setting } => vec![("EHRFAST_SIMD", Detail::Text(setting.clone()))],
            SimdError::Unsupported { tier } => vec![("EHRFAST_SIMD", Detail::Text(tier.name().to_owned()))],
        }
    }
}

impl Named for PoolError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn code(&self) -> &'static str {
        match self {
            PoolError::ThreadCount { .. } => "pool.thread_count",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            PoolError::ThreadCount { setting } => vec![("EHRFAST_THREADS", Detail::Text(setting.clone()))],
        }
    }
}

/// Shorter inputs are hashed faster than the GIL is given back and taken again.
const WORTH_DETACHING: usize = 4096;

fn one(py: Python<'_>, data: &[u8], hash: impl FnOnce(&[u8]) -> digest::Digest + Send) -> Py<PyBytes> {
    let digest = if data.len() < WORTH_DETACHING { hash(data) } else { py.detach(|| hash(data)) };
    PyBytes::new(py, &digest).unbind()
}

#[pyfunction]
fn blake3_digest(py: Python<'_>, data: Buffer<'_>) -> PyResult<Py<PyBytes>> {
    Ok(one(py, data.as_slice()?, digest::blake3))
}

#[pyfunction]
fn blake3_digests<'py>(py: Python<'py>, data: Buffer<'_>, offsets: Offsets<'_>) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let items = offsets.items(&data)?;
    digests_to_py(py, py.detach(|| digest::blake3_many(&items)))
}

#[pyfunction]
fn sha256_digests<'py>(py: Python<'py>, data: Buffer<'_>, offsets: Offsets<'_>) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let items = offsets.items(&data)?;
    digests_to_py(py, py.detach(|| digest::sha256_many(&items)))
}

#[pyfunction]
#[pyo3(signature = (r#use, data))]
fn keyed_digest(py: Python<'_>, r#use: &str, data: Buffer<'_>) -> PyResult<Py<PyBytes>> {
    let key_use = Use::from_name(r#use).map_err(raise)?;
    Ok(one(py, data.as_slice()?, |data| digest::keyed(key_use, &[data])))
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct KeyedHasher {
    inner: Mutex<Hasher>,
}

#[pymethods]
impl KeyedHasher {
    #[new]
    #[pyo3(signature = (r#use))]
    fn new(r#use: &str) -> PyResult<Self> {
        let key_use = Use::from_name(r#use).map_err(raise)?;
        Ok(KeyedHasher { inner: Mutex::new(digest::keyed_hasher(key_use)) })
    }

    fn update(&self, py: Python<'_>, data: Buffer<'_>) -> PyResult<()> {
        let data = data.as_slice()?;
        py.detach(|| _ = self.inner.lock().unwrap_or_else(PoisonError::into_inner).update(data));
        Ok(())
    }

    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        PyBytes::new(py, inner.finalize().as_bytes())
    }
}

#[pyfunction]
#[pyo3(signature = (r#use, data, offsets))]
fn keyed_digests<'py>(
    py: Python<'py>,
    r#use: &str,
    data: Buffer<'_>,
    offsets: Offsets<'_>,
) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let key_use = Use::from_name(r#use).map_err(raise)?;
    let items = offsets.items(&data)?;
    digests_to_py(py, py.detach(|| digest::keyed_many(key_use, &items)))
}

#[pyfunction]
#[pyo3(signature = (r#use, key, info))]
fn derive<'py>(py: Python<'py>, r#use: &str, key: &[u8], info: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let key_use = Use::from_name(r#use).map_err(raise)?;
    let key = exactly(key, "key.wrong_length")?;
    Ok(PyBytes::new(py, &digest::derive(key_use, &key, &encode_py(info)?)))
}

#[pyfunction]
fn random_bytes(py: Python<'_>, count: usize) -> PyResult<Bound<'_, PyBytes>> {
    PyBytes::new_with(py, count, |out| digest::random_bytes(out).map_err(raise))
}

#[pyfunction]
fn simd_tier() -> &'static str {
    simd::lanes().tier().name()
}

#[pyfunction]
fn thread_count() -> usize {
    pool::threads()
}

/// A wrong setting is refused here, when the module is loaded, and never silently replaced.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    simd::configured_tier().map_err(raise)?;
    pool::configured_threads().map_err(raise)?;
    module.add_class::<KeyedHasher>()?;
    module.add_function(wrap_pyfunction!(simd_tier, module)?)?;
    module.add_function(wrap_pyfunction!(thread_count, module)?)?;
    module.add_function(wrap_pyfunction!(blake3_digest, module)?)?;
    module.add_function(wrap_pyfunction!(blake3_digests, module)?)?;
    module.add_function(wrap_pyfunction!(sha256_digests, module)?)?;
    module.add_function(wrap_pyfunction!(keyed_digest, module)?)?;
    module.add_function(wrap_pyfunction!(keyed_digests, module)?)?;
    module.add_function(wrap_pyfunction!(derive, module)?)?;
    module.add_function(wrap_pyfunction!(random_bytes, module)?)
}
