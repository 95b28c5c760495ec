//! Blocks: what their leaves commit to, what is refused before the log is touched, and pinned block leaves.
//! The generator's twin is tests/reference/block.py.

use std::sync::Arc;

use ehrfast_core::block::{
    Block, BlockError, BlockLeaf, Cause, Entry, Header, MAX_LEAF_BYTES, assemble, assemble_genesis,
};
use ehrfast_core::cbor::Writer;
use ehrfast_core::digest::{Digest, blake3, sha256, sha256_leaf};
use ehrfast_core::merkle::log::{Log, empty_root, root_of_leaves};
use ehrfast_core::merkle::trie::{Trie, TrieError};
use ehrfast_core::signature::SigningKey;
use ehrfast_core::state::WriteSet;
use ehrfast_core::transaction::{Attachment, Draft, Transaction};
use proptest::prelude::*;

use crate::pinned::pinned;

const GENESIS: &[u8] = b"genesis";

fn chain_id() -> String {
    format!("main-{}", hex::encode(&blake3(GENESIS)[..16]))
}

fn header(height: u64) -> Header {
    Header {
        chain_id: chain_id(),
        height,
        engine_height: height + 5,
        time_ms: 1_700_000_000_000 + height,
        proposer: [9; 32],
    }
}

fn transaction(number: u8, attachments: &[Attachment]) -> Arc<Transaction> {
    let key = SigningKey::from_seed(&[1; 32]);
    let draft = Draft {
        chain_id: &chain_id(),
        contract: "toy",
        method: "put",
        args: &[0xa0],
        lane: 2,
        expires: 1,
        salt: [number; 16],
        attachments,
    };
    Arc::new(draft.sign(&key).unwrap())
}

fn entry(number: u8, attachments: &[Attachment]) -> Entry {
    Entry { cause: Cause::Transaction(transaction(number, attachments)), receipt: vec![number] }
}

fn writes(paths: &[u8]) -> WriteSet {
    WriteSet::of(paths.iter().map(|byte| ([*byte; 32], Some(vec![*byte; 20]))).collect())
}

fn genesis(log: &mut Log) -> (Block, Trie) {
    let mut first = header(0);
    first.engine_height = 0;
    assemble_genesis(log, &Trie::new(), first, GENESIS, writes(&[1, 2])).unwrap()
}

#[test]
fn genesis_is_two_leaves() {
    let mut log = Log::new();
    let (block, trie) = genesis(&mut log);
    assert_eq!(block.leaves[0], [&[0][..], &blake3(GENESIS)].concat());
    assert_eq!((block.leaves.len(), block.tree_size, block.head.leaf_count), (2, 2, 1));
    assert_eq!((block.head.first_index, block.head.previous_root), (0, empty_root()));
    assert_eq!(block.head.state_root, trie.root());
    assert_eq!(trie.root(), Trie::new().update(&writes(&[1, 2])).unwrap().root());
    assert_eq!(block.log_root, root_of_leaves(&block.leaves));
    assert!(block.receipts.is_empty() && block.transactions.is_empty());
}

#[test]
fn genesis_comes_once_and_names_its_chain() {
    let mut log = Log::new();
    let attempt = |log: &mut Log, chain_id: &str| {
        let header = Header { chain_id: chain_id.to_owned(), ..header(0) };
        assemble_genesis(log, &Trie::new(), header, GENESIS, WriteSet::default()).map(|_| ())
    };
    assert_eq!(attempt(&mut log, &format!("main-{}", "0".repeat(32))), Err(BlockError::ChainIdMismatch));
    assert_eq!(attempt(&mut log, "main"), Err(BlockError::ChainId));
    assert_eq!(log.tree_size(), 0);
    assert_eq!(attempt(&mut log, &chain_id()), Ok(()));
    assert_eq!(attempt(&mut log, &chain_id()), Err(BlockError::LogNotEmpty { tree_size: 2 }));
}

#[test]
fn a_block_commits_to_its_entries_its_state_and_its_past() {
    let mut log = Log::new();
    let (first, trie) = genesis(&mut log);
    let timer = Entry { cause: Cause::Timer([7; 32]), receipt: vec![70] };
    let entries = vec![entry(1, &[]), timer, entry(2, &[])];
    let (block, next) = assemble(&mut log, &trie, header(1), entries, writes(&[2, 3]), &[]).unwrap();
    let (one, two) = (transaction(1, &[]), transaction(2, &[]));
    let leaf = |transaction: &Transaction, receipt: u8| {
        [&[1][..], &transaction.id, &sha256(&transaction.received), &blake3(&[receipt])].concat()
    };
    let expected =
        [leaf(&one, 1), [&[3][..], &[7; 32], &blake3(&[70])].concat(), leaf(&two, 2), block.head.encode().unwrap()];
    assert_eq!(block.leaves, expected);
    let head = BlockLeaf {
        chain_id: chain_id(),
        height: 1,
        engine_height: 6,
        time_ms: 1_700_000_000_001,
        first_index: 2,
        leaf_count: 3,
        previous_root: first.log_root,
        state_root: trie.update(&writes(&[2, 3])).unwrap().root(),
        proposer: [9; 32],
    };
    assert_eq!(block.head, head);
    assert_eq!(next.root(), head.state_root);
    assert_eq!(block.leaf_hash, sha256_leaf(&block.leaves[3]));
    assert_eq!((block.tree_size, head.tree_size()), (6, Some(6)));
    assert_eq!(block.log_root, root_of_leaves(&[first.leaves, block.leaves].concat()));
    assert_eq!((log.tree_size(), log.root()), (6, block.log_root));
    assert_eq!(block.transaction_ids, [(one.id, 2), (two.id, 4)]);
    assert_eq!(block.transactions, [Arc::clone(&one.received), Arc::clone(&two.received)]);
    assert_eq!(block.receipts, [[1], [70], [2]]);
    assert_eq!(block.write_set, writes(&[2, 3]));
}

#[test]
fn packs_are_the_attachments_in_order() {
    let roots: Vec<Attachment> = (1..5).map(|byte| ([byte; 32], [byte + 100; 32])).collect();
    let attempt = |packs: &[(Digest, Digest)]| {
        let mut log = Log::new();
        let (_, trie) = genesis(&mut log);
        let timer = Entry { cause: Cause::Timer([7; 32]), receipt: vec![70] };
        let entries = vec![entry(1, &roots[..2]), timer, entry(2, &[]), entry(3, &roots[2..3])];
        let result = assemble(&mut log, &trie, header(1), entries, WriteSet::default(), packs).map(|_| ());
        assert_eq!(log.tree_size(), if result.is_ok() { 7 } else { 2 });
        result
    };
    let mismatch = |position| Err(BlockError::PackMismatch { position });
    assert_eq!(attempt(&roots[..3]), Ok(()));
    assert_eq!(attempt(&roots[..2]), mismatch(2));
    assert_eq!(attempt(&roots), mismatch(3));
    assert_eq!(attempt(&[]), mismatch(0));
    assert_eq!(attempt(&[roots[0], roots[2], roots[1]]), mismatch(1));
    assert_eq!(attempt(&[roots[0], (roots[1].0, roots[0].1), roots[2]]), mismatch(1));
    assert_eq!(attempt(&[roots[0], (roots[0].0, roots[1].1), roots[2]]), mismatch(1));
}

#[test]
fn a_refused_block_leaves_the_log_alone() {
    let mut log = Log::new();
    let (_, trie) = genesis(&mut log);
    let root = log.root();
    let mut attempt = |header: Header, entries: Vec<Entry>, set: WriteSet| {
        let refused = assemble(&mut log, &trie, header, entries, set, &[]).map(|_| ()).unwrap_err();
        assert_eq!((log.tree_size(), log.root()), (2, root));
        refused
    };
    assert_eq!(attempt(header(1), vec![], writes(&[1])), BlockError::NoEntries);
    let late = Header { time_ms: u64::MAX, ..header(1) };
    assert_eq!(attempt(late, vec![entry(1, &[])], writes(&[1])), BlockError::OutOfRange);
    let nameless = Header { chain_id: "x".to_owned(), ..header(1) };
    assert_eq!(attempt(nameless, vec![entry(1, &[])], writes(&[1])), BlockError::ChainId);
    let order = BlockError::Trie(TrieError::Order(1));
    assert_eq!(attempt(header(1), vec![entry(1, &[])], writes(&[2, 1])), order);
}

#[test]
fn an_abandoned_block_is_truncated_away() {
    let mut log = Log::new();
    let (_, trie) = genesis(&mut log);
    let build = |log: &mut Log| assemble(log, &trie, header(1), vec![entry(1, &[])], writes(&[5]), &[]).unwrap().0;
    let block = build(&mut log);
    log.truncate(block.head.first_index).unwrap();
    assert_eq!(build(&mut log).log_root, block.log_root);
}

fn leaves() -> impl Strategy<Value = BlockLeaf> {
    let number = || (any::<u64>(), 2..64_u32).prop_map(|(value, shift)| value >> shift);
    let numbers = (number(), number(), number(), number(), number());
    let hashes = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>());
    ("[a-z0-9-]{1,17}-[0-9a-f]{32}", numbers, hashes).prop_map(|(chain_id, numbers, hashes)| {
        let (height, engine_height, time_ms, first_index, leaf_count) = numbers;
        let (previous_root, state_root, proposer) = hashes;
        let leaf_count = leaf_count.max(1);
        BlockLeaf {
            chain_id,
            height,
            engine_height,
            time_ms,
            first_index,
            leaf_count,
            previous_root,
            state_root,
            proposer,
        }
    })
}

proptest! {
    #[test]
    fn a_block_leaf_has_one_encoding(leaf in leaves(), flip in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let bytes = leaf.encode().unwrap();
        prop_assert!(bytes.len() <= MAX_LEAF_BYTES);
        prop_assert_eq!(BlockLeaf::decode(&bytes), Ok(leaf));
        for end in 0..bytes.len() {
            prop_assert!(BlockLeaf::decode(&bytes[..end]).is_err());
        }
        prop_assert!(BlockLeaf::decode(&[&bytes[..], &[0]].concat()).is_err());
        let mut flipped = bytes;
        let at = flip.index(flipped.len());
        flipped[at] ^= 1 << bit;
        if let Ok(other) = BlockLeaf::decode(&flipped) {
            prop_assert_eq!(other.encode(), Ok(flipped));
        }
    }
}

#[test]
fn refuses_what_no_block_can_be() {
    let good = BlockLeaf {
        chain_id: chain_id(),
        height: 1,
        engine_height: 1,
        time_ms: 1,
        first_index: 2,
        leaf_count: 1,
        previous_root: [1; 32],
        state_root: [2; 32],
        proposer: [3; 32],
    };
    let encode = |leaf: &BlockLeaf| {
        let mut writer = Writer::new();
        writer.raw(&[2]).array(10).uint(1).text(&leaf.chain_id).unwrap();
        for number in [leaf.height, leaf.engine_height, leaf.time_ms, leaf.first_index, leaf.leaf_count] {
            writer.uint(number);
        }
        writer.bytes(&leaf.previous_root).bytes(&leaf.state_root).bytes(&leaf.proposer);
        writer.into_bytes()
    };
    assert_eq!(good.encode(), Ok(encode(&good)));
    let refused = |leaf: BlockLeaf| {
        let written = leaf.encode().unwrap_err();
        assert_eq!(BlockLeaf::decode(&encode(&leaf)), Err(written));
        written
    };
    let hash = "0".repeat(32);
    for name in ["", "-", "A-", "é-", &format!("{}-", "a".repeat(18)), "a_b-"] {
        let chain_id = format!("{name}{hash}");
        assert_eq!(refused(BlockLeaf { chain_id, ..good.clone() }), BlockError::ChainId, "{name}");
    }
    for hash in ["", &hash[1..], &format!("{hash}0"), &hash.replace('0', "A"), &hash.replace('0', "g")] {
        let chain_id = format!("main-{hash}");
        assert_eq!(refused(BlockLeaf { chain_id, ..good.clone() }), BlockError::ChainId, "{hash}");
    }
    assert_eq!(refused(BlockLeaf { leaf_count: 0, ..good.clone() }), BlockError::NoEntries);
    let beyond = 1 << 63;
    assert_eq!(refused(BlockLeaf { height: beyond, ..good.clone() }), BlockError::OutOfRange);
    assert_eq!(refused(BlockLeaf { engine_height: beyond, ..good.clone() }), BlockError::OutOfRange);
    assert_eq!(refused(BlockLeaf { time_ms: beyond, ..good.clone() }), BlockError::OutOfRange);
    assert_eq!(refused(BlockLeaf { first_index: beyond - 2, ..good.clone() }), BlockError::OutOfRange);
    assert_eq!(refused(BlockLeaf { first_index: u64::MAX, ..good.clone() }), BlockError::OutOfRange);
    assert!(BlockLeaf { first_index: beyond - 3, ..good.clone() }.encode().is_ok());
    for first in [0, 1, 3] {
        let mut other = encode(&good);
        other[0] = first;
        assert_eq!(BlockLeaf::decode(&other), Err(BlockError::OtherLeaf));
    }
    assert_eq!(BlockLeaf::decode(&[]), Err(BlockError::OtherLeaf));
}

/// Draws from the BLAKE3 output of a label, front to back.
fn generated(number: u64) -> BlockLeaf {
    let mut stream =
        blake3::Hasher::new().update(format!("ehrfast block leaf vector {number}").as_bytes()).finalize_xof();
    let mut take = || {
        let mut out = [0; 32];
        stream.fill(&mut out);
        out
    };
    let name: String = take()[..1 + number as usize % 17].iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let chain_id = format!("{name}-{}", hex::encode(&take()[..16]));
    // Eight bytes shifted by 2 to 63 bits, so that all magnitudes occur.
    let mut drawn = || {
        let bytes = take();
        u64::from_be_bytes(*bytes.first_chunk().unwrap()) >> (2 + bytes[8] % 62)
    };
    let (height, engine_height, time_ms, first_index, leaf_count) =
        (drawn(), drawn(), drawn(), drawn(), drawn().max(1));
    let (previous_root, state_root, proposer) = (take(), take(), take());
    BlockLeaf { chain_id, height, engine_height, time_ms, first_index, leaf_count, previous_root, state_root, proposer }
}

#[test]
fn generated_block_leaves_are_pinned() {
    let count: u64 = pinned("block_leaf", "count").parse().unwrap();
    let mut encodings = blake3::Hasher::new();
    for number in 0..count {
        let leaf = generated(number).encode().unwrap();
        encodings.update(&u32::try_from(leaf.len()).unwrap().to_be_bytes()).update(&leaf);
    }
    assert_eq!(encodings.finalize().to_hex().as_str(), pinned("block_leaf", "encodings"));
    assert_eq!(hex::encode(generated(0).encode().unwrap()), pinned("block_leaf", "example"));
}
