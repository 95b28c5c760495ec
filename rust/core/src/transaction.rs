//! Transactions: strict decode, id, signing, and the checks that need no state.

use std::sync::Arc;

/// A decoded transaction and the bytes it was received as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// BLAKE3 of the Sig_structure.
    pub id: [u8; 32],
    /// The public key in the protected header (kid).
    pub sender: [u8; 32],
    /// Field 1.
    pub chain_id: String,
    /// Field 2.
    pub contract: String,
    /// Field 3.
    pub method: String,
    /// Field 4, the encoded map.
    pub args: Vec<u8>,
    /// Field 5: 0 emergency, 1 urgent, 2 routine.
    pub lane: u8,
    /// Field 6, Unix milliseconds.
    pub expires: u64,
    /// Field 7.
    pub salt: [u8; 16],
    /// Field 8: (pack root, wraps root).
    pub attachments: Vec<([u8; 32], [u8; 32])>,
    /// What was received, never re-encoded.
    pub received: Arc<[u8]>,
    /// SHA-256 of `received`.
    pub received_digest: [u8; 32],
}
