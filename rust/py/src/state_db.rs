//! The state database, as Python sees it.
use std::sync::Arc;

use ehrfast_core::state::StateRead;
use pyo3::prelude::*;

#[pyclass(frozen, module = "ehrfast._core")]
pub struct StateDb {
    pub reader: Arc<dyn StateRead>,
}

pub fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
