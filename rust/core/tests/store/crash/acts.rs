//! What a node does to its files, one variant an act: how it runs, and what it changes in the model once it answered.

use std::sync::Arc;

use ehrfast_core::block::{Block, Cause, Entry as LogEntry, Header, assemble, assemble_genesis};
use ehrfast_core::digest;
use ehrfast_core::envelope::SealedPack;
use ehrfast_core::state::WriteSet;
use ehrfast_core::store::files::{Dice, Operation};
use ehrfast_core::store::key_store::Entry;
use ehrfast_core::store::segments::{Edit, Edits};
use ehrfast_core::transaction::Transaction;

use super::world::{CHAIN, Failure, GENESIS, Going, Goings, KIND, Made, World};
use crate::store::blocks::pack;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// A block with its packs goes to the log; now and then it needs a new segment.
    Append,
    /// A few patients' keys are kept.
    Put,
    /// Some of them are forgotten.
    Forget,
    /// A checkpoint of the newest block is written, synced or not.
    Checkpoint,
    /// A block's segment is written anew without some transactions and records.
    Rewrite,
    /// Everything is opened: not picked, but what every restart does.
    Open,
}

/// Each file operation that each act needs: the seeds together must have failed them all.
pub const EXPECTED: &[(Act, Operation)] = &[
    (Act::Append, Operation::CreateNew),
    (Act::Append, Operation::SyncFolder),
    (Act::Append, Operation::Write),
    (Act::Append, Operation::Truncate),
    (Act::Append, Operation::SyncData),
    (Act::Put, Operation::Write),
    (Act::Put, Operation::SyncData),
    (Act::Forget, Operation::Write),
    (Act::Forget, Operation::SyncData),
    (Act::Forget, Operation::CreateNew),
    (Act::Forget, Operation::Rename),
    (Act::Forget, Operation::SyncFolder),
    (Act::Checkpoint, Operation::Write),
    (Act::Checkpoint, Operation::SyncData),
    (Act::Rewrite, Operation::CreateNew),
    (Act::Rewrite, Operation::Write),
    (Act::Rewrite, Operation::SyncData),
    (Act::Rewrite, Operation::Rename),
    (Act::Rewrite, Operation::SyncFolder),
    (Act::Open, Operation::CreateFolder),
    (Act::Open, Operation::CreateNew),
    (Act::Open, Operation::Rename),
    (Act::Open, Operation::Remove),
    (Act::Open, Operation::Write),
    (Act::Open, Operation::Truncate),
    (Act::Open, Operation::SyncData),
    (Act::Open, Operation::SyncFolder),
];

impl Act {
    pub fn pick(dice: &mut Dice) -> Self {
        match dice.below(11) {
            0..=4 => Act::Append,
            5 | 6 => Act::Put,
            7 => Act::Forget,
            8 => Act::Rewrite,
            _ => Act::Checkpoint,
        }
    }

    pub fn run(self, world: &mut World, dice: &mut Dice) -> Result<(), Failure> {
        match self {
            Act::Append => append(world, dice),
            Act::Put => put(world, dice),
            Act::Forget => forget(world, dice),
            Act::Checkpoint => checkpoint(world, dice),
            Act::Rewrite => rewrite(world, dice),
            Act::Open => world.open(),
        }
    }
}

fn append(world: &mut World, dice: &mut Dice) -> Result<(), Failure> {
    let made = next_block(world, dice);
    let outcome = world.node().log.append(&made.block, &made.packs);
    if outcome.is_ok() {
        world.model.acknowledge(made);
    } else {
        world.model.tried = Some(made);
    }
    Ok(outcome?)
}

/// A block that follows the acknowledged ones, with content of its own.
pub fn next_block(world: &World, dice: &mut Dice) -> Made {
    let model = &world.model;
    let (mut log, mut trie) = (model.log.clone(), model.trie.clone());
    let height = model.blocks.len() as u64;
    let header = Header {
        chain_id: CHAIN.clone(),
        height,
        engine_height: height,
        time_ms: 1_000 * height + dice.below(1_000),
        proposer: [3; 32],
    };
    let writes = writes(height, dice);
    if height == 0 {
        let (block, next) = assemble_genesis(&mut log, &trie, header, GENESIS, writes).unwrap();
        return Made { block, packs: Vec::new(), log, trie: next, gone: Goings::new(), tried: Goings::new() };
    }
    let mut packs = Vec::new();
    let entries = (0..1 + dice.below(3)).map(|_| entry(dice, &mut packs)).collect();
    let roots: Vec<_> = packs.iter().map(|pack: &Arc<SealedPack>| (pack.root, pack.wraps_root)).collect();
    let block: Block;
    (block, trie) = assemble(&mut log, &trie, header, entries, writes, &roots).unwrap();
    Made { block, packs, log, trie, gone: Goings::new(), tried: Goings::new() }
}

fn bytes(dice: &mut Dice, most: u64) -> Vec<u8> {
    let byte = dice.draw() as u8;
    (0..dice.below(most + 1)).map(|at| byte.wrapping_add(at as u8)).collect()
}

fn entry(dice: &mut Dice, packs: &mut Vec<Arc<SealedPack>>) -> LogEntry {
    let id = digest::blake3(&dice.draw().to_be_bytes());
    let receipt = bytes(dice, 30);
    if dice.below(5) == 0 {
        return LogEntry { cause: Cause::Timer(id), receipt };
    }
    let sealed = (dice.below(3) == 0).then(|| pack(dice.draw() as u8, dice.below(4) as usize));
    let received: Arc<[u8]> = bytes(dice, 400).into();
    let transaction = Transaction {
        id,
        sender: [1; 32],
        chain_id: CHAIN.clone(),
        contract: "records".to_owned(),
        method: "put".to_owned(),
        args: vec![0xa0],
        lane: 2,
        expires: 1,
        salt: [2; 16],
        attachments: sealed.iter().map(|pack| (pack.root, pack.wraps_root)).collect(),
        received_digest: digest::sha256(&received),
        received,
    };
    packs.extend(sealed);
    LogEntry { cause: Cause::Transaction(Arc::new(transaction)), receipt }
}

/// Among few paths, so that values change, go and come back.
fn writes(height: u64, dice: &mut Dice) -> WriteSet {
    let mut paths: Vec<u64> = (0..1 + dice.below(6)).map(|_| dice.below(40)).collect();
    paths.sort_unstable();
    paths.dedup();
    let value = |dice: &mut Dice| (height == 0 || dice.below(4) > 0).then(|| [vec![7; 17], bytes(dice, 40)].concat());
    let mut writes: Vec<_> = paths.into_iter().map(|path| (digest::blake3(&path.to_be_bytes()), value(dice))).collect();
    writes.sort_unstable();
    WriteSet::of(writes)
}

fn put(world: &mut World, dice: &mut Dice) -> Result<(), Failure> {
    let mut next = world.model.keys.clone();
    for _ in 0..1 + dice.below(4) {
        // Ids of their own: what was forgotten never comes back under its name.
        next.held.insert(digest::blake3(&dice.draw().to_be_bytes())[..16].to_vec(), bytes(dice, 300));
    }
    let known = &world.model.keys.held;
    let fresh: Vec<_> = next.held.iter().filter(|(id, _)| !known.contains_key(*id)).collect();
    let entries: Vec<_> = fresh.iter().map(|(id, value)| Entry { kind: KIND, id, value }).collect();
    let outcome = world.node().keys.put(&entries);
    world.model.keys_written(outcome.is_ok(), next);
    Ok(outcome?)
}

fn forget(world: &mut World, dice: &mut Dice) -> Result<(), Failure> {
    let mut next = world.model.keys.clone();
    let gone: Vec<Vec<u8>> = next.held.keys().filter(|_| dice.below(3) == 0).cloned().collect();
    gone.iter().for_each(|id| _ = next.held.remove(id));
    next.erased_height += dice.below(2);
    let ids: Vec<_> = gone.iter().map(|id| (KIND, id.as_slice())).collect();
    let outcome = world.node().keys.forget(&ids, next.erased_height);
    world.model.keys_written(outcome.is_ok(), next);
    Ok(outcome?)
}

fn checkpoint(world: &mut World, dice: &mut Dice) -> Result<(), Failure> {
    let size = world.model.log.tree_size();
    if size == 0 {
        return Ok(());
    }
    let sync = dice.below(2) == 0;
    let note = world.model.note(size);
    let outcome = world.node().slots.write(&note, sync);
    world.model.noted.push(size);
    if outcome.is_ok() && sync {
        world.model.noted = vec![size];
    }
    Ok(outcome?)
}

fn rewrite(world: &mut World, dice: &mut Dice) -> Result<(), Failure> {
    let last = (world.model.blocks.len() as u64).saturating_sub(1);
    if last == 0 {
        return Ok(());
    }
    let height = 1 + dice.below(last);
    let made = &world.model.blocks[height as usize];
    let transactions = (0..made.block.transactions.len()).map(Going::Transaction);
    let records = made.packs.iter().enumerate();
    let records = records.flat_map(|(pack, sealed)| (0..sealed.items.len()).map(move |at| Going::Record(pack, at)));
    let goings: Goings = transactions.chain(records).filter(|_| dice.below(3) == 0).collect();
    let edit = |going: &Going| match *going {
        Going::Transaction(number) => Edit::Transaction(number),
        Going::Record(pack, position) => Edit::Record { pack, position },
    };
    let edits = Edits::from([(height, goings.iter().map(edit).collect())]);
    let outcome = world.node().log.rewrite(&edits, &[], None);
    let made = &mut world.model.blocks[height as usize];
    made.tried.extend(&goings);
    if outcome.is_ok() {
        made.gone.extend(&goings);
    }
    outcome?;
    Ok(())
}
