//! Rewriting of segments: each one concerned is written anew under a fresh key, with digests in place of what goes.
//! Refuses nothing that is gone already, and to put back what is not the bytes that went. Invariant: at every moment
//! the old file or the new one stands under the name, its key is in the key store, and once this returns no other is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};

use zeroize::Zeroizing;

use super::at_rest::random_key;
use super::files::{Access, open_if_there};
use super::frame::{Frame, FrameError, Item, LEAD_BYTES, Lead, SECTION_COUNT, Section, Segment, encode_again};
use super::key_store::Entry;
use super::segments::{LogError, SEGMENT_KEY, SUFFIX, SegmentLog};
use crate::cbor::{Reader, Writer};
use crate::digest;
use crate::envelope::{part_digest, without_subject, wrap_ids};
use crate::state::Path as StatePath;

/// Kind of the notes that tell which key a rewriting replaces: id = the new key's, value = CBOR [old key id, chain id,
/// segment name].
const REWRITING: &str = "rewriting";
const MAX_NOTE_BYTES: usize = 512;
/// Written beside the segment until it takes its name.
const UNFINISHED: &str = ".new";

/// One change to a block; what is in that state already is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The transaction of this number in the block becomes its id and digest.
    Transaction(usize),
    /// What was written at this path becomes its digest. A later block must have written the path again.
    Write(StatePath),
    /// An item of a pack becomes its digest, its wraps stay.
    Item {
        /// Number of the pack in the block.
        pack: usize,
        /// Number of the item in the pack.
        position: usize,
    },
    /// An item of a pack and its wraps become their digests.
    Record {
        /// Number of the pack in the block.
        pack: usize,
        /// Number of the item in the pack.
        position: usize,
    },
    /// A subject's wraps at a custodian go; where no other is left, the item goes too.
    Subject {
        /// Number of the pack in the block.
        pack: usize,
        /// Number of the item in the pack.
        position: usize,
        /// Whose wraps.
        subject: [u8; 16],
        /// At whom.
        custodian: [u8; 16],
    },
    /// An item that became its digest comes back.
    Restore {
        /// Number of the pack in the block.
        pack: usize,
        /// Number of the item in the pack.
        position: usize,
        /// The bytes that were there.
        item: Vec<u8>,
    },
}

/// Changes by the height of their block.
pub type Edits = BTreeMap<u64, Vec<Edit>>;

/// What a rewriting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Segment files written anew.
    pub segments: u64,
    /// Bytes that they are shorter by; less than nothing where items came back.
    pub freed: i64,
}

/// Where something of the wanted subjects and paths lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// (height, number of the pack, number of the item, subject) of wraps for a wanted subject.
    pub wraps: Vec<(u64, usize, usize, [u8; 16])>,
    /// (height, path) of values still stored in write sets.
    pub writes: Vec<(u64, StatePath)>,
}

impl SegmentLog {
    /// Looks through the blocks `from..to` for wraps of subjects at a custodian and for values written at paths.
    pub fn find_traces(
        &self,
        (from, to): (u64, u64),
        subjects: &HashSet<[u8; 16]>,
        custodian: &[u8; 16],
        paths: &HashSet<StatePath>,
    ) -> Result<Traces, LogError> {
        let mut traces = Traces::default();
        for height in from..to {
            let frame = self.read(height)?;
            if !subjects.is_empty() {
                for (pack, (_, _, items)) in frame.section(Section::Wraps)?.groups().enumerate() {
                    for (position, wraps) in items.into_iter().enumerate() {
                        let Some(wraps) = wraps.kept() else { continue };
                        // The log does not look into packs: what is no wraps was never anybody's.
                        let ids = wrap_ids(wraps).unwrap_or_default();
                        let mut wanted: Vec<[u8; 16]> = ids
                            .iter()
                            .filter(|id| id.custodian == *custodian && subjects.contains(&id.subject))
                            .map(|id| id.subject)
                            .collect();
                        wanted.dedup();
                        traces.wraps.extend(wanted.into_iter().map(|subject| (height, pack, position, subject)));
                    }
                }
            }
            if !paths.is_empty() {
                let writes = frame.write_set()?.writes.into_iter();
                let stored = writes.filter(|(path, stored)| stored.is_some() && paths.contains(path));
                traces.writes.extend(stored.map(|(path, _)| (height, path)));
            }
        }
        Ok(traces)
    }

    /// Writes the segments of the blocks concerned anew, each under a fresh key, then forgets the former keys and the
    /// named entries of the key store in one step that also notes the applied erasure height.
    ///
    /// Readers go on meanwhile and may see either state of a block; so may appending, in a new segment if the last
    /// one is concerned. After a crash at any moment each segment is the old one or the new one, and opening the log
    /// forgets the keys of the others; the named entries are forgotten only by the last step.
    pub fn rewrite(
        &self,
        edits: &Edits,
        forget: &[(&str, &[u8])],
        applied_erasure_height: Option<u64>,
    ) -> Result<Rewritten, LogError> {
        if self.read_only {
            return Err(LogError::ReadOnly);
        }
        let _one_at_a_time = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned = self.segments_of(edits)?;
        let mut done = Rewritten::default();
        for number in concerned {
            done.freed += self.rewrite_segment(number, edits)?;
            done.segments += 1;
        }
        let obsolete = self.obsolete_keys()?;
        let names = obsolete.iter().map(|(kind, id)| (*kind, id.as_slice())).chain(forget.iter().copied());
        let applied = applied_erasure_height.unwrap_or_else(|| self.keys.applied_erasure_height());
        self.keys.forget(&names.collect::<Vec<_>>(), applied)?;
        Ok(done)
    }

    /// Which segments hold the blocks; the last one takes no more of them if it is concerned.
    fn segments_of(&self, edits: &Edits) -> Result<BTreeSet<usize>, LogError> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.poisoned {
            return Err(LogError::Poisoned);
        }
        let index = self.index();
        let mut concerned = BTreeSet::new();
        for height in edits.keys().copied() {
            let place = usize::try_from(height).ok().and_then(|height| index.frames.get(height));
            concerned.insert(place.ok_or(LogError::NoSuchHeight { height })?.segment);
        }
        tail.roll |= index.segments.len().checked_sub(1).is_some_and(|last| concerned.contains(&last));
        Ok(concerned)
    }

    /// Gives how many bytes the segment is shorter by.
    fn rewrite_segment(&self, number: usize, edits: &Edits) -> Result<i64, LogError> {
        let (old, heights): (Arc<Segment>, Vec<(u64, u64)>) = {
            let index = self.index();
            let Some(old) = index.segments.get(number).cloned() else { return Ok(0) };
            let places = index.frames.iter().enumerate().filter(|(_, place)| place.segment == number);
            (old, places.map(|(height, place)| (height as u64, place.offset)).collect())
        };
        let (key_id, key) = (digest::random_array()?, random_key()?);
        let mut note = Writer::with_capacity(128);
        note.array(3).bytes(&old.key_id);
        note.text(&self.chain_id).and_then(|note| note.text(&old.name)).map_err(|_| LogError::ChainId)?;
        self.keys.put(&[
            Entry { kind: SEGMENT_KEY, id: &key_id, value: &*key },
            Entry { kind: REWRITING, id: &key_id, value: note.as_bytes() },
        ])?;
        let (path, beside) = (self.folder.join(&old.name), self.folder.join(format!("{}{UNFINISHED}", old.name)));
        if open_if_there(&*self.files, &beside, Access::Read)?.is_some() {
            self.files.remove(&beside)?;
        }
        let file = self.files.create_new(&beside)?;
        let (mut offsets, mut end) = (Vec::with_capacity(heights.len()), 0_u64);
        for (height, offset) in &heights {
            let frame = frame_at(&old, *offset, *height)?;
            let sections = edited(&frame, edits.get(height).map_or(&[], Vec::as_slice))?;
            let again = encode_again(frame.header(), &sections, (key_id, &key), digest::random_array()?);
            let again = again.map_err(|error| match error {
                FrameError::TooLarge(section) => LogError::TooLarge(section),
                FrameError::Header => LogError::ChainId,
            })?;
            file.write_at(again.as_slice(), end)?;
            offsets.push(end);
            end += again.as_slice().len() as u64;
        }
        file.sync_data()?;
        let freed = heights.last().map_or(Ok(0), |(height, offset)| {
            frame_at(&old, *offset, *height).map(|last| (*offset + last.bytes_on_disk()) as i64 - end as i64)
        })?;
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.files.rename(&beside, &path).and_then(|()| self.files.sync_folder(&self.folder)) {
            // Which file stands there is known only after opening again.
            tail.poisoned = true;
            return Err(error.into());
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if number + 1 == index.segments.len() {
            (tail.end, tail.reserved) = (end, end);
        }
        let segment = Arc::new(Segment { name: old.name.clone(), file, key_id, key });
        if let Some(slot) = index.segments.get_mut(number) {
            *slot = segment;
        }
        for ((height, _), offset) in heights.iter().zip(offsets) {
            if let Some(place) = usize::try_from(*height).ok().and_then(|height| index.frames.get_mut(height)) {
                place.offset = offset;
            }
        }
        drop(index);
        self.cache.clear();
        Ok(freed)
    }

    /// Entries of the key store that rewritings of this log have left: keys of segments written anew or never
    /// finished, and the notes that tell so.
    fn obsolete_keys(&self) -> Result<Vec<(&'static str, Vec<u8>)>, LogError> {
        let index = self.index();
        let mut obsolete = Vec::new();
        for new in self.keys.ids(REWRITING) {
            let Some(note) = self.keys.get(REWRITING, &new) else { continue };
            let Some((old, chain_id, name)) = read_note(&note) else { continue };
            if chain_id != self.chain_id {
                continue;
            }
            let in_force = index.segments.iter().find(|segment| segment.name == name).map(|segment| segment.key_id);
            // A segment that is not there names no key, and none of the two is given up for it.
            let Some(in_force) = in_force else { continue };
            let others = [old.to_vec(), new.clone()].into_iter().filter(|id| id[..] != in_force);
            obsolete.extend(others.map(|id| (SEGMENT_KEY, id)));
            obsolete.push((REWRITING, new));
        }
        Ok(obsolete)
    }

    /// After a crash: removes files that never took their name and forgets the keys that no segment names. What
    /// stands under the names must be durable by now.
    pub(super) fn finish_rewriting(&self) -> Result<(), LogError> {
        let unfinished = format!("{SUFFIX}{UNFINISHED}");
        let names = self.files.list(&self.folder)?;
        let left: Vec<&String> = names.iter().filter(|name| name.ends_with(&unfinished)).collect();
        for name in &left {
            self.files.remove(&self.folder.join(name))?;
        }
        if !left.is_empty() {
            self.files.sync_folder(&self.folder)?;
        }
        let obsolete = self.obsolete_keys()?;
        if !obsolete.is_empty() {
            let names: Vec<(&str, &[u8])> = obsolete.iter().map(|(kind, id)| (*kind, id.as_slice())).collect();
            self.keys.forget(&names, self.keys.applied_erasure_height())?;
        }
        Ok(())
    }
}

fn read_note(note: &[u8]) -> Option<([u8; 16], String, String)> {
    let mut reader = Reader::new(note, MAX_NOTE_BYTES).ok()?;
    reader.array_of(3).ok()?;
    let (old, chain_id, name) = (reader.fixed().ok()?, reader.text().ok()?, reader.text().ok()?);
    reader.finish().ok()?;
    Some((old, chain_id.to_owned(), name.to_owned()))
}

fn frame_at(segment: &Arc<Segment>, offset: u64, height: u64) -> Result<Frame, LogError> {
    let mut bytes = vec![0; LEAD_BYTES];
    let count = segment.file.read_at(&mut bytes, offset)?;
    match Lead::read(&bytes[..count]) {
        Some(lead) if lead.header.height == height => Ok(Frame::new(Arc::clone(segment), offset, lead, None)),
        _ => Err(LogError::Damaged { segment: segment.name.clone(), offset, height, section: None }),
    }
}

/// The frame's sections after the edits, in the clear; every one of them is opened, so damage is never carried over.
fn edited(frame: &Frame, edits: &[Edit]) -> Result<[Zeroizing<Vec<u8>>; SECTION_COUNT], LogError> {
    let mut sections: [Zeroizing<Vec<u8>>; SECTION_COUNT] = Default::default();
    for (bytes, section) in sections.iter_mut().zip(Section::ALL) {
        *bytes = Zeroizing::new(frame.plaintext(section)?);
    }
    let transactions: HashSet<usize> = edits
        .iter()
        .filter_map(|edit| match edit {
            Edit::Transaction(number) => Some(*number),
            _ => None,
        })
        .collect();
    let paths: Vec<&StatePath> = edits
        .iter()
        .filter_map(|edit| match edit {
            Edit::Write(path) => Some(path),
            _ => None,
        })
        .collect();
    if !transactions.is_empty() {
        sections[Section::Transactions as usize] = Zeroizing::new(without_transactions(frame, &transactions)?);
    }
    if !paths.is_empty() {
        let mut writes = frame.write_set()?;
        paths.into_iter().for_each(|path| writes.erase(path));
        sections[Section::WriteSet as usize] = Zeroizing::new(writes.encode());
    }
    if edits.iter().any(|edit| !matches!(edit, Edit::Transaction(_) | Edit::Write(_))) {
        let (packs, wraps) = edited_packs(frame, edits)?;
        sections[Section::Packs as usize] = Zeroizing::new(packs);
        sections[Section::Wraps as usize] = Zeroizing::new(wraps);
    }
    Ok(sections)
}

fn without_transactions(frame: &Frame, gone: &HashSet<usize>) -> Result<Vec<u8>, LogError> {
    let (items, ids) = (frame.transactions()?, frame.transaction_ids()?);
    if items.len() != ids.len() {
        return Err(frame.damaged(Section::Transactions));
    }
    let mut writer = Writer::new();
    writer.array(items.len());
    for (number, (item, (id, _))) in items.into_iter().zip(ids).enumerate() {
        match item {
            Item::Kept(received) if !gone.contains(&number) => writer.bytes(received),
            Item::Kept(received) => writer.array(2).bytes(&id).bytes(&digest::sha256(received)),
            Item::Erased(digest) | Item::Reduced(digest, _) => writer.array(2).bytes(&id).bytes(&digest),
        };
    }
    Ok(writer.into_bytes())
}

/// What stands in the place of an item or of wraps.
#[derive(Clone)]
enum Part {
    Kept(Vec<u8>),
    Erased([u8; 32]),
    Reduced([u8; 32], Vec<u8>),
}

impl Part {
    fn of(item: Item<'_>) -> Self {
        match item {
            Item::Kept(bytes) => Part::Kept(bytes.to_vec()),
            Item::Erased(digest) => Part::Erased(digest),
            Item::Reduced(digest, left) => Part::Reduced(digest, left.to_vec()),
        }
    }

    fn item(&self) -> Item<'_> {
        match self {
            Part::Kept(bytes) => Item::Kept(bytes),
            Part::Erased(digest) => Item::Erased(*digest),
            Part::Reduced(digest, left) => Item::Reduced(*digest, left),
        }
    }

    fn digest(&self) -> [u8; 32] {
        self.item().digest()
    }

    fn erase(&mut self) {
        *self = Part::Erased(self.digest());
    }
}

fn edited_packs(frame: &Frame, edits: &[Edit]) -> Result<(Vec<u8>, Vec<u8>), LogError> {
    let height = frame.height();
    let roots: Vec<_> = frame.section(Section::Packs)?.groups().map(|(root, wraps, _)| (root, wraps)).collect();
    let parts = |section| -> Result<Vec<Vec<Part>>, LogError> {
        let groups = frame.section(section)?.groups();
        Ok(groups.map(|(_, _, items)| items.into_iter().map(Part::of).collect()).collect())
    };
    let (mut packs, mut wraps) = (parts(Section::Packs)?, parts(Section::Wraps)?);
    for edit in edits {
        let (pack, position) = match edit {
            Edit::Transaction(_) | Edit::Write(_) => continue,
            Edit::Item { pack, position }
            | Edit::Record { pack, position }
            | Edit::Subject { pack, position, .. }
            | Edit::Restore { pack, position, .. } => (*pack, *position),
        };
        let item = packs.get_mut(pack).and_then(|items| items.get_mut(position));
        let beside = wraps.get_mut(pack).and_then(|items| items.get_mut(position));
        let (Some(item), Some(beside)) = (item, beside) else { return Err(LogError::NoSuchItem { height }) };
        match edit {
            Edit::Item { .. } => item.erase(),
            Edit::Record { .. } => {
                item.erase();
                beside.erase();
            }
            Edit::Subject { subject, custodian, .. } => {
                let Some(readable) = beside.item().kept() else { continue };
                let left = without_subject(readable, subject, custodian);
                match left.map_err(|_| frame.damaged(Section::Wraps))? {
                    Some(left) if left == readable => {}
                    Some(left) => *beside = Part::Reduced(beside.digest(), left),
                    None => {
                        item.erase();
                        beside.erase();
                    }
                }
            }
            Edit::Restore { item: bytes, .. } => {
                if item.digest() != part_digest(bytes) {
                    return Err(LogError::OtherItem { height });
                }
                *item = Part::Kept(bytes.clone());
            }
            Edit::Transaction(_) | Edit::Write(_) => {}
        }
    }
    let mut of_packs = Writer::new();
    of_packs.array(packs.len());
    for ((root, wraps_root), items) in roots.iter().zip(&packs) {
        of_packs.array(3).bytes(root).bytes(wraps_root).array(items.len());
        items.iter().for_each(|part| part.item().write(&mut of_packs));
    }
    let mut of_wraps = Writer::new();
    of_wraps.array(wraps.len());
    for items in &wraps {
        of_wraps.array(items.len());
        items.iter().for_each(|part| part.item().write(&mut of_wraps));
    }
    Ok((of_packs.into_bytes(), of_wraps.into_bytes()))
}
