//! Grants, as Python sees them.

use std::sync::Arc;

use ehrfast_core::grant::{self, GrantContext, GrantError, Suite};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{Buffer, exactly};
use crate::envelope::{ClassKey, ClassPublicKey};
use crate::errors::{Detail, Kind, Named, raise};

impl Named for GrantError {
    fn kind(&self) -> Kind {
        match self {
            GrantError::NoRandomness => Kind::Unavailable,
            GrantError::Malformed(_) | GrantError::Suite | GrantError::PublicKey | GrantError::Origin => {
                Kind::InvalidInput
            }
            _ => Kind::Verification,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            GrantError::Malformed(_) => "grant.malformed",
            GrantError::Suite => "grant.suite",
            GrantError::PublicKey => "grant.public_key",
            GrantError::Origin => "grant.origin",
            GrantError::OtherSubject => "grant.other_subject",
            GrantError::OtherCustodian => "grant.other_custodian",
            GrantError::OtherClass => "grant.other_class",
            GrantError::OtherEpoch => "grant.other_epoch",
            GrantError::CannotOpen => "grant.cannot_open",
            GrantError::OtherSeed => "grant.other_seed",
            GrantError::NoRandomness => "random.unavailable",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            GrantError::Malformed(error) => {
                error.offset().map(|offset| ("offset", Detail::Number(offset as u64))).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct GrantKey {
    inner: grant::GrantKey,
}

#[pymethods]
impl GrantKey {
    #[staticmethod]
    #[pyo3(signature = (suite = "x25519"))]
    fn generate(suite: &str) -> PyResult<Self> {
        let inner = Suite::from_name(suite).and_then(grant::GrantKey::generate).map_err(raise)?;
        Ok(GrantKey { inner })
    }

    #[staticmethod]
    #[pyo3(signature = (seed, suite = "x25519"))]
    fn from_seed(seed: &[u8], suite: &str) -> PyResult<Self> {
        let seed = exactly(seed, "key.wrong_length")?;
        let inner = Suite::from_name(suite).and_then(|suite| grant::GrantKey::from_seed(suite, &seed));
        Ok(GrantKey { inner: inner.map_err(raise)? })
    }

    #[getter]
    fn suite(&self) -> &'static str {
        self.inner.suite().name()
    }

    #[getter]
    fn seed<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.seed())
    }

    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.public_key())
    }

    fn __repr__(&self) -> String {
        format!("<GrantKey {}>", self.inner.suite().name())
    }
}

/// `ClassKey.grant`.
pub fn seal(
    py: Python<'_>,
    key: &ehrfast_core::envelope::ClassKey,
    recipient_public_key: &[u8],
    origin: &str,
    recipient: &[u8],
    suite: &str,
) -> PyResult<Vec<u8>> {
    let suite = Suite::from_name(suite).map_err(raise)?;
    let context = GrantContext { origin, recipient: exactly(recipient, "grant.recipient_length")? };
    py.detach(|| grant::grant(key, suite, recipient_public_key, &context)).map_err(raise)
}

#[pyfunction]
#[pyo3(signature = (grant, key, posted, *, origin, recipient))]
fn open_grant(
    py: Python<'_>,
    grant: Buffer<'_>,
    key: &Bound<'_, GrantKey>,
    posted: &Bound<'_, ClassPublicKey>,
    origin: &str,
    recipient: &[u8],
) -> PyResult<ClassKey> {
    let context = GrantContext { origin, recipient: exactly(recipient, "grant.recipient_length")? };
    let (data, key, posted) = (grant.as_slice()?, key.get(), posted.get());
    let opened = py.detach(|| grant::open_grant(data, &key.inner, &posted.inner, &context)).map_err(raise)?;
    Ok(ClassKey { inner: Arc::new(opened) })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<GrantKey>()?;
    module.add_function(wrap_pyfunction!(open_grant, module)?)
}
