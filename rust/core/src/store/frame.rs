//! One frame of the block log: its header, its six sealed sections, and what they hold.
//! Refuses every encoding but its own. Invariant: a section opens only under the header it was sealed with, so a
//! frame cannot be given another height, chain, segment or neighbour.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use super::at_rest::{Key, Sealer, TAG_BYTES};
use super::files::File;
use super::section_cache::SectionCache;
use super::segments::LogError;
use crate::block::{Block, BlockLeaf};
use crate::cbor::{self, Reader, Writer};
use crate::digest::{self, Use};
use crate::envelope::{Part, SealedPack, part_digest, verify_parts};
use crate::state::WriteSet;

/// Start of every frame.
pub(super) const MAGIC: &[u8; 4] = b"ehrb";
/// magic (4) ‖ header length (4) ‖ check (8).
pub(super) const PREFIX_BYTES: usize = 16;
const CHECK_BYTES: usize = 8;
const MAX_HEADER_BYTES: usize = 512;
/// How much to read so that prefix and header are surely in it.
pub(super) const LEAD_BYTES: usize = PREFIX_BYTES + MAX_HEADER_BYTES;
/// Longest section before sealing.
pub const MAX_SECTION_BYTES: usize = 1 << 30;
/// How many sections a frame has.
pub const SECTION_COUNT: usize = 6;

/// The parts of a frame, each sealed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// Leaf preimages, the block leaf last.
    Leaves,
    /// Transactions as received.
    Transactions,
    /// One receipt for each leaf but the block leaf.
    Receipts,
    /// What the block changed in the state.
    WriteSet,
    /// Sealed records.
    Packs,
    /// Their wraps.
    Wraps,
}

impl Section {
    /// In order of their numbers.
    pub const ALL: [Section; SECTION_COUNT] =
        [Section::Leaves, Section::Transactions, Section::Receipts, Section::WriteSet, Section::Packs, Section::Wraps];

    /// The word for errors and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Section::Leaves => "leaves",
            Section::Transactions => "transactions",
            Section::Receipts => "receipts",
            Section::WriteSet => "write_set",
            Section::Packs => "packs",
            Section::Wraps => "wraps",
        }
    }
}

/// What stands in clear in front of the sections; all of them authenticate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which key of the key store opens the segment.
    pub key_id: [u8; 16],
    /// The chain.
    pub chain_id: String,
    /// The block's height.
    pub height: u64,
    /// Fresh for each writing of the frame.
    pub salt: [u8; 32],
    /// Bytes of each section, sealed.
    pub lengths: [u64; SECTION_COUNT],
    /// Leaf hash of the block leaf before, zeros for the first.
    pub previous_leaf_hash: [u8; 32],
    /// Leaves in the log with this block.
    pub tree_size: u64,
}

impl Header {
    /// CBOR [1, key id, chain id, height, salt, [6 lengths], previous block leaf hash, tree size].
    pub fn encode(&self) -> Result<Vec<u8>, cbor::Error> {
        let mut writer = Writer::with_capacity(MAX_HEADER_BYTES);
        writer.array(8).uint(1).bytes(&self.key_id).text(&self.chain_id)?;
        writer.uint(self.height).bytes(&self.salt).array(SECTION_COUNT);
        self.lengths.iter().for_each(|length| _ = writer.uint(*length));
        writer.bytes(&self.previous_leaf_hash).uint(self.tree_size);
        Ok(writer.into_bytes())
    }

    /// Reads what `encode` gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, cbor::Error> {
        let mut reader = Reader::new(bytes, MAX_HEADER_BYTES)?;
        reader.array_of(8)?;
        reader.expect_int(1)?;
        let (key_id, chain_id) = (reader.fixed()?, reader.text()?.to_owned());
        let (height, salt) = (reader.uint()?, reader.fixed()?);
        let mut lengths = [0; SECTION_COUNT];
        reader.array_of(SECTION_COUNT)?;
        for length in &mut lengths {
            let offset = reader.offset();
            *length = reader.uint()?;
            if !(TAG_BYTES as u64..=(MAX_SECTION_BYTES + TAG_BYTES) as u64).contains(length) {
                return Err(cbor::Error::OutOfRange { offset });
            }
        }
        let (previous_leaf_hash, tree_size) = (reader.fixed()?, reader.uint()?);
        reader.finish()?;
        Ok(Header { key_id, chain_id, height, salt, lengths, previous_leaf_hash, tree_size })
    }

    fn sections_bytes(&self) -> u64 {
        self.lengths.iter().sum()
    }
}

/// A header as found in a segment: its bytes are what the sections authenticate.
#[derive(Clone, Debug)]
pub(super) struct Lead {
    pub header: Header,
    pub bytes: Vec<u8>,
}

impl Lead {
    /// Reads prefix and header from the start of `bytes`; the check finds tears and flips, it proves nothing.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let prefix = bytes.first_chunk::<PREFIX_BYTES>()?;
        if !prefix.starts_with(MAGIC) {
            return None;
        }
        let length = u32::from_be_bytes(*prefix[4..].first_chunk()?) as usize;
        if length > MAX_HEADER_BYTES {
            return None;
        }
        let header = bytes.get(PREFIX_BYTES..PREFIX_BYTES + length)?;
        if prefix[8..] != check(header) {
            return None;
        }
        Some(Lead { header: Header::decode(header).ok()?, bytes: header.to_vec() })
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> u64 {
        (PREFIX_BYTES + self.bytes.len()) as u64 + self.header.sections_bytes()
    }
}

fn check(header: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = digest::keyed(Use::FrameCheck, &[header]);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

fn sealer(segment_key: &Key, header: &Header, section: Section) -> Sealer {
    Sealer::derived_numbered(Use::FrameSection, segment_key, &header.salt, section as u64)
}

fn aad(header: &[u8], section: Section) -> Vec<u8> {
    [header, &[section as u8]].concat()
}

/// Why a block did not become a frame.
#[derive(Debug)]
pub(super) enum FrameError {
    TooLarge(Section),
    Header,
}

/// Where and after what a frame is written.
pub(super) struct Position<'a> {
    pub key_id: [u8; 16],
    pub key: &'a Key,
    pub salt: [u8; 32],
    pub previous_leaf_hash: [u8; 32],
}

/// The bytes of a block's frame: encoded into one buffer behind room for the header, then sealed in place.
pub(super) fn encode(block: &Block, packs: &[Arc<SealedPack>], at: &Position<'_>) -> Result<FrameBytes, FrameError> {
    let mut writer = Writer::with_capacity(LEAD_BYTES + capacity(block, packs));
    writer.raw(&[0; LEAD_BYTES]);
    let mut lengths = [0; SECTION_COUNT];
    for (length, section) in lengths.iter_mut().zip(Section::ALL) {
        let start = writer.as_bytes().len();
        encode_section(&mut writer, section, block, packs);
        let content = writer.as_bytes().len() - start;
        if content > MAX_SECTION_BYTES {
            return Err(FrameError::TooLarge(section));
        }
        writer.raw(&[0; TAG_BYTES]);
        *length = (content + TAG_BYTES) as u64;
    }
    let header = Header {
        key_id: at.key_id,
        chain_id: block.head.chain_id.clone(),
        height: block.head.height,
        salt: at.salt,
        lengths,
        previous_leaf_hash: at.previous_leaf_hash,
        tree_size: block.tree_size,
    };
    seal(writer.into_bytes(), &header, at.key)
}

/// A frame written anew: the same block, other sections, another key and salt.
pub(super) fn encode_again(
    old: &Header,
    sections: &[Zeroizing<Vec<u8>>; SECTION_COUNT],
    (key_id, key): ([u8; 16], &Key),
    salt: [u8; 32],
) -> Result<FrameBytes, FrameError> {
    let room: usize = sections.iter().map(|section| section.len() + TAG_BYTES).sum();
    let mut bytes = Vec::with_capacity(LEAD_BYTES + room);
    bytes.resize(LEAD_BYTES, 0);
    let mut lengths = [0; SECTION_COUNT];
    for (length, (name, section)) in lengths.iter_mut().zip(Section::ALL.into_iter().zip(sections)) {
        if section.len() > MAX_SECTION_BYTES {
            return Err(FrameError::TooLarge(name));
        }
        bytes.extend_from_slice(section);
        bytes.extend_from_slice(&[0; TAG_BYTES]);
        *length = (section.len() + TAG_BYTES) as u64;
    }
    let header = Header { key_id, salt, lengths, ..old.clone() };
    seal(bytes, &header, key)
}

/// Seals in place sections that lie behind room for the header, each followed by room for its tag.
fn seal(mut bytes: Vec<u8>, header: &Header, key: &Key) -> Result<FrameBytes, FrameError> {
    let header_bytes = header.encode().map_err(|_| FrameError::Header)?;
    let start = MAX_HEADER_BYTES.checked_sub(header_bytes.len()).ok_or(FrameError::Header)?;
    let (lead, mut rest) = bytes.split_at_mut(LEAD_BYTES);
    let prefix = &mut lead[start..];
    prefix[..4].copy_from_slice(MAGIC);
    prefix[4..8].copy_from_slice(&(header_bytes.len() as u32).to_be_bytes());
    prefix[8..PREFIX_BYTES].copy_from_slice(&check(&header_bytes));
    prefix[PREFIX_BYTES..].copy_from_slice(&header_bytes);
    for (length, section) in header.lengths.into_iter().zip(Section::ALL) {
        let (sealed, after) = rest.split_at_mut(length as usize);
        let (content, tag) = sealed.split_at_mut(length as usize - TAG_BYTES);
        let sealing = sealer(key, header, section).seal(0, &aad(&header_bytes, section), content);
        tag.copy_from_slice(&sealing.map_err(|_| FrameError::TooLarge(section))?);
        rest = after;
    }
    Ok(FrameBytes { bytes, start })
}

/// A frame at the end of a buffer.
pub(super) struct FrameBytes {
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBytes {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

fn capacity(block: &Block, packs: &[Arc<SealedPack>]) -> usize {
    const HEADS: usize = 9;
    let of_block = block.leaves.iter().chain(&block.receipts).map(|item| item.len() + HEADS).sum::<usize>()
        + block.transactions.iter().map(|received| received.len() + HEADS).sum::<usize>();
    let of_packs = packs.iter().flat_map(|pack| pack.items.iter().chain(&pack.wraps));
    of_block + of_packs.map(|item| item.len() + HEADS).sum::<usize>() + block.write_set.writes.len() * 128
}

fn encode_section(writer: &mut Writer, section: Section, block: &Block, packs: &[Arc<SealedPack>]) {
    match section {
        Section::Leaves => encode_list(writer, &block.leaves),
        Section::Transactions => encode_list(writer, &block.transactions),
        Section::Receipts => encode_list(writer, &block.receipts),
        Section::WriteSet => _ = writer.raw(&block.write_set.encode()),
        Section::Packs => {
            writer.array(packs.len());
            for pack in packs {
                writer.array(3).bytes(&pack.root).bytes(&pack.wraps_root).array(pack.items.len());
                for (position, item) in pack.items.iter().enumerate() {
                    match pack.outside.get(&position) {
                        Some(digest) => writer.array(1).bytes(digest),
                        None => writer.bytes(item),
                    };
                }
            }
        }
        Section::Wraps => {
            writer.array(packs.len());
            packs.iter().for_each(|pack| encode_list(writer, &pack.wraps));
        }
    }
}

fn encode_list(writer: &mut Writer, items: &[impl AsRef<[u8]>]) {
    writer.array(items.len());
    items.iter().for_each(|item| _ = writer.bytes(item.as_ref()));
}

/// One stored thing, or what is left of it after an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The bytes as they came.
    Kept(&'a [u8]),
    /// Their digest: what the roots over them need.
    Erased([u8; 32]),
    /// The digest of wraps, and those of them that are left.
    Reduced([u8; 32], &'a [u8]),
}

impl<'a> Item<'a> {
    /// The bytes, unless erased.
    pub fn kept(self) -> Option<&'a [u8]> {
        match self {
            Item::Kept(bytes) | Item::Reduced(_, bytes) => Some(bytes),
            Item::Erased(_) => None,
        }
    }

    /// The digest of the bytes as they came.
    pub fn digest(self) -> [u8; 32] {
        match self {
            Item::Kept(bytes) => part_digest(bytes),
            Item::Erased(digest) | Item::Reduced(digest, _) => digest,
        }
    }

    /// Writes it as it stands in a section of packs or wraps.
    pub(super) fn write(self, writer: &mut Writer) {
        match self {
            Item::Kept(bytes) => writer.bytes(bytes),
            Item::Erased(digest) => writer.array(1).bytes(&digest),
            Item::Reduced(digest, left) => writer.array(2).bytes(&digest).bytes(left),
        };
    }
}

impl<'a> From<Item<'a>> for Part<'a> {
    fn from(item: Item<'a>) -> Self {
        match item {
            Item::Kept(bytes) => Part::Kept(bytes),
            Item::Erased(digest) | Item::Reduced(digest, _) => Part::Removed(digest),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
    left: Left,
}

/// What a span holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    All,
    Digest,
    /// Some of the wraps; the digest of all lies here.
    Some {
        digest: usize,
    },
}

/// The items of one pack, or all of another section.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    first: usize,
    count: usize,
    root: [u8; 32],
    wraps_root: [u8; 32],
}

/// An opened section: its bytes, and where its items lie in them.
#[derive(Debug)]
pub struct Opened {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    groups: Vec<Group>,
}

impl Opened {
    fn read(section: Section, bytes: Vec<u8>) -> Result<Self, cbor::Error> {
        let mut opened = Opened { bytes, spans: Vec::new(), groups: Vec::new() };
        if section == Section::WriteSet {
            return Ok(opened);
        }
        let bytes = std::mem::take(&mut opened.bytes);
        let mut reader = Reader::new(&bytes, MAX_SECTION_BYTES)?;
        match section {
            Section::Packs => {
                for _ in 0..reader.array()? {
                    reader.array_of(3)?;
                    let (root, wraps_root) = (reader.fixed()?, reader.fixed()?);
                    let group = opened.read_items(section, &mut reader)?;
                    opened.groups.push(Group { root, wraps_root, ..group });
                }
            }
            Section::Wraps => {
                for _ in 0..reader.array()? {
                    let group = opened.read_items(section, &mut reader)?;
                    opened.groups.push(group);
                }
            }
            _ => {
                let group = opened.read_items(section, &mut reader)?;
                opened.groups.push(group);
            }
        }
        reader.finish()?;
        opened.bytes = bytes;
        Ok(opened)
    }

    fn read_items(&mut self, section: Section, reader: &mut Reader<'_>) -> Result<Group, cbor::Error> {
        let (first, count) = (self.spans.len(), reader.array()?);
        self.spans.reserve(count);
        for _ in 0..count {
            let offset = reader.offset();
            let (length, left) = match reader.item()? {
                cbor::Item::Bytes(bytes) => (bytes.len(), Left::All),
                // What an erasure leaves: [id, digest] of a transaction, [digest] of an item or its wraps, and
                // [digest, the others] of wraps that it took some out of.
                cbor::Item::Array(2) if section == Section::Transactions => {
                    reader.fixed::<32>()?;
                    (reader.fixed::<32>()?.len(), Left::Digest)
                }
                cbor::Item::Array(1) if matches!(section, Section::Packs | Section::Wraps) => {
                    (reader.fixed::<32>()?.len(), Left::Digest)
                }
                cbor::Item::Array(2) if section == Section::Wraps => {
                    let digest = reader.fixed::<32>()?.len();
                    let digest = reader.offset() - digest;
                    (reader.bytes()?.len(), Left::Some { digest })
                }
                _ => return Err(cbor::Error::Unexpected { offset }),
            };
            let end = reader.offset();
            self.spans.push(Span { start: end - length, end, left });
        }
        Ok(Group { first, count, ..Group::default() })
    }

    fn item(&self, span: Span) -> Item<'_> {
        let bytes = self.bytes.get(span.start..span.end).unwrap_or_default();
        let digest_at = |start: usize| self.bytes.get(start..).and_then(|rest| rest.first_chunk().copied());
        let digest = match span.left {
            Left::All => None,
            Left::Digest => digest_at(span.start),
            Left::Some { digest } => digest_at(digest),
        };
        match (digest, span.left) {
            (Some(digest), Left::Digest) => Item::Erased(digest),
            (Some(digest), Left::Some { .. }) => Item::Reduced(digest, bytes),
            _ => Item::Kept(bytes),
        }
    }

    /// The section's items, in order.
    pub fn items(&self) -> impl ExactSizeIterator<Item = Item<'_>> {
        self.spans.iter().map(|span| self.item(*span))
    }

    /// The groups: roots of items and wraps as in the packs, and the items.
    pub(super) fn groups(&self) -> impl Iterator<Item = ([u8; 32], [u8; 32], Vec<Item<'_>>)> {
        self.groups.iter().map(|group| (group.root, group.wraps_root, self.group_items(group).collect()))
    }

    fn group_items(&self, group: &Group) -> impl ExactSizeIterator<Item = Item<'_>> {
        let spans = self.spans.get(group.first..group.first + group.count).unwrap_or_default();
        spans.iter().map(|span| self.item(*span))
    }

    /// What it weighs in memory.
    pub(super) fn weight(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>() + self.groups.len() * size_of::<Group>()
    }
}

/// How many items lie in the opened bytes of a section, which are read as [`Frame`] reads them.
///
/// # Errors
/// Whatever is no encoding of such a section.
pub fn section_items(section: Section, bytes: &[u8]) -> Result<usize, cbor::Error> {
    Ok(Opened::read(section, bytes.to_vec())?.spans.len())
}

/// An open segment file and its key.
pub(super) struct Segment {
    pub name: String,
    pub file: Arc<dyn File>,
    pub key_id: [u8; 16],
    pub key: Key,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Segment").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A stored block. Sections are read and opened when first asked for.
#[derive(Debug)]
pub struct Frame {
    segment: Arc<Segment>,
    offset: u64,
    lead: Lead,
    cache: Option<Arc<SectionCache>>,
    opened: [OnceLock<Arc<Opened>>; SECTION_COUNT],
}

impl Frame {
    pub(super) fn new(segment: Arc<Segment>, offset: u64, lead: Lead, cache: Option<Arc<SectionCache>>) -> Self {
        Frame { segment, offset, lead, cache, opened: Default::default() }
    }

    /// The block's height.
    pub fn height(&self) -> u64 {
        self.lead.header.height
    }

    /// The header; authenticated once any section was opened.
    pub fn header(&self) -> &Header {
        &self.lead.header
    }

    /// The segment file's name.
    pub fn segment_name(&self) -> &str {
        &self.segment.name
    }

    /// Where the frame starts in its segment.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the frame on disk.
    pub fn bytes_on_disk(&self) -> u64 {
        self.lead.frame_bytes()
    }

    pub(super) fn damaged(&self, section: Section) -> LogError {
        LogError::Damaged {
            segment: self.segment.name.clone(),
            offset: self.offset,
            height: self.height(),
            section: Some(section),
        }
    }

    /// An opened section.
    pub fn section(&self, section: Section) -> Result<&Arc<Opened>, LogError> {
        let cell = &self.opened[section as usize];
        if let Some(opened) = cell.get() {
            return Ok(opened);
        }
        let cached = self.cache.as_deref().filter(|_| matches!(section, Section::Packs | Section::Wraps));
        // Under the frame's salt: a reader that still has the old frame keeps nothing for those of the rewritten one.
        let name = (self.lead.header.salt, section);
        let found = cached.and_then(|cache| cache.get(name));
        let opened = match found {
            Some(opened) => opened,
            None => {
                let opened = Arc::new(self.open_section(section)?);
                if let Some(cache) = cached {
                    cache.keep(name, &opened);
                }
                opened
            }
        };
        Ok(cell.get_or_init(|| opened))
    }

    fn open_section(&self, section: Section) -> Result<Opened, LogError> {
        Opened::read(section, self.plaintext(section)?).map_err(|_| self.damaged(section))
    }

    /// A section's bytes, opened and not yet decoded.
    pub(super) fn plaintext(&self, section: Section) -> Result<Vec<u8>, LogError> {
        let before: u64 = self.lead.header.lengths[..section as usize].iter().sum();
        let start = self.offset + (PREFIX_BYTES + self.lead.bytes.len()) as u64 + before;
        let mut bytes = vec![0; self.lead.header.lengths[section as usize] as usize];
        if self.segment.file.read_at(&mut bytes, start)? != bytes.len() {
            return Err(self.damaged(section));
        }
        let sealer = sealer(&self.segment.key, &self.lead.header, section);
        sealer.open(0, &aad(&self.lead.bytes, section), &mut bytes).map_err(|_| self.damaged(section))?;
        Ok(bytes)
    }

    /// Leaf preimages, the block leaf last.
    pub fn leaves(&self) -> Result<Vec<&[u8]>, LogError> {
        Ok(self.section(Section::Leaves)?.items().filter_map(Item::kept).collect())
    }

    /// Index of the block's first leaf.
    pub fn first_index(&self) -> Result<u64, LogError> {
        let count = self.section(Section::Leaves)?.items().len() as u64;
        self.lead.header.tree_size.checked_sub(count).ok_or_else(|| self.damaged(Section::Leaves))
    }

    /// The block leaf.
    pub fn block_leaf(&self) -> Result<&[u8], LogError> {
        let last = self.section(Section::Leaves)?.items().last().and_then(Item::kept);
        last.ok_or_else(|| self.damaged(Section::Leaves))
    }

    /// The block leaf, decoded.
    pub fn head(&self) -> Result<BlockLeaf, LogError> {
        BlockLeaf::decode(self.block_leaf()?).map_err(|_| self.damaged(Section::Leaves))
    }

    /// RFC 6962 leaf hash of the block leaf.
    pub fn leaf_hash(&self) -> Result<[u8; 32], LogError> {
        Ok(digest::sha256_leaf(self.block_leaf()?))
    }

    /// (transaction id, leaf index) of the block's transaction leaves.
    pub fn transaction_ids(&self) -> Result<Vec<([u8; 32], u64)>, LogError> {
        const TRANSACTION_LEAF: u8 = 1;
        let first = self.first_index()?;
        let ids = self.leaves()?.into_iter().zip(first..).filter_map(|(leaf, index)| match leaf.split_first() {
            Some((&TRANSACTION_LEAF, rest)) => Some((*rest.first_chunk::<32>()?, index)),
            _ => None,
        });
        Ok(ids.collect())
    }

    /// The transactions as received, in leaf order.
    pub fn transactions(&self) -> Result<Vec<Item<'_>>, LogError> {
        Ok(self.section(Section::Transactions)?.items().collect())
    }

    /// One receipt for each leaf but the block leaf.
    pub fn receipts(&self) -> Result<Vec<&[u8]>, LogError> {
        Ok(self.section(Section::Receipts)?.items().filter_map(Item::kept).collect())
    }

    /// What the block changed in the state.
    pub fn write_set(&self) -> Result<WriteSet, LogError> {
        let opened = self.section(Section::WriteSet)?;
        WriteSet::decode(&opened.bytes).map_err(|_| self.damaged(Section::WriteSet))
    }

    /// Root of each pack, in the order they were appended.
    pub fn pack_roots(&self) -> Result<Vec<[u8; 32]>, LogError> {
        Ok(self.section(Section::Packs)?.groups.iter().map(|group| group.root).collect())
    }

    /// The items of a pack and the wraps beside them.
    pub fn pack_items(&self, pack: usize) -> Result<Vec<(Item<'_>, Item<'_>)>, LogError> {
        let (packs, wraps) = (self.section(Section::Packs)?, self.section(Section::Wraps)?);
        let of_packs = packs.groups.get(pack).ok_or(LogError::NoSuchItem { height: self.height() })?;
        let of_wraps = wraps.groups.get(pack).filter(|group| group.count == of_packs.count);
        let of_wraps = of_wraps.ok_or_else(|| self.damaged(Section::Wraps))?;
        Ok(packs.group_items(of_packs).zip(wraps.group_items(of_wraps)).collect())
    }

    /// How many transactions, values, pack items and wraps are digests, or reduced, by now.
    pub fn count_erased(&self) -> Result<(usize, usize, usize, usize), LogError> {
        let gone = |section| -> Result<usize, LogError> {
            Ok(self.section(section)?.items().filter(|item| !matches!(item, Item::Kept(_))).count())
        };
        let writes = self.write_set()?.erased.len();
        Ok((gone(Section::Transactions)?, writes, gone(Section::Packs)?, gone(Section::Wraps)?))
    }

    /// One item of a pack and its wraps.
    pub fn pack_item(&self, pack: usize, position: usize) -> Result<(Item<'_>, Item<'_>), LogError> {
        let absent = LogError::NoSuchItem { height: self.height() };
        let find = |opened: &'_ Arc<Opened>| {
            let group = *opened.groups.get(pack)?;
            (position < group.count).then(|| opened.spans.get(group.first + position).copied()).flatten()
        };
        let (packs, wraps) = (self.section(Section::Packs)?, self.section(Section::Wraps)?);
        match (find(packs), find(wraps)) {
            (Some(item), Some(beside)) => Ok((packs.item(item), wraps.item(beside))),
            (None, _) => Err(absent),
            (Some(_), None) => Err(self.damaged(Section::Wraps)),
        }
    }

    /// A pack as it was sealed, without the commitments, which are not stored; an item of which only the digest is here
    /// lies outside. Refused once wraps are erased.
    pub fn pack(&self, pack: usize) -> Result<SealedPack, LogError> {
        let found = self.pack_items(pack)?;
        let (root, wraps_root) = self.check_pack(pack, &found)?;
        let (mut items, mut wraps) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
        let mut outside = BTreeMap::new();
        for (position, (item, beside)) in found.into_iter().enumerate() {
            // Reduced wraps no longer have the root they were sealed with.
            let Item::Kept(beside) = beside else {
                return Err(LogError::Erased { height: self.height() });
            };
            items.push(item.kept().unwrap_or_default().to_vec());
            wraps.push(beside.to_vec());
            if let Item::Erased(digest) = item {
                outside.insert(position, digest);
            }
        }
        Ok(SealedPack { items, wraps, root, wraps_root, commitments: Vec::new(), outside })
    }

    /// Holds what is left of a pack against its two roots.
    fn check_pack(&self, pack: usize, found: &[(Item<'_>, Item<'_>)]) -> Result<([u8; 32], [u8; 32]), LogError> {
        let group = self.section(Section::Packs)?.groups.get(pack).ok_or_else(|| self.damaged(Section::Packs))?;
        let items: Vec<Part<'_>> = found.iter().map(|(item, _)| Part::from(*item)).collect();
        verify_parts(&items, &group.root).map_err(|_| self.damaged(Section::Packs))?;
        let wraps: Vec<Part<'_>> = found.iter().map(|(_, beside)| Part::from(*beside)).collect();
        verify_parts(&wraps, &group.wraps_root).map_err(|_| self.damaged(Section::Wraps))?;
        Ok((group.root, group.wraps_root))
    }

    /// Opens and decodes every section, holds them against each other, the header, and the roots of the packs.
    pub fn check(&self) -> Result<(), LogError> {
        let leaves = self.section(Section::Leaves)?.items().len();
        let (head, header) = (self.head()?, &self.lead.header);
        let fits = head.height == header.height
            && head.chain_id == header.chain_id
            && head.leaf_count.checked_add(1) == Some(leaves as u64)
            && head.tree_size() == Some(header.tree_size);
        if !fits {
            return Err(self.damaged(Section::Leaves));
        }
        // Genesis has an entry without a receipt.
        let receipts = self.section(Section::Receipts)?.items().len();
        if receipts + 1 != leaves && !(head.height == 0 && receipts == 0) {
            return Err(self.damaged(Section::Receipts));
        }
        if self.section(Section::Transactions)?.items().len() != self.transaction_ids()?.len() {
            return Err(self.damaged(Section::Transactions));
        }
        self.write_set()?;
        let packs = self.section(Section::Packs)?.groups.len();
        if self.section(Section::Wraps)?.groups.len() != packs {
            return Err(self.damaged(Section::Wraps));
        }
        (0..packs).try_for_each(|pack| self.check_pack(pack, &self.pack_items(pack)?).map(drop))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pinned::pinned;

    fn header() -> Header {
        Header {
            key_id: [1; 16],
            chain_id: "clinic-00112233445566778899aabbccddeeff".to_owned(),
            height: 300,
            salt: [2; 32],
            lengths: [16, 17, 300, 70_000, 1 << 20, 16],
            previous_leaf_hash: [3; 32],
            tree_size: u64::MAX,
        }
    }

    fn framed(header: &[u8]) -> Vec<u8> {
        [&MAGIC[..], &(header.len() as u32).to_be_bytes(), &check(header), header].concat()
    }

    #[test]
    fn a_header_has_one_encoding() {
        let encoded = header().encode().unwrap();
        assert_eq!(Header::decode(&encoded).unwrap(), header());
        for length in 0..encoded.len() {
            assert!(Header::decode(&encoded[..length]).is_err());
        }
        assert!(Header::decode(&[&encoded[..], &[0]].concat()).is_err());
        for (at, bit) in (0..encoded.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut flipped = encoded.clone();
            flipped[at] ^= 1 << bit;
            if let Ok(other) = Header::decode(&flipped) {
                assert_eq!(other.encode().unwrap(), flipped);
            }
        }
        for wrong in [0, 15, (MAX_SECTION_BYTES + TAG_BYTES + 1) as u64] {
            let mut other = header();
            other.lengths[3] = wrong;
            assert!(Header::decode(&other.encode().unwrap()).is_err());
        }
    }

    #[test]
    fn a_lead_is_read_whole_or_not_at_all() {
        let bytes = framed(&header().encode().unwrap());
        let lead = Lead::read(&[&bytes[..], &[9; 100]].concat()).unwrap();
        assert_eq!(lead.frame_bytes(), bytes.len() as u64 + header().sections_bytes());
        for length in 0..bytes.len() {
            assert!(Lead::read(&bytes[..length]).is_none());
        }
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(Lead::read(&flipped).is_none(), "{at} {bit}");
        }
        assert!(Lead::read(&framed(&[0; MAX_HEADER_BYTES + 1])).is_none());
    }

    fn items(section: Section, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let opened = Opened::read(section, bytes.to_vec()).ok()?;
        let describe = |item: Item<'_>| match item {
            Item::Kept(bytes) => bytes.to_vec(),
            Item::Erased(digest) => [&b"erased "[..], &digest].concat(),
            Item::Reduced(digest, left) => [&b"reduced "[..], &digest, left].concat(),
        };
        Some(opened.items().map(describe).collect())
    }

    #[test]
    fn an_erased_item_leaves_its_digest() {
        let erased = [&b"erased "[..], &[5; 32]].concat();
        let mut writer = Writer::new();
        writer.array(3).bytes(b"kept").array(2).bytes(&[4; 32]).bytes(&[5; 32]).bytes(b"");
        let transactions = writer.into_bytes();
        let expected = Some(vec![b"kept".to_vec(), erased.clone(), Vec::new()]);
        assert_eq!(items(Section::Transactions, &transactions), expected);
        assert_eq!(items(Section::Receipts, &transactions), None);
        let mut writer = Writer::new();
        writer.array(1).array(3).bytes(&[1; 32]).bytes(&[2; 32]);
        writer.array(2).array(1).bytes(&[5; 32]).bytes(&[6; 32]);
        let packs = writer.into_bytes();
        assert_eq!(items(Section::Packs, &packs), Some(vec![erased, vec![6; 32]]));
        assert_eq!(items(Section::Transactions, &packs), None);
        let mut writer = Writer::new();
        writer.array(1).array(2).array(2).bytes(&[5; 32]).bytes(b"left").array(1).bytes(&[6; 32]);
        let wraps = writer.into_bytes();
        let reduced = [&b"reduced "[..], &[5; 32], b"left"].concat();
        let gone = [&b"erased "[..], &[6; 32]].concat();
        assert_eq!(items(Section::Wraps, &wraps), Some(vec![reduced, gone]));
        assert_eq!(items(Section::Packs, &wraps), None);
        let sections = [(Section::Transactions, &transactions), (Section::Packs, &packs), (Section::Wraps, &wraps)];
        for (section, bytes) in sections {
            for length in 0..bytes.len() {
                assert_eq!(items(section, &bytes[..length]), None);
            }
            assert_eq!(items(section, &[&bytes[..], &[0]].concat()), None);
            for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                items(section, &flipped);
            }
        }
        let mut writer = Writer::new();
        writer.array(1).array(2).bytes(&[4; 31]).bytes(&[5; 32]);
        assert_eq!(items(Section::Transactions, writer.as_bytes()), None);
        let mut writer = Writer::new();
        writer.array(1).array(2).bytes(&[4; 32]).bytes(&[5; 31]);
        assert_eq!(items(Section::Transactions, writer.as_bytes()), None);
    }

    /// Frame `number` of the pinned generation; its twin is in tests/reference/store.py.
    fn generated(number: u8) -> Vec<u8> {
        let count = usize::from(number);
        let repeated = |byte: usize, times: usize| vec![byte as u8; times];
        let list = |times: &dyn Fn(usize) -> usize| (0..count).map(|i| repeated(i, times(i))).collect::<Vec<_>>();
        let writes = (0..count).map(|i| ([i as u8; 32], (i % 3 != 2).then(|| repeated(i, 16 + i))));
        let block = Block {
            head: BlockLeaf {
                chain_id: format!("test-{}", "0".repeat(32)),
                height: number.into(),
                engine_height: 0,
                time_ms: 0,
                first_index: 0,
                leaf_count: 0,
                previous_root: [0; 32],
                state_root: [0; 32],
                proposer: [0; 32],
            },
            leaves: list(&|i| i),
            transactions: list(&|i| 40 * i).into_iter().map(Arc::from).collect(),
            transaction_ids: Vec::new(),
            receipts: list(&|_| 3),
            write_set: WriteSet::of(writes.collect()),
            leaf_hash: [0; 32],
            tree_size: 1000 + u64::from(number),
            log_root: [0; 32],
        };
        let (items, wraps) = (list(&|i| i), list(&|_| 2));
        let (root, wraps_root) = ([number; 32], [number ^ 255; 32]);
        let pack =
            Arc::new(SealedPack { items, wraps, root, wraps_root, commitments: Vec::new(), outside: BTreeMap::new() });
        let at = Position {
            key_id: [number; 16],
            key: &Key::new([number + 1; 32]),
            salt: [number + 2; 32],
            previous_leaf_hash: [number + 3; 32],
        };
        encode(&block, &vec![pack; count % 3], &at).ok().unwrap().as_slice().to_vec()
    }

    #[test]
    fn the_bytes_of_a_frame_are_pinned() {
        let pinned = |key| pinned("frame", key);
        let mut hasher = blake3::Hasher::new();
        for number in 0..pinned("count").parse().unwrap() {
            let frame = generated(number);
            hasher.update(&(frame.len() as u32).to_be_bytes()).update(&frame);
        }
        assert_eq!(hex::encode(generated(2)), pinned("example"));
        assert_eq!(hasher.finalize().to_hex().as_str(), pinned("encodings"));
    }
}
