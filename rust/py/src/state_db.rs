//! The state database, as Python sees it. Single reads keep the GIL: they take a few microseconds, and getting it
//! back from a busy thread could take milliseconds.

use std::io;
use std::path::Path as FilePath;
use std::sync::{Arc, PoisonError, RwLock};

use ehrfast_core::state::{Path, StateError, StateRead};
use ehrfast_core::store::projection::{self, ProjectionError};
use ehrfast_core::store::state_db::{self, Applied, MemoryState, StateDbError, StateStore, follow};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::block::Block;
use crate::buffer::exactly;
use crate::errors::{Detail, Kind, Named, raise};
use crate::log::Log;
use crate::segments::{Frame, SegmentLog};
use crate::trie::Trie;

impl Named for StateDbError {
    fn kind(&self) -> Kind {
        match self {
            StateDbError::Io(_) => Kind::Unavailable,
            StateDbError::Randomness(below) => below.kind(),
            StateDbError::Log(below) => below.kind(),
            StateDbError::Locked | StateDbError::NotNext { .. } | StateDbError::Closed | StateDbError::Stopped => {
                Kind::Conflict
            }
            StateDbError::Damaged => Kind::Corruption,
            StateDbError::Poisoned => Kind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            StateDbError::Io(below) => below.code(),
            StateDbError::Randomness(below) => below.code(),
            StateDbError::Log(below) => below.code(),
            StateDbError::Locked => "state.locked",
            StateDbError::NotNext { .. } => "state.not_next",
            StateDbError::Closed => "state.closed",
            StateDbError::Damaged => "state.damaged",
            StateDbError::Poisoned => "state.poisoned",
            StateDbError::Stopped => "state.stopped",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            StateDbError::Io(below) => below.details(),
            StateDbError::Log(below) => below.details(),
            StateDbError::NotNext { expected, given } => {
                vec![("expected", Detail::Number(*expected)), ("given", Detail::Number(*given))]
            }
            _ => Vec::new(),
        }
    }
}

impl Named for ProjectionError {
    fn kind(&self) -> Kind {
        match self {
            ProjectionError::State(below) => below.kind(),
            ProjectionError::Segments(below) => below.kind(),
            ProjectionError::Trie(below) => below.kind(),
            ProjectionError::Log(below) => below.kind(),
            _ => Kind::Corruption,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            ProjectionError::State(below) => below.code(),
            ProjectionError::Segments(below) => below.code(),
            ProjectionError::Trie(below) => below.code(),
            ProjectionError::Log(below) => below.code(),
            ProjectionError::WrongRoot { .. } => "state.wrong_root",
            ProjectionError::BrokenLink { .. } => "log.broken_link",
            ProjectionError::NoBlock => "log.empty",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            ProjectionError::State(below) => below.details(),
            ProjectionError::Segments(below) => below.details(),
            ProjectionError::Trie(below) => below.details(),
            ProjectionError::Log(below) => below.details(),
            ProjectionError::WrongRoot { height } | ProjectionError::BrokenLink { height } => {
                vec![("height", Detail::Number(*height))]
            }
            ProjectionError::NoBlock => Vec::new(),
        }
    }
}

/// Tells Python of progress now and then; what it raises stops the work and is raised by it.
struct Telling<'a> {
    told: Option<&'a Py<PyAny>>,
    raised: Option<PyErr>,
}

impl Telling<'_> {
    /// Blocks done and their total, of the half of the work that begins at `first` halves.
    fn tell(&mut self, first: u64, done: u64, total: u64) -> bool {
        let outcome = Python::attach(|py| {
            py.check_signals()?;
            let Some(told) = self.told else { return Ok(()) };
            told.call1(py, (first * total + done, 2 * total)).map(drop)
        });
        self.raised = outcome.err();
        self.raised.is_none()
    }
}

/// A store that views may hold on to while Python closes it.
pub struct Closable {
    inner: RwLock<Option<Arc<dyn StateStore>>>,
}

impl Closable {
    fn store(&self) -> Result<Arc<dyn StateStore>, StateDbError> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StateDbError::Closed)
    }
}

impl StateRead for Closable {
    fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, StateError> {
        match self.inner.read().unwrap_or_else(PoisonError::into_inner).as_deref() {
            Some(store) => store.get(path),
            None => Err(StateError::Unavailable(io::ErrorKind::NotConnected.into())),
        }
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct StateDb {
    /// For views.
    pub reader: Arc<dyn StateRead>,
    inner: Arc<Closable>,
}

impl StateDb {
    fn around(store: Arc<dyn StateStore>) -> Self {
        let inner = Arc::new(Closable { inner: RwLock::new(Some(store)) });
        StateDb { reader: Arc::clone(&inner) as Arc<dyn StateRead>, inner }
    }

    /// The store, for the trie, which scans it.
    pub fn store(&self) -> PyResult<Arc<dyn StateStore>> {
        self.inner.store().map_err(raise)
    }

    fn applied(&self) -> PyResult<Option<Applied>> {
        Ok(self.store()?.applied())
    }
}

#[pymethods]
impl StateDb {
    #[staticmethod]
    fn open(py: Python<'_>, folder: &str, key: &[u8]) -> PyResult<Self> {
        let key = exactly(key, "state.key_length")?;
        let opened = py.detach(|| state_db::StateDb::open(FilePath::new(folder), &key)).map_err(raise)?;
        Ok(Self::around(Arc::new(opened)))
    }

    #[staticmethod]
    fn in_memory() -> Self {
        Self::around(MemoryState::new())
    }

    #[staticmethod]
    fn discard(py: Python<'_>, folder: &str) -> PyResult<()> {
        py.detach(|| state_db::StateDb::discard(FilePath::new(folder))).map_err(raise)
    }

    #[getter]
    fn applied_height(&self) -> PyResult<Option<u64>> {
        Ok(self.applied()?.map(|applied| applied.height))
    }

    #[getter]
    fn applied_leaf_hash<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.applied()?.map(|applied| PyBytes::new(py, &applied.leaf_hash)))
    }

    fn apply(&self, py: Python<'_>, block: &Bound<'_, Block>) -> PyResult<()> {
        let (store, block) = (self.store()?, Arc::clone(&block.get().inner));
        let applied = Applied { height: block.head.height, leaf_hash: block.leaf_hash };
        py.detach(|| store.apply(applied, &block.write_set, &block.transaction_ids)).map_err(raise)
    }

    fn publish(
        &self,
        py: Python<'_>,
        block: &Bound<'_, Block>,
        trie: &Bound<'_, Trie>,
        log: &Bound<'_, Log>,
    ) -> PyResult<()> {
        let (store, block, trie, log) = (self.store()?, Arc::clone(&block.get().inner), trie.get(), log.get());
        let applied = Applied { height: block.head.height, leaf_hash: block.leaf_hash };
        py.detach(|| {
            projection::publish(&*store, applied, &block.write_set, &block.transaction_ids, &trie.inner)
                .and_then(|()| log.store_tiles(&*store, block.tree_size))
                .map_err(raise)
        })
    }

    fn keep_top(&self, py: Python<'_>, trie: &Bound<'_, Trie>) -> PyResult<()> {
        let (store, trie) = (self.store()?, trie.get());
        py.detach(|| projection::keep_top(&*store, &trie.inner)).map_err(raise)
    }

    #[pyo3(signature = (log, progress = None))]
    fn restore(
        &self,
        py: Python<'_>,
        log: &Bound<'_, SegmentLog>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Trie, Log)> {
        let (store, segments) = (self.store()?, log.get().open_log()?);
        let mut telling = Telling { told: progress.as_ref(), raised: None };
        let restored = py.detach(|| {
            let trie = projection::restore_state(&*store, &segments, &mut |done, total| telling.tell(0, done, total))?;
            let log = projection::restore_log(&*store, &segments, &mut |done, total| telling.tell(1, done, total))?;
            Ok::<_, ProjectionError>((trie, log))
        });
        match (telling.raised, restored) {
            (Some(raised), _) => Err(raised),
            (None, restored) => restored.map(|(trie, log)| (trie.into(), log.into())).map_err(raise),
        }
    }

    fn known_transactions<'py>(&self, py: Python<'py>, ids: Vec<PyBackedBytes>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let store = self.store()?;
        let known = py.detach(|| {
            let mut known = Vec::new();
            for id in &ids {
                let id: [u8; 32] = exactly(id, "transaction.id_length")?;
                if store.find_transaction(&id).map_err(raise)?.is_some() {
                    known.push(id);
                }
            }
            PyResult::Ok(known)
        })?;
        Ok(known.iter().map(|id| PyBytes::new(py, id)).collect())
    }

    fn apply_frame(&self, py: Python<'_>, frame: &Bound<'_, Frame>) -> PyResult<()> {
        let (store, frame) = (self.store()?, Arc::clone(&frame.get().inner));
        py.detach(|| {
            let applied = Applied { height: frame.height(), leaf_hash: frame.leaf_hash()? };
            store.apply(applied, &frame.write_set()?, &frame.transaction_ids()?)
        })
        .map_err(raise)
    }

    fn follow(&self, py: Python<'_>, log: &Bound<'_, SegmentLog>) -> PyResult<u64> {
        let (store, log) = (self.store()?, log.get().open_log()?);
        py.detach(|| follow(&*store, &log, &mut |_, _| true)).map_err(raise)
    }

    fn get<'py>(&self, py: Python<'py>, path: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let path = exactly(path, "state.path_length")?;
        let stored = self.reader.get(&path).map_err(raise)?;
        Ok(stored.map(|stored| PyBytes::new(py, &stored)))
    }

    fn find_transaction(&self, id: &[u8]) -> PyResult<Option<(u64, u64)>> {
        let id = exactly(id, "transaction.id_length")?;
        let place = self.store()?.find_transaction(&id).map_err(raise)?;
        Ok(place.map(|place| (place.height, place.index)))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let store = self.store()?;
        let count = py.detach(|| store.count()).map_err(raise)?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        let store = self.store()?;
        py.detach(|| store.clear()).map_err(raise)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| *self.inner.inner.write().unwrap_or_else(PoisonError::into_inner) = None);
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<StateDb>()
}
