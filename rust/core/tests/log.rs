//! The log and its verifiers against a readable twin and against the vectors of transparency-dev/merkle.

use ehrfast_core::digest::{self, Digest};
use ehrfast_core::merkle::log::{Log, pack_root, root_of_leaves};
use ehrfast_core::merkle::verify::{LogProofError, verify_consistency, verify_inclusion};
use proptest::prelude::*;
use serde::Deserialize;

use crate::pinned::pinned;

/// RFC 9162 section 2.1, word for word and as slow as it reads.
mod twin {
    use super::{Digest, digest};

    pub fn root(leaves: &[Vec<u8>]) -> Digest {
        match leaves {
            [] => digest::sha256(b""),
            [leaf] => digest::sha256(&[b"\0", leaf.as_slice()].concat()),
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                digest::sha256(&[b"\x01".as_slice(), &root(left), &root(right)].concat())
            }
        }
    }

    pub fn path(index: usize, leaves: &[Vec<u8>]) -> Vec<Digest> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut proof, sibling) = if index < left.len() {
            (path(index, left), root(right))
        } else {
            (path(index - left.len(), right), root(left))
        };
        proof.push(sibling);
        proof
    }

    pub fn consistency(old: usize, leaves: &[Vec<u8>], whole: bool) -> Vec<Digest> {
        if old == leaves.len() {
            return if whole { Vec::new() } else { vec![root(leaves)] };
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut proof, sibling) = if old <= left.len() {
            (consistency(old, left, whole), root(right))
        } else {
            (consistency(old - left.len(), right, false), root(left))
        };
        proof.push(sibling);
        proof
    }

    fn split(count: usize) -> usize {
        let mut half = 1;
        while half * 2 < count {
            half *= 2;
        }
        half
    }
}

fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| index.to_string().repeat(index % 7).into_bytes()).collect()
}

fn log_of(leaves: &[Vec<u8>]) -> Log {
    let mut log = Log::new();
    log.append(leaves);
    log
}

fn check_all_proofs(count: usize) {
    let leaves = leaves(count);
    let log = log_of(&leaves);
    let root = log.root();
    assert_eq!(root, twin::root(&leaves), "{count}");
    assert_eq!(root_of_leaves(&leaves), root);
    let tree_size = count as u64;
    for at in 0..count {
        let (index, proof) = (at as u64, log.prove_inclusion(at as u64, tree_size).unwrap());
        assert_eq!(proof, twin::path(at, &leaves), "{at} of {count}");
        verify_inclusion(&log.leaf_hash(index).unwrap(), index, tree_size, &proof, &root).unwrap();
    }
    for old in 1..=count {
        let (old_size, proof) = (old as u64, log.prove_consistency(old as u64, tree_size).unwrap());
        assert_eq!(proof, twin::consistency(old, &leaves, true), "{old} to {count}");
        let old_root = log.root_at(old_size).unwrap();
        assert_eq!(old_root, twin::root(&leaves[..old]));
        verify_consistency(old_size, tree_size, &old_root, &root, &proof).unwrap();
    }
}

#[test]
fn equals_its_twin_around_powers_of_two() {
    (0..=40).chain([63, 64, 65, 127, 128, 129]).for_each(check_all_proofs);
}

#[test]
fn batches_beyond_one_run_equal_leaves_one_by_one() {
    let leaves = leaves(3_001);
    let whole = log_of(&leaves);
    let mut single = Log::new();
    leaves.iter().for_each(|leaf| single.append(std::slice::from_ref(leaf)));
    for tree_size in [0, 1, 511, 512, 513, 1024, 2047, 2048, 2049, 3001] {
        assert_eq!(whole.frontier(tree_size), single.frontier(tree_size), "{tree_size}");
        assert_eq!(whole.root_at(tree_size).unwrap(), twin::root(&leaves[..tree_size as usize]), "{tree_size}");
    }
}

#[test]
fn the_frontier_is_enough_to_find_the_root() {
    let log = log_of(&leaves(100));
    for tree_size in 1..=100 {
        let frontier = log.frontier(tree_size).unwrap();
        assert_eq!(frontier.len(), tree_size.count_ones() as usize);
        let root = frontier.into_iter().rev().reduce(|right, left| digest::sha256_node(&left, &right));
        assert_eq!(root, Some(log.root_at(tree_size).unwrap()));
    }
}

proptest! {
    #[test]
    fn any_cut_into_batches_gives_the_same_log(batches in prop::collection::vec(0usize..40, 0..12), keep in 0usize..200) {
        let leaves = leaves(batches.iter().sum());
        let mut log = Log::new();
        let mut rest = leaves.as_slice();
        for batch in batches {
            let (now, later) = rest.split_at(batch);
            log.append(now);
            rest = later;
        }
        prop_assert_eq!(log.root(), twin::root(&leaves));
        let keep = keep.min(leaves.len());
        log.truncate(keep as u64).unwrap();
        prop_assert_eq!(log.root(), twin::root(&leaves[..keep]));
        log.append(&leaves[keep..]);
        prop_assert_eq!(log.root(), twin::root(&leaves));
    }

    #[test]
    fn an_altered_inclusion_proof_is_refused(count in 1usize..300, at in any::<prop::sample::Index>(), bit in 0usize..256, pick in any::<prop::sample::Index>()) {
        let log = log_of(&leaves(count));
        let (index, tree_size, root) = (at.index(count) as u64, count as u64, log.root());
        let leaf = log.leaf_hash(index).unwrap();
        let proof = log.prove_inclusion(index, tree_size).unwrap();
        let check = |leaf: &Digest, index, tree_size, proof: &[Digest], root: &Digest| verify_inclusion(leaf, index, tree_size, proof, root);
        prop_assert_eq!(check(&flipped(leaf, bit), index, tree_size, &proof, &root), Err(LogProofError::RootMismatch));
        prop_assert_eq!(check(&leaf, index, tree_size, &proof, &flipped(root, bit)), Err(LogProofError::RootMismatch));
        prop_assert_eq!(check(&leaf, tree_size, tree_size, &proof, &root), Err(LogProofError::IndexOutOfRange { index: tree_size, tree_size }));
        let mut longer = proof.clone();
        longer.push(leaf);
        prop_assert_eq!(check(&leaf, index, tree_size, &longer, &root), Err(LogProofError::WrongLength { length: longer.len() }));
        if !proof.is_empty() {
            let shorter = &proof[..proof.len() - 1];
            prop_assert_eq!(check(&leaf, index, tree_size, shorter, &root), Err(LogProofError::WrongLength { length: shorter.len() }));
            let mut altered = proof.clone();
            let which = pick.index(altered.len());
            altered[which] = flipped(altered[which], bit);
            prop_assert_eq!(check(&leaf, index, tree_size, &altered, &root), Err(LogProofError::RootMismatch));
        }
    }

    #[test]
    fn an_altered_consistency_proof_is_refused(count in 2usize..300, old in any::<prop::sample::Index>(), bit in 0usize..256, pick in any::<prop::sample::Index>()) {
        let log = log_of(&leaves(count));
        let (old_size, new_size) = (1 + old.index(count - 1) as u64, count as u64);
        let (old_root, new_root) = (log.root_at(old_size).unwrap(), log.root());
        let proof = log.prove_consistency(old_size, new_size).unwrap();
        prop_assert!(verify_consistency(old_size, new_size, &flipped(old_root, bit), &new_root, &proof).is_err());
        prop_assert_eq!(verify_consistency(old_size, new_size, &old_root, &flipped(new_root, bit), &proof), Err(LogProofError::RootMismatch));
        let mut altered = proof.clone();
        let which = pick.index(altered.len());
        altered[which] = flipped(altered[which], bit);
        prop_assert!(verify_consistency(old_size, new_size, &old_root, &new_root, &altered).is_err());
        let shorter = &proof[..proof.len() - 1];
        prop_assert_eq!(verify_consistency(old_size, new_size, &old_root, &new_root, shorter), Err(LogProofError::WrongLength { length: shorter.len() }));
        let longer = [proof.as_slice(), &[old_root]].concat();
        prop_assert_eq!(verify_consistency(old_size, new_size, &old_root, &new_root, &longer), Err(LogProofError::WrongLength { length: longer.len() }));
    }

    #[test]
    fn no_claim_makes_the_verifiers_panic(index in any::<u64>(), tree_size in any::<u64>(), length in 0usize..70) {
        let proof = vec![[7; 32]; length];
        prop_assert!(verify_inclusion(&[1; 32], index, tree_size, &proof, &[2; 32]).is_err());
        prop_assert!(verify_consistency(index, tree_size, &[1; 32], &[2; 32], &proof).is_err());
    }

    #[test]
    fn a_pack_root_commits_to_count_place_and_digest(count in 1usize..40, at in any::<prop::sample::Index>(), bit in 0usize..256) {
        let digests = digest::blake3_many(&leaves(count));
        let root = pack_root(&digests);
        let mut altered = digests.clone();
        let which = at.index(count);
        altered[which] = flipped(altered[which], bit);
        prop_assert_ne!(pack_root(&altered), root);
        prop_assert_ne!(pack_root(&digests[..count - 1]), root);
    }
}

#[test]
fn a_pack_root_is_the_rfc_shape_over_keyed_blake3() {
    fn node(digests: &[Digest]) -> Digest {
        if let [digest] = digests {
            return *digest;
        }
        let (left, right) = digests.split_at(1 << (digests.len() - 1).ilog2());
        keyed("ehrfast 2026-11 pack-node v1", &[node(left), node(right)].concat())
    }
    fn keyed(context: &str, data: &[u8]) -> Digest {
        *blake3::keyed_hash(&blake3::derive_key(context, b""), data).as_bytes()
    }
    for count in 0..=33usize {
        let digests = digest::blake3_many(&leaves(count));
        let root = if count == 0 { [0; 32] } else { node(&digests) };
        let expected = keyed("ehrfast 2026-11 pack v1", &[&(count as u64).to_be_bytes(), root.as_slice()].concat());
        assert_eq!(pack_root(&digests), expected, "{count}");
    }
}

#[test]
fn roots_are_the_pinned_ones() {
    let tree_size: u32 = pinned("log", "tree_size").parse().unwrap();
    let leaves: Vec<Vec<u8>> = (0..tree_size)
        .map(|index| [&[1], index.to_be_bytes().repeat(index as usize % 30).as_slice()].concat())
        .collect();
    let log = log_of(&leaves);
    let mut roots = blake3::Hasher::new();
    (0..=u64::from(tree_size)).for_each(|size| _ = roots.update(&log.root_at(size).unwrap()));
    assert_eq!(roots.finalize().to_hex().as_str(), pinned("log", "roots"));
    let digests = digest::blake3_many(&leaves);
    let mut packs = blake3::Hasher::new();
    let count: usize = pinned("pack", "count").parse().unwrap();
    (0..=count).for_each(|count| _ = packs.update(&pack_root(&digests[..count])));
    assert_eq!(packs.finalize().to_hex().as_str(), pinned("pack", "roots"));
}

fn flipped(mut digest: Digest, bit: usize) -> Digest {
    digest[bit / 8] ^= 1 << (bit % 8);
    digest
}

/// The vectors hold base64; some hashes in them are deliberately of another length than 32.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InclusionCase {
    case: String,
    leaf_idx: u64,
    tree_size: u64,
    root: Option<String>,
    leaf_hash: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConsistencyCase {
    case: String,
    size1: u64,
    size2: u64,
    root1: Option<String>,
    root2: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

/// Source: transparency-dev/merkle, testdata/inclusion.
#[test]
fn inclusion_vectors() {
    for case in vectors::<InclusionCase>("inclusion") {
        let accepted = (|| {
            let (leaf, root) = (hash(&case.leaf_hash)?, hash(&case.root)?);
            verify_inclusion(&leaf, case.leaf_idx, case.tree_size, &hashes(&case.proof)?, &root).ok()
        })();
        assert_eq!(accepted.is_none(), case.want_err, "{}", case.case);
    }
}

/// Source: transparency-dev/merkle, testdata/consistency. One case has equal roots of 12 bytes and is to be accepted;
/// the type here has no such roots, so roots are filled up with zeros, which keeps equal ones equal.
#[test]
fn consistency_vectors() {
    for case in vectors::<ConsistencyCase>("consistency") {
        let filled = |text: &Option<String>| {
            let mut bytes = base64(text.as_deref().unwrap_or_default());
            bytes.resize(32, 0);
            Digest::try_from(bytes).unwrap()
        };
        let accepted = hashes(&case.proof).and_then(|proof| {
            verify_consistency(case.size1, case.size2, &filled(&case.root1), &filled(&case.root2), &proof).ok()
        });
        assert_eq!(accepted.is_none(), case.want_err, "{}", case.case);
    }
}

fn vectors<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let shared = std::env::var("EHRFAST_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let path = format!("{shared}/vectors/merkle/{name}.ndjson");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no vectors at {path}");
        return Vec::new();
    };
    let cases: Vec<T> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() >= 98, "{path} holds {} cases", cases.len());
    cases
}

fn hash(text: &Option<String>) -> Option<Digest> {
    base64(text.as_deref()?).try_into().ok()
}

fn hashes(texts: &Option<Vec<String>>) -> Option<Vec<Digest>> {
    texts.iter().flatten().map(|text| base64(text).try_into().ok()).collect()
}

fn base64(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .bytes()
        .filter_map(|byte| {
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|digit| *digit == byte)
        })
        .map(|digit| digit as u32)
        .collect();
    digits
        .chunks(4)
        .flat_map(|four| {
            let word = four.iter().fold(0, |word, digit| word << 6 | digit) << (6 * (4 - four.len()));
            word.to_be_bytes()[1..four.len()].to_vec()
        })
        .collect()
}
