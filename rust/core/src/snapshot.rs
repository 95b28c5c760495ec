//! Snapshots: the state at a height in chunks, the leaves of its last hour, and the frontier they continue.
//! Owns the encodings and a verifier that needs one checkpoint and holds one chunk at a time. Refuses a chunk that is
//! changed, left out, added or in another place. Invariant: what is taken recomputes the checkpoint's root.
//!
//! ```text
//!  head: frontier of the log ─▶ leaves … ─▶ the block leaf, last of the checkpoint ─▶ state root ─▶ state chunks …
//! ```

use thiserror::Error;

use crate::block::{BlockError, BlockLeaf};
use crate::cbor::{self, Reader, Writer};
use crate::digest::{self, Digest};
use crate::merkle::frontier::Frontier;
use crate::merkle::trie_proof::TrieProof;
use crate::merkle::trie_range::{Bounds, TrieRangeError, prove_range, verify_range};
use crate::state::Path;

/// Bytes of entries, or of leaves, after which a chunk ends: what a reader holds at once.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// The longest chunk: one item may lie over the edge.
pub const MAX_CHUNK_BYTES: usize = 4 * 1024 * 1024;
const VERSION: i64 = 1;
const HEAD: i64 = 0;
const LEAVES: i64 = 1;
const STATE: i64 = 2;

/// Why a snapshot is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// Not the one encoding of a part.
    #[error("not a part of a snapshot: {0}")]
    Encoding(#[from] cbor::Error),
    /// The block leaf is none.
    #[error("the last leaf is no block leaf: {0}")]
    Block(#[from] BlockError),
    /// The entries are not what the state holds there.
    #[error("a chunk of the state: {0}")]
    Range(#[from] TrieRangeError),
    /// The head does not fit the checkpoint, or its frontier not its size.
    #[error("the head is of another checkpoint")]
    OtherCheckpoint,
    /// A part that does not come next.
    #[error("this part does not come next")]
    NotNext,
    /// Frontier and leaves lead to another root than the checkpoint's.
    #[error("the leaves lead to another root")]
    RootMismatch,
    /// The last leaf does not close the checkpoint, or names another chain or height.
    #[error("the last leaf is not the block leaf of this checkpoint")]
    NotTheBlock,
}

/// What begins a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The chain.
    pub chain_id: String,
    /// Height of the block whose state it is.
    pub height: u64,
    /// Leaves in the log with that block.
    pub tree_size: u64,
    /// Index of the first leaf that the snapshot brings.
    pub first_leaf: u64,
    /// The frontier of the log of `first_leaf` leaves, largest subtree first.
    pub frontier: Vec<Digest>,
}

impl Head {
    /// CBOR [1, 0, chain id, height, tree size, first leaf, [* hash]].
    pub fn encode(&self) -> Result<Vec<u8>, SnapshotError> {
        let mut writer = Writer::new();
        writer.array(7).int(VERSION).int(HEAD).text(&self.chain_id)?;
        writer.uint(self.height).uint(self.tree_size).uint(self.first_leaf).array(self.frontier.len());
        self.frontier.iter().for_each(|hash| _ = writer.bytes(hash));
        Ok(writer.into_bytes())
    }

    /// Reads what `encode` emits and nothing else.
    pub fn decode(data: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = part(data, 7, HEAD)?;
        let chain_id = reader.text()?.to_owned();
        let (height, tree_size, first_leaf) = (reader.uint()?, reader.uint()?, reader.uint()?);
        let count = reader.array()?;
        if count != first_leaf.count_ones() as usize {
            return Err(SnapshotError::OtherCheckpoint);
        }
        let frontier = (0..count).map(|_| reader.fixed()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { chain_id, height, tree_size, first_leaf, frontier })
    }
}

/// Leaves in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves {
    /// Index of the first.
    pub first_index: u64,
    /// The preimages.
    pub leaves: Vec<Vec<u8>>,
}

impl Leaves {
    /// CBOR [1, 1, first index, [* leaf]].
    pub fn encode(first_index: u64, leaves: &[impl AsRef<[u8]>]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.array(4).int(VERSION).int(LEAVES).uint(first_index).array(leaves.len());
        leaves.iter().for_each(|leaf| _ = writer.bytes(leaf.as_ref()));
        writer.into_bytes()
    }

    /// Reads what `encode` emits and nothing else.
    pub fn decode(data: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = part(data, 4, LEAVES)?;
        let first_index = reader.uint()?;
        let count = reader.array()?;
        let mut leaves = Vec::new();
        for _ in 0..count {
            leaves.push(reader.bytes()?.to_vec());
        }
        reader.finish()?;
        Ok(Self { first_index, leaves })
    }
}

/// All that the state holds in a range, with the proof of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChunk {
    /// The range.
    pub bounds: Bounds,
    /// (path, stored), ascending.
    pub entries: Vec<(Path, Vec<u8>)>,
    /// See `merkle::trie_range`.
    pub proof: Vec<u8>,
}

impl StateChunk {
    /// Takes entries from `from` on until they weigh `max_bytes`, and proves them. `entries` are those of the state from
    /// there on; `prove` is as for `prove_range`.
    pub fn build<E>(
        from: Path,
        max_bytes: usize,
        entries: impl IntoIterator<Item = Result<(Path, Vec<u8>), E>>,
        prove: impl FnMut(&Path) -> Result<(TrieProof, Option<Digest>), E>,
    ) -> Result<Self, E> {
        let mut bounds = Bounds { from, to: None };
        let mut taken = Vec::new();
        let mut weight = 0;
        for entry in entries {
            let (path, stored) = entry?;
            if weight >= max_bytes {
                bounds.to = Some(path);
                break;
            }
            weight += path.len() + stored.len();
            taken.push((path, stored));
        }
        let proof = prove_range(&bounds, prove)?;
        Ok(Self { bounds, entries: taken, proof })
    }

    /// CBOR [1, 2, from, to or null, [* [path, stored]], proof].
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.array(6).int(VERSION).int(STATE).bytes(&self.bounds.from);
        match &self.bounds.to {
            Some(to) => writer.bytes(to),
            None => writer.null(),
        };
        writer.array(self.entries.len());
        for (path, stored) in &self.entries {
            writer.array(2).bytes(path).bytes(stored);
        }
        writer.bytes(&self.proof);
        writer.into_bytes()
    }

    /// Reads what `encode` emits and nothing else.
    pub fn decode(data: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = part(data, 6, STATE)?;
        let from = reader.fixed()?;
        let to = if reader.take_null() { None } else { Some(reader.fixed()?) };
        let count = reader.array()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            reader.array_of(2)?;
            entries.push((reader.fixed()?, reader.bytes()?.to_vec()));
        }
        let proof = reader.bytes()?.to_vec();
        reader.finish()?;
        Ok(Self { bounds: Bounds { from, to }, entries, proof })
    }

    /// Checks this chunk by itself against a state root.
    pub fn verify(&self, state_root: &Digest) -> Result<(), SnapshotError> {
        let stored: Vec<&[u8]> = self.entries.iter().map(|(_, stored)| stored.as_slice()).collect();
        let digests = digest::blake3_many(&stored);
        let entries: Vec<_> = self.entries.iter().map(|(path, _)| *path).zip(digests).collect();
        Ok(verify_range(state_root, &self.bounds, &entries, &self.proof)?)
    }
}

fn part(data: &[u8], fields: usize, kind: i64) -> Result<Reader<'_>, SnapshotError> {
    let mut reader = Reader::new(data, MAX_CHUNK_BYTES)?;
    reader.array_of(fields)?;
    reader.expect_int(VERSION)?;
    reader.expect_int(kind)?;
    Ok(reader)
}

/// Takes the parts of a snapshot in their order and checks each against one checkpoint.
#[derive(Debug)]
pub struct Verifier {
    head: Head,
    root: Digest,
    log: Frontier,
    block: Option<BlockLeaf>,
    block_leaf_hash: Digest,
    next: Option<Path>,
}

impl Verifier {
    /// Begins with the head, under a checkpoint (chain id, tree size, root) that was verified before.
    pub fn new(head: &[u8], chain_id: &str, tree_size: u64, root: &Digest) -> Result<Self, SnapshotError> {
        let head = Head::decode(head)?;
        if head.chain_id != chain_id || head.tree_size != tree_size || head.first_leaf >= tree_size {
            return Err(SnapshotError::OtherCheckpoint);
        }
        let log = Frontier::new(head.first_leaf, head.frontier.clone()).map_err(|_| SnapshotError::OtherCheckpoint)?;
        Ok(Self { head, root: *root, log, block: None, block_leaf_hash: [0; 32], next: Some([0; 32]) })
    }

    /// The height it is of.
    pub fn height(&self) -> u64 {
        self.head.height
    }

    /// The block leaf, once all leaves are taken and lead to the checkpoint.
    pub fn block(&self) -> Option<&BlockLeaf> {
        self.block.as_ref()
    }

    /// Its leaf hash, then.
    pub fn block_leaf_hash(&self) -> Digest {
        self.block_leaf_hash
    }

    /// Takes the next leaves; with the last of them, all are checked.
    pub fn take_leaves(&mut self, chunk: &[u8]) -> Result<Leaves, SnapshotError> {
        let taken = Leaves::decode(chunk)?;
        let room = self.head.tree_size - self.log.tree_size();
        if taken.first_index != self.log.tree_size() || taken.leaves.is_empty() || taken.leaves.len() as u64 > room {
            return Err(SnapshotError::NotNext);
        }
        let hashes = digest::sha256_leaves(&taken.leaves);
        self.log = self.log.appended(&hashes);
        if let (true, Some(last), Some(hash)) =
            (self.log.tree_size() == self.head.tree_size, taken.leaves.last(), hashes.last())
        {
            if self.log.root() != self.root {
                return Err(SnapshotError::RootMismatch);
            }
            let block = BlockLeaf::decode(last)?;
            let closes = block.tree_size() == Some(self.head.tree_size);
            if !closes || block.chain_id != self.head.chain_id || block.height != self.head.height {
                return Err(SnapshotError::NotTheBlock);
            }
            self.block = Some(block);
            self.block_leaf_hash = *hash;
        }
        Ok(taken)
    }

    /// Takes the next chunk of the state, after all leaves.
    pub fn take_state(&mut self, chunk: &[u8]) -> Result<StateChunk, SnapshotError> {
        let taken = StateChunk::decode(chunk)?;
        let block = self.block.as_ref().ok_or(SnapshotError::NotNext)?;
        if self.next != Some(taken.bounds.from) {
            return Err(SnapshotError::NotNext);
        }
        taken.verify(&block.state_root)?;
        self.next = taken.bounds.to;
        Ok(taken)
    }

    /// Checks that nothing is missing.
    pub fn finish(&self) -> Result<(), SnapshotError> {
        if self.block.is_some() && self.next.is_none() { Ok(()) } else { Err(SnapshotError::NotNext) }
    }
}
