//! Sealing and opening in pieces, as Python sees it. A sealer or opener serves one stream; calls take turns.
use std::sync::{Mutex, MutexGuard, PoisonError};

use ehrfast_core::digest::Digest;
use ehrfast_core::envelope::{Outside, Place};
use ehrfast_core::pieces::{self, Lead, PieceOpener as Opener, PieceSealer as Sealer, PiecesError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{Buffer, exactly};
use crate::envelope::{ClassKey, PyRecipient, SealedPack};
use crate::errors::{Detail, Kind, Named, raise, raise_code};

impl Named for PiecesError {
    fn kind(&self) -> Kind {
        match self {
            PiecesError::Envelope(error) => error.kind(),
            PiecesError::TooLarge | PiecesError::HeadTooLarge { .. } => Kind::InvalidInput,
            PiecesError::Malformed(_)
            | PiecesError::Piece { .. }
            | PiecesError::Unfinished { .. }
            | PiecesError::AfterLast => Kind::Corruption,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            PiecesError::Envelope(error) => error.code(),
            PiecesError::Malformed(_) => "pieces.malformed",
            PiecesError::TooLarge => "pieces.too_large",
            PiecesError::HeadTooLarge { .. } => "pieces.head_too_large",
            PiecesError::Piece { .. } => "pieces.cannot_open",
            PiecesError::Unfinished { .. } => "pieces.unfinished",
            PiecesError::AfterLast => "pieces.after_last",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            PiecesError::Envelope(error) => error.details(),
            PiecesError::HeadTooLarge { bytes } => vec![("bytes", Detail::Number(*bytes as u64))],
            PiecesError::Piece { index } => vec![("index", Detail::Number(*index))],
            PiecesError::Unfinished { pieces } => vec![("pieces", Detail::Number(*pieces))],
            _ => Vec::new(),
        }
    }
}

fn place<'a>(origin: &'a str, record_id: &[u8], version: u64, class: &'a str) -> PyResult<Place<'a>> {
    Ok(Place { origin, record_id: exactly(record_id, "envelope.record_id_length")?, version, class })
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct PieceSealer {
    inner: Mutex<Option<Sealer>>,
    class: String,
    front: Vec<u8>,
}

impl PieceSealer {
    fn open(&self) -> MutexGuard<'_, Option<Sealer>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn finished() -> PyErr {
    raise_code(Kind::Conflict, "pieces.finished")
}

#[pymethods]
impl PieceSealer {
    #[new]
    #[pyo3(signature = (head, *, origin, record_id, version, class_))]
    fn new(head: &[u8], origin: &str, record_id: &[u8], version: u64, class_: String) -> PyResult<Self> {
        let (sealer, front) = Sealer::begin(&place(origin, record_id, version, &class_)?, head).map_err(raise)?;
        Ok(PieceSealer { inner: Mutex::new(Some(sealer)), class: class_, front })
    }

    #[getter]
    fn front(&self) -> &[u8] {
        &self.front
    }

    fn update<'py>(&self, py: Python<'py>, content: Buffer<'_>) -> PyResult<Bound<'py, PyBytes>> {
        let content = content.as_slice()?;
        let sealed = py.detach(|| {
            let mut inner = self.open();
            let sealed = inner.as_mut().map(|sealer| sealer.update(content));
            if matches!(sealed, Some(Err(_))) {
                *inner = None; // its key goes with it: what was sealed so far opens no more
            }
            sealed
        });
        let sealed = sealed.ok_or_else(finished)?.map_err(raise)?;
        Ok(PyBytes::new(py, &sealed))
    }

    fn finish<'py>(&self, py: Python<'py>, keys: Vec<PyRecipient>) -> PyResult<(Bound<'py, PyBytes>, SealedPieces)> {
        let keys: Vec<_> = keys.into_iter().map(|key| key.0).collect();
        let sealed = py.detach(|| self.open().take().map(|sealer| sealer.finish(&self.class, &keys)));
        let (last, inner) = sealed.ok_or_else(finished)?.map_err(raise)?;
        Ok((PyBytes::new(py, &last), SealedPieces { inner }))
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct SealedPieces {
    inner: pieces::SealedPieces,
}

#[pymethods]
impl SealedPieces {
    #[getter]
    fn item_digest(&self) -> &[u8] {
        &self.inner.outside.item_digest
    }

    #[getter]
    fn wraps(&self) -> &[u8] {
        &self.inner.outside.wraps
    }

    #[getter]
    fn commitment(&self) -> &[u8] {
        &self.inner.outside.commitment
    }

    #[getter]
    fn content_digest(&self) -> &[u8] {
        &self.inner.content_digest
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.inner.bytes
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct PieceOpener {
    inner: Mutex<Opener>,
}

impl PieceOpener {
    fn open_one(&self) -> MutexGuard<'_, Opener> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl PieceOpener {
    #[new]
    #[pyo3(signature = (front, wraps, key, *, origin, record_id, version, class_))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        front: Buffer<'_>,
        wraps: Buffer<'_>,
        key: &Bound<'_, ClassKey>,
        origin: &str,
        record_id: &[u8],
        version: u64,
        class_: &str,
    ) -> PyResult<Self> {
        let place = place(origin, record_id, version, class_)?;
        let opener = Opener::begin(front.as_slice()?, wraps.as_slice()?, &key.get().inner, &place).map_err(raise)?;
        Ok(PieceOpener { inner: Mutex::new(opener) })
    }

    #[staticmethod]
    fn front_bytes(start: Buffer<'_>) -> PyResult<usize> {
        Ok(Lead::read(start.as_slice()?).map_err(raise)?.front_bytes())
    }

    #[getter]
    fn head<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.open_one().head())
    }

    fn open<'py>(&self, py: Python<'py>, sealed: Buffer<'_>, last: bool) -> PyResult<Bound<'py, PyBytes>> {
        let sealed = sealed.as_slice()?;
        let content = py.detach(|| self.open_one().open(sealed, last)).map_err(raise)?;
        Ok(PyBytes::new(py, &content))
    }

    fn finish<'py>(&self, py: Python<'py>, commitment: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let commitment: Digest = exactly(commitment, "envelope.commitment_length")?;
        let opener = self.open_one();
        Ok(PyBytes::new(py, opener.finish(&commitment).map_err(raise)?))
    }
}

/// A pack behind records that were sealed in pieces.
pub fn behind(pack: &SealedPack, first: &[Bound<'_, SealedPieces>]) -> PyResult<SealedPack> {
    let first: Vec<Outside> = first.iter().map(|sealed| sealed.get().inner.outside.clone()).collect();
    Ok(SealedPack { inner: std::sync::Arc::new(pack.inner.behind(&first).map_err(raise)?) })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PieceSealer>()?;
    module.add_class::<SealedPieces>()?;
    module.add_class::<PieceOpener>()
}
