//! Signatures, as Python sees them.
use pyo3::prelude::*;

#[pyclass(frozen, module = "ehrfast._core")]
pub struct SigningKey {
    pub inner: ehrfast_core::signature::SigningKey,
}

pub fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
