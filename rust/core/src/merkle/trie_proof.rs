//! Proofs of presence and absence in the state trie, their one encoding, and the verifier, free of any store.
//! Refuses a leaf that is not lifted, a sibling list that does not fit the depth, and every foreign encoding.
//! Invariant: against one root, no path has both a proof of presence and a proof of absence.

use thiserror::Error;

use crate::cbor::{self, Reader, Writer};
use crate::digest::{Digest, Use, blake3, keyed};
use crate::state::Path;

/// The hash of a subtree without keys.
pub const EMPTY: Digest = [0; 32];
/// Bits of a path, and so the most siblings there can be.
pub const MAX_DEPTH: usize = 256;
/// The longest encoded proof: every sibling present and another leaf.
pub const MAX_PROOF_BYTES: usize = 5 + 34 + 3 + 32 * MAX_DEPTH + 66;

/// Why a proof about the state does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TrieProofError {
    /// Not the one encoding of a proof.
    #[error("not a state proof: {0}")]
    Encoding(#[from] cbor::Error),
    /// More than 256 levels, or a sibling list that does not fit the depth.
    #[error("the siblings do not fit the depth")]
    WrongLength,
    /// A sibling spelled out as zeros, or a bit set beyond the depth.
    #[error("an empty sibling is not marked as one")]
    EmptySibling,
    /// A node with an empty child and a leaf, or two empty ones: that subtree would be lifted.
    #[error("the leaf is not at its shortest unique prefix")]
    NotLifted,
    /// The other leaf is not on the way to the path.
    #[error("the other leaf lies elsewhere")]
    OtherElsewhere,
    /// The leaf given as another one has the path itself.
    #[error("the other leaf is not another one")]
    OtherIsOwn,
    /// A proof of presence where absence is claimed, or the other way round.
    #[error("the proof shows the opposite of what is claimed")]
    Opposite,
    /// The proof leads to another root than the one trusted.
    #[error("the proof leads to another root")]
    RootMismatch,
}

/// What lies where the way to a path ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The leaf of the path itself.
    Own,
    /// An empty slot: nothing is stored.
    Nothing,
    /// Another leaf, so that nothing is stored.
    Other {
        /// Its path, equal to the asked one on the first bits.
        path: Path,
        /// BLAKE3 of what is stored there.
        value: Digest,
    },
}

/// The way from the root to where a path ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrieProof {
    /// The hashes beside the way, from the root down; [`EMPTY`] where there is nothing.
    pub siblings: Vec<Digest>,
    /// What lies at the end.
    pub found: Found,
}

/// Bit `depth` of a path, the most significant of its first byte being bit 0; false beyond the last.
pub(super) fn bit(path: &Path, depth: usize) -> bool {
    path.get(depth / 8).is_some_and(|byte| byte >> (7 - depth % 8) & 1 == 1)
}

/// keyed["leaf"](path ‖ BLAKE3(stored)).
pub fn leaf_hash(path: &Path, value: &Digest) -> Digest {
    keyed(Use::Leaf, &[path, value])
}

impl TrieProof {
    /// CBOR [1, depth, bitmap of empty siblings, the other siblings joined, found], found being true for the path's
    /// own leaf, false for an empty slot, and path ‖ value digest for another leaf.
    pub fn encode(&self) -> Vec<u8> {
        let depth = self.siblings.len();
        let mut empty = vec![0_u8; depth.div_ceil(8)];
        let mut present = Vec::with_capacity(32 * depth);
        for (level, sibling) in self.siblings.iter().enumerate() {
            if *sibling == EMPTY {
                empty[level / 8] |= 0x80 >> (level % 8);
            } else {
                present.extend_from_slice(sibling);
            }
        }
        let mut writer = Writer::with_capacity(present.len() + 120);
        writer.array(5).uint(1).uint(depth as u64).bytes(&empty).bytes(&present);
        match &self.found {
            Found::Own => writer.boolean(true),
            Found::Nothing => writer.boolean(false),
            Found::Other { path, value } => writer.bytes(&[*path, *value].concat()),
        };
        writer.into_bytes()
    }

    /// Reads what `encode` emits and nothing else.
    pub fn decode(data: &[u8]) -> Result<Self, TrieProofError> {
        let mut reader = Reader::new(data, MAX_PROOF_BYTES)?;
        reader.array_of(5)?;
        reader.expect_int(1)?;
        let depth: usize = reader.uint_as()?;
        let (empty, present) = (reader.bytes()?, reader.bytes()?);
        let mut rest = reader.clone();
        let found = match rest.boolean() {
            Ok(own) => {
                reader = rest;
                if own { Found::Own } else { Found::Nothing }
            }
            Err(_) => {
                let other: [u8; 64] = reader.fixed()?;
                let (path, value) = (other.first_chunk(), other.last_chunk());
                let (Some(path), Some(value)) = (path, value) else { return Err(TrieProofError::WrongLength) };
                Found::Other { path: *path, value: *value }
            }
        };
        reader.finish()?;
        let (present, []) = present.as_chunks::<32>() else { return Err(TrieProofError::WrongLength) };
        if depth > MAX_DEPTH || empty.len() != depth.div_ceil(8) {
            return Err(TrieProofError::WrongLength);
        }
        let marked = |level: usize| empty[level / 8] & (0x80 >> (level % 8)) != 0;
        if (depth..8 * empty.len()).any(marked) || present.contains(&EMPTY) {
            return Err(TrieProofError::EmptySibling);
        }
        let mut spelled = present.iter().copied();
        let siblings: Option<Vec<Digest>> =
            (0..depth).map(|level| if marked(level) { Some(EMPTY) } else { spelled.next() }).collect();
        match (siblings, spelled.next()) {
            (Some(siblings), None) => Ok(Self { siblings, found }),
            _ => Err(TrieProofError::WrongLength),
        }
    }

    /// Checks that `stored` (blind ‖ value) lies at the path under this root, or with `None` that nothing does.
    pub fn verify(&self, root: &Digest, path: &Path, stored: Option<&[u8]>) -> Result<(), TrieProofError> {
        let depth = self.siblings.len();
        if depth > MAX_DEPTH {
            return Err(TrieProofError::WrongLength);
        }
        let mut hash = match (&self.found, stored) {
            (Found::Own, Some(stored)) => leaf_hash(path, &blake3(stored)),
            (Found::Nothing, None) => EMPTY,
            (Found::Other { path: other, value }, None) => {
                if other == path {
                    return Err(TrieProofError::OtherIsOwn);
                }
                if (0..depth).any(|level| bit(other, level) != bit(path, level)) {
                    return Err(TrieProofError::OtherElsewhere);
                }
                leaf_hash(other, value)
            }
            _ => return Err(TrieProofError::Opposite),
        };
        // Beside nothing, a leaf would have been lifted, and an empty slot would not be a slot.
        if self.siblings.last().is_some_and(|sibling| *sibling == EMPTY) {
            return Err(TrieProofError::NotLifted);
        }
        for (level, sibling) in self.siblings.iter().enumerate().rev() {
            let pair = if bit(path, level) { [*sibling, hash] } else { [hash, *sibling] };
            hash = keyed(Use::Node, &[pair.as_flattened()]);
        }
        if hash == *root { Ok(()) } else { Err(TrieProofError::RootMismatch) }
    }
}
