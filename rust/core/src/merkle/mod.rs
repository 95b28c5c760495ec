//! The two trees: the RFC 6962 log of everything that happened, and the state trie of what is true now.
pub mod frontier;
pub mod log;
pub mod log_tiles;
pub mod partial;
pub mod trie;
pub mod trie_proof;
pub mod trie_range;
pub mod trie_source;
pub mod verify;
