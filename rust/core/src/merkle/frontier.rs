//! The right edge of a log: the roots of its complete subtrees, enough to append and to give the root.
//! Refuses more or fewer roots than the tree size has bits set. What a validator keeps of a log it does not store.

use thiserror::Error;

use super::log::empty_root;
use crate::digest::{Digest, sha256_node, sha256_nodes};

/// Why roots are no frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrontierError {
    /// A tree of that size is made of another number of complete subtrees.
    #[error("{roots} roots do not make a tree of {tree_size} leaves")]
    WrongLength {
        /// Leaves in the tree.
        tree_size: u64,
        /// Roots given.
        roots: usize,
    },
}

/// The roots of the complete subtrees of a log of `tree_size` leaves, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    tree_size: u64,
    roots: Vec<Digest>,
}

impl Frontier {
    /// Takes what [`super::log::Log::frontier`] gives.
    ///
    /// # Errors
    /// [`FrontierError::WrongLength`]
    pub fn new(tree_size: u64, roots: Vec<Digest>) -> Result<Self, FrontierError> {
        match roots.len() == tree_size.count_ones() as usize {
            true => Ok(Self { tree_size, roots }),
            false => Err(FrontierError::WrongLength { tree_size, roots: roots.len() }),
        }
    }

    /// Leaves in the log.
    #[must_use]
    pub fn tree_size(&self) -> u64 {
        self.tree_size
    }

    /// The roots, the largest subtree first.
    #[must_use]
    pub fn roots(&self) -> &[Digest] {
        &self.roots
    }

    /// The root of the log. Source: RFC 9162 section 2.1.1.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut from_right = self.roots.iter().rev();
        let Some(last) = from_right.next() else { return empty_root() };
        from_right.fold(*last, |right, left| sha256_node(left, &right))
    }

    /// The frontier after these leaves, given as leaf hashes; each level is hashed at once.
    #[must_use]
    pub fn appended(&self, leaf_hashes: &[Digest]) -> Self {
        let tree_size = self.tree_size.saturating_add(leaf_hashes.len() as u64);
        let mut smallest_first = self.roots.iter().rev();
        let mut roots = Vec::new();
        let mut level = leaf_hashes.to_vec();
        for bit in 0..u64::BITS {
            if self.tree_size >> bit & 1 == 1
                && let Some(root) = smallest_first.next()
            {
                level.insert(0, *root);
            }
            let (pairs, lone) = level.as_chunks::<2>();
            roots.extend_from_slice(lone);
            level = sha256_nodes(pairs);
        }
        roots.reverse();
        Self { tree_size, roots }
    }
}
