//! Shards, as Python sees them.

use ehrfast_core::merkle::frontier::{Frontier, FrontierError};
use ehrfast_core::merkle::partial::PartialError;
use ehrfast_core::shard::{self, Claim, Fault, FaultKind, ProveError, ShardCountError, Tip};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::block::Block;
use crate::buffer::{Buffer, exactly};
use crate::errors::{Detail, Kind, Named, raise};
use crate::log::Log;
use crate::trie::Trie;

impl Named for ShardCountError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn code(&self) -> &'static str {
        "shard.count"
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        vec![("count", Detail::Number(self.0.into()))]
    }
}

impl Named for FrontierError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn code(&self) -> &'static str {
        "frontier.wrong_length"
    }
}

impl Named for ProveError {
    fn kind(&self) -> Kind {
        match self {
            ProveError::Partial(PartialError::Trie(below)) => below.kind(),
            _ => Kind::InvalidInput,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            ProveError::OtherState => "shard.other_state",
            ProveError::Partial(PartialError::NoChange(_)) => FaultKind::NoChange.code(),
            ProveError::Partial(PartialError::Trie(below)) => below.code(),
            ProveError::Partial(_) => FaultKind::Proof.code(),
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            ProveError::Partial(PartialError::NoChange(position)) => {
                vec![("position", Detail::Number(*position as u64))]
            }
            _ => Vec::new(),
        }
    }
}

#[pyclass(frozen, eq, module = "ehrfast._core")]
#[derive(PartialEq)]
pub struct ShardTip {
    inner: Tip,
}

#[pymethods]
impl ShardTip {
    #[new]
    #[pyo3(signature = (chain_id, *, next_height, time_ms, tree_size, frontier, state_root))]
    fn new(
        chain_id: String,
        next_height: u64,
        time_ms: u64,
        tree_size: u64,
        frontier: Vec<PyBackedBytes>,
        state_root: &[u8],
    ) -> PyResult<Self> {
        let roots = frontier.iter().map(|root| exactly(root, "digest.wrong_length")).collect::<PyResult<_>>()?;
        let frontier = Frontier::new(tree_size, roots).map_err(raise)?;
        let state_root = exactly(state_root, "digest.wrong_length")?;
        Ok(ShardTip { inner: Tip { chain_id, next_height, time_ms, frontier, state_root } })
    }

    #[staticmethod]
    fn genesis(chain_id: &str) -> Self {
        ShardTip { inner: Tip::genesis(chain_id) }
    }

    #[staticmethod]
    fn after(py: Python<'_>, block: &Bound<'_, Block>, log: &Bound<'_, Log>) -> PyResult<Self> {
        let block = &block.get().inner;
        let roots = log.get().read(py)?.frontier(block.tree_size).map_err(raise)?;
        let frontier = Frontier::new(block.tree_size, roots).map_err(raise)?;
        let head = &block.head;
        let next_height = head.height.saturating_add(1);
        let (chain_id, state_root) = (head.chain_id.clone(), head.state_root);
        Ok(ShardTip { inner: Tip { chain_id, next_height, time_ms: head.time_ms, frontier, state_root } })
    }

    #[getter]
    fn chain_id(&self) -> &str {
        &self.inner.chain_id
    }

    #[getter]
    fn next_height(&self) -> u64 {
        self.inner.next_height
    }

    #[getter]
    fn time_ms(&self) -> u64 {
        self.inner.time_ms
    }

    #[getter]
    fn tree_size(&self) -> u64 {
        self.inner.frontier.tree_size()
    }

    #[getter]
    fn frontier<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.inner.frontier.roots().iter().map(|root| PyBytes::new(py, root)))
    }

    #[getter]
    fn log_root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.frontier.root())
    }

    #[getter]
    fn state_root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.state_root)
    }

    fn __repr__(&self) -> String {
        format!("<ShardTip of {} before block {}>", self.inner.chain_id, self.inner.next_height)
    }
}

#[pyclass(frozen, eq, module = "ehrfast._core")]
#[derive(PartialEq)]
pub struct ShardFault {
    inner: Fault,
}

#[pymethods]
impl ShardFault {
    #[getter]
    fn code(&self) -> &'static str {
        self.inner.kind.code()
    }

    #[getter]
    fn position(&self) -> Option<usize> {
        self.inner.position
    }

    fn __repr__(&self) -> String {
        match self.inner.position {
            Some(position) => format!("<ShardFault {} at {position}>", self.code()),
            None => format!("<ShardFault {}>", self.code()),
        }
    }
}

#[pyfunction]
fn shard_of(subject: &[u8], shard_count: u32) -> PyResult<u32> {
    shard::shard_of(&exactly(subject, "envelope.subject_length")?, shard_count).map_err(raise)
}

#[pyfunction]
fn prove_block<'py>(
    py: Python<'py>,
    block: &Bound<'_, Block>,
    before: &Bound<'_, Trie>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (block, before) = (block.get(), before.get());
    let proven = py.detach(|| shard::prove_block(&block.inner, &before.inner)).map_err(raise)?;
    Ok(PyBytes::new(py, &proven))
}

type PyClaim<'py> = (Bound<'py, ShardTip>, Buffer<'py>, Option<PyBackedBytes>);

#[pyfunction]
fn validate_shards<'py>(py: Python<'py>, claims: Vec<PyClaim<'py>>) -> PyResult<Bound<'py, PyList>> {
    let lent = claims
        .iter()
        .map(|(tip, block, log_root)| {
            let log_root = log_root.as_ref().map(|root| exactly(root, "digest.wrong_length")).transpose()?;
            Ok(Claim { tip: &tip.get().inner, block: block.as_slice()?, log_root })
        })
        .collect::<PyResult<Vec<_>>>()?;
    let verdicts = py.detach(|| shard::validate_shards(&lent));
    let list = PyList::empty(py);
    for verdict in verdicts {
        match verdict {
            Ok(inner) => list.append(Py::new(py, ShardTip { inner })?)?,
            Err(inner) => list.append(Py::new(py, ShardFault { inner })?)?,
        }
    }
    Ok(list)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ShardTip>()?;
    module.add_class::<ShardFault>()?;
    module.add_function(wrap_pyfunction!(shard_of, module)?)?;
    module.add_function(wrap_pyfunction!(prove_block, module)?)?;
    module.add_function(wrap_pyfunction!(validate_shards, module)?)
}
