//! Blocks: assembled from executed transactions, decoded from frames, validated.

use std::sync::Arc;

use crate::state::WriteSet;

/// The fields of a block leaf: `0x02 ‖ CBOR [1, chain id, height, …, proposer]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLeaf {
    /// `name-` and 32 hex digits of the genesis hash.
    pub chain_id: String,
    /// Counts the blocks with at least one leaf of ours.
    pub height: u64,
    /// The engine's own height.
    pub engine_height: u64,
    /// Block time, Unix milliseconds.
    pub time_ms: u64,
    /// Index of the block's first leaf.
    pub first_index: u64,
    /// Leaves before this one in the block.
    pub leaf_count: u64,
    /// Log root at size `first_index`.
    pub previous_root: [u8; 32],
    /// Root of the state trie after the block.
    pub state_root: [u8; 32],
    /// Public key of the proposer.
    pub proposer: [u8; 32],
}

/// One assembled block, ready to be appended.
#[derive(Clone, Debug)]
pub struct Block {
    /// The decoded block leaf.
    pub head: BlockLeaf,
    /// Leaf preimages in order, the block leaf last.
    pub leaves: Vec<Vec<u8>>,
    /// The transactions as received, in leaf order (timer leaves have none).
    pub transactions: Vec<Arc<[u8]>>,
    /// (transaction id, leaf index) in leaf order.
    pub transaction_ids: Vec<([u8; 32], u64)>,
    /// One receipt for each leaf but the block leaf (genesis: none).
    pub receipts: Vec<Vec<u8>>,
    /// What the block changes in the state.
    pub write_set: WriteSet,
    /// RFC 6962 leaf hash of the block leaf.
    pub leaf_hash: [u8; 32],
    /// Log size after the block.
    pub tree_size: u64,
    /// Log root after the block.
    pub log_root: [u8; 32],
}
