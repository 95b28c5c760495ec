//! The stores on real and on failing files: what was acknowledged is there, what is damaged is found.

mod blocks;
mod checkpoint_file;
mod crash;
mod key_store;
mod projection;
mod rewrite;
mod segments;
mod state_db;
