//! The log of everything that happened: a Merkle tree of the shape of RFC 6962, all complete subtrees in memory.
//! Grows at the right end only; `truncate` exists for a block that was assembled and then abandoned.
//! Level k holds the roots of the complete subtrees of 2^k leaves, so every root and proof is a few look-ups.
//! Packs use the same shape over BLAKE3 (`pack_root`).
//!
//! ```text
//! level 2            a              7 leaves: the frontier is a, e, g
//! level 1        .       .      e
//! level 0      0   1   2   3  4   5  g      root = node(a, node(e, g))
//! ```

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, OnceLock};

use thiserror::Error;

use super::log_tiles::{TILE_DEPTH, TILE_LEAVES, TileStore, Tiles};

use crate::digest::{self, Digest, Inputs, Use};

/// Hashes of one C2SP tile: a subtree of height 8.
pub const TILE_WIDTH: u64 = 256;
/// The largest tile level C2SP names.
pub const MAX_TILE_LEVEL: u32 = 63;

/// A question the log cannot answer at its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// A tree size above what has been appended.
    #[error("tree size {asked} is beyond the log of {tree_size} leaves")]
    SizeBeyondLog {
        /// The size asked for.
        asked: u64,
        /// Leaves in the log.
        tree_size: u64,
    },
    /// A leaf index at or above the tree size.
    #[error("leaf index {index} is outside a tree of {tree_size} leaves")]
    IndexOutOfRange {
        /// The index asked for.
        index: u64,
        /// Leaves in that tree.
        tree_size: u64,
    },
    /// A consistency proof backwards in time.
    #[error("old size {old_size} is above new size {new_size}")]
    SizesDescend {
        /// The size to start from.
        old_size: u64,
        /// The size to end at.
        new_size: u64,
    },
    /// A tile that is empty, wider than 256 or not yet that wide.
    #[error("tile {level}/{index} has no width {width}")]
    NoSuchTile {
        /// Tile level, 8 tree levels each.
        level: u32,
        /// Tile index within the level.
        index: u64,
        /// Hashes asked for.
        width: u64,
    },
    /// A stored tile could not be read.
    #[error("tile {index} could not be read: {cause}")]
    TileUnavailable {
        /// Which tile of leaf hashes.
        index: u64,
        /// What the store said.
        cause: io::ErrorKind,
    },
    /// A stored tile is missing, or not what was stored.
    #[error("tile {index} does not have the root that the log has of it")]
    TileDamaged {
        /// Which tile of leaf hashes.
        index: u64,
    },
    /// Leaves that were stored as part of a published tree are never taken back.
    #[error("the first {stored} leaves are stored for good")]
    Stored {
        /// How many.
        stored: u64,
    },
}

/// The root of a tree without leaves: SHA-256 of nothing. Source: RFC 6962 section 2.1.
#[must_use]
pub fn empty_root() -> Digest {
    static ROOT: OnceLock<Digest> = OnceLock::new();
    *ROOT.get_or_init(|| digest::sha256(&[]))
}

/// The root of a log with these leaves, without keeping one.
pub fn root_of_leaves<I: Inputs + ?Sized>(leaves: &I) -> Digest {
    root_of_digests(digest::sha256_leaves(leaves), digest::sha256_nodes).unwrap_or_else(empty_root)
}

/// The root of the RFC 6962 shape over ready-made digests; none for no digest.
///
/// A digest without a partner rises unchanged, which over all levels splits every range at the largest power of two
/// below its length, as the RFC does.
pub fn root_of_digests(mut level: Vec<Digest>, hash_pairs: impl Fn(&[[Digest; 2]]) -> Vec<Digest>) -> Option<Digest> {
    while level.len() > 1 {
        let (pairs, lone) = level.as_chunks::<2>();
        let mut parents = hash_pairs(pairs);
        parents.extend_from_slice(lone);
        level = parents;
    }
    level.first().copied()
}

/// keyed["pack"](count as 8 bytes, big-endian ‖ root). The root has the shape of RFC 6962 over the item digests, its
/// nodes are keyed["pack-node"](left ‖ right); for no item it is 32 zero bytes.
#[must_use]
pub fn pack_root(digests: &[Digest]) -> Digest {
    let root = root_of_digests(digests.to_vec(), |pairs| {
        let (blocks, _) = pairs.as_flattened().as_flattened().as_chunks();
        digest::keyed_nodes(Use::PackNode, blocks)
    });
    digest::keyed(Use::Pack, &[&(digests.len() as u64).to_be_bytes(), &root.unwrap_or_default()])
}

/// The hashes of one log. In memory are the leaves and inner nodes that are not stored in tiles yet, 64 bytes a leaf,
/// and every root of 256 leaves or more, a quarter of a byte a leaf.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// `levels[k][i - base(k)]` is the root over leaves `i * 2^k .. (i + 1) * 2^k`; there are `tree_size >> k` of them.
    levels: Vec<Vec<Digest>>,
    /// Whole tiles whose leaves are in the store only.
    stored: usize,
    tiles: Option<Arc<Tiles>>,
}

impl Log {
    /// A log without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A log whose whole tiles are in a store, given the root of each; what the store holds is checked when it is
    /// read, the roots are for the caller to check.
    #[must_use]
    pub fn stored(store: Arc<dyn TileStore>, roots: Vec<Digest>) -> Self {
        let mut log = Self { levels: Vec::new(), stored: roots.len(), tiles: Some(Arc::new(Tiles::new(store))) };
        if !roots.is_empty() {
            log.levels = vec![Vec::new(); TILE_DEPTH];
            log.levels.push(roots);
            log.grow(TILE_DEPTH);
        }
        log
    }

    /// The first number at a level that is in memory.
    fn base(&self, depth: usize) -> usize {
        if depth < TILE_DEPTH { self.stored << (TILE_DEPTH - depth) } else { 0 }
    }

    fn leaf_count(&self) -> usize {
        self.base(0) + self.levels.first().map_or(0, Vec::len)
    }

    /// How many leaves the log has.
    #[must_use]
    pub fn tree_size(&self) -> u64 {
        self.leaf_count() as u64
    }

    /// How many leaves are in the store only.
    #[must_use]
    pub fn stored_leaves(&self) -> u64 {
        self.base(0) as u64
    }

    /// Adds leaves at the right end; their order is their index order.
    pub fn append<I: Inputs + ?Sized>(&mut self, leaves: &I) {
        self.append_hashes(&digest::sha256_leaves(leaves));
    }

    /// The same for leaves that are hashed already.
    pub fn append_hashes(&mut self, hashes: &[Digest]) {
        if hashes.is_empty() {
            return;
        }
        if self.levels.is_empty() {
            self.levels.push(Vec::new());
        }
        self.levels[0].extend_from_slice(hashes);
        self.grow(0);
    }

    /// Hashes the parents that are not there yet, from a level on.
    fn grow(&mut self, mut depth: usize) {
        while self.levels[depth].len() >= 2 {
            if depth + 1 == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let (own, parent_base) = (self.base(depth), self.base(depth + 1));
            let (below, above) = self.levels.split_at_mut(depth + 1);
            let parents = &mut above[0];
            let (pairs, _) = below[depth][(parent_base + parents.len()) * 2 - own..].as_chunks();
            parents.extend_from_slice(&digest::sha256_nodes(pairs));
            depth += 1;
        }
    }

    /// Whole tiles among the first `tree_size` leaves that are not stored yet: their numbers and bytes, for a store.
    #[must_use]
    pub fn unstored_tiles(&self, tree_size: u64) -> Vec<(u64, Vec<u8>)> {
        let whole = usize::try_from(tree_size).unwrap_or(usize::MAX).min(self.leaf_count()) / TILE_LEAVES;
        let tile = |index: usize| {
            let leaves = &self.levels[0][index * TILE_LEAVES - self.base(0)..][..TILE_LEAVES];
            let middle =
                &self.levels[TILE_DEPTH / 2][index * (TILE_LEAVES >> (TILE_DEPTH / 2)) - self.base(TILE_DEPTH / 2)..];
            let middle = &middle[..TILE_LEAVES >> (TILE_DEPTH / 2)];
            (index as u64, [leaves, middle].concat().into_flattened())
        };
        (self.stored..whole).map(tile).collect()
    }

    /// Lets go of the leaves of tiles that are now in the store, of which `count` whole ones there are.
    pub fn forget_stored(&mut self, store: &Arc<dyn TileStore>, count: usize) {
        let count = count.min(self.leaf_count() / TILE_LEAVES);
        for depth in 0..TILE_DEPTH.min(self.levels.len()) {
            let gone = (count << (TILE_DEPTH - depth)).saturating_sub(self.base(depth));
            self.levels[depth].drain(..gone);
        }
        self.stored = self.stored.max(count);
        self.tiles.get_or_insert_with(|| Arc::new(Tiles::new(Arc::clone(store))));
    }

    /// The roots of whole tiles, in order.
    #[must_use]
    pub fn tile_roots(&self) -> &[Digest] {
        self.levels.get(TILE_DEPTH).map_or(&[], Vec::as_slice)
    }

    /// Forgets every leaf at or above `tree_size`.
    ///
    /// # Errors
    /// [`LogError::SizeBeyondLog`] when the log is shorter, [`LogError::Stored`] when they are stored.
    pub fn truncate(&mut self, tree_size: u64) -> Result<(), LogError> {
        let keep = self.checked(tree_size)?;
        if keep < self.base(0) {
            return Err(LogError::Stored { stored: self.stored_leaves() });
        }
        for depth in 0..self.levels.len() {
            let base = self.base(depth);
            self.levels[depth].truncate((keep >> depth).saturating_sub(base));
        }
        while self.levels.last().is_some_and(Vec::is_empty) {
            self.levels.pop();
        }
        Ok(())
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Digest {
        // Every subtree it is made of is in memory: a smaller one than a tile lies behind the last whole tile.
        self.subtree(0, self.leaf_count()).unwrap_or_else(|_| empty_root())
    }

    /// The root the log had when it held `tree_size` leaves.
    ///
    /// # Errors
    /// [`LogError::SizeBeyondLog`]
    pub fn root_at(&self, tree_size: u64) -> Result<Digest, LogError> {
        self.subtree(0, self.checked(tree_size)?)
    }

    /// The hash of one leaf.
    ///
    /// # Errors
    /// [`LogError::IndexOutOfRange`]
    pub fn leaf_hash(&self, index: u64) -> Result<Digest, LogError> {
        let out_of_range = LogError::IndexOutOfRange { index, tree_size: self.tree_size() };
        let position = usize::try_from(index).map_err(|_| out_of_range)?;
        if position < self.leaf_count() { self.node(0, position) } else { Err(out_of_range) }
    }

    /// The roots of the complete subtrees a tree of that size is made of, largest (leftmost) first: what one must
    /// keep to go on appending.
    ///
    /// # Errors
    /// [`LogError::SizeBeyondLog`]
    pub fn frontier(&self, tree_size: u64) -> Result<Vec<Digest>, LogError> {
        self.peaks(0, self.checked(tree_size)?).collect()
    }

    /// The audit path of a leaf, its sibling first. Source: RFC 9162 section 2.1.3.1.
    ///
    /// # Errors
    /// [`LogError::SizeBeyondLog`], [`LogError::IndexOutOfRange`]
    pub fn prove_inclusion(&self, index: u64, tree_size: u64) -> Result<Vec<Digest>, LogError> {
        let mut end = self.checked(tree_size)?;
        let mut start = 0;
        let leaf = usize::try_from(index).unwrap_or(usize::MAX);
        if leaf >= end {
            return Err(LogError::IndexOutOfRange { index, tree_size });
        }
        let mut path = Vec::with_capacity(64);
        while end - start > 1 {
            let middle = start + split(end - start);
            if leaf < middle {
                path.push(self.subtree(middle, end)?);
                end = middle;
            } else {
                path.push(self.subtree(start, middle)?);
                start = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// Proof that the tree of `new_size` begins with the tree of `old_size`; empty when nothing is to be shown (equal
    /// sizes, or an old size of 0). Source: RFC 9162 section 2.1.4.1.
    ///
    /// # Errors
    /// [`LogError::SizeBeyondLog`], [`LogError::SizesDescend`]
    pub fn prove_consistency(&self, old_size: u64, new_size: u64) -> Result<Vec<Digest>, LogError> {
        let mut end = self.checked(new_size)?;
        if old_size > new_size {
            return Err(LogError::SizesDescend { old_size, new_size });
        }
        let old_end = self.checked(old_size)?;
        if old_end == 0 || old_end == end {
            return Ok(Vec::new());
        }
        let mut start = 0;
        let mut path = Vec::with_capacity(64);
        while old_end < end {
            let middle = start + split(end - start);
            if old_end <= middle {
                path.push(self.subtree(middle, end)?);
                end = middle;
            } else {
                path.push(self.subtree(start, middle)?);
                start = middle;
            }
        }
        // Only an old tree that is itself a complete subtree from leaf 0 is known to the verifier by its root.
        if start > 0 {
            path.push(self.subtree(start, end)?);
        }
        path.reverse();
        Ok(path)
    }

    /// The first `width` hashes of a tile. Source: C2SP tlog-tiles.
    ///
    /// # Errors
    /// [`LogError::NoSuchTile`]; a stored tile may be unavailable or damaged, as in every other question.
    pub fn tile(&self, level: u32, index: u64, width: u64) -> Result<Cow<'_, [Digest]>, LogError> {
        let missing = LogError::NoSuchTile { level, index, width };
        if width == 0 || width > TILE_WIDTH || level > MAX_TILE_LEVEL {
            return Err(missing);
        }
        let depth = level as usize * TILE_DEPTH;
        let hashes = self.levels.get(depth).ok_or(missing)?;
        let start = index.checked_mul(TILE_WIDTH).ok_or(missing)?;
        let end = start.checked_add(width).ok_or(missing)?;
        let (start, end) = (usize::try_from(start).map_err(|_| missing)?, usize::try_from(end).map_err(|_| missing)?);
        match start.checked_sub(self.base(depth)) {
            Some(held) => hashes.get(held..held + (end - start)).map(Cow::Borrowed).ok_or(missing),
            None => (start..end).map(|index| self.node(depth, index)).collect::<Result<_, _>>().map(Cow::Owned),
        }
    }

    /// The root over leaves `index * 2^depth ..`, which must be complete.
    fn node(&self, depth: usize, index: usize) -> Result<Digest, LogError> {
        if let Some(held) = index.checked_sub(self.base(depth)) {
            return Ok(self.levels[depth][held]);
        }
        let tile = index >> (TILE_DEPTH - depth);
        let damaged = LogError::TileDamaged { index: tile as u64 };
        let (tiles, root) = (self.tiles.as_ref().ok_or(damaged)?, self.tile_roots().get(tile).ok_or(damaged)?);
        tiles.node(tile as u64, root, depth, index & ((1 << (TILE_DEPTH - depth)) - 1))
    }

    /// `tree_size` as an index, once it is known to be covered.
    fn checked(&self, tree_size: u64) -> Result<usize, LogError> {
        let beyond = LogError::SizeBeyondLog { asked: tree_size, tree_size: self.tree_size() };
        if tree_size > self.tree_size() {
            return Err(beyond);
        }
        usize::try_from(tree_size).map_err(|_| beyond)
    }

    /// Roots of the complete subtrees that make up leaves `start..end`, left to right. `start` must be a multiple of
    /// the largest power of two in the length, which holds for every range RFC 6962 forms.
    fn peaks(&self, start: usize, end: usize) -> impl DoubleEndedIterator<Item = Result<Digest, LogError>> + '_ {
        let length = end - start;
        let depths = 0..(usize::BITS - length.leading_zeros()) as usize;
        depths.rev().filter(move |depth| length >> depth & 1 == 1).map(move |depth| {
            let first = start + (length >> depth >> 1 << 1 << depth);
            self.node(depth, first >> depth)
        })
    }

    /// MTH(D[start:end]): for nearly every range of a proof a complete subtree, which is a mere look-up.
    fn subtree(&self, start: usize, end: usize) -> Result<Digest, LogError> {
        let length = end - start;
        if length.is_power_of_two() {
            let depth = length.ilog2() as usize;
            return self.node(depth, start >> depth);
        }
        let mut peaks = self.peaks(start, end).rev();
        let Some(last) = peaks.next() else { return Ok(empty_root()) };
        peaks.try_fold(last?, |right, left| Ok(digest::sha256_node(&left?, &right)))
    }
}

/// The largest power of two below `length`, which is at least 2.
fn split(length: usize) -> usize {
    1 << (length - 1).ilog2()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn log_of(size: u64) -> Log {
        let mut log = Log::new();
        log.append(&(0..size).map(u64::to_le_bytes).collect::<Vec<_>>());
        log
    }

    #[test]
    fn the_empty_log_has_the_root_of_nothing() {
        let log = Log::new();
        assert_eq!(log.root(), digest::sha256(&[]));
        assert_eq!(log.root_at(0).unwrap(), log.root());
        assert!(log.frontier(0).unwrap().is_empty());
        assert_eq!(log.tile(0, 0, 1), Err(LogError::NoSuchTile { level: 0, index: 0, width: 1 }));
    }

    #[test]
    fn truncation_forgets_all_that_came_after() {
        for (size, keep) in [(0, 0), (1, 0), (5, 4), (8, 7), (9, 8), (300, 256), (300, 255)] {
            let mut log = log_of(size);
            log.truncate(keep).unwrap();
            let fresh = log_of(keep);
            assert_eq!(log.levels, fresh.levels, "{size} to {keep}");
            log.append([b"after"].as_slice());
            assert_ne!(log.root(), fresh.root());
            assert_eq!(log.root_at(keep).unwrap(), fresh.root());
        }
        assert_eq!(log_of(3).truncate(4), Err(LogError::SizeBeyondLog { asked: 4, tree_size: 3 }));
    }

    #[test]
    fn questions_beyond_the_log_are_refused() {
        let log = log_of(10);
        let beyond = |asked| LogError::SizeBeyondLog { asked, tree_size: 10 };
        for asked in [11, u64::MAX] {
            assert_eq!(log.root_at(asked), Err(beyond(asked)));
            assert_eq!(log.frontier(asked), Err(beyond(asked)));
            assert_eq!(log.prove_inclusion(0, asked), Err(beyond(asked)));
            assert_eq!(log.prove_consistency(1, asked), Err(beyond(asked)));
        }
        for index in [7, u64::MAX] {
            let outside = LogError::IndexOutOfRange { index, tree_size: 7 };
            assert_eq!(log.prove_inclusion(index, 7), Err(outside));
        }
        assert_eq!(log.leaf_hash(10), Err(LogError::IndexOutOfRange { index: 10, tree_size: 10 }));
        assert_eq!(log.prove_consistency(6, 5), Err(LogError::SizesDescend { old_size: 6, new_size: 5 }));
    }

    #[test]
    fn a_tile_holds_the_roots_of_full_tiles_below() {
        let log = log_of(70_000);
        assert_eq!(log.tile(0, 273, 112).unwrap().len(), 112);
        assert_eq!(log.tile(1, 0, 256).unwrap().len(), 256);
        assert_eq!(log.tile(1, 1, 17).unwrap().len(), 17);
        assert_eq!(log.tile(2, 0, 1).unwrap()[0], log.root_at(65_536).unwrap());
        let full = log.tile(0, 5, 256).unwrap().to_vec();
        assert_eq!(root_of_digests(full, digest::sha256_nodes), Some(log.tile(1, 0, 6).unwrap()[5]));
        for (level, index, width) in [
            (0, 273, 113),
            (0, 0, 0),
            (0, 0, 257),
            (2, 0, 2),
            (3, 0, 1),
            (64, 0, 1),
            (u32::MAX, 0, 1),
            (0, u64::MAX, 1),
        ] {
            assert_eq!(log.tile(level, index, width), Err(LogError::NoSuchTile { level, index, width }));
        }
    }

    #[test]
    fn a_pack_root_tells_counts_and_orders_apart() {
        let digests: Vec<Digest> = (0..5).map(|byte| [byte; 32]).collect();
        let mut roots: Vec<Digest> = (0..=5).map(|count| pack_root(&digests[..count])).collect();
        roots.push(pack_root(&[digests[1], digests[0]]));
        roots.push(pack_root(&[[0; 32], [0; 32]]));
        let distinct: std::collections::BTreeSet<_> = roots.iter().collect();
        assert_eq!(distinct.len(), roots.len());
    }
}
