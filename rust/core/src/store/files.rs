//! The few file operations that everything below `store` uses, behind one small trait.
//! Owns the real files (0600 in folders of 0700) and `MemoryFiles`, a twin in memory that fails on demand and, after
//! a crash, shows what a disk may show: writes lost, reordered or torn unless they were synced.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One open file. Offsets and lengths are bytes.
pub trait File: Send + Sync + Debug {
    /// Reads at `offset` until `buffer` is full or the file ends; gives the bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, extending the file where needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// The length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file, or extends it with zeros.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Returns once contents and length are durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Takes the exclusive lock of this file, held until the file is closed; false when another holds it.
    fn lock(&self) -> io::Result<bool>;

    /// Fills `buffer`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buffer, offset)? {
            count if count == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    /// The whole file.
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; length];
        let count = self.read_at(&mut bytes, 0)?;
        bytes.truncate(count);
        Ok(bytes)
    }
}

/// Whether an opened file will be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// Folders and the files in them.
pub trait Files: Send + Sync + Debug {
    /// Makes the folder, and those above it, where missing.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes an empty file; fails when the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens a file that exists.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;
    /// Gives the file a new name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes the name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, ascending.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Returns once names made, changed and removed in the folder are durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The folder a path lies in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The file, or `None` when there is none of that name.
pub fn open_if_there(files: &dyn Files, path: &Path, access: Access) -> io::Result<Option<Arc<dyn File>>> {
    match files.open(path, access) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes `path` hold `bytes`, all or nothing, durably: written beside it, synced, renamed, folder synced.
pub fn replace(files: &dyn Files, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    if open_if_there(files, &beside, Access::Read)?.is_some() {
        files.remove(&beside)?;
    }
    let file = files.create_new(&beside)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    files.rename(&beside, path)?;
    files.sync_folder(folder_of(path))
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Files for RealFiles {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(access == Access::Write).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }
}

/// What a planned failure does to the operation it meets. Only operations that change something are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with this errno. A write may have stored its first half; after a failed sync the unsynced
    /// changes still read back, yet no later sync makes them durable.
    Errno(i32),
    /// The machine stops before the operation; every later one fails.
    Crash,
    /// The machine stops in the middle of the operation: half of a write is in the cache, a sync reached nothing.
    CrashInside,
}

/// What is left of unsynced changes when the machine starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing is lost: only the process was killed.
    Nothing,
    /// Everything unsynced is lost.
    Unsynced,
    /// Each unsynced write is kept, lost or torn on its own, and unsynced names up to some point are kept, as the
    /// seed decides.
    Seeded(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn folder(&self) -> &Path {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(_, path) => folder_of(path),
        }
    }
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, node) => _ = names.insert(path.clone(), *node),
            NameChange::Unlink(path) => _ = names.remove(path),
            NameChange::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Default)]
struct Disk {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    locked: HashSet<usize>,
    operations: u64,
    syncs: u64,
    plan: Option<(u64, Fault)>,
    crashed: bool,
}

enum Step {
    Do,
    Half,
    Fail(io::Error),
}

impl Disk {
    fn step(&mut self) -> Step {
        if self.crashed {
            return Step::Fail(stopped());
        }
        let number = self.operations;
        self.operations += 1;
        match self.plan {
            Some((at, Fault::Errno(errno))) if at == number => Step::Fail(io::Error::from_raw_os_error(errno)),
            Some((at, Fault::Crash)) if at == number => {
                self.crashed = true;
                Step::Fail(stopped())
            }
            Some((at, Fault::CrashInside)) if at == number => {
                self.crashed = true;
                Step::Half
            }
            _ => Step::Do,
        }
    }

    fn plain(&mut self) -> io::Result<()> {
        match self.step() {
            Step::Do => Ok(()),
            Step::Half => Err(stopped()),
            Step::Fail(error) => Err(error),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(stopped()) } else { Ok(()) }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the machine has stopped")
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes: written } => {
            let start = *offset as usize;
            let end = start + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(written);
        }
        Change::Length(length) => bytes.resize(*length as usize, 0),
    }
}

/// A file system in memory that counts its changing operations, fails or stops at a chosen one, and after a crash
/// shows one of the states a disk may be in. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    node: usize,
    writable: bool,
    holds_lock: Mutex<bool>,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryFiles {
    /// An empty file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the operation with this number (from 0, changing operations only) meet a fault, once.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        guard(&self.disk).plan = Some((operation, fault));
    }

    /// How many changing operations there were, failed ones included.
    pub fn operations(&self) -> u64 {
        guard(&self.disk).operations
    }

    /// How many file syncs succeeded.
    pub fn syncs(&self) -> u64 {
        guard(&self.disk).syncs
    }

    /// The file system as found when the machine starts again; this one is left as it is.
    pub fn restarted(&self, loss: Loss) -> MemoryFiles {
        let disk = guard(&self.disk);
        let mut dice = Dice(match loss {
            Loss::Seeded(seed) => seed,
            _ => 0,
        });
        let mut names = disk.durable_names.clone();
        let kept = match loss {
            Loss::Nothing => disk.unsynced_names.len(),
            Loss::Unsynced => 0,
            Loss::Seeded(_) => dice.below(disk.unsynced_names.len() as u64 + 1) as usize,
        };
        disk.unsynced_names.iter().take(kept).for_each(|change| change.apply(&mut names));
        let nodes = disk.nodes.iter().map(|node| {
            let bytes = match loss {
                Loss::Nothing => node.now.clone(),
                Loss::Unsynced => node.durable.clone(),
                Loss::Seeded(_) => dice.survivor(node),
            };
            Node { now: bytes.clone(), durable: bytes, unsynced: Vec::new() }
        });
        let nodes = nodes.collect();
        MemoryFiles {
            disk: Arc::new(Mutex::new(Disk { nodes, durable_names: names.clone(), names, ..Disk::default() })),
        }
    }

    /// The bytes of a file as they read now.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = guard(&self.disk);
        disk.names.get(path).and_then(|node| disk.nodes.get(*node)).map(|node| node.now.clone())
    }

    /// Puts bytes under a name, durably and uncounted: for planting damage.
    pub fn plant(&self, path: &Path, bytes: &[u8]) {
        let mut disk = guard(&self.disk);
        let node = Node { now: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() };
        match disk.names.get(path).copied() {
            Some(number) => disk.nodes[number] = node,
            None => {
                disk.nodes.push(node);
                let number = disk.nodes.len() - 1;
                disk.names.insert(path.to_path_buf(), number);
                disk.durable_names.insert(path.to_path_buf(), number);
            }
        }
    }

    /// Every byte a disk could still show: all names, and file contents that no name leads to any more.
    pub fn all_bytes(&self) -> Vec<Vec<u8>> {
        guard(&self.disk).nodes.iter().flat_map(|node| [node.now.clone(), node.durable.clone()]).collect()
    }

    fn file(&self, node: usize, access: Access) -> Arc<dyn File> {
        let writable = access == Access::Write;
        Arc::new(MemoryFile { disk: Arc::clone(&self.disk), node, writable, holds_lock: Mutex::new(false) })
    }
}

/// splitmix64: enough to choose fates, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Sectors are written whole; which of them reached the disk, and in which order, nobody promises.
    fn survivor(&mut self, node: &Node) -> Vec<u8> {
        const SECTOR: u64 = 512;
        let mut bytes = node.durable.clone();
        for change in &node.unsynced {
            match (self.below(4), change) {
                (0, _) => {}
                (1, _) | (_, Change::Length(_)) => apply(&mut bytes, change),
                (2, Change::Write { offset, bytes: written }) => {
                    let kept = self.below(written.len() as u64 + 1) as usize;
                    apply(&mut bytes, &Change::Write { offset: *offset, bytes: written[..kept].to_vec() });
                }
                (_, Change::Write { offset, bytes: written }) => {
                    let mut start = 0;
                    while start < written.len() {
                        let to_boundary = SECTOR - (*offset + start as u64) % SECTOR;
                        let end = written.len().min(start + to_boundary as usize);
                        if self.below(2) == 0 {
                            let piece = written[start..end].to_vec();
                            apply(&mut bytes, &Change::Write { offset: *offset + start as u64, bytes: piece });
                        }
                        start = end;
                    }
                }
            }
        }
        bytes
    }
}

impl MemoryFile {
    fn change(&self, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut disk = guard(&self.disk);
        let step = disk.step();
        let (change, outcome) = match step {
            Step::Do => (Some(change), Ok(())),
            Step::Half => (half(change), Err(stopped())),
            Step::Fail(error) if error.raw_os_error().is_some() => (half(change), Err(error)),
            Step::Fail(error) => (None, Err(error)),
        };
        if let Some(change) = change {
            let node = &mut disk.nodes[self.node];
            apply(&mut node.now, &change);
            node.unsynced.push(change);
        }
        outcome
    }
}

fn half(change: Change) -> Option<Change> {
    match change {
        Change::Write { offset, mut bytes } => {
            bytes.truncate(bytes.len() / 2);
            Some(Change::Write { offset, bytes })
        }
        Change::Length(_) => None,
    }
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = guard(&self.disk);
        disk.alive()?;
        let bytes = &disk.nodes[self.node].now;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write { offset, bytes: bytes.to_vec() })
    }
    fn len(&self) -> io::Result<u64> {
        let disk = guard(&self.disk);
        disk.alive()?;
        Ok(disk.nodes[self.node].now.len() as u64)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length))
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        let step = disk.step();
        let node = &mut disk.nodes[self.node];
        match step {
            Step::Do => {
                node.unsynced.clear();
                node.durable = node.now.clone();
                disk.syncs += 1;
                Ok(())
            }
            Step::Half => Err(stopped()),
            Step::Fail(error) => {
                if error.raw_os_error().is_some() {
                    node.unsynced.clear();
                }
                Err(error)
            }
        }
    }
    fn lock(&self) -> io::Result<bool> {
        let mut disk = guard(&self.disk);
        disk.alive()?;
        let taken = disk.locked.insert(self.node);
        if taken {
            *guard(&self.holds_lock) = true;
        }
        Ok(taken)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if *guard(&self.holds_lock) {
            guard(&self.disk).locked.remove(&self.node);
        }
    }
}

impl Files for MemoryFiles {
    fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        guard(&self.disk).plain()
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = guard(&self.disk);
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.plain()?;
        disk.nodes.push(Node::default());
        let node = disk.nodes.len() - 1;
        let change = NameChange::Link(path.to_path_buf(), node);
        change.apply(&mut disk.names);
        disk.unsynced_names.push(change);
        drop(disk);
        Ok(self.file(node, Access::Write))
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let disk = guard(&self.disk);
        disk.alive()?;
        let node = disk.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        drop(disk);
        Ok(self.file(node, access))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        if !disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.plain()?;
        let change = NameChange::Rename(from.to_path_buf(), to.to_path_buf());
        change.apply(&mut disk.names);
        disk.unsynced_names.push(change);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.plain()?;
        let change = NameChange::Unlink(path.to_path_buf());
        change.apply(&mut disk.names);
        disk.unsynced_names.push(change);
        Ok(())
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let disk = guard(&self.disk);
        disk.alive()?;
        let inside = disk.names.keys().filter(|path| folder_of(path) == folder);
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        disk.plain()?;
        let (synced, rest) = std::mem::take(&mut disk.unsynced_names)
            .into_iter()
            .partition::<Vec<_>, _>(|change| change.folder() == folder);
        synced.iter().for_each(|change| change.apply(&mut disk.durable_names));
        disk.unsynced_names = rest;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn suite(files: &dyn Files, folder: &Path) {
        files.create_folder(folder).unwrap();
        let path = folder.join("a");
        assert_eq!(files.open(&path, Access::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
        let file = files.create_new(&path).unwrap();
        assert_eq!(files.create_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        file.write_at(b"hello", 3).unwrap();
        assert_eq!(file.read_all().unwrap(), b"\0\0\0hello");
        file.truncate(5).unwrap();
        file.sync_data().unwrap();
        let mut buffer = [9; 4];
        assert_eq!(file.read_at(&mut buffer, 3).unwrap(), 2);
        assert_eq!(buffer, [b'h', b'e', 9, 9]);
        assert_eq!(file.read_exact_at(&mut buffer, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let second = files.open(&path, Access::Write).unwrap();
        assert!(file.lock().unwrap());
        assert!(!second.lock().unwrap());
        drop(file);
        assert!(second.lock().unwrap());
        assert!(files.open(&path, Access::Read).unwrap().write_at(b"x", 0).is_err());
        replace(files, &path, b"new").unwrap();
        assert_eq!(second.read_all().unwrap(), b"\0\0\0he", "an open file outlives its name");
        assert_eq!(files.list(folder).unwrap(), ["a"]);
        files.rename(&path, &folder.join("b")).unwrap();
        files.sync_folder(folder).unwrap();
        assert_eq!(files.open(&folder.join("b"), Access::Read).unwrap().read_all().unwrap(), b"new");
        files.remove(&folder.join("b")).unwrap();
        assert!(files.list(folder).unwrap().is_empty());
    }

    #[test]
    fn real_and_memory_files_behave_alike() {
        let folder = tempfile::tempdir().unwrap();
        suite(&RealFiles, &folder.path().join("x/y"));
        suite(&MemoryFiles::new(), Path::new("x/y"));
    }

    #[test]
    fn only_what_was_synced_is_sure_to_survive() {
        let files = MemoryFiles::new();
        let file = files.create_new(Path::new("d/a")).unwrap();
        file.write_at(b"kept", 0).unwrap();
        file.sync_data().unwrap();
        assert!(files.restarted(Loss::Unsynced).list(Path::new("d")).unwrap().is_empty(), "its name was not synced");
        files.sync_folder(Path::new("d")).unwrap();
        file.write_at(b"lost", 4).unwrap();
        let read = |loss| files.restarted(loss).bytes(Path::new("d/a")).unwrap();
        assert_eq!(read(Loss::Unsynced), b"kept");
        assert_eq!(read(Loss::Nothing), b"keptlost");
        let seen: HashSet<_> = (0..100).map(|seed| read(Loss::Seeded(seed))).collect();
        assert!(seen.len() > 3 && seen.iter().all(|bytes| bytes.starts_with(b"kept")));
    }

    #[test]
    fn a_failed_sync_loses_the_writes_for_good() {
        let files = MemoryFiles::new();
        let file = files.create_new(Path::new("a")).unwrap();
        files.sync_folder(Path::new(".")).unwrap();
        file.write_at(b"x", 0).unwrap();
        files.fail_at(files.operations(), Fault::Errno(5));
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
        assert_eq!(file.read_all().unwrap(), b"x");
        file.write_at(b"y", 1).unwrap();
        assert_eq!(files.restarted(Loss::Seeded(1)).bytes(Path::new("a")).unwrap().first().copied().unwrap_or(0), 0);
    }

    #[test]
    fn after_a_crash_nothing_answers() {
        let files = MemoryFiles::new();
        let file = files.create_new(Path::new("a")).unwrap();
        files.fail_at(1, Fault::CrashInside);
        assert!(file.write_at(b"abcd", 0).is_err());
        assert!(file.read_all().is_err() && file.sync_data().is_err() && files.list(Path::new("")).is_err());
        assert_eq!(files.bytes(Path::new("a")).unwrap(), b"ab");
    }
}
