//! The state trie: a compact binary Merkle tree over paths, in immutable versions that share structure.
//! Refuses writes out of order. Invariant: the root depends on nothing but the set of (path, stored digest).
//!
//! ```text
//!   depth 0          node                 leaf = keyed["leaf"](path ‖ BLAKE3(stored))
//!                   /    \                node = keyed["node"](left ‖ right)
//!            node ─┘      └─ node         empty = 32 zero bytes
//!           /    \          /    \
//!       bucket  bucket   empty  bucket    a bucket: up to 32 leaves in path order, its inner nodes not kept
//! ```
//! A leaf is lifted to its shortest unique prefix: a subtree of one key is that key's leaf, whatever its depth.

use std::sync::Arc;

use super::trie_proof::{EMPTY, Found, TrieProof, bit};
use crate::digest::{self, Digest, Use, keyed_nodes};
use crate::pool;
use crate::state::{Path, WriteSet, Written};

/// Most keys in a bucket. Larger ones save memory for nodes, smaller ones save hashing for each update.
const BUCKET: usize = 32;
/// Buckets hashed together: enough to fill the lanes, few enough to stay in the cache.
const BUCKETS_AT_ONCE: usize = 32;
/// Leaves taken from an iterator before they are hashed in.
const LOAD_AT_ONCE: usize = 1 << 15;

/// Why a trie was not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrieError {
    /// Paths are not strictly ascending at this position.
    #[error("paths out of order at position {0}")]
    Order(usize),
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    path: Path,
    value: Digest,
    hash: Digest,
}

#[derive(Clone, Debug, Default)]
enum Below {
    #[default]
    Empty,
    Bucket(Arc<[Leaf]>),
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
            Below::Bucket(leaves) => leaves.len(),
            Below::Node(node) => node.count,
        }
    }
}

/// One immutable version of the state trie.
#[derive(Clone, Debug, Default)]
pub struct Trie {
    root: Child,
}

impl Trie {
    /// The trie of no keys.
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

    /// Loads all of a state from (path, BLAKE3(stored)) in ascending order of path.
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
        let mut drafts = Drafts::default();
        let root = drafts.change(&self.root, 0, &changes);
        Ok(Self { root: drafts.finish(root) })
    }

    /// Proves what is stored at a path, or that nothing is.
    pub fn prove(&self, path: &Path) -> TrieProof {
        let mut siblings = Vec::new();
        let mut child = &self.root;
        while let Below::Node(node) = &child.below {
            let side = usize::from(bit(path, siblings.len()));
            siblings.push(node.children[1 - side].hash);
            child = &node.children[side];
        }
        let mut leaves: &[Leaf] = match &child.below {
            Below::Bucket(leaves) => leaves,
            _ => &[],
        };
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
        TrieProof { siblings, found }
    }

    /// BLAKE3 of what is stored at a path, `None` when nothing is.
    pub fn value_digest(&self, path: &Path) -> Option<Digest> {
        let mut child = &self.root;
        let mut depth = 0;
        while let Below::Node(node) = &child.below {
            child = &node.children[usize::from(bit(path, depth))];
            depth += 1;
        }
        let Below::Bucket(leaves) = &child.below else { return None };
        leaves.binary_search_by_key(path, |leaf| leaf.path).ok().map(|found| leaves[found].value)
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

// ── updating ─────────────────────────────────────────────────────────────────────────────────────────────────────

struct Change {
    path: Path,
    leaf: Option<Leaf>,
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

/// Everything new in a version, with the nodes listed by depth so that each level is hashed in one go.
#[derive(Default)]
struct Drafts {
    buckets: Vec<(Arc<[Leaf]>, usize)>,
    nodes: Vec<Option<NodeDraft>>,
    by_depth: Vec<Vec<usize>>,
}

impl Drafts {
    fn count(&self, draft: &Draft) -> usize {
        match draft {
            Draft::Kept(child) => child.count(),
            Draft::Bucket(bucket) => self.buckets[*bucket].0.len(),
            Draft::Node(node) => self.nodes[*node].as_ref().map_or(0, |node| node.count),
        }
    }

    fn change(&mut self, old: &Child, depth: usize, changes: &[Change]) -> Draft {
        if changes.is_empty() {
            return Draft::Kept(old.clone());
        }
        let node = match &old.below {
            Below::Empty => return self.build(&merged(&[], changes), depth),
            Below::Bucket(leaves) => return self.build(&merged(leaves, changes), depth),
            Below::Node(node) => node,
        };
        let (left, right) = changes.split_at(changes.partition_point(|change| !bit(&change.path, depth)));
        let buckets = self.buckets.len();
        let children =
            [self.change(&node.children[0], depth + 1, left), self.change(&node.children[1], depth + 1, right)];
        let count = self.count(&children[0]) + self.count(&children[1]);
        if count > BUCKET {
            return self.node(depth, NodeDraft { count, children });
        }
        // Neither child is a node any more, so what they drafted is at most a bucket each.
        let mut leaves = Vec::with_capacity(count);
        for child in &children {
            match child {
                Draft::Kept(Child { below: Below::Bucket(kept), .. }) => leaves.extend_from_slice(kept),
                Draft::Bucket(bucket) => leaves.extend_from_slice(&self.buckets[*bucket].0),
                _ => {}
            }
        }
        self.buckets.truncate(buckets);
        self.build(&leaves, depth)
    }

    fn build(&mut self, leaves: &[Leaf], depth: usize) -> Draft {
        match leaves.len() {
            0 => Draft::Kept(Child::default()),
            1..=BUCKET => {
                self.buckets.push((leaves.into(), depth));
                Draft::Bucket(self.buckets.len() - 1)
            }
            count => {
                let (left, right) = leaves.split_at(boundary(leaves, depth));
                let children = [self.build(left, depth + 1), self.build(right, depth + 1)];
                self.node(depth, NodeDraft { count, children })
            }
        }
    }

    fn node(&mut self, depth: usize, draft: NodeDraft) -> Draft {
        if self.by_depth.len() <= depth {
            self.by_depth.resize_with(depth + 1, Vec::new);
        }
        self.by_depth[depth].push(self.nodes.len());
        self.nodes.push(Some(draft));
        Draft::Node(self.nodes.len() - 1)
    }

    /// Hashes all drafts, the deepest level first, and makes them a version.
    fn finish(mut self, root: Draft) -> Child {
        let mut hashes = vec![EMPTY; self.buckets.len()];
        let subtrees: Vec<(&[Leaf], usize)> =
            self.buckets.iter().map(|(leaves, depth)| (&leaves[..], *depth)).collect();
        pool::fill_chunks(&mut hashes, BUCKETS_AT_ONCE, |first, run| {
            run.copy_from_slice(&hash_subtrees(&subtrees[first..first + run.len()]));
        });
        let bucket = |((leaves, _), hash)| Some(Child { hash, below: Below::Bucket(leaves) });
        let mut done = Done {
            buckets: self.buckets.into_iter().zip(hashes).map(bucket).collect(),
            nodes: self.nodes.iter().map(|_| None).collect(),
        };
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
        done.take(root)
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
