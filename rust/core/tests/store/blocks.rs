//! Small made-up blocks that follow each other as real ones do.

use std::path::Path;
use std::sync::Arc;

use ehrfast_core::block::{Block, BlockLeaf};
use ehrfast_core::digest;
use ehrfast_core::envelope::SealedPack;
use ehrfast_core::state::WriteSet;
use ehrfast_core::store::files::Files;
use ehrfast_core::store::key_store::KeyStore;
use ehrfast_core::store::segments::{LogError, OpenLog, SegmentLog};

pub const CHAIN: &str = "test-00112233445566778899aabbccddeeff";
pub const ROOT_KEY: [u8; 32] = [7; 32];

/// Block `height` with `count` transactions, after `first_index` leaves.
pub fn block(height: u64, first_index: u64, count: usize) -> Block {
    let id = |number: usize| digest::blake3(&[height.to_be_bytes(), (number as u64).to_be_bytes()].concat());
    let mut leaves: Vec<Vec<u8>> = (0..count).map(|number| [&[1], &id(number)[..], &[9; 64]].concat()).collect();
    leaves.push([&[2], &height.to_be_bytes()[..]].concat());
    let leaf_hash = digest::sha256_leaf(leaves.last().unwrap());
    let mut writes: Vec<_> = (0..count).map(|number| (id(number), Some(vec![number as u8; 20]))).collect();
    if height > 0 {
        writes.push((digest::blake3(&(height - 1).to_be_bytes()), None));
    }
    writes.push((digest::blake3(&height.to_be_bytes()), Some(height.to_be_bytes().repeat(4))));
    writes.sort_unstable();
    Block {
        head: BlockLeaf {
            chain_id: CHAIN.to_owned(),
            height,
            engine_height: height,
            time_ms: 1_000 * height,
            first_index,
            leaf_count: count as u64,
            previous_root: [1; 32],
            state_root: [2; 32],
            proposer: [3; 32],
        },
        transactions: (0..count).map(|number| vec![number as u8; 50].into()).collect(),
        transaction_ids: (0..count).map(|number| (id(number), first_index + number as u64)).collect(),
        receipts: (0..count).map(|number| vec![number as u8; 10]).collect(),
        write_set: WriteSet { writes },
        leaf_hash,
        tree_size: first_index + leaves.len() as u64,
        log_root: [4; 32],
        leaves,
    }
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

pub fn pack(seed: u8, items: usize) -> Arc<SealedPack> {
    Arc::new(SealedPack {
        items: (0..items).map(|number| vec![seed ^ number as u8; 40 + number]).collect(),
        wraps: (0..items).map(|number| vec![seed.wrapping_add(number as u8); 30]).collect(),
        root: [seed; 32],
        wraps_root: [seed ^ 255; 32],
        commitments: Vec::new(),
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
