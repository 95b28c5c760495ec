//! Proofs that a list of entries is all that the state holds between two paths, and their verifier, free of any store.
//! Refuses an omission, an addition, a change and every byte that the walk does not need.
//! Invariant: against one root, one range has one list of entries and one proof.
//!
//! ```text
//!   from ──┐        ┌── to         subtrees wholly outside: their hash      wholly inside: nothing, the entries give it
//!      ○   │ ● ● ●  │   ○          cut by a bound: a node whose children follow, an empty slot, or a lone leaf
//! ```
//! The proof is that walk from the root, left before right, one tag byte an item.

use thiserror::Error;

use super::trie_proof::{EMPTY, Found, MAX_DEPTH, TrieProof, bit, leaf_hash};
use crate::digest::{Digest, Use, keyed, keyed_nodes};
use crate::state::Path;

const NOTHING: u8 = 0;
const HASH: u8 = 1;
const NODE: u8 = 2;
const OUTSIDE: u8 = 3;
const INSIDE: u8 = 4;

/// The longest proof: a node, a sibling and a leaf on each level of both bounds.
pub const MAX_RANGE_PROOF_BYTES: usize = 2 * (MAX_DEPTH + 1) * 34 + 2 * 65;

/// Why entries are not what the state holds in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TrieRangeError {
    /// The bounds are not ascending, or the entries do not ascend within them.
    #[error("entries out of order or outside the range")]
    Order,
    /// The proof ends early, goes on too long, or has an unknown item.
    #[error("the proof does not fit the range")]
    Malformed,
    /// An empty subtree spelled out as a hash, or a leaf that would be lifted.
    #[error("the proof is not the one of this trie")]
    NotCanonical,
    /// The entries and the proof lead to another root.
    #[error("the entries lead to another root")]
    RootMismatch,
}

/// The bounds of a range: from the first path on, to before the other or to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first path that may be in it.
    pub from: Path,
    /// The first path after it; none: it has no end.
    pub to: Option<Path>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Inside,
    Outside,
    CutByFrom,
    CutByTo,
}

impl Bounds {
    fn holds(&self, path: &Path) -> bool {
        *path >= self.from && self.to.is_none_or(|to| *path < to)
    }

    /// Where the subtree of the first `depth` bits of `low` lies; its other bits are zero.
    fn place(&self, low: &Path, depth: usize) -> Place {
        let cuts = |bound: &Path| bound > low && shares(bound, low, depth);
        if cuts(&self.from) {
            Place::CutByFrom
        } else if self.to.as_ref().is_some_and(cuts) {
            Place::CutByTo
        } else if self.holds(low) {
            Place::Inside
        } else {
            Place::Outside
        }
    }
}

fn shares(one: &Path, other: &Path, depth: usize) -> bool {
    (0..depth).all(|level| bit(one, level) == bit(other, level))
}

fn with_bit(path: &Path, depth: usize) -> Path {
    let mut changed = *path;
    if let Some(byte) = changed.get_mut(depth / 8) {
        *byte |= 0x80 >> (depth % 8);
    }
    changed
}

/// Proves a range. `prove` gives the proof of a path and, where it holds a value, that value's digest.
pub fn prove_range<E>(
    bounds: &Bounds,
    mut prove: impl FnMut(&Path) -> Result<(TrieProof, Option<Digest>), E>,
) -> Result<Vec<u8>, E> {
    let from = (prove(&bounds.from)?, bounds.from);
    let to = match bounds.to {
        Some(to) => Some((prove(&to)?, to)),
        None => None,
    };
    let mut prover = Prover { bounds, from, to, out: Vec::new() };
    prover.walk(&[0; 32], 0, None);
    Ok(prover.out)
}

type Proven = ((TrieProof, Option<Digest>), Path);

struct Prover<'a> {
    bounds: &'a Bounds,
    from: Proven,
    to: Option<Proven>,
    out: Vec<u8>,
}

impl Prover<'_> {
    /// `hash` is the subtree's, known wherever it lies beside a bound's way.
    fn walk(&mut self, low: &Path, depth: usize, hash: Option<Digest>) {
        let place = self.bounds.place(low, depth);
        let ((proof, own), bound) = match (place, &self.to) {
            (Place::CutByFrom, _) => &self.from,
            (Place::CutByTo, Some(to)) => to,
            (Place::Outside, to) => {
                // On the way itself lies only what begins with `to`.
                let hash = hash.or_else(|| to.as_ref().map(|to| along(to, depth))).unwrap_or(EMPTY);
                if hash == EMPTY {
                    return self.out.push(NOTHING);
                }
                self.out.push(HASH);
                return self.out.extend_from_slice(&hash);
            }
            _ => return,
        };
        if let Some(beside) = proof.siblings.get(depth).copied() {
            let right = bit(bound, depth);
            self.out.push(NODE);
            self.walk(low, depth + 1, right.then_some(beside));
            return self.walk(&with_bit(low, depth), depth + 1, (!right).then_some(beside));
        }
        let leaf = match (proof.found, own) {
            (Found::Own, Some(value)) => Some((*bound, *value)),
            (Found::Other { path, value }, _) => Some((path, value)),
            _ => None,
        };
        match leaf {
            None => self.out.push(NOTHING),
            Some((path, _)) if self.bounds.holds(&path) => self.out.push(INSIDE),
            Some((path, value)) => {
                self.out.push(OUTSIDE);
                self.out.extend_from_slice(&path);
                self.out.extend_from_slice(&value);
            }
        }
    }
}

/// The hash of the subtree at a depth on the way of a proof.
fn along(((proof, own), path): &Proven, depth: usize) -> Digest {
    let end = match (&proof.found, own) {
        (Found::Own, Some(value)) => leaf_hash(path, value),
        (Found::Other { path, value }, _) => leaf_hash(path, value),
        _ => EMPTY,
    };
    let beside = proof.siblings.iter().enumerate().skip(depth).rev();
    beside.fold(end, |hash, (level, sibling)| {
        let pair = if bit(path, level) { [sibling, &hash] } else { [&hash, sibling] };
        keyed(Use::Node, &[pair[0], pair[1]])
    })
}

/// Checks that (path, BLAKE3(stored)), ascending, are all that the state under this root holds in the range.
pub fn verify_range(
    root: &Digest,
    bounds: &Bounds,
    entries: &[(Path, Digest)],
    proof: &[u8],
) -> Result<(), TrieRangeError> {
    let ordered = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let within = entries.iter().all(|(path, _)| bounds.holds(path));
    if !ordered || !within || bounds.to.is_some_and(|to| to <= bounds.from) {
        return Err(TrieRangeError::Order);
    }
    if proof.len() > MAX_RANGE_PROOF_BYTES {
        return Err(TrieRangeError::Malformed);
    }
    let preimages: Vec<[u8; 64]> = entries.iter().map(|(path, value)| joined(path, value)).collect();
    let hashes = keyed_nodes(Use::Leaf, &preimages);
    let leaves: Vec<(Path, Digest)> = entries.iter().map(|(path, _)| *path).zip(hashes).collect();
    let mut verifier = Verifier { bounds, proof };
    let (hash, _) = verifier.walk(&[0; 32], 0, &leaves)?;
    match verifier.proof {
        [] if hash == *root => Ok(()),
        [] => Err(TrieRangeError::RootMismatch),
        _ => Err(TrieRangeError::Malformed),
    }
}

fn joined(left: &Digest, right: &Digest) -> [u8; 64] {
    let mut pair = [0; 64];
    pair[..32].copy_from_slice(left);
    pair[32..].copy_from_slice(right);
    pair
}

struct Verifier<'a> {
    bounds: &'a Bounds,
    proof: &'a [u8],
}

impl Verifier<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TrieRangeError> {
        let (taken, rest) = self.proof.split_first_chunk::<N>().ok_or(TrieRangeError::Malformed)?;
        self.proof = rest;
        Ok(*taken)
    }

    /// The hash of a subtree, and whether it is known to hold one leaf alone. `leaves` are its entries in the range.
    fn walk(&mut self, low: &Path, depth: usize, leaves: &[(Path, Digest)]) -> Result<(Digest, bool), TrieRangeError> {
        match self.bounds.place(low, depth) {
            Place::Inside => Ok((subtree(leaves, depth), leaves.len() == 1)),
            Place::Outside => match self.take::<1>()? {
                [NOTHING] => Ok((EMPTY, false)),
                [HASH] => match self.take::<32>()? {
                    EMPTY => Err(TrieRangeError::NotCanonical),
                    hash => Ok((hash, false)),
                },
                _ => Err(TrieRangeError::Malformed),
            },
            Place::CutByFrom | Place::CutByTo => self.cut(low, depth, leaves),
        }
    }

    fn cut(&mut self, low: &Path, depth: usize, leaves: &[(Path, Digest)]) -> Result<(Digest, bool), TrieRangeError> {
        match (self.take::<1>()?, leaves) {
            ([NOTHING], []) => Ok((EMPTY, false)),
            ([INSIDE], [(_, hash)]) => Ok((*hash, true)),
            ([OUTSIDE], []) => {
                let (path, value) = (self.take::<32>()?, self.take::<32>()?);
                if self.bounds.holds(&path) || !shares(&path, low, depth) {
                    return Err(TrieRangeError::Order);
                }
                Ok((leaf_hash(&path, &value), true))
            }
            ([NODE], _) if depth < MAX_DEPTH => {
                let (left, right) = leaves.split_at(leaves.partition_point(|(path, _)| !bit(path, depth)));
                let left = self.walk(low, depth + 1, left)?;
                let right = self.walk(&with_bit(low, depth), depth + 1, right)?;
                if matches!((left, right), ((EMPTY, _), (EMPTY, _) | (_, true)) | ((_, true), (EMPTY, _))) {
                    return Err(TrieRangeError::NotCanonical);
                }
                Ok((keyed(Use::Node, &[&left.0, &right.0]), false))
            }
            _ => Err(TrieRangeError::Malformed),
        }
    }
}

/// The hash of a subtree by its leaf hashes in path order.
fn subtree(leaves: &[(Path, Digest)], depth: usize) -> Digest {
    match leaves {
        [] => EMPTY,
        [(_, hash)] => *hash,
        _ => {
            let (left, right) = leaves.split_at(leaves.partition_point(|(path, _)| !bit(path, depth)));
            keyed(Use::Node, &[&subtree(left, depth + 1), &subtree(right, depth + 1)])
        }
    }
}
