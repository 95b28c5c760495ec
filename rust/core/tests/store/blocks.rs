//! Small made-up blocks that follow each other as real ones do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ehrfast_core::block::{Block, BlockLeaf, genesis_leaf, timer_leaf, transaction_leaf};
use ehrfast_core::digest;
use ehrfast_core::envelope::{Part, SealedPack, root_of_parts};
use ehrfast_core::state::WriteSet;
use ehrfast_core::store::files::Files;
use ehrfast_core::store::key_store::KeyStore;
use ehrfast_core::store::segments::{LogError, OpenLog, SegmentLog};

pub const CHAIN: &str = "test-00112233445566778899aabbccddeeff";
pub const ROOT_KEY: [u8; 32] = [7; 32];

/// Block `height` with `count` transactions, after `first_index` leaves; without any, genesis or a timer's block.
pub fn block(height: u64, first_index: u64, count: usize) -> Block {
    let id = |number: usize| digest::blake3(&[height.to_be_bytes(), (number as u64).to_be_bytes()].concat());
    let mut leaves: Vec<Vec<u8>> = (0..count).map(|number| transaction_leaf(&id(number), &[9; 32], &[8; 32])).collect();
    match (count, height) {
        (0, 0) => leaves.push(genesis_leaf(b"genesis")),
        (0, _) => leaves.push(timer_leaf(&id(0), &[8; 32])),
        _ => {}
    }
    let receipts = if height == 0 && count == 0 { 0 } else { leaves.len() };
    let head = BlockLeaf {
        chain_id: CHAIN.to_owned(),
        height,
        engine_height: height,
        time_ms: 1_000 * height,
        first_index,
        leaf_count: leaves.len() as u64,
        previous_root: [1; 32],
        state_root: [2; 32],
        proposer: [3; 32],
    };
    let mut writes: Vec<_> = (0..count).map(|number| (id(number), Some(vec![number as u8; 20]))).collect();
    if height > 0 {
        writes.push((digest::blake3(&(height - 1).to_be_bytes()), None));
    }
    writes.push((digest::blake3(&height.to_be_bytes()), Some(height.to_be_bytes().repeat(4))));
    writes.sort_unstable();
    let mut made = Block {
        head,
        leaves,
        transactions: (0..count).map(|number| vec![number as u8; 50].into()).collect(),
        transaction_ids: (0..count).map(|number| (id(number), first_index + number as u64)).collect(),
        receipts: (0..receipts).map(|number| vec![number as u8; 10]).collect(),
        write_set: WriteSet::of(writes),
        leaf_hash: [0; 32],
        tree_size: 0,
        log_root: [4; 32],
    };
    close(&mut made);
    made
}

/// Puts the block leaf of its head at the end of a block's leaves.
pub fn close(block: &mut Block) {
    block.leaves.truncate(block.head.leaf_count as usize);
    block.leaves.push(block.head.encode().unwrap());
    block.leaf_hash = digest::sha256_leaf(block.leaves.last().unwrap());
    block.tree_size = block.head.tree_size().unwrap();
}

/// Blocks 0.. with these numbers of transactions.
pub fn chain(counts: &[usize]) -> Vec<Block> {
    let mut first_index = 0;
    let mut blocks = Vec::new();
    for (height, count) in counts.iter().enumerate() {
        let next = block(height as u64, first_index, *count);
        first_index = next.tree_size;
        blocks.push(next);
    }
    blocks
}

/// A pack of bytes that are no records: the log does not look into them.
pub fn pack(seed: u8, count: usize) -> Arc<SealedPack> {
    let items: Vec<_> = (0..count).map(|number| vec![seed ^ number as u8; 40 + number]).collect();
    let wraps: Vec<_> = (0..count).map(|number| vec![seed.wrapping_add(number as u8); 30]).collect();
    let root = |parts: &[Vec<u8>]| root_of_parts(&parts.iter().map(|part| Part::Kept(part)).collect::<Vec<_>>());
    Arc::new(SealedPack {
        root: root(&items),
        wraps_root: root(&wraps),
        items,
        wraps,
        commitments: Vec::new(),
        outside: BTreeMap::new(),
    })
}

pub fn keys(files: &Arc<dyn Files>, folder: &Path) -> Arc<KeyStore> {
    match KeyStore::create(Arc::clone(files), folder, &ROOT_KEY) {
        Ok(keys) => Arc::new(keys),
        Err(_) => Arc::new(KeyStore::open(Arc::clone(files), folder, &ROOT_KEY, false).unwrap()),
    }
}

pub fn open(files: &Arc<dyn Files>, checkpoint_size: u64) -> Result<SegmentLog, LogError> {
    let keys = keys(files, Path::new("keys"));
    open_with(files, keys, OpenLog { checkpoint_size, read_only: false })
}

pub fn open_with(files: &Arc<dyn Files>, keys: Arc<KeyStore>, how: OpenLog) -> Result<SegmentLog, LogError> {
    SegmentLog::open(Arc::clone(files), Path::new("log"), CHAIN, keys, how)
}
