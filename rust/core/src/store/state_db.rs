//! The state database: a projection of the log that knows the height it has applied and is never synced by itself.
//! Owns sealed state values and the index of transaction ids; refuses blocks out of order. Invariant: values, ids and
//! applied height change in one batch, so whatever survives a crash is the state after some block, and replays on.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use fjall::config::HashRatioPolicy;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, Readable, Snapshot, UserValue};

use super::at_rest::{Key, Sealer, TAG_BYTES};
use super::segments::{LogError, SegmentLog};
use crate::digest::{self, Digest, DigestError, Use};
use crate::merkle::trie_source::{LeafSource, Leaves};
use crate::state::{Path, StateError, StateRead, WriteSet, Written};

const SALT_BYTES: usize = 16;
const LEAD_BYTES: usize = SALT_BYTES + 4;
/// The row of the applied block; no path has this length.
const APPLIED_KEY: &[u8] = b"applied";
/// Rows copied at once out of the state in memory.
const PAGE_ROWS: usize = 1024;
/// The row that says that the state was found not to be what was written.
const DOUBT_KEY: &[u8] = b"doubt";
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;
const JOURNALS_BYTES: u64 = 128 * 1024 * 1024;
/// Blocks, and bytes of writes, that are replayed in one batch.
const REPLAY_BLOCKS: u64 = 1024;
const REPLAY_BYTES: usize = 4 * 1024 * 1024;

/// Why the state database refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StateDbError {
    /// The files below failed.
    #[error("the state database's files failed")]
    Io(#[source] io::Error),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Randomness(#[from] DigestError),
    /// Another handle has it open.
    #[error("the state database is open elsewhere")]
    Locked,
    /// The database is not what was written, or the key is another: throw it away and replay the log.
    #[error("the state database is damaged")]
    Damaged,
    /// An earlier write failed.
    #[error("an earlier write of the state database failed")]
    Poisoned,
    /// Whoever was told of the progress said to stop.
    #[error("stopped before the end")]
    Stopped,
    /// It was closed.
    #[error("the state database was closed")]
    Closed,
    /// The block does not follow the applied one.
    #[error("block {given} does not follow: {expected} is next")]
    NotNext {
        /// Height that follows.
        expected: u64,
        /// Height given.
        given: u64,
    },
    /// The log below could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<fjall::Error> for StateDbError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => StateDbError::Locked,
            fjall::Error::Poisoned => StateDbError::Poisoned,
            other => match io_cause(&other) {
                // Its own files name each other and places in each other: a file that is not there, or a place that
                // no file can have, was named by bytes that changed.
                Some(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                    StateDbError::Damaged
                }
                Some(cause) => StateDbError::Io(cause),
                None => StateDbError::Damaged,
            },
        }
    }
}

/// The errno below, where there is one: a short or unreadable file is damage, a full disk is not.
fn io_cause(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let own = match error.downcast_ref::<fjall::Error>() {
        Some(fjall::Error::Io(cause)) => cause.raw_os_error(),
        _ => error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error),
    };
    own.map(io::Error::from_raw_os_error).or_else(|| io_cause(error.source()?))
}

/// The last block whose writes are in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its height.
    pub height: u64,
    /// The leaf hash of its block leaf.
    pub leaf_hash: [u8; 32],
}

/// Where a transaction's leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionPlace {
    /// Height of its block.
    pub height: u64,
    /// Index of its leaf in the log.
    pub index: u64,
}

/// (path, stored), one after the other.
pub type Entries<'a> = Box<dyn Iterator<Item = Result<(Path, Vec<u8>), StateError>> + 'a>;

/// A state projection. Reading never waits for writing.
pub trait StateStore: StateRead + std::fmt::Debug {
    /// The last block applied.
    fn applied(&self) -> Option<Applied>;
    /// Applies the next block: writes, transaction ids and height, all or nothing. Not durable by itself.
    fn apply(&self, block: Applied, writes: &WriteSet, ids: &[([u8; 32], u64)]) -> Result<(), StateDbError> {
        let place = |(id, index): &([u8; 32], u64)| (*id, TransactionPlace { height: block.height, index: *index });
        self.apply_run(block.height, block, writes, &ids.iter().map(place).collect::<Vec<_>>())
    }
    /// Applies the blocks from the next one, `first`, to `last` in one step; `writes` has the last write of each path.
    fn apply_run(
        &self,
        first: u64,
        last: Applied,
        writes: &WriteSet,
        places: &[([u8; 32], TransactionPlace)],
    ) -> Result<(), StateDbError>;
    /// The leaves as they are now, whatever is applied later; `None` where the store keeps no versions apart.
    fn snapshot(&self) -> Option<Arc<dyn LeafSource>>;
    /// Where other projections of the same blocks are kept; `None` for a store in memory.
    fn shelf(&self) -> Option<Arc<dyn Shelf>>;
    /// Where a transaction is, if it was applied.
    fn find_transaction(&self, id: &[u8; 32]) -> Result<Option<TransactionPlace>, StateDbError>;
    /// (path, stored) from a path to before another, or to the last; ascending by path.
    fn range(&self, from: Path, to: Option<Path>) -> Entries<'_>;
    /// All (path, stored), ascending by path.
    fn entries(&self) -> Entries<'_> {
        self.range([0; 32], None)
    }
    /// How many paths hold a value; one scan.
    fn count(&self) -> Result<u64, StateDbError>;
    /// Fills a state without an applied block, out of a snapshot that was verified. Until `finish_load` names the block,
    /// opening again throws it all away.
    fn load(&self, entries: &[(Path, Vec<u8>)], ids: &[([u8; 32], TransactionPlace)]) -> Result<(), StateDbError>;
    /// The state is whole: the one after this block.
    fn finish_load(&self, block: Applied) -> Result<(), StateDbError>;
    /// Throws everything away: to be replayed from the log.
    fn clear(&self) -> Result<(), StateDbError>;
}

/// The leaves of a store as it is, hashed from the values themselves: for checking it.
#[derive(Debug)]
pub struct HashedValues(pub Arc<dyn StateStore>);

impl LeafSource for HashedValues {
    fn leaves(&self, from: Path, to: Option<Path>) -> Leaves<'_> {
        Box::new(self.0.range(from, to).map(|entry| entry.map(|(path, stored)| (path, digest::blake3(&stored)))))
    }
}

/// Sealed rows beside the state: cleared with it, and never written before the block they are about was applied.
pub trait Shelf: Send + Sync + std::fmt::Debug {
    /// The row under a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateDbError>;
    /// Puts rows, and removes those without a value; all or nothing.
    fn put(&self, rows: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StateDbError>;
}

fn check_unapplied(applied: Option<Applied>) -> Result<(), StateDbError> {
    let given = applied.map(|applied| applied.height);
    given.map_or(Ok(()), |given| Err(StateDbError::NotNext { expected: given.saturating_add(1), given }))
}

fn check_next(applied: Option<Applied>, given: u64) -> Result<(), StateDbError> {
    let expected = applied.map_or(0, |applied| applied.height.saturating_add(1));
    if given == expected { Ok(()) } else { Err(StateDbError::NotNext { expected, given }) }
}

/// Brings a state to the log's last block by replaying write sets, never contracts; gives how many blocks. A state
/// that is ahead of the log, or of another history, is thrown away first. Whether the state then has the root the
/// last block leaf names is for the caller to compare: the trie is built from it. `progress` is told of blocks done
/// and their total, and stops the replay by false; few blocks are in memory at a time.
pub fn follow(
    state: &dyn StateStore,
    log: &SegmentLog,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<u64, StateDbError> {
    if let Some(applied) = state.applied() {
        let same = match log.read(applied.height) {
            Ok(frame) => frame.leaf_hash()? == applied.leaf_hash,
            Err(LogError::NoSuchHeight { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if !same {
            state.clear()?;
        }
    }
    let from = state.applied().map_or(0, |applied| applied.height + 1);
    let to = log.height().map_or(0, |height| height + 1);
    let mut run = Run::default();
    for height in from..to {
        let frame = log.read(height)?;
        for (path, written) in frame.write_set()?.iter() {
            // What an erasure took is not known; the block that wrote the path again follows.
            let stored = if let Written::Stored(stored) = written { Some(stored.to_vec()) } else { None };
            run.bytes += path.len() + stored.as_ref().map_or(0, Vec::len);
            run.writes.insert(*path, stored);
        }
        let place = |(id, index)| (id, TransactionPlace { height, index });
        run.places.extend(frame.transaction_ids()?.into_iter().map(place));
        if height + 1 == to || height - run.first.unwrap_or(height) >= REPLAY_BLOCKS || run.bytes >= REPLAY_BYTES {
            let Run { first, writes, places, .. } = std::mem::take(&mut run);
            let last = Applied { height, leaf_hash: frame.leaf_hash()? };
            let writes = WriteSet::of(writes.into_iter().collect());
            state.apply_run(first.unwrap_or(height), last, &writes, &places)?;
            if !progress(height + 1 - from, to - from) {
                return Err(StateDbError::Stopped);
            }
        } else {
            run.first = run.first.or(Some(height));
        }
    }
    Ok(to.saturating_sub(from))
}

/// Blocks that are applied together.
#[derive(Default)]
struct Run {
    first: Option<u64>,
    bytes: usize,
    writes: BTreeMap<Path, Option<Vec<u8>>>,
    places: Vec<([u8; 32], TransactionPlace)>,
}

fn place_bytes(place: TransactionPlace) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&place.height.to_be_bytes());
    bytes[8..].copy_from_slice(&place.index.to_be_bytes());
    bytes
}

fn read_place(bytes: &[u8]) -> Option<TransactionPlace> {
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    let (height, index) = (bytes.first_chunk()?, bytes.last_chunk()?);
    Some(TransactionPlace { height: u64::from_be_bytes(*height), index: u64::from_be_bytes(*index) })
}

/// The state on disk, in fjall.
pub struct StateDb {
    tables: Arc<Tables>,
    applied: Mutex<Option<Applied>>,
}

struct Tables {
    database: Database,
    state: Keyspace,
    transactions: Keyspace,
    shelf: Keyspace,
    key: Key,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StateDb {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("StateDb").field("applied", &self.applied()).finish_non_exhaustive()
    }
}

impl StateDb {
    /// Opens the database in a folder, making it where missing. `Damaged`: `discard` it and open again.
    pub fn open(folder: &FilePath, key: &[u8; 32]) -> Result<Self, StateDbError> {
        // The database asserts on bytes that are not its own; to us that is damage like any other.
        let opening = catch_unwind(AssertUnwindSafe(|| open_database(folder, Key::new(*key))));
        let tables = Arc::new(opening.map_err(|_| StateDbError::Damaged)??);
        let opened = StateDb { tables, applied: Mutex::new(None) };
        if opened.tables.shelf.contains_key(DOUBT_KEY)? {
            opened.clear()?;
        }
        if let Some(row) = opened.tables.state.get(APPLIED_KEY)? {
            let plain = opened.tables.open_row(APPLIED_KEY, &row).ok_or(StateDbError::Damaged)?;
            *opened.applied_guard() = Some(read_applied(&plain).ok_or(StateDbError::Damaged)?);
        } else if !opened.tables.is_empty()? {
            opened.clear()?;
        }
        Ok(opened)
    }

    /// Removes the database of a folder from the disk; the log makes it anew.
    pub fn discard(folder: &FilePath) -> io::Result<()> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Bytes of the database's files.
    pub fn bytes_on_disk(&self) -> Result<u64, StateDbError> {
        Ok(self.tables.database.disk_space()?)
    }

    fn applied_guard(&self) -> MutexGuard<'_, Option<Applied>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn is_empty(&self) -> Result<bool, StateDbError> {
        Ok(self.state.is_empty()? && self.transactions.is_empty()? && self.shelf.is_empty()?)
    }

    fn open_row(&self, aad: &[u8], row: &[u8]) -> Option<Vec<u8>> {
        let (lead, sealed) = row.split_first_chunk::<LEAD_BYTES>()?;
        let (salt, number) = lead.split_at(SALT_BYTES);
        let number = u32::from_be_bytes(*number.first_chunk()?);
        let mut value = sealed.to_vec();
        Sealer::derived(Use::StateValue, &self.key, salt).open(number, aad, &mut value).ok()?;
        Some(value)
    }

    /// Damage met while reading: nothing of it is believed at the next open. That it cannot be written down is no
    /// reason to fail otherwise: the reader is told of the damage either way.
    fn doubt(&self) {
        drop(self.shelf.insert(DOUBT_KEY, b""));
    }

    fn corrupt(&self, path: &Path) -> StateError {
        self.doubt();
        StateError::Corrupt(*path)
    }

    /// A value's row: its digest, which the trie hashes anyway, before what is sealed.
    fn open_value(&self, path: &Path, row: &[u8]) -> Option<Vec<u8>> {
        self.open_row(path, row.get(size_of::<Digest>()..)?)
    }
}

/// The path and the row, of a value; nothing for the other rows.
fn value_row(row: Guard) -> Option<Result<(Path, UserValue), StateError>> {
    match row.into_inner() {
        Ok((key, row)) => Path::try_from(&key[..]).ok().map(|path| Ok((path, row))),
        Err(error) => Some(Err(match StateDbError::from(error) {
            StateDbError::Io(cause) => StateError::Unavailable(cause),
            _ => StateError::Corrupt([0; 32]),
        })),
    }
}

fn bounds(from: Path, to: Option<Path>) -> Option<(Bound<Path>, Bound<Path>)> {
    let sound = to.is_none_or(|to| from < to);
    sound.then(|| (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded)))
}

/// The state after one block. It does not keep a database open that was closed.
struct Frozen {
    snapshot: Snapshot,
    tables: Weak<Tables>,
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Frozen").finish_non_exhaustive()
    }
}

impl LeafSource for Frozen {
    fn doubt(&self) {
        if let Some(tables) = self.tables.upgrade() {
            tables.doubt();
        }
    }

    fn leaves(&self, from: Path, to: Option<Path>) -> Leaves<'_> {
        let Some(tables) = self.tables.upgrade() else {
            return Box::new(std::iter::once(Err(StateError::Unavailable(io::ErrorKind::NotConnected.into()))));
        };
        let Some(bounds) = bounds(from, to) else { return Box::new(std::iter::empty()) };
        let rows = self.snapshot.range(&tables.state, bounds);
        Box::new(rows.filter_map(value_row).map(|row| {
            let (path, row) = row?;
            let digest: Option<&Digest> = row.first_chunk();
            digest.map(|digest| (path, *digest)).ok_or(StateError::Corrupt(path))
        }))
    }
}

#[derive(Debug)]
struct Beside(Weak<Tables>);

impl Beside {
    fn tables(&self) -> Result<Arc<Tables>, StateDbError> {
        self.0.upgrade().ok_or(StateDbError::Closed)
    }
}

impl Shelf for Beside {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateDbError> {
        let tables = self.tables()?;
        let row = tables.shelf.get(key)?;
        row.map(|row| tables.open_row(key, &row).ok_or(StateDbError::Damaged)).transpose()
    }

    fn put(&self, rows: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StateDbError> {
        let tables = self.tables()?;
        let mut sealing = Batch::new(&tables.key)?;
        let mut batch = tables.database.batch();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(&tables.shelf, &key[..], sealing.row(Vec::new(), key, value)?),
                None => batch.remove(&tables.shelf, &key[..]),
            }
        }
        Ok(batch.commit()?)
    }
}

fn open_database(folder: &FilePath, key: Key) -> Result<Tables, StateDbError> {
    let database = Database::builder(folder).cache_size(CACHE_BYTES).max_journaling_size(JOURNALS_BYTES).open()?;
    let options = || {
        let options = KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        options.data_block_hash_ratio_policy(HashRatioPolicy::all(0.75))
    };
    let state = database.keyspace("state", options)?;
    let transactions = database.keyspace("transactions", options)?;
    let shelf = database.keyspace("shelf", options)?;
    Ok(Tables { database, state, transactions, shelf, key })
}

fn read_applied(plain: &[u8]) -> Option<Applied> {
    let (height, leaf_hash) = plain.split_first_chunk::<8>()?;
    Some(Applied { height: u64::from_be_bytes(*height), leaf_hash: leaf_hash.try_into().ok()? })
}

/// Seals the values of one write batch: one salt, numbers from 0.
struct Batch {
    salt: [u8; SALT_BYTES],
    sealer: Sealer,
    next: u32,
}

impl Batch {
    fn new(key: &Key) -> Result<Self, DigestError> {
        let salt: [u8; SALT_BYTES] = digest::random_array()?;
        Ok(Batch { sealer: Sealer::derived(Use::StateValue, key, &salt), salt, next: 0 })
    }

    fn applied(&mut self, block: Applied) -> Result<Vec<u8>, StateDbError> {
        let plain = [&block.height.to_be_bytes()[..], &block.leaf_hash].concat();
        self.row(Vec::new(), APPLIED_KEY, &plain)
    }

    /// What is in front stays readable: it is not sealed.
    fn row(&mut self, front: Vec<u8>, aad: &[u8], value: &[u8]) -> Result<Vec<u8>, StateDbError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(StateDbError::Damaged)?;
        let mut row = front;
        row.reserve(LEAD_BYTES + value.len() + TAG_BYTES);
        row.extend_from_slice(&self.salt);
        row.extend_from_slice(&number.to_be_bytes());
        let start = row.len();
        row.extend_from_slice(value);
        let tag = self.sealer.seal(number, aad, &mut row[start..]).map_err(|_| StateDbError::Damaged)?;
        row.extend_from_slice(&tag);
        Ok(row)
    }
}

impl StateRead for StateDb {
    fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, StateError> {
        let row = match self.tables.state.get(path) {
            Ok(row) => row,
            Err(error) => {
                return Err(match StateDbError::from(error) {
                    StateDbError::Io(cause) => StateError::Unavailable(cause),
                    _ => self.tables.corrupt(path),
                });
            }
        };
        let Some(row) = row else { return Ok(None) };
        self.tables.open_value(path, &row).map(Some).ok_or_else(|| self.tables.corrupt(path))
    }
}

impl StateStore for StateDb {
    fn applied(&self) -> Option<Applied> {
        *self.applied_guard()
    }

    fn apply_run(
        &self,
        first: u64,
        last: Applied,
        writes: &WriteSet,
        places: &[([u8; 32], TransactionPlace)],
    ) -> Result<(), StateDbError> {
        let mut applied = self.applied_guard();
        check_next(*applied, first)?;
        let tables = &self.tables;
        let stored: Vec<&[u8]> = writes.writes.iter().filter_map(|(_, stored)| stored.as_deref()).collect();
        let mut digests = digest::blake3_many(&stored).into_iter();
        let mut sealing = Batch::new(&tables.key)?;
        let mut batch = tables.database.batch();
        for (path, stored) in &writes.writes {
            match stored {
                Some(stored) => {
                    let digest = digests.next().unwrap_or_default();
                    batch.insert(&tables.state, &path[..], sealing.row(digest.to_vec(), path, stored)?);
                }
                None => batch.remove(&tables.state, &path[..]),
            }
        }
        // What an erasure took is not known; the block that wrote the path again follows.
        writes.erased.iter().for_each(|(path, _)| batch.remove(&tables.state, &path[..]));
        for (id, place) in places {
            batch.insert(&tables.transactions, &id[..], &place_bytes(*place)[..]);
        }
        batch.insert(&tables.state, APPLIED_KEY, sealing.applied(last)?);
        batch.commit()?;
        *applied = Some(last);
        Ok(())
    }

    fn snapshot(&self) -> Option<Arc<dyn LeafSource>> {
        let _unchanging = self.applied_guard();
        Some(Arc::new(Frozen { snapshot: self.tables.database.snapshot(), tables: Arc::downgrade(&self.tables) }))
    }

    fn shelf(&self) -> Option<Arc<dyn Shelf>> {
        Some(Arc::new(Beside(Arc::downgrade(&self.tables))))
    }

    fn find_transaction(&self, id: &[u8; 32]) -> Result<Option<TransactionPlace>, StateDbError> {
        let row = self.tables.transactions.get(id)?;
        row.map(|row| read_place(&row).ok_or(StateDbError::Damaged)).transpose()
    }

    fn range(&self, from: Path, to: Option<Path>) -> Entries<'_> {
        let Some(bounds) = bounds(from, to) else { return Box::new(std::iter::empty()) };
        Box::new(self.tables.state.range(bounds).filter_map(value_row).map(|row| {
            let (path, row) = row?;
            let stored = self.tables.open_value(&path, &row);
            let stored = stored.filter(|stored| row.starts_with(&digest::blake3(stored)));
            stored.map(|stored| (path, stored)).ok_or_else(|| self.tables.corrupt(&path))
        }))
    }

    fn count(&self) -> Result<u64, StateDbError> {
        let rows = self.tables.state.len()? as u64;
        Ok(rows - u64::from(self.applied().is_some()).min(rows))
    }

    fn load(&self, entries: &[(Path, Vec<u8>)], ids: &[([u8; 32], TransactionPlace)]) -> Result<(), StateDbError> {
        check_unapplied(*self.applied_guard())?;
        let tables = &self.tables;
        let digests = digest::blake3_many(&entries.iter().map(|(_, stored)| &stored[..]).collect::<Vec<_>>());
        let mut sealing = Batch::new(&tables.key)?;
        let mut batch = tables.database.batch();
        for ((path, stored), digest) in entries.iter().zip(digests) {
            batch.insert(&tables.state, &path[..], sealing.row(digest.to_vec(), path, stored)?);
        }
        for (id, place) in ids {
            batch.insert(&tables.transactions, &id[..], &place_bytes(*place)[..]);
        }
        Ok(batch.commit()?)
    }

    fn finish_load(&self, block: Applied) -> Result<(), StateDbError> {
        let mut applied = self.applied_guard();
        check_unapplied(*applied)?;
        self.tables.state.insert(APPLIED_KEY, Batch::new(&self.tables.key)?.applied(block)?)?;
        *applied = Some(block);
        Ok(())
    }

    fn clear(&self) -> Result<(), StateDbError> {
        let mut applied = self.applied_guard();
        // First what the rest is known by: cut off here, the next open clears what is left.
        self.tables.state.remove(APPLIED_KEY)?;
        *applied = None;
        self.tables.transactions.clear()?;
        self.tables.state.clear()?;
        // Last, as it may say that the rest is in doubt.
        self.tables.shelf.clear()?;
        Ok(())
    }
}

/// The same projection in memory: beside a writer that holds the one on disk, and in tests.
#[derive(Debug, Default)]
pub struct MemoryState {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    values: BTreeMap<Path, Vec<u8>>,
    transactions: HashMap<[u8; 32], TransactionPlace>,
    applied: Option<Applied>,
}

impl MemoryState {
    /// An empty state.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn inner(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateRead for MemoryState {
    fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.inner().values.get(path).cloned())
    }
}

impl StateStore for MemoryState {
    fn applied(&self) -> Option<Applied> {
        self.inner().applied
    }

    fn apply_run(
        &self,
        first: u64,
        last: Applied,
        writes: &WriteSet,
        places: &[([u8; 32], TransactionPlace)],
    ) -> Result<(), StateDbError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        check_next(inner.applied, first)?;
        for (path, stored) in &writes.writes {
            match stored {
                Some(stored) => _ = inner.values.insert(*path, stored.clone()),
                None => _ = inner.values.remove(path),
            }
        }
        writes.erased.iter().for_each(|(path, _)| _ = inner.values.remove(path));
        inner.transactions.extend(places.iter().copied());
        inner.applied = Some(last);
        Ok(())
    }

    fn snapshot(&self) -> Option<Arc<dyn LeafSource>> {
        None
    }

    fn shelf(&self) -> Option<Arc<dyn Shelf>> {
        None
    }

    fn find_transaction(&self, id: &[u8; 32]) -> Result<Option<TransactionPlace>, StateDbError> {
        Ok(self.inner().transactions.get(id).copied())
    }

    fn range(&self, from: Path, to: Option<Path>) -> Entries<'_> {
        // Some rows at a time: nobody who takes the first few pays for all.
        let mut next = Some(from);
        let pages = std::iter::from_fn(move || {
            let inner = self.inner();
            let mut rows = inner.values.range(next?..).take_while(|(path, _)| to.is_none_or(|to| **path < to));
            let page: Vec<_> =
                rows.by_ref().take(PAGE_ROWS).map(|(path, stored)| Ok((*path, stored.clone()))).collect();
            next = rows.next().map(|(path, _)| *path);
            Some(page)
        });
        Box::new(pages.flatten())
    }

    fn count(&self) -> Result<u64, StateDbError> {
        Ok(self.inner().values.len() as u64)
    }

    fn load(&self, entries: &[(Path, Vec<u8>)], ids: &[([u8; 32], TransactionPlace)]) -> Result<(), StateDbError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        check_unapplied(inner.applied)?;
        inner.values.extend(entries.iter().cloned());
        inner.transactions.extend(ids.iter().copied());
        Ok(())
    }

    fn finish_load(&self, block: Applied) -> Result<(), StateDbError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        check_unapplied(inner.applied)?;
        inner.applied = Some(block);
        Ok(())
    }

    fn clear(&self) -> Result<(), StateDbError> {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = Inner::default();
        Ok(())
    }
}
