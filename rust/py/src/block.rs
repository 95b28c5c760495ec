//! Blocks, as Python sees them.

use std::sync::Arc;

use ehrfast_core::block::{self, BlockError, Cause, Entry, Header};
use ehrfast_core::digest::blake3;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use crate::buffer::{Buffer, exactly};
use crate::envelope::SealedPack;
use crate::errors::{Detail, Kind, Named, raise};
use crate::log::Log;
use crate::state::WriteSet;
use crate::transaction::Transaction;
use crate::trie::Trie;

impl Named for BlockError {
    fn kind(&self) -> Kind {
        match self {
            BlockError::LogNotEmpty { .. } => Kind::Conflict,
            _ => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            BlockError::Encoding(below) => below.code(),
            BlockError::OtherLeaf => "block.other_leaf",
            BlockError::ChainId => "block.chain_id",
            BlockError::ChainIdMismatch => "block.chain_id_mismatch",
            BlockError::OutOfRange => "block.out_of_range",
            BlockError::NoEntries => "block.no_entries",
            BlockError::PackMismatch { .. } => "pack.root_mismatch",
            BlockError::LogNotEmpty { .. } => "block.log_not_empty",
            BlockError::Trie(below) => below.code(),
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            BlockError::Encoding(below) => Named::details(below),
            BlockError::Trie(below) => below.details(),
            BlockError::PackMismatch { position } => vec![("position", Detail::Number(*position as u64))],
            BlockError::LogNotEmpty { tree_size } => vec![("tree_size", Detail::Number(*tree_size))],
            _ => Vec::new(),
        }
    }
}

/// A block leaf, decoded.
#[pyclass(frozen, subclass, module = "ehrfast._core")]
pub struct BlockLeaf {
    inner: block::BlockLeaf,
}

impl From<block::BlockLeaf> for BlockLeaf {
    fn from(inner: block::BlockLeaf) -> Self {
        BlockLeaf { inner }
    }
}

#[pymethods]
impl BlockLeaf {
    #[getter]
    fn chain_id(&self) -> &str {
        &self.inner.chain_id
    }

    #[getter]
    fn height(&self) -> u64 {
        self.inner.height
    }

    #[getter]
    fn engine_height(&self) -> u64 {
        self.inner.engine_height
    }

    #[getter]
    fn time_ms(&self) -> u64 {
        self.inner.time_ms
    }

    #[getter]
    fn first_index(&self) -> u64 {
        self.inner.first_index
    }

    #[getter]
    fn leaf_count(&self) -> u64 {
        self.inner.leaf_count
    }

    #[getter]
    fn tree_size(&self) -> PyResult<u64> {
        self.inner.tree_size().ok_or(BlockError::OutOfRange).map_err(raise)
    }

    #[getter]
    fn previous_root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.previous_root)
    }

    #[getter]
    fn state_root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.state_root)
    }

    #[getter]
    fn proposer<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.proposer)
    }

    fn __repr__(&self) -> String {
        let block::BlockLeaf { chain_id, height, leaf_count, .. } = &self.inner;
        format!("<block {height} of {chain_id}, {leaf_count} entries>")
    }
}

#[pyclass(frozen, extends = BlockLeaf, module = "ehrfast._core")]
pub struct Block {
    pub inner: Arc<block::Block>,
    write_set: Arc<ehrfast_core::state::WriteSet>,
}

impl Block {
    /// The Python object around an assembled block.
    pub fn wrap(py: Python<'_>, inner: block::Block) -> PyResult<Py<Self>> {
        let head = BlockLeaf { inner: inner.head.clone() };
        let write_set = Arc::new(inner.write_set.clone());
        Py::new(py, PyClassInitializer::from(head).add_subclass(Self { inner: Arc::new(inner), write_set }))
    }
}

fn list_of<'py, B: AsRef<[u8]>>(py: Python<'py>, items: &[B]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, items.iter().map(|item| PyBytes::new(py, item.as_ref())))
}

#[pymethods]
impl Block {
    #[getter]
    fn leaf<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.leaves.last().map_or(&[], Vec::as_slice))
    }

    #[getter]
    fn leaf_hash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.leaf_hash)
    }

    #[getter]
    fn log_root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.log_root)
    }

    #[getter]
    fn transactions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        list_of(py, &self.inner.transactions)
    }

    #[getter]
    fn receipts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        list_of(py, &self.inner.receipts)
    }

    #[getter]
    fn leaves<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        list_of(py, &self.inner.leaves)
    }

    #[getter]
    fn write_set(&self) -> WriteSet {
        WriteSet { inner: Arc::clone(&self.write_set) }
    }
}

/// What caused an entry, as it is passed in: a transaction, or the id of a timer.
#[derive(FromPyObject)]
enum Given<'py> {
    Transaction(Bound<'py, Transaction>),
    Timer(PyBackedBytes),
}

impl Given<'_> {
    fn cause(&self) -> PyResult<Cause> {
        match self {
            Given::Transaction(transaction) => Ok(Cause::Transaction(Arc::clone(&transaction.get().inner))),
            Given::Timer(id) => exactly(id, "timer.wrong_length").map(Cause::Timer),
        }
    }
}

#[pyfunction]
#[pyo3(signature = (log, trie, *, chain_id, height, engine_height, time_ms, proposer, entries, writes, packs))]
#[allow(clippy::too_many_arguments)]
fn assemble(
    py: Python<'_>,
    log: &Bound<'_, Log>,
    trie: &Bound<'_, Trie>,
    chain_id: String,
    height: u64,
    engine_height: u64,
    time_ms: u64,
    proposer: &[u8],
    entries: Vec<(Given<'_>, PyBackedBytes)>,
    writes: &Bound<'_, WriteSet>,
    packs: Vec<Bound<'_, SealedPack>>,
) -> PyResult<(Py<Block>, Trie)> {
    let proposer = exactly(proposer, "block.proposer_length")?;
    let header = Header { chain_id, height, engine_height, time_ms, proposer };
    let causes = entries.iter().map(|(given, _)| given.cause()).collect::<PyResult<Vec<_>>>()?;
    let receipts: Vec<PyBackedBytes> = entries.into_iter().map(|(_, receipt)| receipt).collect();
    let packs: Vec<_> = packs.iter().map(|pack| (pack.get().inner.root, pack.get().inner.wraps_root)).collect();
    let (log, trie, writes) = (log.get(), trie.get(), writes.get());
    let (block, next) = py.detach(|| {
        let entry = |(cause, receipt): (Cause, &PyBackedBytes)| Entry { cause, receipt: receipt.to_vec() };
        let entries = causes.into_iter().zip(&receipts).map(entry).collect();
        let write_set = writes.inner.as_ref().clone();
        block::assemble(&mut *log.write()?, &trie.inner, header, entries, write_set, &packs).map_err(raise)
    })?;
    Ok((Block::wrap(py, block)?, next.into()))
}

#[pyfunction]
#[pyo3(signature = (log, trie, genesis, writes, *, chain_id, time_ms, proposer))]
#[allow(clippy::too_many_arguments)]
fn assemble_genesis(
    py: Python<'_>,
    log: &Bound<'_, Log>,
    trie: &Bound<'_, Trie>,
    genesis: &[u8],
    writes: &Bound<'_, WriteSet>,
    chain_id: String,
    time_ms: u64,
    proposer: &[u8],
) -> PyResult<(Py<Block>, Trie)> {
    let proposer = exactly(proposer, "block.proposer_length")?;
    let header = Header { chain_id, height: 0, engine_height: 0, time_ms, proposer };
    let (log, trie, writes) = (log.get(), trie.get(), writes.get());
    let (block, next) = py.detach(|| {
        let write_set = writes.inner.as_ref().clone();
        block::assemble_genesis(&mut *log.write()?, &trie.inner, header, genesis, write_set).map_err(raise)
    })?;
    Ok((Block::wrap(py, block)?, next.into()))
}

#[pyfunction]
fn decode_block_leaf(leaf: Buffer<'_>) -> PyResult<BlockLeaf> {
    block::BlockLeaf::decode(leaf.as_slice()?).map(|inner| BlockLeaf { inner }).map_err(raise)
}

#[pyfunction]
fn transaction_leaf<'py>(
    py: Python<'py>,
    id: &[u8],
    received_digest: &[u8],
    receipt: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let id = exactly(id, "transaction.id_length")?;
    let received_digest = exactly(received_digest, "digest.wrong_length")?;
    Ok(PyBytes::new(py, &block::transaction_leaf(&id, &received_digest, &blake3(receipt))))
}

#[pyfunction]
fn timer_leaf<'py>(py: Python<'py>, timer_id: &[u8], receipt: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let timer_id = exactly(timer_id, "timer.wrong_length")?;
    Ok(PyBytes::new(py, &block::timer_leaf(&timer_id, &blake3(receipt))))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<BlockLeaf>()?;
    module.add_class::<Block>()?;
    module.add_function(wrap_pyfunction!(assemble, module)?)?;
    module.add_function(wrap_pyfunction!(assemble_genesis, module)?)?;
    module.add_function(wrap_pyfunction!(decode_block_leaf, module)?)?;
    module.add_function(wrap_pyfunction!(transaction_leaf, module)?)?;
    module.add_function(wrap_pyfunction!(timer_leaf, module)?)
}
