//! Tiles of a log that are in a store: 256 leaf hashes and the roots of each 16 of them, 8,704 bytes.
//! Refuses a hash that does not lead to the tile's root, which the log keeps in memory: what is used is what is
//! checked, about 30 hashes for a proof. Owns a small cache of tiles.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::log::{LogError, root_of_digests};
use crate::digest::{self, Digest};

/// Levels of the tree below the root of a tile.
pub const TILE_DEPTH: usize = 8;
/// Leaves of a tile.
pub const TILE_LEAVES: usize = 1 << TILE_DEPTH;
const HALF_DEPTH: usize = TILE_DEPTH / 2;
const HALF: usize = 1 << HALF_DEPTH;
/// Bytes of a stored tile.
pub const TILE_BYTES: usize = (TILE_LEAVES + HALF) * size_of::<Digest>();
/// Tiles in memory, 2 MB of them.
const CACHED: usize = 256;

/// Where whole tiles are.
pub trait TileStore: Send + Sync + std::fmt::Debug {
    /// The bytes of a tile; none when they are not there or do not authenticate.
    fn tile(&self, index: u64) -> io::Result<Option<Vec<u8>>>;

    /// The same made anew from what the log is made of, where that is known.
    fn rebuild(&self, _index: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// The bytes of a tile with these leaves.
pub fn tile_bytes(leaves: &[Digest]) -> Vec<u8> {
    let groups = leaves.chunks(HALF).filter_map(root_of);
    leaves.iter().copied().chain(groups).collect::<Vec<_>>().into_flattened()
}

/// The root that a tile claims to have: for opening, before anything of it is used.
pub fn claimed_root(bytes: &[u8]) -> Option<Digest> {
    let (hashes, []) = bytes.as_chunks::<32>() else { return None };
    (hashes.len() == TILE_LEAVES + HALF).then(|| root_of(&hashes[TILE_LEAVES..])).flatten()
}

fn root_of(hashes: &[Digest]) -> Option<Digest> {
    root_of_digests(hashes.to_vec(), digest::sha256_nodes)
}

#[derive(Debug)]
struct Tile {
    hashes: Vec<Digest>,
    /// Which groups of 16 leaves were checked, and in bit 16 whether the groups' roots were.
    checked: AtomicU32,
}

impl Tile {
    fn check_once(&self, bit: usize, check: impl FnOnce() -> bool) -> bool {
        let mask = 1 << bit;
        if self.checked.load(Ordering::Relaxed) & mask != 0 {
            return true;
        }
        let sound = check();
        if sound {
            self.checked.fetch_or(mask, Ordering::Relaxed);
        }
        sound
    }

    fn node(&self, root: &Digest, depth: usize, index: usize) -> Option<Digest> {
        let (leaves, groups) = self.hashes.split_at_checked(TILE_LEAVES)?;
        if !self.check_once(HALF, || root_of(groups) == Some(*root)) {
            return None;
        }
        if depth >= HALF_DEPTH {
            let width = 1 << (depth - HALF_DEPTH);
            return root_of(groups.get(index * width..(index + 1) * width)?);
        }
        let width = 1 << depth;
        let group = index * width / HALF;
        let within = leaves.get(group * HALF..(group + 1) * HALF)?;
        if !self.check_once(group, || root_of(within).as_ref() == groups.get(group)) {
            return None;
        }
        root_of(leaves.get(index * width..(index + 1) * width)?)
    }
}

/// A store of tiles and the ones used last.
#[derive(Debug)]
pub(super) struct Tiles {
    store: Arc<dyn TileStore>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    tiles: HashMap<u64, Arc<Tile>>,
    order: VecDeque<u64>,
}

impl Tiles {
    pub fn new(store: Arc<dyn TileStore>) -> Self {
        Self { store, cache: Mutex::default() }
    }

    /// The root over leaves `index * 2^depth ..` of a tile with this root.
    pub fn node(&self, tile: u64, root: &Digest, depth: usize, index: usize) -> Result<Digest, LogError> {
        let damaged = LogError::TileDamaged { index: tile };
        let unavailable = |error: io::Error| LogError::TileUnavailable { index: tile, cause: error.kind() };
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).tiles.get(&tile).cloned();
        let found = match cached {
            Some(cached) => Some(cached),
            None => self.store.tile(tile).map_err(unavailable)?.and_then(|bytes| self.keep(tile, &bytes)),
        };
        if let Some(node) = found.and_then(|found| found.node(root, depth, index)) {
            return Ok(node);
        }
        let again = self.store.rebuild(tile).map_err(unavailable)?.and_then(|bytes| self.keep(tile, &bytes));
        again.and_then(|again| again.node(root, depth, index)).ok_or(damaged)
    }

    fn keep(&self, tile: u64, bytes: &[u8]) -> Option<Arc<Tile>> {
        let (hashes, []) = bytes.as_chunks::<32>() else { return None };
        if bytes.len() != TILE_BYTES {
            return None;
        }
        let read = Arc::new(Tile { hashes: hashes.to_vec(), checked: AtomicU32::new(0) });
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.tiles.insert(tile, Arc::clone(&read)).is_none() {
            cache.order.push_back(tile);
        }
        if cache.order.len() > CACHED
            && let Some(oldest) = cache.order.pop_front()
        {
            cache.tiles.remove(&oldest);
        }
        Some(read)
    }
}
