//! Tree roots over many leaves: our lanes beside the same crates called one node at a time.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use ehrfast_benches::{on_threads, seeded, sized, wanted};
use ehrfast_core::digest::{Digest, Use, keyed};
use ehrfast_core::merkle::log::{pack_root, root_of_digests, root_of_leaves};
use sha2::{Digest as _, Sha256};

/// Bytes of a transaction's leaf.
const LEAF: usize = 97;

fn count() -> u64 {
    sized(1 << 20, 1 << 16)
}

/// A level at a time; on two threads each half of a level has its own.
fn one_by_one(level: Vec<Digest>, node: impl Fn(&[Digest; 2]) -> Digest + Sync) -> Digest {
    let pairs = |pairs: &[[Digest; 2]]| on_threads(pairs, |part| part.iter().map(&node).collect::<Vec<_>>()).concat();
    root_of_digests(level, pairs).expect("the tree has leaves")
}

pub fn blake3_tree_root(criterion: &mut Criterion) {
    if !wanted("blake3_tree_root") {
        return;
    }
    let mut group = criterion.benchmark_group("blake3_tree_root");
    group.throughput(Throughput::Elements(count()));
    let leaves: Vec<Digest> = (0..count()).map(|number| seeded("leaf", number)).collect();
    let key = blake3::derive_key(&Use::PackNode.ctx(), b"");
    let rival = |leaves: &[Digest]| {
        let root = one_by_one(leaves.to_vec(), |pair| *blake3::keyed_hash(&key, pair.as_flattened()).as_bytes());
        keyed(Use::Pack, &[&(leaves.len() as u64).to_be_bytes(), &root])
    };
    assert_eq!(rival(&leaves), pack_root(&leaves));
    group.bench_function("Rust, 32 B leaves|ehrfast", |bencher| bencher.iter(|| pack_root(black_box(&leaves))));
    group.bench_function("Rust, 32 B leaves|blake3 one by one", |bencher| bencher.iter(|| rival(black_box(&leaves))));
    group.finish();
}

pub fn rfc6962_root(criterion: &mut Criterion) {
    if !wanted("rfc6962_root") {
        return;
    }
    let mut group = criterion.benchmark_group("rfc6962_root");
    group.throughput(Throughput::Elements(count()));
    let leaves: Vec<[u8; LEAF]> = (0..count())
        .map(|number| {
            let digest = seeded("leaf", number);
            std::array::from_fn(|at| digest[at % 32])
        })
        .collect();
    let rival = |leaves: &[[u8; LEAF]]| {
        let leaf = |leaf: &[u8; LEAF]| Digest::from(Sha256::new().chain_update([0]).chain_update(leaf).finalize());
        let hashes = on_threads(leaves, |part| part.iter().map(leaf).collect::<Vec<_>>()).concat();
        one_by_one(hashes, |[left, right]| {
            Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
        })
    };
    assert_eq!(rival(&leaves), root_of_leaves(&leaves));
    group.bench_function("Rust, 97 B leaves|ehrfast", |bencher| bencher.iter(|| root_of_leaves(black_box(&leaves))));
    group.bench_function("Rust, 97 B leaves|sha2 one by one", |bencher| bencher.iter(|| rival(black_box(&leaves))));
    group.finish();
}
