//! What is kept beside the state so that a chain opens without reading its whole log: the top of the state trie and
//! the tiles of the log. Owns the order in which a block reaches the projections. Invariant: nothing here is believed:
//! the trie's root is the block leaf's, the log's the next block leaf's, and both are rebuilt where they are not.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};

use thiserror::Error;

use super::segments::{LogError, SegmentLog};
use super::state_db::{Applied, Shelf, StateDbError, StateStore, follow};
use crate::digest::{self, Digest};
use crate::merkle::log::{self, Log};
use crate::merkle::log_tiles::{TILE_LEAVES, TileStore, claimed_root, tile_bytes};
use crate::merkle::trie::{Trie, TrieError};
use crate::merkle::trie_source::LeafSource;
use crate::state::{Path, StateError, WriteSet};

/// Leaves of the trie that stay in memory though the state database has them: some 500,000 keys.
pub const HOT_BYTES: usize = 48 * 1024 * 1024;
/// The top is kept after so many changed keys, or a sixteenth of all.
const TOP_KEYS: u64 = 1 << 16;
/// And after so many blocks: what an open after a crash has to read again.
const TOP_BLOCKS: u64 = 4096;
const TOP_PIECE_BYTES: usize = 1 << 20;
/// Above so many changed paths a scan of everything is the shorter way.
const RESCAN_PATHS: usize = 1 << 20;
/// Tiles written in one batch.
const TILES_AT_ONCE: usize = 256;

const TOP: &[u8] = b"trie/top";
const TILES: &[u8] = b"log/tiles";

/// Called with blocks done and their total; false stops the work.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Why the projections were not brought to a block.
#[derive(Debug, Error)]
pub enum ProjectionError {
    /// The state database failed.
    #[error(transparent)]
    State(#[from] StateDbError),
    /// The block log failed.
    #[error(transparent)]
    Segments(#[from] LogError),
    /// The trie failed.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// The tree of the log failed.
    #[error(transparent)]
    Log(#[from] log::LogError),
    /// The replayed state does not have the root of the block leaf.
    #[error("the state after block {height} does not have the root of its block leaf")]
    WrongRoot {
        /// The block.
        height: u64,
    },
    /// A block that does not follow the one before.
    #[error("block {height} does not follow the one before it")]
    BrokenLink {
        /// The block.
        height: u64,
    },
    /// There is no block.
    #[error("the block log is empty")]
    NoBlock,
}

/// Brings a durable block to every projection: the state, the trie version after it, the tree of the log.
pub fn publish(
    store: &dyn StateStore,
    block: Applied,
    writes: &WriteSet,
    ids: &[([u8; 32], u64)],
    trie: &Trie,
) -> Result<(), ProjectionError> {
    store.apply(block, writes, ids)?;
    if let Some(snapshot) = store.snapshot() {
        trie.settle(snapshot);
        let (keys, blocks) = trie.unsaved();
        if keys >= TOP_KEYS.max(trie.len() as u64 / 16) || blocks >= TOP_BLOCKS {
            keep_top(store, trie)?;
        }
    }
    Ok(())
}

// ── the top of the trie ──────────────────────────────────────────────────────────────────────────────────────────

fn numbered(name: &[u8], number: u64) -> Vec<u8> {
    [name, b"/", &number.to_be_bytes()].concat()
}

/// Keeps the top of the version that the store has applied last.
pub fn keep_top(store: &dyn StateStore, trie: &Trie) -> Result<(), ProjectionError> {
    let (Some(shelf), Some(applied)) = (store.shelf(), store.applied()) else { return Ok(()) };
    let top = trie.top();
    let pieces: Vec<&[u8]> = top.chunks(TOP_PIECE_BYTES).collect();
    let older = shelf.get(TOP)?.as_deref().and_then(read_header).map_or(0, |(_, pieces)| pieces);
    let surplus = (pieces.len() as u64..older).map(|piece| (numbered(TOP, piece), None));
    let header = [&applied.height.to_be_bytes()[..], &applied.leaf_hash, &(pieces.len() as u64).to_be_bytes()].concat();
    let mut rows = vec![(TOP.to_vec(), Some(header))];
    rows.extend((0..).zip(pieces).map(|(piece, bytes)| (numbered(TOP, piece), Some(bytes.to_vec()))));
    rows.extend(surplus);
    shelf.put(&rows)?;
    trie.note_saved();
    Ok(())
}

fn read_header(row: &[u8]) -> Option<(Applied, u64)> {
    let (height, rest) = row.split_first_chunk()?;
    let (leaf_hash, pieces) = rest.split_first_chunk()?;
    let applied = Applied { height: u64::from_be_bytes(*height), leaf_hash: *leaf_hash };
    Some((applied, u64::from_be_bytes(pieces.try_into().ok()?)))
}

/// Brings a state to the log's last block and gives the trie of it, whose root is that of the block leaf.
///
/// # Errors
/// [`ProjectionError::WrongRoot`] when a replay of the whole log does not lead to it either.
pub fn restore_state(
    store: &dyn StateStore,
    segments: &SegmentLog,
    progress: Progress<'_>,
) -> Result<Trie, ProjectionError> {
    let height = segments.height().ok_or(ProjectionError::NoBlock)?;
    let root = segments.read(height)?.head()?.state_root;
    let replayed = follow(store, segments, progress)?;
    match trie_of(store, segments, height) {
        Ok(trie) if trie.root() == root => return Ok(trie),
        Ok(_) | Err(ProjectionError::Trie(TrieError::Damaged(_)) | ProjectionError::State(StateDbError::Damaged)) => {}
        Err(error) => return Err(error),
    }
    if replayed <= height {
        // Whatever the database holds instead, the log has it right.
        store.clear()?;
        follow(store, segments, progress)?;
        let trie = trie_of(store, segments, height)?;
        if trie.root() == root {
            return Ok(trie);
        }
    }
    Err(ProjectionError::WrongRoot { height })
}

fn trie_of(store: &dyn StateStore, segments: &SegmentLog, height: u64) -> Result<Trie, ProjectionError> {
    let Some(snapshot) = store.snapshot() else {
        let hashed = |entry: Result<(Path, Vec<u8>), StateError>| match entry {
            Ok((path, stored)) => Ok((path, digest::blake3(&stored))),
            Err(error) => Err(TrieError::from(error)),
        };
        return Ok(Trie::load(store.entries().map(hashed))?);
    };
    if let Some((trie, behind)) = resume(store, segments, &snapshot, height)? {
        if behind >= TOP_BLOCKS / 4 {
            keep_top(store, &trie)?;
        }
        return Ok(trie);
    }
    let trie = Trie::scan(snapshot, HOT_BYTES)?;
    keep_top(store, &trie)?;
    Ok(trie)
}

/// The kept top, and what the blocks since have changed read again; and how many blocks those were.
fn resume(
    store: &dyn StateStore,
    segments: &SegmentLog,
    snapshot: &Arc<dyn LeafSource>,
    height: u64,
) -> Result<Option<(Trie, u64)>, ProjectionError> {
    let Some(shelf) = store.shelf() else { return Ok(None) };
    let Some((kept, top)) = read_top(&*shelf)? else { return Ok(None) };
    if kept.height > height {
        return Ok(None);
    }
    let frame = segments.read(kept.height)?;
    let Some(trie) = Trie::from_top(&top, Arc::clone(snapshot), HOT_BYTES) else { return Ok(None) };
    if frame.leaf_hash()? != kept.leaf_hash || frame.head()?.state_root != trie.root() {
        return Ok(None);
    }
    let mut changed = BTreeSet::new();
    for block in kept.height + 1..=height {
        changed.extend(segments.read(block)?.write_set()?.iter().map(|(path, _)| *path));
        if changed.len() > RESCAN_PATHS {
            return Ok(None);
        }
    }
    let trie = trie.rescanned(&changed.into_iter().collect::<Vec<_>>())?;
    let root = segments.read(height)?.head()?.state_root;
    Ok((trie.root() == root).then_some((trie, height - kept.height)))
}

fn read_top(shelf: &dyn Shelf) -> Result<Option<(Applied, Vec<u8>)>, ProjectionError> {
    let read = || {
        let Some((applied, pieces)) = shelf.get(TOP)?.as_deref().and_then(read_header) else { return Ok(None) };
        let mut top = Vec::new();
        for piece in 0..pieces {
            let Some(bytes) = shelf.get(&numbered(TOP, piece))? else { return Ok(None) };
            top.extend_from_slice(&bytes);
        }
        Ok(Some((applied, top)))
    };
    match read() {
        Err(StateDbError::Damaged) => Ok(None),
        outcome => Ok(outcome?),
    }
}

// ── the tiles of the log ─────────────────────────────────────────────────────────────────────────────────────────

#[derive(Debug)]
struct StoredTiles {
    shelf: Arc<dyn Shelf>,
    segments: Option<Weak<SegmentLog>>,
}

impl TileStore for StoredTiles {
    fn tile(&self, index: u64) -> io::Result<Option<Vec<u8>>> {
        match self.shelf.get(&numbered(b"log/0", index)) {
            Ok(row) => Ok(row),
            Err(StateDbError::Damaged) => Ok(None),
            Err(StateDbError::Io(cause)) => Err(cause),
            Err(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn rebuild(&self, index: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(segments) = self.segments.as_ref().and_then(Weak::upgrade) else { return Ok(None) };
        let made = match leaves_of_tile(&segments, index) {
            Ok(leaves) => leaves.map(|leaves| tile_bytes(&leaves)),
            Err(LogError::Io(cause)) => return Err(cause),
            Err(_) => None,
        };
        if let Some(bytes) = &made
            && let Err(StateDbError::Io(cause)) = self.shelf.put(&[(numbered(b"log/0", index), Some(bytes.clone()))])
        {
            return Err(cause);
        }
        Ok(made)
    }
}

fn leaves_of_tile(segments: &SegmentLog, index: u64) -> Result<Option<Vec<Digest>>, LogError> {
    let width = TILE_LEAVES as u64;
    let first = index.saturating_mul(width);
    let heights = (segments.height_of(first), segments.height_of(first.saturating_add(width - 1)));
    let (Some(from), Some(to)) = heights else { return Ok(None) };
    let before = (first - segments.read(from)?.first_index()?) as usize;
    let leaves = segments.leaf_hashes(from, to + 1)?;
    Ok(leaves.get(before..before + TILE_LEAVES).map(<[Digest]>::to_vec))
}

/// Moves the whole tiles among the first `tree_size` leaves, all of them published, from memory to the store.
pub fn store_tiles(store: &dyn StateStore, log: &mut Log, tree_size: u64) -> Result<(), ProjectionError> {
    if tree_size.min(log.tree_size()) - log.stored_leaves().min(tree_size) < TILE_LEAVES as u64 {
        return Ok(());
    }
    let Some(shelf) = store.shelf() else { return Ok(()) };
    let tiles: Arc<dyn TileStore> = Arc::new(StoredTiles { shelf: Arc::clone(&shelf), segments: None });
    let mut waiting = log.unstored_tiles(tree_size);
    while !waiting.is_empty() {
        let later = waiting.split_off(waiting.len().min(TILES_AT_ONCE));
        let first = waiting[0].0;
        let count = first + waiting.len() as u64;
        let mut rows: Vec<_> =
            waiting.into_iter().map(|(index, bytes)| (numbered(b"log/0", index), Some(bytes))).collect();
        // Roots of 256 tiles at a time, so that opening need not read the tiles.
        for group in first / TILE_LEAVES as u64..count / TILE_LEAVES as u64 {
            let start = group as usize * TILE_LEAVES;
            let roots = log.tile_roots().get(start..start + TILE_LEAVES).unwrap_or_default().as_flattened().to_vec();
            rows.push((numbered(b"log/1", group), Some(roots)));
        }
        rows.push((TILES.to_vec(), Some(count.to_be_bytes().to_vec())));
        shelf.put(&rows)?;
        log.forget_stored(&tiles, count as usize);
        waiting = later;
    }
    Ok(())
}

/// The tree of the log: its tiles from the store, the rest from the blocks behind them. Whatever does not fit the
/// block leaves is read from the blocks instead.
///
/// # Errors
/// [`ProjectionError::BrokenLink`]
pub fn restore_log(
    store: &dyn StateStore,
    segments: &Arc<SegmentLog>,
    progress: Progress<'_>,
) -> Result<Log, ProjectionError> {
    let height = segments.height().ok_or(ProjectionError::NoBlock)?;
    let first_index = segments.read(height)?.first_index()?;
    let Some(shelf) = store.shelf() else { return extended(Log::new(), store, segments, progress) };
    let tiles: Arc<dyn TileStore> =
        Arc::new(StoredTiles { shelf: Arc::clone(&shelf), segments: Some(Arc::downgrade(segments)) });
    // Only tiles that lie before the last block, whose leaf then shows that they are the log's.
    let roots = match stored_roots(&*shelf, first_index / TILE_LEAVES as u64) {
        Err(StateDbError::Damaged) => None,
        outcome => outcome?,
    };
    if let Some(roots) = roots {
        match extended(Log::stored(Arc::clone(&tiles), roots), store, segments, progress) {
            Err(ProjectionError::BrokenLink { .. } | ProjectionError::Log(log::LogError::TileDamaged { .. })) => {}
            outcome => return outcome,
        }
    }
    extended(Log::stored(tiles, Vec::new()), store, segments, progress)
}

fn stored_roots(shelf: &dyn Shelf, most: u64) -> Result<Option<Vec<Digest>>, StateDbError> {
    let Some(count) = shelf.get(TILES)?.and_then(|row| row.try_into().ok()).map(u64::from_be_bytes) else {
        return Ok(None);
    };
    let (count, width) = (count.min(most), TILE_LEAVES as u64);
    let mut roots = Vec::new();
    for group in 0..count / width {
        let Some(row) = shelf.get(&numbered(b"log/1", group))? else { return Ok(None) };
        let (row, []) = row.as_chunks::<32>() else { return Ok(None) };
        roots.extend_from_slice(row);
    }
    for index in roots.len() as u64..count {
        let Some(root) = shelf.get(&numbered(b"log/0", index))?.as_deref().and_then(claimed_root) else {
            return Ok(None);
        };
        roots.push(root);
    }
    Ok((roots.len() as u64 == count).then_some(roots))
}

/// Reads the blocks behind a log, each of which names the root before it.
fn extended(
    mut log: Log,
    store: &dyn StateStore,
    segments: &SegmentLog,
    progress: Progress<'_>,
) -> Result<Log, ProjectionError> {
    let last = segments.height().ok_or(ProjectionError::NoBlock)?;
    let first = segments.height_of(log.tree_size()).unwrap_or(last);
    for height in first..=last {
        let frame = segments.read(height)?;
        let head = frame.head()?;
        let leaves = frame.leaves()?;
        let linked = head.height == height
            && head.chain_id == segments.chain_id()
            && head.first_index == frame.first_index()?
            && head.first_index <= log.tree_size();
        if !linked {
            return Err(ProjectionError::BrokenLink { height });
        }
        let known = (log.tree_size() - head.first_index) as usize;
        log.append(leaves.get(known..).unwrap_or_default());
        if log.root_at(head.first_index)? != head.previous_root {
            return Err(ProjectionError::BrokenLink { height });
        }
        store_tiles(store, &mut log, head.first_index)?;
        if (height == last || height % 256 == 0) && !progress(height - first + 1, last - first + 1) {
            return Err(StateDbError::Stopped.into());
        }
    }
    Ok(log)
}
