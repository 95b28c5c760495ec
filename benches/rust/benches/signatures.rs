//! 1,024 signatures over 256 bytes: our batch beside the batch of ed25519-zebra, which gives one verdict for all.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use ed25519_zebra::VerificationKeyBytes;
use ed25519_zebra::batch::Verifier;
use ehrfast_benches::{on_threads, seeded, wanted};
use ehrfast_core::signature::{Item, SigningKey, verify_batch};
use getrandom::SysRng;
use rand_core::UnwrapErr;

const BATCH: u64 = 1024;
const REGISTERED: u64 = 16;

struct Signed {
    key: [u8; 32],
    message: Vec<u8>,
    signature: [u8; 64],
}

fn signed(keys: &[SigningKey]) -> Vec<Signed> {
    (0..BATCH)
        .map(|number| {
            let key = &keys[number as usize % keys.len()];
            let message = seeded("message", number).repeat(8);
            Signed { key: *key.public_key(), signature: key.sign(&message), message }
        })
        .collect()
}

fn fresh() -> Vec<Signed> {
    let keys: Vec<_> = (0..BATCH).map(|_| SigningKey::generate().expect("randomness")).collect();
    signed(&keys)
}

fn ours(batch: &[Signed]) {
    let items: Vec<_> = (batch.iter())
        .map(|one| Item { public_key: &one.key, message: &one.message, signature: &one.signature })
        .collect();
    assert!(verify_batch(&items).into_iter().all(black_box));
}

fn zebra(batch: &[Signed]) {
    let held = on_threads(batch, |part| {
        let mut verifier = Verifier::new();
        for one in part {
            let signature = ed25519_zebra::Signature::from(one.signature);
            verifier.queue((VerificationKeyBytes::from(one.key), signature, &one.message));
        }
        verifier.verify(UnwrapErr(SysRng)).is_ok()
    });
    assert!(held.into_iter().all(black_box));
}

pub fn signature_verify_batch(criterion: &mut Criterion) {
    if !wanted("signature_verify_batch") {
        return;
    }
    let mut group = criterion.benchmark_group("signature_verify_batch");
    group.throughput(Throughput::Elements(BATCH));
    let keys: Vec<_> = (0..REGISTERED).map(|number| SigningKey::from_seed(&seeded("key", number))).collect();
    let registered = signed(&keys);
    for (side, verify) in [("ehrfast", ours as fn(&[Signed])), ("ed25519-zebra batch", zebra)] {
        group
            .bench_function(format!("Rust, 16 registered keys|{side}"), |bencher| bencher.iter(|| verify(&registered)));
        group.bench_function(format!("Rust, keys never seen|{side}"), |bencher| {
            bencher.iter_batched(fresh, |batch| verify(&batch), BatchSize::PerIteration);
        });
    }
    group.finish();
}
