//! Shards: which chain a subject belongs to, and the check of the next blocks of many chains without their states.
//! Refuses a block by the first thing wrong with it, in the order of `FaultKind`; no shard stops another.
//! Invariant: the verdicts do not depend on the number of threads, nor on what else is in the set.
//! Before: `prove_block` at the node that holds the chain. After: the tip it leads to, which the next block is held to.

use std::collections::HashSet;

use thiserror::Error;

use crate::block::{self, Block, BlockLeaf};
use crate::cbor::{self, Reader, Writer};
use crate::digest::{self, Digest};
use crate::merkle::frontier::Frontier;
use crate::merkle::partial::{PartialError, PartialTrie};
use crate::merkle::trie::Trie;
use crate::merkle::trie_proof::EMPTY;
use crate::pool;
use crate::signature::{self, Item};
use crate::state::{WriteSet, WriteSetError};
use crate::transaction::{self, TransactionError, Unverified};

/// Nothing above this is read.
pub const MAX_SHARD_BLOCK_BYTES: usize = 256 << 20;
/// Most shards that subjects are dealt to.
pub const MAX_SHARDS: u32 = 65_536;
/// How far behind block time a transaction may expire, in ms.
pub const EXPIRY_WINDOW_MS: u64 = 60 * 60 * 1000;

/// Entries one thread takes at a time: large enough to hide the hand-over, small enough that no thread runs dry.
const RUN: usize = 32;
/// Frame sections in a shard block.
const SECTIONS: usize = 4;

// ── which shard ────────────────────────────────────────────────────────────────────────────────────────────────

/// Why a shard count is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} shards")]
pub struct ShardCountError(
    /// The count given.
    pub u32,
);

/// The shard of a subject among `shard_count`, from the first 8 bytes of its random id, by jump consistent hashing.
///
/// More shards move a subject to a new one or not at all: from n to m > n shards, n / m of the subjects stay.
/// Source: Lamping, Veach: A Fast, Minimal Memory, Consistent Hash Algorithm, in whole numbers.
///
/// # Errors
/// `ShardCountError` for no shard, or more than [`MAX_SHARDS`].
pub fn shard_of(subject: &[u8; 16], shard_count: u32) -> Result<u32, ShardCountError> {
    if !(1..=MAX_SHARDS).contains(&shard_count) {
        return Err(ShardCountError(shard_count));
    }
    let mut key = (u128::from_be_bytes(*subject) >> 64) as u64;
    let mut shard = 0;
    loop {
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // Both factors stay below 2^32, so the product does not overflow.
        let next = ((shard + 1) << 31) / ((key >> 33) + 1);
        if next >= u64::from(shard_count) {
            return u32::try_from(shard).map_err(|_| ShardCountError(shard_count));
        }
        shard = next;
    }
}

// ── shard blocks ───────────────────────────────────────────────────────────────────────────────────────────────

/// Why a block was not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProveError {
    /// The trie before and the write set do not lead to the state root of the block.
    #[error("not the state before the block")]
    OtherState,
    /// A write of the block changes nothing in that trie.
    #[error(transparent)]
    Partial(#[from] PartialError),
}

/// CBOR [1, leaves, transactions, receipts, write set, partial trie]: the sections of the block's frame, and the part
/// of the state before it that its writes touch. Enough to validate the block without the state.
///
/// # Errors
/// `ProveError`: `before` is not the trie that the block was assembled over.
pub fn prove_block(block: &Block, before: &Trie) -> Result<Vec<u8>, ProveError> {
    let partial = PartialTrie::of(before, &block.write_set)?;
    let encoded = partial.encode();
    if partial.root_after(&block.write_set)? != block.head.state_root {
        return Err(ProveError::OtherState);
    }
    let sections = [list(&block.leaves), list(&block.transactions), list(&block.receipts), block.write_set.encode()];
    let room = sections.iter().map(Vec::len).sum::<usize>() + encoded.len();
    let mut writer = Writer::with_capacity(room + 64);
    writer.array(SECTIONS + 2).uint(1);
    sections.iter().for_each(|section| _ = writer.bytes(section));
    writer.bytes(&encoded);
    Ok(writer.into_bytes())
}

fn list(items: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(9 + items.iter().map(|item| item.as_ref().len() + 9).sum::<usize>());
    writer.array(items.len());
    items.iter().for_each(|item| _ = writer.bytes(item.as_ref()));
    writer.into_bytes()
}

/// Where a chain stands: all that a validator keeps of it between blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The chain.
    pub chain_id: String,
    /// Height of the block that comes next.
    pub next_height: u64,
    /// Time of the last block; the next one is later. 0 before the first.
    pub time_ms: u64,
    /// The right edge of the log.
    pub frontier: Frontier,
    /// Root of the state.
    pub state_root: Digest,
}

impl Tip {
    /// A chain before its genesis.
    pub fn genesis(chain_id: &str) -> Self {
        let (frontier, state_root) = (Frontier::default(), EMPTY);
        Self { chain_id: chain_id.to_owned(), next_height: 0, time_ms: 0, frontier, state_root }
    }
}

/// One block to be validated.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Where its chain stood before.
    pub tip: &'a Tip,
    /// What [`prove_block`] gave.
    pub block: &'a [u8],
    /// The log root after it, where a checkpoint or an engine names one.
    pub log_root: Option<Digest>,
}

/// What is wrong with a shard block. Faults are found in this order, those from
/// `LeafKind` to `Receipt` entry by entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FaultKind {
    /// Not the encoding of a shard block.
    #[error("not a shard block")]
    Malformed,
    /// One of its sections is not the encoding of one; the position is its number.
    #[error("a section is malformed")]
    Section,
    /// Paths out of order, a value of impossible length, or an erased one, at that write.
    #[error("the write set is malformed")]
    WriteSet,
    /// The last leaf is no block leaf.
    #[error("the last leaf is no block leaf")]
    BlockLeaf,
    /// Another number of leaves than the block leaf says.
    #[error("another number of leaves than the block leaf says")]
    LeafCount,
    /// A block of another chain.
    #[error("a block of another chain")]
    ChainId,
    /// Not the next height.
    #[error("not the next height")]
    Height,
    /// Block time does not grow.
    #[error("block time does not grow")]
    Time,
    /// The first index is not the size of the log before.
    #[error("the first index is not the size of the log before")]
    FirstIndex,
    /// The previous root is not that of the frontier.
    #[error("the previous root is not the root of the log before")]
    PreviousRoot,
    /// Not a receipt for each entry; a genesis has none.
    #[error("another number of receipts than of entries")]
    ReceiptCount,
    /// Not a transaction for each transaction leaf.
    #[error("another number of transactions than of their leaves")]
    TransactionCount,
    /// A leaf that is no entry of such a block.
    #[error("a leaf that is no entry of such a block")]
    LeafKind,
    /// The genesis leaf is not that of the chain id.
    #[error("the genesis is not that of the chain id")]
    Genesis,
    /// Not the encoding of a transaction, or too large.
    #[error("not a transaction")]
    Transaction,
    /// A transaction for another chain.
    #[error("a transaction for another chain")]
    TransactionChain,
    /// It expired before the block.
    #[error("a transaction had expired")]
    Expired,
    /// It expires too long after the block.
    #[error("a transaction expires too late")]
    TooEarly,
    /// The leaf names another id.
    #[error("the leaf has the id of another transaction")]
    LeafId,
    /// The leaf has the digest of other bytes.
    #[error("the leaf has the digest of other bytes")]
    LeafReceived,
    /// The leaf has the digest of another receipt.
    #[error("the leaf has the digest of another receipt")]
    LeafReceipt,
    /// The receipt does not begin with this id, height and index.
    #[error("the receipt is not that of this entry")]
    Receipt,
    /// The same transaction or timer twice.
    #[error("an entry repeats")]
    Repeated,
    /// A signature does not hold.
    #[error("a signature does not hold")]
    Signature,
    /// Not the encoding of a partial trie.
    #[error("not a partial trie")]
    Proof,
    /// The partial trie has another root than the state before.
    #[error("the partial trie is of another state")]
    PreviousStateRoot,
    /// The partial trie lacks what that write needs.
    #[error("the partial trie lacks what a write needs")]
    ProofMissing,
    /// The partial trie has what no write needs.
    #[error("the partial trie has what no write needs")]
    ProofSurplus,
    /// That write changes nothing.
    #[error("a write changes nothing")]
    NoChange,
    /// The writes lead to another state root than the block leaf has.
    #[error("the writes lead to another state root")]
    StateRoot,
    /// The leaves lead to another log root than the one expected.
    #[error("the leaves lead to another log root")]
    LogRoot,
}

impl FaultKind {
    /// The stable code programs see.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            FaultKind::Malformed => "shard.malformed",
            FaultKind::Section => "shard.section_malformed",
            FaultKind::WriteSet => "shard.write_set_malformed",
            FaultKind::BlockLeaf => "shard.block_leaf",
            FaultKind::LeafCount => "shard.leaf_count",
            FaultKind::ChainId => "shard.chain_id",
            FaultKind::Height => "shard.height",
            FaultKind::Time => "shard.time",
            FaultKind::FirstIndex => "shard.first_index",
            FaultKind::PreviousRoot => "shard.previous_root",
            FaultKind::ReceiptCount => "shard.receipt_count",
            FaultKind::TransactionCount => "shard.transaction_count",
            FaultKind::LeafKind => "shard.leaf_kind",
            FaultKind::Genesis => "shard.genesis",
            FaultKind::Transaction => "shard.transaction_malformed",
            FaultKind::TransactionChain => "shard.transaction_chain",
            FaultKind::Expired => "shard.expired",
            FaultKind::TooEarly => "shard.too_early",
            FaultKind::LeafId => "shard.leaf_id",
            FaultKind::LeafReceived => "shard.leaf_received",
            FaultKind::LeafReceipt => "shard.leaf_receipt",
            FaultKind::Receipt => "shard.receipt",
            FaultKind::Repeated => "shard.repeated",
            FaultKind::Signature => "shard.signature",
            FaultKind::Proof => "shard.proof_malformed",
            FaultKind::PreviousStateRoot => "shard.previous_state_root",
            FaultKind::ProofMissing => "shard.proof_missing",
            FaultKind::ProofSurplus => "shard.proof_surplus",
            FaultKind::NoChange => "shard.no_change",
            FaultKind::StateRoot => "shard.state_root",
            FaultKind::LogRoot => "shard.log_root",
        }
    }
}

/// The first thing wrong with a shard block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Where: the section, entry or write concerned, 0-based, where there is one.
    pub position: Option<usize>,
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self { kind, position: None }
    }
}

fn at(kind: FaultKind, position: usize) -> Fault {
    Fault { kind, position: Some(position) }
}

fn hold(holds: bool, kind: FaultKind) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(kind.into()) }
}

/// A shard block as read: its items lie in what was received.
struct Parsed<'a> {
    head: BlockLeaf,
    leaves: Vec<&'a [u8]>,
    /// One for each entry.
    entries: Vec<Entry<'a>>,
    write_set: WriteSet,
    partial: &'a [u8],
}

struct Entry<'a> {
    leaf: &'a [u8],
    kind: EntryKind<'a>,
}

enum EntryKind<'a> {
    Genesis,
    Transaction { received: &'a [u8], receipt: &'a [u8] },
    Timer { receipt: &'a [u8] },
    Other,
}

impl<'a> Parsed<'a> {
    fn read(claim: &Claim<'a>) -> Result<Self, Fault> {
        let (sections, partial) = split(claim.block).map_err(|_| FaultKind::Malformed)?;
        let [leaves, transactions, receipts, writes] = sections;
        let read = |section: &'a [u8], number| read_list(section).map_err(|_| at(FaultKind::Section, number));
        let (leaves, transactions, receipts) = (read(leaves, 0)?, read(transactions, 1)?, read(receipts, 2)?);
        let write_set = WriteSet::decode(writes).map_err(|error| match error {
            WriteSetError::Encoding(_) => at(FaultKind::Section, 3),
            WriteSetError::Order(write) | WriteSetError::ValueLength(write) => at(FaultKind::WriteSet, write),
        })?;
        if let Some((path, _)) = write_set.erased.first() {
            // The next block of a chain is whole; only a stored one may have lost what was written.
            return Err(at(FaultKind::WriteSet, write_set.writes.partition_point(|(before, _)| before < path)));
        }
        let (last, entries) = leaves.split_last().ok_or(FaultKind::BlockLeaf)?;
        let head = BlockLeaf::decode(last).map_err(|_| FaultKind::BlockLeaf)?;
        hold(head.leaf_count == entries.len() as u64, FaultKind::LeafCount)?;
        let tip = claim.tip;
        hold(head.chain_id == tip.chain_id, FaultKind::ChainId)?;
        hold(head.height == tip.next_height, FaultKind::Height)?;
        hold(head.time_ms > tip.time_ms || tip.next_height == 0, FaultKind::Time)?;
        hold(head.first_index == tip.frontier.tree_size(), FaultKind::FirstIndex)?;
        hold(head.previous_root == tip.frontier.root(), FaultKind::PreviousRoot)?;
        let entries = deal(head.height, entries, &transactions, &receipts)?;
        Ok(Parsed { head, entries, leaves, write_set, partial })
    }
}

fn split(data: &[u8]) -> Result<([&[u8]; SECTIONS], &[u8]), cbor::Error> {
    let mut reader = Reader::new(data, MAX_SHARD_BLOCK_BYTES)?;
    reader.array_of(SECTIONS + 2)?;
    reader.expect_int(1)?;
    let mut sections = [&[][..]; SECTIONS];
    for section in &mut sections {
        *section = reader.bytes()?;
    }
    let partial = reader.bytes()?;
    reader.finish()?;
    Ok((sections, partial))
}

fn read_list(section: &[u8]) -> Result<Vec<&[u8]>, cbor::Error> {
    let mut reader = Reader::new(section, MAX_SHARD_BLOCK_BYTES)?;
    let count = reader.array()?;
    let items = (0..count).map(|_| reader.bytes()).collect::<Result<Vec<_>, _>>()?;
    reader.finish()?;
    Ok(items)
}

/// Gives each leaf its transaction and its receipt.
fn deal<'a>(
    height: u64,
    leaves: &[&'a [u8]],
    transactions: &[&'a [u8]],
    receipts: &[&'a [u8]],
) -> Result<Vec<Entry<'a>>, Fault> {
    let expected = if height == 0 { 0 } else { leaves.len() };
    hold(receipts.len() == expected, FaultKind::ReceiptCount)?;
    let of_kind = |kind: u8| move |leaf: &&&[u8]| leaf.first() == Some(&kind);
    let transaction_leaves = leaves.iter().filter(of_kind(block::TRANSACTION_LEAF)).count();
    hold(transactions.len() == transaction_leaves, FaultKind::TransactionCount)?;
    let mut transactions = transactions.iter();
    let entry = |(number, leaf): (usize, &&'a [u8])| {
        let receipt = receipts.get(number).copied();
        let kind = match (leaf.first(), leaf.len(), receipt) {
            (Some(&block::GENESIS_LEAF), 33, None) if leaves.len() == 1 => EntryKind::Genesis,
            (Some(&block::TRANSACTION_LEAF), length, receipt) => match (transactions.next(), receipt) {
                (Some(received), Some(receipt)) if length == 97 => EntryKind::Transaction { received, receipt },
                _ => EntryKind::Other,
            },
            (Some(&block::TIMER_LEAF), 65, Some(receipt)) => EntryKind::Timer { receipt },
            _ => EntryKind::Other,
        };
        Entry { leaf, kind }
    };
    Ok(leaves.iter().enumerate().map(entry).collect())
}

/// What an entry of a sound block leaves to be checked: its id, and its signature when it is a transaction.
struct Judged {
    id: Digest,
    unverified: Option<Unverified>,
}

fn judge(head: &BlockLeaf, position: usize, entry: &Entry<'_>) -> Result<Judged, FaultKind> {
    let field = |number: usize| entry.leaf.get(1 + 32 * number..33 + 32 * number).unwrap_or_default();
    let index = head.first_index.saturating_add(position as u64);
    let check_receipt = |id: &Digest, receipt: &[u8], field: &[u8]| {
        if field != digest::blake3(receipt) {
            return Err(FaultKind::LeafReceipt);
        }
        if receipt_is_of(receipt, id, head.height, index) { Ok(()) } else { Err(FaultKind::Receipt) }
    };
    match entry.kind {
        EntryKind::Other => Err(FaultKind::LeafKind),
        EntryKind::Genesis => {
            let id: Digest = field(0).try_into().map_err(|_| FaultKind::LeafKind)?;
            let digits: String = id.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            match block::chain_id_hash(&head.chain_id) == Some(&digits) {
                true => Ok(Judged { id, unverified: None }),
                false => Err(FaultKind::Genesis),
            }
        }
        EntryKind::Timer { receipt } => {
            let id: Digest = field(0).try_into().map_err(|_| FaultKind::LeafKind)?;
            check_receipt(&id, receipt, field(1))?;
            Ok(Judged { id, unverified: None })
        }
        EntryKind::Transaction { received, receipt } => {
            let read = transaction::decode_within(received, transaction::LARGEST_BYTES);
            let unverified = read.map_err(|_: TransactionError| FaultKind::Transaction)?;
            let transaction = &unverified.transaction;
            if transaction.chain_id != head.chain_id {
                return Err(FaultKind::TransactionChain);
            }
            if transaction.expires <= head.time_ms {
                return Err(FaultKind::Expired);
            }
            if transaction.expires - head.time_ms > EXPIRY_WINDOW_MS {
                return Err(FaultKind::TooEarly);
            }
            if field(0) != transaction.id {
                return Err(FaultKind::LeafId);
            }
            if field(1) != transaction.received_digest {
                return Err(FaultKind::LeafReceived);
            }
            check_receipt(&transaction.id, receipt, field(2))?;
            Ok(Judged { id: transaction.id, unverified: Some(unverified) })
        }
    }
}

/// Whether a receipt is CBOR [id, height, index, …], seven items in all.
fn receipt_is_of(receipt: &[u8], id: &Digest, height: u64, index: u64) -> bool {
    let head = |mut reader: Reader<'_>| -> Result<bool, cbor::Error> {
        reader.array_of(7)?;
        let same = reader.fixed_ref()? == id && reader.uint()? == height && reader.uint()? == index;
        for _ in 0..4 {
            reader.raw(1)?;
        }
        reader.finish()?;
        Ok(same)
    };
    Reader::new(receipt, transaction::LARGEST_BYTES).and_then(head).unwrap_or(false)
}

/// Validates the next block of each of many chains, on the pool; a verdict for each, in their order.
///
/// The signatures of all shards are one batch. What needs the state or the chain's past, such as whether a key may do
/// this or whether the transaction was seen in the last hour, is not judged here.
#[must_use]
pub fn validate_shards(claims: &[Claim<'_>]) -> Vec<Result<Tip, Fault>> {
    let mut parsed: Vec<Result<Parsed<'_>, Fault>> = claims.iter().map(|_| Err(FaultKind::Malformed.into())).collect();
    pool::fill_chunks(&mut parsed, 1, |first, run| {
        run.iter_mut().zip(claims.iter().skip(first)).for_each(|(slot, claim)| *slot = Parsed::read(claim));
    });
    // The entries of all shards in one row, so that threads share them whatever the sizes of the shards.
    let entries: Vec<(&BlockLeaf, usize, &Entry<'_>)> = parsed
        .iter()
        .flatten()
        .flat_map(|shard| shard.entries.iter().enumerate().map(|(position, entry)| (&shard.head, position, entry)))
        .collect();
    let mut judged: Vec<Result<Judged, FaultKind>> = entries.iter().map(|_| Err(FaultKind::LeafKind)).collect();
    pool::fill_chunks(&mut judged, RUN, |first, run| {
        let entries = entries.iter().skip(first);
        run.iter_mut().zip(entries).for_each(|(slot, (head, at, entry))| *slot = judge(head, *at, entry));
    });
    let faults = entry_faults(&parsed, &judged);
    let mut verdicts: Vec<Result<Tip, Fault>> = claims.iter().map(|_| Err(FaultKind::Malformed.into())).collect();
    pool::fill_chunks(&mut verdicts, 1, |first, run| {
        let shards = claims.iter().zip(&parsed).zip(&faults).skip(first);
        for (slot, ((claim, parsed), fault)) in run.iter_mut().zip(shards) {
            *slot = match (parsed, fault) {
                (Err(fault), _) | (Ok(_), Some(fault)) => Err(*fault),
                (Ok(parsed), None) => settle(claim, parsed),
            };
        }
    });
    verdicts
}

/// The first fault among the entries of each shard, the signatures included.
fn entry_faults(parsed: &[Result<Parsed<'_>, Fault>], judged: &[Result<Judged, FaultKind>]) -> Vec<Option<Fault>> {
    let mut rest = judged;
    let mut faults = Vec::with_capacity(parsed.len());
    let mut items = Vec::new();
    let mut of_item = Vec::new();
    for (shard, parsed) in parsed.iter().enumerate() {
        let (own, after) = rest.split_at(parsed.as_ref().map_or(0, |parsed| parsed.entries.len()));
        rest = after;
        let fault = first_fault(own);
        if fault.is_none() {
            for (position, judged) in own.iter().flatten().enumerate() {
                if let Some(Unverified { transaction, signed, signature }) = &judged.unverified {
                    items.push(Item { public_key: &transaction.sender, message: signed, signature });
                    of_item.push((shard, position));
                }
            }
        }
        faults.push(fault);
    }
    for (holds, (shard, position)) in signature::verify_batch(&items).into_iter().zip(of_item) {
        if !holds && let Some(fault) = faults.get_mut(shard) {
            fault.get_or_insert(at(FaultKind::Signature, position));
        }
    }
    faults
}

fn first_fault(entries: &[Result<Judged, FaultKind>]) -> Option<Fault> {
    let mut seen = HashSet::with_capacity(entries.len());
    let mut repeated = None;
    for (position, entry) in entries.iter().enumerate() {
        match entry {
            Err(kind) => return Some(at(*kind, position)),
            Ok(judged) if !seen.insert(judged.id) => _ = repeated.get_or_insert(at(FaultKind::Repeated, position)),
            Ok(_) => {}
        }
    }
    repeated
}

/// The state and the log after a block whose entries and signatures hold.
fn settle(claim: &Claim<'_>, parsed: &Parsed<'_>) -> Result<Tip, Fault> {
    let partial = PartialTrie::decode(parsed.partial).map_err(|_| FaultKind::Proof)?;
    hold(partial.root() == claim.tip.state_root, FaultKind::PreviousStateRoot)?;
    let state_root = partial.root_after(&parsed.write_set).map_err(|error| match error {
        PartialError::NoChange(write) => at(FaultKind::NoChange, write),
        PartialError::Missing(write) => at(FaultKind::ProofMissing, write),
        PartialError::Surplus => FaultKind::ProofSurplus.into(),
        _ => FaultKind::Proof.into(),
    })?;
    let head = &parsed.head;
    hold(state_root == head.state_root, FaultKind::StateRoot)?;
    let frontier = claim.tip.frontier.appended(&digest::sha256_leaves(&parsed.leaves));
    hold(claim.log_root.is_none_or(|expected| expected == frontier.root()), FaultKind::LogRoot)?;
    let chain_id = head.chain_id.clone();
    Ok(Tip { chain_id, next_height: head.height.saturating_add(1), time_ms: head.time_ms, frontier, state_root })
}
