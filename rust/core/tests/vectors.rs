//! Outside vectors for BLAKE3 and Ed25519; skipped with a notice where they are not there.

use std::path::PathBuf;

use ehrfast_core::digest::{blake3, keyed_by};
use ehrfast_core::signature::{Item, verify, verify_batch};
use ehrfast_core::simd::{Blake3Mode, Lanes, Tier};
use serde::Deserialize;

fn vectors<T: serde::de::DeserializeOwned>(path: &str) -> Option<T> {
    let shared = std::env::var_os("EHRFAST_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")), PathBuf::from);
    let file = shared.join("vectors").join(path);
    let Ok(text) = std::fs::read_to_string(&file) else {
        eprintln!("skipped: no vectors at {}", file.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

#[derive(Deserialize)]
struct Blake3Vectors {
    key: String,
    cases: Vec<Blake3Case>,
}

#[derive(Deserialize)]
struct Blake3Case {
    input_len: usize,
    hash: String,
    keyed_hash: String,
}

/// Source: BLAKE3 repository, test_vectors/test_vectors.json (CC0).
#[test]
fn blake3_vectors() {
    let Some(vectors) = vectors::<Blake3Vectors>("blake3/test_vectors.json") else { return };
    let key: [u8; 32] = vectors.key.as_bytes().try_into().unwrap();
    assert!(vectors.cases.len() > 30);
    let mut in_lanes = 0;
    for case in vectors.cases {
        let input: Vec<u8> = (0..case.input_len).map(|at| (at % 251) as u8).collect();
        assert_eq!(hex::encode(blake3(&input)), case.hash[..64], "{}", case.input_len);
        assert_eq!(hex::encode(keyed_by(&key, &input)), case.keyed_hash[..64], "{}", case.input_len);
        for lanes in Tier::ALL.into_iter().filter_map(|tier| Lanes::of(tier).ok()) {
            for (mode, expected) in [(Blake3Mode::PLAIN, &case.hash), (Blake3Mode::keyed(&key), &case.keyed_hash)] {
                let mut digests = [[0; 32]; 11];
                if let Ok(block) = <&[u8; 64]>::try_from(input.as_slice()) {
                    lanes.blake3(&mode, &[block; 11], &mut digests);
                } else if let Ok(chunk) = <&[u8; 1024]>::try_from(input.as_slice()) {
                    lanes.blake3(&mode, &[chunk; 11], &mut digests);
                } else {
                    continue;
                }
                in_lanes += 1;
                assert!(digests.iter().all(|digest| hex::encode(digest) == expected[..64]), "{}", case.input_len);
            }
        }
    }
    assert!(in_lanes >= 4);
}

#[derive(Deserialize)]
struct Ed25519Vector {
    number: usize,
    key: String,
    sig: String,
    msg: String,
    flags: Option<Vec<String>>,
}

/// Source: C2SP CCTV, ed25519/ed25519vectors.json: small-order and mixed-order points, non-canonical encodings.
/// ZIP-215 hashes R and A as received, so it accepts all but those of the flag `reencoded_k`, which were made by
/// hashing another encoding; of these it accepts the ones where the hash does not matter.
#[test]
fn ed25519_vectors_hold_alone_and_together() {
    let Some(vectors) = vectors::<Vec<Ed25519Vector>>("ed25519/cctv.json") else { return };
    let owned: Vec<([u8; 32], Vec<u8>, [u8; 64])> = vectors
        .iter()
        .map(|vector| {
            let key = hex::decode(&vector.key).unwrap().try_into().unwrap();
            (key, vector.msg.clone().into_bytes(), hex::decode(&vector.sig).unwrap().try_into().unwrap())
        })
        .collect();
    let mut expected = Vec::new();
    for (vector, (key, message, signature)) in vectors.iter().zip(&owned) {
        let accepted = verify(key, message, signature).is_ok();
        let reencoded = vector.flags.iter().flatten().any(|flag| flag == "reencoded_k");
        assert!(accepted || reencoded, "vector {}", vector.number);
        let oracle = ed25519_zebra::VerificationKey::try_from(*key)
            .is_ok_and(|key| key.verify(&ed25519_zebra::Signature::from(*signature), message).is_ok());
        assert_eq!(accepted, oracle, "vector {}", vector.number);
        expected.push(accepted);
    }
    // Counted by a Python reading of ZIP-215.
    assert_eq!((vectors.len(), expected.iter().filter(|accepted| **accepted).count()), (914, 768 + 58));
    let items: Vec<Item<'_>> =
        (owned.iter()).map(|(public_key, message, signature)| Item { public_key, message, signature }).collect();
    for length in [1, 2, 3, 7, 64, 200, items.len()] {
        for (batch, expected) in items.chunks(length).zip(expected.chunks(length)) {
            assert_eq!(verify_batch(batch), expected, "batches of {length}");
        }
    }
    // Each forged in turn among its neighbours, by a message that was not signed.
    for (at, batch) in items.chunks(13).enumerate() {
        let mut batch = batch.to_vec();
        let forged = at % batch.len();
        batch[forged].message = b"another message";
        let expected: Vec<bool> =
            batch.iter().map(|item| verify(item.public_key, item.message, item.signature).is_ok()).collect();
        assert_eq!(verify_batch(&batch), expected, "batch {at}");
    }
}
