//! Prints what hashing and signatures cost here, in nanoseconds an item; the best of several runs.
//! `cargo run --release --example measure`, with EHRFAST_THREADS=1 for one core and EHRFAST_SIMD for a tier.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use ehrfast_core::digest::{self, Use};
use ehrfast_core::signature::{self, Item, SigningKey};
use ehrfast_core::{pool, simd};

fn report<R>(name: &str, count: usize, mut work: impl FnMut() -> R) {
    let best = (0..15)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    println!("{name:<44} {:>10.1} ns", best.as_secs_f64() * 1e9 / count as f64);
}

fn signed(count: usize, keys: usize) -> Vec<([u8; 32], Vec<u8>, [u8; 64])> {
    let keys: Vec<_> = (0..keys).map(|_| SigningKey::generate().unwrap()).collect();
    (0..count)
        .map(|number| {
            let key = &keys[number % keys.len()];
            let message = digest::blake3(&number.to_le_bytes()).repeat(10);
            let signature = key.sign(&message);
            (*key.public_key(), message, signature)
        })
        .collect()
}

fn main() {
    println!("tier {}, {} threads", simd::lanes().tier().name(), pool::threads());
    for count in [1usize, 2, 3, 4, 5, 6, 7, 8, 16, 64, 1024, 1 << 18] {
        let inputs: Vec<[u8; 64]> = (0..count).map(|number| [number as u8; 64]).collect();
        let repeats = (1 << 16) / count + 1;
        report(&format!("keyed_nodes x {count}"), count * repeats, || {
            (0..repeats).for_each(|_| _ = black_box(digest::keyed_nodes(Use::Node, &inputs)));
        });
    }
    for size in [50usize, 64, 100, 300, 1024, 2048] {
        let inputs = vec![vec![7u8; size]; 1024];
        report(&format!("blake3_many 1024 x {size} B"), 1024, || digest::blake3_many(&inputs));
        report(&format!("sha256_many 1024 x {size} B"), 1024, || digest::sha256_many(&inputs));
        report(&format!("sha2 one by one 1024 x {size} B"), 1024, || {
            inputs.iter().for_each(|input| _ = black_box(simd::sha256_plain(None, input)));
        });
    }
    for count in [1usize, 2, 3, 16, 1024, 1 << 18] {
        let pairs = vec![[[1u8; 32], [2; 32]]; count];
        let repeats = (1 << 16) / count + 1;
        report(&format!("sha256_nodes x {count}"), count * repeats, || {
            (0..repeats).for_each(|_| _ = black_box(digest::sha256_nodes(&pairs)));
        });
    }
    let pairs = vec![[[1u8; 32], [2; 32]]; 1024];
    report("sha2 one by one, nodes", 1024, || {
        pairs.iter().for_each(|pair| _ = black_box(simd::sha256_plain(Some(1), pair.as_flattened())));
    });
    report("random_array::<32>", 1000, || (0..1000).for_each(|_| _ = black_box(digest::random_array::<32>())));
    report("RandomBlock::take::<32>", 1000, || {
        let mut block = digest::RandomBlock::draw().unwrap();
        (0..1000).for_each(|_| _ = black_box(block.take::<32>()));
    });
    report("derive", 1000, || (0..1000).for_each(|_| _ = black_box(digest::derive(Use::Opening, &[1; 32], &[0x80]))));

    let key = SigningKey::generate().unwrap();
    report("sign 320 B", 100, || (0..100).for_each(|_| _ = black_box(key.sign(&[1; 320]))));
    for (count, keys) in [
        (1, 1),
        (2, 2),
        (4, 4),
        (8, 8),
        (16, 16),
        (64, 64),
        (256, 256),
        (1024, 1024),
        (1024, 16),
        (4096, 4096),
        (4096, 16),
    ] {
        let owned = signed(count, keys);
        let items: Vec<_> =
            (owned.iter()).map(|(public_key, message, signature)| Item { public_key, message, signature }).collect();
        report(&format!("verify_batch {count}, {keys} keys"), count, || signature::verify_batch(&items));
        if count == 1024 {
            report(&format!("verify, {keys} keys"), count, || {
                items.iter().for_each(|i| signature::verify(i.public_key, i.message, i.signature).unwrap());
            });
        }
        let mut forged = owned.clone();
        forged[count / 2].2[40] ^= 1;
        let items: Vec<_> =
            (forged.iter()).map(|(public_key, message, signature)| Item { public_key, message, signature }).collect();
        report(&format!("verify_batch {count}, {keys} keys, one forged"), count, || signature::verify_batch(&items));
        forged.iter_mut().for_each(|item| item.2[40] ^= 1);
        let items: Vec<_> =
            (forged.iter()).map(|(public_key, message, signature)| Item { public_key, message, signature }).collect();
        report(&format!("verify_batch {count}, {keys} keys, all forged"), count, || signature::verify_batch(&items));
    }
}
