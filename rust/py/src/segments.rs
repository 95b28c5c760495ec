//! The block log, as Python sees it. Whatever reads or writes a file does so without the GIL.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ehrfast_core::store::files::RealFiles;
use ehrfast_core::store::segments::{self, Edit, Edits, FaultKind, Item, LogError, OpenLog, Outcome, Scan};
use ehrfast_core::transaction;
use numpy::PyArray2;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyList};

use crate::block::{Block, BlockLeaf};
use crate::buffer::digests_to_py;
use crate::envelope::SealedPack;
use crate::errors::{Detail, Kind, Named, raise, raise_code};
use crate::key_store::KeyStore;
use crate::state::WriteSet;
use crate::transaction::Transaction;

impl Named for LogError {
    fn kind(&self) -> Kind {
        match self {
            LogError::Io(_) => Kind::Unavailable,
            LogError::Randomness(below) => below.kind(),
            LogError::Keys(below) => below.kind(),
            LogError::Missing
            | LogError::NoSuchHeight { .. }
            | LogError::NoSuchItem { .. }
            | LogError::Erased { .. } => Kind::NotFound,
            LogError::Exists | LogError::NotNext { .. } | LogError::LeavesDoNotFollow { .. } => Kind::Conflict,
            LogError::WrongChain
            | LogError::TooLarge(_)
            | LogError::ChainId
            | LogError::ReadOnly
            | LogError::OtherItem { .. } => Kind::InvalidInput,
            LogError::Poisoned => Kind::Unavailable,
            LogError::Damaged { .. } | LogError::KeyMissing { .. } | LogError::Shorter { .. } => Kind::Corruption,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            LogError::Io(below) => below.code(),
            LogError::Randomness(below) => below.code(),
            LogError::Keys(below) => below.code(),
            LogError::Missing => "log.missing",
            LogError::NoSuchHeight { .. } => "log.no_such_height",
            LogError::NoSuchItem { .. } => "log.no_such_item",
            LogError::Erased { .. } => "log.erased",
            LogError::OtherItem { .. } => "log.other_item",
            LogError::Exists => "log.exists",
            LogError::NotNext { .. } => "log.not_next",
            LogError::LeavesDoNotFollow { .. } => "log.leaves_do_not_follow",
            LogError::WrongChain => "log.wrong_chain",
            LogError::TooLarge(_) => "log.block_too_large",
            LogError::ChainId => "log.chain_id",
            LogError::ReadOnly => "log.read_only",
            LogError::Poisoned => "log.poisoned",
            LogError::Damaged { .. } => "log.damaged",
            LogError::KeyMissing { .. } => "log.key_missing",
            LogError::Shorter { .. } => "log.shorter_than_checkpoint",
        }
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        match self {
            LogError::Io(below) => below.details(),
            LogError::Keys(below) => below.details(),
            LogError::NoSuchHeight { height }
            | LogError::NoSuchItem { height }
            | LogError::OtherItem { height }
            | LogError::Erased { height } => vec![("height", Detail::Number(*height))],
            LogError::NotNext { expected, given } => {
                vec![("expected", Detail::Number(*expected)), ("given", Detail::Number(*given))]
            }
            LogError::LeavesDoNotFollow { expected } => vec![("expected", Detail::Number(*expected))],
            LogError::TooLarge(section) => vec![("section", Detail::Text(section.name().to_owned()))],
            LogError::Damaged { segment, offset, height, section } => vec![
                ("segment", Detail::Text(segment.clone())),
                ("offset", Detail::Number(*offset)),
                ("height", Detail::Number(*height)),
                ("section", Detail::Text(section.map_or("header", |section| section.name()).to_owned())),
            ],
            LogError::KeyMissing { segment, height } => {
                vec![("segment", Detail::Text(segment.clone())), ("height", Detail::Number(*height))]
            }
            LogError::Shorter { tree_size, checkpoint_size } => {
                vec![("tree_size", Detail::Number(*tree_size)), ("checkpoint_size", Detail::Number(*checkpoint_size))]
            }
            _ => Vec::new(),
        }
    }
}

/// Which pack of a block: its number, or its root.
#[derive(FromPyObject)]
enum PackName {
    Number(usize),
    Root(PyBackedBytes),
}

impl PackName {
    fn find(&self, frame: &segments::Frame) -> Result<usize, LogError> {
        match self {
            PackName::Number(number) => Ok(*number),
            PackName::Root(root) => {
                let position = frame.pack_roots()?.iter().position(|known| known[..] == **root);
                position.ok_or(LogError::NoSuchItem { height: frame.height() })
            }
        }
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct SegmentLog {
    inner: RwLock<Option<Arc<segments::SegmentLog>>>,
}

impl SegmentLog {
    fn around(inner: segments::SegmentLog) -> Self {
        SegmentLog { inner: RwLock::new(Some(Arc::new(inner))) }
    }

    pub fn open_log(&self) -> PyResult<Arc<segments::SegmentLog>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.clone().ok_or_else(|| raise_code(Kind::Conflict, "log.closed"))
    }
}

#[pymethods]
impl SegmentLog {
    #[staticmethod]
    fn create(py: Python<'_>, folder: &str, chain_id: &str, keys: &Bound<'_, KeyStore>) -> PyResult<Self> {
        let keys = keys.get().open_store()?;
        py.detach(|| segments::SegmentLog::create(Arc::new(RealFiles), Path::new(folder), chain_id, keys))
            .map(Self::around)
            .map_err(raise)
    }

    #[staticmethod]
    #[pyo3(signature = (folder, chain_id, keys, *, checkpoint_size=0, read_only=false))]
    fn open(
        py: Python<'_>,
        folder: &str,
        chain_id: &str,
        keys: &Bound<'_, KeyStore>,
        checkpoint_size: u64,
        read_only: bool,
    ) -> PyResult<Self> {
        let keys = keys.get().open_store()?;
        let how = OpenLog { checkpoint_size, read_only };
        py.detach(|| segments::SegmentLog::open(Arc::new(RealFiles), Path::new(folder), chain_id, keys, how))
            .map(Self::around)
            .map_err(raise)
    }

    #[staticmethod]
    fn scan(py: Python<'_>, folder: &str, chain_id: &str, keys: &Bound<'_, KeyStore>) -> PyResult<FrameScan> {
        let keys = keys.get().open_store()?;
        let scan = py.detach(|| Scan::new(Arc::new(RealFiles), Path::new(folder), chain_id, keys)).map_err(raise)?;
        Ok(FrameScan { inner: Mutex::new(scan) })
    }

    #[getter]
    fn chain_id(&self) -> PyResult<String> {
        Ok(self.open_log()?.chain_id().to_owned())
    }

    #[getter]
    fn height(&self) -> PyResult<Option<u64>> {
        Ok(self.open_log()?.height())
    }

    #[getter]
    fn tree_size(&self) -> PyResult<u64> {
        Ok(self.open_log()?.tree_size())
    }

    fn height_of(&self, leaf_index: u64) -> PyResult<Option<u64>> {
        Ok(self.open_log()?.height_of(leaf_index))
    }

    fn append(&self, py: Python<'_>, block: &Bound<'_, Block>, packs: Vec<Bound<'_, SealedPack>>) -> PyResult<()> {
        let log = self.open_log()?;
        let block = Arc::clone(&block.get().inner);
        let packs: Vec<_> = packs.iter().map(|pack| Arc::clone(&pack.get().inner)).collect();
        py.detach(|| log.append(&block, &packs)).map_err(raise)
    }

    fn read(&self, py: Python<'_>, height: u64) -> PyResult<Frame> {
        let log = self.open_log()?;
        let frame = py.detach(|| log.read(height)).map_err(raise)?;
        Ok(Frame { inner: Arc::new(frame) })
    }

    #[allow(clippy::type_complexity)]
    fn read_part<'py>(
        &self,
        py: Python<'py>,
        height: u64,
        pack: PackName,
        position: usize,
    ) -> PyResult<(Option<Bound<'py, PyBytes>>, Option<Bound<'py, PyBytes>>, Bound<'py, PyBytes>)> {
        let log = self.open_log()?;
        let read = py.detach(|| {
            let frame = log.read(height)?;
            frame.pack_item(pack.find(&frame)?, position)?;
            Ok::<_, LogError>(frame)
        });
        let frame = read.map_err(raise)?;
        let (item, wraps) = pack.find(&frame).and_then(|pack| frame.pack_item(pack, position)).map_err(raise)?;
        let wraps = wraps.kept().ok_or_else(|| raise(LogError::Erased { height }))?;
        let kept = item.kept().map(|item| PyBytes::new(py, item));
        let digest = if kept.is_none() { Some(PyBytes::new(py, &item.digest())) } else { None };
        Ok((kept, digest, PyBytes::new(py, wraps)))
    }

    #[allow(clippy::type_complexity)]
    #[pyo3(signature = (from_height, to_height, *, subjects, custodian, paths))]
    fn find_traces<'py>(
        &self,
        py: Python<'py>,
        from_height: u64,
        to_height: u64,
        subjects: Vec<[u8; 16]>,
        custodian: [u8; 16],
        paths: Vec<[u8; 32]>,
    ) -> PyResult<(Vec<(u64, usize, usize, Bound<'py, PyBytes>)>, Vec<(u64, Bound<'py, PyBytes>)>)> {
        let log = self.open_log()?;
        let (subjects, paths) = (subjects.into_iter().collect(), paths.into_iter().collect());
        let search = || log.find_traces((from_height, to_height), &subjects, &custodian, &paths);
        let traces = py.detach(search).map_err(raise)?;
        let wraps = traces
            .wraps
            .iter()
            .map(|(height, pack, position, subject)| (*height, *pack, *position, PyBytes::new(py, subject)));
        let writes = traces.writes.iter().map(|(height, path)| (*height, PyBytes::new(py, path)));
        Ok((wraps.collect(), writes.collect()))
    }

    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    #[pyo3(signature = (*, transactions=Vec::new(), writes=Vec::new(), items=Vec::new(), records=Vec::new(),
                        subjects=Vec::new(), restores=Vec::new(), forget=Vec::new(), applied_erasure_height=None))]
    fn rewrite(
        &self,
        py: Python<'_>,
        transactions: Vec<(u64, usize)>,
        writes: Vec<(u64, [u8; 32])>,
        items: Vec<(u64, usize, usize)>,
        records: Vec<(u64, usize, usize)>,
        subjects: Vec<(u64, usize, usize, [u8; 16], [u8; 16])>,
        restores: Vec<(u64, usize, usize, PyBackedBytes)>,
        forget: Vec<(PyBackedStr, PyBackedBytes)>,
        applied_erasure_height: Option<u64>,
    ) -> PyResult<(u64, i64)> {
        let log = self.open_log()?;
        let mut edits = Edits::new();
        let mut add = |height, edit| edits.entry(height).or_default().push(edit);
        transactions.into_iter().for_each(|(height, number)| add(height, Edit::Transaction(number)));
        writes.into_iter().for_each(|(height, path)| add(height, Edit::Write(path)));
        items.into_iter().for_each(|(height, pack, position)| add(height, Edit::Item { pack, position }));
        records.into_iter().for_each(|(height, pack, position)| add(height, Edit::Record { pack, position }));
        for (height, pack, position, subject, custodian) in subjects {
            add(height, Edit::Subject { pack, position, subject, custodian });
        }
        for (height, pack, position, item) in restores {
            add(height, Edit::Restore { pack, position, item: item.to_vec() });
        }
        let done = py.detach(|| {
            let forget: Vec<(&str, &[u8])> = forget.iter().map(|(kind, id)| (&**kind, &**id)).collect();
            log.rewrite(&edits, &forget, applied_erasure_height)
        });
        done.map(|done| (done.segments, done.freed)).map_err(raise)
    }

    fn roll(&self) -> PyResult<()> {
        self.open_log()?.roll();
        Ok(())
    }

    #[pyo3(signature = (from_height, to_height=None))]
    fn leaf_hashes<'py>(
        &self,
        py: Python<'py>,
        from_height: u64,
        to_height: Option<u64>,
    ) -> PyResult<Bound<'py, PyArray2<u8>>> {
        let log = self.open_log()?;
        let to = to_height.unwrap_or_else(|| log.height().map_or(0, |height| height + 1));
        let hashes = py.detach(|| log.leaf_hashes(from_height, to)).map_err(raise)?;
        digests_to_py(py, hashes)
    }

    fn locate(&self, height: u64) -> PyResult<(String, u64)> {
        let frame = self.open_log()?.read(height).map_err(raise)?;
        Ok((frame.segment_name().to_owned(), frame.offset()))
    }

    fn extents(&self, py: Python<'_>) -> PyResult<Vec<(String, u64)>> {
        let log = self.open_log()?;
        py.detach(|| log.extents()).map_err(raise)
    }

    fn read_stored<'py>(
        &self,
        py: Python<'py>,
        segment: &str,
        offset: u64,
        count: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let log = self.open_log()?;
        let bytes = py.detach(|| log.read_stored(segment, offset, count)).map_err(raise)?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn bytes_on_disk(&self) -> PyResult<u64> {
        self.open_log()?.bytes_on_disk().map_err(raise)
    }

    #[getter]
    fn last_segment_height(&self) -> PyResult<Option<u64>> {
        Ok(self.open_log()?.last_segment_height())
    }

    fn close(&self) {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
pub struct Frame {
    pub inner: Arc<segments::Frame>,
}

impl Frame {
    /// Opens a section without the GIL, so that taking from it afterwards is a matter of copying.
    fn opened(&self, py: Python<'_>, section: segments::Section) -> PyResult<()> {
        py.detach(|| self.inner.section(section).map(drop)).map_err(raise)
    }
}

fn to_list<'py>(py: Python<'py>, items: &[&[u8]]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, items.iter().map(|item| PyBytes::new(py, item)))
}

#[pymethods]
impl Frame {
    #[getter]
    fn height(&self) -> u64 {
        self.inner.height()
    }

    #[getter]
    fn head(&self, py: Python<'_>) -> PyResult<BlockLeaf> {
        py.detach(|| self.inner.head()).map(BlockLeaf::from).map_err(raise)
    }

    #[getter]
    fn tree_size(&self) -> u64 {
        self.inner.header().tree_size
    }

    #[getter]
    fn previous_leaf_hash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.header().previous_leaf_hash)
    }

    #[getter]
    fn leaf_hash<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let hash = py.detach(|| self.inner.leaf_hash()).map_err(raise)?;
        Ok(PyBytes::new(py, &hash))
    }

    #[getter]
    fn leaves<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.opened(py, segments::Section::Leaves)?;
        to_list(py, &self.inner.leaves().map_err(raise)?)
    }

    #[getter]
    fn transactions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.opened(py, segments::Section::Transactions)?;
        let items = self.inner.transactions().map_err(raise)?;
        PyList::new(py, items.into_iter().map(|item| item.kept().map(|received| PyBytes::new(py, received))))
    }

    fn decoded_transactions(&self, py: Python<'_>) -> PyResult<Vec<Option<Transaction>>> {
        let decoded = py.detach(|| {
            let items = self.inner.transactions().map_err(raise)?;
            let decode = |received: &[u8]| transaction::decode(received).map_err(raise);
            items.into_iter().map(|item| item.kept().map(decode).transpose()).collect::<PyResult<Vec<_>>>()
        })?;
        Ok(decoded.into_iter().map(|item| item.map(Transaction::from)).collect())
    }

    #[getter]
    fn receipts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.opened(py, segments::Section::Receipts)?;
        to_list(py, &self.inner.receipts().map_err(raise)?)
    }

    #[getter]
    fn write_set(&self, py: Python<'_>) -> PyResult<WriteSet> {
        let inner = py.detach(|| self.inner.write_set()).map_err(raise)?;
        Ok(WriteSet { inner: Arc::new(inner) })
    }

    #[getter]
    fn pack_roots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let roots = py.detach(|| self.inner.pack_roots()).map_err(raise)?;
        PyList::new(py, roots.iter().map(|root| PyBytes::new(py, root)))
    }

    fn stored_pack(&self, py: Python<'_>, pack: PackName) -> PyResult<StoredPack> {
        let found = py.detach(|| {
            let number = pack.find(&self.inner)?;
            Ok((number, self.inner.pack_items(number)?.len()))
        });
        let (number, count) = found.map_err(raise::<LogError>)?;
        Ok(StoredPack { frame: Arc::clone(&self.inner), number, count })
    }

    #[getter]
    fn erased(&self, py: Python<'_>) -> PyResult<(usize, usize, usize, usize)> {
        py.detach(|| self.inner.count_erased()).map_err(raise)
    }

    fn pack(&self, py: Python<'_>, pack: PackName) -> PyResult<SealedPack> {
        let read = py.detach(|| self.inner.pack(pack.find(&self.inner)?));
        Ok(SealedPack { inner: Arc::new(read.map_err(raise)?) })
    }

    fn __repr__(&self) -> String {
        format!("Frame(height={})", self.inner.height())
    }
}

/// A pack as the log still has it.
#[pyclass(frozen, module = "ehrfast._core")]
pub struct StoredPack {
    frame: Arc<segments::Frame>,
    number: usize,
    count: usize,
}

impl StoredPack {
    fn parts(&self, position: usize) -> PyResult<(Item<'_>, Item<'_>)> {
        if position >= self.count {
            return Err(PyIndexError::new_err(position));
        }
        self.frame.pack_item(self.number, position).map_err(raise)
    }
}

#[pymethods]
impl StoredPack {
    fn __len__(&self) -> usize {
        self.count
    }

    fn item<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.parts(position)?.0.kept().map(|bytes| PyBytes::new(py, bytes)))
    }

    fn wraps<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.parts(position)?.1.kept().map(|bytes| PyBytes::new(py, bytes)))
    }

    fn item_digest<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.parts(position)?.0.digest()))
    }

    fn __repr__(&self) -> String {
        format!("<StoredPack records={}>", self.count)
    }
}

/// What stands in the place of a frame.
#[pyclass(frozen, get_all, module = "ehrfast._core")]
struct Fault {
    kind: &'static str,
    height: Option<u64>,
    section: Option<&'static str>,
}

#[pymethods]
impl Fault {
    fn __repr__(&self) -> String {
        format!("Fault(kind={:?}, height={:?}, section={:?})", self.kind, self.height, self.section)
    }
}

#[pyclass(frozen, module = "ehrfast._core")]
struct FrameScan {
    inner: Mutex<Scan>,
}

#[pymethods]
impl FrameScan {
    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<(String, u64, Py<PyAny>)>> {
        let next = py.detach(|| self.inner.lock().unwrap_or_else(PoisonError::into_inner).next());
        let Some(found) = next else { return Ok(None) };
        let outcome = match found.outcome {
            Outcome::Frame(frame) => Py::new(py, Frame { inner: Arc::new(*frame) })?.into_any(),
            Outcome::Fault { kind, height } => {
                let section = match kind {
                    FaultKind::Section(section) => Some(section.name()),
                    _ => None,
                };
                Py::new(py, Fault { kind: kind.name(), height, section })?.into_any()
            }
        };
        Ok(Some((found.segment, found.offset, outcome)))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SegmentLog>()?;
    module.add_class::<Frame>()?;
    module.add_class::<StoredPack>()?;
    module.add_class::<Fault>()?;
    module.add_class::<FrameScan>()
}
