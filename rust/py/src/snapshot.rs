//! Snapshots and the sealed parts of a backup, as Python sees them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ehrfast_core::snapshot::{self, Head, Leaves, SnapshotError, StateChunk};
use ehrfast_core::store::at_rest::{self, PartError};
use ehrfast_core::store::state_db::{Applied, TransactionPlace};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use crate::block::BlockLeaf;
use crate::buffer::{Buffer, exactly};
use crate::errors::{Detail, Kind, Named, raise, raise_code};
use crate::state_db::StateDb;
use crate::trie::Trie;

impl Named for SnapshotError {
    fn kind(&self) -> Kind {
        Kind::Verification
    }

    fn code(&self) -> &'static str {
        match self {
            SnapshotError::Encoding(_) | SnapshotError::Block(_) => "snapshot.malformed",
            SnapshotError::Range(_) => "snapshot.wrong_state",
            SnapshotError::OtherCheckpoint => "snapshot.other_checkpoint",
            SnapshotError::NotNext => "snapshot.not_next",
            SnapshotError::RootMismatch => "snapshot.root_mismatch",
            SnapshotError::NotTheBlock => "snapshot.not_the_block",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            SnapshotError::Range(below) => vec![("reason", Detail::Text(below.to_string()))],
            SnapshotError::Encoding(below) => vec![("reason", Detail::Text(below.code().to_owned()))],
            _ => Vec::new(),
        }
    }
}

impl Named for PartError {
    fn kind(&self) -> Kind {
        match self {
            PartError::Randomness(below) => below.kind(),
            PartError::TooLong(_) => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            PartError::Randomness(below) => below.code(),
            PartError::TooLong(_) => "backup.part_too_long",
        }
    }
}

#[pyfunction]
fn snapshot_head<'py>(
    py: Python<'py>,
    chain_id: String,
    height: u64,
    tree_size: u64,
    first_leaf: u64,
    frontier: Vec<PyBackedBytes>,
) -> PyResult<Bound<'py, PyBytes>> {
    let frontier = frontier.iter().map(|hash| exactly(hash, "snapshot.hash_length")).collect::<PyResult<_>>()?;
    let head = Head { chain_id, height, tree_size, first_leaf, frontier };
    Ok(PyBytes::new(py, &head.encode().map_err(raise)?))
}

#[pyfunction]
fn snapshot_leaves<'py>(py: Python<'py>, first_index: u64, leaves: Vec<PyBackedBytes>) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &Leaves::encode(first_index, &leaves))
}

#[pyfunction]
#[pyo3(signature = (state, trie, start, max_bytes=snapshot::CHUNK_BYTES))]
fn snapshot_state<'py>(
    py: Python<'py>,
    state: &Bound<'py, StateDb>,
    trie: &Bound<'py, Trie>,
    start: &[u8],
    max_bytes: usize,
) -> PyResult<(Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>)> {
    let from = exactly(start, "path.wrong_length")?;
    let (store, trie) = (state.get().store()?, trie.get());
    let built = py.detach(|| {
        let prove = |path: &_| {
            let proven = trie.inner.prove(path).and_then(|proof| Ok((proof, trie.inner.value_digest(path)?)));
            proven.map_err(raise)
        };
        StateChunk::build(from, max_bytes, store.range(from, None).map(|entry| entry.map_err(raise)), prove)
    });
    let chunk = built?;
    Ok((PyBytes::new(py, &chunk.encode()), chunk.bounds.to.map(|to| PyBytes::new(py, &to))))
}

#[pyfunction]
fn verify_snapshot_state<'py>(
    py: Python<'py>,
    state_root: &[u8],
    chunk: Buffer<'_>,
) -> PyResult<(usize, Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>)> {
    let root = exactly(state_root, "proof.hash_length")?;
    let bytes = chunk.as_slice()?;
    let decoded = py.detach(|| {
        let decoded = StateChunk::decode(bytes)?;
        decoded.verify(&root).map(|()| decoded)
    });
    let StateChunk { bounds, entries, .. } = decoded.map_err(raise)?;
    Ok((entries.len(), PyBytes::new(py, &bounds.from), bounds.to.map(|to| PyBytes::new(py, &to))))
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct SnapshotVerifier {
    inner: Mutex<snapshot::Verifier>,
}

impl SnapshotVerifier {
    fn inner(&self) -> MutexGuard<'_, snapshot::Verifier> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl SnapshotVerifier {
    #[new]
    fn new(head: Buffer<'_>, chain_id: &str, tree_size: u64, root: &[u8]) -> PyResult<Self> {
        let root = exactly(root, "proof.hash_length")?;
        let verifier = snapshot::Verifier::new(head.as_slice()?, chain_id, tree_size, &root).map_err(raise)?;
        Ok(Self { inner: Mutex::new(verifier) })
    }

    #[getter]
    fn height(&self) -> u64 {
        self.inner().height()
    }

    #[getter]
    fn block(&self) -> Option<BlockLeaf> {
        self.inner().block().cloned().map(BlockLeaf::from)
    }

    fn take_leaves<'py>(&self, py: Python<'py>, chunk: Buffer<'_>) -> PyResult<Bound<'py, PyList>> {
        let bytes = chunk.as_slice()?;
        let taken = py.detach(|| self.inner().take_leaves(bytes)).map_err(raise)?;
        PyList::new(py, taken.leaves.iter().map(|leaf| PyBytes::new(py, leaf)))
    }

    fn take_state(&self, py: Python<'_>, chunk: Buffer<'_>, into: &Bound<'_, StateDb>) -> PyResult<usize> {
        let (bytes, store) = (chunk.as_slice()?, into.get().store()?);
        let taken = py.detach(|| self.inner().take_state(bytes)).map_err(raise)?;
        py.detach(|| store.load(&taken.entries, &[])).map_err(raise)?;
        Ok(taken.entries.len())
    }

    fn finish(&self, py: Python<'_>, into: &Bound<'_, StateDb>) -> PyResult<()> {
        let store = into.get().store()?;
        let inner = self.inner();
        inner.finish().map_err(raise)?;
        let applied = Applied { height: inner.height(), leaf_hash: inner.block_leaf_hash() };
        py.detach(|| store.finish_load(applied)).map_err(raise)
    }
}

#[pyfunction]
fn load_transactions(
    py: Python<'_>,
    into: &Bound<'_, StateDb>,
    height: u64,
    first_index: u64,
    leaves: Vec<PyBackedBytes>,
) -> PyResult<()> {
    let store = into.get().store()?;
    py.detach(|| {
        let ids = leaves.iter().zip(first_index..).filter_map(|(leaf, index)| {
            let (kind, rest) = leaf.split_first()?;
            let id = *rest.first_chunk::<32>()?;
            (*kind == 1).then_some((id, TransactionPlace { height, index }))
        });
        store.load(&[], &ids.collect::<Vec<_>>())
    })
    .map_err(raise)
}

#[pyfunction]
fn seal_part<'py>(py: Python<'py>, key: &[u8], aad: &[u8], message: Buffer<'_>) -> PyResult<Bound<'py, PyBytes>> {
    let (key, message) = (exactly(key, "key.wrong_length")?, message.as_slice()?);
    let sealed = py.detach(|| at_rest::seal_part(&key, aad, message)).map_err(raise)?;
    Ok(PyBytes::new(py, &sealed))
}

#[pyfunction]
fn open_part<'py>(py: Python<'py>, key: &[u8], aad: &[u8], sealed: Buffer<'_>) -> PyResult<Bound<'py, PyBytes>> {
    let (key, sealed) = (exactly(key, "key.wrong_length")?, sealed.as_slice()?);
    let opened = py.detach(|| at_rest::open_part(&key, aad, sealed));
    let opened = opened.map_err(|_| raise_code(Kind::Corruption, "backup.part_damaged"))?;
    Ok(PyBytes::new(py, &opened))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SnapshotVerifier>()?;
    module.add_function(wrap_pyfunction!(snapshot_head, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot_leaves, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot_state, module)?)?;
    module.add_function(wrap_pyfunction!(verify_snapshot_state, module)?)?;
    module.add_function(wrap_pyfunction!(load_transactions, module)?)?;
    module.add_function(wrap_pyfunction!(seal_part, module)?)?;
    module.add_function(wrap_pyfunction!(open_part, module)?)
}
