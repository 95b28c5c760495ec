//! Sealing 256 records of 2 KiB: encrypted, committed, digested and wrapped, beside AES-256-GCM by ring and no more.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use ehrfast_benches::{on_threads, seeded, wanted};
use ehrfast_core::envelope::{ClassId, ClassKey, Draft, Recipient, seal_records as seal};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const RECORDS: u64 = 256;
const BYTES: usize = 2048;

pub fn seal_records(criterion: &mut Criterion) {
    if !wanted("seal_records") {
        return;
    }
    let mut group = criterion.benchmark_group("seal_records");
    group.throughput(Throughput::Elements(RECORDS));
    let id = ClassId { subject: [1; 16], custodian: [2; 16], class: "observation".into(), epoch: [3; 16] };
    let key = Arc::new(ClassKey::derive(&seeded("root", 0), id).expect("the class has a name"));
    let data: Vec<u8> = (0..RECORDS).flat_map(|number| seeded("content", number).repeat(BYTES / 32)).collect();
    let spans: Vec<[u64; 2]> =
        (0..RECORDS).map(|number| [number * BYTES as u64, (number + 1) * BYTES as u64]).collect();
    let drafts: Vec<Draft> = (0..RECORDS)
        .map(|number| Draft {
            record_id: std::array::from_fn(|at| seeded("record", number)[at]),
            version: 1,
            class: "observation".into(),
            recipients: vec![Recipient::Class(Arc::clone(&key))],
        })
        .collect();
    group.bench_function("Rust, 2 KiB|ehrfast", |bencher| {
        bencher.iter(|| seal("bench", black_box(&data), &spans, &drafts).expect("the drafts are right"));
    });
    let contents: Vec<&[u8]> = data.chunks(BYTES).collect();
    group.bench_function("Rust, 2 KiB|ring AES-256-GCM alone", |bencher| {
        bencher.iter(|| {
            on_threads(&contents, |part| {
                let encrypt = |(number, content): (usize, &&[u8])| {
                    let key = UnboundKey::new(&AES_256_GCM, &[number as u8; 32]).expect("the key is 32 bytes");
                    let mut sealed = content.to_vec();
                    LessSafeKey::new(key)
                        .seal_in_place_append_tag(
                            Nonce::assume_unique_for_key([0; 12]),
                            Aad::from(&[7; 60]),
                            &mut sealed,
                        )
                        .expect("it is encrypted");
                    sealed
                };
                part.iter().enumerate().map(encrypt).collect::<Vec<_>>()
            })
        });
    });
    group.finish();
}
