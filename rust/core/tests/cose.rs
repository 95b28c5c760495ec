//! COSE messages: one form, found again from its parts, and every other form refused.

use ehrfast_core::cose::{CoseError, SIGN1_OVERHEAD, Sign, Sign1, sign, sign_structure, sign1, sign1_structure};
use ehrfast_core::signature::{SigningKey, verify};

use crate::pinned::pinned;

const AAD: &[u8] = b"ehrfast/genesis/v1";

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

#[test]
fn a_single_signature_is_read_back_and_holds_for_its_use_only() {
    for length in [0, 1, 23, 24, 255, 256, 65535, 65536] {
        let payload = vec![7; length];
        let message = sign1(&key(1), &payload, AAD);
        let read = Sign1::decode(&message, message.len()).unwrap();
        assert_eq!((read.payload, read.key), (&payload[..], key(1).public_key()));
        assert_eq!(read.encode(), message);
        read.verify(AAD).unwrap();
        assert_eq!(read.verify(b"another use"), Err(CoseError::Signature { position: 0 }));
        assert!(Sign1::decode(&message, message.len() - 1).is_err());
    }
    assert_eq!(sign1(&key(1), b"", AAD).len(), SIGN1_OVERHEAD + 1);
}

#[test]
fn what_is_signed_is_what_the_standard_says() {
    let public_key = *key(1).public_key();
    let mut expected = b"\x84\x6aSignature1\x58\x26\xa2\x01\x32\x04\x58\x20".to_vec();
    expected.extend_from_slice(&public_key);
    expected.extend_from_slice(b"\x43aad\x42ab");
    assert_eq!(sign1_structure(&public_key, b"aad", b"ab"), expected);
    let message = sign1(&key(1), b"ab", b"aad");
    verify(&public_key, &expected, Sign1::decode(&message, 1000).unwrap().signature).unwrap();

    let mut expected = b"\x85\x69Signature\x40\x58\x26\xa2\x01\x32\x04\x58\x20".to_vec();
    expected.extend_from_slice(&public_key);
    expected.extend_from_slice(b"\x43aad\x42ab");
    assert_eq!(sign_structure(&public_key, b"aad", b"ab"), expected);
}

#[test]
fn the_genesis_signature_is_pinned() {
    let message = sign([&key(1), &key(2)], b"genesis", AAD).unwrap();
    assert_eq!(hex::encode(&message), pinned("genesis_signature", "example"));
    assert_eq!(message, sign([&key(2), &key(1)], b"genesis", AAD).unwrap());
}

#[test]
fn many_signatures_are_read_back_and_all_must_hold() {
    let keys: Vec<_> = (1..=30).map(key).collect();
    let message = sign(&keys, b"payload", AAD).unwrap();
    let read = Sign::decode(&message, message.len()).unwrap();
    assert_eq!((read.payload, read.signatures.len()), (&b"payload"[..], 30));
    assert_eq!(read.encode(), message);
    read.verify(AAD).unwrap();
    assert!(read.verify(b"another use").is_err());
    for position in [0, 17, 29] {
        let mut forged = read.clone();
        forged.signatures[position].1[40] ^= 1;
        assert_eq!(forged.verify(AAD), Err(CoseError::Signature { position }));
    }
}

#[test]
fn no_signer_counts_twice_and_none_is_no_message() {
    assert_eq!(sign([], b"", AAD), Err(CoseError::NoSigner));
    assert_eq!(sign([&key(1), &key(2), &key(1)], b"", AAD), Err(CoseError::SignerOrder { position: 2 }));
    let one = sign([&key(1)], b"", AAD).unwrap();
    let signed = Sign::decode(&one, 1000).unwrap();
    let twice = Sign { payload: b"", signatures: vec![signed.signatures[0]; 2] }.encode();
    assert_eq!(Sign::decode(&twice, 1000), Err(CoseError::SignerOrder { position: 1 }));
    let none = Sign { payload: b"", signatures: Vec::new() }.encode();
    assert_eq!(Sign::decode(&none, 1000), Err(CoseError::NoSigner));
    let message = sign([&key(1), &key(2)], b"", AAD).unwrap();
    let mut swapped = Sign::decode(&message, 1000).unwrap();
    swapped.signatures.swap(0, 1);
    assert_eq!(Sign::decode(&swapped.encode(), 1000), Err(CoseError::SignerOrder { position: 1 }));
}

#[test]
fn every_cut_and_changed_message_is_refused_or_another_message() {
    let single = sign1(&key(1), b"pay", AAD);
    let many = sign([&key(1), &key(2)], b"pay", AAD).unwrap();
    for length in 0..single.len() {
        assert!(Sign1::decode(&single[..length], 1000).is_err());
    }
    for length in 0..many.len() {
        assert!(Sign::decode(&many[..length], 1000).is_err());
    }
    assert!(Sign1::decode(&[&single[..], b"\x00"].concat(), 1000).is_err());
    assert!(Sign::decode(&[&many[..], b"\x00"].concat(), 1000).is_err());
    for (at, bit) in (0..single.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut changed = single.clone();
        changed[at] ^= 1 << bit;
        if let Ok(read) = Sign1::decode(&changed, 1000) {
            assert_eq!(read.encode(), changed);
            assert!(read.verify(AAD).is_err(), "byte {at} bit {bit}");
        }
    }
    for (at, bit) in (0..many.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut changed = many.clone();
        changed[at] ^= 1 << bit;
        if let Ok(read) = Sign::decode(&changed, 1000) {
            assert_eq!(read.encode(), changed);
            assert!(read.verify(AAD).is_err(), "byte {at} bit {bit}");
        }
    }
}
