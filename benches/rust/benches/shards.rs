//! The next blocks of 8 chains, 1,000 transactions each, validated without their states; beside a batch of as many
//! signatures and nothing else. How both grow from one thread to two is compared by the report.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use ehrfast_benches::{seeded, wanted};
use ehrfast_core::block::{Cause, Entry, Header, assemble, assemble_genesis};
use ehrfast_core::cbor::Writer;
use ehrfast_core::digest::{Digest, blake3};
use ehrfast_core::merkle::frontier::Frontier;
use ehrfast_core::merkle::log::Log;
use ehrfast_core::merkle::trie::Trie;
use ehrfast_core::shard::{Claim, Tip, prove_block, validate_shards};
use ehrfast_core::signature::{Item, SigningKey, verify_batch};
use ehrfast_core::state::WriteSet;
use ehrfast_core::transaction::{Draft, Transaction};

const SHARDS: u64 = 8;
const TRANSACTIONS: u64 = 1_000;
const SIGNERS: u64 = 16;
const KEYS: u64 = 20_000;
const TIME_MS: u64 = 1_800_000_000_000;

struct Shard {
    tip: Tip,
    block: Vec<u8>,
    log_root: Digest,
}

fn stored(number: u64, version: u64) -> Vec<u8> {
    [&seeded("path", number)[..16], &version.to_be_bytes()].concat()
}

fn writes(numbers: impl Iterator<Item = u64>, version: u64) -> WriteSet {
    let mut writes: Vec<_> = numbers.map(|number| (seeded("path", number), Some(stored(number, version)))).collect();
    writes.sort_unstable();
    WriteSet::of(writes)
}

fn header(chain_id: &str, height: u64) -> Header {
    Header {
        chain_id: chain_id.to_owned(),
        height,
        engine_height: height,
        time_ms: TIME_MS + height,
        proposer: [9; 32],
    }
}

fn transaction(chain_id: &str, number: u64) -> Arc<Transaction> {
    let key = SigningKey::from_seed(&seeded("signer", number % SIGNERS));
    let salt = std::array::from_fn(|at| seeded("salt", number)[at]);
    let draft = Draft {
        chain_id,
        contract: "toy",
        method: "put",
        args: &[0xa0],
        lane: 2,
        expires: TIME_MS + 1000,
        salt,
        attachments: &[],
    };
    Arc::new(draft.sign(&key).expect("the draft is right"))
}

fn receipt(id: &Digest, index: u64) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(7).bytes(id).uint(1).uint(index).uint(0).uint(12).uint(1).array(0);
    writer.into_bytes()
}

fn shard(number: u64) -> Shard {
    let genesis = format!("genesis of {number}").into_bytes();
    let hash: String = blake3(&genesis)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let id = format!("shard-{hash}");
    let (mut log, empty) = (Log::new(), Trie::new());
    let (_, before) =
        assemble_genesis(&mut log, &empty, header(&id, 0), &genesis, writes(0..KEYS, 0)).expect("genesis is right");
    let frontier = Frontier::new(2, log.frontier(2).expect("the log has two leaves")).expect("a frontier of two");
    let tip = Tip { chain_id: id.clone(), next_height: 1, time_ms: TIME_MS, frontier, state_root: before.root() };
    let entries = (0..TRANSACTIONS)
        .map(|at| {
            let transaction = transaction(&id, at);
            Entry { receipt: receipt(&transaction.id, 2 + at), cause: Cause::Transaction(transaction) }
        })
        .collect();
    let changed = writes((0..TRANSACTIONS).map(|at| at * (KEYS / TRANSACTIONS)), 1);
    let (block, _) = assemble(&mut log, &before, header(&id, 1), entries, changed, &[]).expect("the block is right");
    let proven = prove_block(&block, &before).expect("it was assembled over this trie");
    Shard { tip, block: proven, log_root: log.root() }
}

pub fn validate(criterion: &mut Criterion) {
    if !wanted("validate_shards") {
        return;
    }
    let shards: Vec<_> = (0..SHARDS).map(shard).collect();
    let claims: Vec<_> = shards
        .iter()
        .map(|shard| Claim { tip: &shard.tip, block: &shard.block, log_root: Some(shard.log_root) })
        .collect();
    let mut group = criterion.benchmark_group("validate_shards");
    group.throughput(Throughput::Elements(SHARDS * TRANSACTIONS));
    group.bench_function("8 x 1,000|ehrfast", |bencher| {
        bencher.iter(|| assert!(validate_shards(black_box(&claims)).iter().all(Result::is_ok)));
    });
    let keys: Vec<_> = (0..SIGNERS).map(|number| SigningKey::from_seed(&seeded("signer", number))).collect();
    let signed: Vec<_> = (0..SHARDS * TRANSACTIONS)
        .map(|number| {
            let key = &keys[(number % SIGNERS) as usize];
            let message = seeded("message", number).repeat(8);
            (*key.public_key(), key.sign(&message), message)
        })
        .collect();
    let items: Vec<_> =
        (signed.iter()).map(|(public_key, signature, message)| Item { public_key, message, signature }).collect();
    group.bench_function("8 x 1,000|as many signatures alone", |bencher| {
        bencher.iter(|| assert!(verify_batch(black_box(&items)).into_iter().all(|held| held)));
    });
    group.finish();
}
