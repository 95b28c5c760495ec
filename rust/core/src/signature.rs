//! Ed25519 under ZIP-215.

/// A signing key (being written).
pub struct SigningKey {}
