//! Signing keys and verdicts on signatures, as Python sees them.

use ehrfast_core::digest::Inputs;
use ehrfast_core::signature::{self, Item, SignatureError};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{Buffer, Offsets, exactly};
use crate::errors::{Detail, Kind, Named, raise, raise_code};

impl Named for SignatureError {
    fn kind(&self) -> Kind {
        match self {
            SignatureError::Invalid => Kind::Verification,
            SignatureError::Random(error) => error.kind(),
            SignatureError::NotAPoint | SignatureError::NotCanonical | SignatureError::SmallOrder => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            SignatureError::Invalid => "signature.invalid",
            SignatureError::NotAPoint => "key.not_a_point",
            SignatureError::NotCanonical => "key.not_canonical",
            SignatureError::SmallOrder => "key.small_order",
            SignatureError::Random(error) => error.code(),
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            SignatureError::Random(error) => error.details(),
            _ => Vec::new(),
        }
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct SigningKey {
    pub inner: signature::SigningKey,
}

#[pymethods]
impl SigningKey {
    #[staticmethod]
    fn generate() -> PyResult<Self> {
        Ok(SigningKey { inner: signature::SigningKey::generate().map_err(raise)? })
    }

    #[staticmethod]
    fn from_seed(seed: &[u8]) -> PyResult<Self> {
        let seed = zeroize::Zeroizing::new(exactly::<32>(seed, "key.wrong_length")?);
        Ok(SigningKey { inner: signature::SigningKey::from_seed(&seed) })
    }

    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.public_key())
    }

    fn seed<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.seed())
    }

    fn sign<'py>(&self, py: Python<'py>, message: Buffer<'_>) -> PyResult<Bound<'py, PyBytes>> {
        let message = message.as_slice()?;
        Ok(PyBytes::new(py, &py.detach(|| self.inner.sign(message))))
    }

    fn __repr__(&self) -> String {
        let digits: String = self.inner.public_key().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("SigningKey(public_key={digits})")
    }

    /// Pickling would put the seed where nobody wipes it.
    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a SigningKey cannot be pickled or copied"))
    }
}

#[pyfunction]
fn verify_signature(py: Python<'_>, public_key: &[u8], message: Buffer<'_>, signature: &[u8]) -> PyResult<()> {
    let public_key = exactly(public_key, "key.wrong_length")?;
    let signature = exactly(signature, "signature.wrong_length")?;
    let message = message.as_slice()?;
    py.detach(|| signature::verify(&public_key, message, &signature)).map_err(raise)
}

#[pyfunction]
fn verify_signatures<'py>(
    py: Python<'py>,
    public_keys: Buffer<'_>,
    messages: Buffer<'_>,
    offsets: Offsets<'_>,
    signatures: Buffer<'_>,
) -> PyResult<Bound<'py, PyArray1<bool>>> {
    let public_keys = public_keys.as_arrays::<32>()?;
    let signatures = signatures.as_arrays::<64>()?;
    let messages = offsets.items(&messages)?;
    if public_keys.len() != messages.count() || signatures.len() != messages.count() {
        return Err(raise_code(Kind::InvalidInput, "input.counts_differ"));
    }
    let verdicts = py.detach(|| {
        let items: Vec<_> = (public_keys.iter().zip(signatures).enumerate())
            .map(|(index, (public_key, signature))| Item { public_key, message: messages.at(index), signature })
            .collect();
        signature::verify_batch(&items)
    });
    let array = PyArray1::from_vec(py, verdicts);
    array.readwrite().make_nonwriteable();
    Ok(array)
}

#[pyfunction]
fn check_public_key(public_key: &[u8]) -> PyResult<()> {
    signature::check_public_key(&exactly(public_key, "key.wrong_length")?).map_err(raise)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SigningKey>()?;
    module.add_function(wrap_pyfunction!(verify_signature, module)?)?;
    module.add_function(wrap_pyfunction!(verify_signatures, module)?)?;
    module.add_function(wrap_pyfunction!(check_public_key, module)?)
}
