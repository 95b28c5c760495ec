//! The state database: a projection of the log that knows the height it has applied and is never synced by itself.
//! Owns sealed state values and the index of transaction ids; refuses blocks out of order. Invariant: values, ids and
//! applied height change in one batch, so whatever survives a crash is the state after some block, and replays on.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fjall::config::HashRatioPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::at_rest::{Key, Sealer, TAG_BYTES};
use super::segments::{LogError, SegmentLog};
use crate::digest::{self, DigestError, Use};
use crate::state::{Path, StateError, StateRead, WriteSet};

const SALT_BYTES: usize = 16;
const LEAD_BYTES: usize = SALT_BYTES + 4;
/// The row of the applied block; no path has this length.
const APPLIED_KEY: &[u8] = b"applied";
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Rows copied at once out of the state in memory.
const PAGE_ROWS: usize = 1024;
const JOURNALS_BYTES: u64 = 256 * 1024 * 1024;

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
                // Its own files name each other: one that is not there was named by bytes that changed.
                Some(cause) if cause.kind() == io::ErrorKind::NotFound => StateDbError::Damaged,
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
pub trait StateStore: StateRead {
    /// The last block applied.
    fn applied(&self) -> Option<Applied>;
    /// Applies the next block: writes, transaction ids and height, all or nothing. Not durable by itself.
    fn apply(&self, block: Applied, writes: &WriteSet, ids: &[([u8; 32], u64)]) -> Result<(), StateDbError>;
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
/// last block leaf names is for the caller to compare: the trie is built from it.
pub fn follow(state: &dyn StateStore, log: &SegmentLog) -> Result<u64, StateDbError> {
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
    for height in from..to {
        let frame = log.read(height)?;
        let applied = Applied { height, leaf_hash: frame.leaf_hash()? };
        state.apply(applied, &frame.write_set()?, &frame.transaction_ids()?)?;
    }
    Ok(to.saturating_sub(from))
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
    database: Database,
    state: Keyspace,
    transactions: Keyspace,
    key: Key,
    applied: Mutex<Option<Applied>>,
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
        let opening = catch_unwind(AssertUnwindSafe(|| open_database(folder)));
        let (database, state, transactions) = opening.map_err(|_| StateDbError::Damaged)??;
        let opened = StateDb { database, state, transactions, key: Key::new(*key), applied: Mutex::new(None) };
        if let Some(row) = opened.state.get(APPLIED_KEY)? {
            let plain = opened.open_value(APPLIED_KEY, &row).ok_or(StateDbError::Damaged)?;
            *opened.applied_guard() = Some(read_applied(&plain).ok_or(StateDbError::Damaged)?);
        } else if !(opened.state.is_empty()? && opened.transactions.is_empty()?) {
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
        Ok(self.database.disk_space()?)
    }

    fn applied_guard(&self) -> MutexGuard<'_, Option<Applied>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_value(&self, aad: &[u8], row: &[u8]) -> Option<Vec<u8>> {
        let (lead, sealed) = row.split_first_chunk::<LEAD_BYTES>()?;
        let (salt, number) = lead.split_at(SALT_BYTES);
        let number = u32::from_be_bytes(*number.first_chunk()?);
        let mut value = sealed.to_vec();
        Sealer::derived(Use::StateValue, &self.key, salt).open(number, aad, &mut value).ok()?;
        Some(value)
    }
}

fn open_database(folder: &FilePath) -> Result<(Database, Keyspace, Keyspace), StateDbError> {
    let database = Database::builder(folder).cache_size(CACHE_BYTES).max_journaling_size(JOURNALS_BYTES).open()?;
    let options = || KeyspaceCreateOptions::default().data_block_hash_ratio_policy(HashRatioPolicy::all(0.75));
    let state = database.keyspace("state", options)?;
    let transactions = database.keyspace("transactions", options)?;
    Ok((database, state, transactions))
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

    fn seal(&mut self, aad: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let number = self.next;
        self.next = number.checked_add(1)?;
        let mut row = Vec::with_capacity(LEAD_BYTES + value.len() + TAG_BYTES);
        row.extend_from_slice(&self.salt);
        row.extend_from_slice(&number.to_be_bytes());
        row.extend_from_slice(value);
        let tag = self.sealer.seal(number, aad, &mut row[LEAD_BYTES..]).ok()?;
        row.extend_from_slice(&tag);
        Some(row)
    }
}

impl StateRead for StateDb {
    fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, StateError> {
        let row = match self.state.get(path) {
            Ok(row) => row,
            Err(error) => {
                return Err(match StateDbError::from(error) {
                    StateDbError::Io(cause) => StateError::Unavailable(cause),
                    _ => StateError::Corrupt(*path),
                });
            }
        };
        let Some(row) = row else { return Ok(None) };
        self.open_value(path, &row).map(Some).ok_or(StateError::Corrupt(*path))
    }
}

impl StateStore for StateDb {
    fn applied(&self) -> Option<Applied> {
        *self.applied_guard()
    }

    fn apply(&self, block: Applied, writes: &WriteSet, ids: &[([u8; 32], u64)]) -> Result<(), StateDbError> {
        let mut applied = self.applied_guard();
        check_next(*applied, block.height)?;
        let mut sealing = Batch::new(&self.key)?;
        let mut batch = self.database.batch();
        for (path, stored) in &writes.writes {
            match stored {
                Some(stored) => {
                    let row = sealing.seal(path, stored).ok_or(StateDbError::Damaged)?;
                    batch.insert(&self.state, &path[..], row);
                }
                None => batch.remove(&self.state, &path[..]),
            }
        }
        // What an erasure took is not known; the block that wrote the path again follows.
        writes.erased.iter().for_each(|(path, _)| batch.remove(&self.state, &path[..]));
        for (id, index) in ids {
            let place = TransactionPlace { height: block.height, index: *index };
            batch.insert(&self.transactions, &id[..], &place_bytes(place)[..]);
        }
        let plain = [&block.height.to_be_bytes()[..], &block.leaf_hash].concat();
        let row = sealing.seal(APPLIED_KEY, &plain).ok_or(StateDbError::Damaged)?;
        batch.insert(&self.state, APPLIED_KEY, row);
        batch.commit()?;
        *applied = Some(block);
        Ok(())
    }

    fn find_transaction(&self, id: &[u8; 32]) -> Result<Option<TransactionPlace>, StateDbError> {
        let row = self.transactions.get(id)?;
        row.map(|row| read_place(&row).ok_or(StateDbError::Damaged)).transpose()
    }

    fn range(&self, from: Path, to: Option<Path>) -> Entries<'_> {
        let unreadable = |error| match StateDbError::from(error) {
            StateDbError::Io(cause) => StateError::Unavailable(cause),
            _ => StateError::Corrupt([0; 32]),
        };
        if to.is_some_and(|to| to <= from) {
            return Box::new(std::iter::empty());
        }
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.state.range((Bound::Included(from), end));
        Box::new(rows.filter_map(move |row| match row.into_inner() {
            Ok((key, row)) => {
                let path = Path::try_from(&key[..]).ok()?;
                let stored = self.open_value(&path, &row).ok_or(StateError::Corrupt(path));
                Some(stored.map(|stored| (path, stored)))
            }
            Err(error) => Some(Err(unreadable(error))),
        }))
    }

    fn count(&self) -> Result<u64, StateDbError> {
        let rows = self.state.len()? as u64;
        Ok(rows - u64::from(self.applied().is_some()).min(rows))
    }

    fn load(&self, entries: &[(Path, Vec<u8>)], ids: &[([u8; 32], TransactionPlace)]) -> Result<(), StateDbError> {
        check_unapplied(*self.applied_guard())?;
        let mut sealing = Batch::new(&self.key)?;
        let mut batch = self.database.batch();
        for (path, stored) in entries {
            let row = sealing.seal(path, stored).ok_or(StateDbError::Damaged)?;
            batch.insert(&self.state, &path[..], row);
        }
        for (id, place) in ids {
            batch.insert(&self.transactions, &id[..], &place_bytes(*place)[..]);
        }
        Ok(batch.commit()?)
    }

    fn finish_load(&self, block: Applied) -> Result<(), StateDbError> {
        let mut applied = self.applied_guard();
        check_unapplied(*applied)?;
        let plain = [&block.height.to_be_bytes()[..], &block.leaf_hash].concat();
        let row = Batch::new(&self.key)?.seal(APPLIED_KEY, &plain).ok_or(StateDbError::Damaged)?;
        self.state.insert(APPLIED_KEY, row)?;
        *applied = Some(block);
        Ok(())
    }

    fn clear(&self) -> Result<(), StateDbError> {
        let mut applied = self.applied_guard();
        // First what the rest is known by: cut off here, the next open clears what is left.
        self.state.remove(APPLIED_KEY)?;
        *applied = None;
        self.transactions.clear()?;
        self.state.clear()?;
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

    fn apply(&self, block: Applied, writes: &WriteSet, ids: &[([u8; 32], u64)]) -> Result<(), StateDbError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        check_next(inner.applied, block.height)?;
        for (path, stored) in &writes.writes {
            match stored {
                Some(stored) => _ = inner.values.insert(*path, stored.clone()),
                None => _ = inner.values.remove(path),
            }
        }
        writes.erased.iter().for_each(|(path, _)| _ = inner.values.remove(path));
        let places = ids.iter().map(|(id, index)| (*id, TransactionPlace { height: block.height, index: *index }));
        inner.transactions.extend(places);
        inner.applied = Some(block);
        Ok(())
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
