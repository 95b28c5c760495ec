//! Shards: what a sound block leads to, and the name of everything that can be wrong with one.
//! The generator's twin is tests/reference/shard.py.

use std::collections::BTreeMap;
use std::sync::Arc;

use ehrfast_core::block::{Block, BlockLeaf, Cause, Entry, Header, assemble, assemble_genesis};
use ehrfast_core::cbor::{Reader, Writer};
use ehrfast_core::digest::{Digest, blake3, sha256};
use ehrfast_core::merkle::frontier::{Frontier, FrontierError};
use ehrfast_core::merkle::log::Log;
use ehrfast_core::merkle::partial::{PartialError, PartialTrie};
use ehrfast_core::merkle::trie::Trie;
use ehrfast_core::shard::{
    Claim, Fault, FaultKind, MAX_SHARDS, ProveError, ShardCountError, Tip, prove_block, shard_of, validate_shards,
};
use ehrfast_core::signature::SigningKey;
use ehrfast_core::state::{Path, WriteSet};
use ehrfast_core::transaction::{Draft, Transaction};
use proptest::prelude::*;

use crate::pinned::pinned;

const TIME_MS: u64 = 1_800_000_000_000;

/// Everything about one chain that a test looks at.
struct Chain {
    id: String,
    genesis: Vec<u8>,
    log: Log,
    trie: Trie,
    tip: Tip,
}

fn path(number: u64) -> Path {
    blake3(&number.to_be_bytes())
}

fn stored(number: u64, version: u64) -> Vec<u8> {
    [&path(number)[..16], &version.to_be_bytes()].concat()
}

/// Puts and deletions by the number of their key, ascending by path.
fn writes(puts: &[(u64, u64)], deletions: &[u64]) -> WriteSet {
    let mut writes: Vec<(Path, Option<Vec<u8>>)> =
        puts.iter().map(|(number, version)| (path(*number), Some(stored(*number, *version)))).collect();
    writes.extend(deletions.iter().map(|number| (path(*number), None)));
    writes.sort_unstable_by_key(|write| write.0);
    WriteSet::of(writes)
}

fn receipt(id: &Digest, height: u64, index: u64) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(7).bytes(id).uint(height).uint(index).uint(0).uint(12).uint(1).array(0);
    writer.into_bytes()
}

impl Chain {
    fn founded(name: &str, keys: u64) -> (Self, Block) {
        let genesis = format!("genesis of {name}").into_bytes();
        let id = format!("{name}-{}", hex::encode(&blake3(&genesis)[..16]));
        let tip = Tip::genesis(&id);
        let mut chain = Chain { id, genesis, log: Log::new(), trie: Trie::new(), tip };
        let puts: Vec<_> = (0..keys).map(|number| (number, 0)).collect();
        let (header, set) = (chain.header(0), writes(&puts, &[]));
        let (block, next) = assemble_genesis(&mut chain.log, &chain.trie, header, &chain.genesis, set).unwrap();
        chain.trie = next;
        chain.tip = Tip {
            chain_id: chain.id.clone(),
            next_height: 1,
            time_ms: TIME_MS,
            frontier: Frontier::new(2, chain.log.frontier(2).unwrap()).unwrap(),
            state_root: chain.trie.root(),
        };
        (chain, block)
    }

    fn header(&self, height: u64) -> Header {
        Header {
            chain_id: self.id.clone(),
            height,
            engine_height: height + 5,
            time_ms: TIME_MS + height,
            proposer: [9; 32],
        }
    }

    fn transaction(&self, number: u64) -> Arc<Transaction> {
        let key = SigningKey::from_seed(&[1 + (number % 5) as u8; 32]);
        let mut salt = [0; 16];
        salt[8..].copy_from_slice(&number.to_be_bytes());
        let draft = Draft {
            chain_id: &self.id,
            contract: "toy",
            method: "put",
            args: &[0xa0],
            lane: 2,
            expires: TIME_MS + 1000,
            salt,
            attachments: &[],
        };
        Arc::new(draft.sign(&key).unwrap())
    }

    /// The next block of `count` transactions with a timer behind each fourth, which the log gets and the tip not.
    fn block(&mut self, count: u64, set: WriteSet) -> (Block, Vec<u8>) {
        let (height, mut index) = (self.tip.next_height, self.tip.frontier.tree_size());
        let mut entries = Vec::new();
        for number in 0..count {
            let transaction = self.transaction(1000 * height + number);
            entries.push(Entry {
                receipt: receipt(&transaction.id, height, index),
                cause: Cause::Transaction(transaction),
            });
            index += 1;
            if number % 4 == 3 {
                let id = path(index);
                entries.push(Entry { receipt: receipt(&id, height, index), cause: Cause::Timer(id) });
                index += 1;
            }
        }
        let header = self.header(height);
        let (block, next) = assemble(&mut self.log, &self.trie, header, entries, set, &[]).unwrap();
        let proven = prove_block(&block, &self.trie).unwrap();
        self.trie = next;
        (block, proven)
    }

    fn expected(&self, block: &Block) -> Tip {
        Tip {
            chain_id: self.id.clone(),
            next_height: block.head.height + 1,
            time_ms: block.head.time_ms,
            frontier: Frontier::new(block.tree_size, self.log.frontier(block.tree_size).unwrap()).unwrap(),
            state_root: self.trie.root(),
        }
    }
}

fn verdict(tip: &Tip, block: &[u8], log_root: Option<Digest>) -> Result<Tip, Fault> {
    validate_shards(&[Claim { tip, block, log_root }]).remove(0)
}

fn refused(tip: &Tip, block: &[u8]) -> (FaultKind, Option<usize>) {
    let fault = verdict(tip, block, None).unwrap_err();
    (fault.kind, fault.position)
}

/// A shard block taken apart, to be changed and put together again.
#[derive(Clone)]
struct Parts {
    lists: [Vec<Vec<u8>>; 3],
    write_set: WriteSet,
    partial: Vec<u8>,
}

const LEAVES: usize = 0;
const TRANSACTIONS: usize = 1;
const RECEIPTS: usize = 2;

impl Parts {
    fn of(block: &[u8]) -> Self {
        let mut reader = Reader::new(block, block.len()).unwrap();
        reader.array_of(6).unwrap();
        reader.expect_int(1).unwrap();
        let lists = std::array::from_fn(|_| {
            let section = reader.bytes().unwrap();
            let mut items = Reader::new(section, section.len()).unwrap();
            (0..items.array().unwrap()).map(|_| items.bytes().unwrap().to_vec()).collect()
        });
        let write_set = WriteSet::decode(reader.bytes().unwrap()).unwrap();
        Parts { lists, write_set, partial: reader.bytes().unwrap().to_vec() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.array(6).uint(1);
        for items in &self.lists {
            let mut section = Writer::new();
            section.array(items.len());
            items.iter().for_each(|item| _ = section.bytes(item));
            writer.bytes(section.as_bytes());
        }
        writer.bytes(&self.write_set.encode()).bytes(&self.partial);
        writer.into_bytes()
    }

    fn head(&mut self, change: impl FnOnce(&mut BlockLeaf)) {
        let last = self.lists[LEAVES].last_mut().unwrap();
        let mut head = BlockLeaf::decode(last).unwrap();
        change(&mut head);
        *last = head.encode().unwrap();
    }
}

#[test]
fn blocks_lead_from_tip_to_tip_from_genesis_on() {
    let (mut chain, genesis) = Chain::founded("north", 40);
    let proven = prove_block(&genesis, &Trie::new()).unwrap();
    let before = Tip::genesis(&chain.id);
    let mut tip = verdict(&before, &proven, Some(chain.log.root())).unwrap();
    assert_eq!(tip, chain.tip);
    for (round, set) in
        [writes(&[(3, 1), (50, 0)], &[4]), WriteSet::default(), writes(&[], &[3, 50]), writes(&[(4, 2)], &[])]
            .into_iter()
            .enumerate()
    {
        let (block, proven) = chain.block(1 + 3 * round as u64, set);
        tip = verdict(&tip, &proven, Some(block.log_root)).unwrap();
        assert_eq!(tip, chain.expected(&block));
        assert_eq!(tip.frontier.root(), chain.log.root());
        chain.tip = tip.clone();
    }
}

#[test]
fn no_shard_stops_another_and_the_set_changes_no_verdict() {
    let mut sound: Vec<(Tip, Vec<u8>, Result<Tip, Fault>)> = (0..9)
        .map(|number: u64| {
            let (mut chain, _) = Chain::founded(&format!("shard-{number}"), 30 + number);
            let (block, proven) =
                chain.block(1 + 40 * (number % 4), writes(&[(number, 7), (900 + number, 0)], &[number + 1]));
            (chain.tip.clone(), proven, Ok(chain.expected(&block)))
        })
        .collect();
    let mut forged = Parts::of(&sound[3].1);
    let mut message = Parts::of(&sound[3].1).lists[TRANSACTIONS][90].clone();
    *message.last_mut().unwrap() ^= 1;
    let position = forged.lists[LEAVES]
        .iter()
        .position(|leaf| leaf[33..].starts_with(&sha256(&forged.lists[TRANSACTIONS][90])))
        .unwrap();
    forged.lists[LEAVES][position][33..65].copy_from_slice(&sha256(&message));
    forged.lists[TRANSACTIONS][90] = message;
    sound[3].1 = forged.encode();
    sound[3].2 = Err(Fault { kind: FaultKind::Signature, position: Some(position) });
    sound[5].0.state_root[0] ^= 1;
    sound[5].2 = Err(FaultKind::PreviousStateRoot.into());
    sound[7].1.truncate(100);
    sound[7].2 = Err(FaultKind::Malformed.into());
    let claims: Vec<Claim<'_>> = sound.iter().map(|(tip, block, _)| Claim { tip, block, log_root: None }).collect();
    let verdicts = validate_shards(&claims);
    for ((verdict, claim), (.., expected)) in verdicts.into_iter().zip(&claims).zip(&sound) {
        assert_eq!(&verdict, expected);
        assert_eq!(validate_shards(&[*claim]), [verdict]);
    }
    assert!(validate_shards(&[]).is_empty());
}

#[test]
fn each_fault_has_its_name_and_its_place() {
    use FaultKind as K;
    let (mut chain, genesis) = Chain::founded("north", 60);
    let (mut other, _) = Chain::founded("south", 61);
    let set = writes(&[(1, 1), (2, 1), (99, 0)], &[5, 6, 7]);
    let (_, foreign) = other.block(6, set.clone());
    let (_, block) = chain.block(6, set.clone());
    let tip = chain.tip.clone();
    let parts = Parts::of(&block);
    assert_eq!(parts.encode(), block);
    let changed = |change: &dyn Fn(&mut Parts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        refused(&tip, &parts.encode())
    };
    // Entries of six transactions: 0..3, a timer, 5 and 6.
    type Case<'a> = (&'a dyn Fn(&mut Parts), FaultKind, Option<usize>);
    let foreign_parts = Parts::of(&foreign);
    let cases: &[Case<'_>] = &[
        (&|parts| parts.lists[LEAVES].clear(), K::BlockLeaf, None),
        (&|parts| _ = parts.lists[LEAVES].pop(), K::BlockLeaf, None),
        (&|parts| _ = parts.lists[LEAVES].remove(0), K::LeafCount, None),
        (&|parts| parts.head(|head| head.leaf_count += 1), K::LeafCount, None),
        (&|parts| parts.head(|head| head.chain_id.replace_range(..1, "m")), K::ChainId, None),
        (&|parts| parts.head(|head| head.height += 1), K::Height, None),
        (&|parts| parts.head(|head| head.time_ms = TIME_MS), K::Time, None),
        (&|parts| parts.head(|head| head.first_index += 1), K::FirstIndex, None),
        (&|parts| parts.head(|head| head.previous_root[0] ^= 1), K::PreviousRoot, None),
        (&|parts| _ = parts.lists[RECEIPTS].pop(), K::ReceiptCount, None),
        (&|parts| _ = parts.lists[TRANSACTIONS].pop(), K::TransactionCount, None),
        (&|parts| parts.lists[LEAVES][2][0] = 3, K::TransactionCount, None),
        (&|parts| parts.lists[LEAVES][4][0] = 0, K::LeafKind, Some(4)),
        (&|parts| parts.lists[LEAVES][4].push(0), K::LeafKind, Some(4)),
        (&|parts| _ = parts.lists[LEAVES][2].pop(), K::LeafKind, Some(2)),
        (&|parts| parts.lists[TRANSACTIONS][1].clear(), K::Transaction, Some(1)),
        (
            &|parts| parts.lists[TRANSACTIONS][1] = foreign_parts.lists[TRANSACTIONS][1].clone(),
            K::TransactionChain,
            Some(1),
        ),
        (&|parts| parts.head(|head| head.time_ms = TIME_MS + 1000), K::Expired, Some(0)),
        (&|parts| parts.lists[TRANSACTIONS].swap(1, 2), K::LeafId, Some(1)),
        (&|parts| parts.lists[LEAVES].swap(0, 3), K::LeafId, Some(0)),
        (&|parts| *parts.lists[TRANSACTIONS][2].last_mut().unwrap() ^= 1, K::LeafReceived, Some(2)),
        (&|parts| parts.lists[RECEIPTS].swap(5, 6), K::LeafReceipt, Some(5)),
        (&|parts| *parts.lists[RECEIPTS][4].last_mut().unwrap() ^= 1, K::LeafReceipt, Some(4)),
        (&|parts| parts.head(|head| head.state_root[0] ^= 1), K::StateRoot, None),
        (&|parts| parts.partial.clear(), K::Proof, None),
        (&|parts| parts.partial = foreign_parts.partial.clone(), K::PreviousStateRoot, None),
        (&|parts| _ = parts.write_set.writes.remove(0), K::ProofSurplus, None),
        (&|parts| parts.write_set.writes.clear(), K::ProofSurplus, None),
        (&|parts| parts.write_set.writes[1].1 = Some(vec![1; 20]), K::StateRoot, None),
    ];
    for (number, (change, kind, position)) in cases.iter().enumerate() {
        assert_eq!(changed(change), (*kind, *position), "case {number}");
    }
    let receipt_of = |height, index| {
        changed(&|parts| {
            let id: Digest = parts.lists[LEAVES][0][1..33].try_into().unwrap();
            let receipt = receipt(&id, height, index);
            parts.lists[LEAVES][0][65..].copy_from_slice(&blake3(&receipt));
            parts.lists[RECEIPTS][0] = receipt;
        })
    };
    assert_eq!(receipt_of(2, 2), (K::Receipt, Some(0)));
    assert_eq!(receipt_of(1, 3), (K::Receipt, Some(0)));
    let late = |parts: &mut Parts| parts.head(|head| head.time_ms = TIME_MS - 3_600_000);
    let early = Tip { time_ms: 0, ..tip.clone() };
    let mut parts_late = parts.clone();
    late(&mut parts_late);
    assert_eq!(
        verdict(&early, &parts_late.encode(), None).unwrap_err(),
        Fault { kind: K::TooEarly, position: Some(0) }
    );
    let twice = changed(&|parts| {
        let id = parts.lists[LEAVES][0][1..33].try_into().unwrap();
        let receipt = receipt(&id, 1, 3);
        let digest = blake3(&receipt);
        parts.lists[LEAVES][1] = [&parts.lists[LEAVES][0][..65], &digest].concat();
        parts.lists[TRANSACTIONS][1] = parts.lists[TRANSACTIONS][0].clone();
        parts.lists[RECEIPTS][1] = receipt;
    });
    assert_eq!(twice, (K::Repeated, Some(1)));
    // Other tips: the frontier, state and chain of another shard.
    let with = |change: &dyn Fn(&mut Tip)| {
        let mut tip = tip.clone();
        change(&mut tip);
        refused(&tip, &block)
    };
    assert_eq!(with(&|tip| tip.frontier = other.tip.frontier.clone()), (K::PreviousRoot, None));
    assert_eq!(with(&|tip| tip.frontier = Frontier::new(4, vec![[1; 32]]).unwrap()), (K::FirstIndex, None));
    assert_eq!(with(&|tip| tip.state_root = path(0)), (K::PreviousStateRoot, None));
    assert_eq!(refused(&other.tip, &block), (K::ChainId, None));
    let root = verdict(&tip, &block, Some([0; 32])).unwrap_err();
    assert_eq!(root, K::LogRoot.into());
    // Genesis: another chain's, or with a receipt.
    let proven = Parts::of(&prove_block(&genesis, &Trie::new()).unwrap());
    let mut stranger = proven.clone();
    stranger.lists[LEAVES][0][1] ^= 1;
    assert_eq!(refused(&Tip::genesis(&chain.id), &stranger.encode()), (K::Genesis, Some(0)));
    let mut received = proven.clone();
    received.lists[RECEIPTS].push(vec![0x80]);
    assert_eq!(refused(&Tip::genesis(&chain.id), &received.encode()), (K::ReceiptCount, None));
    // Sections that are no sections.
    let sections = [0, 1, 2, 3].map(|broken| {
        let mut writer = Writer::new();
        writer.array(6).uint(1);
        (0..5).for_each(|number| _ = writer.bytes(if number == broken { &[0xff] } else { &[0x80] }));
        refused(&tip, writer.as_bytes())
    });
    assert_eq!(sections, [0, 1, 2, 3].map(|number| (K::Section, Some(number))));
    let mut shuffled = parts.clone();
    shuffled.write_set.writes.swap(2, 3);
    assert_eq!(refused(&tip, &shuffled.encode()), (K::WriteSet, Some(3)));
    let mut erased = parts.clone();
    let gone = erased.write_set.writes.iter().rposition(|write| write.1.is_some()).unwrap();
    erased.write_set.erase(&parts.write_set.writes[gone].0);
    assert_eq!(refused(&tip, &erased.encode()), (K::WriteSet, Some(gone)));
    let mut unchanged = parts.clone();
    unchanged.write_set.writes.iter_mut().filter(|write| write.0 == path(1)).for_each(|write| {
        write.1 = Some(stored(1, 0));
    });
    let at = set.writes.iter().position(|write| write.0 == path(1));
    assert_eq!(refused(&tip, &unchanged.encode()), (K::NoChange, at));
    let mut surplus = parts.clone();
    let position = surplus.write_set.writes.partition_point(|write| write.0 < path(30));
    surplus.write_set.writes.insert(position, (path(30), None));
    assert_eq!(refused(&tip, &surplus.encode()).0, K::ProofMissing);
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let (mut chain, _) = Chain::founded("north", 50);
    let (block, proven) = chain.block(2, writes(&[(1, 1), (77, 0)], &[2, 3]));
    let tip = chain.tip.clone();
    assert_eq!(verdict(&tip, &proven, Some(block.log_root)), Ok(chain.expected(&block)));
    let flipped: Vec<Vec<u8>> = (0..8 * proven.len())
        .map(|bit| {
            let mut bytes = proven.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        })
        .chain((0..proven.len()).map(|end| proven[..end].to_vec()))
        .chain([[&proven[..], &[0]].concat()])
        .collect();
    let claims: Vec<_> = flipped
        .iter()
        .map(|block_bytes| Claim { tip: &tip, block: block_bytes, log_root: Some(block.log_root) })
        .collect();
    for (number, verdict) in validate_shards(&claims).into_iter().enumerate() {
        assert!(verdict.is_err(), "bit or cut {number}");
    }
}

#[test]
fn a_block_is_proven_over_the_state_before_it() {
    let (mut chain, _) = Chain::founded("north", 50);
    let before = chain.trie.clone();
    let (block, proven) = chain.block(1, writes(&[(1, 1)], &[2]));
    assert_eq!(prove_block(&block, &before), Ok(proven));
    assert!(matches!(prove_block(&block, &chain.trie), Err(ProveError::Partial(PartialError::NoChange(_)))));
    let elsewhere = before.update(&writes(&[(60, 0)], &[])).unwrap();
    assert_eq!(prove_block(&block, &elsewhere), Err(ProveError::OtherState));
}

#[test]
fn a_frontier_grows_like_the_log() {
    for before in [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33] {
        let mut log = Log::new();
        let hashes: Vec<Digest> = (0..before).map(path).collect();
        log.append_hashes(&hashes);
        let frontier = Frontier::new(before, log.frontier(before).unwrap()).unwrap();
        assert_eq!(frontier.root(), log.root());
        for count in [0, 1, 2, 3, 4, 7, 8, 9, 64, 65] {
            let mut longer = log.clone();
            let more: Vec<Digest> = (0..count).map(|number| path(1000 + number)).collect();
            longer.append_hashes(&more);
            let grown = frontier.appended(&more);
            assert_eq!((grown.tree_size(), grown.root()), (before + count, longer.root()));
            assert_eq!(grown.roots(), longer.frontier(before + count).unwrap());
        }
    }
    assert_eq!(Frontier::new(3, vec![[0; 32]]), Err(FrontierError::WrongLength { tree_size: 3, roots: 1 }));
}

/// Keys on few bits, so that the ways of paths are long and shared.
fn crowded(number: u16) -> Path {
    let mut path = [0; 32];
    path[0] = (number >> 8) as u8 & 3;
    path[20] = number as u8;
    path
}

proptest! {
    #[test]
    fn a_part_leads_where_the_whole_trie_leads(
        state in prop::collection::btree_map(any::<u16>(), 0..3_u8, 0..80),
        touched in prop::collection::btree_map(any::<u16>(), prop::option::of(3..6_u8), 0..12),
        deleted in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let state: BTreeMap<Path, Vec<u8>> =
            state.into_iter().map(|(number, version)| (crowded(number), vec![version; 20])).collect();
        let mut set: BTreeMap<Path, Option<Vec<u8>>> =
            touched.into_iter().map(|(number, version)| (crowded(number), version.map(|version| vec![version; 20]))).collect();
        let held: Vec<Path> = state.keys().copied().collect();
        if !held.is_empty() {
            set.extend(deleted.iter().map(|index| (*index.get(&held), None)));
        }
        // A block never deletes what is not there.
        set.retain(|path, stored| stored.is_some() || state.contains_key(path));
        let full = WriteSet::of(state.into_iter().map(|(path, stored)| (path, Some(stored))).collect());
        let trie = Trie::new().update(&full).unwrap();
        let set = WriteSet::of(set.into_iter().collect());
        let partial = PartialTrie::of(&trie, &set).unwrap();
        prop_assert_eq!(partial.root(), trie.root());
        let encoded = partial.encode();
        let decoded = PartialTrie::decode(&encoded).unwrap();
        prop_assert_eq!(decoded.encode(), encoded);
        prop_assert_eq!(decoded.root(), trie.root());
        prop_assert_eq!(decoded.root_after(&set), Ok(trie.update(&set).unwrap().root()));
        // One write less: either it is missed, or its part is one too many.
        for left_out in 0..set.writes.len() {
            let mut fewer = set.clone();
            fewer.writes.remove(left_out);
            let other = PartialTrie::decode(&partial.encode()).unwrap().root_after(&fewer);
            prop_assert_ne!(other, Ok(trie.update(&set).unwrap().root()));
        }
    }

    #[test]
    fn only_what_is_written_is_read(bytes: Vec<u8>, flip in any::<prop::sample::Index>(), bit in 0..8_u8) {
        prop_assert!(PartialTrie::decode(&bytes).is_err());
        let puts: Vec<_> = (0..30).map(|number| (number, 0)).collect();
        let trie = Trie::new().update(&writes(&puts, &[])).unwrap();
        let mut encoded = PartialTrie::of(&trie, &writes(&[(3, 1), (40, 0)], &[5, 6])).unwrap().encode();
        for end in 0..encoded.len() {
            prop_assert!(PartialTrie::decode(&encoded[..end]).is_err());
        }
        let at = flip.index(encoded.len());
        encoded[at] ^= 1 << bit;
        if let Ok(read) = PartialTrie::decode(&encoded) {
            prop_assert_eq!(read.encode(), encoded);
        }
    }

    #[test]
    fn more_shards_move_a_subject_to_a_new_one_or_not_at_all(subject: [u8; 16], from in 1..64_u32, more in 0..64_u32) {
        let (before, after) = (shard_of(&subject, from).unwrap(), shard_of(&subject, from + more).unwrap());
        prop_assert!(before < from);
        prop_assert!(after == before || (from..from + more).contains(&after));
    }
}

#[test]
fn subjects_are_dealt_evenly_and_as_others_do_it() {
    // Source: the results of the published algorithm for these keys.
    for (key, count, shard) in
        [(1_u64, 1, 0), (42, 57, 43), (0xdead_10cc, 1, 0), (0xdead_10cc, 666, 361), (256, 1024, 520)]
    {
        let mut subject = [7; 16];
        subject[..8].copy_from_slice(&key.to_be_bytes());
        assert_eq!(shard_of(&subject, count), Ok(shard), "{key} {count}");
    }
    let mut held = [0; 24];
    for number in 0..24_000_u64 {
        held[shard_of(path(number).first_chunk().unwrap(), 24).unwrap() as usize] += 1;
    }
    assert!(held.iter().all(|count| (800..1200).contains(count)), "{held:?}");
    assert_eq!(shard_of(&[0; 16], 0), Err(ShardCountError(0)));
    assert_eq!(shard_of(&[0; 16], MAX_SHARDS + 1), Err(ShardCountError(MAX_SHARDS + 1)));
}

#[test]
fn the_example_is_pinned() {
    let (mut chain, _) = Chain::founded("north", 3);
    let (_, proven) = chain.block(1, writes(&[(7, 0)], &[1]));
    assert_eq!(hex::encode(proven), pinned("shard_block", "example"));
}
