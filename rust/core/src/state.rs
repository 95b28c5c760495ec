//! State: paths, write sets, and the view through which contract calls read and write published state.
//! Refuses writes outside a call frame and write sets not encoded as this module encodes them.
//! Invariant: an unchanged value keeps its stored bytes, and what a dropped frame wrote is never seen again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cbor::{self, Reader, Writer};
use crate::digest::{self, Use, keyed};

/// Where a value lives in the state trie: keyed["path"](CBOR [contract, key]).
pub type Path = [u8; 32];

/// Bytes before each stored value: keyed["blind"](salt ‖ path), cut.
pub const BLIND_BYTES: usize = 16;
/// Longest contract name.
pub const MAX_CONTRACT_BYTES: usize = 64;
/// Longest encoded key.
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest encoded value.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// How long stored bytes may be: a blind and a value.
pub const STORED_BYTES: std::ops::RangeInclusive<usize> = BLIND_BYTES + 1..=BLIND_BYTES + MAX_VALUE_BYTES;
/// Longest encoded write set.
pub const MAX_WRITE_SET_BYTES: usize = 64 * 1024 * 1024;
/// Deepest stack of call frames: a transaction and four nested calls, with room for timers.
pub const MAX_FRAMES: usize = 8;

/// Why reading state failed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The store below could not be read.
    #[error("the state store could not be read")]
    Unavailable(#[source] std::io::Error),
    /// A stored value does not open under its key and path.
    #[error("a stored value is not what was written")]
    Corrupt(Path),
}

/// Why a view refused an operation.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The state below could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A write, accept or drop without an open frame.
    #[error("no call frame is open")]
    NoFrame,
    /// The block is asked for while calls are still open.
    #[error("{0} call frames are still open")]
    OpenFrames(usize),
    /// Frames nested deeper than `MAX_FRAMES`.
    #[error("call frames are nested too deep")]
    TooDeep,
    /// Another block already rests on this one.
    #[error("a later block rests on this view")]
    Sealed,
    /// The salt is neither a transaction's (16 bytes) nor a timer's (32).
    #[error("a salt of {0} bytes")]
    SaltLength(usize),
    /// The contract name is empty or too long.
    #[error("a contract name of {0} bytes")]
    ContractLength(usize),
    /// The contract name is not text of the profile.
    #[error("a contract name that is not NFC")]
    ContractName(#[from] cbor::Error),
    /// The encoded key is too long.
    #[error("a key of {0} bytes")]
    KeyTooLarge(usize),
    /// The encoded value is empty or too long.
    #[error("a value of {0} bytes")]
    ValueLength(usize),
}

/// Why bytes are not a write set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteSetError {
    /// Not the one encoding this module emits.
    #[error("not a write set: {0}")]
    Encoding(#[from] cbor::Error),
    /// Paths not strictly ascending at this position.
    #[error("paths out of order at write {0}")]
    Order(usize),
    /// A stored value without room for its blind, or too long, at this position.
    #[error("a stored value of impossible length at write {0}")]
    ValueLength(usize),
}

/// Published state as a call sees it: stored = blind (16) ‖ value.
pub trait StateRead: Send + Sync {
    /// The stored bytes at a path, `None` when there are none.
    fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, StateError>;
}

/// State before genesis: nothing anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyState;

impl StateRead for EmptyState {
    fn get(&self, _path: &Path) -> Result<Option<Vec<u8>>, StateError> {
        Ok(None)
    }
}

/// The path of a contract's key: keyed["path"](CBOR [contract, key]); `key` is one item, already encoded.
pub fn path(contract: &str, key: &[u8]) -> Result<Path, ViewError> {
    if contract.is_empty() || contract.len() > MAX_CONTRACT_BYTES {
        return Err(ViewError::ContractLength(contract.len()));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(ViewError::KeyTooLarge(key.len()));
    }
    let mut preimage = Writer::with_capacity(3 + contract.len() + key.len());
    preimage.array(2).text(contract)?.raw(key);
    Ok(keyed(Use::Path, &[preimage.as_bytes()]))
}

/// The bytes stored at a path: blind ‖ value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored(Arc<[u8]>);

impl Stored {
    fn blinded(salt: &[u8], path: &Path, value: &[u8]) -> Self {
        let blind = keyed(Use::Blind, &[salt, path]);
        let mut stored = Vec::with_capacity(BLIND_BYTES + value.len());
        stored.extend_from_slice(&blind[..BLIND_BYTES]);
        stored.extend_from_slice(value);
        Self(stored.into())
    }

    fn read(path: &Path, bytes: Vec<u8>) -> Result<Self, StateError> {
        if bytes.len() <= BLIND_BYTES { Err(StateError::Corrupt(*path)) } else { Ok(Self(bytes.into())) }
    }

    /// Everything, as hashed into the trie.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Without the blind.
    pub fn value(&self) -> &[u8] {
        self.0.get(BLIND_BYTES..).unwrap_or_default()
    }
}

fn same_value(left: Option<&Stored>, right: Option<&Stored>) -> bool {
    left.map(Stored::value) == right.map(Stored::value)
}

/// The last write per path of one block, ascending by path; `None` deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// (path, stored bytes or deletion), ascending, each path once.
    pub writes: Vec<(Path, Option<Vec<u8>>)>,
    /// (path, BLAKE3(stored)) where an erasure took the bytes, ascending, none of them among `writes`. A later block
    /// has written each of these paths again.
    pub erased: Vec<(Path, [u8; 32])>,
}

/// What a write leaves at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<'a> {
    /// These stored bytes.
    Stored(&'a [u8]),
    /// Nothing.
    Deleted,
    /// Stored bytes of which only BLAKE3 is known any more.
    Erased(&'a [u8; 32]),
}

impl WriteSet {
    /// A write set of which nothing is erased.
    pub fn of(writes: Vec<(Path, Option<Vec<u8>>)>) -> Self {
        WriteSet { writes, erased: Vec::new() }
    }

    /// All writes, ascending by path.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, Written<'_>)> {
        let mut kept = self.writes.iter().peekable();
        let mut erased = self.erased.iter().peekable();
        std::iter::from_fn(move || {
            let erased_first = match (kept.peek(), erased.peek()) {
                (Some((kept, _)), Some((erased, _))) => erased < kept,
                (None, Some(_)) => true,
                _ => false,
            };
            if erased_first {
                return erased.next().map(|(path, digest)| (path, Written::Erased(digest)));
            }
            kept.next().map(|(path, stored)| (path, stored.as_deref().map_or(Written::Deleted, Written::Stored)))
        })
    }

    /// CBOR [1, [* [path, stored / null / [digest]]]], the write set section of a frame.
    pub fn encode(&self) -> Vec<u8> {
        let room = self.writes.iter().map(|(_, stored)| 40 + stored.as_ref().map_or(1, |bytes| bytes.len() + 5));
        let mut writer = Writer::with_capacity(12 + room.sum::<usize>() + self.erased.len() * 70);
        writer.array(2).uint(1).array(self.writes.len() + self.erased.len());
        for (path, written) in self.iter() {
            writer.array(2).bytes(path);
            match written {
                Written::Stored(bytes) => writer.bytes(bytes),
                Written::Deleted => writer.null(),
                Written::Erased(digest) => writer.array(1).bytes(digest),
            };
        }
        writer.into_bytes()
    }

    /// Leaves of what was stored at a path its digest; nothing happens where nothing was stored.
    pub fn erase(&mut self, path: &Path) {
        let Ok(at) = self.writes.binary_search_by_key(path, |(path, _)| *path) else { return };
        if self.writes.get(at).is_none_or(|(_, stored)| stored.is_none()) {
            return;
        }
        let (path, stored) = self.writes.remove(at);
        let digest = digest::blake3(&stored.unwrap_or_default());
        let place = self.erased.partition_point(|(before, _)| *before < path);
        self.erased.insert(place, (path, digest));
    }

    /// Reads what `encode` emits and nothing else.
    pub fn decode(data: &[u8]) -> Result<Self, WriteSetError> {
        let mut reader = Reader::new(data, MAX_WRITE_SET_BYTES)?;
        reader.array_of(2)?;
        reader.expect_int(1)?;
        let count = reader.array()?;
        // A write takes at least 36 bytes, so a false count cannot make us reserve much more than was sent.
        let mut writes: Vec<(Path, Option<Vec<u8>>)> = Vec::with_capacity(count.min(data.len() / 36));
        let mut erased = Vec::new();
        let mut before: Option<Path> = None;
        for position in 0..count {
            reader.array_of(2)?;
            let path: Path = reader.fixed()?;
            if before.is_some_and(|before| before >= path) {
                return Err(WriteSetError::Order(position));
            }
            before = Some(path);
            let offset = reader.offset();
            let stored = match reader.item()? {
                cbor::Item::Null => None,
                cbor::Item::Bytes(bytes) if STORED_BYTES.contains(&bytes.len()) => Some(bytes.to_vec()),
                cbor::Item::Bytes(_) => return Err(WriteSetError::ValueLength(position)),
                cbor::Item::Array(1) => {
                    erased.push((path, reader.fixed()?));
                    continue;
                }
                _ => return Err(cbor::Error::Unexpected { offset }.into()),
            };
            writes.push((path, stored));
        }
        reader.finish()?;
        Ok(Self { writes, erased })
    }
}

type Overlay = HashMap<Path, Option<Stored>>;

struct Frame {
    salt: Vec<u8>,
    writes: Overlay,
}

/// The overlay of one block over published state, with a stack of call frames.
///
/// Reads see the open frames from the top down, then the block, then the blocks it rests on, then the base:
/// ```text
///   frame n ─ … ─ frame 1 ─ block ─ parent ─ its parents ─ base
/// ```
pub struct StateView {
    base: Arc<dyn StateRead>,
    parents: Vec<Arc<Overlay>>,
    /// What parents and base answered: the same key is usually read and then written.
    below: Overlay,
    /// Only what differs from below.
    block: Arc<Overlay>,
    frames: Vec<Frame>,
    sealed: bool,
}

impl StateView {
    /// A view of a block directly over published state.
    pub fn new(base: Arc<dyn StateRead>) -> Self {
        Self {
            base,
            parents: Vec::new(),
            below: Overlay::new(),
            block: Arc::default(),
            frames: Vec::new(),
            sealed: false,
        }
    }

    /// A view of the next block while `parent` is not yet in `base`. The parent takes no more calls.
    pub fn over(base: Arc<dyn StateRead>, parent: &mut Self) -> Result<Self, ViewError> {
        parent.refuse_open_frames()?;
        parent.sealed = true;
        let mut view = Self::new(base);
        view.parents.push(Arc::clone(&parent.block));
        view.parents.extend(parent.parents.iter().cloned());
        Ok(view)
    }

    /// Lets go of the blocks below, once their writes are in the base.
    pub fn detach_parent(&mut self) {
        self.parents.clear();
    }

    /// Opens a call frame; its writes are blinded under `salt`.
    pub fn begin(&mut self, salt: &[u8]) -> Result<(), ViewError> {
        if self.sealed {
            return Err(ViewError::Sealed);
        }
        if salt.len() != 16 && salt.len() != 32 {
            return Err(ViewError::SaltLength(salt.len()));
        }
        if self.frames.len() >= MAX_FRAMES {
            return Err(ViewError::TooDeep);
        }
        self.frames.push(Frame { salt: salt.to_vec(), writes: Overlay::new() });
        Ok(())
    }

    /// Frames open now.
    pub fn depth(&self) -> usize {
        self.frames.len()
    }

    /// What a call sees at a path.
    pub fn get(&mut self, path: &Path) -> Result<Option<Stored>, ViewError> {
        for frame in self.frames.iter().rev() {
            if let Some(written) = frame.writes.get(path) {
                return Ok(written.clone());
            }
        }
        match self.block.get(path) {
            Some(written) => Ok(written.clone()),
            None => self.published(path),
        }
    }

    /// Writes a value in the top frame; nothing happens when the value is there already.
    pub fn put(&mut self, path: &Path, value: &[u8]) -> Result<(), ViewError> {
        if value.is_empty() || value.len() > MAX_VALUE_BYTES {
            return Err(ViewError::ValueLength(value.len()));
        }
        if self.frames.is_empty() {
            return Err(ViewError::NoFrame);
        }
        if self.get(path)?.is_some_and(|stored| stored.value() == value) {
            return Ok(());
        }
        let frame = self.frames.last_mut().ok_or(ViewError::NoFrame)?;
        let stored = Stored::blinded(&frame.salt, path, value);
        frame.writes.insert(*path, Some(stored));
        Ok(())
    }

    /// Deletes in the top frame; nothing happens when there is nothing.
    pub fn delete(&mut self, path: &Path) -> Result<(), ViewError> {
        if self.frames.is_empty() {
            return Err(ViewError::NoFrame);
        }
        if self.get(path)?.is_some() {
            let frame = self.frames.last_mut().ok_or(ViewError::NoFrame)?;
            frame.writes.insert(*path, None);
        }
        Ok(())
    }

    /// Merges the top frame into what lies below it; gives how many keys it changed.
    ///
    /// Every path of the frame was read before it was written, so nothing is read from the base here.
    pub fn accept(&mut self) -> Result<u64, ViewError> {
        let frame = self.frames.pop().ok_or(ViewError::NoFrame)?;
        let mut changed = 0;
        for (path, written) in frame.writes {
            // A call that writes and writes back has changed nothing: the older stored bytes stay.
            if same_value(self.get(&path)?.as_ref(), written.as_ref()) {
                continue;
            }
            changed += 1;
            if let Some(below) = self.frames.last_mut() {
                below.writes.insert(path, written);
                continue;
            }
            let restored = same_value(self.published(&path)?.as_ref(), written.as_ref());
            let block = Arc::get_mut(&mut self.block).ok_or(ViewError::Sealed)?;
            if restored {
                block.remove(&path)
            } else {
                block.insert(path, written)
            };
        }
        Ok(changed)
    }

    /// Forgets the top frame and what it wrote.
    pub fn drop_frame(&mut self) -> Result<(), ViewError> {
        self.frames.pop().map(drop).ok_or(ViewError::NoFrame)
    }

    /// What the whole block changes against the state it rests on.
    pub fn write_set(&self) -> Result<WriteSet, ViewError> {
        self.refuse_open_frames()?;
        let stored = |written: &Option<Stored>| written.as_ref().map(|stored| stored.bytes().to_vec());
        let mut writes: Vec<_> = self.block.iter().map(|(path, written)| (*path, stored(written))).collect();
        writes.sort_unstable_by_key(|(path, _)| *path);
        Ok(WriteSet::of(writes))
    }

    fn refuse_open_frames(&self) -> Result<(), ViewError> {
        match self.frames.len() {
            0 => Ok(()),
            open => Err(ViewError::OpenFrames(open)),
        }
    }

    /// What the block rests on: parents, then base.
    fn published(&mut self, path: &Path) -> Result<Option<Stored>, ViewError> {
        if let Some(known) = self.below.get(path) {
            return Ok(known.clone());
        }
        let found = match self.parents.iter().find_map(|parent| parent.get(path)) {
            Some(written) => written.clone(),
            None => self.base.get(path)?.map(|bytes| Stored::read(path, bytes)).transpose()?,
        };
        self.below.insert(*path, found.clone());
        Ok(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct MapState(BTreeMap<Path, Vec<u8>>);

    impl StateRead for MapState {
        fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, StateError> {
            Ok(self.0.get(path).cloned())
        }
    }

    fn empty() -> StateView {
        StateView::new(Arc::new(EmptyState))
    }

    fn key(number: u8) -> Path {
        path("toy", &[number % 24]).unwrap()
    }

    fn value(view: &mut StateView, path: &Path) -> Option<Vec<u8>> {
        view.get(path).unwrap().map(|stored| stored.value().to_vec())
    }

    #[test]
    fn path_is_the_keyed_hash_of_an_array_of_two() {
        for name in ["a".to_owned(), "b".repeat(23), "c".repeat(24), "d".repeat(MAX_CONTRACT_BYTES)] {
            let mut preimage = Vec::new();
            minicbor::Encoder::new(&mut preimage).array(2).unwrap().str(&name).unwrap().u8(7).unwrap();
            let expected = blake3::keyed_hash(&blake3::derive_key("ehrfast 2026-11 path v1", b""), &preimage);
            assert_eq!(path(&name, &[7]).unwrap(), *expected.as_bytes());
        }
        assert!(matches!(path("", &[7]), Err(ViewError::ContractLength(0))));
        assert!(matches!(path(&"e".repeat(65), &[7]), Err(ViewError::ContractLength(65))));
        assert!(matches!(path("a", &[0; MAX_KEY_BYTES + 1]), Err(ViewError::KeyTooLarge(_))));
    }

    #[test]
    fn reads_see_own_frames_then_block_then_parent_then_base() {
        let stored = |byte: u8| [&[9; BLIND_BYTES][..], &[byte]].concat();
        let base: Arc<dyn StateRead> = Arc::new(MapState((0..4).map(|n| (key(n), stored(0))).collect()));
        let mut parent = StateView::new(Arc::clone(&base));
        parent.begin(&[1; 16]).unwrap();
        (1..4).for_each(|n| parent.put(&key(n), &[1]).unwrap());
        assert_eq!(parent.accept().unwrap(), 3);
        let mut view = StateView::over(base, &mut parent).unwrap();
        view.begin(&[2; 16]).unwrap();
        (2..4).for_each(|n| view.put(&key(n), &[2]).unwrap());
        view.begin(&[2; 16]).unwrap();
        view.put(&key(3), &[3]).unwrap();
        let seen: Vec<_> = (0..4).map(|n| value(&mut view, &key(n)).unwrap()).collect();
        assert_eq!(seen, [[0], [1], [2], [3]]);
        view.drop_frame().unwrap();
        assert_eq!(value(&mut view, &key(3)), Some(vec![2]));
        assert!(matches!(view.write_set(), Err(ViewError::OpenFrames(1))));
        view.drop_frame().unwrap();
        assert_eq!(value(&mut view, &key(3)), Some(vec![1]));
        assert!(matches!(parent.begin(&[0; 16]), Err(ViewError::Sealed)));
        assert!(view.write_set().unwrap().writes.is_empty());
    }

    #[test]
    fn refuses_what_has_no_place() {
        let mut view = empty();
        assert!(matches!(view.put(&key(0), &[1]), Err(ViewError::NoFrame)));
        assert!(matches!(view.delete(&key(0)), Err(ViewError::NoFrame)));
        assert!(matches!(view.accept(), Err(ViewError::NoFrame)));
        assert!(matches!(view.drop_frame(), Err(ViewError::NoFrame)));
        for length in [0, 15, 17, 31, 33, 64] {
            assert!(matches!(view.begin(&vec![0; length]), Err(ViewError::SaltLength(_))));
        }
        (0..MAX_FRAMES).for_each(|_| view.begin(&[0; 32]).unwrap());
        assert!(matches!(view.begin(&[0; 32]), Err(ViewError::TooDeep)));
        assert!(matches!(view.put(&key(0), &[]), Err(ViewError::ValueLength(0))));
        assert!(matches!(view.put(&key(0), &vec![0; MAX_VALUE_BYTES + 1]), Err(ViewError::ValueLength(_))));
        assert!(matches!(StateView::over(Arc::new(EmptyState), &mut view), Err(ViewError::OpenFrames(MAX_FRAMES))));
    }

    #[test]
    fn stored_bytes_without_a_value_are_corrupt() {
        let short = vec![0; BLIND_BYTES];
        let mut view = StateView::new(Arc::new(MapState(BTreeMap::from([(key(0), short)]))));
        assert!(matches!(view.get(&key(0)), Err(ViewError::State(StateError::Corrupt(at))) if at == key(0)));
    }

    #[test]
    fn an_unchanged_value_keeps_its_blind() {
        let mut view = empty();
        view.begin(&[1; 16]).unwrap();
        view.put(&key(0), &[5]).unwrap();
        assert_eq!(view.accept().unwrap(), 1);
        let first = view.get(&key(0)).unwrap().unwrap();
        for interlude in [None, Some(6), Some(7)] {
            view.begin(&[2; 16]).unwrap();
            match interlude {
                None => view.delete(&key(0)).unwrap(),
                Some(other) => view.put(&key(0), &[other]).unwrap(),
            }
            view.put(&key(0), &[5]).unwrap();
            assert_eq!(view.accept().unwrap(), 0);
            assert_eq!(view.get(&key(0)).unwrap().unwrap(), first);
        }
        let blind =
            blake3::keyed_hash(&blake3::derive_key("ehrfast 2026-11 blind v1", b""), &[&[1; 16][..], &key(0)].concat());
        assert_eq!(first.bytes(), [&blind.as_bytes()[..16], &[5]].concat());
    }

    #[test]
    fn a_detached_view_answers_from_the_base() {
        let mut parent = empty();
        parent.begin(&[1; 16]).unwrap();
        parent.put(&key(0), &[5]).unwrap();
        parent.accept().unwrap();
        let written = parent.write_set().unwrap();
        let base = MapState(written.writes.into_iter().map(|(path, stored)| (path, stored.unwrap())).collect());
        let mut view = StateView::over(Arc::new(base), &mut parent).unwrap();
        drop(parent);
        view.detach_parent();
        assert_eq!(value(&mut view, &key(0)), Some(vec![5]));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin(u8),
        Put(u8, u8),
        Delete(u8),
        Accept,
        Drop,
        NextBlock,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => any::<u8>().prop_map(Step::Begin),
            6 => (0..6_u8, 0..3_u8).prop_map(|(k, v)| Step::Put(k, v)),
            2 => (0..6_u8).prop_map(Step::Delete),
            2 => Just(Step::Accept),
            1 => Just(Step::Drop),
            1 => Just(Step::NextBlock),
        ];
        prop::collection::vec(step, 0..120)
    }

    type Layer = BTreeMap<Path, Vec<u8>>;

    /// The readable twin: every layer is a whole copy of the state, the top one is what a call sees.
    fn twin_accept(layers: &mut Vec<(Vec<u8>, Layer)>, base: &Layer) -> u64 {
        let (_, mut top) = layers.pop().unwrap();
        if layers.len() == 1 {
            // A block that restores a published value has not touched it.
            top.iter_mut().for_each(|(path, stored)| {
                if let Some(old) = base.get(path).filter(|old| old[16..] == stored[16..]) {
                    stored.clone_from(old);
                }
            });
        }
        let below = &mut layers.last_mut().unwrap().1;
        let paths: std::collections::BTreeSet<Path> = top.keys().chain(below.keys()).copied().collect();
        let mut changed = 0;
        for path in paths {
            let (old, new) = (below.get(&path), top.get(&path));
            if old.map(|stored| &stored[16..]) != new.map(|stored| &stored[16..]) {
                changed += 1;
                match new.cloned() {
                    Some(stored) => below.insert(path, stored),
                    None => below.remove(&path),
                };
            }
        }
        changed
    }

    fn twin_writes(old: &Layer, new: &Layer) -> Vec<(Path, Option<Vec<u8>>)> {
        let paths: std::collections::BTreeSet<Path> = old.keys().chain(new.keys()).copied().collect();
        let differs =
            |path: &Path| old.get(path).map(|stored| &stored[16..]) != new.get(path).map(|stored| &stored[16..]);
        paths.into_iter().filter(differs).map(|path| (path, new.get(&path).cloned())).collect()
    }

    fn apply(layer: &mut Layer, set: &WriteSet) {
        for (path, stored) in &set.writes {
            match stored.clone() {
                Some(stored) => layer.insert(*path, stored),
                None => layer.remove(path),
            };
        }
    }

    proptest! {
        #[test]
        fn equals_whole_copies_of_the_state(steps in steps()) {
            let mut base = Layer::new();
            let mut view = empty();
            // The block's layer, then a copy for each open frame.
            let mut layers = vec![(Vec::new(), base.clone())];
            for step in steps {
                match step {
                    Step::Begin(salt) if layers.len() <= MAX_FRAMES => {
                        view.begin(&[salt; 16]).unwrap();
                        let copy = layers.last().unwrap().1.clone();
                        layers.push((vec![salt; 16], copy));
                    }
                    Step::Put(k, v) if layers.len() > 1 => {
                        view.put(&key(k), &[v]).unwrap();
                        let (salt, top) = layers.last_mut().unwrap();
                        if top.get(&key(k)).is_none_or(|stored| stored[16..] != [v]) {
                            top.insert(key(k), Stored::blinded(salt, &key(k), &[v]).bytes().to_vec());
                        }
                    }
                    Step::Delete(k) if layers.len() > 1 => {
                        view.delete(&key(k)).unwrap();
                        layers.last_mut().unwrap().1.remove(&key(k));
                    }
                    Step::Accept if layers.len() > 1 => prop_assert_eq!(view.accept().unwrap(), twin_accept(&mut layers, &base)),
                    Step::Drop if layers.len() > 1 => {
                        view.drop_frame().unwrap();
                        layers.pop();
                    }
                    Step::NextBlock if layers.len() == 1 => {
                        let set = view.write_set().unwrap();
                        prop_assert_eq!(&set.writes, &twin_writes(&base, &layers[0].1));
                        let below = Arc::new(MapState(base.clone()));
                        apply(&mut base, &set);
                        layers[0].1 = base.clone();
                        view = StateView::over(below, &mut view).unwrap();
                    }
                    _ => {}
                }
                for k in 0..6 {
                    let seen = view.get(&key(k)).unwrap().map(|stored| stored.bytes().to_vec());
                    prop_assert_eq!(seen.as_ref(), layers.last().unwrap().1.get(&key(k)));
                }
            }
        }

        #[test]
        fn write_set_round_trips_and_admits_no_other_bytes(
            writes in prop::collection::btree_map(any::<[u8; 32]>(), prop::option::of(prop::collection::vec(any::<u8>(), 17..80)), 0..40),
            flip in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let mut set = WriteSet::of(writes.into_iter().collect());
            let taken: Vec<Path> = set.writes.iter().map(|(path, _)| *path).filter(|path| path[31] & 3 == 0).collect();
            taken.iter().for_each(|path| set.erase(path));
            let bytes = set.encode();
            prop_assert_eq!(&WriteSet::decode(&bytes).unwrap(), &set);
            for end in 0..bytes.len() {
                prop_assert!(WriteSet::decode(&bytes[..end]).is_err());
            }
            let mut flipped = bytes.clone();
            flipped[flip.index(bytes.len())] ^= 1 << bit;
            if let Ok(other) = WriteSet::decode(&flipped) {
                prop_assert_eq!(other.encode(), flipped);
                prop_assert_ne!(other, set.clone());
            }
            prop_assert!(WriteSet::decode(&[bytes, vec![0]].concat()).is_err());
        }
    }

    #[test]
    fn refuses_foreign_encodings_of_a_write_set() {
        let stored = vec![7; 17];
        let set = |writes: &[(u8, Option<Vec<u8>>)]| {
            WriteSet::of(writes.iter().map(|(byte, stored)| ([*byte; 32], stored.clone())).collect())
        };
        let decoded = |set: WriteSet| WriteSet::decode(&set.encode());
        assert_eq!(decoded(set(&[(2, None), (1, None)])), Err(WriteSetError::Order(1)));
        assert_eq!(decoded(set(&[(1, None), (1, Some(stored))])), Err(WriteSetError::Order(1)));
        assert_eq!(decoded(set(&[(1, Some(vec![7; 16]))])), Err(WriteSetError::ValueLength(0)));
        assert_eq!(decoded(set(&[(1, Some(vec![7; 17 + MAX_VALUE_BYTES]))])), Err(WriteSetError::ValueLength(0)));
        let good = set(&[(1, None)]).encode();
        assert_eq!(good[..4], [0x82, 0x01, 0x81, 0x82]);
        let cases: [Vec<u8>; 5] = [
            [&[0x82, 0x02], &good[2..]].concat(),                // another version
            [&[0x82, 0x18, 0x01], &good[2..]].concat(),          // a longer integer
            [&[0x82, 0x01, 0x98, 0x01], &good[3..]].concat(),    // a longer array head
            [&[0x82, 0x01, 0x9f], &good[3..], &[0xff]].concat(), // an indefinite array
            vec![0x82, 0x01, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ];
        for case in cases {
            assert!(matches!(WriteSet::decode(&case), Err(WriteSetError::Encoding(_))), "{case:02x?}");
        }
        let long = vec![0; MAX_WRITE_SET_BYTES + 1];
        assert!(matches!(WriteSet::decode(&long), Err(WriteSetError::Encoding(cbor::Error::TooLarge { .. }))));
    }
}
