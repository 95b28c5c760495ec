//! The key store: `keys.slots` (two key slots overwritten in place) and `keys.entries` (records appended under the
//! store key). Owns every secret a node keeps; refuses to replace a key, and whatever does not authenticate.
//! Invariant: what `put` returned from is durable, and of what `forget` returned from no key is left on the medium.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::at_rest::{Key, NotAuthentic, Sealer, TAG_BYTES, random_key};
use super::files::{Access, File, Files, open_if_there, replace};
use crate::cbor::{self, Reader, Writer};
use crate::digest::{self, DigestError, Use};

/// The slots file.
pub const SLOTS_FILE: &str = "keys.slots";
/// The entries file.
pub const ENTRIES_FILE: &str = "keys.entries";
/// Longest kind, in bytes of `a-z`, `0-9` and `-`.
pub const MAX_KIND_BYTES: usize = 32;
/// Longest id.
pub const MAX_ID_BYTES: usize = 64;
/// Longest value.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

const SLOT_BYTES: usize = 4096;
const COPY_BYTES: usize = SLOT_BYTES / 4;
const SLOT_MAGIC: &[u8; 8] = b"ehrslot1";
const ENTRIES_MAGIC: &[u8; 8] = b"ehrkeys1";
const SALT_BYTES: usize = 32;
const HEAD_BYTES: usize = 8 + 8 + 8 + SALT_BYTES + TAG_BYTES;
const CHECK_BYTES: usize = 12;
const PREFIX_BYTES: usize = 4 + SALT_BYTES + CHECK_BYTES;
/// Longest record: one put.
const MAX_RECORD_BYTES: usize = 64 * 1024 * 1024;
const SECTOR: usize = 512;

/// Why the key store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The files below failed.
    #[error("the key store's files failed")]
    Io(#[from] io::Error),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Randomness(#[from] DigestError),
    /// There is no key store in the folder.
    #[error("no key store in this folder")]
    Missing,
    /// There is one already.
    #[error("the folder holds a key store")]
    Exists,
    /// The root key opens no copy of the store key.
    #[error("the root key is not the one of this key store")]
    WrongRootKey,
    /// The slots hold no readable store key of the generation of the entries.
    #[error("the key slots are damaged")]
    SlotsDamaged,
    /// The head of the entries file is not what was written.
    #[error("the head of the entries is damaged")]
    HeadDamaged,
    /// A record is not what was written.
    #[error("the record at {offset} is damaged")]
    RecordDamaged {
        /// Byte offset in `keys.entries`.
        offset: u64,
    },
    /// Another value is kept under this kind and id.
    #[error("a key of kind {kind} exists under this id")]
    KeyExists {
        /// The kind.
        kind: String,
    },
    /// A kind, id or value outside its bounds.
    #[error("an entry outside its bounds")]
    InvalidEntry,
    /// The erasure height would go back.
    #[error("erasures are applied up to {applied}, not back to {asked}")]
    HeightGoesBack {
        /// What is applied.
        applied: u64,
        /// What was asked.
        asked: u64,
    },
    /// Opened for reading.
    #[error("the key store was opened read-only")]
    ReadOnly,
    /// An earlier write failed; what is on the medium is known only after opening again.
    #[error("an earlier write of the key store failed")]
    Poisoned,
}

/// One entry to keep: a kind (`segment`, `patient-root` …), a random id, a secret value.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What the key is for.
    pub kind: &'a str,
    /// Which one.
    pub id: &'a [u8],
    /// The secret.
    pub value: &'a [u8],
}

type Entries = BTreeMap<String, BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>>;

/// An open key store. Thread-safe; one process writes.
pub struct KeyStore {
    files: Arc<dyn Files>,
    folder: PathBuf,
    read_only: bool,
    damaged_copies: usize,
    state: Mutex<State>,
}

struct State {
    generation: u64,
    root: Key,
    store: Key,
    applied: u64,
    entries: Entries,
    file: Arc<dyn File>,
    records: u64,
    end: u64,
    poisoned: bool,
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("KeyStore").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl KeyStore {
    /// Makes an empty key store, or finishes one whose making was cut off.
    pub fn create(files: Arc<dyn Files>, folder: &Path, root: &[u8; 32]) -> Result<Self, KeyStoreError> {
        files.create_folder(folder)?;
        if open_if_there(&*files, &folder.join(ENTRIES_FILE), Access::Read)?.is_some() {
            return Err(KeyStoreError::Exists);
        }
        let path = folder.join(SLOTS_FILE);
        let slots = match open_if_there(&*files, &path, Access::Write)? {
            Some(slots) => slots,
            None => files.create_new(&path)?,
        };
        let store = random_key()?;
        slots.truncate(2 * SLOT_BYTES as u64)?;
        slots.write_at(&[0; SLOT_BYTES], slot_offset(0))?;
        slots.write_at(&slot(1, &store, root)?, slot_offset(1))?;
        slots.sync_data()?;
        files.sync_folder(folder)?;
        replace(&*files, &folder.join(ENTRIES_FILE), &head(1, 0, &store)?)?;
        Self::open(files, folder, root, false)
    }

    /// Opens a key store. For writing, first makes what it reads durable, then finishes a forgetting that was cut
    /// off; read-only it changes nothing and sees the entries of this moment.
    pub fn open(files: Arc<dyn Files>, folder: &Path, root: &[u8; 32], read_only: bool) -> Result<Self, KeyStoreError> {
        let access = if read_only { Access::Read } else { Access::Write };
        // Beside a writer, the slot of the generation just read may be wiped a moment later: read both again.
        let mut attempts = if read_only { 5 } else { 1 };
        loop {
            attempts -= 1;
            match Self::open_once(&files, folder, root, access) {
                Err(KeyStoreError::SlotsDamaged | KeyStoreError::HeadDamaged) if attempts > 0 => {}
                outcome => return outcome,
            }
        }
    }

    fn open_once(
        files: &Arc<dyn Files>,
        folder: &Path,
        root: &[u8; 32],
        access: Access,
    ) -> Result<Self, KeyStoreError> {
        let path = folder.join(ENTRIES_FILE);
        let file = open_if_there(&**files, &path, access)?.ok_or(KeyStoreError::Missing)?;
        if access == Access::Write {
            file.sync_data()?;
            files.sync_folder(folder)?;
            let beside = path.with_extension("new");
            if open_if_there(&**files, &beside, Access::Read)?.is_some() {
                files.remove(&beside)?;
            }
        }
        let bytes = Zeroizing::new(file.read_all()?);
        let slots = open_if_there(&**files, &folder.join(SLOTS_FILE), access)?.ok_or(KeyStoreError::SlotsDamaged)?;
        let read = slots.read_all()?;
        let generation = head_generation(&bytes)?;
        let (store, damaged_copies) = read_slot(&read, generation, root)?;
        let applied = read_head(&bytes, generation, &store)?;
        let (entries, root) = (Entries::new(), Zeroizing::new(*root));
        let mut state = State { generation, root, store, applied, entries, file, records: 0, end: 0, poisoned: false };
        let (last, end) = state.read_records(&bytes)?;
        if access == Access::Write {
            // What a sync failed on may be read and yet never reach the disk: written again, the last record does.
            let record = bytes.get(last as usize..end as usize).unwrap_or_default();
            state.file.write_at(record, last)?;
            state.file.truncate(end)?;
            state.file.sync_data()?;
            // Zeros that are read here may be in the cache alone, so they are written again as well.
            slots.write_at(&[0; SLOT_BYTES], slot_offset(generation + 1))?;
            slots.sync_data()?;
            if damaged_copies > 0 {
                mend_copies(&*slots, &read, generation)?;
            }
        }
        Ok(KeyStore {
            files: Arc::clone(files),
            folder: folder.to_path_buf(),
            read_only: access == Access::Read,
            damaged_copies,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value kept under a kind and id.
    pub fn get(&self, kind: &str, id: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.state().entries.get(kind)?.get(id).cloned()
    }

    /// The 32-byte key kept under a kind and id; other lengths are no key.
    pub fn key(&self, kind: &str, id: &[u8]) -> Option<Key> {
        let value = self.get(kind, id)?;
        <[u8; 32]>::try_from(value.as_slice()).ok().map(Zeroizing::new)
    }

    /// The ids of a kind, ascending.
    pub fn ids(&self, kind: &str) -> Vec<Vec<u8>> {
        self.state().entries.get(kind).map(|ids| ids.keys().cloned().collect()).unwrap_or_default()
    }

    /// The kinds that have entries, ascending.
    pub fn kinds(&self) -> Vec<String> {
        self.state().entries.iter().filter(|(_, ids)| !ids.is_empty()).map(|(kind, _)| kind.clone()).collect()
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.state().entries.values().map(BTreeMap::len).sum()
    }

    /// The generation of store key and entries; it grows with each forgetting.
    pub fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Up to which height the log's erasures are applied here.
    pub fn applied_erasure_height(&self) -> u64 {
        self.state().applied
    }

    /// How many of the four copies of the store key were damaged when it was opened.
    pub fn damaged_copies(&self) -> usize {
        self.damaged_copies
    }

    /// Keeps the entries, all or none; durable when it returns, at the cost of one sync. What is there with the same
    /// value is left alone, with another value it is refused.
    pub fn put(&self, entries: &[Entry<'_>]) -> Result<(), KeyStoreError> {
        let mut state = self.writable()?;
        let mut fresh: Vec<Entry<'_>> = Vec::with_capacity(entries.len());
        for entry in entries {
            check_entry(entry)?;
            let known = state.entries.get(entry.kind).and_then(|ids| ids.get(entry.id)).map(|value| value.as_slice());
            let named = fresh.iter().find(|other| (other.kind, other.id) == (entry.kind, entry.id));
            match known.or(named.map(|other| other.value)) {
                None => fresh.push(*entry),
                Some(value) if value == entry.value => {}
                Some(_) => return Err(KeyStoreError::KeyExists { kind: entry.kind.to_owned() }),
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let record = record(state.generation, state.records, &state.store, &fresh)?;
        state.append(&record)?;
        for entry in fresh {
            state.keep(entry);
        }
        Ok(())
    }

    /// Forgets the named entries (those not there are skipped) and notes that the log's erasures up to a height are
    /// applied. When it returns, no byte on the medium opens a forgotten entry any more.
    pub fn forget(&self, ids: &[(&str, &[u8])], applied_erasure_height: u64) -> Result<(), KeyStoreError> {
        let state = self.writable()?;
        if applied_erasure_height < state.applied {
            let applied = state.applied;
            return Err(KeyStoreError::HeightGoesBack { applied, asked: applied_erasure_height });
        }
        let root = state.root.clone();
        self.renew(state, ids, &[], applied_erasure_height, root)
    }

    /// Keeps another value under a kind and id, and forgets the former one as `forget` does. After a crash at any
    /// moment exactly one of the two is there.
    pub fn replace(&self, entry: &Entry<'_>) -> Result<(), KeyStoreError> {
        check_entry(entry)?;
        let state = self.writable()?;
        let (applied, root) = (state.applied, state.root.clone());
        self.renew(state, &[], std::slice::from_ref(entry), applied, root)
    }

    /// Puts the store under another root key: a new generation, with a new store key. After a crash at any moment
    /// exactly one of the two root keys opens it; once this returns, the new one.
    pub fn rotate_root(&self, root: &[u8; 32]) -> Result<(), KeyStoreError> {
        let state = self.writable()?;
        let applied = state.applied;
        self.renew(state, &[], &[], applied, Zeroizing::new(*root))
    }

    fn renew(
        &self,
        mut state: MutexGuard<'_, State>,
        ids: &[(&str, &[u8])],
        others: &[Entry<'_>],
        applied_erasure_height: u64,
        root: Key,
    ) -> Result<(), KeyStoreError> {
        // Whatever fails from here on, only opening again tells which generation is in force.
        state.poisoned = true;
        let mut kept = state.entries.clone();
        for (kind, id) in ids {
            if let Some(of_kind) = kept.get_mut(*kind) {
                of_kind.remove(*id);
            }
        }
        for entry in others {
            keep(&mut kept, *entry);
        }
        let generation = state.generation + 1;
        let store = random_key()?;
        let slots = self.files.open(&self.folder.join(SLOTS_FILE), Access::Write)?;
        slots.write_at(&slot(generation, &store, &root)?, slot_offset(generation))?;
        slots.sync_data()?;

        let mut bytes = head(generation, applied_erasure_height, &store)?.to_vec();
        let mut records = 0;
        for (kind, of_kind) in &kept {
            for (id, value) in of_kind {
                let entry = Entry { kind, id, value };
                bytes.extend_from_slice(&record(generation, records, &store, &[entry])?);
                records += 1;
            }
        }
        let path = self.folder.join(ENTRIES_FILE);
        replace(&*self.files, &path, &bytes)?;

        slots.write_at(&[0; SLOT_BYTES], slot_offset(state.generation))?;
        slots.sync_data()?;
        let file = self.files.open(&path, Access::Write)?;
        let end = bytes.len() as u64;
        let applied = applied_erasure_height;
        *state = State { generation, root, store, applied, entries: kept, file, records, end, poisoned: false };
        Ok(())
    }

    fn writable(&self) -> Result<MutexGuard<'_, State>, KeyStoreError> {
        if self.read_only {
            return Err(KeyStoreError::ReadOnly);
        }
        let state = self.state();
        if state.poisoned { Err(KeyStoreError::Poisoned) } else { Ok(state) }
    }
}

impl State {
    fn append(&mut self, record: &[u8]) -> Result<(), KeyStoreError> {
        if let Err(error) = self.file.write_at(record, self.end) {
            // Nothing was promised yet; with the half-written record gone, the store goes on.
            self.poisoned = self.file.truncate(self.end).is_err();
            return Err(error.into());
        }
        if let Err(error) = self.file.sync_data() {
            self.poisoned = true;
            return Err(error.into());
        }
        self.end += record.len() as u64;
        self.records += 1;
        Ok(())
    }

    fn keep(&mut self, entry: Entry<'_>) {
        keep(&mut self.entries, entry);
    }

    /// Reads all records and gives where the last whole one starts and ends; what follows it is a torn write.
    fn read_records(&mut self, bytes: &[u8]) -> Result<(u64, u64), KeyStoreError> {
        let (mut last, mut offset) = (HEAD_BYTES, HEAD_BYTES);
        while offset < bytes.len() {
            let rest = &bytes[offset..];
            match self.read_record(rest) {
                Ok(length) => (last, offset) = (offset, offset + length),
                Err(_) if is_torn(rest, offset) => break,
                Err(_) => return Err(KeyStoreError::RecordDamaged { offset: offset as u64 }),
            }
        }
        self.end = offset as u64;
        Ok((last as u64, self.end))
    }

    fn read_record(&mut self, rest: &[u8]) -> Result<usize, NotAuthentic> {
        let length = prefix_length(rest).ok_or(NotAuthentic)?;
        let sealed = rest.get(PREFIX_BYTES..PREFIX_BYTES + length).ok_or(NotAuthentic)?;
        let salt = rest.get(4..4 + SALT_BYTES).ok_or(NotAuthentic)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let sealer = Sealer::derived(Use::Entry, &self.store, salt);
        sealer.open(0, &record_aad(self.generation, self.records), &mut opened)?;
        self.keep_all(&opened).map_err(|_| NotAuthentic)?;
        self.records += 1;
        Ok(PREFIX_BYTES + length)
    }

    fn keep_all(&mut self, opened: &[u8]) -> Result<(), cbor::Error> {
        let mut reader = Reader::new(opened, MAX_RECORD_BYTES)?;
        for _ in 0..reader.array()? {
            reader.array_of(3)?;
            let (kind, id, value) = (reader.text()?, reader.bytes()?, reader.bytes()?);
            self.keep(Entry { kind, id, value });
        }
        reader.finish()
    }
}

fn keep(entries: &mut Entries, entry: Entry<'_>) {
    let of_kind = entries.entry(entry.kind.to_owned()).or_default();
    of_kind.insert(entry.id.to_vec(), Zeroizing::new(entry.value.to_vec()));
}

fn check_entry(entry: &Entry<'_>) -> Result<(), KeyStoreError> {
    let kind_fits = (1..=MAX_KIND_BYTES).contains(&entry.kind.len())
        && entry.kind.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let fits = kind_fits && (1..=MAX_ID_BYTES).contains(&entry.id.len()) && entry.value.len() <= MAX_VALUE_BYTES;
    if fits { Ok(()) } else { Err(KeyStoreError::InvalidEntry) }
}

fn slot_offset(generation: u64) -> u64 {
    generation % 2 * SLOT_BYTES as u64
}

/// One slot: the same copy in each quarter, so that no single bad sector takes the store key.
fn slot(generation: u64, store: &Key, root: &[u8; 32]) -> Result<[u8; SLOT_BYTES], KeyStoreError> {
    let salt: [u8; SALT_BYTES] = digest::random_array()?;
    let mut sealed = Zeroizing::new(**store);
    let aad = generation.to_be_bytes();
    let sealing = Sealer::derived(Use::Slot, root, &salt).seal(0, &aad, &mut *sealed);
    let tag = sealing.map_err(|_| KeyStoreError::InvalidEntry)?;
    let mut copy = [0; COPY_BYTES];
    copy[..8].copy_from_slice(SLOT_MAGIC);
    copy[8..16].copy_from_slice(&aad);
    copy[16..48].copy_from_slice(&salt);
    copy[48..80].copy_from_slice(&*sealed);
    copy[80..96].copy_from_slice(&tag);
    let check = digest::keyed(Use::SlotCheck, &[&copy[..96]]);
    copy[96..128].copy_from_slice(&check);
    let mut slot = [0; SLOT_BYTES];
    slot.chunks_exact_mut(COPY_BYTES).for_each(|quarter| quarter.copy_from_slice(&copy));
    Ok(slot)
}

/// The store key of a generation, and how many of its copies are damaged.
fn read_slot(slots: &[u8], generation: u64, root: &[u8; 32]) -> Result<(Key, usize), KeyStoreError> {
    if slots.len() != 2 * SLOT_BYTES {
        return Err(KeyStoreError::SlotsDamaged);
    }
    let start = slot_offset(generation) as usize;
    let copies = slots[start..start + SLOT_BYTES].chunks_exact(COPY_BYTES);
    let copies: Vec<&[u8]> = copies.filter(|copy| is_whole_copy(copy, generation)).collect();
    if copies.is_empty() {
        // A slot is written before entries of its generation are: with a whole slot of another one only, they err.
        return Err(if holds_whole_slot(slots) { KeyStoreError::HeadDamaged } else { KeyStoreError::SlotsDamaged });
    }
    for copy in &copies {
        let mut sealed = Zeroizing::new(copy[48..96].to_vec());
        let opening = Sealer::derived(Use::Slot, root, &copy[16..48]).open(0, &copy[8..16], &mut sealed);
        if let (Ok(()), Ok(store)) = (opening, <[u8; 32]>::try_from(sealed.as_slice())) {
            return Ok((Zeroizing::new(store), 4 - copies.len()));
        }
    }
    Err(KeyStoreError::WrongRootKey)
}

/// Writes a whole copy of the store key over each damaged one of its slot.
fn mend_copies(slots: &dyn File, read: &[u8], generation: u64) -> io::Result<()> {
    let start = slot_offset(generation) as usize;
    let copies = || read[start..start + SLOT_BYTES].chunks_exact(COPY_BYTES);
    let Some(whole) = copies().find(|copy| is_whole_copy(copy, generation)) else { return Ok(()) };
    for (number, copy) in copies().enumerate() {
        if !is_whole_copy(copy, generation) {
            slots.write_at(whole, (start + number * COPY_BYTES) as u64)?;
        }
    }
    slots.sync_data()
}

fn holds_whole_slot(slots: &[u8]) -> bool {
    slots.chunks_exact(COPY_BYTES).enumerate().any(|(number, copy)| {
        let generation = copy[8..16].first_chunk().map_or(0, |field| u64::from_be_bytes(*field));
        slot_offset(generation) == (number / 4 * SLOT_BYTES) as u64 && is_whole_copy(copy, generation)
    })
}

fn is_whole_copy(copy: &[u8], generation: u64) -> bool {
    copy[..8] == *SLOT_MAGIC
        && copy[8..16] == generation.to_be_bytes()
        && digest::keyed(Use::SlotCheck, &[&copy[..96]])[..] == copy[96..128]
        && copy[128..].iter().all(|byte| *byte == 0)
}

/// The head of the entries: magic, generation, applied erasure height, salt, and a tag over all of it.
fn head(generation: u64, applied: u64, store: &Key) -> Result<[u8; HEAD_BYTES], KeyStoreError> {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(ENTRIES_MAGIC);
    head[8..16].copy_from_slice(&generation.to_be_bytes());
    head[16..24].copy_from_slice(&applied.to_be_bytes());
    digest::random_bytes(&mut head[24..56])?;
    let sealer = Sealer::derived(Use::EntriesHeader, store, &head[24..56]);
    let tag = sealer.seal(0, &head[..56], &mut []).map_err(|_| KeyStoreError::InvalidEntry)?;
    head[56..].copy_from_slice(&tag);
    Ok(head)
}

fn head_generation(bytes: &[u8]) -> Result<u64, KeyStoreError> {
    match (bytes.starts_with(ENTRIES_MAGIC), bytes.get(8..16).and_then(|field| field.first_chunk())) {
        (true, Some(generation)) if bytes.len() >= HEAD_BYTES => Ok(u64::from_be_bytes(*generation)),
        _ => Err(KeyStoreError::HeadDamaged),
    }
}

fn read_head(bytes: &[u8], generation: u64, store: &Key) -> Result<u64, KeyStoreError> {
    let head = bytes.first_chunk::<HEAD_BYTES>().ok_or(KeyStoreError::HeadDamaged)?;
    let mut tag = head[56..].to_vec();
    let sealer = Sealer::derived(Use::EntriesHeader, store, &head[24..56]);
    sealer.open(0, &head[..56], &mut tag).map_err(|_| KeyStoreError::HeadDamaged)?;
    let mut applied = [0; 8];
    applied.copy_from_slice(&head[16..24]);
    debug_assert_eq!(head[8..16], generation.to_be_bytes());
    Ok(u64::from_be_bytes(applied))
}

fn record_aad(generation: u64, number: u64) -> Vec<u8> {
    Writer::new().array(2).uint(generation).uint(number).as_bytes().to_vec()
}

/// One record: length (4) ‖ salt (32) ‖ check (12) ‖ sealed CBOR [* [kind, id, value]].
fn record(generation: u64, number: u64, store: &Key, entries: &[Entry<'_>]) -> Result<Vec<u8>, KeyStoreError> {
    let size: usize = entries.iter().map(|entry| entry.kind.len() + entry.id.len() + entry.value.len() + 16).sum();
    let mut writer = Writer::with_capacity(size + 16);
    writer.array(entries.len());
    for entry in entries {
        writer.array(3).text(entry.kind).map_err(|_| KeyStoreError::InvalidEntry)?;
        writer.bytes(entry.id).bytes(entry.value);
    }
    let mut message = Zeroizing::new(writer.into_bytes());
    if message.len() + TAG_BYTES > MAX_RECORD_BYTES {
        return Err(KeyStoreError::InvalidEntry);
    }
    let salt: [u8; SALT_BYTES] = digest::random_array()?;
    let sealing = Sealer::derived(Use::Entry, store, &salt).seal(0, &record_aad(generation, number), &mut message);
    let tag = sealing.map_err(|_| KeyStoreError::InvalidEntry)?;
    let length = u32::try_from(message.len() + TAG_BYTES).map_err(|_| KeyStoreError::InvalidEntry)?.to_be_bytes();
    let check = digest::keyed(Use::EntryCheck, &[&length, &salt]);
    Ok([&length[..], &salt, &check[..CHECK_BYTES], &message, &tag].concat())
}

/// How many sealed bytes follow the prefix, if it is one.
fn prefix_length(rest: &[u8]) -> Option<usize> {
    let prefix = rest.first_chunk::<PREFIX_BYTES>()?;
    let (length, salt) = (prefix.first_chunk::<4>()?, &prefix[4..4 + SALT_BYTES]);
    let check = digest::keyed(Use::EntryCheck, &[length, salt]);
    (check[..CHECK_BYTES] == prefix[4 + SALT_BYTES..]).then_some(u32::from_be_bytes(*length) as usize)
}

/// Whether bytes that are no record are the rest of a write that never finished, and so promised nothing: the file
/// ends inside it or a sector of it was never written, and no record follows. A full record that fails is damage.
fn is_torn(rest: &[u8], offset: usize) -> bool {
    let (extent, follows_from) = match prefix_length(rest) {
        Some(length) => (PREFIX_BYTES + length, PREFIX_BYTES + length),
        None => (rest.len().max(PREFIX_BYTES), 1),
    };
    let record_follows = (follows_from..rest.len()).any(|start| prefix_length(&rest[start..]).is_some());
    !record_follows && (extent > rest.len() || has_unwritten_sector(&rest[..extent], offset))
}

fn has_unwritten_sector(bytes: &[u8], offset: usize) -> bool {
    let first = (SECTOR - offset % SECTOR).min(bytes.len());
    let (head, tail) = bytes.split_at(first);
    std::iter::once(head).chain(tail.chunks(SECTOR)).any(|piece| piece.iter().all(|byte| *byte == 0))
}

/// A root key from a passphrase (NFC): Argon2id version 0x13 with 64 MiB, 3 passes, one lane.
pub fn derive_root_key(passphrase: &str, salt: &[u8]) -> Result<Key, KeyStoreError> {
    const MEMORY_KIB: u32 = 64 * 1024;
    let phrase = Zeroizing::new(passphrase.nfc().collect::<String>());
    if phrase.is_empty() || !(16..=64).contains(&salt.len()) {
        return Err(KeyStoreError::InvalidEntry);
    }
    let parameters = argon2::Params::new(MEMORY_KIB, 3, 1, Some(32)).map_err(|_| KeyStoreError::InvalidEntry)?;
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
    let mut key = Zeroizing::new([0; 32]);
    argon.hash_password_into(phrase.as_bytes(), salt, &mut *key).map_err(|_| KeyStoreError::InvalidEntry)?;
    Ok(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::files::MemoryFiles;
    use super::*;

    const ROOT: [u8; 32] = [7; 32];

    /// Everything someone learns who has the root key and every byte the medium still shows, removed files included.
    fn everything_readable(disk: &MemoryFiles) -> Vec<Vec<u8>> {
        let medium = disk.all_bytes();
        let mut store_keys = Vec::new();
        for bytes in &medium {
            for copy in bytes.windows(128).filter(|window| window.starts_with(SLOT_MAGIC)) {
                let mut sealed = copy[48..96].to_vec();
                let opening = Sealer::derived(Use::Slot, &ROOT, &copy[16..48]).open(0, &copy[8..16], &mut sealed);
                opening.unwrap();
                store_keys.push(Key::new(sealed.try_into().unwrap()));
            }
        }
        let mut found = Vec::new();
        for bytes in &medium {
            for start in 0..bytes.len() {
                let Some(length) = prefix_length(&bytes[start..]) else { continue };
                let salt = &bytes[start + 4..start + 4 + SALT_BYTES];
                let sealed = &bytes[start + PREFIX_BYTES..][..length];
                for (generation, number) in (0..5).flat_map(|generation| (0..9).map(move |number| (generation, number)))
                {
                    for store in &store_keys {
                        let mut opened = sealed.to_vec();
                        let sealer = Sealer::derived(Use::Entry, store, salt);
                        if sealer.open(0, &record_aad(generation, number), &mut opened).is_ok() {
                            found.push(opened);
                        }
                    }
                }
            }
        }
        found
    }

    fn shows(disk: &MemoryFiles, secret: &[u8]) -> bool {
        everything_readable(disk).iter().any(|bytes| bytes.windows(secret.len()).any(|window| window == secret))
    }

    #[test]
    fn what_is_forgotten_is_nowhere_on_the_medium() {
        let disk = MemoryFiles::new();
        let store = KeyStore::create(Arc::new(disk.clone()), Path::new("k"), &ROOT).unwrap();
        let entry = |id: &'static [u8], value: &'static [u8]| Entry { kind: "patient-root", id, value };
        store.put(&[entry(b"a", b"secret of a"), entry(b"b", b"secret of b")]).unwrap();
        store.put(&[entry(b"c", b"secret of c")]).unwrap();
        assert!(shows(&disk, b"secret of a") && shows(&disk, b"secret of c"));
        store.forget(&[("patient-root", b"a")], 1).unwrap();
        assert!(!shows(&disk, b"secret of a"));
        assert!(shows(&disk, b"secret of b") && shows(&disk, b"secret of c"));
        store.forget(&[("patient-root", b"c")], 2).unwrap();
        assert!(!shows(&disk, b"secret of a") && !shows(&disk, b"secret of c"));
        assert!(shows(&disk, b"secret of b"));
    }

    #[test]
    fn a_crash_before_the_old_slot_is_wiped_is_made_good_at_open() {
        use super::super::files::{Fault, Loss};
        for operation in 0..12 {
            let disk = MemoryFiles::new();
            let store = KeyStore::create(Arc::new(disk.clone()), Path::new("k"), &ROOT).unwrap();
            store.put(&[Entry { kind: "x", id: b"a", value: b"secret of a" }]).unwrap();
            disk.fail_at(disk.operations() + operation, Fault::Crash);
            drop(store.forget(&[("x", b"a")], 1));
            let disk = disk.restarted(Loss::Nothing);
            let store = KeyStore::open(Arc::new(disk.clone()), Path::new("k"), &ROOT, false).unwrap();
            // Either the forgetting took place, and wholly, or it did not take place at all.
            assert_eq!(store.get("x", b"a").is_some(), shows(&disk, b"secret of a"), "{operation}");
            assert_eq!(store.applied_erasure_height(), u64::from(store.get("x", b"a").is_none()));
        }
    }
}
