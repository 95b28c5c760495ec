//! Transactions, as Python sees them. Batches are decoded, hashed and verified with the GIL released.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ehrfast_core::digest;
use ehrfast_core::transaction::{self as core, Attachment, Draft, MAX_BYTES, TransactionError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::buffer::{Buffer, exactly};
use crate::cbor::{decode_py, encode_py};
use crate::cose::reason;
use crate::errors::{Detail, Kind, Named, raise};
use crate::signature::SigningKey;

impl Named for TransactionError {
    fn kind(&self) -> Kind {
        match self {
            TransactionError::Signature => Kind::Verification,
            TransactionError::Random(error) => error.kind(),
            _ => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        TransactionError::code(self)
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            TransactionError::Malformed(error) => reason(error),
            TransactionError::Field { key } => vec![("field", Detail::Number((*key).into()))],
            TransactionError::TooLarge { size, limit } => {
                vec![("size", Detail::Number(*size as u64)), ("limit", Detail::Number(*limit as u64))]
            }
            TransactionError::Random(error) => error.details(),
            TransactionError::WrongChain | TransactionError::Signature => Vec::new(),
        }
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct Transaction {
    pub inner: Arc<core::Transaction>,
}

impl From<core::Transaction> for Transaction {
    fn from(inner: core::Transaction) -> Self {
        Transaction { inner: Arc::new(inner) }
    }
}

#[pymethods]
impl Transaction {
    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.id)
    }

    #[getter]
    fn sender<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.sender)
    }

    #[getter]
    fn chain_id(&self) -> &str {
        &self.inner.chain_id
    }

    #[getter]
    fn contract(&self) -> &str {
        &self.inner.contract
    }

    #[getter]
    fn method(&self) -> &str {
        &self.inner.method
    }

    #[getter]
    fn args(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        decode_py(py, &self.inner.args)
    }

    #[getter]
    fn lane(&self) -> u8 {
        self.inner.lane
    }

    #[getter]
    fn expires(&self) -> u64 {
        self.inner.expires
    }

    #[getter]
    fn salt<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.salt)
    }

    #[getter]
    fn attachments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let pairs = self.inner.attachments.iter();
        PyTuple::new(py, pairs.map(|(pack, wraps)| (PyBytes::new(py, pack), PyBytes::new(py, wraps))))
    }

    #[getter]
    fn received<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.received)
    }

    #[getter]
    fn received_digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.received_digest)
    }

    fn __len__(&self) -> usize {
        self.inner.received.len()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Transaction>().is_ok_and(|other| self.inner.received == other.get().inner.received)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.inner.received_digest.hash(&mut hasher);
        hasher.finish()
    }

    /// No argument is shown: even ids say who was treated where.
    fn __repr__(&self) -> String {
        let id: String = self.inner.id.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("Transaction(id={id}, call={}.{})", self.inner.contract, self.inner.method)
    }
}

/// A number of a field, or the error that names the field.
fn number<T: for<'a, 'py> FromPyObject<'a, 'py>>(value: &Bound<'_, PyAny>, key: u8) -> PyResult<T> {
    value.extract().map_err(|_| raise(TransactionError::Field { key }))
}

#[pyfunction]
#[pyo3(signature = (key, chain_id, contract, method, args, *, lane, expires, salt = None, attachments = Vec::new()))]
#[allow(clippy::too_many_arguments)]
fn sign_transaction(
    py: Python<'_>,
    key: &Bound<'_, SigningKey>,
    chain_id: &str,
    contract: &str,
    method: &str,
    args: &Bound<'_, PyAny>,
    lane: &Bound<'_, PyAny>,
    expires: &Bound<'_, PyAny>,
    salt: Option<&[u8]>,
    attachments: Vec<(PyBackedBytes, PyBackedBytes)>,
) -> PyResult<Transaction> {
    let args = encode_py(args)?;
    let (lane, expires) = (number(lane, core::LANE)?, number(expires, core::EXPIRES)?);
    let salt = match salt {
        Some(salt) => exactly(salt, "transaction.salt_length")?,
        None => digest::random_array().map_err(raise)?,
    };
    let attachments = attachments
        .iter()
        .map(|(pack, wraps)| {
            let length = "transaction.attachment_length";
            Ok((exactly(pack, length)?, exactly(wraps, length)?))
        })
        .collect::<PyResult<Vec<Attachment>>>()?;
    let draft = Draft { chain_id, contract, method, args: &args, lane, expires, salt, attachments: &attachments };
    let key = &key.get().inner;
    Ok(py.detach(|| draft.sign(key)).map_err(raise)?.into())
}

#[pyfunction]
#[pyo3(signature = (key, chain_id, contract, method, args, *, lane, expires))]
#[allow(clippy::too_many_arguments)]
fn sign_transactions(
    py: Python<'_>,
    key: &Bound<'_, SigningKey>,
    chain_id: &str,
    contract: &str,
    method: &str,
    args: Vec<Bound<'_, PyAny>>,
    lane: &Bound<'_, PyAny>,
    expires: &Bound<'_, PyAny>,
) -> PyResult<Vec<Transaction>> {
    let args = args.iter().map(encode_py).collect::<PyResult<Vec<_>>>()?;
    let (lane, expires) = (number(lane, core::LANE)?, number(expires, core::EXPIRES)?);
    let draft = Draft { chain_id, contract, method, args: &[], lane, expires, salt: [0; 16], attachments: &[] };
    let key = &key.get().inner;
    let signed = py.detach(|| core::sign_many(key, &draft, &args)).map_err(raise)?;
    Ok(signed.into_iter().map(Transaction::from).collect())
}

#[pyfunction]
fn decode_transaction(received: Buffer<'_>) -> PyResult<Transaction> {
    Ok(core::decode(received.as_slice()?).map_err(raise)?.into())
}

#[pyfunction]
#[pyo3(signature = (received, chain_id, max_bytes = MAX_BYTES))]
fn admit_transactions<'py>(
    py: Python<'py>,
    received: Vec<PyBackedBytes>,
    chain_id: &str,
    max_bytes: usize,
) -> PyResult<Bound<'py, PyList>> {
    let verdicts = py.detach(|| {
        let verdicts = core::admit(&received, chain_id, max_bytes).into_iter();
        verdicts.map(|verdict| verdict.map(Transaction::from)).collect::<Vec<_>>()
    });
    let items = PyList::empty(py);
    for verdict in verdicts {
        match verdict {
            Ok(transaction) => items.append(Bound::new(py, transaction)?)?,
            Err(error) => items.append(PyString::intern(py, error.code()))?,
        }
    }
    Ok(items)
}

#[pyfunction]
fn admit_decoded(
    py: Python<'_>,
    transactions: Vec<Py<Transaction>>,
    chain_id: &str,
    max_bytes: usize,
) -> Vec<Option<&'static str>> {
    let verdicts = py.detach(|| {
        let decoded: Vec<_> = transactions.iter().map(|transaction| Arc::clone(&transaction.get().inner)).collect();
        core::admit_decoded(&decoded, chain_id, max_bytes)
    });
    verdicts.into_iter().map(|verdict| verdict.err().map(|error| error.code())).collect()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Transaction>()?;
    module.add_function(wrap_pyfunction!(sign_transaction, module)?)?;
    module.add_function(wrap_pyfunction!(sign_transactions, module)?)?;
    module.add_function(wrap_pyfunction!(decode_transaction, module)?)?;
    module.add_function(wrap_pyfunction!(admit_transactions, module)?)?;
    module.add_function(wrap_pyfunction!(admit_decoded, module)?)
}
