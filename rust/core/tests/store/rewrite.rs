//! Rewriting segments: what goes is nowhere, the rest is as it was, whatever a crash cuts off.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use ehrfast_core::block::Block;
use ehrfast_core::digest;
use ehrfast_core::envelope::{
    ClassId, ClassKey, Draft, Opening, Place, Recipient, SealedPack, open_record, part_digest, seal_records,
};
use ehrfast_core::merkle::trie::Trie;
use ehrfast_core::store::files::{Fault, Files, Loss, MemoryFiles};
use ehrfast_core::store::key_store::KeyStore;
use ehrfast_core::store::segments::{
    Edit, Edits, Item, LogError, OpenLog, Outcome, SEGMENT_KEY, Scan, Section, SegmentLog,
};
use ehrfast_core::store::state_db::{MemoryState, StateStore, follow};

use super::blocks::{CHAIN, ROOT_KEY, chain, keys, open, open_with, pack};

const COUNTS: [usize; 7] = [0, 2, 1, 6, 0, 3, 2];
/// Small enough that the blocks above take several segments.
const SMALL_SEGMENT: u64 = 2_500;
/// The block whose things go, and what of it: item 1 of pack 0 with its wraps, item 0 of pack 1, a transaction, a value.
const HEIGHT: u64 = 3;

fn packs(height: u64) -> Vec<Arc<SealedPack>> {
    vec![pack(16 * height as u8, 3), pack(128 + 16 * height as u8, 1)]
}

/// A log of the blocks, durable, with its key store.
fn written(blocks: &[Block]) -> MemoryFiles {
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let keys = keys(&files, Path::new("keys"));
    let log = SegmentLog::create(Arc::clone(&files), Path::new("log"), CHAIN, keys).unwrap();
    let log = log.with_segment_bytes(SMALL_SEGMENT);
    blocks.iter().for_each(|block| log.append(block, &packs(block.head.height)).unwrap());
    disk.restarted(Loss::Unsynced)
}

fn erased_path(blocks: &[Block]) -> [u8; 32] {
    let (path, _) = blocks[HEIGHT as usize].write_set.writes.iter().find(|(_, stored)| stored.is_some()).unwrap();
    *path
}

fn edits(blocks: &[Block], height: u64) -> Edits {
    let of_block = vec![
        Edit::Record { pack: 0, position: 1 },
        Edit::Item { pack: 1, position: 0 },
        Edit::Transaction(4),
        Edit::Write(erased_path(blocks)),
    ];
    Edits::from([(height, of_block)])
}

/// Whether block 3 is as after the edits; anything between is refused.
fn is_edited(log: &SegmentLog, blocks: &[Block]) -> bool {
    let frame = log.read(HEIGHT).unwrap();
    frame.check().unwrap();
    let block = &blocks[HEIGHT as usize];
    let (first, second) = (&packs(HEIGHT)[0], &packs(HEIGHT)[1]);
    let gone = (Item::Erased(part_digest(&first.items[1])), Item::Erased(part_digest(&first.wraps[1])));
    let edited = frame.pack_item(0, 1).unwrap() == gone;
    let item = if edited { Item::Erased(part_digest(&second.items[0])) } else { Item::Kept(&second.items[0]) };
    assert_eq!(frame.pack_item(1, 0).unwrap(), (item, Item::Kept(&second.wraps[0])));
    for position in [0, 2] {
        let kept = (Item::Kept(&first.items[position][..]), Item::Kept(&first.wraps[position][..]));
        assert_eq!(frame.pack_item(0, position).unwrap(), kept);
    }
    for (number, (item, received)) in frame.transactions().unwrap().into_iter().zip(&block.transactions).enumerate() {
        let gone = Item::Erased(digest::sha256(received));
        assert_eq!(item, if edited && number == 4 { gone } else { Item::Kept(received) });
    }
    let mut writes = block.write_set.clone();
    if edited {
        writes.erase(&erased_path(blocks));
        assert_eq!(writes.erased.len(), 1);
    }
    assert_eq!(frame.write_set().unwrap(), writes);
    assert_eq!(frame.leaves().unwrap(), block.leaves);
    assert_eq!(frame.leaf_hash().unwrap(), block.leaf_hash);
    edited
}

fn check_others(log: &SegmentLog, blocks: &[Block]) {
    for block in blocks.iter().filter(|block| block.head.height != HEIGHT) {
        let frame = log.read(block.head.height).unwrap();
        frame.check().unwrap();
        assert_eq!(frame.write_set().unwrap(), block.write_set);
        assert_eq!(frame.leaves().unwrap(), block.leaves);
        for (number, pack) in packs(block.head.height).iter().enumerate() {
            assert_eq!(frame.pack(number).unwrap(), **pack);
        }
    }
}

fn key_store(files: &Arc<dyn Files>) -> Arc<KeyStore> {
    Arc::new(KeyStore::open(Arc::clone(files), Path::new("keys"), &ROOT_KEY, false).unwrap())
}

fn scan_faults(files: &Arc<dyn Files>) -> usize {
    let scan = Scan::new(Arc::clone(files), Path::new("log"), CHAIN, key_store(files)).unwrap();
    scan.filter(|found| matches!(found.outcome, Outcome::Fault { .. })).count()
}

/// Everything that opens under any key still kept, in any byte the medium still shows, unlinked files included.
fn all_that_opens(disk: &MemoryFiles) -> Vec<Vec<u8>> {
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let keys = key_store(&files);
    let mut found = Vec::new();
    for bytes in disk.all_bytes() {
        let starts = (0..bytes.len()).filter(|start| bytes[*start..].starts_with(b"ehrb"));
        for start in starts {
            // Each frame alone in a file of its own opens by the segment key its header names, if that is kept.
            let alone = MemoryFiles::new();
            alone.plant(Path::new("log/000000000000.segment"), &bytes[start..]);
            let scan = Scan::new(Arc::new(alone), Path::new("log"), CHAIN, Arc::clone(&keys)).unwrap();
            for scanned in scan {
                let Outcome::Frame(frame) = scanned.outcome else { continue };
                for section in Section::ALL {
                    found.extend(frame.section(section).unwrap().items().filter_map(Item::kept).map(<[u8]>::to_vec));
                }
                found.push(frame.write_set().unwrap().encode());
            }
        }
    }
    found
}

fn shows(found: &[Vec<u8>], secret: &[u8]) -> bool {
    found.iter().any(|bytes| bytes.windows(secret.len()).any(|window| window == secret))
}

fn secrets(blocks: &[Block]) -> Vec<Vec<u8>> {
    let (first, second) = (&packs(HEIGHT)[0], &packs(HEIGHT)[1]);
    let stored = blocks[HEIGHT as usize].write_set.writes.iter().find_map(|(path, stored)| {
        let stored = stored.clone()?;
        let head: &[u8] = if stored.len() < 24 { &[0x40 + stored.len() as u8] } else { &[0x58, stored.len() as u8] };
        (*path == erased_path(blocks)).then(|| [&path[..], head, &stored[..]].concat())
    });
    let transaction = blocks[HEIGHT as usize].transactions[4].to_vec();
    vec![first.items[1].clone(), first.wraps[1].clone(), second.items[0].clone(), transaction, stored.unwrap()]
}

#[test]
fn what_goes_is_nowhere_and_the_rest_is_as_it_was() {
    let blocks = chain(&COUNTS);
    let disk = written(&blocks);
    let before = all_that_opens(&disk);
    secrets(&blocks).iter().for_each(|secret| assert!(shows(&before, secret)));
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let keys = key_store(&files);
    let log = open_with(&files, Arc::clone(&keys), OpenLog::default()).unwrap().with_segment_bytes(SMALL_SEGMENT);
    let segment_keys = keys.ids(SEGMENT_KEY);
    assert!(segment_keys.len() > 2);
    let reader = log.read(HEIGHT).unwrap();
    let done = log.rewrite(&edits(&blocks, HEIGHT), &[], Some(7)).unwrap();
    assert_eq!(done.segments, 1);
    assert_ne!(done.freed, 0);
    assert_eq!(keys.applied_erasure_height(), 7);
    // A reader that was there before still reads what it had.
    assert_eq!(reader.pack(0).unwrap(), *packs(HEIGHT)[0]);
    assert!(is_edited(&log, &blocks));
    check_others(&log, &blocks);
    let now = keys.ids(SEGMENT_KEY);
    assert_eq!(now.len(), segment_keys.len());
    assert_eq!(now.iter().filter(|id| !segment_keys.contains(id)).count(), 1);
    assert!(keys.ids("rewriting").is_empty());
    let after = all_that_opens(&disk);
    secrets(&blocks).iter().for_each(|secret| assert!(!shows(&after, secret)));
    assert!(shows(&after, &packs(HEIGHT)[0].items[0]));
    assert_eq!(scan_faults(&files), 0);
    // Asked again it changes nothing, and what comes back must be what went.
    log.rewrite(&edits(&blocks, HEIGHT), &[], None).unwrap();
    assert!(is_edited(&log, &blocks));
    let restore =
        |item: &[u8]| Edits::from([(HEIGHT, vec![Edit::Restore { pack: 1, position: 0, item: item.to_vec() }])]);
    assert!(matches!(log.rewrite(&restore(b"other"), &[], None), Err(LogError::OtherItem { height: HEIGHT })));
    log.rewrite(&restore(&packs(HEIGHT)[1].items[0]), &[], None).unwrap();
    assert_eq!(log.read(HEIGHT).unwrap().pack(1).unwrap(), *packs(HEIGHT)[1]);
    assert!(matches!(log.rewrite(&edits(&blocks, 99), &[], None), Err(LogError::NoSuchHeight { height: 99 })));
    let nowhere = Edits::from([(HEIGHT, vec![Edit::Item { pack: 0, position: 3 }])]);
    assert!(matches!(log.rewrite(&nowhere, &[], None), Err(LogError::NoSuchItem { height: HEIGHT })));
    drop(log);
    let files: Arc<dyn Files> = Arc::new(disk.restarted(Loss::Unsynced));
    check_others(&open(&files, blocks.last().unwrap().tree_size).unwrap(), &blocks);
    assert_eq!(key_store(&files).ids(SEGMENT_KEY).len(), segment_keys.len());
}

#[test]
fn the_open_log_goes_on_appending() {
    let blocks = chain(&COUNTS);
    // Rewritten once in the last segment, at each length of the log, and again at the end.
    for there in HEIGHT as usize + 1..blocks.len() {
        let disk = written(&blocks[..there]);
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let log = open(&files, 0).unwrap();
        log.rewrite(&edits(&blocks, HEIGHT), &[], None).unwrap();
        let last = Edits::from([(there as u64 - 1, Vec::new())]);
        log.rewrite(&last, &[], None).unwrap();
        blocks[there..].iter().for_each(|block| log.append(block, &packs(block.head.height)).unwrap());
        log.rewrite(&last, &[], None).unwrap();
        assert!(is_edited(&log, &blocks));
        drop(log);
        let files: Arc<dyn Files> = Arc::new(disk.restarted(Loss::Unsynced));
        let log = open(&files, blocks.last().unwrap().tree_size).unwrap();
        assert!(is_edited(&log, &blocks));
        check_others(&log, &blocks);
        assert_eq!(scan_faults(&files), 0);
    }
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_segment_or_the_new_one() {
    let blocks = chain(&COUNTS);
    let start = written(&blocks);
    let mut edits = edits(&blocks, HEIGHT);
    edits.insert(6, Vec::new());
    let whole = start.restarted(Loss::Nothing);
    let log = open(&(Arc::new(whole.clone()) as Arc<dyn Files>), 0).unwrap();
    let before = whole.operations();
    log.rewrite(&edits, &[], Some(9)).unwrap();
    let operations = before..whole.operations();
    let mut outcomes = [0, 0];
    for operation in operations {
        for fault in [Fault::Crash, Fault::CrashInside, Fault::Errno(5), Fault::Errno(28)] {
            let disk = start.restarted(Loss::Nothing);
            let log = open(&(Arc::new(disk.clone()) as Arc<dyn Files>), 0).unwrap();
            disk.fail_at(operation, fault);
            let done = log.rewrite(&edits, &[], Some(9));
            if done.is_err() && matches!(fault, Fault::Errno(_)) {
                // The process goes on: what it reads is the one or the other.
                is_edited(&log, &blocks);
                check_others(&log, &blocks);
            }
            drop(log);
            for loss in [Loss::Nothing, Loss::Unsynced].into_iter().chain((0..4).map(Loss::Seeded)) {
                let disk = disk.restarted(loss);
                let files: Arc<dyn Files> = Arc::new(disk.clone());
                let keys = key_store(&files);
                let log = open_with(&files, Arc::clone(&keys), OpenLog::default()).unwrap();
                let edited = is_edited(&log, &blocks);
                assert!(edited || done.is_err(), "{operation} {fault:?} {loss:?}: acknowledged and not there");
                check_others(&log, &blocks);
                outcomes[usize::from(edited)] += 1;
                // No key beside those that segments name, and no file beside the segments.
                let names = files.list(Path::new("log")).unwrap();
                assert_eq!(keys.ids(SEGMENT_KEY).len(), names.len(), "{operation} {fault:?} {loss:?}: {names:?}");
                assert!(keys.ids("rewriting").is_empty());
                assert_eq!(shows(&all_that_opens(&disk), &secrets(&blocks)[0]), !edited);
                // Run again it is finished, and the log goes on.
                log.rewrite(&edits, &[], Some(9)).unwrap();
                assert!(is_edited(&log, &blocks));
                assert_eq!(keys.applied_erasure_height(), 9);
                drop((log, keys));
                let files: Arc<dyn Files> = Arc::new(disk.restarted(Loss::Unsynced));
                assert!(is_edited(&open(&files, blocks.last().unwrap().tree_size).unwrap(), &blocks));
            }
        }
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

#[test]
fn a_crash_while_opening_after_a_crash_is_made_good_too() {
    let blocks = chain(&COUNTS);
    let start = written(&blocks);
    let log = open(&(Arc::new(start.clone()) as Arc<dyn Files>), 0).unwrap();
    let before = start.operations();
    log.rewrite(&edits(&blocks, HEIGHT), &[], None).unwrap();
    let start = written(&blocks);
    for operation in before..start.operations() + 40 {
        let disk = start.restarted(Loss::Nothing);
        let log = open(&(Arc::new(disk.clone()) as Arc<dyn Files>), 0).unwrap();
        disk.fail_at(operation, Fault::Crash);
        if log.rewrite(&edits(&blocks, HEIGHT), &[], None).is_ok() {
            break;
        }
        for second in 0..14 {
            let disk = disk.restarted(Loss::Seeded(operation));
            disk.fail_at(second, Fault::CrashInside);
            let files: Arc<dyn Files> = Arc::new(disk.clone());
            let opened = KeyStore::open(Arc::clone(&files), Path::new("keys"), &ROOT_KEY, false);
            drop(opened.map(|keys| open_with(&files, Arc::new(keys), OpenLog::default())));
            let disk = disk.restarted(Loss::Unsynced);
            let files: Arc<dyn Files> = Arc::new(disk.clone());
            let log = open(&files, blocks.last().unwrap().tree_size).unwrap();
            is_edited(&log, &blocks);
            check_others(&log, &blocks);
            assert_eq!(key_store(&files).ids(SEGMENT_KEY).len(), files.list(Path::new("log")).unwrap().len());
        }
    }
}

#[test]
fn erased_values_still_make_the_state_and_its_root() {
    let blocks = chain(&COUNTS);
    let disk = written(&blocks);
    let log = open(&(Arc::new(disk) as Arc<dyn Files>), 0).unwrap();
    let roots = |log: &SegmentLog| {
        let mut trie = Trie::new();
        let root_after = |height: usize| {
            trie = trie.update(&log.read(height as u64).unwrap().write_set().unwrap()).unwrap();
            trie.root()
        };
        (0..blocks.len()).map(root_after).collect::<Vec<_>>()
    };
    let state_of = |log: &SegmentLog| {
        let state = MemoryState::new();
        follow(&*state, log, &mut |_, _| true).unwrap();
        let entries: Vec<_> = state.entries().map(Result::unwrap).collect();
        entries
    };
    let (before, state) = (roots(&log), state_of(&log));
    // The path that block 4 deletes again is the one that nobody needs the value of.
    let path = digest::blake3(&HEIGHT.to_be_bytes());
    log.rewrite(&Edits::from([(HEIGHT, vec![Edit::Write(path)])]), &[], None).unwrap();
    assert_eq!(log.read(HEIGHT).unwrap().write_set().unwrap().erased.len(), 1);
    assert_eq!(roots(&log), before);
    assert_eq!(state_of(&log), state);
}

fn class_key(subject: u8) -> Arc<ClassKey> {
    let id = ClassId { subject: [subject; 16], custodian: [9; 16], class: "audit".to_owned(), epoch: [subject; 16] };
    Arc::new(ClassKey::derive(&[subject; 32], id).unwrap())
}

#[test]
fn a_subjects_wraps_go_and_the_others_stay() {
    let (own, other) = (class_key(1), class_key(2));
    let draft = |record: u8, keys: &[&Arc<ClassKey>]| Draft {
        record_id: [record; 16],
        version: 1,
        class: "audit".to_owned(),
        recipients: keys.iter().map(|key| Recipient::Class(Arc::clone(key))).collect(),
    };
    let drafts = [draft(1, &[&own, &other]), draft(2, &[&own])];
    let sealed = Arc::new(seal_records(CHAIN, b"both alone", &[[0, 4], [5, 10]], &drafts).unwrap());
    let blocks = chain(&[0, 1]);
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let log = SegmentLog::create(Arc::clone(&files), Path::new("log"), CHAIN, keys(&files, Path::new("keys"))).unwrap();
    log.append(&blocks[0], &[]).unwrap();
    log.append(&blocks[1], &[Arc::clone(&sealed), pack(3, 2)]).unwrap();
    let wanted = HashSet::from([[1; 16], [7; 16]]);
    let traces = log.find_traces((0, 2), &wanted, &[9; 16], &HashSet::new()).unwrap();
    assert_eq!(traces.wraps, [(1, 0, 0, [1; 16]), (1, 0, 1, [1; 16])]);
    assert!(log.find_traces((0, 2), &wanted, &[8; 16], &HashSet::new()).unwrap().wraps.is_empty());
    let gone = |position| Edit::Subject { pack: 0, position, subject: [1; 16], custodian: [9; 16] };
    log.rewrite(&Edits::from([(1, vec![gone(0), gone(1)])]), &[], None).unwrap();
    let frame = log.read(1).unwrap();
    frame.check().unwrap();
    let (item, wraps) = frame.pack_item(0, 0).unwrap();
    assert!(matches!(wraps, Item::Reduced(digest, _) if digest == part_digest(&sealed.wraps[0])));
    let opened = |key| {
        let place = Place { origin: CHAIN, record_id: [1; 16], version: 1, class: "audit" };
        open_record(&Opening { item: item.kept()?, wraps: wraps.kept()?, key, place, commitment: None }).ok()
    };
    assert_eq!(&opened(&other).unwrap().content[..], b"both");
    assert!(opened(&own).is_none());
    let (item, wraps) = frame.pack_item(0, 1).unwrap();
    assert_eq!((item.kept(), wraps.kept()), (None, None));
    assert_eq!(frame.count_erased().unwrap(), (0, 0, 1, 2));
    assert!(log.find_traces((0, 2), &wanted, &[9; 16], &HashSet::new()).unwrap().wraps.is_empty());
}
