//! The top of the trie and the tiles of the log: whatever is kept of them, and however it fits the log, a chain opens
//! with the same trie and the same tree.

use std::path::Path;
use std::sync::Arc;

use ehrfast_core::block::Block;
use ehrfast_core::digest::sha256_leaf;
use ehrfast_core::merkle::log::{Log, LogError};
use ehrfast_core::merkle::trie::{Trie, TrieError};
use ehrfast_core::merkle::verify::verify_inclusion;
use ehrfast_core::state::StateRead;
use ehrfast_core::store::files::{Files, MemoryFiles};
use ehrfast_core::store::projection::{ProjectionError, keep_top, publish, restore_log, restore_state, store_tiles};
use ehrfast_core::store::segments::SegmentLog;
use ehrfast_core::store::state_db::{Applied, MemoryState, StateDb, StateDbError, StateStore};

use super::blocks::{CHAIN, chain, close, keys};

const KEY: [u8; 32] = [3; 32];

/// Blocks whose leaves name the roots that they have.
fn linked(counts: &[usize]) -> Vec<Block> {
    let (mut log, mut trie) = (Log::new(), Trie::new());
    let mut blocks = chain(counts);
    for block in &mut blocks {
        trie = trie.update(&block.write_set).unwrap();
        block.head.previous_root = log.root();
        block.head.state_root = trie.root();
        close(block);
        log.append(&block.leaves);
        block.log_root = log.root();
    }
    blocks
}

fn log_of(blocks: &[Block]) -> Arc<SegmentLog> {
    let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
    let keys = keys(&files, Path::new("keys"));
    let log = SegmentLog::create(files, Path::new("log"), CHAIN, keys).unwrap();
    blocks.iter().for_each(|block| log.append(block, &[]).unwrap());
    Arc::new(log)
}

fn applied(block: &Block) -> Applied {
    Applied { height: block.head.height, leaf_hash: block.leaf_hash }
}

/// A node that goes on from where it is to the end of the blocks.
fn run(store: &dyn StateStore, blocks: &[Block], mut trie: Trie, mut log: Log) -> (Trie, Log) {
    for block in blocks {
        trie = trie.update(&block.write_set).unwrap();
        log.append(&block.leaves);
        publish(store, applied(block), &block.write_set, &block.transaction_ids, &trie).unwrap();
        store_tiles(store, &mut log, block.tree_size).unwrap();
    }
    (trie, log)
}

fn open(store: &dyn StateStore, segments: &Arc<SegmentLog>) -> Result<(Trie, Log, u64), ProjectionError> {
    let mut steps = 0;
    let mut count = |_, _| {
        steps += 1;
        true
    };
    let trie = restore_state(store, segments, &mut count)?;
    let log = restore_log(store, segments, &mut count)?;
    Ok((trie, log, steps))
}

/// Roots, a proof of every leaf, a proof of every key of the last block.
fn check(store: &dyn StateStore, trie: &Trie, log: &Log, blocks: &[Block]) {
    let last = blocks.last().unwrap();
    assert_eq!(trie.root(), last.head.state_root);
    assert_eq!((log.root(), log.tree_size()), (last.log_root, last.tree_size));
    assert_eq!(store.applied(), Some(applied(last)));
    for (index, leaf) in (0..).zip(blocks.iter().flat_map(|block| &block.leaves)) {
        let hash = sha256_leaf(leaf);
        assert_eq!(log.leaf_hash(index), Ok(hash));
        let proof = log.prove_inclusion(index, last.tree_size).unwrap();
        verify_inclusion(&hash, index, last.tree_size, &proof, &last.log_root).unwrap();
    }
    for (path, stored) in &last.write_set.writes {
        trie.prove(path).unwrap().verify(&trie.root(), path, stored.as_deref()).unwrap();
    }
}

const COUNTS: [usize; 24] = [0, 3, 60, 0, 1, 200, 5, 90, 1, 1, 30, 300, 2, 0, 0, 70, 8, 8, 8, 120, 1, 1, 1, 4];

#[test]
fn opens_after_every_block_whatever_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = linked(&COUNTS);
    let (mut trie, mut log) = (Trie::new(), Log::new());
    for height in 1..=blocks.len() {
        let segments = log_of(&blocks[..height]);
        let state = StateDb::open(folder.path(), &KEY).unwrap();
        if height > 1 {
            let done = open(&state, &log_of(&blocks[..height - 1])).unwrap();
            (trie, log) = (done.0, done.1);
        }
        (trie, log) = run(&state, &blocks[height - 1..height], trie, log);
        if height % 3 == 0 {
            keep_top(&state, &trie).unwrap();
        }
        drop(state);
        let state = StateDb::open(folder.path(), &KEY).unwrap();
        let (trie, log, _) = open(&state, &segments).unwrap();
        check(&state, &trie, &log, &blocks[..height]);
    }
    let state = StateDb::open(folder.path(), &KEY).unwrap();
    let segments = log_of(&blocks);
    let (trie, _, _) = open(&state, &segments).unwrap();
    keep_top(&state, &trie).unwrap();
    // Nothing to replay, and of the log only what lies behind the last whole tile.
    assert_eq!(open(&state, &segments).unwrap().2, 1);
    let memory = MemoryState::new();
    let (trie, log, _) = open(&*memory, &segments).unwrap();
    check(&*memory, &trie, &log, &blocks);
}

#[test]
fn opens_with_a_database_from_behind_from_ahead_and_from_elsewhere() {
    let blocks = linked(&COUNTS);
    let mut counts = COUNTS;
    counts[20] += 1;
    let other = linked(&counts);
    for (had, has) in [
        (&blocks[..5], &blocks[..]),
        (&blocks[..], &blocks[..7]),
        (&other[..], &blocks[..]),
        (&other[..21], &blocks[..]),
        (&blocks[..1], &blocks[..1]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDb::open(folder.path(), &KEY).unwrap();
        let (trie, _) = run(&state, had, Trie::new(), Log::new());
        keep_top(&state, &trie).unwrap();
        drop(state);
        let state = StateDb::open(folder.path(), &KEY).unwrap();
        let (trie, log, _) = open(&state, &log_of(has)).unwrap();
        check(&state, &trie, &log, has);
    }
}

fn rows_of(state: &StateDb) -> Vec<Vec<u8>> {
    let shelf = state.shelf().unwrap();
    let name = |name: &str, number: u64| [name.as_bytes(), b"/", &number.to_be_bytes()].concat();
    let names = [b"trie/top".to_vec(), b"log/tiles".to_vec(), name("trie/top", 0), name("log/0", 0), name("log/0", 2)];
    names.into_iter().filter(|name| shelf.get(name).unwrap().is_some()).collect()
}

#[test]
fn rows_that_are_missing_or_others_cost_time_and_nothing_else() {
    let blocks = linked(&COUNTS);
    let segments = log_of(&blocks);
    let folder = tempfile::tempdir().unwrap();
    let state = StateDb::open(folder.path(), &KEY).unwrap();
    let (trie, _) = run(&state, &blocks, Trie::new(), Log::new());
    keep_top(&state, &trie).unwrap();
    let shelf = state.shelf().unwrap();
    let names = rows_of(&state);
    assert_eq!(names.len(), 5);
    for name in names {
        let row = shelf.get(&name).unwrap().unwrap();
        let half = row.len() / 2;
        let mut flipped = row.clone();
        flipped[half] ^= 1;
        let mut last = row.clone();
        *last.last_mut().unwrap() ^= 1;
        for given in [
            None,
            Some(flipped),
            Some(last),
            Some(row[..half].to_vec()),
            Some(Vec::new()),
            Some([&row[..], &row].concat()),
        ] {
            shelf.put(&[(name.clone(), given)]).unwrap();
            let (trie, log, _) = open(&state, &segments).unwrap();
            check(&state, &trie, &log, &blocks);
            shelf.put(&[(name.clone(), Some(row.clone()))]).unwrap();
        }
    }
}

#[test]
fn a_state_that_is_not_the_logs_is_found_when_it_is_read_and_made_anew() {
    let blocks = linked(&[0, 40, 900]);
    let segments = log_of(&blocks);
    let folder = tempfile::tempdir().unwrap();
    let state = StateDb::open(folder.path(), &KEY).unwrap();
    let mut wrong = blocks.clone();
    let (path, stored) = wrong[2].write_set.writes[500].clone();
    wrong[2].write_set.writes[500].1 = Some(vec![9; 20]);
    let (trie, _) = run(&state, &wrong[..2], Trie::new(), Log::new());
    state.apply(applied(&wrong[2]), &wrong[2].write_set, &wrong[2].transaction_ids).unwrap();
    keep_top(&state, &trie.update(&blocks[2].write_set).unwrap()).unwrap();
    let (trie, _, _) = open(&state, &segments).unwrap();
    assert_eq!(trie.root(), blocks[2].head.state_root);
    assert!(matches!(trie.prove(&path), Err(TrieError::Damaged(_))));
    assert_eq!(state.get(&path).unwrap(), Some(vec![9; 20]));
    drop(state);
    let state = StateDb::open(folder.path(), &KEY).unwrap();
    assert_eq!(state.applied(), None);
    let (trie, log, _) = open(&state, &segments).unwrap();
    check(&state, &trie, &log, &blocks);
    assert_eq!(state.get(&path).unwrap(), stored);
    // Without a top the scan shows it at once.
    state.clear().unwrap();
    for block in &wrong {
        state.apply(applied(block), &block.write_set, &block.transaction_ids).unwrap();
    }
    let (trie, log, _) = open(&state, &segments).unwrap();
    check(&state, &trie, &log, &blocks);
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let blocks = linked(&COUNTS[..8]);
    let folder = tempfile::tempdir().unwrap();
    for state in [&*MemoryState::new() as &dyn StateStore, &StateDb::open(folder.path(), &KEY).unwrap()] {
        let mut wrong = blocks.clone();
        wrong[7].head.state_root[0] ^= 1;
        close(&mut wrong[7]);
        assert!(matches!(open(state, &log_of(&wrong)), Err(ProjectionError::WrongRoot { height: 7 })));
        let mut wrong = blocks.clone();
        wrong[5].head.previous_root[0] ^= 1;
        close(&mut wrong[5]);
        assert!(matches!(open(state, &log_of(&wrong)), Err(ProjectionError::BrokenLink { height: 5 })));
        assert!(matches!(open(state, &log_of(&[])), Err(ProjectionError::NoBlock)));
        state.clear().unwrap();
        let stopped = restore_state(state, &log_of(&blocks), &mut |_, _| false);
        assert!(matches!(stopped, Err(ProjectionError::State(StateDbError::Stopped))));
    }
}

#[test]
fn tiles_answer_as_memory_does_and_are_made_anew_from_the_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDb::open(folder.path(), &KEY).unwrap();
    let leaves: Vec<_> = (0..70_000_u64).map(u64::to_le_bytes).collect();
    let (mut log, mut twin) = (Log::new(), Log::new());
    for part in leaves.chunks(9_999) {
        log.append(part);
        twin.append(part);
        let published = log.tree_size() - 10;
        store_tiles(&state, &mut log, published).unwrap();
        assert_eq!(log.stored_leaves(), published / 256 * 256);
        assert_eq!(log.root(), twin.root());
    }
    for size in [1, 255, 256, 257, 65_535, 65_536, 65_537, 69_999, 70_000] {
        assert_eq!(log.root_at(size), twin.root_at(size));
        assert_eq!(log.frontier(size), twin.frontier(size));
        assert_eq!(log.prove_consistency(size, 70_000), twin.prove_consistency(size, 70_000));
        for index in [0, 1, 17, 255, 256, 12_345, 65_535, 65_536, 69_800].into_iter().filter(|index| *index < size) {
            assert_eq!(log.prove_inclusion(index, size), twin.prove_inclusion(index, size), "{index} of {size}");
        }
    }
    for (level, index, width) in [(0, 0, 256), (0, 100, 7), (0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)] {
        assert_eq!(log.tile(level, index, width), twin.tile(level, index, width));
    }
    assert_eq!(log.truncate(69_000), Err(LogError::Stored { stored: 69_888 }));
    log.truncate(69_990).unwrap();
    log.append_hashes(&[[1; 32]]);
    twin.truncate(69_990).unwrap();
    twin.append_hashes(&[[1; 32]]);
    assert_eq!(log.root(), twin.root());
    // Nothing here knows the blocks, so a damaged tile is told as such.
    let name = [&b"log/0/"[..], &9_u64.to_be_bytes()].concat();
    let shelf = state.shelf().unwrap();
    let mut row = shelf.get(&name).unwrap().unwrap();
    row[40] ^= 1;
    shelf.put(&[(name, Some(row))]).unwrap();
    assert_eq!(log.prove_inclusion(9 * 256, 69_991), Err(LogError::TileDamaged { index: 9 }));
    assert_eq!(log.prove_inclusion(10 * 256, 69_991), twin.prove_inclusion(10 * 256, 69_991));
}
