//! The verifiers alone, free of any store: what someone holds against us who trusts only a root.
//! Each check returns an error or nothing, so a forgotten verdict cannot pass for a good one.

use thiserror::Error;

use crate::digest::{Digest, sha256_node};

// ── log ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Why a proof about the log does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LogProofError {
    /// The leaf index is not inside the tree.
    #[error("leaf index {index} is outside a tree of {tree_size} leaves")]
    IndexOutOfRange {
        /// The index claimed.
        index: u64,
        /// The tree size claimed.
        tree_size: u64,
    },
    /// The new tree is smaller than the old one.
    #[error("old size {old_size} is above new size {new_size}")]
    SizesDescend {
        /// The size claimed to be the earlier.
        old_size: u64,
        /// The size claimed to be the later.
        new_size: u64,
    },
    /// Every tree begins with the empty one, so such a proof would show nothing.
    #[error("a consistency proof from the empty tree shows nothing")]
    FromEmpty,
    /// More or fewer hashes than the shape of the tree asks for.
    #[error("a proof of {length} hashes does not fit the tree")]
    WrongLength {
        /// Hashes in the proof.
        length: usize,
    },
    /// The proof leads to another root than the one trusted.
    #[error("the proof leads to another root")]
    RootMismatch,
    /// The proof leads to another root of the older tree than the one trusted.
    #[error("the proof leads to another root of the older tree")]
    OldRootMismatch,
}

/// Checks that the leaf is at `index` of the tree of `tree_size` leaves with that root.
///
/// Source: RFC 9162 section 2.1.3.2.
///
/// # Errors
/// [`LogProofError`], naming what does not hold.
pub fn verify_inclusion(
    leaf_hash: &Digest,
    index: u64,
    tree_size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), LogProofError> {
    if index >= tree_size {
        return Err(LogProofError::IndexOutOfRange { index, tree_size });
    }
    let wrong_length = LogProofError::WrongLength { length: proof.len() };
    let mut node = index;
    let mut last = tree_size - 1;
    let mut hash = *leaf_hash;
    for sibling in proof {
        if last == 0 {
            return Err(wrong_length);
        }
        if node & 1 == 1 || node == last {
            hash = sha256_node(sibling, &hash);
            skip_lone_levels(&mut node, &mut last);
        } else {
            hash = sha256_node(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    if hash == *root { Ok(()) } else { Err(LogProofError::RootMismatch) }
}

/// Checks that the tree of `new_size` leaves begins with the whole tree of `old_size` leaves.
///
/// Equal sizes ask for equal roots and an empty proof. An old size of 0 is refused.
/// Source: RFC 9162 section 2.1.4.2.
///
/// # Errors
/// [`LogProofError`], naming what does not hold.
pub fn verify_consistency(
    old_size: u64,
    new_size: u64,
    old_root: &Digest,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), LogProofError> {
    let wrong_length = LogProofError::WrongLength { length: proof.len() };
    if old_size > new_size {
        return Err(LogProofError::SizesDescend { old_size, new_size });
    }
    if old_size == 0 {
        return Err(LogProofError::FromEmpty);
    }
    if old_size == new_size {
        return match (proof.is_empty(), old_root == new_root) {
            (false, _) => Err(wrong_length),
            (true, false) => Err(LogProofError::RootMismatch),
            (true, true) => Ok(()),
        };
    }
    // A complete old tree is a node of the new one, and its root is not repeated in the proof.
    let (first, rest) = if old_size.is_power_of_two() && !proof.is_empty() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(wrong_length)?
    };
    let mut node = old_size - 1;
    let mut last = new_size - 1;
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(wrong_length);
        }
        if node & 1 == 1 || node == last {
            old_hash = sha256_node(sibling, &old_hash);
            new_hash = sha256_node(sibling, &new_hash);
            skip_lone_levels(&mut node, &mut last);
        } else {
            new_hash = sha256_node(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    if old_hash != *old_root {
        return Err(LogProofError::OldRootMismatch);
    }
    if new_hash == *new_root { Ok(()) } else { Err(LogProofError::RootMismatch) }
}

/// The last node of a level has no partner as long as it is a left child: it rises unhashed.
fn skip_lone_levels(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}
