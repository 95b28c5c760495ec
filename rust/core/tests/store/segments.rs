//! The block log: what it gives back, and what crashes, failures and flipped bits do to it.

use std::path::Path;
use std::sync::Arc;

use ehrfast_core::block::Block;
use ehrfast_core::digest;
use ehrfast_core::store::files::{Fault, Files, Loss, MemoryFiles, RealFiles};
use ehrfast_core::store::key_store::KeyStore;
use ehrfast_core::store::segments::{FaultKind, Item, LogError, OpenLog, Outcome, Scan, Scanned, Section, SegmentLog};

use super::blocks::{CHAIN, ROOT_KEY, block, chain, keys, open, open_with, pack};

fn create(files: &Arc<dyn Files>) -> SegmentLog {
    let keys = keys(files, Path::new("keys"));
    SegmentLog::create(Arc::clone(files), Path::new("log"), CHAIN, keys).unwrap()
}

/// A log of these blocks, the packs only in block 1.
fn written(files: &Arc<dyn Files>, blocks: &[Block], segment_bytes: u64) {
    let log = create(files).with_segment_bytes(segment_bytes);
    for block in blocks {
        let packs = if block.head.height == 1 { vec![pack(5, 3), pack(6, 0)] } else { Vec::new() };
        log.append(block, &packs).unwrap();
    }
}

fn check_block(log: &SegmentLog, block: &Block) {
    let frame = log.read(block.head.height).unwrap();
    frame.check().unwrap();
    assert_eq!(frame.leaves().unwrap(), block.leaves);
    let received: Vec<_> = block.transactions.iter().map(|received| Item::Kept(received)).collect();
    assert_eq!(frame.transactions().unwrap(), received);
    assert_eq!(frame.receipts().unwrap(), block.receipts);
    assert_eq!(frame.write_set().unwrap(), block.write_set);
    assert_eq!(frame.leaf_hash().unwrap(), block.leaf_hash);
    assert_eq!(frame.transaction_ids().unwrap(), block.transaction_ids);
    assert_eq!(frame.first_index().unwrap(), block.head.first_index);
    assert_eq!(frame.header().tree_size, block.tree_size);
}

fn scan(files: &Arc<dyn Files>) -> Vec<Scanned> {
    let keys = KeyStore::open(Arc::clone(files), Path::new("keys"), &ROOT_KEY, true).unwrap();
    Scan::new(Arc::clone(files), Path::new("log"), CHAIN, Arc::new(keys)).unwrap().collect()
}

fn faults(found: &[Scanned]) -> Vec<(FaultKind, Option<u64>)> {
    let fault = |scanned: &Scanned| match scanned.outcome {
        Outcome::Fault { kind, height } => Some((kind, height)),
        Outcome::Frame(_) => None,
    };
    found.iter().filter_map(fault).collect()
}

fn whole(found: &[Scanned]) -> Vec<u64> {
    let height = |scanned: &Scanned| match &scanned.outcome {
        Outcome::Frame(frame) => Some(frame.height()),
        Outcome::Fault { .. } => None,
    };
    found.iter().filter_map(height).collect()
}

#[test]
fn gives_back_what_was_appended() {
    let folder = tempfile::tempdir().unwrap();
    let real: (Arc<dyn Files>, _) = (Arc::new(RealFiles), folder.path().to_path_buf());
    let memory: (Arc<dyn Files>, _) = (Arc::new(MemoryFiles::new()), "x".into());
    for (files, folder) in [real, memory] {
        let keys = keys(&files, &folder.join("keys"));
        let log = SegmentLog::create(Arc::clone(&files), &folder.join("log"), CHAIN, Arc::clone(&keys)).unwrap();
        assert_eq!((log.height(), log.tree_size()), (None, 0));
        let blocks = chain(&[0, 3, 1, 200, 1]);
        for (number, block) in blocks.iter().enumerate() {
            log.append(block, &[pack(number as u8, number), pack(9, 1)]).unwrap();
            check_block(&log, block);
        }
        drop(log);
        let reopened =
            SegmentLog::open(Arc::clone(&files), &folder.join("log"), CHAIN, keys, OpenLog::default()).unwrap();
        assert_eq!((reopened.height(), reopened.tree_size()), (Some(4), blocks[4].tree_size));
        for (number, block) in blocks.iter().enumerate() {
            check_block(&reopened, block);
            let frame = reopened.read(number as u64).unwrap();
            assert_eq!(frame.pack(0).unwrap(), *pack(number as u8, number));
            assert_eq!(frame.pack(1).unwrap(), *pack(9, 1));
            let (item, wraps) = frame.pack_item(1, 0).unwrap();
            assert_eq!((item, wraps), (Item::Kept(&pack(9, 1).items[0]), Item::Kept(&pack(9, 1).wraps[0])));
            assert!(matches!(frame.pack_item(1, 1), Err(LogError::NoSuchItem { .. })));
            assert!(matches!(frame.pack_item(2, 0), Err(LogError::NoSuchItem { .. })));
        }
        for index in 0..reopened.tree_size() {
            let height = reopened.height_of(index).unwrap();
            let head = &blocks[height as usize].head;
            assert!((head.first_index..=head.first_index + head.leaf_count).contains(&index));
        }
        assert_eq!(reopened.height_of(reopened.tree_size()), None);
        let hashes: Vec<_> = blocks.iter().flat_map(|block| digest::sha256_leaves(&block.leaves)).collect();
        assert_eq!(reopened.leaf_hashes(0, 5).unwrap(), hashes);
        assert!(matches!(reopened.read(5), Err(LogError::NoSuchHeight { height: 5 })));
    }
}

#[test]
fn refuses_what_does_not_follow() {
    let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
    let log = create(&files);
    let blocks = chain(&[1, 1, 1]);
    log.append(&blocks[0], &[]).unwrap();
    assert!(matches!(log.append(&blocks[0], &[]), Err(LogError::NotNext { expected: 1, given: 0 })));
    assert!(matches!(log.append(&blocks[2], &[]), Err(LogError::NotNext { expected: 1, given: 2 })));
    let other = block(1, 5, 1);
    assert!(matches!(log.append(&other, &[]), Err(LogError::LeavesDoNotFollow { expected: 2 })));
    let mut foreign = blocks[1].clone();
    foreign.head.chain_id = "other-0".into();
    assert!(matches!(log.append(&foreign, &[]), Err(LogError::WrongChain)));
    log.append(&blocks[1], &[]).unwrap();
    drop(log);
    let keys = keys(&files, Path::new("keys"));
    let again = SegmentLog::create(Arc::clone(&files), Path::new("log"), CHAIN, Arc::clone(&keys));
    assert!(matches!(again, Err(LogError::Exists)));
    let elsewhere = SegmentLog::open(Arc::clone(&files), Path::new("log"), "other-0", keys, OpenLog::default());
    assert!(matches!(elsewhere, Err(LogError::Damaged { section: None, .. })));
}
