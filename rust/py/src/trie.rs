//! The state trie and the verifier of its proofs, as Python sees them.

use std::sync::Arc;

use ehrfast_core::merkle::trie::{self, TrieError};
use ehrfast_core::merkle::trie_proof::{TrieProof, TrieProofError};
use ehrfast_core::merkle::trie_source::LeafSource;
use ehrfast_core::store::projection::HOT_BYTES;
use ehrfast_core::store::state_db::HashedValues;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{Buffer, exactly};
use crate::errors::{Detail, Kind, Named, raise, raise_code};
use crate::state::WriteSet;
use crate::state_db::StateDb;

impl Named for TrieError {
    fn kind(&self) -> Kind {
        match self {
            TrieError::Order(_) => Kind::InvalidInput,
            TrieError::Unavailable(_) => Kind::Unavailable,
            TrieError::Damaged(_) => Kind::Corruption,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            TrieError::Order(_) => "trie.order",
            TrieError::Unavailable(_) => "state.unavailable",
            TrieError::Damaged(_) => "state.corrupt",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            TrieError::Order(position) => vec![("position", Detail::Number(*position as u64))],
            _ => Vec::new(),
        }
    }
}

impl Named for TrieProofError {
    fn kind(&self) -> Kind {
        Kind::Verification
    }

    fn code(&self) -> &'static str {
        match self {
            TrieProofError::Encoding(_) => "proof.malformed",
            TrieProofError::WrongLength => "proof.wrong_length",
            TrieProofError::EmptySibling => "proof.empty_sibling",
            TrieProofError::NotLifted => "proof.not_lifted",
            TrieProofError::OtherElsewhere => "proof.other_elsewhere",
            TrieProofError::OtherIsOwn => "proof.other_is_own",
            TrieProofError::Opposite => "proof.opposite",
            TrieProofError::RootMismatch => "proof.root_mismatch",
        }
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct Trie {
    pub inner: Arc<trie::Trie>,
}

impl From<trie::Trie> for Trie {
    fn from(inner: trie::Trie) -> Self {
        Self { inner: Arc::new(inner) }
    }
}

#[pymethods]
impl Trie {
    #[new]
    fn new() -> Self {
        trie::Trie::new().into()
    }

    #[staticmethod]
    fn from_state(py: Python<'_>, state: &Bound<'_, StateDb>) -> PyResult<Self> {
        let values: Arc<dyn LeafSource> = Arc::new(HashedValues(state.get().store()?));
        py.detach(|| trie::Trie::scan(values, HOT_BYTES)).map(Self::from).map_err(raise)
    }

    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.root())
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn __repr__(&self) -> String {
        format!("<Trie of {} keys>", self.inner.len())
    }

    fn update(&self, py: Python<'_>, writes: &Bound<'_, WriteSet>) -> PyResult<Self> {
        let writes = Arc::clone(&writes.get().inner);
        py.detach(|| self.inner.update(&writes)).map(Self::from).map_err(raise)
    }

    fn prove<'py>(&self, py: Python<'py>, path: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let path = exactly(path, "path.wrong_length")?;
        Ok(PyBytes::new(py, &self.inner.prove(&path).map_err(raise)?.encode()))
    }
}

#[pyfunction]
fn verify_state_proof(root: &[u8], path: &[u8], stored: Option<&[u8]>, proof: Buffer<'_>) -> PyResult<()> {
    // A root or path of another length makes the proof false, not the call wrong: both may come from outside.
    let hash = |bytes: &[u8]| bytes.try_into().map_err(|_| raise_code(Kind::Verification, "proof.hash_length"));
    let (root, path) = (hash(root)?, hash(path)?);
    TrieProof::decode(proof.as_slice()?).and_then(|proof| proof.verify(&root, &path, stored)).map_err(raise)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Trie>()?;
    module.add_function(wrap_pyfunction!(verify_state_proof, module)?)
}
