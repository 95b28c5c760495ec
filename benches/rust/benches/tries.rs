//! The state trie at a million keys: a block of 1,000 new values, and one proof; beside jmt over its store in memory.
//! jmt hashes with BLAKE3 here, as we do. Neither side keeps the update, so every round starts from the same version.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use ehrfast_benches::{fact, seeded, sized, threads, wanted};
use ehrfast_core::digest::blake3;
use ehrfast_core::merkle::trie::{Trie, TrieError};
use ehrfast_core::state::WriteSet;
use jmt::mock::MockTreeStore;
use jmt::{JellyfishMerkleTree, KeyHash, SimpleHasher};

const CHANGED: u64 = 1_000;
const TURNS: u64 = 8;
const LOAD: u64 = 50_000;

struct Blake3(blake3::Hasher);

impl SimpleHasher for Blake3 {
    fn new() -> Self {
        Blake3(blake3::Hasher::new())
    }
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    fn finalize(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

fn keys() -> u64 {
    sized(1_000_000, 50_000)
}

fn stored(number: u64) -> Vec<u8> {
    seeded("stored", number).to_vec()
}

/// The keys a turn changes, spread over all.
fn changed(turn: u64) -> impl Iterator<Item = u64> {
    (0..CHANGED).map(move |number| (number * (keys() / CHANGED) + turn * 31) % keys())
}

fn ours() -> Trie {
    let mut entries: Vec<_> = (0..keys()).map(|number| (seeded("path", number), blake3(&stored(number)))).collect();
    entries.sort_unstable();
    Trie::load(entries.into_iter().map(Ok::<_, TrieError>)).expect("the entries ascend")
}

fn writes(turn: u64) -> WriteSet {
    let mut writes: Vec<_> =
        changed(turn).map(|number| (seeded("path", number), Some(stored(number + turn + 1)))).collect();
    writes.sort_unstable();
    WriteSet::of(writes)
}

fn rival(store: &MockTreeStore) -> u64 {
    let tree = JellyfishMerkleTree::<_, Blake3>::new(store);
    let mut version = 0;
    for start in (0..keys()).step_by(LOAD as usize) {
        let values = (start..(start + LOAD).min(keys())).map(|number| (path(number), Some(stored(number))));
        let (_, batch) = tree.put_value_set(values, version).expect("jmt takes the values");
        store.write_tree_update_batch(batch).expect("jmt keeps the values");
        version += 1;
    }
    version
}

fn path(number: u64) -> KeyHash {
    KeyHash(seeded("path", number))
}

pub fn state_trie(criterion: &mut Criterion) {
    if threads() != 1 || !(wanted("state_trie_update") || wanted("state_proof")) {
        return;
    }
    let trie = ours();
    let sets: Vec<WriteSet> = (0..TURNS).map(writes).collect();
    let store = MockTreeStore::new(true);
    let next = rival(&store);
    let tree = JellyfishMerkleTree::<_, Blake3>::new(&store);
    let values: Vec<Vec<_>> = (0..TURNS)
        .map(|turn| changed(turn).map(|number| (path(number), Some(stored(number + turn + 1)))).collect())
        .collect();
    let variant = sized("1,000 of 1,000,000 keys", "1,000 of 50,000 keys");

    let mut group = criterion.benchmark_group("state_trie_update");
    group.throughput(Throughput::Elements(CHANGED));
    let mut turns = sets.iter().cycle();
    group.bench_function(format!("{variant}|ehrfast"), |bencher| {
        bencher.iter_with_large_drop(|| trie.update(turns.next().expect("a cycle")).expect("the writes ascend"));
    });
    let mut turns = values.iter().cycle();
    group.bench_function(format!("{variant}|jmt"), |bencher| {
        bencher.iter_with_large_drop(|| {
            let set = turns.next().expect("a cycle").iter().cloned();
            tree.put_value_set(set, next).expect("jmt takes the values")
        });
    });
    group.finish();

    let variant = sized("1,000,000 keys", "50,000 keys");
    let asked: Vec<u64> = (0..1_000).map(|number| number * 997 % keys()).collect();
    let mut group = criterion.benchmark_group("state_proof");
    let mut numbers = asked.iter().cycle();
    group.bench_function(format!("{variant}, made|ehrfast"), |bencher| {
        bencher.iter(|| trie.prove(&seeded("path", *numbers.next().expect("a cycle"))).expect("in memory").encode());
    });
    let mut numbers = asked.iter().cycle();
    group.bench_function(format!("{variant}, made|jmt"), |bencher| {
        bencher.iter(|| {
            let (value, proof) =
                tree.get_with_proof(path(*numbers.next().expect("a cycle")), next - 1).expect("jmt finds the value");
            black_box((value, borsh::to_vec(&proof).expect("the proof is encoded")))
        });
    });
    group.finish();
    let mean = |sizes: Vec<usize>| sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
    let sizes =
        asked.iter().map(|number| trie.prove(&seeded("path", *number)).expect("in memory").encode().len()).collect();
    fact("state_proof", &format!("{variant}, size"), "ehrfast", mean(sizes));
    let sizes = asked
        .iter()
        .map(|number| {
            let (_, proof) = tree.get_with_proof(path(*number), next - 1).expect("jmt finds the value");
            borsh::to_vec(&proof).expect("the proof is encoded").len()
        })
        .collect();
    fact("state_proof", &format!("{variant}, size"), "jmt", mean(sizes));
}
