//! The block log: segment files of frames, one block a frame, one sync a block. It alone is the truth.
//! Refuses a block that does not follow the last, and everything after a failed write. Invariant: what `append`
//! returned from is found by every later open, and no open cuts a frame that a known checkpoint covers.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::at_rest::random_key;
use super::files::{Access, File, Files, folder_of};
pub use super::frame::{Frame, Header as FrameHeader, Item, MAX_SECTION_BYTES, Section, section_items};
use super::frame::{FrameBytes, FrameError, LEAD_BYTES, Lead, MAGIC, Position, Segment, encode};
use super::key_store::{Entry, KeyStore, KeyStoreError};
pub use super::rewrite::{Edit, Edits, Rewritten, Traces};
use super::section_cache::SectionCache;
use crate::block::Block;
use crate::digest::{self, DigestError};
use crate::envelope::SealedPack;

/// Kind of the segment keys in the key store.
pub const SEGMENT_KEY: &str = "segment";
/// A segment is full once it reaches this.
pub const SEGMENT_BYTES: u64 = 256 * 1024 * 1024;
/// How far zeros are written ahead of small frames: a sync that changes no length costs the file system less.
const RESERVE_BYTES: u64 = 1024 * 1024;
const CACHE_BYTES: usize = 64 * 1024 * 1024;
const WINDOW_BYTES: usize = 64 * 1024;
const SEARCH_BYTES: usize = 1024 * 1024;
pub(super) const SUFFIX: &str = ".segment";
/// Retries of a read-only open that meets the writer in the middle of an append.
const READ_ATTEMPTS: u32 = 5;

/// Why the block log refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The files below failed.
    #[error("the block log's files failed")]
    Io(#[from] io::Error),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Randomness(#[from] DigestError),
    /// The key store failed.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// There is no log in the folder.
    #[error("no block log in this folder")]
    Missing,
    /// There is one already.
    #[error("the folder holds a block log")]
    Exists,
    /// The block is of another chain.
    #[error("a block of another chain")]
    WrongChain,
    /// The block does not follow the last one.
    #[error("block {given} does not follow: {expected} is next")]
    NotNext {
        /// Height that follows.
        expected: u64,
        /// Height given.
        given: u64,
    },
    /// The block's leaves do not follow the last one's.
    #[error("the block's leaves do not start at {expected}")]
    LeavesDoNotFollow {
        /// Tree size before the block.
        expected: u64,
    },
    /// A section over its cap.
    #[error("section {} is too large", .0.name())]
    TooLarge(Section),
    /// A chain id that no header can hold.
    #[error("the chain id fits no header")]
    ChainId,
    /// Opened for reading.
    #[error("the block log was opened read-only")]
    ReadOnly,
    /// An earlier append failed; only opening again tells what is there.
    #[error("an earlier append failed")]
    Poisoned,
    /// No block of that height.
    #[error("no block of height {height}")]
    NoSuchHeight {
        /// Height asked for.
        height: u64,
    },
    /// The block has no such pack or item.
    #[error("block {height} has no such pack item")]
    NoSuchItem {
        /// The block.
        height: u64,
    },
    /// A rewriting was asked to put back an item whose digest is another.
    #[error("these bytes are not the item that was removed from block {height}")]
    OtherItem {
        /// The block.
        height: u64,
    },
    /// The pack lost an item to an erasure.
    #[error("an item of block {height} is erased")]
    Erased {
        /// The block.
        height: u64,
    },
    /// Bytes are not what was written.
    #[error("{segment}: the frame at {offset} is damaged")]
    Damaged {
        /// Segment file name.
        segment: String,
        /// Byte offset of the frame.
        offset: u64,
        /// Height the frame has or should have.
        height: u64,
        /// Which section does not open; none: the header.
        section: Option<Section>,
    },
    /// The log names a key that the key store does not have.
    #[error("{segment}: its key is missing")]
    KeyMissing {
        /// Segment file name.
        segment: String,
        /// First height it holds.
        height: u64,
    },
    /// A known checkpoint covers more than the log holds.
    #[error("a checkpoint covers {checkpoint_size} leaves, the log holds {tree_size}")]
    Shorter {
        /// Leaves in the log.
        tree_size: u64,
        /// Leaves under the checkpoint.
        checkpoint_size: u64,
    },
}

/// How a log is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenLog {
    /// Tree size of the largest checkpoint known from anywhere.
    pub checkpoint_size: u64,
    /// Change nothing and stop at the last whole frame.
    pub read_only: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub segment: usize,
    pub offset: u64,
    tree_size: u64,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub segments: Vec<Arc<Segment>>,
    pub frames: Vec<Place>,
}

impl Index {
    fn tree_size(&self) -> u64 {
        self.frames.last().map_or(0, |place| place.tree_size)
    }
}

#[derive(Debug)]
pub(super) struct Tail {
    /// Where the next frame goes in the last segment.
    pub end: u64,
    /// Up to where the file is written with zeros.
    pub reserved: u64,
    leaf_hash: [u8; 32],
    /// The next frame opens a segment whatever the last one's size.
    pub roll: bool,
    pub poisoned: bool,
}

/// An open block log. Thread-safe; one process writes.
#[derive(Debug)]
pub struct SegmentLog {
    pub(super) files: Arc<dyn Files>,
    pub(super) folder: PathBuf,
    pub(super) chain_id: String,
    pub(super) keys: Arc<KeyStore>,
    segment_bytes: u64,
    pub(super) read_only: bool,
    pub(super) cache: Arc<SectionCache>,
    pub(super) index: RwLock<Index>,
    pub(super) tail: Mutex<Tail>,
    /// Held by the one rewriting at a time.
    pub(super) rewriting: Mutex<()>,
}

impl SegmentLog {
    /// Makes an empty log.
    pub fn create(files: Arc<dyn Files>, folder: &Path, chain_id: &str, keys: Arc<KeyStore>) -> Result<Self, LogError> {
        files.create_folder(folder)?;
        if !segment_names(&*files, folder)?.is_empty() {
            return Err(LogError::Exists);
        }
        files.sync_folder(folder_of(folder))?;
        Self::open(files, folder, chain_id, keys, OpenLog::default())
    }

    /// Opens a log: reads every header, opens the last frame whole, cuts a torn tail. What it then shows is durable.
    pub fn open(
        files: Arc<dyn Files>,
        folder: &Path,
        chain_id: &str,
        keys: Arc<KeyStore>,
        how: OpenLog,
    ) -> Result<Self, LogError> {
        let mut attempts = if how.read_only { READ_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match Self::open_once(&files, folder, chain_id, &keys, how) {
                // The writer may have finished a frame between two of our reads.
                Err(LogError::Damaged { .. }) if attempts > 0 => {}
                outcome => return outcome,
            }
        }
    }

    fn open_once(
        files: &Arc<dyn Files>,
        folder: &Path,
        chain_id: &str,
        keys: &Arc<KeyStore>,
        how: OpenLog,
    ) -> Result<Self, LogError> {
        let found = find_frames(&**files, folder, chain_id, keys, how)?;
        let Found { index, last, leaf_hash, end, torn } = found;
        let mut reserved = end;
        if let Some(last) = last.filter(|_| !how.read_only) {
            if last.holds_frames {
                if torn {
                    last.file.truncate(end)?;
                }
                // What a sync failed on may be read and yet never reach the disk: written again, the last frame does.
                if let Some(place) = index.frames.last() {
                    write_again(&*last.file, place.offset, end)?;
                }
                last.file.sync_data()?;
                reserved = last.file.len()?.max(end);
            } else {
                // A segment whose first frame never got there: the next append makes it again, under its own key.
                files.remove(&folder.join(&last.name))?;
            }
            files.sync_folder(folder)?;
        }
        let log = SegmentLog {
            files: Arc::clone(files),
            folder: folder.to_path_buf(),
            chain_id: chain_id.to_owned(),
            keys: Arc::clone(keys),
            segment_bytes: SEGMENT_BYTES,
            read_only: how.read_only,
            cache: Arc::new(SectionCache::new(CACHE_BYTES)),
            index: RwLock::new(index),
            tail: Mutex::new(Tail { end, reserved, leaf_hash, roll: false, poisoned: false }),
            rewriting: Mutex::new(()),
        };
        if !how.read_only {
            log.finish_rewriting()?;
        }
        Ok(log)
    }

    /// Lets segments roll at another size: for tests and for media with small files.
    pub fn with_segment_bytes(mut self, segment_bytes: u64) -> Self {
        self.segment_bytes = segment_bytes;
        self
    }

    /// The chain.
    pub fn chain_id(&self) -> &str {
        &self.chain_id
    }

    /// Height of the last block.
    pub fn height(&self) -> Option<u64> {
        (self.index().frames.len() as u64).checked_sub(1)
    }

    /// Leaves in the log.
    pub fn tree_size(&self) -> u64 {
        self.index().tree_size()
    }

    /// Leaves in the log with the block of that height.
    pub fn tree_size_at(&self, height: u64) -> Option<u64> {
        self.index().frames.get(usize::try_from(height).ok()?).map(|place| place.tree_size)
    }

    /// The block that holds a leaf.
    pub fn height_of(&self, leaf_index: u64) -> Option<u64> {
        let index = self.index();
        let height = index.frames.partition_point(|place| place.tree_size <= leaf_index);
        (height < index.frames.len()).then_some(height as u64)
    }

    pub(super) fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a block and its packs: durable when it returns. After a failure every later append is refused.
    pub fn append(&self, block: &Block, packs: &[Arc<SealedPack>]) -> Result<(), LogError> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if self.read_only {
            return Err(LogError::ReadOnly);
        }
        if tail.poisoned {
            return Err(LogError::Poisoned);
        }
        self.check_follows(block)?;
        tail.poisoned = true;
        let outcome = self.append_frame(&mut tail, block, packs);
        // Refusals before anything was written leave the log as it was.
        tail.poisoned = !matches!(outcome, Ok(()) | Err(LogError::TooLarge(_) | LogError::ChainId));
        outcome
    }

    fn check_follows(&self, block: &Block) -> Result<(), LogError> {
        if block.head.chain_id != self.chain_id {
            return Err(LogError::WrongChain);
        }
        let index = self.index();
        let expected = index.frames.len() as u64;
        if block.head.height != expected {
            return Err(LogError::NotNext { expected, given: block.head.height });
        }
        let first = block.tree_size.checked_sub(block.leaves.len() as u64);
        let expected = index.tree_size();
        if first != Some(expected) || block.head.first_index != expected || block.leaves.is_empty() {
            return Err(LogError::LeavesDoNotFollow { expected });
        }
        Ok(())
    }

    fn append_frame(&self, tail: &mut Tail, block: &Block, packs: &[Arc<SealedPack>]) -> Result<(), LogError> {
        let last = self.index().segments.last().cloned();
        let segment = match last {
            Some(segment) if tail.end < self.segment_bytes && !tail.roll => segment,
            full => {
                // The new key is durable before anything is sealed under it; so is the name before the frame counts.
                let segment = self.new_segment(block.head.height)?;
                if let Some(full) = full.filter(|_| tail.reserved > tail.end) {
                    full.file.truncate(tail.end)?;
                }
                (tail.end, tail.reserved, tail.roll) = (0, 0, false);
                self.index.write().unwrap_or_else(PoisonError::into_inner).segments.push(Arc::clone(&segment));
                segment
            }
        };
        let position = Position {
            key_id: segment.key_id,
            key: &segment.key,
            salt: digest::random_array()?,
            previous_leaf_hash: tail.leaf_hash,
        };
        let frame = encode(block, packs, &position).map_err(|error| match error {
            FrameError::TooLarge(section) => LogError::TooLarge(section),
            FrameError::Header => LogError::ChainId,
        })?;
        self.write_frame(tail, &segment, &frame)?;
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let place = Place { segment: index.segments.len() - 1, offset: tail.end, tree_size: block.tree_size };
        index.frames.push(place);
        tail.end += frame.as_slice().len() as u64;
        tail.leaf_hash = block.leaf_hash;
        Ok(())
    }

    /// Lets the next block begin a segment, and so a key of its own. Not kept: whoever wants it after a restart asks
    /// again.
    pub fn roll(&self) {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).roll = true;
    }

    /// First height in the last segment.
    pub fn last_segment_height(&self) -> Option<u64> {
        let index = self.index();
        let last = index.segments.len().checked_sub(1)?;
        index.frames.iter().position(|place| place.segment == last).map(|height| height as u64)
    }

    fn write_frame(&self, tail: &mut Tail, segment: &Segment, frame: &FrameBytes) -> io::Result<()> {
        let frame = frame.as_slice();
        let end = tail.end + frame.len() as u64;
        if end > tail.reserved {
            let reserve = RESERVE_BYTES.min(self.segment_bytes);
            if (frame.len() as u64) < reserve / 4 {
                let from = tail.reserved.max(tail.end);
                let zeros = vec![0; (end + reserve - from) as usize];
                segment.file.write_at(&zeros, from)?;
                tail.reserved = end + reserve;
            } else {
                tail.reserved = end;
            }
        }
        segment.file.write_at(frame, tail.end)?;
        segment.file.sync_data()
    }

    fn new_segment(&self, first_height: u64) -> Result<Arc<Segment>, LogError> {
        let (key_id, key) = (digest::random_array()?, random_key()?);
        self.keys.put(&[Entry { kind: SEGMENT_KEY, id: &key_id, value: &*key }])?;
        let name = segment_name(first_height);
        let file = self.files.create_new(&self.folder.join(&name))?;
        self.files.sync_folder(&self.folder)?;
        Ok(Arc::new(Segment { name, file, key_id, key }))
    }

    /// The block of a height; its sections are read when asked for.
    pub fn read(&self, height: u64) -> Result<Frame, LogError> {
        let absent = LogError::NoSuchHeight { height };
        let (segment, place) = {
            let index = self.index();
            let place = usize::try_from(height).ok().and_then(|height| index.frames.get(height)).copied();
            let Some(place) = place else { return Err(absent) };
            let Some(segment) = index.segments.get(place.segment).cloned() else { return Err(absent) };
            (segment, place)
        };
        let mut bytes = vec![0; LEAD_BYTES];
        let count = segment.file.read_at(&mut bytes, place.offset)?;
        match Lead::read(&bytes[..count]) {
            Some(lead) if lead.header.height == height && lead.header.tree_size == place.tree_size => {
                Ok(Frame::new(segment, place.offset, lead, Some(Arc::clone(&self.cache))))
            }
            _ => Err(LogError::Damaged { segment: segment.name.clone(), offset: place.offset, height, section: None }),
        }
    }

    /// The segment files in order of height, each with the bytes that its frames take up; what follows them is zeros.
    pub fn extents(&self) -> Result<Vec<(String, u64)>, LogError> {
        let index = self.index();
        let mut extents: Vec<_> = index.segments.iter().map(|segment| (segment.name.clone(), 0)).collect();
        for (height, place) in index.frames.iter().enumerate() {
            let next = index.frames.get(height + 1);
            if next.is_some_and(|next| next.segment == place.segment) {
                continue;
            }
            let (Some(segment), Some(extent)) = (index.segments.get(place.segment), extents.get_mut(place.segment))
            else {
                continue;
            };
            let mut bytes = vec![0; LEAD_BYTES];
            let count = segment.file.read_at(&mut bytes, place.offset)?;
            let damaged = LogError::Damaged {
                segment: segment.name.clone(),
                offset: place.offset,
                height: height as u64,
                section: None,
            };
            extent.1 = place.offset + Lead::read(&bytes[..count]).ok_or(damaged)?.frame_bytes();
        }
        extents.retain(|(_, bytes)| *bytes > 0);
        Ok(extents)
    }

    /// Stored bytes of a segment file as it was when this log opened it, fewer only at its end.
    pub fn read_stored(&self, segment: &str, offset: u64, count: usize) -> Result<Vec<u8>, LogError> {
        let found = self.index().segments.iter().find(|listed| listed.name == segment).cloned();
        let mut bytes = vec![0; count];
        let read = found.ok_or(LogError::Missing)?.file.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// RFC 6962 leaf hashes of the blocks `from..to`, in leaf order: what the tree in memory is rebuilt from.
    pub fn leaf_hashes(&self, from: u64, to: u64) -> Result<Vec<[u8; 32]>, LogError> {
        let mut hashes = Vec::new();
        for height in from..to {
            hashes.extend(digest::sha256_leaves(&self.read(height)?.leaves()?));
        }
        Ok(hashes)
    }

    /// Bytes of all segment files.
    pub fn bytes_on_disk(&self) -> Result<u64, LogError> {
        let index = self.index();
        let lengths = index.segments.iter().map(|segment| segment.file.len());
        Ok(lengths.sum::<io::Result<u64>>()?)
    }
}

fn segment_name(first_height: u64) -> String {
    format!("{first_height:012}{SUFFIX}")
}

fn first_height(name: &str) -> Option<u64> {
    let height = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (segment_name(height) == name).then_some(height)
}

fn segment_names(files: &dyn Files, folder: &Path) -> Result<Vec<(u64, String)>, LogError> {
    let names = match files.list(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LogError::Missing),
        Err(error) => return Err(error.into()),
    };
    let mut named: Vec<_> = names.into_iter().filter_map(|name| Some((first_height(&name)?, name))).collect();
    named.sort_unstable();
    Ok(named)
}

/// Reads leads out of one segment file through a window.
#[derive(Debug)]
struct Walk {
    file: Arc<dyn File>,
    length: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl Walk {
    fn new(file: Arc<dyn File>) -> io::Result<Self> {
        let length = file.len()?;
        Ok(Walk { file, length, window: Vec::new(), window_start: 0 })
    }

    /// Up to `count` bytes from `offset`, fewer only at the end of the file.
    fn bytes(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let wanted = count.min(usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX));
        let held = self.window_start..=self.window_start + self.window.len() as u64;
        if !(held.contains(&offset) && held.contains(&(offset + wanted as u64))) {
            let room = (self.length.saturating_sub(offset)).min(WINDOW_BYTES.max(wanted) as u64);
            self.window.resize(room as usize, 0);
            let read = self.file.read_at(&mut self.window, offset)?;
            self.window.truncate(read);
            self.window_start = offset;
        }
        let start = ((offset - self.window_start) as usize).min(self.window.len());
        Ok(&self.window[start..self.window.len().min(start + wanted)])
    }

    fn lead_at(&mut self, offset: u64) -> io::Result<Option<Lead>> {
        Ok(Lead::read(self.bytes(offset, LEAD_BYTES)?))
    }

    fn fits(&self, offset: u64, lead: &Lead) -> bool {
        offset.checked_add(lead.frame_bytes()).is_some_and(|end| end <= self.length)
    }

    fn only_zeros_from(&mut self, mut offset: u64) -> io::Result<bool> {
        while offset < self.length {
            let piece = self.bytes(offset, WINDOW_BYTES)?;
            if piece.is_empty() || piece.iter().any(|byte| *byte != 0) {
                return Ok(piece.is_empty());
            }
            offset += piece.len() as u64;
        }
        Ok(true)
    }

    /// The next place from `offset` on where a header of this chain stands.
    fn next_lead(&mut self, mut offset: u64, chain_id: &str) -> io::Result<Option<u64>> {
        while offset < self.length {
            let piece = self.bytes(offset, SEARCH_BYTES + LEAD_BYTES)?;
            let whole = piece.len() < SEARCH_BYTES + LEAD_BYTES;
            let searched = if whole { piece.len() } else { SEARCH_BYTES };
            let starts = (0..searched).filter(|start| piece[*start..].starts_with(MAGIC));
            let mut leads = starts
                .filter(|start| Lead::read(&piece[*start..]).is_some_and(|lead| lead.header.chain_id == chain_id));
            if let Some(start) = leads.next() {
                return Ok(Some(offset + start as u64));
            }
            if whole {
                break;
            }
            offset += searched as u64;
        }
        Ok(None)
    }
}

#[derive(Debug)]
struct LastFile {
    name: String,
    file: Arc<dyn File>,
    holds_frames: bool,
}

struct Found {
    index: Index,
    last: Option<LastFile>,
    leaf_hash: [u8; 32],
    end: u64,
    torn: bool,
}

fn find_frames(
    files: &dyn Files,
    folder: &Path,
    chain_id: &str,
    keys: &KeyStore,
    how: OpenLog,
) -> Result<Found, LogError> {
    let names = segment_names(files, folder)?;
    let mut found = Found { index: Index::default(), last: None, leaf_hash: [0; 32], end: 0, torn: false };
    let mut torn: Option<LogError> = None;
    for (position, (first, name)) in names.iter().enumerate() {
        let is_last = position + 1 == names.len();
        let access = if how.read_only { Access::Read } else { Access::Write };
        let file = files.open(&folder.join(name), access)?;
        let next = found.index.frames.len() as u64;
        let damaged = |offset, height, section| LogError::Damaged { segment: name.clone(), offset, height, section };
        if *first != next {
            return Err(damaged(0, next, None));
        }
        let mut walk = Walk::new(Arc::clone(&file))?;
        let end = walk_segment(&mut walk, name, chain_id, keys, &mut found.index)?;
        let holds_frames = found.index.frames.len() as u64 > next;
        if end < walk.length && !walk.only_zeros_from(end)? {
            let height = found.index.frames.len() as u64;
            if !is_last || is_header(&mut walk, end)? || walk.next_lead(end + 1, chain_id)?.is_some() {
                return Err(damaged(end, height, None));
            }
            torn = Some(damaged(end, height, None));
        }
        if holds_frames {
            found.end = end;
        }
        if is_last {
            found.last = Some(LastFile { name: name.clone(), file, holds_frames });
        }
    }
    check_last(&mut found, &mut torn)?;
    let tree_size = found.index.tree_size();
    if how.checkpoint_size > tree_size {
        let shorter = LogError::Shorter { tree_size, checkpoint_size: how.checkpoint_size };
        return Err(torn.unwrap_or(shorter));
    }
    found.torn = torn.is_some();
    Ok(found)
}

/// Whether a whole header stands there although no frame was taken from it: then it is not a torn write.
fn is_header(walk: &mut Walk, offset: u64) -> io::Result<bool> {
    Ok(walk.lead_at(offset)?.is_some_and(|lead| walk.fits(offset, &lead)))
}

/// Adds the segment's frames to the index and gives where they end.
fn walk_segment(
    walk: &mut Walk,
    name: &str,
    chain_id: &str,
    keys: &KeyStore,
    index: &mut Index,
) -> Result<u64, LogError> {
    let mut offset = 0;
    let mut key_id = None;
    while let Some(lead) = walk.lead_at(offset)? {
        let header = &lead.header;
        let height = index.frames.len() as u64;
        let follows = walk.fits(offset, &lead)
            && header.chain_id == chain_id
            && header.height == height
            && header.tree_size > index.tree_size()
            && key_id.is_none_or(|id| id == header.key_id);
        if !follows {
            break;
        }
        if key_id.is_none() {
            let key = keys.key(SEGMENT_KEY, &header.key_id);
            let key = key.ok_or_else(|| LogError::KeyMissing { segment: name.to_owned(), height })?;
            key_id = Some(header.key_id);
            let file = Arc::clone(&walk.file);
            index.segments.push(Arc::new(Segment { name: name.to_owned(), file, key_id: header.key_id, key }));
        }
        let segment = index.segments.len() - 1;
        index.frames.push(Place { segment, offset, tree_size: header.tree_size });
        offset += lead.frame_bytes();
    }
    Ok(offset)
}

/// Opens the last frame whole. If it fails, it may be the torn write itself; the one before it may not.
fn check_last(found: &mut Found, torn: &mut Option<LogError>) -> Result<(), LogError> {
    let in_last_file = found.last.as_ref().is_some_and(|last| last.holds_frames);
    if let Some(error) = open_last(found)? {
        if torn.is_some() || !in_last_file {
            return Err(error);
        }
        *torn = Some(error);
        let Some(dropped) = found.index.frames.pop() else { return Ok(()) };
        found.end = dropped.offset;
        if dropped.offset == 0 {
            found.index.segments.pop();
            if let Some(last) = &mut found.last {
                last.holds_frames = false;
            }
            found.end = match (found.index.segments.last(), found.index.frames.last()) {
                (Some(segment), Some(place)) => frame_end(segment, place)?,
                _ => 0,
            };
        }
        if let Some(error) = open_last(found)? {
            return Err(error);
        }
    }
    Ok(())
}

fn write_again(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < to {
        let mut piece = vec![0; (to - offset).min(SEARCH_BYTES as u64) as usize];
        file.read_exact_at(&mut piece, offset)?;
        file.write_at(&piece, offset)?;
        offset += piece.len() as u64;
    }
    Ok(())
}

fn frame_end(segment: &Segment, place: &Place) -> io::Result<u64> {
    let mut walk = Walk::new(Arc::clone(&segment.file))?;
    Ok(walk.lead_at(place.offset)?.map_or(place.offset, |lead| place.offset + lead.frame_bytes()))
}

fn open_last(found: &mut Found) -> Result<Option<LogError>, LogError> {
    let (Some(place), Some(segment)) = (found.index.frames.last(), found.index.segments.last()) else {
        found.leaf_hash = [0; 32];
        return Ok(None);
    };
    let mut walk = Walk::new(Arc::clone(&segment.file))?;
    let Some(lead) = walk.lead_at(place.offset)? else { return Ok(None) };
    let frame = Frame::new(Arc::clone(segment), place.offset, lead, None);
    match frame.check().and_then(|()| frame.leaf_hash()) {
        Ok(leaf_hash) => {
            found.leaf_hash = leaf_hash;
            Ok(None)
        }
        Err(error @ LogError::Damaged { .. }) => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

/// What is wrong at a place of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Bytes that are no frame header, with frames after them.
    Header,
    /// A section that does not open or decode.
    Section(Section),
    /// A frame of another height, chain or segment than belongs here, or not after its predecessor.
    Order,
    /// Blocks that are in no file.
    Missing,
    /// The segment's key is not in the key store.
    KeyMissing,
    /// The file could not be read here.
    Unreadable,
    /// Bytes after the last frame that are none: a write that never finished, or a last frame past recognition.
    Tail,
}

impl FaultKind {
    /// The word for reports.
    pub const fn name(self) -> &'static str {
        match self {
            FaultKind::Header => "frame.header",
            FaultKind::Section(_) => "frame.section",
            FaultKind::Order => "frame.order",
            FaultKind::Missing => "frame.missing",
            FaultKind::KeyMissing => "segment.key_missing",
            FaultKind::Unreadable => "segment.unreadable",
            FaultKind::Tail => "segment.tail",
        }
    }
}

/// A frame as found, or what stands in its place.
#[derive(Debug)]
pub enum Outcome {
    /// A frame with every section opened.
    Frame(Box<Frame>),
    /// A fault, and the height concerned where it is known.
    Fault {
        /// What is wrong.
        kind: FaultKind,
        /// Which block.
        height: Option<u64>,
    },
}

/// One step of a scan.
#[derive(Debug)]
pub struct Scanned {
    /// Segment file name.
    pub segment: String,
    /// Byte offset in it.
    pub offset: u64,
    /// What is there.
    pub outcome: Outcome,
}

/// Walks every frame of a log on disk, damaged or not: opens all sections, follows heights and links, and goes on
/// after a bad frame where the next header stands. Read-only.
#[derive(Debug)]
pub struct Scan {
    files: Arc<dyn Files>,
    folder: PathBuf,
    chain_id: String,
    keys: Arc<KeyStore>,
    names: VecDeque<(u64, String)>,
    current: Option<Current>,
    expected: u64,
    /// (leaf hash, tree size) of the frame before, when it was good.
    before: Option<([u8; 32], u64)>,
    found: VecDeque<Scanned>,
}

#[derive(Debug)]
struct Current {
    name: String,
    walk: Walk,
    offset: u64,
    segment: Option<Arc<Segment>>,
}

impl Scan {
    /// A scan from the first segment on.
    pub fn new(files: Arc<dyn Files>, folder: &Path, chain_id: &str, keys: Arc<KeyStore>) -> Result<Self, LogError> {
        let names = segment_names(&*files, folder)?.into();
        Ok(Scan {
            files,
            folder: folder.to_path_buf(),
            chain_id: chain_id.to_owned(),
            keys,
            names,
            current: None,
            expected: 0,
            before: Some(([0; 32], 0)),
            found: VecDeque::new(),
        })
    }

    fn fault(&mut self, segment: &str, offset: u64, kind: FaultKind, height: Option<u64>) {
        let outcome = Outcome::Fault { kind, height };
        self.found.push_back(Scanned { segment: segment.to_owned(), offset, outcome });
    }

    /// Opens the next segment; false when there is none.
    fn enter(&mut self) -> bool {
        let Some((first, name)) = self.names.pop_front() else { return false };
        if first != self.expected {
            let kind = if first > self.expected { FaultKind::Missing } else { FaultKind::Order };
            self.fault(&name, 0, kind, Some(self.expected));
            self.expected = first;
            self.before = None;
        }
        match self.files.open(&self.folder.join(&name), Access::Read).and_then(Walk::new) {
            Ok(walk) => self.current = Some(Current { name, walk, offset: 0, segment: None }),
            Err(_) => self.fault(&name, 0, FaultKind::Unreadable, Some(first)),
        }
        true
    }

    fn step(&mut self, mut current: Current) {
        let offset = current.offset;
        match self.frame_or_gap(&mut current) {
            Ok(true) => self.current = Some(current),
            Ok(false) => {}
            Err(_) => {
                self.fault(&current.name, offset, FaultKind::Unreadable, Some(self.expected));
                self.before = None;
            }
        }
    }

    /// False at the end of the segment.
    fn frame_or_gap(&mut self, current: &mut Current) -> io::Result<bool> {
        let offset = current.offset;
        if offset >= current.walk.length {
            return Ok(false);
        }
        match current.walk.lead_at(offset)? {
            Some(lead) if current.walk.fits(offset, &lead) && lead.header.chain_id == self.chain_id => {
                current.offset += lead.frame_bytes();
                self.frame(current, offset, lead)?;
                Ok(true)
            }
            _ => self.gap(current),
        }
    }

    fn gap(&mut self, current: &mut Current) -> io::Result<bool> {
        let offset = current.offset;
        if current.walk.only_zeros_from(offset)? {
            return Ok(false);
        }
        let next = current.walk.next_lead(offset + 1, &self.chain_id)?;
        let last = next.is_none() && self.names.is_empty();
        let kind = if last { FaultKind::Tail } else { FaultKind::Header };
        self.fault(&current.name, offset, kind, Some(self.expected));
        self.expected += 1;
        self.before = None;
        current.offset = next.unwrap_or(current.walk.length);
        Ok(next.is_some())
    }

    fn frame(&mut self, current: &mut Current, offset: u64, lead: Lead) -> io::Result<()> {
        let (height, key_id) = (lead.header.height, lead.header.key_id);
        let foreign = current.segment.as_ref().is_some_and(|segment| segment.key_id != key_id);
        if foreign || height != self.expected {
            let kind = if height > self.expected && !foreign { FaultKind::Missing } else { FaultKind::Order };
            self.fault(&current.name, offset, kind, Some(self.expected));
            self.before = None;
        }
        self.expected = height.saturating_add(1);
        let segment = match current.segment.clone().filter(|_| !foreign) {
            Some(segment) => segment,
            None => match self.keys.key(SEGMENT_KEY, &key_id) {
                Some(key) => {
                    let file = Arc::clone(&current.walk.file);
                    let segment = Arc::new(Segment { name: current.name.clone(), file, key_id, key });
                    current.segment = Some(Arc::clone(&segment));
                    segment
                }
                None => {
                    self.fault(&current.name, offset, FaultKind::KeyMissing, Some(height));
                    self.before = None;
                    return Ok(());
                }
            },
        };
        let frame = Frame::new(segment, offset, lead, None);
        let checked = frame.check().and_then(|()| Ok((frame.leaf_hash()?, frame.first_index()?)));
        match checked {
            Ok((leaf_hash, first_index)) => {
                let header = frame.header();
                if self.before.is_some_and(|before| before != (header.previous_leaf_hash, first_index)) {
                    self.fault(&current.name, offset, FaultKind::Order, Some(height));
                }
                self.before = Some((leaf_hash, header.tree_size));
                let outcome = Outcome::Frame(Box::new(frame));
                self.found.push_back(Scanned { segment: current.name.clone(), offset, outcome });
                Ok(())
            }
            Err(LogError::Io(error)) => Err(error),
            Err(error) => {
                let kind = match error {
                    LogError::Damaged { section: Some(section), .. } => FaultKind::Section(section),
                    _ => FaultKind::Header,
                };
                self.fault(&current.name, offset, kind, Some(height));
                self.before = None;
                Ok(())
            }
        }
    }
}

impl Iterator for Scan {
    type Item = Scanned;

    fn next(&mut self) -> Option<Scanned> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            match self.current.take() {
                Some(current) => self.step(current),
                None if self.enter() => {}
                None => return None,
            }
        }
    }
}
