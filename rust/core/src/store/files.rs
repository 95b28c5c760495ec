//! The few file operations that everything below `store` uses, behind one small trait.
//! Owns the real files (0600 in folders of 0700) and `MemoryFiles`, a twin in memory that fails on demand and, after
//! a crash, shows what a disk may show: writes lost, reordered or torn unless they were synced.

use std::collections::{BTreeMap, BTreeSet, HashSet};
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
    /// Makes the folder, and those above it, where missing; what it made is durable when it returns.
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
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder_of(folder);
        self.create_folder(above)?;
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(_) if folder.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_folder(above),
        }
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

/// A changing operation, for saying which one a fault met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// `Files::create_folder`.
    CreateFolder,
    /// `Files::create_new`.
    CreateNew,
    /// `Files::rename`.
    Rename,
    /// `Files::remove`.
    Remove,
    /// `Files::sync_folder`.
    SyncFolder,
    /// `File::write_at`.
    Write,
    /// `File::truncate`.
    Truncate,
    /// `File::sync_data`.
    SyncData,
}

/// What a planned failure does to the operation it meets. Only operations that change something are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with this errno. Of a write, a first part may be stored. After a failed sync each sector
    /// that waited for it is on the disk or not, as chance has it; no later sync stores it unless it is written
    /// again, and until then the cache or the disk may answer.
    Errno(i32),
    /// The machine stops before the operation; every later one fails.
    Crash,
    /// The machine stops in the middle of the operation: part of a write is in the cache, a sync reached nothing.
    CrashInside,
}

/// What is left of unsynced changes when the machine starts again.
///
/// Of a file, each sector of 512 bytes and the length read as they were at some moment since the last sync, each on
/// its own: this is what losing, reordering and tearing writes amounts to. Of names, any of the creations, renames
/// and removals since the last sync of their folder are kept; a rename is one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing is lost: only the process was killed.
    Nothing,
    /// Everything unsynced is lost.
    Unsynced,
    /// The seed chooses: all, nothing, everything up to one moment, or any mixture.
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
    Rename(PathBuf, PathBuf, usize),
}

impl NameChange {
    fn folder(&self) -> &Path {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(_, path, _) => folder_of(path),
        }
    }
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, node) => _ = names.insert(path.clone(), *node),
            NameChange::Unlink(path) => _ = names.remove(path),
            NameChange::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// Sectors are written whole; which of them reached the disk, and in which order, nobody promises.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Sectors that the next sync stores.
    dirty: BTreeSet<usize>,
}

impl Node {
    fn settled(bytes: Vec<u8>) -> Self {
        Node { now: bytes.clone(), durable: bytes, ..Node::default() }
    }

    fn change(&mut self, change: Change) {
        let before = self.now.len();
        apply(&mut self.now, &change);
        let (start, end) = match &change {
            Change::Write { offset, bytes } => (before.min(*offset as usize), *offset as usize + bytes.len()),
            Change::Length(length) => (before.min(*length as usize), before.max(*length as usize)),
        };
        self.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        self.durable.resize(self.now.len(), 0);
        dirty.into_iter().for_each(|sector| copy_sector(&self.now, sector, &mut self.durable));
        self.unsynced.clear();
    }

    fn fail_sync(&mut self, dice: &mut Option<Dice>) {
        let mut chance = || dice.as_mut().is_some_and(|dice| dice.below(2) == 0);
        let dirty = std::mem::take(&mut self.dirty);
        if chance() {
            self.durable.resize(self.now.len(), 0);
        }
        for sector in dirty {
            if chance() {
                copy_sector(&self.now, sector, &mut self.durable);
            }
        }
        if chance() {
            let length = self.now.len();
            self.now.clone_from(&self.durable);
            self.now.resize(length, 0);
        }
        self.unsynced.clear();
    }

    /// The bytes as some crash leaves them.
    fn survivor(&self, dice: &mut Dice) -> Vec<u8> {
        let last = self.unsynced.len() as u64;
        let style = Style::pick(dice);
        let one = style.moment(last, dice);
        let pick = |dice: &mut Dice| if style == Style::Mixed { dice.below(last + 1) } else { one };
        let picks: Vec<(usize, u64)> = self.dirty.iter().map(|sector| (*sector, pick(dice))).collect();
        let length_at = pick(dice);
        let (mut moment, mut bytes, mut length) = (self.durable.clone(), self.durable.clone(), self.durable.len());
        let room = self.unsynced.iter().fold(bytes.len(), |room, change| match change {
            Change::Write { offset, bytes } => room.max(*offset as usize + bytes.len()),
            Change::Length(length) => room.max(*length as usize),
        });
        bytes.resize(room, 0);
        for number in 0..=last {
            if let Some(change) = number.checked_sub(1).and_then(|index| self.unsynced.get(index as usize)) {
                let before = moment.len();
                apply(&mut moment, change);
                if style == Style::Mixed && number == length_at && moment.len() > before {
                    // A write lengthens the file bit by bit.
                    length = before + dice.below((moment.len() - before) as u64 + 1) as usize;
                } else if number == length_at {
                    length = moment.len();
                }
            }
            let here = picks.iter().filter(|(_, at)| *at == number);
            here.for_each(|(sector, _)| copy_sector(&moment, *sector, &mut bytes));
        }
        bytes.truncate(length);
        bytes
    }
}

/// Copies one sector, as far as `to` has room; what `from` lacks of it is zeros.
fn copy_sector(from: &[u8], sector: usize, to: &mut [u8]) {
    let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(to.len()));
    if start < end {
        let there = from.get(start..from.len().min(end)).unwrap_or_default();
        to[start..start + there.len()].copy_from_slice(there);
        to[start + there.len()..end].fill(0);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    All,
    None,
    UpTo,
    Mixed,
}

impl Style {
    fn pick(dice: &mut Dice) -> Self {
        [Style::All, Style::None, Style::UpTo, Style::Mixed, Style::Mixed][dice.below(5) as usize]
    }
    fn moment(self, last: u64, dice: &mut Dice) -> u64 {
        match self {
            Style::All => last,
            Style::None => 0,
            Style::UpTo | Style::Mixed => dice.below(last + 1),
        }
    }
}

#[derive(Debug, Default)]
struct Disk {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    locked: HashSet<usize>,
    operations: u64,
    reads: u64,
    syncs: u64,
    plan: Option<(u64, Fault)>,
    read_plan: Option<(u64, i32)>,
    met: Option<Operation>,
    crashed: bool,
    dice: Option<Dice>,
    record: Option<Record>,
}

/// Every write of a disk, of its restarts and of its copies.
type Record = Arc<Mutex<Vec<Vec<u8>>>>;

enum Step {
    Do,
    Part,
    Fail(io::Error),
}

impl Disk {
    fn step(&mut self, operation: Operation) -> Step {
        if self.crashed {
            return Step::Fail(stopped());
        }
        let number = self.operations;
        self.operations += 1;
        let Some((_, fault)) = self.plan.filter(|(at, _)| *at == number) else { return Step::Do };
        self.met = Some(operation);
        self.crashed = !matches!(fault, Fault::Errno(_));
        match fault {
            Fault::Errno(errno) => Step::Fail(io::Error::from_raw_os_error(errno)),
            Fault::Crash => Step::Fail(stopped()),
            Fault::CrashInside => Step::Part,
        }
    }

    fn plain(&mut self, operation: Operation) -> io::Result<()> {
        match self.step(operation) {
            Step::Do => Ok(()),
            Step::Part => Err(stopped()),
            Step::Fail(error) => Err(error),
        }
    }

    fn readable(&mut self) -> io::Result<()> {
        if self.crashed {
            return Err(stopped());
        }
        let number = self.reads;
        self.reads += 1;
        match self.read_plan {
            Some((at, errno)) if at == number => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn link(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
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
    /// An empty file system. A write that meets a fault stores its first half, a failed sync stores nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty file system whose faults follow the seed, and which keeps every write for `written`.
    pub fn seeded(seed: u64) -> Self {
        let disk = Disk { dice: Some(Dice::new(seed)), record: Some(Record::default()), ..Disk::default() };
        MemoryFiles { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Lets the operation with this number (from 0, changing operations only) meet a fault, once.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        let mut disk = guard(&self.disk);
        disk.plan = Some((operation, fault));
        disk.met = None;
    }

    /// Lets the read with this number fail once: bytes, lengths, openings and listings are reads.
    pub fn fail_read_at(&self, read: u64, errno: i32) {
        guard(&self.disk).read_plan = Some((read, errno));
    }

    /// How many changing operations there were, failed ones included.
    pub fn operations(&self) -> u64 {
        guard(&self.disk).operations
    }

    /// How many reads there were.
    pub fn reads(&self) -> u64 {
        guard(&self.disk).reads
    }

    /// How many file syncs succeeded.
    pub fn syncs(&self) -> u64 {
        guard(&self.disk).syncs
    }

    /// Which operation the planned fault met, once it has.
    pub fn met(&self) -> Option<Operation> {
        guard(&self.disk).met
    }

    /// The bytes of every write so far, those before a restart and those of copies included; only when recording.
    pub fn written(&self) -> Vec<Vec<u8>> {
        guard(&self.disk).record.as_ref().map(|record| guard(record).clone()).unwrap_or_default()
    }

    /// The file system as found when the machine starts again; this one is left as it is. With `Loss::Nothing` it is
    /// also a copy: of what the cache shows, and of what is not durable yet.
    pub fn restarted(&self, loss: Loss) -> MemoryFiles {
        let mut disk = guard(&self.disk);
        let dice = disk.dice.as_mut().map(|dice| Dice::new(dice.draw()));
        let mut next = Disk { dice, record: disk.record.clone(), ..Disk::default() };
        match loss {
            Loss::Nothing => {
                next.nodes.clone_from(&disk.nodes);
                next.names.clone_from(&disk.names);
                next.durable_names.clone_from(&disk.durable_names);
                next.unsynced_names.clone_from(&disk.unsynced_names);
            }
            Loss::Unsynced => {
                next.nodes = disk.nodes.iter().map(|node| Node::settled(node.durable.clone())).collect();
                next.durable_names.clone_from(&disk.durable_names);
                next.names.clone_from(&disk.durable_names);
            }
            Loss::Seeded(seed) => {
                let mut dice = Dice::new(seed);
                let mut names = disk.durable_names.clone();
                let last = disk.unsynced_names.len() as u64;
                let style = Style::pick(&mut dice);
                let moment = style.moment(last, &mut dice);
                for (number, change) in (0..).zip(&disk.unsynced_names) {
                    let kept = if style == Style::Mixed { dice.below(2) == 0 } else { number < moment };
                    if kept {
                        change.apply(&mut names);
                    }
                }
                next.nodes = disk.nodes.iter().map(|node| Node::settled(node.survivor(&mut dice))).collect();
                next.durable_names.clone_from(&names);
                next.names = names;
            }
        }
        MemoryFiles { disk: Arc::new(Mutex::new(next)) }
    }

    /// The bytes of a file as they read now.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = guard(&self.disk);
        disk.names.get(path).and_then(|node| disk.nodes.get(*node)).map(|node| node.now.clone())
    }

    /// Puts bytes under a name, durably and uncounted: for planting damage.
    pub fn plant(&self, path: &Path, bytes: &[u8]) {
        let mut disk = guard(&self.disk);
        let node = Node::settled(bytes.to_vec());
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
#[derive(Clone, Debug, Default)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound; 0 for no bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
}

impl MemoryFile {
    fn change(&self, operation: Operation, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut disk = guard(&self.disk);
        if let (Some(record), Change::Write { bytes, .. }) = (&disk.record, &change) {
            guard(record).push(bytes.clone());
        }
        let (change, outcome) = match disk.step(operation) {
            Step::Do => (Some(change), Ok(())),
            Step::Part => (part(change, &mut disk.dice), Err(stopped())),
            Step::Fail(error) if error.raw_os_error().is_some() => (part(change, &mut disk.dice), Err(error)),
            Step::Fail(error) => (None, Err(error)),
        };
        if let Some(change) = change {
            disk.nodes[self.node].change(change);
        }
        outcome
    }
}

/// The first part of a write; a length is set at once or not at all.
fn part(change: Change, dice: &mut Option<Dice>) -> Option<Change> {
    match change {
        Change::Write { offset, mut bytes } => {
            let length = bytes.len();
            bytes.truncate(dice.as_mut().map_or(length / 2, |dice| dice.below(length as u64 + 1) as usize));
            Some(Change::Write { offset, bytes })
        }
        Change::Length(_) => None,
    }
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = guard(&self.disk);
        disk.readable()?;
        let bytes = &disk.nodes[self.node].now;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Operation::Write, Change::Write { offset, bytes: bytes.to_vec() })
    }
    fn len(&self) -> io::Result<u64> {
        let mut disk = guard(&self.disk);
        disk.readable()?;
        Ok(disk.nodes[self.node].now.len() as u64)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.change(Operation::Truncate, Change::Length(length))
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        let step = disk.step(Operation::SyncData);
        let Disk { nodes, dice, syncs, .. } = &mut *disk;
        let node = &mut nodes[self.node];
        match step {
            Step::Do => {
                node.sync();
                *syncs += 1;
                Ok(())
            }
            Step::Part => Err(stopped()),
            Step::Fail(error) => {
                if error.raw_os_error().is_some() {
                    node.fail_sync(dice);
                }
                Err(error)
            }
        }
    }
    fn lock(&self) -> io::Result<bool> {
        let mut disk = guard(&self.disk);
        disk.readable()?;
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
        guard(&self.disk).plain(Operation::CreateFolder)
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = guard(&self.disk);
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.plain(Operation::CreateNew)?;
        disk.nodes.push(Node::default());
        let node = disk.nodes.len() - 1;
        disk.link(NameChange::Link(path.to_path_buf(), node));
        drop(disk);
        Ok(self.file(node, Access::Write))
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut disk = guard(&self.disk);
        disk.readable()?;
        let node = disk.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        drop(disk);
        Ok(self.file(node, access))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        let node = disk.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        disk.plain(Operation::Rename)?;
        disk.link(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), node));
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.plain(Operation::Remove)?;
        disk.link(NameChange::Unlink(path.to_path_buf()));
        Ok(())
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut disk = guard(&self.disk);
        disk.readable()?;
        let inside = disk.names.keys().filter(|path| folder_of(path) == folder);
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        disk.plain(Operation::SyncFolder)?;
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

    /// Three sectors of a file that reached its disk as zeros.
    fn three_sectors(files: &MemoryFiles) -> Arc<dyn File> {
        let file = files.create_new(Path::new("a")).unwrap();
        files.sync_folder(Path::new(".")).unwrap();
        file.write_at(&[0; 3 * SECTOR], 0).unwrap();
        file.sync_data().unwrap();
        file
    }

    fn firsts(files: &MemoryFiles) -> [u8; 3] {
        let bytes = files.bytes(Path::new("a")).unwrap();
        [bytes[0], bytes[SECTOR], bytes[2 * SECTOR]]
    }

    #[test]
    fn unsynced_writes_are_lost_reordered_and_torn_by_sectors() {
        let files = MemoryFiles::new();
        let file = three_sectors(&files);
        file.write_at(&[1; 2 * SECTOR], 0).unwrap();
        file.write_at(&[2; 2 * SECTOR], SECTOR as u64).unwrap();
        let seen: BTreeSet<_> = (0..400).map(|seed| firsts(&files.restarted(Loss::Seeded(seed)))).collect();
        let mixtures = [0, 1].iter().flat_map(|a| [0, 1, 2].map(|b| [0, 2].map(|c| [*a, b, c]))).flatten();
        assert_eq!(seen, mixtures.collect());
        file.truncate(10).unwrap();
        let lengths: HashSet<_> =
            (0..400).map(|seed| files.restarted(Loss::Seeded(seed)).bytes(Path::new("a")).unwrap().len()).collect();
        assert_eq!(lengths, HashSet::from([10, 3 * SECTOR]));
    }

    #[test]
    fn names_are_kept_or_lost_each_on_its_own() {
        let files = MemoryFiles::new();
        for name in ["d/a", "d/b", "d/c"] {
            files.create_new(Path::new(name)).unwrap();
        }
        files.rename(Path::new("d/c"), Path::new("d/a")).unwrap();
        let listed = |seed| files.restarted(Loss::Seeded(seed)).list(Path::new("d")).unwrap().concat();
        let seen: BTreeSet<_> = (0..200).map(listed).collect();
        assert_eq!(seen, ["", "a", "ab", "abc", "ac", "b", "bc", "c"].map(String::from).into());
    }

    #[test]
    fn a_failed_sync_loses_the_writes_for_good() {
        let mut seen = HashSet::new();
        for seed in 0..200 {
            let files = MemoryFiles::seeded(seed);
            let file = three_sectors(&files);
            file.write_at(&[1; 2 * SECTOR], 0).unwrap();
            files.fail_at(files.operations(), Fault::Errno(5));
            assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
            let read = firsts(&files);
            // A later sync succeeds without storing what the failed one gave up; a crash shows what that was.
            file.write_at(&[2; SECTOR], 2 * SECTOR as u64).unwrap();
            file.sync_data().unwrap();
            assert_eq!(files.restarted(Loss::Nothing).bytes(Path::new("a")), files.bytes(Path::new("a")));
            let stored = firsts(&files.restarted(Loss::Unsynced));
            assert_eq!((stored, firsts(&files.restarted(Loss::Seeded(seed)))), (stored, stored));
            seen.insert((read, stored));
            // Written again, it is stored.
            file.write_at(&[3; 3 * SECTOR], 0).unwrap();
            file.sync_data().unwrap();
            assert_eq!(firsts(&files.restarted(Loss::Unsynced)), [3, 3, 3]);
        }
        let on_disk = [[1, 1, 2], [1, 0, 2], [0, 1, 2], [0, 0, 2]];
        let read = |stored: [u8; 3]| [([1, 1, 0], stored), ([stored[0], stored[1], 0], stored)];
        assert_eq!(seen, on_disk.into_iter().flat_map(read).collect());
    }

    #[test]
    fn a_read_fails_on_demand() {
        let files = MemoryFiles::new();
        let file = three_sectors(&files);
        files.fail_read_at(files.reads() + 1, 5);
        assert_eq!(file.len().unwrap(), 3 * SECTOR as u64);
        assert_eq!(file.read_all().unwrap_err().raw_os_error(), Some(5));
        assert_eq!(file.read_all().unwrap().len(), 3 * SECTOR);
    }

    #[test]
    fn after_a_crash_nothing_answers() {
        let files = MemoryFiles::new();
        let file = files.create_new(Path::new("a")).unwrap();
        files.fail_at(1, Fault::CrashInside);
        assert!(file.write_at(b"abcd", 0).is_err());
        assert!(file.read_all().is_err() && file.sync_data().is_err() && files.list(Path::new("")).is_err());
        assert_eq!(files.bytes(Path::new("a")).unwrap(), b"ab");
        assert_eq!(files.met(), Some(Operation::Write));
    }
}
