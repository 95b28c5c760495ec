//! Range proofs against a twin that walks the definition, and snapshots that are changed in every way.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ehrfast_core::block::BlockLeaf;
use ehrfast_core::digest::{Digest, Use, blake3, keyed};
use ehrfast_core::merkle::log::Log;
use ehrfast_core::merkle::trie::{Trie, TrieError};
use ehrfast_core::merkle::trie_range::{Bounds, TrieRangeError, prove_range, verify_range};
use ehrfast_core::snapshot::{Head, Leaves, SnapshotError, StateChunk, Verifier};
use ehrfast_core::state::Path;
use proptest::prelude::*;

use crate::pinned::pinned;

type State = BTreeMap<Path, Vec<u8>>;

fn load(state: &State) -> Trie {
    Trie::load(state.iter().map(|(path, stored)| Ok::<_, TrieError>((*path, blake3(stored))))).unwrap()
}

fn prove(trie: &Trie, bounds: &Bounds) -> Vec<u8> {
    prove_range(bounds, |path| Ok::<_, Infallible>((trie.prove(path).unwrap(), trie.value_digest(path).unwrap())))
        .unwrap()
}

fn entries(state: &State, bounds: &Bounds) -> Vec<(Path, Digest)> {
    let held = state.iter().filter(|(path, _)| **path >= bounds.from && bounds.to.is_none_or(|to| **path < to));
    held.map(|(path, stored)| (*path, blake3(stored))).collect()
}

fn bit(path: &Path, depth: usize) -> bool {
    path[depth / 8] & (0x80 >> (depth % 8)) != 0
}

fn twin_root(leaves: &[(Path, Digest)], depth: usize) -> Digest {
    match leaves {
        [] => [0; 32],
        [(path, value)] => keyed(Use::Leaf, &[path, value]),
        _ => {
            let (right, left): (Vec<_>, Vec<_>) = leaves.iter().copied().partition(|(path, _)| bit(path, depth));
            keyed(Use::Node, &[&twin_root(&left, depth + 1), &twin_root(&right, depth + 1)])
        }
    }
}

/// The proof by its definition, out of all leaves below a prefix.
fn twin(leaves: &[(Path, Digest)], low: Path, depth: usize, bounds: &Bounds, out: &mut Vec<u8>) {
    let mut high = low;
    (depth..256).for_each(|level| high[level / 8] |= 0x80 >> (level % 8));
    let starts_after = bounds.to.is_some_and(|to| to <= low);
    if high < bounds.from || starts_after {
        let hash = twin_root(leaves, depth);
        if leaves.is_empty() { out.push(0) } else { out.extend([&[1][..], &hash].concat()) }
    } else if low >= bounds.from && bounds.to.is_none_or(|to| high < to) {
    } else if let [(path, value)] = leaves {
        let inside = *path >= bounds.from && bounds.to.is_none_or(|to| *path < to);
        if inside { out.push(4) } else { out.extend([&[3][..], path, value].concat()) }
    } else if leaves.is_empty() {
        out.push(0);
    } else {
        let (right, left): (Vec<_>, Vec<_>) = leaves.iter().copied().partition(|(path, _)| bit(path, depth));
        out.push(2);
        twin(&left, low, depth + 1, bounds, out);
        let mut high = low;
        high[depth / 8] |= 0x80 >> (depth % 8);
        twin(&right, high, depth + 1, bounds, out);
    }
}

fn path() -> impl Strategy<Value = Path> {
    let base = prop_oneof![Just([0_u8; 32]), Just([0xff; 32]), any::<u8>().prop_map(|byte| [byte % 4; 32])];
    let flips = prop::collection::vec(prop_oneof![0..256_usize, 248..256_usize, 0..8_usize], 0..4);
    (base, flips).prop_map(|(mut path, flips)| {
        flips.into_iter().for_each(|at| path[at / 8] ^= 0x80 >> (at % 8));
        path
    })
}

fn state() -> impl Strategy<Value = State> {
    let random = (0..400_u64).prop_map(|number| blake3(&number.to_le_bytes()));
    prop::collection::btree_map(prop_oneof![path(), random], any::<u8>().prop_map(|byte| vec![byte; 17]), 0..80)
}

proptest! {
    #[test]
    fn one_range_has_one_list_of_entries_and_one_proof(state in state(), from in path(), to in prop::option::of(path())) {
        let bounds = Bounds { from, to: to.filter(|to| *to > from) };
        let trie = load(&state);
        let (held, proof) = (entries(&state, &bounds), prove(&trie, &bounds));
        let mut expected = Vec::new();
        twin(&entries(&state, &Bounds { from: [0; 32], to: None }), [0; 32], 0, &bounds, &mut expected);
        prop_assert_eq!(&proof, &expected);
        prop_assert_eq!(verify_range(&trie.root(), &bounds, &held, &proof), Ok(()));
        for position in 0..held.len() {
            let mut fewer = held.clone();
            fewer.remove(position);
            prop_assert!(verify_range(&trie.root(), &bounds, &fewer, &proof).is_err());
            let mut changed = held.clone();
            changed[position].1[0] ^= 1;
            prop_assert!(verify_range(&trie.root(), &bounds, &changed, &proof).is_err());
            let mut moved = held.clone();
            moved[position].0[31] ^= 1;
            prop_assert!(verify_range(&trie.root(), &bounds, &moved, &proof).is_err());
        }
        if !state.contains_key(&from) {
            let more = [&[(from, [9; 32])][..], &held].concat();
            prop_assert!(verify_range(&trie.root(), &bounds, &more, &proof).is_err());
        }
        for length in 0..proof.len() {
            prop_assert!(verify_range(&trie.root(), &bounds, &held, &proof[..length]).is_err());
        }
        prop_assert!(verify_range(&trie.root(), &bounds, &held, &[&proof[..], &[0]].concat()).is_err());
        prop_assert!(verify_range(&[7; 32], &bounds, &held, &proof).is_err());
    }

    #[test]
    fn a_changed_proof_is_refused(state in state(), from in path(), at in any::<prop::sample::Index>(), flip in 0..8_u8) {
        let bounds = Bounds { from, to: None };
        let trie = load(&state);
        let mut proof = prove(&trie, &bounds);
        prop_assume!(!proof.is_empty());
        let at = at.index(proof.len());
        proof[at] ^= 1 << flip;
        prop_assert!(verify_range(&trie.root(), &bounds, &entries(&state, &bounds), &proof).is_err());
    }

    #[test]
    fn chunks_of_any_weight_tile_the_state(state in state(), weight in 1..400_usize) {
        let trie = load(&state);
        let mut next = Some([0; 32]);
        let mut found = State::new();
        while let Some(from) = next {
            let chunk = chunk(&state, &trie, from, weight);
            let encoded = chunk.encode();
            prop_assert_eq!(StateChunk::decode(&encoded), Ok(chunk.clone()));
            prop_assert_eq!(chunk.verify(&trie.root()), Ok(()));
            next = chunk.bounds.to;
            found.extend(chunk.entries);
        }
        prop_assert_eq!(found, state);
    }
}

fn chunk(state: &State, trie: &Trie, from: Path, weight: usize) -> StateChunk {
    let rest = state.range(from..).map(|(path, stored)| Ok::<_, Infallible>((*path, stored.clone())));
    StateChunk::build(from, weight, rest, |path| Ok((trie.prove(path).unwrap(), trie.value_digest(path).unwrap())))
        .unwrap()
}

#[test]
fn bounds_that_do_not_ascend_hold_nothing() {
    let bounds = Bounds { from: [1; 32], to: Some([1; 32]) };
    assert_eq!(verify_range(&[0; 32], &bounds, &[], &[]), Err(TrieRangeError::Order));
}

#[derive(Clone)]
struct Taken {
    head: Vec<u8>,
    leaves: Vec<Vec<u8>>,
    states: Vec<Vec<u8>>,
    tree_size: u64,
    root: Digest,
}

const CHAIN: &str = "test-00000000000000000000000000000000";

/// A snapshot of 50 keys over a log of 40 leaves, of which it brings the last 30.
fn taken() -> Taken {
    let state: State = (0..50_u64).map(|number| (blake3(&number.to_le_bytes()), vec![number as u8; 20])).collect();
    let trie = load(&state);
    let mut leaves: Vec<Vec<u8>> = (0..39_u8).map(|number| vec![1, number]).collect();
    let mut log = Log::new();
    log.append(&leaves);
    let block = BlockLeaf {
        chain_id: CHAIN.to_owned(),
        height: 3,
        engine_height: 3,
        time_ms: 5,
        first_index: 30,
        leaf_count: 9,
        previous_root: log.root_at(30).unwrap(),
        state_root: trie.root(),
        proposer: [4; 32],
    };
    leaves.push(block.encode().unwrap());
    log.append(&leaves[39..]);
    let head = Head {
        chain_id: CHAIN.to_owned(),
        height: 3,
        tree_size: 40,
        first_leaf: 10,
        frontier: log.frontier(10).unwrap(),
    };
    let mut states = Vec::new();
    let mut next = Some([0; 32]);
    while let Some(from) = next {
        let chunk = chunk(&state, &trie, from, 600);
        next = chunk.bounds.to;
        states.push(chunk.encode());
    }
    assert_eq!(states.len(), 5);
    let parts = [Leaves::encode(10, &leaves[10..25]), Leaves::encode(25, &leaves[25..])];
    Taken { head: head.encode().unwrap(), leaves: parts.to_vec(), states, tree_size: 40, root: log.root() }
}

fn read(taken: &Taken) -> Result<usize, SnapshotError> {
    let mut verifier = Verifier::new(&taken.head, CHAIN, taken.tree_size, &taken.root)?;
    for part in &taken.leaves {
        verifier.take_leaves(part)?;
    }
    let mut count = 0;
    for part in &taken.states {
        count += verifier.take_state(part)?.entries.len();
    }
    verifier.finish()?;
    Ok(count)
}

#[test]
fn a_snapshot_leads_to_its_checkpoint() {
    assert_eq!(read(&taken()), Ok(50));
}

#[test]
fn every_changed_bit_is_refused() {
    let whole = taken();
    let parts = 1 + whole.leaves.len() + whole.states.len();
    for part in 0..parts {
        let length = bytes_of(&mut whole.clone(), part).len();
        for at in 0..length {
            let mut changed = whole.clone();
            bytes_of(&mut changed, part)[at] ^= 0x10;
            assert!(read(&changed).is_err(), "part {part} byte {at}");
            bytes_of(&mut changed, part).truncate(at);
            assert!(read(&changed).is_err(), "part {part} cut at {at}");
        }
    }
}

fn bytes_of(taken: &mut Taken, part: usize) -> &mut Vec<u8> {
    match part {
        0 => &mut taken.head,
        1 | 2 => &mut taken.leaves[part - 1],
        _ => &mut taken.states[part - 3],
    }
}

#[test]
fn a_part_left_out_added_or_moved_is_refused() {
    for position in 0..5 {
        let mut fewer = taken();
        fewer.states.remove(position);
        assert_eq!(read(&fewer), Err(SnapshotError::NotNext));
        let mut twice = taken();
        let again = twice.states[position].clone();
        twice.states.insert(position, again);
        assert_eq!(read(&twice), Err(SnapshotError::NotNext));
    }
    let mut swapped = taken();
    swapped.leaves.swap(0, 1);
    assert_eq!(read(&swapped), Err(SnapshotError::NotNext));
    let mut fewer = taken();
    fewer.leaves.pop();
    assert_eq!(read(&fewer), Err(SnapshotError::NotNext));
    let mut other = taken();
    other.root[0] ^= 1;
    assert_eq!(read(&other), Err(SnapshotError::RootMismatch));
    let mut other = taken();
    other.tree_size = 41;
    assert_eq!(read(&other), Err(SnapshotError::OtherCheckpoint));
}

#[test]
fn the_encodings_are_pinned() {
    let whole = taken();
    let mut hasher = Vec::new();
    for part in [&whole.head].into_iter().chain(&whole.leaves).chain(&whole.states) {
        hasher.extend_from_slice(&(part.len() as u32).to_be_bytes());
        hasher.extend_from_slice(part);
    }
    let hex: String = blake3(&hasher).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, pinned("snapshot", "encodings"));
}
