//! The state trie against a twin that hashes the definition, one key at a time and without sharing anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ehrfast_core::digest::{Digest, Use, blake3, keyed};
use ehrfast_core::merkle::trie::{Trie, TrieError};
use ehrfast_core::merkle::trie_proof::{EMPTY, Found, TrieProof, TrieProofError, leaf_hash};
use ehrfast_core::merkle::trie_source::{LeafSource, Leaves};
use ehrfast_core::state::{Path, StateError, WriteSet};
use proptest::prelude::*;

use crate::pinned::pinned;

type State = BTreeMap<Path, Vec<u8>>;

fn bit(path: &Path, depth: usize) -> bool {
    path[depth / 8] & (0x80 >> (depth % 8)) != 0
}

fn twin_root(entries: &[(Path, Digest)], depth: usize) -> Digest {
    match entries {
        [] => EMPTY,
        [(path, value)] => keyed(Use::Leaf, &[path, value]),
        _ => {
            let (right, left): (Vec<_>, Vec<_>) = entries.iter().copied().partition(|(path, _)| bit(path, depth));
            keyed(Use::Node, &[&twin_root(&left, depth + 1), &twin_root(&right, depth + 1)])
        }
    }
}

fn root_of(state: &State) -> Digest {
    let entries: Vec<_> = state.iter().map(|(path, stored)| (*path, blake3(stored))).collect();
    twin_root(&entries, 0)
}

fn set(writes: impl IntoIterator<Item = (Path, Option<Vec<u8>>)>) -> WriteSet {
    WriteSet::of(writes.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
}

fn random_path(number: u64) -> Path {
    blake3(&number.to_le_bytes())
}

fn stored(number: u64) -> Vec<u8> {
    [&[number as u8; 16][..], &number.to_le_bytes()].concat()
}

fn random_state(count: u64) -> State {
    (0..count).map(|number| (random_path(number), stored(number))).collect()
}

fn load(state: &State) -> Trie {
    Trie::load(state.iter().map(|(path, stored)| Ok::<_, TrieError>((*path, blake3(stored))))).unwrap()
}

/// One version of a state as a store holds it.
#[derive(Debug, Default)]
struct Version {
    rows: BTreeMap<Path, Digest>,
    reads: AtomicUsize,
}

impl Version {
    fn of(state: &State) -> Arc<Self> {
        let rows = state.iter().map(|(path, stored)| (*path, blake3(stored))).collect();
        Arc::new(Version { rows, reads: AtomicUsize::new(0) })
    }
}

impl LeafSource for Version {
    fn leaves(&self, from: Path, to: Option<Path>) -> Leaves<'_> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let rows = self.rows.range(from..).take_while(move |(path, _)| to.is_none_or(|to| **path < to));
        Box::new(rows.map(|(path, value)| Ok((*path, *value))))
    }
}

fn apply(state: &mut State, writes: &WriteSet) {
    for (path, stored) in &writes.writes {
        match stored.clone() {
            Some(stored) => state.insert(*path, stored),
            None => state.remove(path),
        };
    }
}

/// Paths that agree on long prefixes: a few bases with a few bits flipped anywhere.
fn close_path() -> impl Strategy<Value = Path> {
    let base = prop_oneof![Just([0_u8; 32]), Just([0xff; 32]), any::<u8>().prop_map(|byte| [byte % 4; 32])];
    let flips = prop::collection::vec(prop_oneof![0..256_usize, 248..256_usize, 0..8_usize], 0..4);
    (base, flips).prop_map(|(mut path, flips)| {
        flips.into_iter().for_each(|at| path[at / 8] ^= 0x80 >> (at % 8));
        path
    })
}

fn any_path() -> impl Strategy<Value = Path> {
    prop_oneof![3 => close_path(), 2 => (0..200_u64).prop_map(random_path)]
}

fn block() -> impl Strategy<Value = Vec<(Path, Option<u8>)>> {
    prop::collection::vec((any_path(), prop::option::weighted(0.6, any::<u8>())), 0..80)
}

/// What is stored, a proof of it, and a root are consistent, and the opposite cannot be shown with the same proof.
fn check(trie: &Trie, root: &Digest, path: &Path, stored: Option<&[u8]>) -> Result<(), TestCaseError> {
    let proof = trie.prove(path).unwrap();
    prop_assert_eq!(proof.verify(root, path, stored), Ok(()));
    prop_assert_eq!(TrieProof::decode(&proof.encode()), Ok(proof.clone()));
    prop_assert_eq!(trie.value_digest(path).unwrap(), stored.map(blake3));
    match stored {
        Some(stored) => {
            prop_assert_eq!(proof.verify(root, path, None), Err(TrieProofError::Opposite));
            let changed = [stored, &[0]].concat();
            prop_assert_eq!(proof.verify(root, path, Some(&changed)), Err(TrieProofError::RootMismatch));
        }
        None => prop_assert_eq!(proof.verify(root, path, Some(&[0; 17])), Err(TrieProofError::Opposite)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn versions_equal_the_definition_and_old_ones_still_prove(
        blocks in prop::collection::vec(block(), 0..6), asked in prop::collection::vec(any_path(), 1..20),
    ) {
        let mut versions = vec![(Trie::new(), State::new())];
        for block in blocks {
            let (trie, mut state) = versions.last().unwrap().clone();
            let writes = set(block.into_iter().map(|(path, byte)| (path, byte.map(|byte| vec![byte; 20]))));
            apply(&mut state, &writes);
            versions.push((trie.update(&writes).unwrap(), state));
        }
        for (trie, state) in &versions {
            let root = root_of(state);
            prop_assert_eq!(trie.root(), root);
            prop_assert_eq!(trie.len(), state.len());
            prop_assert_eq!(load(state).root(), root);
            for path in asked.iter().chain(state.keys()) {
                check(trie, &root, path, state.get(path).map(Vec::as_slice))?;
            }
        }
    }

    /// Whatever is in memory or not, and however far the store is behind: `lag` versions are executed before one is
    /// settled, as while a block is being synced.
    #[test]
    fn versions_over_a_store_equal_those_in_memory(
        first in block(), blocks in prop::collection::vec(block(), 0..6), asked in prop::collection::vec(any_path(), 1..10),
        lag in 0..3_usize, hot in prop_oneof![Just(0_usize), Just(4_000), Just(1 << 20)], keep in any::<u8>(),
    ) {
        let mut state = State::new();
        apply(&mut state, &set(first.into_iter().map(|(path, byte)| (path, byte.map(|byte| vec![byte; 20])))));
        let mut versions = vec![(Trie::scan(Version::of(&state), hot).unwrap(), state.clone())];
        for (number, block) in blocks.into_iter().enumerate() {
            let writes = set(block.into_iter().map(|(path, byte)| (path, byte.map(|byte| vec![byte; 20]))));
            let trie = versions[number].0.update(&writes).unwrap();
            apply(&mut state, &writes);
            versions.push((trie, state.clone()));
            if number >= lag {
                let (trie, state) = &versions[number - lag];
                trie.settle(Version::of(state));
            }
            // Some are let go before they were settled.
            if keep >> number & 1 == 0 && number > lag {
                versions[number - lag - 1].0 = Trie::scan(Version::of(&versions[number - lag - 1].1), hot).unwrap();
            }
        }
        for (trie, state) in &versions {
            let root = root_of(state);
            prop_assert_eq!(trie.root(), root);
            prop_assert_eq!(trie.len(), state.len());
            for path in asked.iter().chain(state.keys()) {
                check(trie, &root, path, state.get(path).map(Vec::as_slice))?;
            }
            let again = Trie::from_top(&trie.top(), Version::of(state), hot).unwrap();
            prop_assert_eq!((again.root(), again.len()), (root, state.len()));
            for path in &asked {
                check(&again, &root, path, state.get(path).map(Vec::as_slice))?;
            }
        }
        let (oldest, _) = &versions[0];
        let changed: Vec<Path> = versions.iter().flat_map(|(_, state)| state.keys().copied()).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let caught_up = Trie::from_top(&oldest.top(), Version::of(&state), hot).unwrap().rescanned(&changed).unwrap();
        prop_assert_eq!(caught_up.root(), root_of(&state));
    }

    #[test]
    fn the_root_does_not_depend_on_the_way(paths in prop::collection::btree_set(any_path(), 0..150), cut in 1..40_usize) {
        let state: State = paths.into_iter().map(|path| (path, vec![7; 17])).collect();
        let mut shuffled: Vec<Path> = state.keys().copied().collect();
        shuffled.sort_by_key(|path| blake3(path));
        let mut trie = Trie::new();
        for group in shuffled.chunks(cut) {
            // Each group brings neighbours that the next one takes away again.
            let passing = |path: &Path| blake3(path);
            trie = trie.update(&set(group.iter().map(|path| (passing(path), Some(vec![1; 17]))))).unwrap();
            trie = trie.update(&set(group.iter().map(|path| (*path, Some(vec![7; 17]))))).unwrap();
            trie = trie.update(&set(group.iter().map(|path| (passing(path), None)))).unwrap();
        }
        prop_assert_eq!(trie.root(), root_of(&state));
        let emptied = trie.update(&set(state.keys().map(|path| (*path, None)))).unwrap();
        prop_assert_eq!(emptied.root(), EMPTY);
        prop_assert!(emptied.is_empty());
    }

    #[test]
    fn every_mutated_proof_is_refused(
        paths in prop::collection::btree_set(any_path(), 1..60), asked in any_path(), bit in any::<prop::sample::Index>(),
    ) {
        let state: State = paths.into_iter().map(|path| (path, vec![7; 17])).collect();
        let trie = load(&state);
        let root = trie.root();
        for path in [asked, *state.keys().next().unwrap()] {
            let stored = state.get(&path).map(Vec::as_slice);
            let bytes = trie.prove(&path).unwrap().encode();
            for end in 0..bytes.len() {
                prop_assert!(TrieProof::decode(&bytes[..end]).is_err());
            }
            let mut flipped = bytes.clone();
            let at = bit.index(8 * bytes.len());
            flipped[at / 8] ^= 1 << (at % 8);
            prop_assert!(TrieProof::decode(&[&bytes[..], &[0]].concat()).is_err());
            if let Ok(proof) = TrieProof::decode(&flipped) {
                prop_assert_eq!(proof.encode(), flipped);
                prop_assert!(proof.verify(&root, &path, stored).is_err());
                let opposite: Option<&[u8]> = if stored.is_some() { None } else { Some(&[7; 17]) };
                prop_assert!(proof.verify(&root, &path, opposite).is_err());
            }
        }
    }
}

#[test]
fn equals_the_definition_around_powers_of_two() {
    for exponent in 0..13 {
        for count in [(1_u64 << exponent) - 1, 1 << exponent, (1 << exponent) + 1] {
            let state = random_state(count);
            let trie = load(&state);
            assert_eq!(trie.root(), root_of(&state), "{count}");
            let at_once = set(state.iter().map(|(path, stored)| (*path, Some(stored.clone()))));
            assert_eq!(Trie::new().update(&at_once).unwrap().root(), trie.root(), "{count}");
        }
    }
}

#[test]
fn loads_in_batches_as_in_one() {
    let state = random_state((1 << 15) + 1);
    assert_eq!(load(&state).root(), root_of(&state));
}

#[test]
fn a_scan_equals_the_definition_around_bucket_sizes() {
    for count in [0, 1, 2, 31, 32, 33, 34, 63, 64, 65, 1000, 40_000] {
        let state = random_state(count);
        let trie = Trie::scan(Version::of(&state), 0).unwrap();
        assert_eq!((trie.root(), trie.len()), (root_of(&state), state.len()), "{count}");
        assert_eq!(Trie::from_top(&trie.top(), Version::of(&state), 0).unwrap().root(), trie.root(), "{count}");
    }
}

#[test]
fn only_the_buckets_that_are_asked_for_are_read_and_few_stay() {
    let state = random_state(20_000);
    let source = Version::of(&state);
    let top = Trie::scan(Version::of(&state), 0).unwrap().top();
    let trie = Trie::from_top(&top, Arc::clone(&source) as Arc<dyn LeafSource>, 100_000).unwrap();
    let reads = || source.reads.load(Ordering::Relaxed);
    assert_eq!((reads(), trie.hot_bytes()), (0, 0));
    let path = state.keys().next().unwrap();
    trie.prove(path).unwrap();
    trie.prove(path).unwrap();
    assert_eq!(reads(), 1);
    let writes = set(state.keys().step_by(10).map(|path| (*path, Some(vec![9; 20]))));
    let next = trie.update(&writes).unwrap();
    assert!(reads() < 1200, "{}", reads());
    let mut changed = state.clone();
    apply(&mut changed, &writes);
    next.settle(Version::of(&changed));
    assert!(next.hot_bytes() <= 100_000 && next.hot_bytes() > 50_000, "{}", next.hot_bytes());
    assert_eq!(next.root(), root_of(&changed));
    let missing = Trie::from_top(&top, Arc::new(Version::default()), 0).unwrap();
    assert_eq!(missing.root(), trie.root());
    assert!(matches!(missing.prove(path), Err(TrieError::Damaged(_))));
}

#[derive(Debug)]
struct Broken;

impl LeafSource for Broken {
    fn leaves(&self, _from: Path, _to: Option<Path>) -> Leaves<'_> {
        Box::new(std::iter::once(Err(StateError::Unavailable(std::io::ErrorKind::StorageFull.into()))))
    }
}

#[test]
fn leaves_that_are_not_the_version_are_noticed_in_every_use() {
    let state = random_state(3_000);
    let top = Trie::scan(Version::of(&state), 0).unwrap().top();
    let path = *state.keys().nth(1_234).unwrap();
    let changed = |change: &dyn Fn(&mut State)| {
        let mut other = state.clone();
        change(&mut other);
        Trie::from_top(&top, Version::of(&other), 0).unwrap()
    };
    let other_value = changed(&|state| _ = state.insert(path, vec![1; 17]));
    let one_less = changed(&|state| _ = state.remove(&path));
    let one_more = changed(&|state| _ = state.insert(flipped(&path, 255), vec![1; 17]));
    for trie in [other_value, one_less, one_more] {
        assert!(matches!(trie.prove(&path), Err(TrieError::Damaged(_))));
        assert!(matches!(trie.value_digest(&path), Err(TrieError::Damaged(_))));
        assert!(matches!(trie.update(&set([(path, None)])), Err(TrieError::Damaged(_))));
        trie.prove(state.keys().next().unwrap()).unwrap();
    }
    let broken = Trie::from_top(&top, Arc::new(Broken), 0).unwrap();
    let full = Err(TrieError::Unavailable(std::io::ErrorKind::StorageFull));
    assert_eq!(broken.prove(&path).map(|_| ()), full);
    assert_eq!(broken.update(&set([(path, None)])).map(|_| ()), full);
    assert_eq!(broken.rescanned(&[path]).map(|_| ()), full);
    assert_eq!(Trie::scan(Arc::new(Broken), 0).map(|_| ()), full);
}

#[test]
fn a_top_has_one_form() {
    let state = random_state(100);
    let top = Trie::scan(Version::of(&state), 0).unwrap().top();
    let read = |bytes: &[u8]| Trie::from_top(bytes, Version::of(&state), 0);
    assert_eq!(read(&top).unwrap().top(), top);
    for end in 0..top.len() {
        assert!(read(&top[..end]).is_none());
    }
    assert!(read(&[&top[..], &[0]].concat()).is_none());
    assert!(read(&[&[0, 33][..], &[0; 32]].concat()).is_none());
    for at in 0..8 * top.len() {
        let mut flipped = top.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        // Whatever it says, it is another top or none.
        assert!(read(&flipped).is_none_or(|trie| trie.top() == flipped));
    }
}

#[test]
fn no_present_key_has_a_proof_of_absence() {
    let state = random_state(40);
    let trie = load(&state);
    for (path, stored) in &state {
        let proof = trie.prove(path).unwrap();
        let with = |found| TrieProof { found, ..proof.clone() };
        assert!(with(Found::Nothing).verify(&trie.root(), path, None).is_err());
        let own = Found::Other { path: *path, value: blake3(stored) };
        assert_eq!(with(own).verify(&trie.root(), path, None), Err(TrieProofError::OtherIsOwn));
        // Everything true about any other leaf says nothing about this path, at whatever depth it is cut off.
        for other in state.keys().filter(|other| *other != path) {
            let (its_proof, value) = (trie.prove(other).unwrap(), blake3(&state[other]));
            for depth in 0..=its_proof.siblings.len() {
                let cut = TrieProof {
                    siblings: its_proof.siblings[..depth].to_vec(),
                    found: Found::Other { path: *other, value },
                };
                assert!(cut.verify(&trie.root(), path, None).is_err());
            }
        }
    }
}

#[test]
fn a_leaf_that_is_not_lifted_is_refused() {
    let (path, sibling) = ([0; 32], EMPTY);
    let leaf = leaf_hash(&path, &blake3(&[1; 17]));
    let root = keyed(Use::Node, &[&leaf, &sibling]);
    let presence = TrieProof { siblings: vec![sibling], found: Found::Own };
    assert_eq!(presence.verify(&root, &path, Some(&[1; 17])), Err(TrieProofError::NotLifted));
    let absence = TrieProof { siblings: vec![sibling], found: Found::Nothing };
    assert_eq!(absence.verify(&keyed(Use::Node, &[&EMPTY, &EMPTY]), &path, None), Err(TrieProofError::NotLifted));
}

#[test]
fn no_way_is_longer_than_a_path() {
    let endless = TrieProof { siblings: vec![[1; 32]; 257], found: Found::Nothing };
    assert_eq!(endless.verify(&[0; 32], &[0; 32], None), Err(TrieProofError::WrongLength));
}

#[test]
fn another_leaf_must_be_on_the_way() {
    let state: State = [([0; 32], vec![1; 17]), ([0xff; 32], vec![2; 17])].into();
    let trie = load(&state);
    let mut near = [0; 32];
    near[31] = 1;
    assert_eq!(trie.prove(&near).unwrap().verify(&trie.root(), &near, None), Ok(()));
    assert_eq!(trie.prove(&near).unwrap().verify(&trie.root(), &[0x80; 32], None), Err(TrieProofError::OtherElsewhere));
}

#[test]
fn proofs_have_one_encoding() {
    let hash = [9; 32];
    let encode = |depth: &[u8], empty: &[u8], present: &[u8], found: &[u8]| {
        let mut writer = ehrfast_core::cbor::Writer::new();
        writer.array(5).uint(1).raw(depth).bytes(empty).bytes(present).raw(found);
        TrieProof::decode(&writer.into_bytes())
    };
    assert!(encode(&[1], &[0x00], &hash, &[0xf5]).is_ok());
    assert!(encode(&[2], &[0x80], &hash, &[0xf4]).is_ok());
    for (depth, empty, present) in [
        (&[1][..], &[0x80][..], &hash[..]), // one sibling too many
        (&[2], &[0x00], &hash),             // one too few
        (&[1], &[], &hash),                 // no bitmap
        (&[1], &[0, 0], &hash),             // a longer bitmap
        (&[1], &[0], &hash[1..]),           // half a hash
        (&[0x19, 1, 1], &[0xff; 33], &[]),  // 257 levels
        (&[0x1b, 255, 255, 255, 255, 255, 255, 255, 255], &[], &[]),
    ] {
        assert_eq!(encode(depth, empty, present, &[0xf5]), Err(TrieProofError::WrongLength), "{depth:?}");
    }
    assert_eq!(encode(&[1], &[0], &EMPTY, &[0xf5]), Err(TrieProofError::EmptySibling));
    assert_eq!(encode(&[1], &[0x40], &hash, &[0xf5]), Err(TrieProofError::EmptySibling));
    for found in [&[0xf6][..], &[0x00], &[0x41, 0x00], &[]] {
        assert!(matches!(encode(&[1], &[0], &hash, found), Err(TrieProofError::Encoding(_))), "{found:?}");
    }
}

#[test]
fn refuses_writes_out_of_order() {
    let writes = |first: u8, second: u8| WriteSet::of(vec![([first; 32], None), ([second; 32], Some(vec![1; 17]))]);
    assert_eq!(Trie::new().update(&writes(2, 1)).map(|trie| trie.len()), Err(TrieError::Order(1)));
    assert_eq!(Trie::new().update(&writes(1, 1)).map(|trie| trie.len()), Err(TrieError::Order(1)));
    let entries = [[0; 32], [2; 32], [1; 32]].map(|path| Ok::<_, TrieError>((path, EMPTY)));
    assert_eq!(Trie::load(entries).map(|trie| trie.len()), Err(TrieError::Order(2)));
}

#[test]
fn empty_siblings_cost_a_bit() {
    // The two ways part at the last bit only.
    let state: State = [([0; 32], vec![1; 17]), (std::array::from_fn(|at| u8::from(at == 31)), vec![2; 17])].into();
    let trie = load(&state);
    let proof = trie.prove(&[0; 32]).unwrap();
    assert_eq!(proof.siblings.len(), 256);
    assert_eq!(proof.encode().len(), 1 + 1 + 3 + (2 + 32) + (2 + 32) + 1);
    assert_eq!(proof.verify(&trie.root(), &[0; 32], Some(&[1; 17])), Ok(()));
}

fn flipped(path: &Path, at: usize) -> Path {
    let mut changed = *path;
    changed[at / 8] ^= 0x80 >> (at % 8);
    changed
}

/// The pinned state of 200 keys, 40 of them close to another, and 100 paths that it does not hold; the twin is
/// `generated` in tests/reference/trie.py.
fn generated() -> (State, Vec<Path>) {
    let mut stream = blake3::Hasher::new().update(b"ehrfast state trie vector").finalize_xof();
    let mut draws = vec![[0; 32]; 260];
    draws.iter_mut().for_each(|draw| stream.fill(draw));
    let close = draws[..40].iter().enumerate().map(|(number, path)| flipped(path, 56 + 5 * number));
    let paths = draws[..160].iter().copied().chain(close);
    let state = paths.enumerate().map(|(number, path)| (path, [&path[16..], &[number as u8]].concat())).collect();
    (state, draws[160..].to_vec())
}

#[test]
fn generated_proofs_are_pinned() {
    let (state, absent) = generated();
    let trie = load(&state);
    assert_eq!(hex::encode(trie.root()), pinned("state_trie", "root"));
    let mut encodings = blake3::Hasher::new();
    for path in state.keys().chain(&absent) {
        let bytes = trie.prove(path).unwrap().encode();
        encodings.update(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).update(&bytes);
    }
    assert_eq!(encodings.finalize().to_hex().as_str(), pinned("state_trie", "proofs"));
    let three = load(&state.into_iter().take(3).collect());
    assert_eq!(hex::encode(three.prove(&absent[0]).unwrap().encode()), pinned("state_trie", "example"));
}

#[test]
fn generated_write_sets_are_pinned() {
    let count: u32 = pinned("write_set", "count").parse().unwrap();
    let generated = |number: u32| {
        let label = format!("ehrfast write set vector {number}");
        let mut stream = blake3::Hasher::new().update(label.as_bytes()).finalize_xof();
        set((0..number % 20).map(|_| {
            let mut draw = [0; 96];
            stream.fill(&mut draw);
            let stored = draw[34..34 + 17 + usize::from(draw[33] % 46)].to_vec();
            (draw[..32].try_into().unwrap(), (draw[32] % 4 != 0).then_some(stored))
        }))
    };
    let mut encodings = blake3::Hasher::new();
    for number in 0..count {
        let bytes = generated(number).encode();
        encodings.update(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).update(&bytes);
    }
    assert_eq!(encodings.finalize().to_hex().as_str(), pinned("write_set", "encodings"));
    assert_eq!(hex::encode(generated(2).encode()), pinned("write_set", "example"));
}
