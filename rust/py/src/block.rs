//! Blocks, as Python sees them.
use std::sync::Arc;

use pyo3::prelude::*;

#[pyclass(frozen, module = "ehrfast._core")]
pub struct Block {
    pub inner: Arc<ehrfast_core::block::Block>,
}

pub fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
