//! A target for every decoder and verifier of the core, and the inputs each starts from.
//! A target panics when a decoder does, when it reads what the encoder would not write, or when a verifier lets pass
//! what was never made. Targets over stored files take edits of sound files, so that they get behind the first check.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use ehrfast_core::block::{BlockLeaf, Cause, Entry, Header, assemble, assemble_genesis};
use ehrfast_core::bundle;
use ehrfast_core::cbor::{self, Reader, Writer};
use ehrfast_core::cose::{Sign, Sign1};
use ehrfast_core::digest::{Digest, blake3};
use ehrfast_core::envelope::{
    self, ClassId, ClassKey, ClassPublicKey, Draft as Record, Opening, Part, Place, Recipient, SealedPack,
};
use ehrfast_core::grant::{self, Grant, GrantContext, GrantKey, Suite};
use ehrfast_core::merkle::frontier::Frontier;
use ehrfast_core::merkle::log::Log;
use ehrfast_core::merkle::partial::PartialTrie;
use ehrfast_core::merkle::trie::Trie;
use ehrfast_core::merkle::trie_proof::TrieProof;
use ehrfast_core::merkle::verify::{verify_consistency, verify_inclusion};
use ehrfast_core::pieces::{Lead, PieceOpener, PieceSealer};
use ehrfast_core::shard::{self, Claim, Tip};
use ehrfast_core::signature::{self, Item, SigningKey};
use ehrfast_core::snapshot::{Head, Leaves, StateChunk, Verifier};
use ehrfast_core::state::WriteSet;
use ehrfast_core::store::checkpoint_file::CheckpointFile;
use ehrfast_core::store::files::{Files, MemoryFiles};
use ehrfast_core::store::key_store::{Entry as KeyEntry, KeyStore};
use ehrfast_core::store::segments::{self, FrameHeader, OpenLog, Scan, Section, SegmentLog};
use ehrfast_core::transaction::{self, Draft, Transaction};

/// One decoder or verifier.
#[derive(Debug)]
pub struct Target {
    /// As `ONLY=` takes it.
    pub name: &'static str,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Sound inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "cbor", run: cbor, seeds: all_pinned },
    Target { name: "cose_sign1", run: cose_sign1, seeds: || pinned(&["transaction"]) },
    Target { name: "cose_sign", run: cose_sign, seeds: || pinned(&["genesis_signature"]) },
    Target { name: "transaction", run: transaction, seeds: || pinned(&["transaction"]) },
    Target { name: "signature", run: signature, seeds: signatures },
    Target { name: "block_leaf", run: block_leaf, seeds: || pinned(&["block_leaf"]) },
    Target { name: "write_set", run: write_set, seeds: || pinned(&["write_set"]) },
    Target { name: "trie_proof", run: trie_proof, seeds: || pinned(&["state_trie"]) },
    Target { name: "partial_trie", run: partial_trie, seeds: partial_tries },
    Target { name: "log_proof", run: log_proof, seeds: log_proofs },
    Target { name: "frontier", run: frontier, seeds: || vec![vec![7; 99], vec![0; 33]] },
    Target { name: "shard_block", run: shard_block, seeds: shard_blocks },
    Target { name: "kid", run: kid, seeds: || vec![CLASS_KEY.kid().to_vec()] },
    Target { name: "sealed_item", run: sealed_item, seeds: || vec![PACK.items[0].clone()] },
    Target { name: "wraps", run: wraps, seeds: || [pinned(&["envelope"]), PACK.wraps.clone()].concat() },
    Target { name: "pack", run: pack, seeds: || vec![vec![1; 80], vec![0; 40]] },
    Target { name: "grant", run: grant, seeds: || pinned(&["grant"]) },
    Target { name: "bundle", run: bundle, seeds: bundles },
    Target { name: "frame_header", run: frame_header, seeds: frame_headers },
    Target { name: "frame_section", run: frame_section, seeds: frame_sections },
    Target { name: "segment_file", run: segment_file, seeds: edits },
    Target { name: "segment_scan", run: segment_scan, seeds: edits },
    Target { name: "key_slots", run: key_slots, seeds: edits },
    Target { name: "key_entries", run: key_entries, seeds: edits },
    Target { name: "checkpoint_file", run: checkpoint_file, seeds: edits },
    Target { name: "snapshot_head", run: snapshot_head, seeds: || vec![SNAPSHOT.head.clone()] },
    Target { name: "snapshot_leaves", run: snapshot_leaves, seeds: || vec![SNAPSHOT.leaves.clone()] },
    Target { name: "snapshot_state", run: snapshot_state, seeds: || SNAPSHOT.states.clone() },
    Target { name: "pieces", run: pieces, seeds: edits },
];

// ── inputs ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Every hex value of these sections of tests/vectors/formats.toml.
fn pinned(sections: &[&str]) -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/formats.toml");
    let text = std::fs::read_to_string(path).expect("tests/vectors/formats.toml is part of the tree");
    let mut wanted = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_end_matches(']');
            wanted = sections.is_empty() || sections.contains(&name);
        } else if wanted && let Some((_, value)) = line.split_once(" = ") {
            found.extend(hex::decode(value.trim_matches('"')).ok());
        }
    }
    assert!(!found.is_empty(), "{sections:?} are in tests/vectors/formats.toml");
    found
}

fn all_pinned() -> Vec<Vec<u8>> {
    pinned(&[])
}

fn edits() -> Vec<Vec<u8>> {
    vec![vec![], vec![0, 0, 0, 0, 1], vec![1, 0, 40, 0, 9], vec![2, 0, 8, 0, 200], vec![3, 0, 0, 0, 64, 0, 1, 0, 2, 3]]
}

/// Changes sound bytes as an input says: in groups of five, an operation, an offset of 3 bytes, and a value.
fn edited(sound: &[u8], input: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for edit in input.as_chunks::<5>().0 {
        let [operation, high, middle, low, value] = *edit;
        let at = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let at = at % bytes.len().max(1);
        match operation % 5 {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= value),
            1 => bytes.truncate(at),
            2 => bytes.extend(std::iter::repeat_n(value, usize::from(value))),
            3 => bytes.extend_from_within(at.saturating_sub(usize::from(value))..at),
            _ => bytes.iter_mut().skip(at).take(usize::from(value)).for_each(|byte| *byte = 0),
        }
    }
    bytes
}

/// A reader of fields off the front of an input, zeros behind its end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.0.len().min(N);
        out[..taken].copy_from_slice(&self.0[..taken]);
        self.0 = &self.0[taken..];
        out
    }

    fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    fn digests(&mut self) -> Vec<Digest> {
        let (digests, _) = self.0.as_chunks::<32>();
        digests.to_vec()
    }
}

// ── what the fixtures are made of ──────────────────────────────────────────────────────────────────────────────

const GENESIS: &[u8] = b"genesis";
const TIME_MS: u64 = 1_800_000_000_000;
const ROOT_KEY: [u8; 32] = [5; 32];

static CLASS_KEY: LazyLock<Arc<ClassKey>> = LazyLock::new(|| {
    let id = ClassId { subject: [1; 16], custodian: [2; 16], class: "clinical".to_owned(), epoch: [3; 16] };
    Arc::new(ClassKey::derive(&[9; 32], id).unwrap())
});

static PACK: LazyLock<SealedPack> = LazyLock::new(|| {
    let recipients = vec![Recipient::Class(Arc::clone(&CLASS_KEY))];
    let draft = Record { record_id: [4; 16], version: 1, class: "clinical".to_owned(), recipients };
    envelope::seal_records("main", b"{\"resourceType\":\"Patient\"}", &[[0, 26]], &[draft]).unwrap()
});

struct Chain {
    blocks: Vec<(Arc<ehrfast_core::block::Block>, Vec<u8>, Tip)>,
    log: Log,
    trie: Trie,
    state: BTreeMap<[u8; 32], Vec<u8>>,
}

fn chain_id() -> String {
    format!("main-{}", hex::encode(&blake3(GENESIS)[..16]))
}

fn path(number: u8) -> [u8; 32] {
    blake3(&[number])
}

fn signed(number: u8) -> Arc<Transaction> {
    let id = chain_id();
    let draft = Draft {
        chain_id: &id,
        contract: "toy",
        method: "put",
        args: &[0xa0],
        lane: 2,
        expires: TIME_MS + 60_000,
        salt: [number; 16],
        attachments: &[],
    };
    Arc::new(draft.sign(&SigningKey::from_seed(&[7; 32])).unwrap())
}

static CHAIN: LazyLock<Chain> = LazyLock::new(|| {
    let (mut log, mut trie) = (Log::new(), Trie::new());
    let header = |height| Header {
        chain_id: chain_id(),
        height,
        engine_height: height,
        time_ms: TIME_MS + height,
        proposer: [9; 32],
    };
    let sorted = |mut writes: Vec<([u8; 32], Option<Vec<u8>>)>| {
        writes.sort_unstable();
        WriteSet::of(writes)
    };
    let puts =
        |numbers: std::ops::Range<u8>, version: u8| numbers.map(move |number| (path(number), Some(vec![version; 20])));
    let mut tip = Tip::genesis(&chain_id());
    let (mut blocks, mut state) = (Vec::new(), BTreeMap::new());
    for height in 0..4_u8 {
        let set = match height {
            0 => sorted(puts(0..20, 0).collect()),
            _ => sorted(puts(height * 3..height * 3 + 2, height).chain([(path(height + 12), None)]).collect()),
        };
        let (block, next) = match height {
            0 => assemble_genesis(&mut log, &trie, header(0), GENESIS, set).unwrap(),
            _ => {
                let entries = (0..2).map(|number| {
                    let transaction = signed(10 * height + number);
                    let mut receipt = Writer::new();
                    receipt.array(7).bytes(&transaction.id).uint(height.into());
                    receipt.uint(tip.frontier.tree_size() + u64::from(number)).uint(0).uint(1).uint(1).array(0);
                    Entry { cause: Cause::Transaction(transaction), receipt: receipt.into_bytes() }
                });
                assemble(&mut log, &trie, header(height.into()), entries.collect(), set, &[]).unwrap()
            }
        };
        let proven = shard::prove_block(&block, &trie).unwrap();
        let before = tip;
        trie = next;
        for (path, stored) in &block.write_set.writes {
            match stored {
                Some(stored) => _ = state.insert(*path, stored.clone()),
                None => _ = state.remove(path),
            }
        }
        tip = Tip {
            chain_id: chain_id(),
            next_height: u64::from(height) + 1,
            time_ms: block.head.time_ms,
            frontier: Frontier::new(block.tree_size, log.frontier(block.tree_size).unwrap()).unwrap(),
            state_root: trie.root(),
        };
        blocks.push((Arc::new(block), proven, before));
    }
    Chain { blocks, log, trie, state }
});

/// Larger files are segments with room ahead.
const SMALL_FILE: usize = 1 << 16;
const LOG_FOLDER: &str = "log";
const KEYS_FOLDER: &str = "keys";

/// A stored log of the blocks of `CHAIN`, and its key store.
struct Stored {
    files: Vec<(std::path::PathBuf, Vec<u8>)>,
    segment: std::path::PathBuf,
}

static STORED: LazyLock<Stored> = LazyLock::new(|| {
    let memory = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(memory.clone());
    let keys = Arc::new(KeyStore::create(Arc::clone(&files), Path::new(KEYS_FOLDER), &ROOT_KEY).unwrap());
    let log = SegmentLog::create(Arc::clone(&files), Path::new(LOG_FOLDER), &chain_id(), Arc::clone(&keys)).unwrap();
    CHAIN.blocks.iter().for_each(|(block, ..)| log.append(block, &[]).unwrap());
    keys.put(&[KeyEntry { kind: "toy", id: b"one", value: b"value" }]).unwrap();
    let names = |folder: &str| {
        files.list(Path::new(folder)).unwrap().into_iter().map(|name| Path::new(folder).join(name)).collect::<Vec<_>>()
    };
    let segment =
        names(LOG_FOLDER).into_iter().find(|name| name.extension().is_some_and(|end| end == "segment")).unwrap();
    let all = [names(LOG_FOLDER), names(KEYS_FOLDER)].concat();
    let files = all.into_iter().map(|name| (name.clone(), trimmed(memory.bytes(&name).unwrap()))).collect();
    Stored { files, segment }
});

/// Without the zeros that are written ahead, so that edits meet frames.
fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    const KEPT_ZEROS: usize = 64;
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if bytes.len() > SMALL_FILE {
        bytes.truncate(end + KEPT_ZEROS);
    }
    bytes
}

impl Stored {
    /// The files again, one of them edited.
    fn with_edited(&self, name: &Path, input: &[u8]) -> Arc<dyn Files> {
        let memory = MemoryFiles::new();
        memory.create_folder(Path::new(LOG_FOLDER)).unwrap();
        memory.create_folder(Path::new(KEYS_FOLDER)).unwrap();
        for (path, bytes) in &self.files {
            match path == name {
                true => memory.plant(path, &edited(bytes, input)),
                false => memory.plant(path, bytes),
            }
        }
        Arc::new(memory)
    }
}

// ── targets ────────────────────────────────────────────────────────────────────────────────────────────────────

fn cbor(data: &[u8]) {
    let read = Reader::new(data, cbor::DEFAULT_MAX_BYTES).and_then(|mut reader| {
        let value = reader.value(0)?;
        reader.finish()?;
        Ok(value)
    });
    if let Ok(value) = read {
        assert_eq!(cbor::encode(&value).unwrap(), data);
    }
    let checked = Reader::new(data, cbor::DEFAULT_MAX_BYTES).and_then(|mut reader| {
        let raw = reader.raw(0)?.to_vec();
        reader.finish()?;
        Ok(raw)
    });
    assert!(checked.as_ref().map_or(true, |raw| raw == data));
    let read = Reader::new(data, cbor::DEFAULT_MAX_BYTES).and_then(|mut reader| {
        reader.value(0)?;
        reader.finish()
    });
    assert_eq!(checked.is_ok(), read.is_ok());
}

fn cose_sign1(data: &[u8]) {
    if let Ok(message) = Sign1::decode(data, 1 << 20) {
        assert_eq!(message.encode(), data);
        _ = message.verify(transaction::EXTERNAL_AAD);
    }
}

fn cose_sign(data: &[u8]) {
    if let Ok(message) = Sign::decode(data, 1 << 20) {
        assert_eq!(message.encode(), data);
        _ = message.verify(b"ehrfast/genesis/v1");
    }
}

fn transaction(data: &[u8]) {
    let admitted = transaction::admit(&[data], "main-00000000000000000000000000000000", 64 * 1024).remove(0);
    match transaction::decode(data) {
        Ok(read) => {
            assert_eq!(&*read.received, data);
            let draft = Draft {
                chain_id: &read.chain_id,
                contract: &read.contract,
                method: &read.method,
                args: &read.args,
                lane: read.lane,
                expires: read.expires,
                salt: read.salt,
                attachments: &read.attachments,
            };
            let message = Sign1::decode(data, data.len()).unwrap();
            assert_eq!(draft.payload().unwrap(), message.payload);
            assert!(admitted.is_err() || admitted.is_ok_and(|admitted| admitted == read));
        }
        Err(_) => assert!(admitted.is_err()),
    }
}

fn signatures() -> Vec<Vec<u8>> {
    let keys = [1, 2].map(|byte| SigningKey::from_seed(&[byte; 32]));
    let one = |key: &SigningKey| [&key.public_key()[..], &key.sign(b"message")].concat();
    vec![keys.iter().flat_map(one).collect(), [one(&keys[0]), one(&keys[0]), vec![0; 96]].concat()]
}

/// A batch gives each item the verdict it gets alone.
fn signature(data: &[u8]) {
    let items: Vec<Item<'_>> = data
        .as_chunks::<96>()
        .0
        .iter()
        .take(16)
        .map(|chunk| Item {
            public_key: chunk.first_chunk().unwrap(),
            message: b"message",
            signature: chunk.last_chunk().unwrap(),
        })
        .collect();
    for (item, verdict) in items.iter().zip(signature::verify_batch(&items)) {
        assert_eq!(signature::verify(item.public_key, item.message, item.signature).is_ok(), verdict);
        _ = signature::check_public_key(item.public_key);
    }
}

fn block_leaf(data: &[u8]) {
    if let Ok(leaf) = BlockLeaf::decode(data) {
        assert_eq!(leaf.encode().unwrap(), data);
    }
}

fn write_set(data: &[u8]) {
    if let Ok(set) = WriteSet::decode(data) {
        assert_eq!(set.encode(), data);
        Trie::new().update(&set).unwrap();
    }
}

/// No input is a proof that a path is there and one that it is not, and none proves what the trie does not hold.
fn trie_proof(data: &[u8]) {
    let Ok(proof) = TrieProof::decode(data) else { return };
    assert_eq!(proof.encode(), data);
    let puts = (0..4).map(|number| (path(number), Some(vec![number; 20])));
    let mut writes: Vec<_> = puts.collect();
    writes.sort_unstable();
    let trie = Trie::new().update(&WriteSet::of(writes)).unwrap();
    for number in 0..8 {
        let stored = vec![number; 20];
        let there = proof.verify(&trie.root(), &path(number), Some(&stored)).is_ok();
        let absent = proof.verify(&trie.root(), &path(number), None).is_ok();
        assert!(!there || number < 4);
        assert!(!absent || number >= 4);
    }
}

fn partial_tries() -> Vec<Vec<u8>> {
    shard_blocks()
        .iter()
        .map(|block| {
            let mut reader = Reader::new(block, block.len()).unwrap();
            reader.array_of(6).unwrap();
            reader.uint().unwrap();
            (0..4).for_each(|_| _ = reader.bytes().unwrap());
            reader.bytes().unwrap().to_vec()
        })
        .collect()
}

fn partial_trie(data: &[u8]) {
    let Ok(partial) = PartialTrie::decode(data) else { return };
    assert_eq!(partial.encode(), data);
    for (block, ..) in &CHAIN.blocks {
        _ = partial.clone().root_after(&block.write_set);
    }
}

fn log_proofs() -> Vec<Vec<u8>> {
    let mut log = Log::new();
    log.append_hashes(&(0..9).map(path).collect::<Vec<_>>());
    (0..9)
        .map(|index| {
            let proof = log.prove_inclusion(index, 9).unwrap();
            [&index.to_be_bytes()[..], &9_u64.to_be_bytes(), proof.as_flattened()].concat()
        })
        .chain((1..9).map(|old| {
            let proof = log.prove_consistency(old, 9).unwrap();
            [&old.to_be_bytes()[..], &9_u64.to_be_bytes(), proof.as_flattened()].concat()
        }))
        .collect()
}

/// Only the index of a leaf proves it, and only the roots that there were are consistent.
fn log_proof(data: &[u8]) {
    let mut fields = Fields(data);
    let (first, tree_size, proof) = (fields.number(), fields.number(), fields.digests());
    let mut log = Log::new();
    log.append_hashes(&(0..9).map(path).collect::<Vec<_>>());
    for number in 0..9 {
        if verify_inclusion(&path(number), first, tree_size, &proof, &log.root()).is_ok() && tree_size == 9 {
            assert_eq!(first, u64::from(number));
        }
    }
    for old in 1..9 {
        let root = log.root_at(old).unwrap();
        if verify_consistency(first, tree_size, &root, &log.root(), &proof).is_ok() && tree_size == 9 {
            assert_eq!(first, old);
        }
    }
}

fn frontier(data: &[u8]) {
    let mut fields = Fields(data);
    let tree_size = fields.number() >> 1;
    if let Ok(frontier) = Frontier::new(tree_size, fields.digests()) {
        let grown = frontier.appended(&[path(0), path(1), path(2)]);
        assert!(Frontier::new(grown.tree_size(), grown.roots().to_vec()).is_ok());
    }
}

fn shard_blocks() -> Vec<Vec<u8>> {
    CHAIN.blocks.iter().map(|(_, proven, _)| proven.clone()).collect()
}

/// Under the log root that there was, no other bytes are the block.
fn shard_block(data: &[u8]) {
    for (block, proven, tip) in &CHAIN.blocks {
        let verdict = shard::validate_shards(&[Claim { tip, block: data, log_root: Some(block.log_root) }]).remove(0);
        assert_eq!(verdict.is_ok(), proven == data);
    }
}

fn kid(data: &[u8]) {
    if let Ok(id) = ClassId::from_kid(data) {
        assert_eq!(id.kid().unwrap(), data);
    }
}

fn place() -> Place<'static> {
    Place { origin: "main", record_id: [4; 16], version: 1, class: "clinical" }
}

fn sealed_item(data: &[u8]) {
    let opening = Opening { item: data, wraps: &PACK.wraps[0], key: &CLASS_KEY, place: place(), commitment: None };
    assert_eq!(envelope::open_record(&opening).is_ok(), data == PACK.items[0]);
    _ = envelope::Item::decode(data);
}

fn wraps(data: &[u8]) {
    let opening = Opening { item: &PACK.items[0], wraps: data, key: &CLASS_KEY, place: place(), commitment: None };
    if let Ok(opened) = envelope::open_record(&opening) {
        // Wraps for others may stand beside ours.
        assert_eq!(&opened.content[..], b"{\"resourceType\":\"Patient\"}");
    }
    if let Ok(ids) = envelope::wrap_ids(data) {
        assert!(ids.windows(2).all(|pair| pair[0].kid().unwrap() < pair[1].kid().unwrap()));
    }
}

fn pack(data: &[u8]) {
    let mut fields = Fields(data);
    let kept = usize::from(fields.array::<1>()[0] % 8);
    let digests = fields.digests();
    let parts: Vec<Part<'_>> = digests
        .iter()
        .enumerate()
        .map(|(at, digest)| if at < kept { Part::Kept(digest) } else { Part::Removed(*digest) })
        .collect();
    let root = envelope::root_of_parts(&parts);
    envelope::verify_parts(&parts, &root).unwrap();
    assert!(parts.is_empty() || envelope::verify_parts(&parts[1..], &root).is_err());
}

fn grant(data: &[u8]) {
    _ = Grant::decode(data);
    let posted = ClassPublicKey::new(CLASS_KEY.id().clone(), CLASS_KEY.public_key()).unwrap();
    let context = GrantContext { origin: "main-00000000000000000000000000000000", recipient: [7; 16] };
    for suite in [Suite::X25519, Suite::XWing] {
        let key = GrantKey::from_seed(suite, &[5; 32]).unwrap();
        if let Ok(opened) = grant::open_grant(data, &key, &posted, &context) {
            assert_eq!(opened.public_key(), CLASS_KEY.public_key());
        }
    }
}

fn bundles() -> Vec<Vec<u8>> {
    [
        r#"{"resourceType":"Bundle","type":"transaction","entry":[{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","id":"a"},"request":{"method":"POST","url":"Patient"}}]}"#,
        r#"{"resourceType":"Observation","id":"b\u00e9","subject":{"reference":"Patient/a"},"valueQuantity":{"value":-1.5e3}}"#,
        "{\"resourceType\":\"Patient\",\"id\":\"1\"}\n\n{\"resourceType\":\"Condition\",\"subject\":{\"reference\":\"urn:uuid:2\"}}\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn bundle(data: &[u8]) {
    const LIMIT: usize = 1 << 16;
    let inside = |split: &bundle::Split| {
        for resource in &split.resources {
            let own = data.get(resource.span.clone()).expect("a span lies in the document");
            assert!(own.len() <= LIMIT && own.first() == Some(&b'{') && own.last() == Some(&b'}'));
            let again = bundle::describe_resource(own, LIMIT).expect("what was split off is a resource by itself");
            assert_eq!(again.resource_type, resource.resource_type);
        }
    };
    if let Ok(split) = bundle::split_resources(data, LIMIT) {
        inside(&split);
    }
    inside(&bundle::split_ndjson(data, LIMIT));
    _ = bundle::describe_resource(data, LIMIT);
}

fn frame_headers() -> Vec<Vec<u8>> {
    let segment = STORED.files.iter().find(|(name, _)| *name == STORED.segment).map(|(_, bytes)| bytes).unwrap();
    let length = u32::from_be_bytes(*segment[4..].first_chunk().unwrap()) as usize;
    vec![segment[16..16 + length].to_vec()]
}

fn frame_header(data: &[u8]) {
    if let Ok(header) = FrameHeader::decode(data) {
        assert_eq!(header.encode().unwrap(), data);
    }
}

fn frame_sections() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for block in shard_blocks() {
        let mut reader = Reader::new(&block, block.len()).unwrap();
        reader.array_of(6).unwrap();
        reader.uint().unwrap();
        seeds.extend((0..4_u8).map(|number| [&[number], reader.bytes().unwrap()].concat()));
    }
    let mut packs = Writer::new();
    packs.array(1).array(3).bytes(&PACK.root).bytes(&PACK.wraps_root).array(1).bytes(&PACK.items[0]);
    seeds.push([&[4], packs.as_bytes()].concat());
    let mut wraps = Writer::new();
    wraps.array(1).array(2).bytes(&PACK.wraps[0]).array(1).bytes(&[7; 32]);
    seeds.push([&[5], wraps.as_bytes()].concat());
    seeds
}

fn frame_section(data: &[u8]) {
    if let Some((number, section)) = data.split_first() {
        let which = Section::ALL[usize::from(*number) % Section::ALL.len()];
        if let Ok(items) = segments::section_items(which, section) {
            assert!(items <= section.len());
        }
    }
}

/// An edited segment opens to blocks that were appended, from the first on, or not at all.
fn segment_file(data: &[u8]) {
    let files = STORED.with_edited(&STORED.segment, data);
    let keys = Arc::new(KeyStore::open(Arc::clone(&files), Path::new(KEYS_FOLDER), &ROOT_KEY, false).unwrap());
    let folder = Path::new(LOG_FOLDER);
    for how in [OpenLog { checkpoint_size: 0, read_only: true }, OpenLog::default()] {
        let Ok(log) = SegmentLog::open(Arc::clone(&files), folder, &chain_id(), Arc::clone(&keys), how) else {
            continue;
        };
        for (height, (block, ..)) in (0..).zip(&CHAIN.blocks).take(log.height().map_or(0, |height| height as usize + 1))
        {
            let Ok(frame) = log.read(height) else { continue };
            if let Ok(leaves) = frame.leaves() {
                assert!(leaves.iter().zip(&block.leaves).all(|(read, leaf)| read == leaf));
            }
            if let Ok(set) = frame.write_set() {
                assert_eq!(set, block.write_set);
            }
        }
    }
}

/// A scan of an edited segment ends, and shows no block as sound that was not appended.
fn segment_scan(data: &[u8]) {
    let files = STORED.with_edited(&STORED.segment, data);
    let keys = Arc::new(KeyStore::open(Arc::clone(&files), Path::new(KEYS_FOLDER), &ROOT_KEY, false).unwrap());
    let Ok(scan) = Scan::new(files, Path::new(LOG_FOLDER), &chain_id(), keys) else { return };
    assert!(scan.count() < 10_000);
}

fn keys_of(data: &[u8], name: &str) {
    let files = STORED.with_edited(&Path::new(KEYS_FOLDER).join(name), data);
    for read_only in [true, false] {
        if let Ok(keys) = KeyStore::open(Arc::clone(&files), Path::new(KEYS_FOLDER), &ROOT_KEY, read_only) {
            assert!(keys.get("toy", b"one").is_none_or(|value| value[..] == b"value"[..]));
        }
    }
}

fn key_slots(data: &[u8]) {
    keys_of(data, "keys.slots");
}

fn key_entries(data: &[u8]) {
    keys_of(data, "keys.entries");
}

/// What an edited file shows is a note that was written.
fn checkpoint_file(data: &[u8]) {
    static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let memory = MemoryFiles::new();
        let file = CheckpointFile::open(&memory, Path::new("checkpoint"), false).unwrap();
        file.write(b"first", true).unwrap();
        file.write(b"second", true).unwrap();
        memory.bytes(Path::new("checkpoint")).unwrap()
    });
    let memory = MemoryFiles::new();
    memory.plant(Path::new("checkpoint"), &edited(&SOUND, data));
    for read_only in [true, false] {
        let opened = CheckpointFile::open(&memory, Path::new("checkpoint"), read_only);
        if let Ok(Ok(Some(note))) = opened.map(|file| file.read()) {
            assert!(note.is_empty() || note == b"first" || note == b"second");
        }
    }
}

// ── snapshots and pieces ───────────────────────────────────────────────────────────────────────────────────────

struct Snapshot {
    head: Vec<u8>,
    leaves: Vec<u8>,
    states: Vec<Vec<u8>>,
}

/// Of the chain above, its last block's leaves and what comes before as a frontier.
static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let Chain { blocks, log, trie, state } = &*CHAIN;
    let (block, ..) = blocks.last().unwrap();
    let first_leaf = block.head.first_index;
    let frontier = log.frontier(first_leaf).unwrap();
    let head =
        Head { chain_id: chain_id(), height: block.head.height, tree_size: block.tree_size, first_leaf, frontier };
    let mut states = Vec::new();
    let mut next = Some([0; 32]);
    while let Some(from) = next {
        let entries = state.range(from..).map(|(path, stored)| Ok::<_, Infallible>((*path, stored.clone())));
        let prove = |path: &[u8; 32]| Ok((trie.prove(path).unwrap(), trie.value_digest(path).unwrap()));
        let chunk = StateChunk::build(from, 300, entries, prove).unwrap();
        next = chunk.bounds.to;
        states.push(chunk.encode());
    }
    Snapshot { head: head.encode().unwrap(), leaves: Leaves::encode(first_leaf, &block.leaves), states }
});

fn snapshot_verifier() -> Verifier {
    let tree_size = CHAIN.log.tree_size();
    Verifier::new(&SNAPSHOT.head, &chain_id(), tree_size, &CHAIN.log.root()).unwrap()
}

/// Another head may be read, but leads no leaves to the root of the checkpoint.
fn snapshot_head(data: &[u8]) {
    if let Ok(head) = Head::decode(data) {
        assert_eq!(head.encode().unwrap(), data);
    }
    if let Ok(mut verifier) = Verifier::new(data, &chain_id(), CHAIN.log.tree_size(), &CHAIN.log.root())
        && verifier.take_leaves(&SNAPSHOT.leaves).is_ok()
    {
        assert!(verifier.block().is_none() || data == SNAPSHOT.head);
    }
}

fn snapshot_leaves(data: &[u8]) {
    if let Ok(leaves) = Leaves::decode(data) {
        assert_eq!(Leaves::encode(leaves.first_index, &leaves.leaves), data);
    }
    let mut verifier = snapshot_verifier();
    if verifier.take_leaves(data).is_ok() {
        assert!(verifier.block().is_none() || data == SNAPSHOT.leaves);
    }
}

/// A chunk that is taken holds what the state holds in its range, all of it.
fn snapshot_state(data: &[u8]) {
    if let Ok(chunk) = StateChunk::decode(data) {
        assert_eq!(chunk.encode(), data);
    }
    let mut verifier = snapshot_verifier();
    verifier.take_leaves(&SNAPSHOT.leaves).unwrap();
    for state in &SNAPSHOT.states {
        if let Ok(chunk) = verifier.take_state(data) {
            let to = chunk.bounds.to.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let held = CHAIN.state.range((std::ops::Bound::Included(chunk.bounds.from), to));
            assert!(held.eq(chunk.entries.iter().map(|(path, stored)| (path, stored))));
            return;
        }
        verifier.take_state(state).unwrap();
    }
}

/// An edited item of pieces opens to nothing but its content.
fn pieces(data: &[u8]) {
    static SOUND: LazyLock<(Vec<u8>, Vec<u8>, Digest)> = LazyLock::new(|| {
        let (mut sealer, mut item) = PieceSealer::begin(&place(), b"head").unwrap();
        item.extend(sealer.update(b"content").unwrap());
        let recipients = [Recipient::Class(Arc::clone(&CLASS_KEY))];
        let (last, sealed) = sealer.finish("clinical", &recipients).unwrap();
        item.extend(last);
        (item, sealed.outside.wraps, sealed.outside.commitment)
    });
    _ = Lead::read(data);
    let (sound, wraps, commitment) = &*SOUND;
    let item = edited(sound, data);
    let Ok(lead) = Lead::read(&item) else { return };
    let Some((front, rest)) = item.split_at_checked(lead.front_bytes()) else { return };
    let Ok(mut opener) = PieceOpener::begin(front, wraps, &CLASS_KEY, &place()) else { return };
    assert_eq!(opener.head(), b"head");
    if let Ok(content) = opener.open(rest, true) {
        assert_eq!(&content[..], b"content");
        opener.finish(commitment).unwrap();
    }
}
