//! The part of a state trie that a write set touches: enough to recompute the root before and the root after.
//! Refuses parts that lead nowhere, that are missing, and that are not needed, so a write set has one such part.
//! Invariant: under an honest root before, no other root after comes out than that of the whole trie.
//!
//! ```text
//!        node                 opened: every node on the way of a write, and what lies at its end
//!       /    \                closed: every subtree that no write enters, as its hash
//!    closed  node             opened one node deep: what lies beside a subtree that the writes empty,
//!           /    \                                  since a leaf there is lifted and a node is not
//!        leaf   empty
//! ```

use thiserror::Error;

use super::trie::{Trie, TrieError};
use super::trie_proof::{EMPTY, Found, MAX_DEPTH, TrieProof, bit, leaf_hash};
use crate::cbor::{self, Reader, Writer};
use crate::digest::{self, Digest, Use, keyed, keyed_nodes};
use crate::state::{Path, WriteSet};

/// Longest encoded part.
pub const MAX_PARTIAL_BYTES: usize = 64 << 20;

const IS_EMPTY: u8 = 0;
const IS_CLOSED: u8 = 1;
const IS_LEAF: u8 = 2;
const IS_NODE: u8 = 3;

/// Why a part of a trie is refused. Positions are those of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PartialError {
    /// Not the one encoding of a part.
    #[error("not a part of a state trie: {0}")]
    Encoding(#[from] cbor::Error),
    /// The shape and the hashes do not fit each other.
    #[error("the hashes do not fit the shape")]
    WrongLength,
    /// A subtree without keys given as a hash.
    #[error("an empty subtree is not marked as one")]
    EmptySubtree,
    /// A leaf beside nothing, or nothing beside nothing.
    #[error("a leaf is not at its shortest unique prefix")]
    NotLifted,
    /// A leaf that its path does not lead to.
    #[error("a leaf lies elsewhere")]
    LeafElsewhere,
    /// A write changes nothing.
    #[error("write {0} changes nothing")]
    NoChange(usize),
    /// What the write meets is not opened.
    #[error("the part that write {0} needs is missing")]
    Missing(usize),
    /// Something is opened that no write needs.
    #[error("a part that no write needs")]
    Surplus,
    /// The trie that the part is taken from could not be read.
    #[error(transparent)]
    Trie(#[from] TrieError),
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Empty,
    Closed,
    Leaf { path: Path, value: Digest },
    Node { left: usize, right: usize },
}

/// A part of a trie: subtrees in an arena, each with its hash.
#[derive(Clone, Debug)]
pub struct PartialTrie {
    parts: Vec<(Part, Digest)>,
    top: usize,
    /// Nodes not hashed yet, by depth.
    unhashed: Vec<Vec<usize>>,
    /// Closed subtrees that must be opened: (position, path that leads there, depth).
    wanted: Vec<(usize, Path, usize)>,
}

struct Write {
    position: usize,
    path: Path,
    value: Option<Digest>,
}

impl PartialTrie {
    fn new() -> Self {
        Self { parts: vec![(Part::Empty, EMPTY)], top: 0, unhashed: Vec::new(), wanted: Vec::new() }
    }

    fn part(&self, at: usize) -> Part {
        self.parts.get(at).map_or(Part::Empty, |(part, _)| *part)
    }

    fn hash(&self, at: usize) -> Digest {
        self.parts.get(at).map_or(EMPTY, |(_, hash)| *hash)
    }

    fn add(&mut self, part: Part, hash: Digest) -> usize {
        self.parts.push((part, hash));
        self.parts.len() - 1
    }

    fn add_node(&mut self, depth: usize, left: usize, right: usize) -> usize {
        let node = self.add(Part::Node { left, right }, EMPTY);
        if self.unhashed.len() <= depth {
            self.unhashed.resize_with(depth + 1, Vec::new);
        }
        if let Some(level) = self.unhashed.get_mut(depth) {
            level.push(node);
        }
        node
    }

    /// Hashes the nodes that are not hashed yet, the deepest level first.
    fn hash_nodes(&mut self) {
        for level in std::mem::take(&mut self.unhashed).iter().rev() {
            let pairs: Vec<[u8; 64]> = level
                .iter()
                .map(|node| match self.part(*node) {
                    Part::Node { left, right } => joined(&self.hash(left), &self.hash(right)),
                    _ => [0; 64],
                })
                .collect();
            for (node, hash) in level.iter().zip(keyed_nodes(Use::Node, &pairs)) {
                if let Some((_, slot)) = self.parts.get_mut(*node) {
                    *slot = hash;
                }
            }
        }
    }

    /// The root of the trie it is a part of.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.hash(self.top)
    }

    // ── encoding ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// CBOR [1, shape, hashes]. The shape names the subtrees, each before its children, the left before the right, in
    /// two bits each: 0 empty, 1 closed, 2 leaf, 3 node. The hashes are what closed subtrees (their hash) and leaves
    /// (path ‖ BLAKE3(stored)) add, in the same order.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (mut shape, mut hashes, mut count) = (Vec::new(), Vec::new(), 0_usize);
        let mut stack = vec![self.top];
        while let Some(at) = stack.pop() {
            let kind = match self.part(at) {
                Part::Empty => IS_EMPTY,
                Part::Closed => {
                    hashes.extend_from_slice(&self.hash(at));
                    IS_CLOSED
                }
                Part::Leaf { path, value } => {
                    hashes.extend_from_slice(&joined(&path, &value));
                    IS_LEAF
                }
                Part::Node { left, right } => {
                    stack.extend([right, left]);
                    IS_NODE
                }
            };
            if count.is_multiple_of(4) {
                shape.push(0);
            }
            if let Some(last) = shape.last_mut() {
                *last |= kind << (6 - 2 * (count % 4));
            }
            count += 1;
        }
        let mut writer = Writer::with_capacity(shape.len() + hashes.len() + 16);
        writer.array(3).uint(1).bytes(&shape).bytes(&hashes);
        writer.into_bytes()
    }

    /// Reads what `encode` emits and nothing else; every node is hashed.
    ///
    /// # Errors
    /// `PartialError`.
    pub fn decode(data: &[u8]) -> Result<Self, PartialError> {
        let mut reader = Reader::new(data, MAX_PARTIAL_BYTES)?;
        reader.array_of(3)?;
        reader.expect_int(1)?;
        let (shape, hashes) = (reader.bytes()?, reader.bytes()?);
        reader.finish()?;
        let (hashes, []) = hashes.as_chunks::<32>() else { return Err(PartialError::WrongLength) };
        let mut trie = Self::new();
        let mut shaped = Shaped { shape, read: 0, hashes: hashes.iter() };
        let mut leaves = Vec::new();
        trie.top = trie.read(&mut shaped, 0, &mut [0; 32], &mut leaves)?;
        let padding = shape.get(shaped.read / 4).map_or(0, |last| last << (2 * (shaped.read % 4)));
        if shape.len() != shaped.read.div_ceil(4) || padding != 0 || shaped.hashes.next().is_some() {
            return Err(PartialError::WrongLength);
        }
        let preimages: Vec<[u8; 64]> = leaves.iter().map(|(_, preimage)| *preimage).collect();
        for ((at, _), hash) in leaves.iter().zip(keyed_nodes(Use::Leaf, &preimages)) {
            if let Some((_, slot)) = trie.parts.get_mut(*at) {
                *slot = hash;
            }
        }
        trie.hash_nodes();
        Ok(trie)
    }

    fn read(
        &mut self,
        shaped: &mut Shaped<'_>,
        depth: usize,
        prefix: &mut Path,
        leaves: &mut Vec<(usize, [u8; 64])>,
    ) -> Result<usize, PartialError> {
        match shaped.kind()? {
            IS_EMPTY => Ok(self.add(Part::Empty, EMPTY)),
            IS_CLOSED => match shaped.hash()? {
                EMPTY => Err(PartialError::EmptySubtree),
                hash => Ok(self.add(Part::Closed, hash)),
            },
            IS_LEAF => {
                let (path, value) = (shaped.hash()?, shaped.hash()?);
                if (0..depth).any(|level| bit(&path, level) != bit(prefix, level)) {
                    return Err(PartialError::LeafElsewhere);
                }
                let at = self.add(Part::Leaf { path, value }, EMPTY);
                leaves.push((at, joined(&path, &value)));
                Ok(at)
            }
            _ if depth >= MAX_DEPTH => Err(PartialError::WrongLength),
            _ => {
                let left = self.read(shaped, depth + 1, prefix, leaves)?;
                set_bit(prefix, depth, true);
                let right = self.read(shaped, depth + 1, prefix, leaves)?;
                set_bit(prefix, depth, false);
                match (self.part(left), self.part(right)) {
                    (Part::Empty, Part::Empty | Part::Leaf { .. }) | (Part::Leaf { .. }, Part::Empty) => {
                        Err(PartialError::NotLifted)
                    }
                    _ => Ok(self.add_node(depth, left, right)),
                }
            }
        }
    }

    // ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// The root after these writes; the trie itself must be the part they need and no more.
    ///
    /// # Errors
    /// `PartialError::NoChange`, `PartialError::Missing`, `PartialError::Surplus`.
    pub fn root_after(mut self, set: &WriteSet) -> Result<Digest, PartialError> {
        let top = self.write(set)?;
        if let Some((position, ..)) = self.wanted.first() {
            return Err(PartialError::Missing(*position));
        }
        self.hash_nodes();
        Ok(self.hash(top))
    }

    fn write(&mut self, set: &WriteSet) -> Result<usize, PartialError> {
        let stored: Vec<&[u8]> = set.writes.iter().filter_map(|(_, stored)| stored.as_deref()).collect();
        let mut values = digest::blake3_many(&stored).into_iter();
        let writes: Vec<Write> = set
            .writes
            .iter()
            .enumerate()
            .map(|(position, (path, stored))| Write {
                position,
                path: *path,
                value: stored.as_ref().and_then(|_| values.next()),
            })
            .collect();
        if writes.is_empty() {
            return if self.is_shut(self.top) { Ok(self.top) } else { Err(PartialError::Surplus) };
        }
        self.apply(self.top, 0, &writes)
    }

    fn is_shut(&self, at: usize) -> bool {
        matches!(self.part(at), Part::Empty | Part::Closed)
    }

    fn is_empty(&self, at: usize) -> bool {
        matches!(self.part(at), Part::Empty)
    }

    fn apply(&mut self, at: usize, depth: usize, writes: &[Write]) -> Result<usize, PartialError> {
        let Some(first) = writes.first() else { return Ok(at) };
        let (left, right) = match self.part(at) {
            Part::Closed => return Err(PartialError::Missing(first.position)),
            Part::Empty => {
                let leaves = self.leaves(None, writes)?;
                return Ok(self.build(&leaves, depth));
            }
            Part::Leaf { path, value } => {
                let leaves = self.leaves(Some((path, value, at)), writes)?;
                return Ok(self.build(&leaves, depth));
            }
            Part::Node { left, right } => (left, right),
        };
        let (into_left, into_right) = writes.split_at(writes.partition_point(|write| !bit(&write.path, depth)));
        let after_left = self.apply(left, depth + 1, into_left)?;
        let after_right = self.apply(right, depth + 1, into_right)?;
        if into_left.is_empty() {
            self.check_beside(left, after_right, first, depth)?;
        }
        if into_right.is_empty() {
            self.check_beside(right, after_left, first, depth)?;
        }
        Ok(match (self.part(after_left), self.part(after_right)) {
            (Part::Empty, Part::Empty | Part::Leaf { .. }) => after_right,
            (Part::Leaf { .. }, Part::Empty) => after_left,
            _ => self.add_node(depth, after_left, after_right),
        })
    }

    /// Whether a subtree that no write enters is opened exactly as far as its neighbour asks for.
    fn check_beside(&mut self, beside: usize, after: usize, first: &Write, depth: usize) -> Result<(), PartialError> {
        match self.part(beside) {
            Part::Empty => Ok(()),
            Part::Closed if !self.is_empty(after) => Ok(()),
            Part::Closed => {
                let mut path = first.path;
                set_bit(&mut path, depth, !bit(&first.path, depth));
                self.wanted.push((first.position, path, depth + 1));
                Ok(())
            }
            Part::Leaf { .. } if self.is_empty(after) => Ok(()),
            Part::Node { left, right } if self.is_empty(after) && self.is_shut(left) && self.is_shut(right) => Ok(()),
            _ => Err(PartialError::Surplus),
        }
    }

    /// The leaves of a subtree of at most one key after the writes, in order of their paths.
    fn leaves(
        &mut self,
        old: Option<(Path, Digest, usize)>,
        writes: &[Write],
    ) -> Result<Vec<(Path, usize)>, PartialError> {
        let mut leaves = Vec::with_capacity(writes.len() + 1);
        let mut kept = old;
        for write in writes {
            if let Some((path, _, at)) = kept
                && path < write.path
            {
                leaves.push((path, at));
                kept = None;
            }
            let held = kept.filter(|(path, ..)| *path == write.path);
            if held.map(|(_, value, _)| value) == write.value {
                return Err(PartialError::NoChange(write.position));
            }
            if held.is_some() {
                kept = None;
            }
            if let Some(value) = write.value {
                let leaf = Part::Leaf { path: write.path, value };
                leaves.push((write.path, self.add(leaf, leaf_hash(&write.path, &value))));
            }
        }
        leaves.extend(kept.map(|(path, _, at)| (path, at)));
        Ok(leaves)
    }

    fn build(&mut self, leaves: &[(Path, usize)], depth: usize) -> usize {
        match leaves {
            [] => self.add(Part::Empty, EMPTY),
            [(_, at)] => *at,
            _ => {
                let (left, right) = leaves.split_at(leaves.partition_point(|(path, _)| !bit(path, depth)));
                let (left, right) = (self.build(left, depth + 1), self.build(right, depth + 1));
                self.add_node(depth, left, right)
            }
        }
    }

    // ── proving ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// The part of `trie` that these writes need.
    ///
    /// # Errors
    /// `PartialError::NoChange`, `PartialError::Trie`.
    pub fn of(trie: &Trie, set: &WriteSet) -> Result<Self, PartialError> {
        let mut partial = Self::new();
        partial.top = match trie.root() {
            EMPTY => partial.add(Part::Empty, EMPTY),
            root => partial.add(Part::Closed, root),
        };
        for (path, _) in &set.writes {
            partial.open(trie, path, MAX_DEPTH + 1)?;
        }
        partial.hash_nodes();
        loop {
            let mut attempt = partial.clone();
            attempt.write(set)?;
            if attempt.wanted.is_empty() {
                return Ok(partial);
            }
            for (_, path, depth) in attempt.wanted {
                partial.open(trie, &path, depth + 1)?;
            }
            partial.hash_nodes();
        }
    }

    /// Opens the way to a path, no deeper than to `limit` levels.
    fn open(&mut self, trie: &Trie, path: &Path, limit: usize) -> Result<(), TrieError> {
        let proof = trie.prove(path)?;
        let end = match proof.found {
            Found::Nothing => None,
            Found::Own => trie.value_digest(path)?.map(|value| (*path, value)),
            Found::Other { path, value } => Some((path, value)),
        };
        let hashes = hashes_on_the_way(&proof, path, end.as_ref());
        let mut at = self.top;
        for (depth, sibling) in proof.siblings.iter().enumerate().take(limit) {
            let own = bit(path, depth);
            let (left, right) = match self.part(at) {
                Part::Node { left, right } => (left, right),
                _ => {
                    let beside = self.shut(*sibling);
                    let below = self.shut(hashes.get(depth + 1).copied().unwrap_or(EMPTY));
                    let (left, right) = if own { (beside, below) } else { (below, beside) };
                    if let Some((part, _)) = self.parts.get_mut(at) {
                        *part = Part::Node { left, right };
                    }
                    (left, right)
                }
            };
            at = if own { right } else { left };
        }
        if proof.siblings.len() < limit
            && let (Some((path, value)), Some((part, _))) = (end, self.parts.get_mut(at))
        {
            *part = Part::Leaf { path, value };
        }
        Ok(())
    }

    fn shut(&mut self, hash: Digest) -> usize {
        self.add(if hash == EMPTY { Part::Empty } else { Part::Closed }, hash)
    }
}

/// The hash of each subtree on the way of a proof, the root first.
fn hashes_on_the_way(proof: &TrieProof, path: &Path, end: Option<&(Path, Digest)>) -> Vec<Digest> {
    let mut hash = end.map_or(EMPTY, |(path, value)| leaf_hash(path, value));
    let mut hashes = vec![hash];
    for (level, sibling) in proof.siblings.iter().enumerate().rev() {
        let pair = if bit(path, level) { joined(sibling, &hash) } else { joined(&hash, sibling) };
        hash = keyed(Use::Node, &[&pair]);
        hashes.push(hash);
    }
    hashes.reverse();
    hashes
}

fn joined(left: &Digest, right: &Digest) -> [u8; 64] {
    let mut pair = [0; 64];
    pair[..32].copy_from_slice(left);
    pair[32..].copy_from_slice(right);
    pair
}

fn set_bit(path: &mut Path, depth: usize, value: bool) {
    if let Some(byte) = path.get_mut(depth / 8) {
        let mask = 0x80 >> (depth % 8);
        *byte = if value { *byte | mask } else { *byte & !mask };
    }
}

struct Shaped<'a> {
    shape: &'a [u8],
    read: usize,
    hashes: std::slice::Iter<'a, Digest>,
}

impl Shaped<'_> {
    fn kind(&mut self) -> Result<u8, PartialError> {
        let byte = self.shape.get(self.read / 4).ok_or(PartialError::WrongLength)?;
        let kind = byte >> (6 - 2 * (self.read % 4)) & 3;
        self.read += 1;
        Ok(kind)
    }

    fn hash(&mut self) -> Result<Digest, PartialError> {
        self.hashes.next().copied().ok_or(PartialError::WrongLength)
    }
}
