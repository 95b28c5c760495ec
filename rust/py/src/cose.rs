//! COSE_Sign1 and COSE_Sign, as Python sees them: a bad signature raises, it is never a return value.

use ehrfast_core::cbor::DEFAULT_MAX_BYTES;
use ehrfast_core::cose::{self, CoseError, Sign, Sign1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::buffer::Buffer;
use crate::errors::{Detail, Kind, Named, raise};
use crate::signature::SigningKey;

impl Named for CoseError {
    fn kind(&self) -> Kind {
        match self {
            CoseError::Signature { .. } => Kind::Verification,
            _ => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            CoseError::Malformed(_) => "cose.malformed",
            CoseError::NoSigner => "cose.no_signer",
            CoseError::SignerOrder { .. } => "cose.signer_order",
            CoseError::Signature { .. } => "signature.invalid",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match *self {
            CoseError::Malformed(error) => reason(&error),
            CoseError::SignerOrder { position } | CoseError::Signature { position } => {
                vec![("position", Detail::Number(position as u64))]
            }
            CoseError::NoSigner => Vec::new(),
        }
    }
}

/// What a CBOR error adds to the error of the format it was found in.
pub(crate) fn reason(error: &ehrfast_core::cbor::Error) -> Vec<(&'static str, Detail)> {
    let mut details = error.details();
    details.push(("reason", Detail::Text(error.code().to_owned())));
    details
}

#[pyfunction]
fn cose_sign1<'py>(
    py: Python<'py>,
    key: &Bound<'py, SigningKey>,
    payload: &[u8],
    external_aad: &[u8],
) -> Bound<'py, PyBytes> {
    let key = &key.get().inner;
    PyBytes::new(py, &py.detach(|| cose::sign1(key, payload, external_aad)))
}

#[pyfunction]
fn cose_verify1<'py>(
    py: Python<'py>,
    message: Buffer<'py>,
    external_aad: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let message = message.as_slice()?;
    let verified = py
        .detach(|| {
            let message = Sign1::decode(message, DEFAULT_MAX_BYTES)?;
            message.verify(external_aad)?;
            Ok::<_, CoseError>(message)
        })
        .map_err(raise)?;
    Ok((PyBytes::new(py, verified.payload), PyBytes::new(py, verified.key)))
}

#[pyfunction]
fn cose_sign<'py>(
    py: Python<'py>,
    keys: Vec<Py<SigningKey>>,
    payload: &[u8],
    external_aad: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let signed = py.detach(|| cose::sign(keys.iter().map(|key| &key.get().inner), payload, external_aad));
    Ok(PyBytes::new(py, &signed.map_err(raise)?))
}

#[pyfunction]
fn cose_verify<'py>(
    py: Python<'py>,
    message: Buffer<'py>,
    external_aad: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyTuple>)> {
    let message = message.as_slice()?;
    let verified = py
        .detach(|| {
            let message = Sign::decode(message, DEFAULT_MAX_BYTES)?;
            message.verify(external_aad)?;
            Ok::<_, CoseError>(message)
        })
        .map_err(raise)?;
    let keys = PyTuple::new(py, verified.signatures.iter().map(|(key, _)| PyBytes::new(py, key)))?;
    Ok((PyBytes::new(py, verified.payload), keys))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cose_sign1, module)?)?;
    module.add_function(wrap_pyfunction!(cose_verify1, module)?)?;
    module.add_function(wrap_pyfunction!(cose_sign, module)?)?;
    module.add_function(wrap_pyfunction!(cose_verify, module)?)
}
