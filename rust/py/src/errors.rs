//! Core errors become the exceptions of `ehrfast.errors`, here and nowhere else.
//! Each core error enum implements `Named` (kind, stable code, details); details hold numbers and ids, never content.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// Which exception class of `ehrfast.errors` is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    InvalidInput,
    Verification,
    Denied,
    NotFound,
    Conflict,
    Unavailable,
    Corruption,
}

/// One named detail of an error.
#[derive(Clone, Debug)]
pub enum Detail {
    Number(u64),
    Text(String),
    Flag(bool),
}

/// What a core error says of itself at the Python border.
pub trait Named {
    fn kind(&self) -> Kind;
    /// A stable code such as `proof.index_out_of_range`.
    fn code(&self) -> &'static str;
    fn details(&self) -> Vec<(&'static str, Detail)> {
        Vec::new()
    }
}

impl Kind {
    fn class_name(self) -> &'static str {
        match self {
            Kind::InvalidInput => "InvalidInputError",
            Kind::Verification => "VerificationError",
            Kind::Denied => "DeniedError",
            Kind::NotFound => "NotFoundError",
            Kind::Conflict => "ConflictError",
            Kind::Unavailable => "UnavailableError",
            Kind::Corruption => "CorruptionError",
        }
    }
}

static ERRORS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// Builds the Python exception for a core error; use as `.map_err(raise)`.
pub fn raise<E: Named>(error: E) -> PyErr {
    Python::attach(|py| build(py, error.kind(), error.code(), error.details()).unwrap_or_else(|e| e))
}

/// The same for a check made in the binding itself.
pub fn raise_code(kind: Kind, code: &'static str) -> PyErr {
    Python::attach(|py| build(py, kind, code, Vec::new()).unwrap_or_else(|e| e))
}

fn build(py: Python<'_>, kind: Kind, code: &str, details: Vec<(&'static str, Detail)>) -> PyResult<PyErr> {
    let module = ERRORS.get_or_try_init(py, || py.import("ehrfast.errors").map(Bound::unbind))?;
    let mapping = PyDict::new(py);
    for (name, detail) in details {
        let value = match detail {
            Detail::Number(number) => number.into_bound_py_any(py)?,
            Detail::Text(text) => text.into_bound_py_any(py)?,
            Detail::Flag(flag) => flag.into_bound_py_any(py)?,
        };
        mapping.set_item(name, value)?;
    }
    let exception = module.bind(py).getattr(kind.class_name())?.call1((code, mapping))?;
    Ok(PyErr::from_value(exception))
}
