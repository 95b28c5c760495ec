//! Every pair of a log and a state database: behind, level, ahead, of another history, or with its tail torn off.
//! Followed, each has the values and the root that the last block leaf names.

use std::path::Path;

use ehrfast_core::block::Block;
use ehrfast_core::digest;
use ehrfast_core::merkle::trie::{Trie, TrieError};
use ehrfast_core::store::files::Dice;
use ehrfast_core::store::state_db::{
    Applied, MemoryState, StateDb, StateDbError, StateStore, TransactionPlace, follow,
};

use super::acts::next_block;
use super::streams::Streams;
use super::world::World;

const KEY: [u8; 32] = [9; 32];

fn apply(state: &dyn StateStore, block: &Block) {
    let applied = Applied { height: block.head.height, leaf_hash: block.leaf_hash };
    state.apply(applied, &block.write_set, &block.transaction_ids).unwrap();
}

/// The blocks a database of `count` blocks may have applied: the log's own, past its end made-up ones; from `from`
/// on, of another history.
fn history(world: &World, count: usize, from: usize, dice: &mut Dice) -> Vec<Block> {
    let mut blocks: Vec<Block> = world.model.blocks.iter().take(count).map(|made| made.block.clone()).collect();
    while blocks.len() < count {
        let mut block = next_block(world, dice).block;
        block.head.height = blocks.len() as u64;
        blocks.push(block);
    }
    for block in blocks.iter_mut().skip(from) {
        let path = digest::blake3(&dice.draw().to_be_bytes());
        block.leaf_hash = path;
        block.write_set.writes = vec![(path, Some(vec![1; 20]))];
        block.transaction_ids = vec![(path, block.head.first_index)];
    }
    blocks
}

/// The state follows the log and is then what the log says, in every value, id and root.
fn follows(world: &World, state: &dyn StateStore) {
    let blocks = &world.model.blocks;
    let before = state.applied();
    let own = before.is_none_or(|applied| {
        blocks.get(applied.height as usize).is_some_and(|made| made.block.leaf_hash == applied.leaf_hash)
    });
    let kept = before.filter(|_| own).map_or(0, |applied| applied.height + 1);
    assert_eq!(follow(state, &world.node().log, &mut |_, _| true).unwrap(), blocks.len() as u64 - kept);
    let last = blocks.last().map(|made| &made.block);
    let expected = last.map(|block| Applied { height: block.head.height, leaf_hash: block.leaf_hash });
    assert_eq!(state.applied(), expected);
    let digests = state.entries().map(|entry| entry.map(|(path, stored)| (path, digest::blake3(&stored))).unwrap());
    let trie = Trie::load(digests.map(Ok::<_, TrieError>)).unwrap();
    assert_eq!(trie.root(), world.model.trie.root());
    assert_eq!(state.count().unwrap(), trie.len() as u64);
    for block in blocks.iter().map(|made| &made.block) {
        for (id, index) in &block.transaction_ids {
            let place = TransactionPlace { height: block.head.height, index: *index };
            assert_eq!(state.find_transaction(id).unwrap(), Some(place));
        }
    }
    assert_eq!(follow(state, &world.node().log, &mut |_, _| true).unwrap(), 0);
}

fn pair(world: &World, count: usize, from: usize, dice: &mut Dice) {
    let state = MemoryState::new();
    history(world, count, from, dice).iter().for_each(|block| apply(&*state, block));
    follows(world, &*state);
}

/// One pair, as the dice fall.
pub fn some_pair(world: &World, dice: &mut Dice) {
    let count = dice.below(world.model.blocks.len() as u64 + 4) as usize;
    let from = if dice.below(2) == 0 { usize::MAX } else { dice.below(count as u64 + 1) as usize };
    pair(world, count, from, dice);
}

/// Databases of every height up to three past the log, of its own and of another history.
pub fn every_pair(world: &World, dice: &mut Dice) {
    for count in 0..=world.model.blocks.len() + 3 {
        pair(world, count, usize::MAX, dice);
        if count > 0 {
            pair(world, count, dice.below(count as u64) as usize, dice);
        }
    }
}

/// The same on a real disk: behind, ahead, and with the tail of its journal torn off, which nobody had synced.
pub fn on_disk(world: &World, dice: &mut Dice, streams: &mut Streams) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let blocks = world.model.blocks.len();
    for count in [blocks.div_ceil(2), blocks, blocks + 2] {
        let from = if dice.below(2) == 0 { usize::MAX } else { 0 };
        let state = StateDb::open(&path, &KEY).unwrap();
        state.clear().unwrap();
        history(world, count, from, dice).iter().for_each(|block| apply(&state, block));
        drop(state);
        assert_eq!(streams.read_state(&path, &KEY), 0, "a key stream was used for two values");
        if dice.below(2) == 0 {
            tear(&path, dice);
        }
        let state = match StateDb::open(&path, &KEY) {
            Err(StateDbError::Damaged) => {
                StateDb::discard(&path).unwrap();
                StateDb::open(&path, &KEY).unwrap()
            }
            opened => opened.unwrap(),
        };
        follows(world, &state);
        drop(state);
        assert_eq!(streams.read_state(&path, &KEY), 0, "a key stream was used for two values");
    }
}

fn tear(path: &Path, dice: &mut Dice) {
    let journals = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let journal = journals.filter(|path| path.extension().is_some_and(|suffix| suffix == "jnl")).max().unwrap();
    let mut bytes = std::fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let cut = dice.below(used as u64 + 1) as usize;
    bytes[cut..].fill(0);
    if dice.below(2) == 0 {
        bytes.truncate(cut);
    }
    std::fs::write(&journal, bytes).unwrap();
}
