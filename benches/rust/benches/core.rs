//! The rows of the core, each beside its rivals: group = row, function = variant and side with a bar between them.
//! `EHRFAST_THREADS` sets the threads of both sides; `benches/report.py` runs this once with one and once with two.

mod sealing;
mod shards;
mod signatures;
mod trees;
mod tries;

use criterion::{criterion_group, criterion_main};
use ehrfast_benches::settings;

criterion_group! {
    name = core;
    config = settings();
    targets = signatures::signature_verify_batch, trees::blake3_tree_root, trees::rfc6962_root, tries::state_trie,
        sealing::seal_records,
        shards::validate
}
criterion_main!(core);
