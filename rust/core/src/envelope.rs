//! Sealing and opening records: content keys, commitments, wraps, class keys.

/// The sealed items that travel with one transaction, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPack {
    /// One COSE_Encrypt0 a position.
    pub items: Vec<Vec<u8>>,
    /// The COSE recipients beside each item.
    pub wraps: Vec<Vec<u8>>,
    /// keyed["pack"] root over the item digests.
    pub root: [u8; 32],
    /// The root of the same shape over the wrap digests.
    pub wraps_root: [u8; 32],
    /// State commitments by position; empty when the pack came from elsewhere.
    pub commitments: Vec<[u8; 32]>,
}
