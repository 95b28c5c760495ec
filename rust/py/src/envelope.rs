//! Sealing and opening, as Python sees it.
use std::sync::Arc;

use pyo3::prelude::*;

#[pyclass(frozen, module = "ehrfast._core")]
pub struct SealedPack {
    pub inner: Arc<ehrfast_core::envelope::SealedPack>,
}

pub fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
