//! `Log` and the functions about its proofs. Reads take the lock for a look-up; appends hash outside the GIL.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use ehrfast_core::digest::{self, Digest};
use ehrfast_core::merkle::log::{self, LogError, TILE_WIDTH};
use ehrfast_core::merkle::verify::{self, LogProofError};
use ehrfast_core::store::projection::{self, ProjectionError};
use ehrfast_core::store::state_db::StateStore;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use crate::buffer::{Buffer, Offsets};
use crate::errors::{Detail, Kind, Named, raise, raise_code};

impl Named for LogError {
    fn kind(&self) -> Kind {
        match self {
            LogError::TileUnavailable { .. } => Kind::Unavailable,
            LogError::TileDamaged { .. } => Kind::Corruption,
            LogError::Stored { .. } => Kind::Conflict,
            _ => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            LogError::TileUnavailable { .. } => "log.tile_unavailable",
            LogError::TileDamaged { .. } => "log.tile_damaged",
            LogError::Stored { .. } => "log.stored",
            LogError::SizeBeyondLog { .. } => "log.size_beyond_log",
            LogError::IndexOutOfRange { .. } => "log.index_out_of_range",
            LogError::SizesDescend { .. } => "log.sizes_descend",
            LogError::NoSuchTile { .. } => "log.no_such_tile",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match *self {
            LogError::SizeBeyondLog { asked, tree_size } => {
                vec![("asked", Detail::Number(asked)), ("tree_size", Detail::Number(tree_size))]
            }
            LogError::IndexOutOfRange { index, tree_size } => {
                vec![("index", Detail::Number(index)), ("tree_size", Detail::Number(tree_size))]
            }
            LogError::TileUnavailable { index, .. } | LogError::TileDamaged { index } => {
                vec![("tile", Detail::Number(index))]
            }
            LogError::Stored { stored } => vec![("stored", Detail::Number(stored))],
            LogError::SizesDescend { old_size, new_size } => {
                vec![("old_size", Detail::Number(old_size)), ("new_size", Detail::Number(new_size))]
            }
            LogError::NoSuchTile { level, index, width } => vec![
                ("level", Detail::Number(u64::from(level))),
                ("index", Detail::Number(index)),
                ("width", Detail::Number(width)),
            ],
        }
    }
}

impl Named for LogProofError {
    fn kind(&self) -> Kind {
        Kind::Verification
    }

    fn code(&self) -> &'static str {
        match self {
            LogProofError::IndexOutOfRange { .. } => "proof.index_out_of_range",
            LogProofError::SizesDescend { .. } => "proof.sizes_descend",
            LogProofError::FromEmpty => "proof.from_empty",
            LogProofError::WrongLength { .. } => "proof.wrong_length",
            LogProofError::RootMismatch => "proof.root_mismatch",
            LogProofError::OldRootMismatch => "proof.old_root_mismatch",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match *self {
            LogProofError::IndexOutOfRange { index, tree_size } => {
                vec![("index", Detail::Number(index)), ("tree_size", Detail::Number(tree_size))]
            }
            LogProofError::SizesDescend { old_size, new_size } => {
                vec![("old_size", Detail::Number(old_size)), ("new_size", Detail::Number(new_size))]
            }
            LogProofError::WrongLength { length } => vec![("length", Detail::Number(length as u64))],
            LogProofError::FromEmpty | LogProofError::RootMismatch | LogProofError::OldRootMismatch => Vec::new(),
        }
    }
}

/// The log as Python holds it; `block.rs` appends through the same lock.
#[pyclass(frozen, module = "ehrfast._core")]
pub struct Log {
    inner: RwLock<log::Log>,
}

impl From<log::Log> for Log {
    fn from(inner: log::Log) -> Self {
        Self { inner: RwLock::new(inner) }
    }
}

impl Log {
    /// For appends and truncation; take it with the GIL released. Poisoned means a broken invariant of ours.
    pub fn write(&self) -> PyResult<RwLockWriteGuard<'_, log::Log>> {
        self.inner.write().map_err(|_| poisoned())
    }

    /// Moves whole published tiles to the store. Looks before it locks out the readers.
    pub fn store_tiles(&self, store: &dyn StateStore, tree_size: u64) -> Result<(), ProjectionError> {
        let waiting = {
            let log = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            tree_size - log.stored_leaves().min(tree_size)
        };
        if waiting < TILE_WIDTH {
            return Ok(());
        }
        let mut log = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        projection::store_tiles(store, &mut log, tree_size)
    }

    /// Waits for a running append with the GIL released, so the appender can never need what this thread holds.
    pub fn read(&self, py: Python<'_>) -> PyResult<RwLockReadGuard<'_, log::Log>> {
        loop {
            match self.inner.try_read() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(_)) => return Err(poisoned()),
                Err(TryLockError::WouldBlock) => py.detach(|| drop(self.inner.read())),
            }
        }
    }
}

fn poisoned() -> PyErr {
    raise_code(Kind::Corruption, "log.poisoned")
}

#[pymethods]
impl Log {
    #[new]
    fn new() -> Self {
        Self { inner: RwLock::new(log::Log::new()) }
    }

    fn append(&self, py: Python<'_>, leaves: Vec<PyBackedBytes>) -> PyResult<()> {
        py.detach(|| {
            let hashes = digest::sha256_leaves(&leaves);
            self.write()?.append_hashes(&hashes);
            Ok(())
        })
    }

    fn append_hashes(&self, py: Python<'_>, hashes: Buffer<'_>) -> PyResult<()> {
        let hashes = hashes.as_arrays()?;
        py.detach(|| {
            self.write()?.append_hashes(hashes);
            Ok(())
        })
    }

    fn truncate(&self, py: Python<'_>, tree_size: u64) -> PyResult<()> {
        py.detach(|| self.write()?.truncate(tree_size).map_err(raise))
    }

    #[getter]
    fn tree_size(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.read(py)?.tree_size())
    }

    #[pyo3(signature = (tree_size = None))]
    fn root<'py>(&self, py: Python<'py>, tree_size: Option<u64>) -> PyResult<Bound<'py, PyBytes>> {
        let log = self.read(py)?;
        let root = log.root_at(tree_size.unwrap_or_else(|| log.tree_size())).map_err(raise)?;
        Ok(PyBytes::new(py, &root))
    }

    fn leaf_hash<'py>(&self, py: Python<'py>, index: u64) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.read(py)?.leaf_hash(index).map_err(raise)?))
    }

    fn prove_inclusion<'py>(&self, py: Python<'py>, index: u64, tree_size: u64) -> PyResult<Bound<'py, PyList>> {
        let path = self.read(py)?.prove_inclusion(index, tree_size).map_err(raise)?;
        list_of(py, &path)
    }

    fn prove_consistency<'py>(&self, py: Python<'py>, old_size: u64, new_size: u64) -> PyResult<Bound<'py, PyList>> {
        let path = self.read(py)?.prove_consistency(old_size, new_size).map_err(raise)?;
        list_of(py, &path)
    }

    #[pyo3(signature = (tree_size = None))]
    fn frontier<'py>(&self, py: Python<'py>, tree_size: Option<u64>) -> PyResult<Bound<'py, PyList>> {
        let log = self.read(py)?;
        let frontier = log.frontier(tree_size.unwrap_or_else(|| log.tree_size())).map_err(raise)?;
        list_of(py, &frontier)
    }

    fn tile<'py>(&self, py: Python<'py>, level: u32, index: u64, width: u64) -> PyResult<Bound<'py, PyBytes>> {
        let log = self.read(py)?;
        Ok(PyBytes::new(py, log.tile(level, index, width).map_err(raise)?.as_flattened()))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Log(tree_size={})", self.read(py)?.tree_size()))
    }
}

#[pyfunction]
fn log_leaf_hash<'py>(py: Python<'py>, leaf: Buffer<'_>) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &digest::sha256_leaf(leaf.as_slice()?)))
}

#[pyfunction]
fn log_root<'py>(py: Python<'py>, data: Buffer<'_>, offsets: Offsets<'_>) -> PyResult<Bound<'py, PyBytes>> {
    let items = offsets.items(&data)?;
    Ok(PyBytes::new(py, &py.detach(|| log::root_of_leaves(&items))))
}

#[pyfunction]
fn pack_root<'py>(py: Python<'py>, digests: Buffer<'_>) -> PyResult<Bound<'py, PyBytes>> {
    let digests = digests.as_arrays()?;
    Ok(PyBytes::new(py, &py.detach(|| log::pack_root(digests))))
}

#[pyfunction]
fn verify_inclusion(
    leaf_hash: &[u8],
    index: u64,
    tree_size: u64,
    proof: Vec<PyBackedBytes>,
    root: &[u8],
) -> PyResult<()> {
    let proof = proof_hashes(&proof)?;
    verify::verify_inclusion(proof_hash(leaf_hash)?, index, tree_size, &proof, proof_hash(root)?).map_err(raise)
}

#[pyfunction]
fn verify_consistency(
    old_size: u64,
    new_size: u64,
    old_root: &[u8],
    new_root: &[u8],
    proof: Vec<PyBackedBytes>,
) -> PyResult<()> {
    let proof = proof_hashes(&proof)?;
    verify::verify_consistency(old_size, new_size, proof_hash(old_root)?, proof_hash(new_root)?, &proof).map_err(raise)
}

/// A hash of another length than 32 makes the proof false, not the call wrong: it came from outside.
fn proof_hash(bytes: &[u8]) -> PyResult<&Digest> {
    bytes.try_into().map_err(|_| raise_code(Kind::Verification, "proof.hash_length"))
}

fn proof_hashes(proof: &[PyBackedBytes]) -> PyResult<Vec<Digest>> {
    proof.iter().map(|hash| proof_hash(hash).copied()).collect()
}

fn list_of<'py>(py: Python<'py>, hashes: &[Digest]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, hashes.iter().map(|hash| PyBytes::new(py, hash)))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Log>()?;
    module.add_function(wrap_pyfunction!(log_leaf_hash, module)?)?;
    module.add_function(wrap_pyfunction!(log_root, module)?)?;
    module.add_function(wrap_pyfunction!(pack_root, module)?)?;
    module.add_function(wrap_pyfunction!(verify_inclusion, module)?)?;
    module.add_function(wrap_pyfunction!(verify_consistency, module)?)?;
    Ok(())
}
