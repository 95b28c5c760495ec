//! The module `ehrfast._core`: one thin file per core module. Buffers come in without copies, the GIL is
//! released for every batch, and errors become Python exceptions in `errors.rs` alone.
#![allow(missing_docs)]

use pyo3::prelude::*;

mod block;
mod buffer;
mod bundle;
mod cbor;
mod checkpoint_file;
mod cose;
mod digest;
mod envelope;
mod errors;
mod files;
mod grant;
mod key_store;
mod log;
mod pieces;
mod segments;
mod shard;
mod signature;
mod snapshot;
mod state;
mod state_db;
mod transaction;
mod trie;

#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    digest::register(module)?;
    signature::register(module)?;
    cbor::register(module)?;
    cose::register(module)?;
    transaction::register(module)?;
    log::register(module)?;
    trie::register(module)?;
    state::register(module)?;
    block::register(module)?;
    envelope::register(module)?;
    pieces::register(module)?;
    grant::register(module)?;
    shard::register(module)?;
    bundle::register(module)?;
    segments::register(module)?;
    state_db::register(module)?;
    key_store::register(module)?;
    checkpoint_file::register(module)?;
    snapshot::register(module)?;
    Ok(())
}
