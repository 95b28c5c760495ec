//! Blocks: the leaves of executed transactions and timers, closed by the block leaf that commits to state and past.
//! Refuses packs that are not the ones the transactions signed for, and leaves not encoded as this module encodes them.
//! Invariant: whatever can fail does so before the log is touched. After `execute`, before `commit`.

use std::sync::Arc;

use crate::cbor::{self, Reader, Writer};
use crate::digest::{Digest, blake3, blake3_many, sha256_leaf};
use crate::merkle::log::Log;
use crate::merkle::trie::{Trie, TrieError};
use crate::state::WriteSet;
use crate::transaction::Transaction;

/// First byte of the leaf of a genesis, a transaction, a block, a timer.
pub(crate) const GENESIS_LEAF: u8 = 0;
pub(crate) const TRANSACTION_LEAF: u8 = 1;
pub(crate) const BLOCK_LEAF: u8 = 2;
pub(crate) const TIMER_LEAF: u8 = 3;
/// Longest block leaf: every number at its largest.
pub const MAX_LEAF_BYTES: usize = 256;
/// Longest chain name: with a hyphen and 32 hex digits it fills CometBFT's 50 characters.
pub const MAX_CHAIN_NAME_BYTES: usize = 17;

/// Why a block was not assembled, or why bytes are not a block leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Not the encoding of a block leaf.
    #[error("not a block leaf: {0}")]
    Encoding(#[from] cbor::Error),
    /// Another kind of leaf, or none.
    #[error("not a block leaf by its first byte")]
    OtherLeaf,
    /// Not a name, a hyphen and 32 hex digits.
    #[error("not a chain id")]
    ChainId,
    /// The chain id does not end in the hash of this genesis.
    #[error("the chain id is not that of this genesis")]
    ChainIdMismatch,
    /// A time or a number of leaves beyond 63 bits.
    #[error("a number is out of range")]
    OutOfRange,
    /// A block without an entry of ours.
    #[error("a block without entries")]
    NoEntries,
    /// The packs are not the attachments of the transactions, in their order, from this one on.
    #[error("pack {position} is not the one its transaction signed for")]
    PackMismatch {
        /// Counted over all attachments of the block.
        position: usize,
    },
    /// Genesis comes first or never.
    #[error("a log of {tree_size} leaves already has its genesis")]
    LogNotEmpty {
        /// Leaves in the log.
        tree_size: u64,
    },
    /// The write set is out of order.
    #[error(transparent)]
    Trie(#[from] TrieError),
}

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

impl BlockLeaf {
    /// Log size after the block.
    pub fn tree_size(&self) -> Option<u64> {
        self.first_index.checked_add(self.leaf_count)?.checked_add(1).filter(|size| i64::try_from(*size).is_ok())
    }

    /// `0x02 ‖ CBOR [1, chain id, height, engine height, time, first index, leaf count, previous root, state root,
    /// proposer]`.
    pub fn encode(&self) -> Result<Vec<u8>, BlockError> {
        self.check()?;
        let mut writer = Writer::with_capacity(MAX_LEAF_BYTES);
        writer.raw(&[BLOCK_LEAF]).array(10).uint(1).text(&self.chain_id)?;
        for number in [self.height, self.engine_height, self.time_ms, self.first_index, self.leaf_count] {
            writer.uint(number);
        }
        writer.bytes(&self.previous_root).bytes(&self.state_root).bytes(&self.proposer);
        Ok(writer.into_bytes())
    }

    /// Reads what `encode` emits and nothing else.
    pub fn decode(leaf: &[u8]) -> Result<Self, BlockError> {
        let Some((&BLOCK_LEAF, encoded)) = leaf.split_first() else { return Err(BlockError::OtherLeaf) };
        let mut reader = Reader::new(encoded, MAX_LEAF_BYTES - 1)?;
        reader.array_of(10)?;
        reader.expect_int(1)?;
        let decoded = Self {
            chain_id: reader.text()?.to_owned(),
            height: reader.uint()?,
            engine_height: reader.uint()?,
            time_ms: reader.uint()?,
            first_index: reader.uint()?,
            leaf_count: reader.uint()?,
            previous_root: reader.fixed()?,
            state_root: reader.fixed()?,
            proposer: reader.fixed()?,
        };
        reader.finish()?;
        decoded.check()?;
        Ok(decoded)
    }

    fn check(&self) -> Result<(), BlockError> {
        if chain_id_hash(&self.chain_id).is_none() {
            return Err(BlockError::ChainId);
        }
        if self.leaf_count == 0 {
            return Err(BlockError::NoEntries);
        }
        let numbers = [self.height, self.engine_height, self.time_ms];
        if numbers.iter().any(|number| i64::try_from(*number).is_err()) || self.tree_size().is_none() {
            return Err(BlockError::OutOfRange);
        }
        Ok(())
    }
}

/// The hex digits of a well-formed chain id: a name of `a-z0-9-`, a hyphen, 32 of them.
pub(crate) fn chain_id_hash(chain_id: &str) -> Option<&str> {
    let (name, hash) = chain_id.rsplit_once('-')?;
    let named = (1..=MAX_CHAIN_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let hashed = hash.len() == 32 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if named && hashed { Some(hash) } else { None }
}

/// `0x00 ‖ BLAKE3(genesis)`: entry 0 of the log.
pub fn genesis_leaf(genesis: &[u8]) -> Vec<u8> {
    [&[GENESIS_LEAF][..], &blake3(genesis)].concat()
}

/// `0x01 ‖ id ‖ SHA-256(received bytes) ‖ BLAKE3(receipt)`.
pub fn transaction_leaf(id: &Digest, received_digest: &Digest, receipt_digest: &Digest) -> Vec<u8> {
    [&[TRANSACTION_LEAF][..], id, received_digest, receipt_digest].concat()
}

/// `0x03 ‖ timer id ‖ BLAKE3(receipt)`.
pub fn timer_leaf(timer_id: &Digest, receipt_digest: &Digest) -> Vec<u8> {
    [&[TIMER_LEAF][..], timer_id, receipt_digest].concat()
}

/// What caused an entry of the log.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A transaction that reached its contract call.
    Transaction(Arc<Transaction>),
    /// A timer that came due, by its id.
    Timer(Digest),
}

/// One entry of a block: its cause and the receipt of its outcome.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was executed.
    pub cause: Cause,
    /// The encoded receipt.
    pub receipt: Vec<u8>,
}

/// What the engine decided about a block.
#[derive(Clone, Debug)]
pub struct Header {
    /// The chain.
    pub chain_id: String,
    /// Blocks of ours before this one.
    pub height: u64,
    /// The engine's own height.
    pub engine_height: u64,
    /// Block time, Unix milliseconds.
    pub time_ms: u64,
    /// Public key of the proposer.
    pub proposer: [u8; 32],
}

/// Closes a block: appends its leaves to the log and gives it with the next version of the trie.
///
/// `packs` are the (root, wraps root) of the packs that travel with the block: the attachments of its transactions,
/// in order. An abandoned block is undone by truncating the log to `head.first_index`.
pub fn assemble(
    log: &mut Log,
    trie: &Trie,
    header: Header,
    entries: Vec<Entry>,
    write_set: WriteSet,
    packs: &[(Digest, Digest)],
) -> Result<(Block, Trie), BlockError> {
    check_packs(&entries, packs)?;
    let (causes, receipts): (Vec<Cause>, Vec<Vec<u8>>) =
        entries.into_iter().map(|entry| (entry.cause, entry.receipt)).unzip();
    let leaf = |(cause, digest): (&Cause, Digest)| match cause {
        Cause::Transaction(transaction) => transaction_leaf(&transaction.id, &transaction.received_digest, &digest),
        Cause::Timer(id) => timer_leaf(id, &digest),
    };
    let leaves = causes.iter().zip(blake3_many(&receipts)).map(leaf).collect();
    let (mut block, next) = close(log, trie, header, leaves, write_set)?;
    block.receipts = receipts;
    for (index, cause) in (block.head.first_index..).zip(&causes) {
        if let Cause::Transaction(transaction) = cause {
            block.transactions.push(Arc::clone(&transaction.received));
            block.transaction_ids.push((transaction.id, index));
        }
    }
    Ok((block, next))
}

/// Block 0: the genesis entry and its block leaf, over the state that genesis writes.
pub fn assemble_genesis(
    log: &mut Log,
    trie: &Trie,
    header: Header,
    genesis: &[u8],
    write_set: WriteSet,
) -> Result<(Block, Trie), BlockError> {
    let tree_size = log.tree_size();
    if tree_size != 0 {
        return Err(BlockError::LogNotEmpty { tree_size });
    }
    let digest = blake3(genesis);
    let digits: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    if chain_id_hash(&header.chain_id).ok_or(BlockError::ChainId)? != digits {
        return Err(BlockError::ChainIdMismatch);
    }
    close(log, trie, header, vec![genesis_leaf(genesis)], write_set)
}

fn check_packs(entries: &[Entry], packs: &[(Digest, Digest)]) -> Result<(), BlockError> {
    let attached = entries.iter().flat_map(|entry| match &entry.cause {
        Cause::Transaction(transaction) => transaction.attachments.as_slice(),
        Cause::Timer(_) => &[],
    });
    let mut given = packs.iter();
    for (position, roots) in attached.enumerate() {
        if given.next() != Some(roots) {
            return Err(BlockError::PackMismatch { position });
        }
    }
    match given.len() {
        0 => Ok(()),
        surplus => Err(BlockError::PackMismatch { position: packs.len() - surplus }),
    }
}

fn close(
    log: &mut Log,
    trie: &Trie,
    header: Header,
    mut leaves: Vec<Vec<u8>>,
    write_set: WriteSet,
) -> Result<(Block, Trie), BlockError> {
    let next = trie.update(&write_set)?;
    let Header { chain_id, height, engine_height, time_ms, proposer } = header;
    let head = BlockLeaf {
        chain_id,
        height,
        engine_height,
        time_ms,
        first_index: log.tree_size(),
        leaf_count: leaves.len() as u64,
        previous_root: log.root(),
        state_root: next.root(),
        proposer,
    };
    let leaf = head.encode()?;
    let tree_size = head.tree_size().ok_or(BlockError::OutOfRange)?;
    let leaf_hash = sha256_leaf(&leaf);
    leaves.push(leaf);
    log.append(&leaves);
    let block = Block {
        head,
        leaves,
        transactions: Vec::new(),
        transaction_ids: Vec::new(),
        receipts: Vec::new(),
        write_set,
        leaf_hash,
        tree_size,
        log_root: log.root(),
    };
    Ok((block, next))
}
