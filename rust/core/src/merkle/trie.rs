//! The state trie: a compact binary Merkle tree over paths, in immutable versions that share structure.
//! Owns the top in memory and a bounded share of the buckets below it; the others are read from the state database,
//! each checked against its hash. Invariant: the root depends on nothing but the set of (path, stored digest).
//!
//! ```text
//!   depth 0          node                 leaf = keyed["leaf"](path ‖ BLAKE3(stored))
//!                   /    \                node = keyed["node"](left ‖ right)
//!            node ─┘      └─ node         empty = 32 zero bytes
//!           /    \          /    \
//!       bucket  bucket   empty  bucket    a bucket: up to 32 leaves in path order, its inner nodes not kept
//! ```
//! A leaf is lifted to its shortest unique prefix: a subtree of one key is that key's leaf, whatever its depth.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::trie_proof::{EMPTY, Found, TrieProof, bit};
use super::trie_source::{Bucket, LeafSource, Trail};
use crate::digest::{self, Digest, Use, keyed_nodes};
use crate::pool;
use crate::state::{Path, StateError, WriteSet, Written};

/// Most keys in a bucket. Larger ones save memory for nodes, smaller ones save hashing for each update.
const BUCKET: usize = 32;
/// Buckets hashed together: enough to fill the lanes, few enough to stay in the cache.
const BUCKETS_AT_ONCE: usize = 32;
/// Buckets that a scan collects before it hashes them.
const SCANNED_AT_ONCE: usize = 1024;
/// Leaves taken from an iterator before they are hashed in.
const LOAD_AT_ONCE: usize = 1 << 15;
/// Paths whose buckets are read again in one go, so that few are in memory at a time.
const RESCAN_AT_ONCE: usize = 1 << 12;

/// Why a trie was not built, or did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrieError {
    /// Paths are not strictly ascending at this position.
    #[error("paths out of order at position {0}")]
    Order(usize),
    /// The store below could not be read.
    #[error("the state store could not be read: {0}")]
    Unavailable(io::ErrorKind),
    /// What the store holds from this path on is not what the version was made of.
    #[error("stored leaves do not have the hash that the trie has of them")]
    Damaged(Path),
}

impl From<StateError> for TrieError {
    fn from(below: StateError) -> Self {
        match below {
            StateError::Unavailable(cause) => TrieError::Unavailable(cause.kind()),
            StateError::Corrupt(path) => TrieError::Damaged(path),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    path: Path,
    value: Digest,
    hash: Digest,
}

#[derive(Clone, Debug, Default)]
enum Below {
    #[default]
    Empty,
    Bucket(Arc<Bucket>),
    Node(Arc<Node>),
}

/// A subtree with its hash, kept beside the pointer so that a node holds the 64 bytes it hashes.
#[derive(Clone, Debug)]
struct Child {
    hash: Digest,
    below: Below,
}

#[derive(Debug)]
struct Node {
    count: usize,
    children: [Child; 2],
}

impl Default for Child {
    fn default() -> Self {
        Self { hash: EMPTY, below: Below::Empty }
    }
}

impl Child {
    fn count(&self) -> usize {
        match &self.below {
            Below::Empty => 0,
            Below::Bucket(bucket) => bucket.count(),
            Below::Node(node) => node.count,
        }
    }
}

/// All paths that begin with the same bits.
#[derive(Clone, Copy, Debug)]
struct Region {
    first: Path,
    depth: usize,
}

impl Region {
    const ALL: Region = Region { first: [0; 32], depth: 0 };

    /// The region at a depth that a path lies in.
    fn around(path: &Path, depth: usize) -> Self {
        let mut first = *path;
        for (number, byte) in first.iter_mut().enumerate() {
            let kept = depth.saturating_sub(8 * number).min(8);
            *byte &= (0xff00_u16 >> kept) as u8;
        }
        Region { first, depth }
    }

    fn halves(&self) -> [Region; 2] {
        let left = Region { first: self.first, depth: self.depth + 1 };
        let mut right = left;
        if let Some(byte) = right.first.get_mut(self.depth / 8) {
            *byte |= 0x80 >> (self.depth % 8);
        }
        [left, right]
    }

    /// The first path beyond it.
    fn end(&self) -> Option<Path> {
        let mut end = self.first;
        for depth in (0..self.depth).rev() {
            let byte = end.get_mut(depth / 8)?;
            *byte ^= 0x80 >> (depth % 8);
            if *byte & (0x80 >> (depth % 8)) != 0 {
                return Some(end);
            }
        }
        None
    }
}

/// A bucket that is not in memory: what it is, where it lies, and its hash.
struct Wanted {
    bucket: Arc<Bucket>,
    region: Region,
    hash: Digest,
}

/// One immutable version of the state trie.
#[derive(Clone, Debug, Default)]
pub struct Trie {
    root: Child,
    /// Where its buckets are stored; none for a version that lives in memory only.
    trail: Option<Arc<Trail>>,
}

impl Trie {
    /// The trie of no keys, in memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its root; 32 zero bytes when empty.
    pub fn root(&self) -> Digest {
        self.root.hash
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.root.count()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The version after these writes; deleting an absent path changes nothing.
    pub fn update(&self, set: &WriteSet) -> Result<Self, TrieError> {
        let stored: Vec<&[u8]> = set.writes.iter().filter_map(|(_, stored)| stored.as_deref()).collect();
        let mut values = digest::blake3_many(&stored).into_iter();
        let value_of = |(path, written): (&Path, Written<'_>)| {
            let value = match written {
                Written::Stored(_) => values.next(),
                Written::Deleted => None,
                Written::Erased(digest) => Some(*digest),
            };
            (*path, value)
        };
        self.changed(set.iter().map(value_of).collect())
    }

    /// Loads all of a state into memory from (path, BLAKE3(stored)) in ascending order of path.
    pub fn load<E: From<TrieError>>(entries: impl IntoIterator<Item = Result<(Path, Digest), E>>) -> Result<Self, E> {
        let mut trie = Self::new();
        let mut batch = Vec::with_capacity(LOAD_AT_ONCE);
        let mut last = None;
        for (position, entry) in entries.into_iter().enumerate() {
            let (path, value) = entry?;
            if last.is_some_and(|before| before >= path) {
                return Err(TrieError::Order(position).into());
            }
            last = Some(path);
            batch.push((path, Some(value)));
            if batch.len() == LOAD_AT_ONCE {
                trie = trie.changed(std::mem::replace(&mut batch, Vec::with_capacity(LOAD_AT_ONCE)))?;
            }
        }
        Ok(trie.changed(batch)?)
    }

    fn changed(&self, values: Vec<(Path, Option<Digest>)>) -> Result<Self, TrieError> {
        if let Some(position) = values.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
            return Err(TrieError::Order(position + 1));
        }
        let preimages: Vec<[u8; 64]> =
            values.iter().filter_map(|(path, value)| value.map(|value| joined(path, &value))).collect();
        let mut hashes = keyed_nodes(Use::Leaf, &preimages).into_iter();
        let changes: Vec<Change> = values
            .into_iter()
            .map(|(path, value)| {
                let leaf = value.and_then(|value| Some(Leaf { path, value, hash: hashes.next()? }));
                Change { path, leaf }
            })
            .collect();
        let loaded = self.fetch(&changes)?;
        let next = self.next_version(&changes, false);
        if let Some(trail) = &self.trail {
            trail.count(changes.len());
            trail.keep(loaded);
        }
        next
    }

    fn next_version(&self, changes: &[Change], rescan: bool) -> Result<Self, TrieError> {
        let mut drafts = Drafts::default();
        let root = Drafting { trie: self, drafts: &mut drafts, rescan }.change(&self.root, Region::ALL, changes)?;
        let (root, fresh) = drafts.finish(root);
        Ok(Self { root, trail: self.trail.as_ref().map(|trail| trail.next(fresh)) })
    }

    /// Proves what is stored at a path, or that nothing is.
    pub fn prove(&self, path: &Path) -> Result<TrieProof, TrieError> {
        let mut siblings = Vec::new();
        let mut child = &self.root;
        while let Below::Node(node) = &child.below {
            let side = usize::from(bit(path, siblings.len()));
            siblings.push(node.children[1 - side].hash);
            child = &node.children[side];
        }
        let held = self.leaves_of(child, &Region::around(path, siblings.len()))?;
        let mut leaves = &*held;
        let mut beside = Vec::new();
        let first = siblings.len();
        while leaves.len() > 1 {
            let depth = first + beside.len();
            let (left, right) = leaves.split_at(boundary(leaves, depth));
            let (own, other) = if bit(path, depth) { (right, left) } else { (left, right) };
            beside.push((other, depth + 1));
            leaves = own;
        }
        siblings.extend(hash_subtrees(&beside));
        let found = match leaves.first() {
            None => Found::Nothing,
            Some(leaf) if leaf.path == *path => Found::Own,
            Some(leaf) => Found::Other { path: leaf.path, value: leaf.value },
        };
        Ok(TrieProof { siblings, found })
    }

    /// BLAKE3 of what is stored at a path, `None` when nothing is.
    pub fn value_digest(&self, path: &Path) -> Result<Option<Digest>, TrieError> {
        let mut child = &self.root;
        let mut depth = 0;
        while let Below::Node(node) = &child.below {
            child = &node.children[usize::from(bit(path, depth))];
            depth += 1;
        }
        let leaves = self.leaves_of(child, &Region::around(path, depth))?;
        Ok(leaves.binary_search_by_key(path, |leaf| leaf.path).ok().map(|found| leaves[found].value))
    }
}

fn joined(left: &Digest, right: &Digest) -> [u8; 64] {
    let mut pair = [0; 64];
    pair[..32].copy_from_slice(left);
    pair[32..].copy_from_slice(right);
    pair
}

/// Where the leaves with a set bit at `depth` begin.
fn boundary(leaves: &[Leaf], depth: usize) -> usize {
    leaves.partition_point(|leaf| !bit(&leaf.path, depth))
}

// ── what lies in the store ───────────────────────────────────────────────────────────────────────────────────────

impl Trie {
    /// Builds the version that a store holds, by one scan; no leaf stays in memory.
    ///
    /// # Errors
    /// As the source; [`TrieError::Order`] when it is not in order.
    pub fn scan(source: Arc<dyn LeafSource>, hot_bytes: usize) -> Result<Self, TrieError> {
        let (root, mut drafts) = {
            let rows = source.leaves([0; 32], None);
            let mut scan = Scan { rows, ahead: VecDeque::new(), taken: 0, last: None, drafts: Drafts::default() };
            (scan.build(Region::ALL)?, scan.drafts)
        };
        drafts.hash_buckets(false);
        let (root, _) = drafts.finish(root);
        Ok(Self { root, trail: Some(Trail::settled(source, hot_bytes)) })
    }

    /// The hash and the size of every bucket: all that `from_top` needs. A bucket costs 34 bytes.
    pub fn top(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut waiting = vec![(&self.root, 0_u8)];
        while let Some((child, depth)) = waiting.pop() {
            match &child.below {
                Below::Empty => bytes.extend_from_slice(&[depth, 0]),
                Below::Bucket(bucket) => {
                    // Neither can be cut: a bucket has at most 32 keys, so it lies above depth 252.
                    bytes.extend_from_slice(&[depth, bucket.count() as u8]);
                    bytes.extend_from_slice(&child.hash);
                }
                Below::Node(node) => {
                    let [left, right] = &node.children;
                    waiting.extend([(right, depth.saturating_add(1)), (left, depth.saturating_add(1))]);
                }
            }
        }
        bytes
    }

    /// The version whose top was kept; `None` for bytes that are not one. That the source holds the leaves below is
    /// seen when they are read; the root is to be compared by the caller.
    pub fn from_top(top: &[u8], source: Arc<dyn LeafSource>, hot_bytes: usize) -> Option<Self> {
        let mut drafts = Drafts::default();
        let mut rest = top;
        let root = drafts.read_top(&mut rest, 0)?;
        let (root, _) = drafts.finish(root);
        rest.is_empty().then(|| Self { root, trail: Some(Trail::settled(source, hot_bytes)) })
    }

    /// The version in which the store's leaves around these paths (ascending) replace what this one has there.
    ///
    /// # Errors
    /// As the source; [`TrieError::Order`]
    pub fn rescanned(&self, paths: &[Path]) -> Result<Self, TrieError> {
        if let Some(position) = paths.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(TrieError::Order(position + 1));
        }
        let mut trie = self.clone();
        for paths in paths.chunks(RESCAN_AT_ONCE) {
            let changes: Vec<Change> = paths.iter().map(|path| Change { path: *path, leaf: None }).collect();
            let next = trie.next_version(&changes, true)?;
            if let Some(source) = trie.trail.as_ref().and_then(|trail| trail.source()) {
                next.settle(source);
            }
            trie = next;
        }
        Ok(trie)
    }

    /// Tells a version that the store now holds it, so that its leaves need not stay in memory. The source is the
    /// store as it is at this version, whatever is written to it later. A version in memory only is left as it is.
    pub fn settle(&self, source: Arc<dyn LeafSource>) {
        if let Some(trail) = &self.trail {
            trail.settle(source);
        }
    }

    /// Changed keys and versions since `note_saved`: whether it pays to keep the top.
    pub fn unsaved(&self) -> (u64, u64) {
        self.trail.as_ref().map_or((0, 0), |trail| trail.unsaved())
    }

    /// The top of this version is kept.
    pub fn note_saved(&self) {
        if let Some(trail) = &self.trail {
            trail.note_saved();
        }
    }

    /// Bytes of the leaves that are in memory and could be read again.
    pub fn hot_bytes(&self) -> usize {
        self.trail.as_ref().map_or(0, |trail| trail.hot_bytes())
    }

    fn leaves_of(&self, child: &Child, region: &Region) -> Result<Arc<[Leaf]>, TrieError> {
        let Below::Bucket(bucket) = &child.below else { return Ok(Arc::new([])) };
        let read = || {
            let wanted = [Wanted { bucket: Arc::clone(bucket), region: *region, hash: child.hash }];
            self.read(&wanted).pop().unwrap_or(Err(TrieError::Damaged(region.first)))
        };
        let (leaves, loaded) = bucket.leaves(read)?;
        if let Some(trail) = self.trail.as_ref().filter(|_| loaded) {
            trail.keep(vec![Arc::clone(bucket)]);
        }
        Ok(leaves)
    }

    /// Reads the buckets that changes fall into and that are not in memory, all of them at once.
    fn fetch(&self, changes: &[Change]) -> Result<Vec<Arc<Bucket>>, TrieError> {
        let mut wanted = Vec::new();
        if self.trail.is_some() {
            missing(&self.root, Region::ALL, changes, &mut wanted);
        }
        let mut read: Vec<_> = wanted.iter().map(|_| None).collect();
        pool::fill_chunks(&mut read, BUCKETS_AT_ONCE, |first, run| {
            let leaves = self.read(&wanted[first..first + run.len()]);
            run.iter_mut().zip(leaves).for_each(|(place, leaves)| *place = Some(leaves));
        });
        let mut loaded = Vec::with_capacity(wanted.len());
        for (Wanted { bucket, region, .. }, leaves) in wanted.into_iter().zip(read) {
            let (_, first) = bucket.leaves(|| leaves.unwrap_or(Err(TrieError::Damaged(region.first))))?;
            loaded.extend(first.then_some(bucket));
        }
        Ok(loaded)
    }

    /// The leaves of each bucket from the store, checked against its hash.
    fn read(&self, wanted: &[Wanted]) -> Vec<Result<Arc<[Leaf]>, TrieError>> {
        let source = self.trail.as_ref().and_then(|trail| trail.source());
        let entries: Vec<Result<Vec<(Path, Digest)>, TrieError>> = wanted
            .iter()
            .map(|Wanted { bucket, region, .. }| {
                let source = source.as_ref().ok_or(TrieError::Damaged(region.first))?;
                let rows = source.leaves(region.first, region.end()).take(bucket.count() + 1);
                let found: Vec<_> = rows.collect::<Result<_, _>>()?;
                let whole = found.len() == bucket.count();
                if whole { Ok(found) } else { Err(TrieError::Damaged(region.first)) }
            })
            .collect();
        let hashed = hash_leaves(entries.iter().map(|found| found.as_deref().unwrap_or_default()));
        let subtrees: Vec<_> =
            hashed.iter().zip(wanted).map(|(leaves, wanted)| (&leaves[..], wanted.region.depth)).collect();
        let hashes = hash_subtrees(&subtrees);
        let mut read = Vec::with_capacity(wanted.len());
        for (((found, hash), leaves), wanted) in entries.into_iter().zip(hashes).zip(hashed).zip(wanted) {
            let sound =
                if hash == wanted.hash { Ok(leaves.into()) } else { Err(TrieError::Damaged(wanted.region.first)) };
            read.push(found.and(sound));
        }
        if let Some(source) = source.filter(|_| read.iter().any(|each| matches!(each, Err(TrieError::Damaged(_))))) {
            source.doubt();
        }
        read
    }
}

/// Lists the buckets that changes fall into and that are not in memory.
fn missing(child: &Child, region: Region, changes: &[Change], wanted: &mut Vec<Wanted>) {
    match &child.below {
        _ if changes.is_empty() => {}
        Below::Empty => {}
        Below::Bucket(bucket) if bucket.is_held() => {}
        Below::Bucket(bucket) => wanted.push(Wanted { bucket: Arc::clone(bucket), region, hash: child.hash }),
        Below::Node(node) => {
            let (left, right) = split(changes, region.depth);
            let [before, after] = region.halves();
            missing(&node.children[0], before, left, wanted);
            missing(&node.children[1], after, right, wanted);
        }
    }
}

/// The leaves of each list, hashed together.
fn hash_leaves<'a>(lists: impl Iterator<Item = &'a [(Path, Digest)]> + Clone) -> Vec<Vec<Leaf>> {
    let preimages: Vec<[u8; 64]> = lists.clone().flatten().map(|(path, value)| joined(path, value)).collect();
    let mut hashes = keyed_nodes(Use::Leaf, &preimages).into_iter();
    let leaf = |(&(path, value), hash)| Leaf { path, value, hash };
    lists.map(|list| list.iter().zip(hashes.by_ref()).map(leaf).collect()).collect()
}

struct Scan<'a> {
    rows: Box<dyn Iterator<Item = Result<(Path, Digest), StateError>> + 'a>,
    /// Read and not yet in a bucket: one more than a bucket holds shows that a region needs a node.
    ahead: VecDeque<(Path, Digest)>,
    taken: usize,
    last: Option<Path>,
    drafts: Drafts,
}

impl Scan<'_> {
    fn build(&mut self, region: Region) -> Result<Draft, TrieError> {
        while self.ahead.len() <= BUCKET
            && let Some(row) = self.rows.next()
        {
            let row = row?;
            if self.last.is_some_and(|before| before >= row.0) {
                return Err(TrieError::Order(self.taken));
            }
            self.taken += 1;
            self.last = Some(row.0);
            self.ahead.push_back(row);
        }
        let end = region.end();
        let within = self.ahead.iter().take_while(|row| end.is_none_or(|end| row.0 < end)).count();
        if within <= BUCKET {
            let rows: Vec<_> = self.ahead.drain(..within).collect();
            let draft = self.drafts.bucket(Unhashed::Rows(rows), region.depth);
            if self.drafts.buckets.len() >= SCANNED_AT_ONCE {
                self.drafts.hash_buckets(false);
            }
            return Ok(draft);
        }
        let [left, right] = region.halves();
        let children = [self.build(left)?, self.build(right)?];
        Ok(self.drafts.node(region.depth, children))
    }
}

// ── updating ─────────────────────────────────────────────────────────────────────────────────────────────────────

struct Change {
    path: Path,
    leaf: Option<Leaf>,
}

fn split(changes: &[Change], depth: usize) -> (&[Change], &[Change]) {
    changes.split_at(changes.partition_point(|change| !bit(&change.path, depth)))
}

/// A subtree of the next version: kept from this one, or drafted and not hashed yet.
enum Draft {
    Kept(Child),
    Bucket(usize),
    Node(usize),
}

struct NodeDraft {
    count: usize,
    children: [Draft; 2],
}

/// The leaves of a new bucket, or what they are made of.
enum Unhashed {
    Leaves(Arc<[Leaf]>),
    Rows(Vec<(Path, Digest)>),
}

impl Unhashed {
    fn len(&self) -> usize {
        match self {
            Unhashed::Leaves(leaves) => leaves.len(),
            Unhashed::Rows(rows) => rows.len(),
        }
    }
}

/// Everything new in a version, with the nodes listed by depth so that each level is hashed in one go.
#[derive(Default)]
struct Drafts {
    /// Hashed; their numbers come before those of `buckets`.
    hashed: Vec<Option<Child>>,
    buckets: Vec<(Unhashed, usize)>,
    nodes: Vec<Option<NodeDraft>>,
    by_depth: Vec<Vec<usize>>,
}

impl Drafts {
    fn count(&self, draft: &Draft) -> usize {
        match draft {
            Draft::Kept(child) => child.count(),
            Draft::Bucket(bucket) => match bucket.checked_sub(self.hashed.len()) {
                Some(waiting) => self.buckets[waiting].0.len(),
                None => self.hashed[*bucket].as_ref().map_or(0, Child::count),
            },
            Draft::Node(node) => self.nodes[*node].as_ref().map_or(0, |node| node.count),
        }
    }

    fn bucket(&mut self, leaves: Unhashed, depth: usize) -> Draft {
        if leaves.len() == 0 {
            return Draft::Kept(Child::default());
        }
        self.buckets.push((leaves, depth));
        Draft::Bucket(self.hashed.len() + self.buckets.len() - 1)
    }

    fn build(&mut self, leaves: &[Leaf], depth: usize) -> Draft {
        if leaves.len() <= BUCKET {
            return self.bucket(Unhashed::Leaves(leaves.into()), depth);
        }
        let (left, right) = leaves.split_at(boundary(leaves, depth));
        let children = [self.build(left, depth + 1), self.build(right, depth + 1)];
        self.node(depth, children)
    }

    fn node(&mut self, depth: usize, children: [Draft; 2]) -> Draft {
        let count = self.count(&children[0]) + self.count(&children[1]);
        if self.by_depth.len() <= depth {
            self.by_depth.resize_with(depth + 1, Vec::new);
        }
        self.by_depth[depth].push(self.nodes.len());
        self.nodes.push(Some(NodeDraft { count, children }));
        Draft::Node(self.nodes.len() - 1)
    }

    fn read_top(&mut self, rest: &mut &[u8], depth: u8) -> Option<Draft> {
        let (&[lies, count], after) = rest.split_first_chunk()?;
        if lies > depth {
            let children = [self.read_top(rest, depth + 1)?, self.read_top(rest, depth + 1)?];
            return Some(self.node(usize::from(depth), children));
        }
        *rest = after;
        if lies < depth || usize::from(count) > BUCKET {
            return None;
        }
        if count == 0 {
            return Some(Draft::Kept(Child::default()));
        }
        let (hash, after) = rest.split_first_chunk()?;
        *rest = after;
        Some(Draft::Kept(Child { hash: *hash, below: Below::Bucket(Bucket::stored(usize::from(count))) }))
    }

    /// Hashes the buckets that wait. Their leaves stay in memory if they are to be held.
    fn hash_buckets(&mut self, held: bool) {
        let waiting = std::mem::take(&mut self.buckets);
        let rows = waiting.iter().map(|(leaves, _)| match leaves {
            Unhashed::Rows(rows) => &rows[..],
            Unhashed::Leaves(_) => &[],
        });
        let from_rows = hash_leaves(rows);
        let buckets: Vec<(Arc<[Leaf]>, usize)> = waiting
            .into_iter()
            .zip(from_rows)
            .map(|((leaves, depth), from_rows)| match leaves {
                Unhashed::Leaves(leaves) => (leaves, depth),
                Unhashed::Rows(_) => (from_rows.into(), depth),
            })
            .collect();
        let mut hashes = vec![EMPTY; buckets.len()];
        let subtrees: Vec<(&[Leaf], usize)> = buckets.iter().map(|(leaves, depth)| (&leaves[..], *depth)).collect();
        pool::fill_chunks(&mut hashes, BUCKETS_AT_ONCE, |first, run| {
            run.copy_from_slice(&hash_subtrees(&subtrees[first..first + run.len()]));
        });
        let child = |((leaves, _), hash): ((Arc<[Leaf]>, usize), Digest)| {
            let bucket = if held { Bucket::held(leaves) } else { Bucket::stored(leaves.len()) };
            Some(Child { hash, below: Below::Bucket(bucket) })
        };
        self.hashed.extend(buckets.into_iter().zip(hashes).map(child));
    }

    /// Hashes all drafts, the deepest level first, and makes them a version; the second are its new buckets.
    fn finish(mut self, root: Draft) -> (Child, Vec<Arc<Bucket>>) {
        self.hash_buckets(true);
        let fresh = self.hashed.iter().flatten().filter_map(|child| match &child.below {
            Below::Bucket(bucket) => Some(Arc::clone(bucket)),
            _ => None,
        });
        let fresh = fresh.collect();
        let mut done = Done { buckets: self.hashed, nodes: self.nodes.iter().map(|_| None).collect() };
        for level in self.by_depth.iter().rev() {
            let nodes: Vec<Node> = level
                .iter()
                .filter_map(|node| self.nodes[*node].take())
                .map(|NodeDraft { count, children }| Node { count, children: children.map(|draft| done.take(draft)) })
                .collect();
            let pairs: Vec<[u8; 64]> =
                nodes.iter().map(|node| joined(&node.children[0].hash, &node.children[1].hash)).collect();
            let hashes = keyed_nodes(Use::Node, &pairs);
            for ((place, node), hash) in level.iter().zip(nodes).zip(hashes) {
                done.nodes[*place] = Some(Child { hash, below: Below::Node(Arc::new(node)) });
            }
        }
        (done.take(root), fresh)
    }
}

struct Done {
    buckets: Vec<Option<Child>>,
    nodes: Vec<Option<Child>>,
}

impl Done {
    /// Each draft has one parent, so it is taken once.
    fn take(&mut self, draft: Draft) -> Child {
        match draft {
            Draft::Kept(child) => child,
            Draft::Bucket(bucket) => self.buckets[bucket].take().unwrap_or_default(),
            Draft::Node(node) => self.nodes[node].take().unwrap_or_default(),
        }
    }
}

/// The way from one version to the next.
struct Drafting<'a> {
    trie: &'a Trie,
    drafts: &'a mut Drafts,
    /// Leaves come from the store instead of from the old version and its changes.
    rescan: bool,
}

impl Drafting<'_> {
    fn change(&mut self, old: &Child, region: Region, changes: &[Change]) -> Result<Draft, TrieError> {
        if changes.is_empty() {
            return Ok(Draft::Kept(old.clone()));
        }
        let Below::Node(node) = &old.below else {
            let leaves = self.replaced(old, &region, changes)?;
            return Ok(self.drafts.build(&leaves, region.depth));
        };
        let (left, right) = split(changes, region.depth);
        let [before, after] = region.halves();
        let buckets = self.drafts.buckets.len();
        let children = [self.change(&node.children[0], before, left)?, self.change(&node.children[1], after, right)?];
        let count = self.drafts.count(&children[0]) + self.drafts.count(&children[1]);
        if count > BUCKET {
            return Ok(self.drafts.node(region.depth, children));
        }
        // Neither child is a node any more, so what they drafted is at most a bucket each.
        let mut leaves = Vec::with_capacity(count);
        for (child, region) in children.iter().zip([before, after]) {
            match child {
                Draft::Kept(kept) => leaves.extend_from_slice(&self.trie.leaves_of(kept, &region)?),
                Draft::Bucket(bucket) => match &self.drafts.buckets[*bucket].0 {
                    Unhashed::Leaves(drafted) => leaves.extend_from_slice(drafted),
                    Unhashed::Rows(_) => {}
                },
                Draft::Node(_) => {}
            }
        }
        self.drafts.buckets.truncate(buckets);
        Ok(self.drafts.build(&leaves, region.depth))
    }

    /// What lies in a region without nodes after the changes.
    fn replaced(&self, old: &Child, region: &Region, changes: &[Change]) -> Result<Vec<Leaf>, TrieError> {
        if !self.rescan {
            return Ok(merged(&self.trie.leaves_of(old, region)?, changes));
        }
        let source = self.trie.trail.as_ref().and_then(|trail| trail.source());
        let source = source.ok_or(TrieError::Damaged(region.first))?;
        let rows: Vec<_> = source.leaves(region.first, region.end()).collect::<Result<_, _>>()?;
        Ok(hash_leaves(std::iter::once(&rows[..])).pop().unwrap_or_default())
    }
}

/// The leaves of a bucket after changes; both are in path order.
fn merged(leaves: &[Leaf], changes: &[Change]) -> Vec<Leaf> {
    let mut out = Vec::with_capacity(leaves.len() + changes.len());
    let mut rest = leaves;
    for change in changes {
        let before = rest.partition_point(|leaf| leaf.path < change.path);
        out.extend_from_slice(&rest[..before]);
        rest = &rest[before..];
        if rest.first().is_some_and(|leaf| leaf.path == change.path) {
            rest = &rest[1..];
        }
        out.extend(change.leaf);
    }
    out.extend_from_slice(rest);
    out
}

// ── hashing ──────────────────────────────────────────────────────────────────────────────────────────────────────

#[derive(Clone, Copy)]
enum Target {
    Root(usize),
    Left(usize),
    Right(usize),
}

/// The nodes of one depth: what each hashes, and where its digest goes.
#[derive(Default)]
struct Level {
    pairs: Vec<[u8; 64]>,
    targets: Vec<Target>,
}

/// The hash of each subtree, given as its leaves and its depth; nodes of equal depth are hashed together.
fn hash_subtrees(subtrees: &[(&[Leaf], usize)]) -> Vec<Digest> {
    let mut roots = vec![EMPTY; subtrees.len()];
    let first_depth = subtrees.iter().map(|(_, depth)| *depth).min().unwrap_or(0);
    let mut levels: Vec<Level> = Vec::new();
    for (number, (leaves, depth)) in subtrees.iter().enumerate() {
        match leaves {
            [] => {}
            [leaf] => roots[number] = leaf.hash,
            _ => plan(&mut levels, leaves, *depth, first_depth, Target::Root(number)),
        }
    }
    while let Some(level) = levels.pop() {
        let above = &mut levels.last_mut();
        for (digest, target) in keyed_nodes(Use::Node, &level.pairs).into_iter().zip(level.targets) {
            match (target, above.as_mut()) {
                (Target::Root(number), _) => roots[number] = digest,
                (Target::Left(node), Some(above)) => above.pairs[node][..32].copy_from_slice(&digest),
                (Target::Right(node), Some(above)) => above.pairs[node][32..].copy_from_slice(&digest),
                (_, None) => {}
            }
        }
    }
    roots
}

/// Lists the nodes over two leaves or more.
fn plan(levels: &mut Vec<Level>, leaves: &[Leaf], depth: usize, first_depth: usize, target: Target) {
    let place = depth - first_depth;
    if levels.len() <= place {
        levels.resize_with(place + 1, Level::default);
    }
    let level = &mut levels[place];
    let node = level.pairs.len();
    let (left, right) = leaves.split_at(boundary(leaves, depth));
    let mut pair = [0; 64];
    if let [leaf] = left {
        pair[..32].copy_from_slice(&leaf.hash);
    }
    if let [leaf] = right {
        pair[32..].copy_from_slice(&leaf.hash);
    }
    level.pairs.push(pair);
    level.targets.push(target);
    if left.len() > 1 {
        plan(levels, left, depth + 1, first_depth, Target::Left(node));
    }
    if right.len() > 1 {
        plan(levels, right, depth + 1, first_depth, Target::Right(node));
    }
}
