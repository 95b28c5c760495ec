//! All integration tests of the core, one module a topic.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod block;
mod bundle;
mod cbor;
mod cose;
mod grant;
mod log;
mod pinned;
mod shard;
mod snapshot;
mod store;
mod transaction;
mod trie;
mod vectors;
