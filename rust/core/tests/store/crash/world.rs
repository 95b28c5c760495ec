//! A node's files, and the model of what they must hold: the one place that says what may be found after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use ehrfast_core::block::{Block, BlockLeaf};
use ehrfast_core::digest;
use ehrfast_core::envelope::{SealedPack, part_digest};
use ehrfast_core::merkle::log::Log;
use ehrfast_core::merkle::trie::Trie;
use ehrfast_core::store::checkpoint_file::{CheckpointFile, CheckpointFileError};
use ehrfast_core::store::files::{Dice, Files, Loss, MemoryFiles};
use ehrfast_core::store::key_store::{KeyStore, KeyStoreError, SLOTS_FILE};
use ehrfast_core::store::segments::{Frame, Item, LogError, OpenLog, Outcome, Scan, SegmentLog};

use super::acts::next_block;
use super::pairs;
use crate::store::blocks::ROOT_KEY;

pub const GENESIS: &[u8] = b"the genesis of a simulated chain";
pub static CHAIN: LazyLock<String> = LazyLock::new(|| format!("sim-{}", hex::encode(&digest::blake3(GENESIS)[..16])));
/// Kind of the keys that the acts put and forget; the log keeps its own beside them.
pub const KIND: &str = "patient-root";
const KEYS: &str = "node/keys";
const LOG: &str = "node/log";
const CHECKPOINT: &str = "node/checkpoint";

/// Why an act or an opening failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointFileError),
}

impl Failure {
    /// Whether it says that files failed, rather than that they are damaged.
    fn is_of_files(&self) -> bool {
        matches!(
            self,
            Failure::Keys(KeyStoreError::Io(_) | KeyStoreError::Poisoned)
                | Failure::Log(LogError::Io(_) | LogError::Poisoned)
                | Failure::Log(LogError::Keys(KeyStoreError::Io(_) | KeyStoreError::Poisoned))
                | Failure::Checkpoint(CheckpointFileError::Io(_))
        )
    }
}

/// What a rewriting takes out of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Going {
    Transaction(usize),
    Record(usize, usize),
}

pub type Goings = BTreeSet<Going>;

/// A block with its packs, and the trees with it.
#[derive(Clone, Debug)]
pub struct Made {
    /// What is gone from it, and what may be gone because it was tried.
    pub gone: Goings,
    pub tried: Goings,
    pub block: Block,
    pub packs: Vec<Arc<SealedPack>>,
    pub log: Log,
    pub trie: Trie,
}

/// What the key store holds of `KIND`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub held: BTreeMap<Vec<u8>, Vec<u8>>,
    pub erased_height: u64,
}

/// What was acknowledged, and beside it what may be found because it was tried.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub blocks: Vec<Made>,
    pub tried: Option<Made>,
    pub log: Log,
    pub trie: Trie,
    pub keys: Held,
    pub tried_keys: Vec<Held>,
    /// Tree sizes of the last checkpoint that was synced, 0 for none, and of all that were written after it: any of
    /// them may be found.
    pub noted: Vec<u64>,
}

impl Model {
    fn new() -> Self {
        Model { noted: vec![0], ..Model::default() }
    }

    pub fn acknowledge(&mut self, made: Made) {
        (self.log, self.trie) = (made.log.clone(), made.trie.clone());
        self.blocks.push(made);
        self.tried = None;
    }

    pub fn keys_written(&mut self, acknowledged: bool, next: Held) {
        if acknowledged {
            self.keys = next;
            self.tried_keys.clear();
        } else {
            self.tried_keys.push(next);
        }
    }

    /// The note of a tree size; its root is the log's.
    pub fn note(&self, size: u64) -> Vec<u8> {
        format!("{}\n{size}\n{}\n", *CHAIN, hex::encode(self.log.root_at(size).unwrap())).into_bytes()
    }
}

fn size_of_note(note: &[u8]) -> u64 {
    std::str::from_utf8(note).unwrap().lines().nth(1).unwrap().parse().unwrap()
}

/// What a node has open.
#[derive(Debug)]
pub struct Node {
    pub keys: Arc<KeyStore>,
    pub log: SegmentLog,
    pub slots: CheckpointFile,
}

#[derive(Debug)]
pub struct World {
    disk: MemoryFiles,
    node: Option<Node>,
    segment_bytes: u64,
    pub model: Model,
}

impl World {
    pub fn new(disk: MemoryFiles, dice: &mut Dice) -> Self {
        let segment_bytes = [1_200, 2_500, 6_000, 40_000][dice.below(4) as usize];
        World { disk, node: None, segment_bytes, model: Model::new() }
    }

    /// One whose segments hold few blocks.
    pub fn small(disk: MemoryFiles) -> Self {
        World { disk, node: None, segment_bytes: 1_500, model: Model::new() }
    }

    pub fn disk(&self) -> &MemoryFiles {
        &self.disk
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    pub fn is_open(&self) -> bool {
        self.node.is_some()
    }

    /// The files as someone copied them now, with what the copy must hold.
    pub fn copied(&self) -> World {
        let (disk, model) = (self.disk.restarted(Loss::Nothing), self.model.clone());
        World { disk, node: None, segment_bytes: self.segment_bytes, model }
    }

    pub fn restart(&mut self, loss: Loss) {
        self.node = None;
        self.disk = self.disk.restarted(loss);
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(self.disk.clone())
    }

    /// Opens everything in the order a node does, making what is missing as long as nothing was acknowledged.
    pub fn open(&mut self) -> Result<(), Failure> {
        let outcome = self.open_all();
        if let Err(error) = &outcome {
            assert!(error.is_of_files(), "a fault that was met is told as {error:?}");
        }
        self.node = Some(outcome?);
        Ok(())
    }

    fn open_all(&self) -> Result<Node, Failure> {
        let files = self.files();
        files.create_folder(Path::new("node")).map_err(KeyStoreError::from)?;
        let keys = match KeyStore::open(Arc::clone(&files), Path::new(KEYS), &ROOT_KEY, false) {
            Err(KeyStoreError::Missing) if self.model.blocks.is_empty() && self.model.keys == Held::default() => {
                KeyStore::create(Arc::clone(&files), Path::new(KEYS), &ROOT_KEY)?
            }
            opened => opened?,
        };
        let keys = Arc::new(keys);
        let slots = CheckpointFile::open(&*files, Path::new(CHECKPOINT), false)?;
        let checkpoint_size = slots.read()?.map_or(0, |note| size_of_note(&note));
        let how = OpenLog { checkpoint_size, read_only: false };
        let log = match SegmentLog::create(Arc::clone(&files), Path::new(LOG), &CHAIN, Arc::clone(&keys)) {
            Err(LogError::Exists) => SegmentLog::open(files, Path::new(LOG), &CHAIN, Arc::clone(&keys), how)?,
            created => created?,
        };
        Ok(Node { keys, log: log.with_segment_bytes(self.segment_bytes), slots })
    }

    /// After a failed act nothing more is acknowledged, and what was is still there to read.
    pub fn after_failure(&mut self, dice: &mut Dice) {
        if self.model.tried.is_some() {
            let next = next_block(self, dice);
            let again = self.node().log.append(&next.block, &next.packs);
            assert!(matches!(again, Err(LogError::Poisoned)), "after a failed append: {again:?}");
        }
        let held = self.held();
        assert!(held == self.model.keys, "what was not acknowledged is not given");
    }

    fn held(&self) -> Held {
        let keys = &self.node().keys;
        let value = |id: Vec<u8>| (id.clone(), keys.get(KIND, &id).unwrap().to_vec());
        Held { held: keys.ids(KIND).into_iter().map(value).collect(), erased_height: keys.applied_erasure_height() }
    }

    /// Holds what was found at open against the model: what was acknowledged, or what was tried after it. From here
    /// on, what was found counts as acknowledged.
    pub fn settle(&mut self) {
        let (held, height) = (self.held(), self.node().log.height());
        let model = &mut self.model;
        assert!(held == model.keys || model.tried_keys.contains(&held), "keys are lost, or half forgotten");
        model.keys = held;
        model.tried_keys.clear();
        let there = height.map_or(0, |height| height as usize + 1);
        match model.tried.take() {
            Some(tried) if there == model.blocks.len() + 1 => model.acknowledge(tried),
            _ => assert_eq!(there, model.blocks.len(), "blocks there, and blocks acknowledged"),
        }
        let node = self.node.as_ref().unwrap();
        for made in &mut self.model.blocks {
            let found = goings(&node.log.read(made.block.head.height).unwrap());
            assert!(found.is_superset(&made.gone), "what was taken out is back");
            assert!(found.is_subset(&made.tried), "more is gone than was taken out");
            (made.gone, made.tried) = (found.clone(), found);
        }
        let note = self.node().slots.read().unwrap();
        let model = &mut self.model;
        let size = note.as_deref().map_or(0, size_of_note);
        assert!(model.noted.contains(&size), "a checkpoint of {size}, of {:?}", model.noted);
        assert!(note.is_none_or(|note| note == model.note(size)), "a checkpoint of another root");
        model.noted = vec![size];
    }

    /// What opening showed is durable: with everything unsynced lost, the same is found again.
    pub fn check_durable(&self) {
        let mut other = self.copied();
        other.restart(Loss::Unsynced);
        other.open().unwrap();
        other.settle();
    }

    /// Everything that was acknowledged is there, and every root recomputes from the bytes.
    pub fn check(&self, dice: &mut Dice) {
        let log = &self.node().log;
        let (mut merkle, mut trie) = (Log::new(), Trie::new());
        for made in &self.model.blocks {
            let frame = log.read(made.block.head.height).unwrap();
            frame.check().unwrap();
            check_frame(&frame, made);
            let head = BlockLeaf::decode(frame.block_leaf().unwrap()).unwrap();
            assert_eq!((head.first_index, head.previous_root), (merkle.tree_size(), merkle.root()));
            merkle.append(&frame.leaves().unwrap());
            trie = trie.update(&frame.write_set().unwrap()).unwrap();
            assert_eq!((head.state_root, made.block.log_root), (trie.root(), merkle.root()));
        }
        assert_eq!((merkle.root(), log.tree_size()), (self.model.log.root(), self.model.log.tree_size()));
        let blocks = self.model.blocks.len() as u64;
        let mut hashes = Log::new();
        hashes.append_hashes(&log.leaf_hashes(0, blocks).unwrap());
        assert_eq!(hashes.root(), merkle.root());
        self.check_scan();
        self.check_slots();
        pairs::some_pair(self, dice);
    }

    /// A second reader finds no fault: keys named by the log are there, nothing stands behind the last frame.
    fn check_scan(&self) {
        let keys = KeyStore::open(self.files(), Path::new(KEYS), &ROOT_KEY, true).unwrap();
        let scan = Scan::new(self.files(), Path::new(LOG), &CHAIN, Arc::new(keys)).unwrap();
        let mut frames = 0;
        for scanned in scan {
            match scanned.outcome {
                Outcome::Frame(_) => frames += 1,
                Outcome::Fault { kind, height } => panic!("{} of block {height:?}", kind.name()),
            }
        }
        assert_eq!(frames, self.model.blocks.len());
    }

    /// Only the slot of the generation in force is left, on the medium too: nothing opens what was forgotten.
    fn check_slots(&self) {
        let free = 1 - (self.node().keys.generation() % 2) as usize;
        for disk in [&self.disk, &self.disk.restarted(Loss::Unsynced)] {
            let slots = disk.bytes(&Path::new(KEYS).join(SLOTS_FILE)).unwrap();
            assert!(slots[free * 4096..][..4096].iter().all(|byte| *byte == 0), "an old key slot is left");
        }
    }
}

/// What stands in a frame as its digest.
fn goings(frame: &Frame) -> Goings {
    let erased = |item: &Item<'_>| matches!(item, Item::Erased(_));
    let transactions = frame.transactions().unwrap().into_iter().enumerate();
    let mut found: Goings =
        transactions.filter(|(_, item)| erased(item)).map(|(number, _)| Going::Transaction(number)).collect();
    for pack in 0..frame.pack_roots().unwrap().len() {
        for (position, (item, wraps)) in frame.pack_items(pack).unwrap().iter().enumerate() {
            assert_eq!(erased(item), erased(wraps));
            found.extend(erased(item).then_some(Going::Record(pack, position)));
        }
    }
    found
}

fn check_frame(frame: &Frame, made: &Made) {
    let block = &made.block;
    assert_eq!(goings(frame), made.gone);
    assert_eq!(frame.leaves().unwrap(), block.leaves);
    for (item, received) in frame.transactions().unwrap().into_iter().zip(&block.transactions) {
        let digest = digest::sha256(received);
        assert!(item == Item::Kept(received) || item == Item::Erased(digest));
    }
    assert_eq!(frame.receipts().unwrap(), block.receipts);
    assert_eq!(frame.write_set().unwrap(), block.write_set);
    assert_eq!(frame.transaction_ids().unwrap(), block.transaction_ids);
    assert_eq!(frame.pack_roots().unwrap().len(), made.packs.len());
    for (number, pack) in made.packs.iter().enumerate() {
        let found = frame.pack_items(number).unwrap();
        assert_eq!(found.len(), pack.items.len());
        for ((item, wraps), (bytes, beside)) in found.into_iter().zip(pack.items.iter().zip(&pack.wraps)) {
            assert!(item.kept().is_none_or(|kept| kept == bytes) && item.digest() == part_digest(bytes));
            assert!(wraps.kept().is_none_or(|kept| kept == beside) && wraps.digest() == part_digest(beside));
        }
    }
}
