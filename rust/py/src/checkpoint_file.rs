//! The checkpoint slots and the lock of a node's folder, as Python sees them.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ehrfast_core::store::checkpoint_file::{self, CheckpointFileError, LockError};
use ehrfast_core::store::files::RealFiles;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{Detail, Kind, Named, raise};

impl Named for CheckpointFileError {
    fn kind(&self) -> Kind {
        match self {
            CheckpointFileError::Io(_) => Kind::Unavailable,
            CheckpointFileError::Damaged => Kind::Corruption,
            CheckpointFileError::NoteLength(_) | CheckpointFileError::ReadOnly => Kind::InvalidInput,
            CheckpointFileError::Missing => Kind::NotFound,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            CheckpointFileError::Io(below) => below.code(),
            CheckpointFileError::Damaged => "checkpoint.file_damaged",
            CheckpointFileError::NoteLength(_) => "checkpoint.note_length",
            CheckpointFileError::ReadOnly => "checkpoint.read_only",
            CheckpointFileError::Missing => "checkpoint.missing_file",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            CheckpointFileError::Io(below) => below.details(),
            CheckpointFileError::NoteLength(size) => vec![("size", Detail::Number(*size as u64))],
            _ => Vec::new(),
        }
    }
}

impl Named for LockError {
    fn kind(&self) -> Kind {
        match self {
            LockError::Io(_) => Kind::Unavailable,
            LockError::Held { .. } => Kind::Conflict,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            LockError::Io(below) => below.code(),
            LockError::Held { .. } => "node.locked",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            LockError::Io(below) => below.details(),
            LockError::Held { pid } => pid.iter().map(|pid| ("pid", Detail::Number(u64::from(*pid)))).collect(),
        }
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
struct CheckpointFile {
    inner: checkpoint_file::CheckpointFile,
}

#[pymethods]
impl CheckpointFile {
    #[staticmethod]
    #[pyo3(signature = (path, *, read_only=false))]
    fn open(py: Python<'_>, path: &str, read_only: bool) -> PyResult<Self> {
        let opened = py.detach(|| checkpoint_file::CheckpointFile::open(&RealFiles, Path::new(path), read_only));
        Ok(CheckpointFile { inner: opened.map_err(raise)? })
    }

    fn read<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let note = py.detach(|| self.inner.read()).map_err(raise)?;
        Ok(note.map(|note| PyBytes::new(py, &note)))
    }

    #[pyo3(signature = (note, *, sync))]
    fn write(&self, py: Python<'_>, note: &[u8], sync: bool) -> PyResult<()> {
        py.detach(|| self.inner.write(note, sync)).map_err(raise)
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
struct LockFile {
    inner: Mutex<Option<checkpoint_file::LockFile>>,
}

#[pymethods]
impl LockFile {
    #[staticmethod]
    fn acquire(path: &str) -> PyResult<Self> {
        let lock = checkpoint_file::LockFile::acquire(&RealFiles, Path::new(path)).map_err(raise)?;
        Ok(LockFile { inner: Mutex::new(Some(lock)) })
    }

    fn release(&self) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CheckpointFile>()?;
    module.add_class::<LockFile>()
}
