//! Sealing and opening, as Python sees it.

use std::sync::Arc;

use ehrfast_core::envelope::{self, EnvelopeError, Place};
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::buffer::{Buffer, exactly};
use crate::errors::{Detail, Kind, Named, raise, raise_code};

impl Named for EnvelopeError {
    fn kind(&self) -> Kind {
        match self {
            EnvelopeError::NoRandomness(_) => Kind::Unavailable,
            EnvelopeError::BadRange { .. } | EnvelopeError::NoRecipient { .. } => Kind::InvalidInput,
            EnvelopeError::NoWrap => Kind::Denied,
            EnvelopeError::Malformed(_)
            | EnvelopeError::Unexpected
            | EnvelopeError::CannotOpen
            | EnvelopeError::CommitmentMismatch => Kind::Corruption,
        }
    }
    fn code(&self) -> &'static str {
        match self {
            EnvelopeError::NoRandomness(_) => "random.unavailable",
            EnvelopeError::Malformed(_) => "envelope.malformed",
            EnvelopeError::Unexpected => "envelope.unexpected",
            EnvelopeError::NoWrap => "envelope.no_wrap",
            EnvelopeError::CannotOpen => "envelope.cannot_open",
            EnvelopeError::CommitmentMismatch => "envelope.commitment_mismatch",
            EnvelopeError::BadRange { .. } => "envelope.bad_range",
            EnvelopeError::NoRecipient { .. } => "envelope.no_recipient",
        }
    }
    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            EnvelopeError::BadRange { index } | EnvelopeError::NoRecipient { index } => {
                vec![("index", Detail::Number(*index as u64))]
            }
            _ => Vec::new(),
        }
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct ClassKey {
    inner: Arc<envelope::ClassKey>,
}

#[pymethods]
impl ClassKey {
    #[staticmethod]
    fn derive(root: &[u8], subject: &[u8], custodian: &[u8], class_: &str, epoch: &[u8]) -> PyResult<Self> {
        let root = exactly::<32>(root, "key.wrong_size")?;
        let [subject, custodian, epoch] = [subject, custodian, epoch].map(|id| exactly::<16>(id, "id.wrong_size"));
        let inner = envelope::ClassKey::derive(&root, subject?, custodian?, class_, epoch?).map_err(raise)?;
        Ok(ClassKey { inner: Arc::new(inner) })
    }
    #[getter]
    fn subject<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.subject)
    }
    #[getter]
    fn custodian<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.custodian)
    }
    #[getter]
    fn class_(&self) -> &str {
        &self.inner.class
    }
    #[getter]
    fn epoch<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.epoch)
    }
    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.public_key)
    }
    #[getter]
    fn kid<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.kid)
    }
    fn __repr__(&self) -> String {
        format!("ClassKey({})", self.inner.class)
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct SealedPack {
    pub inner: Arc<envelope::SealedPack>,
}

#[pymethods]
impl SealedPack {
    #[staticmethod]
    fn from_items(items: Vec<Vec<u8>>, wraps: Vec<Vec<u8>>) -> PyResult<Self> {
        if items.len() != wraps.len() {
            return Err(raise_code(Kind::InvalidInput, "pack.uneven"));
        }
        Ok(SealedPack { inner: Arc::new(envelope::SealedPack::from_items(items, wraps)) })
    }
    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.root)
    }
    #[getter]
    fn wraps_root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.wraps_root)
    }
    #[getter]
    fn commitments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.inner.commitments.iter().map(|commitment| PyBytes::new(py, commitment)))
    }
    #[getter]
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn __len__(&self) -> usize {
        self.inner.items.len()
    }
    fn item<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyBytes>> {
        part(py, &self.inner.items, position)
    }
    fn wraps<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyBytes>> {
        part(py, &self.inner.wraps, position)
    }
    fn __repr__(&self) -> String {
        format!("SealedPack({} items)", self.inner.items.len())
    }
}

fn part<'py>(py: Python<'py>, parts: &[Vec<u8>], position: usize) -> PyResult<Bound<'py, PyBytes>> {
    let found = parts.get(position).ok_or_else(|| raise_code(Kind::NotFound, "pack.no_such_position"))?;
    Ok(PyBytes::new(py, found))
}

type DraftParts<'py> = (Vec<u8>, u64, String, Vec<Bound<'py, ClassKey>>);

#[pyfunction]
fn seal_records(
    py: Python<'_>,
    origin: &str,
    data: Buffer<'_>,
    spans: PyReadonlyArray2<'_, u64>,
    drafts: Vec<DraftParts<'_>>,
) -> PyResult<SealedPack> {
    let data = data.as_slice()?;
    if spans.shape() != [drafts.len(), 2] {
        return Err(raise_code(Kind::InvalidInput, "envelope.uneven"));
    }
    let limits = spans.as_slice().map_err(|_| raise_code(Kind::InvalidInput, "input.not_contiguous"))?;
    let held: Vec<Vec<Arc<envelope::ClassKey>>> =
        drafts.iter().map(|draft| draft.3.iter().map(|key| Arc::clone(&key.get().inner)).collect()).collect();
    let mut listed = Vec::with_capacity(drafts.len());
    for (index, (record_id, version, class, _)) in drafts.iter().enumerate() {
        let range = usize::try_from(limits[2 * index])
            .ok()
            .zip(usize::try_from(limits[2 * index + 1]).ok())
            .and_then(|(start, end)| data.get(start..end));
        listed.push(envelope::Draft {
            content: range.ok_or_else(|| raise(EnvelopeError::BadRange { index }))?,
            record_id: exactly::<16>(record_id, "id.wrong_size")?,
            version: *version,
            class,
            recipients: held[index].iter().map(Arc::as_ref).collect(),
        });
    }
    let pack = py.detach(|| envelope::seal_records(origin, &listed)).map_err(raise)?;
    Ok(SealedPack { inner: Arc::new(pack) })
}

#[pyfunction]
#[pyo3(signature = (item, wraps, key, *, origin, record_id, version, class_, commitment))]
#[allow(clippy::too_many_arguments)]
fn open_record<'py>(
    py: Python<'py>,
    item: Buffer<'_>,
    wraps: Buffer<'_>,
    key: &ClassKey,
    origin: &str,
    record_id: &[u8],
    version: u64,
    class_: &str,
    commitment: Option<&[u8]>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let place = Place { origin, record_id: exactly::<16>(record_id, "id.wrong_size")?, version, class: class_ };
    let commitment = commitment.map(|bytes| exactly::<32>(bytes, "commitment.wrong_size")).transpose()?;
    let (item, wraps, key) = (item.as_slice()?, wraps.as_slice()?, Arc::clone(&key.inner));
    let opened = py.detach(|| envelope::open_record(item, wraps, &key, &place, commitment.as_ref()));
    let (content, opening) = opened.map_err(raise)?;
    Ok((PyBytes::new(py, &content), PyBytes::new(py, &opening)))
}

#[pyfunction]
fn verify_opening(content: Buffer<'_>, opening_key: &[u8], commitment: &[u8]) -> PyResult<()> {
    let opening = exactly::<32>(opening_key, "opening_key.wrong_size")?;
    let commitment = exactly::<32>(commitment, "commitment.wrong_size")?;
    envelope::verify_opening(content.as_slice()?, &opening, &commitment)
        .map_err(|_| raise_code(Kind::Verification, "evidence.content_mismatch"))
}

type Kid<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, String, Bound<'py, PyBytes>);

#[pyfunction]
fn wrap_kids<'py>(py: Python<'py>, wraps: Buffer<'_>) -> PyResult<Vec<Kid<'py>>> {
    let listed = envelope::read_wraps(wraps.as_slice()?).map_err(raise)?;
    let kids = listed.iter().map(|wrap| {
        let (subject, custodian, class, epoch) = envelope::read_kid(wrap.kid)?;
        let [subject, custodian, epoch] = [subject, custodian, epoch].map(|id| PyBytes::new(py, &id));
        Ok((subject, custodian, class.to_owned(), epoch))
    });
    kids.collect::<Result<_, EnvelopeError>>().map_err(raise)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ClassKey>()?;
    module.add_class::<SealedPack>()?;
    module.add_function(wrap_pyfunction!(seal_records, module)?)?;
    module.add_function(wrap_pyfunction!(open_record, module)?)?;
    module.add_function(wrap_pyfunction!(verify_opening, module)?)?;
    module.add_function(wrap_pyfunction!(wrap_kids, module)?)
}
