//! The core of ehrfast: pure Rust, no Python; usable, fuzzable and benchable by itself.
//!
//! Bytes are defined in `docs/formats.md`; each module owns the formats named in its head.
#![deny(unsafe_code)]

pub mod block;
pub mod bundle;
pub mod cbor;
pub mod cose;
pub mod digest;
pub mod envelope;
mod fhir_types;
pub mod grant;
pub mod merkle;
pub mod pieces;
pub mod pool;
pub mod shard;
pub mod signature;
#[allow(unsafe_code)]
pub mod simd;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod transaction;

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "../tests/pinned.rs"]
mod pinned;
