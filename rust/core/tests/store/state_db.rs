//! The state database as a projection: it follows the log, and is thrown away when it is not the log's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ehrfast_core::state::{StateError, StateRead};
use ehrfast_core::store::files::{Files, MemoryFiles};
use ehrfast_core::store::segments::SegmentLog;
use ehrfast_core::store::state_db::{
    Applied, MemoryState, StateDb, StateDbError, StateStore, TransactionPlace, follow,
};

use super::blocks::{CHAIN, block, chain, close, keys};
use ehrfast_core::block::Block;

const KEY: [u8; 32] = [3; 32];

fn apply(state: &dyn StateStore, block: &Block) -> Result<(), StateDbError> {
    let applied = Applied { height: block.head.height, leaf_hash: block.leaf_hash };
    state.apply(applied, &block.write_set, &block.transaction_ids)
}

fn log_of(blocks: &[Block]) -> SegmentLog {
    let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
    let keys = keys(&files, Path::new("keys"));
    let log = SegmentLog::create(files, Path::new("log"), CHAIN, keys).unwrap();
    blocks.iter().for_each(|block| log.append(block, &[]).unwrap());
    log
}

fn expected(blocks: &[Block]) -> BTreeMap<[u8; 32], Vec<u8>> {
    let mut state = BTreeMap::new();
    for (path, stored) in blocks.iter().flat_map(|block| &block.write_set.writes) {
        match stored {
            Some(stored) => _ = state.insert(*path, stored.clone()),
            None => _ = state.remove(path),
        }
    }
    state
}

fn check(state: &dyn StateStore, blocks: &[Block]) {
    let expected = expected(blocks);
    let entries: Vec<_> = state.entries().map(Result::unwrap).collect();
    assert_eq!(entries, expected.clone().into_iter().collect::<Vec<_>>());
    let ends = [[0; 32], [0x40; 32], [0x80; 32], [0xff; 32]].into_iter().chain(expected.keys().take(3).copied());
    for (from, to) in ends.clone().flat_map(|from| ends.clone().map(Some).chain([None]).map(move |to| (from, to))) {
        let found: Vec<_> = state.range(from, to).map(|entry| entry.unwrap().0).collect();
        let within = |path: &&[u8; 32]| **path >= from && to.is_none_or(|to| **path < to);
        assert_eq!(found, expected.keys().filter(within).copied().collect::<Vec<_>>(), "{from:?} {to:?}");
    }
    assert_eq!(state.count().unwrap(), expected.len() as u64);
    for (path, stored) in &expected {
        assert_eq!(state.get(path).unwrap().as_ref(), Some(stored));
    }
    assert_eq!(state.get(&[0; 32]).unwrap(), None);
    for block in blocks {
        for (id, index) in &block.transaction_ids {
            let place = TransactionPlace { height: block.head.height, index: *index };
            assert_eq!(state.find_transaction(id).unwrap(), Some(place));
        }
    }
    let applied = blocks.last().map(|last| Applied { height: last.head.height, leaf_hash: last.leaf_hash });
    assert_eq!(state.applied(), applied);
}

#[test]
fn both_stores_hold_the_same_after_every_block() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain(&[0, 3, 0, 50, 1]);
    let memory = MemoryState::new();
    for height in 0..blocks.len() {
        let disk = StateDb::open(folder.path(), &KEY).unwrap();
        for state in [&*memory as &dyn StateStore, &disk] {
            check(state, &blocks[..height]);
            apply(state, &blocks[height]).unwrap();
            check(state, &blocks[..=height]);
            let again = apply(state, &blocks[height]);
            assert!(matches!(again, Err(StateDbError::NotNext { expected, given }) if expected == given + 1));
        }
    }
    let disk = StateDb::open(folder.path(), &KEY).unwrap();
    for state in [&*memory as &dyn StateStore, &disk] {
        check(state, &blocks);
        state.clear().unwrap();
        check(state, &[]);
        assert_eq!(state.find_transaction(&blocks[1].transaction_ids[0].0).unwrap(), None);
        apply(state, &blocks[0]).unwrap();
    }
}

#[test]
fn follows_the_log_from_behind_from_ahead_and_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain(&[1, 2, 3, 4]);
    let disk = StateDb::open(folder.path(), &KEY).unwrap();
    let memory = MemoryState::new();
    for state in [&*memory as &dyn StateStore, &disk] {
        assert_eq!(follow(state, &log_of(&blocks[..2]), &mut |_, _| true).unwrap(), 2);
        assert_eq!(follow(state, &log_of(&blocks), &mut |_, _| true).unwrap(), 2);
        check(state, &blocks);
        assert_eq!(follow(state, &log_of(&blocks), &mut |_, _| true).unwrap(), 0);
        // Ahead of the log: the frame it rests on was never synced.
        assert_eq!(follow(state, &log_of(&blocks[..3]), &mut |_, _| true).unwrap(), 3);
        check(state, &blocks[..3]);
        // The same height with another leaf.
        let mut other = blocks[..2].to_vec();
        other.push(block(2, blocks[1].tree_size, 5));
        other[2].head.time_ms += 1;
        close(&mut other[2]);
        assert_eq!(follow(state, &log_of(&other), &mut |_, _| true).unwrap(), 3);
        check(state, &other);
        assert_eq!(follow(state, &log_of(&[]), &mut |_, _| true).unwrap(), 0);
        check(state, &[]);
    }
}

#[test]
fn one_handle_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _held = StateDb::open(folder.path(), &KEY).unwrap();
    assert!(matches!(StateDb::open(folder.path(), &KEY), Err(StateDbError::Locked)));
}

#[test]
fn a_wrong_key_or_damaged_files_are_damage_and_can_be_discarded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let blocks = chain(&[5, 5]);
    let state = StateDb::open(&path, &KEY).unwrap();
    blocks.iter().for_each(|block| apply(&state, block).unwrap());
    drop(state);
    assert!(matches!(StateDb::open(&path, &[4; 32]), Err(StateDbError::Damaged)));
    let journal = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let journal = journal.filter(|path| path.extension().is_some_and(|suffix| suffix == "jnl")).max().unwrap();
    let bytes = std::fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let mut seen_old = 0;
    for at in (0..used).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        std::fs::write(&journal, &flipped).unwrap();
        // Whatever is found is the state after some block, or said to be damaged.
        match StateDb::open(&path, &KEY) {
            Ok(state) => {
                let height = state.applied().map_or(0, |applied| applied.height as usize + 1);
                let values = state.entries().map(Result::unwrap).collect::<Vec<_>>();
                assert_eq!(values, expected(&blocks[..height]).into_iter().collect::<Vec<_>>(), "{at}");
                seen_old += usize::from(height < 2);
            }
            Err(StateDbError::Damaged) => {}
            Err(other) => panic!("{at}: {other:?}"),
        }
        // Opening may have cut the journal or begun another.
        for entry in std::fs::read_dir(&path).unwrap() {
            let found = entry.unwrap().path();
            if found.extension().is_some_and(|suffix| suffix == "jnl") && found != journal {
                std::fs::remove_file(found).unwrap();
            }
        }
    }
    assert!(seen_old > 0);
    std::fs::write(path.join("version"), b"garbage").unwrap();
    assert!(matches!(StateDb::open(&path, &KEY), Err(StateDbError::Damaged)));
    StateDb::discard(&path).unwrap();
    StateDb::discard(&path).unwrap();
    check(&StateDb::open(&path, &KEY).unwrap(), &[]);
}

#[test]
fn values_are_sealed_to_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut made = block(0, 0, 1);
    made.write_set.writes = vec![([1; 32], Some(b"marked-value-one".to_vec())), ([2; 32], Some(b"two".to_vec()))];
    let state = StateDb::open(&path, &KEY).unwrap();
    apply(&state, &made).unwrap();
    drop(state);
    let mut files = vec![path.clone()];
    while let Some(next) = files.pop() {
        match std::fs::read_dir(&next) {
            Ok(entries) => files.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) => {
                let bytes = std::fs::read(&next).unwrap();
                assert!(!bytes.windows(12).any(|window| window == b"marked-value"), "{}", next.display());
            }
        }
    }
    // Swap two rows below our feet: each is authentic, but not here.
    {
        let database = fjall::Database::builder(&path).open().unwrap();
        let rows = database.keyspace("state", fjall::KeyspaceCreateOptions::default).unwrap();
        let (one, two) = (rows.get([1; 32]).unwrap().unwrap(), rows.get([2; 32]).unwrap().unwrap());
        rows.insert([1; 32], two).unwrap();
        rows.insert([2; 32], one).unwrap();
    }
    let state = StateDb::open(&path, &KEY).unwrap();
    assert!(matches!(state.get(&[1; 32]), Err(StateError::Corrupt(path)) if path == [1; 32]));
    assert!(state.entries().any(|entry| entry.is_err()));
}
