//! What lies on disk: the block log (the truth), the state database (a projection of it), the key store, the checkpoint slots.
pub mod at_rest;
pub mod checkpoint_file;
pub mod files;
mod frame;
pub mod key_store;
pub mod projection;
mod rewrite;
mod section_cache;
pub mod segments;
pub mod state_db;
