//! Sealing and opening, as Python sees it.
use std::sync::Arc;

use ehrfast_core::envelope::{self, ClassId, Draft, EnvelopeError, Opened, Opening, Place, Recipient};
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{Buffer, exactly};
use crate::errors::{Detail, Kind, Named, raise, raise_code};
use crate::pieces::{self, SealedPieces};

impl Named for EnvelopeError {
    fn kind(&self) -> Kind {
        match self {
            EnvelopeError::NoRandomness => Kind::Unavailable,
            EnvelopeError::NoWrap => Kind::Denied,
            EnvelopeError::OpeningMismatch => Kind::Verification,
            EnvelopeError::CannotOpen | EnvelopeError::CommitmentMismatch | EnvelopeError::RootMismatch => {
                Kind::Corruption
            }
            EnvelopeError::At { error, .. } => error.kind(),
            _ => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            EnvelopeError::CountsDiffer { .. } => "envelope.counts_differ",
            EnvelopeError::SpanOutOfRange { .. } => "envelope.span_out_of_range",
            EnvelopeError::TooLarge { .. } => "envelope.too_large",
            EnvelopeError::RecipientCount { .. } => "envelope.recipient_count",
            EnvelopeError::DuplicateRecipient { .. } => "envelope.duplicate_recipient",
            EnvelopeError::WrongClass { .. } => "envelope.wrong_class",
            EnvelopeError::DuplicateRecord { .. } => "envelope.duplicate_record",
            EnvelopeError::ClassName => "envelope.class_name",
            EnvelopeError::Origin => "envelope.origin",
            EnvelopeError::PublicKey => "envelope.public_key",
            EnvelopeError::Malformed(_) => "envelope.malformed",
            EnvelopeError::NoRandomness => "random.unavailable",
            EnvelopeError::NoWrap => "envelope.no_wrap",
            EnvelopeError::CannotOpen => "envelope.cannot_open",
            EnvelopeError::CommitmentMismatch | EnvelopeError::OpeningMismatch => "envelope.commitment_mismatch",
            EnvelopeError::RootMismatch => "envelope.root_mismatch",
            EnvelopeError::At { error, .. } => error.code(),
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        let number = |value: usize| Detail::Number(value as u64);
        match self {
            EnvelopeError::CountsDiffer { left, right } => vec![("left", number(*left)), ("right", number(*right))],
            EnvelopeError::SpanOutOfRange { position }
            | EnvelopeError::DuplicateRecipient { position }
            | EnvelopeError::WrongClass { position }
            | EnvelopeError::DuplicateRecord { position } => vec![("position", number(*position))],
            EnvelopeError::TooLarge { position, bytes } => {
                vec![("position", number(*position)), ("bytes", number(*bytes))]
            }
            EnvelopeError::RecipientCount { position, count } => {
                vec![("position", number(*position)), ("count", number(*count))]
            }
            EnvelopeError::Malformed(error) => {
                error.offset().map(|offset| ("offset", number(offset))).into_iter().collect()
            }
            EnvelopeError::At { position, error } => {
                let mut details = error.details();
                details.push(("position", number(*position)));
                details
            }
            _ => Vec::new(),
        }
    }
}

/// An error met while reading bytes that were stored: malformed ones are corruption, not bad input.
struct Stored(EnvelopeError);

impl Stored {
    fn innermost(&self) -> &EnvelopeError {
        match &self.0 {
            EnvelopeError::At { error, .. } => error,
            error => error,
        }
    }
}

impl Named for Stored {
    fn kind(&self) -> Kind {
        match self.innermost() {
            EnvelopeError::Malformed(_) => Kind::Corruption,
            error => error.kind(),
        }
    }

    fn code(&self) -> &'static str {
        self.0.code()
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        self.0.details()
    }
}

fn class_id(subject: &[u8], custodian: &[u8], class: String, epoch: &[u8]) -> PyResult<ClassId> {
    Ok(ClassId {
        subject: exactly(subject, "envelope.subject_length")?,
        custodian: exactly(custodian, "envelope.custodian_length")?,
        class,
        epoch: exactly(epoch, "envelope.epoch_length")?,
    })
}

fn id_repr(name: &str, id: &ClassId) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!(
        "<{name} class={} subject={} custodian={} epoch={}>",
        id.class,
        hex(&id.subject),
        hex(&id.custodian),
        hex(&id.epoch)
    )
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct ClassKey {
    pub inner: Arc<envelope::ClassKey>,
}

#[pymethods]
impl ClassKey {
    #[staticmethod]
    #[pyo3(signature = (root, subject, custodian, class_, epoch))]
    fn derive(root: &[u8], subject: &[u8], custodian: &[u8], class_: String, epoch: &[u8]) -> PyResult<Self> {
        let root = exactly(root, "key.wrong_length")?;
        let id = class_id(subject, custodian, class_, epoch)?;
        let key = envelope::ClassKey::derive(&root, id).map_err(raise)?;
        Ok(ClassKey { inner: Arc::new(key) })
    }

    #[getter]
    fn subject(&self) -> &[u8] {
        &self.inner.id().subject
    }

    #[getter]
    fn custodian(&self) -> &[u8] {
        &self.inner.id().custodian
    }

    #[getter]
    fn class_(&self) -> &str {
        &self.inner.id().class
    }

    #[getter]
    fn epoch(&self) -> &[u8] {
        &self.inner.id().epoch
    }

    #[getter]
    fn kid(&self) -> &[u8] {
        self.inner.kid()
    }

    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.inner.public_key()))
    }

    #[pyo3(signature = (recipient_public_key, *, origin, recipient, suite = "x25519"))]
    fn grant<'py>(
        &self,
        py: Python<'py>,
        recipient_public_key: &[u8],
        origin: &str,
        recipient: &[u8],
        suite: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let sealed = crate::grant::seal(py, &self.inner, recipient_public_key, origin, recipient, suite)?;
        Ok(PyBytes::new(py, &sealed))
    }

    fn __repr__(&self) -> String {
        id_repr("ClassKey", self.inner.id())
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct ClassPublicKey {
    pub inner: Arc<envelope::ClassPublicKey>,
}

#[pymethods]
impl ClassPublicKey {
    #[new]
    #[pyo3(signature = (subject, custodian, class_, epoch, public_key))]
    fn new(subject: &[u8], custodian: &[u8], class_: String, epoch: &[u8], public_key: &[u8]) -> PyResult<Self> {
        let id = class_id(subject, custodian, class_, epoch)?;
        let public_key = exactly(public_key, "key.wrong_length")?;
        let key = envelope::ClassPublicKey::new(id, public_key).map_err(raise)?;
        Ok(ClassPublicKey { inner: Arc::new(key) })
    }

    #[getter]
    fn subject(&self) -> &[u8] {
        &self.inner.id().subject
    }

    #[getter]
    fn custodian(&self) -> &[u8] {
        &self.inner.id().custodian
    }

    #[getter]
    fn class_(&self) -> &str {
        &self.inner.id().class
    }

    #[getter]
    fn epoch(&self) -> &[u8] {
        &self.inner.id().epoch
    }

    #[getter]
    fn kid(&self) -> &[u8] {
        self.inner.kid()
    }

    #[getter]
    fn public_key(&self) -> &[u8] {
        self.inner.public_key()
    }

    fn __repr__(&self) -> String {
        id_repr("ClassPublicKey", self.inner.id())
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct SealedPack {
    pub inner: Arc<envelope::SealedPack>,
}

#[pymethods]
impl SealedPack {
    #[staticmethod]
    fn from_items(py: Python<'_>, items: Vec<Buffer<'_>>, wraps: Vec<Buffer<'_>>) -> PyResult<Self> {
        let owned = |parts: &[Buffer<'_>]| parts.iter().map(|part| Ok(part.as_slice()?.to_vec())).collect();
        let (items, wraps): (PyResult<Vec<_>>, PyResult<Vec<_>>) = (owned(&items), owned(&wraps));
        let (items, wraps) = (items?, wraps?);
        let pack = py.detach(|| envelope::SealedPack::from_items(items, wraps)).map_err(raise)?;
        Ok(SealedPack { inner: Arc::new(pack) })
    }

    #[getter]
    fn root(&self) -> &[u8] {
        &self.inner.root
    }

    #[getter]
    fn wraps_root(&self) -> &[u8] {
        &self.inner.wraps_root
    }

    #[getter]
    fn commitments<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.inner.commitments.iter().map(|commitment| PyBytes::new(py, commitment)).collect()
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn item<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyBytes>> {
        if self.inner.outside.contains_key(&position) {
            return Err(raise_code(Kind::NotFound, "pack.item_outside"));
        }
        part(py, &self.inner.items, position)
    }

    fn item_digest<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyBytes>> {
        let digest = self.inner.item_digest(position).ok_or_else(|| PyIndexError::new_err(position))?;
        Ok(PyBytes::new(py, &digest))
    }

    #[getter]
    fn item_sizes(&self) -> Vec<usize> {
        self.inner.items.iter().map(Vec::len).collect()
    }

    #[getter]
    fn outside(&self) -> Vec<usize> {
        self.inner.outside.keys().copied().collect()
    }

    fn without(&self, py: Python<'_>, positions: Vec<usize>) -> SealedPack {
        SealedPack { inner: Arc::new(py.detach(|| self.inner.without(&positions))) }
    }

    fn behind(&self, first: Vec<Bound<'_, SealedPieces>>) -> PyResult<SealedPack> {
        pieces::behind(self, &first)
    }

    fn wraps<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyBytes>> {
        part(py, &self.inner.wraps, position)
    }

    #[getter]
    fn size(&self) -> usize {
        self.inner.size()
    }

    fn __repr__(&self) -> String {
        format!("<SealedPack records={} bytes={}>", self.inner.len(), self.inner.size())
    }
}

fn part<'py>(py: Python<'py>, parts: &[Vec<u8>], position: usize) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = parts.get(position).ok_or_else(|| PyIndexError::new_err(position))?;
    Ok(PyBytes::new(py, bytes))
}

/// A class key or the public half of one.
pub struct PyRecipient(pub Recipient);

impl<'py> FromPyObject<'_, 'py> for PyRecipient {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(key) = given.cast::<ClassKey>() {
            return Ok(PyRecipient(Recipient::Class(Arc::clone(&key.get().inner))));
        }
        if let Ok(key) = given.cast::<ClassPublicKey>() {
            return Ok(PyRecipient(Recipient::Public(Arc::clone(&key.get().inner))));
        }
        Err(PyTypeError::new_err("recipients are ClassKey or ClassPublicKey"))
    }
}

type PyDraft<'py> = (Bound<'py, PyBytes>, u64, String, Vec<PyRecipient>);

fn draft((record_id, version, class, recipients): PyDraft<'_>) -> PyResult<Draft> {
    Ok(Draft {
        record_id: exactly(record_id.as_bytes(), "envelope.record_id_length")?,
        version,
        class,
        recipients: recipients.into_iter().map(|recipient| recipient.0).collect(),
    })
}

#[pyfunction]
fn seal_records(
    py: Python<'_>,
    origin: &str,
    data: Buffer<'_>,
    spans: PyReadonlyArray2<'_, u64>,
    drafts: Vec<PyDraft<'_>>,
) -> PyResult<SealedPack> {
    let data = data.as_slice()?;
    let columns = spans.shape().get(1).copied().unwrap_or_default();
    let flat = spans.as_slice().map_err(|_| raise_code(Kind::InvalidInput, "envelope.spans_shape"))?;
    // Copied, since a writable array may change while the GIL is released.
    let (spans, rest) = flat.as_chunks::<2>();
    let spans = spans.to_vec();
    if !rest.is_empty() || columns != 2 {
        return Err(raise_code(Kind::InvalidInput, "envelope.spans_shape"));
    }
    let drafts = drafts.into_iter().map(draft).collect::<PyResult<Vec<_>>>()?;
    let pack = py.detach(|| envelope::seal_records(origin, data, &spans, &drafts)).map_err(raise)?;
    Ok(SealedPack { inner: Arc::new(pack) })
}

fn to_py<'py>(py: Python<'py>, opened: &Opened) -> (Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
    (PyBytes::new(py, &opened.content), PyBytes::new(py, &*opened.opening_key))
}

fn digest_or_none(commitment: Option<&[u8]>) -> PyResult<Option<[u8; 32]>> {
    commitment.map(|commitment| exactly(commitment, "envelope.commitment_length")).transpose()
}

#[pyfunction]
#[pyo3(signature = (item, wraps, key, *, origin, record_id, version, class_, commitment))]
#[allow(clippy::too_many_arguments)]
fn open_record<'py>(
    py: Python<'py>,
    item: Buffer<'_>,
    wraps: Buffer<'_>,
    key: &Bound<'_, ClassKey>,
    origin: &str,
    record_id: &[u8],
    version: u64,
    class_: &str,
    commitment: Option<&[u8]>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let record_id = exactly(record_id, "envelope.record_id_length")?;
    let opening = Opening {
        item: item.as_slice()?,
        wraps: wraps.as_slice()?,
        key: &key.get().inner,
        place: Place { origin, record_id, version, class: class_ },
        commitment: digest_or_none(commitment)?,
    };
    let opened = py.detach(|| envelope::open_record(&opening)).map_err(|error| raise(Stored(error)))?;
    Ok(to_py(py, &opened))
}

type PyOpening<'py> =
    (Buffer<'py>, Buffer<'py>, Bound<'py, ClassKey>, Bound<'py, PyBytes>, u64, String, Option<Bound<'py, PyBytes>>);

#[pyfunction]
#[pyo3(signature = (openings, *, origin))]
fn open_records<'py>(
    py: Python<'py>,
    openings: Vec<PyOpening<'py>>,
    origin: &str,
) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
    let lent = openings.iter().map(|(item, wraps, key, record_id, version, class, commitment)| {
        let record_id = exactly(record_id.as_bytes(), "envelope.record_id_length")?;
        Ok(Opening {
            item: item.as_slice()?,
            wraps: wraps.as_slice()?,
            key: &key.get().inner,
            place: Place { origin, record_id, version: *version, class },
            commitment: digest_or_none(commitment.as_ref().map(|bytes| bytes.as_bytes()))?,
        })
    });
    let lent = lent.collect::<PyResult<Vec<_>>>()?;
    let opened = py.detach(|| envelope::open_records(&lent)).map_err(|error| raise(Stored(error)))?;
    Ok(opened.iter().map(|opened| to_py(py, opened)).collect())
}

#[pyfunction]
fn verify_opening(py: Python<'_>, content: Buffer<'_>, opening_key: &[u8], commitment: &[u8]) -> PyResult<()> {
    let content = content.as_slice()?;
    let opening_key = exactly(opening_key, "key.wrong_length")?;
    let commitment = exactly(commitment, "envelope.commitment_length")?;
    py.detach(|| envelope::verify_opening(content, &opening_key, &commitment)).map_err(raise)
}

type Kid = (Py<PyBytes>, Py<PyBytes>, String, Py<PyBytes>);

#[pyfunction]
fn wrap_kids(py: Python<'_>, wraps: Buffer<'_>) -> PyResult<Vec<Kid>> {
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).unbind();
    let ids = envelope::wrap_ids(wraps.as_slice()?).map_err(raise)?;
    Ok(ids.into_iter().map(|id| (bytes(&id.subject), bytes(&id.custodian), id.class, bytes(&id.epoch))).collect())
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ClassKey>()?;
    module.add_class::<ClassPublicKey>()?;
    module.add_class::<SealedPack>()?;
    module.add_function(wrap_pyfunction!(seal_records, module)?)?;
    module.add_function(wrap_pyfunction!(open_record, module)?)?;
    module.add_function(wrap_pyfunction!(open_records, module)?)?;
    module.add_function(wrap_pyfunction!(verify_opening, module)?)?;
    module.add_function(wrap_pyfunction!(wrap_kids, module)?)
}
