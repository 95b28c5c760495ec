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

const CRASH_COUNTS: [usize; 6] = [0, 2, 1, 8, 0, 3];
/// Small enough that the blocks above take several segments.
const SMALL_SEGMENT: u64 = 2_500;

fn losses(seeds: u64) -> Vec<Loss> {
    [Loss::Nothing, Loss::Unsynced].into_iter().chain((0..seeds).map(Loss::Seeded)).collect()
}

/// Appends the blocks from `from` on until one fails; gives how many blocks are acknowledged in all.
fn append_all(log: &SegmentLog, blocks: &[Block], from: usize) -> usize {
    let fails = |block: &Block| log.append(block, &[pack(1, 2)]).is_err();
    blocks[from..].iter().position(fails).map_or(blocks.len(), |failed| from + failed)
}

/// After a restart the log opens, holds at least what was acknowledged, and goes on.
fn survives(disk: &MemoryFiles, blocks: &[Block], acknowledged: usize) {
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let checkpoint = acknowledged.checked_sub(1).map_or(0, |last| blocks[last].tree_size);
    let log = open(&files, checkpoint).unwrap().with_segment_bytes(SMALL_SEGMENT);
    let there = log.height().map_or(0, |height| height as usize + 1);
    assert!(there == acknowledged || there == acknowledged + 1, "{there} blocks, {acknowledged} acknowledged");
    assert_eq!(append_all(&log, blocks, there), blocks.len());
    drop(log);
    // What opening showed was durable, and so is what came after it.
    let files: Arc<dyn Files> = Arc::new(disk.restarted(Loss::Unsynced));
    let log = open(&files, blocks.last().unwrap().tree_size).unwrap();
    blocks.iter().for_each(|block| check_block(&log, block));
    assert_eq!(faults(&scan(&files)), []);
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    let blocks = chain(&CRASH_COUNTS);
    let start = MemoryFiles::new();
    drop(create(&(Arc::new(start.clone()) as Arc<dyn Files>)));
    let start = start.restarted(Loss::Unsynced);
    let whole = start.restarted(Loss::Nothing);
    let log = open(&(Arc::new(whole.clone()) as Arc<dyn Files>), 0).unwrap().with_segment_bytes(SMALL_SEGMENT);
    assert_eq!(append_all(&log, &blocks, 0), blocks.len());
    let operations = whole.operations();
    assert!(segments_of(&whole).len() > 1, "the blocks take several segments");
    for operation in 0..operations {
        for fault in [Fault::Crash, Fault::CrashInside] {
            let disk = start.restarted(Loss::Nothing);
            let files: Arc<dyn Files> = Arc::new(disk.clone());
            disk.fail_at(operation, fault);
            let acknowledged = KeyStore::open(Arc::clone(&files), Path::new("keys"), &ROOT_KEY, false)
                .map_err(LogError::from)
                .and_then(|keys| open_with(&files, Arc::new(keys), OpenLog::default()))
                .map_or(0, |log| append_all(&log.with_segment_bytes(SMALL_SEGMENT), &blocks, 0));
            for loss in losses(4) {
                survives(&disk.restarted(loss), &blocks, acknowledged);
            }
        }
    }
}

#[test]
fn a_crash_while_opening_after_a_crash_loses_nothing_either() {
    let blocks = chain(&CRASH_COUNTS);
    let disk = MemoryFiles::new();
    let log = create(&(Arc::new(disk.clone()) as Arc<dyn Files>)).with_segment_bytes(SMALL_SEGMENT);
    log.append(&blocks[0], &[]).unwrap();
    // Stops before the sync of block 1: its frame may be torn.
    disk.fail_at(disk.operations() + 1, Fault::Crash);
    assert_eq!(append_all(&log, &blocks, 1), 1);
    for loss in losses(12) {
        let torn = disk.restarted(loss);
        for operation in 0..8 {
            let opening = torn.restarted(Loss::Nothing);
            opening.fail_at(operation, Fault::CrashInside);
            let files: Arc<dyn Files> = Arc::new(opening.clone());
            if let Ok(keys) = KeyStore::open(Arc::clone(&files), Path::new("keys"), &ROOT_KEY, false) {
                drop(open_with(&files, Arc::new(keys), OpenLog::default()));
            }
            for loss in losses(3) {
                survives(&opening.restarted(loss), &blocks, 1);
            }
        }
    }
}

#[test]
fn a_failed_operation_stops_the_log_for_good() {
    let blocks = chain(&CRASH_COUNTS);
    for errno in [5, 28] {
        for operation in 0.. {
            let disk = MemoryFiles::new();
            let files: Arc<dyn Files> = Arc::new(disk.clone());
            let log = create(&files).with_segment_bytes(SMALL_SEGMENT);
            disk.fail_at(disk.operations() + operation, Fault::Errno(errno));
            let acknowledged = append_all(&log, &blocks, 0);
            if acknowledged == blocks.len() {
                assert!(operation > 20);
                break;
            }
            assert!(matches!(log.append(&blocks[acknowledged], &[]), Err(LogError::Poisoned)));
            blocks[..acknowledged].iter().for_each(|block| check_block(&log, block));
            drop((log, files));
            for loss in losses(2) {
                survives(&disk.restarted(loss), &blocks, acknowledged);
            }
        }
    }
}

#[test]
fn what_a_failed_sync_gave_up_is_written_again_at_open() {
    let blocks = chain(&[0, 2, 1]);
    let disk = MemoryFiles::new();
    let log = create(&(Arc::new(disk.clone()) as Arc<dyn Files>));
    log.append(&blocks[0], &[]).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Errno(5));
    assert!(log.append(&blocks[1], &[]).is_err());
    // The process starts again, and the cache still has what the disk never got.
    let disk = disk.restarted(Loss::Nothing);
    let log = open(&(Arc::new(disk.clone()) as Arc<dyn Files>), 0).unwrap();
    assert_eq!(log.height(), Some(1));
    log.append(&blocks[2], &[]).unwrap();
    let log = open(&(Arc::new(disk.restarted(Loss::Unsynced)) as Arc<dyn Files>), 0).unwrap();
    assert_eq!(log.height(), Some(2));
    blocks.iter().for_each(|block| check_block(&log, block));
}

#[test]
fn an_append_costs_one_sync() {
    let disk = MemoryFiles::new();
    let log = create(&(Arc::new(disk.clone()) as Arc<dyn Files>));
    let blocks = chain(&[1; 10]);
    log.append(&blocks[0], &[]).unwrap();
    for block in &blocks[1..] {
        let (syncs, operations) = (disk.syncs(), disk.operations());
        log.append(block, &[pack(1, 3)]).unwrap();
        assert_eq!((disk.syncs() - syncs, disk.operations() - operations), (1, 2));
    }
}

/// The names of the segment files with their bytes.
fn segments_of(disk: &MemoryFiles) -> Vec<(String, Vec<u8>)> {
    let names = disk.list(Path::new("log")).unwrap();
    names.into_iter().map(|name| (name.clone(), disk.bytes(&Path::new("log").join(&name)).unwrap())).collect()
}

#[test]
fn every_flipped_bit_is_found() {
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let blocks = chain(&[0, 2, 1, 1]);
    written(&files, &blocks, 1_200);
    let segments = segments_of(&disk);
    let sound = scan(&files);
    assert!(segments.len() > 1 && faults(&sound).is_empty());
    let checkpoint = blocks[3].tree_size;
    for (name, bytes) in &segments {
        let ends = sound.iter().filter(|scanned| scanned.segment == *name).map(|scanned| match &scanned.outcome {
            Outcome::Frame(frame) => frame.offset() + frame.bytes_on_disk(),
            Outcome::Fault { .. } => 0,
        });
        let end = ends.max().unwrap() as usize;
        let path = Path::new("log").join(name);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            disk.plant(&path, &flipped);
            let found = scan(&files);
            // No byte of a segment is free: zeros behind the last frame are part of the format too.
            assert!(!faults(&found).is_empty(), "{name} {at}");
            let behind = at >= end;
            let lost = blocks.len() - whole(&found).len();
            assert!(lost <= usize::from(!behind), "{name} {at}: one flip hides {lost} blocks");
            let opened = open_with(
                &files,
                keys(&files, Path::new("keys")),
                OpenLog { checkpoint_size: checkpoint, read_only: true },
            );
            match opened {
                Ok(log) => {
                    let readable = |block: &Block| log.read(block.head.height).is_ok_and(|frame| frame.check().is_ok());
                    assert!(behind || !blocks.iter().all(readable), "{name} {at}");
                }
                Err(LogError::Damaged { .. } | LogError::KeyMissing { .. } | LogError::Shorter { .. }) => {}
                Err(other) => panic!("{name} {at}: {other:?}"),
            }
        }
        disk.plant(&path, bytes);
    }
}

#[test]
fn a_cut_file_is_a_torn_tail_unless_a_checkpoint_covers_it() {
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let blocks = chain(&[0, 2, 1]);
    written(&files, &blocks, 1 << 20);
    let (name, bytes) = segments_of(&disk).remove(0);
    let path = Path::new("log").join(&name);
    let log = open(&files, 0).unwrap();
    let starts: Vec<u64> = (0..3).map(|height| log.read(height).unwrap().offset()).collect();
    let last = log.read(2).unwrap();
    let end = last.offset() + last.bytes_on_disk();
    for length in 0..end + 1 {
        let cut = disk.restarted(Loss::Nothing);
        cut.plant(&path, &bytes[..length as usize]);
        let files: Arc<dyn Files> = Arc::new(cut.clone());
        let there = [starts[1], starts[2], end].iter().filter(|end| **end <= length).count();
        let covered = if there == 0 { 0 } else { blocks[there - 1].tree_size };
        let read_only = OpenLog { checkpoint_size: covered, read_only: true };
        let operations = cut.operations();
        assert_eq!(open_with(&files, keys(&files, Path::new("keys")), read_only).unwrap().tree_size(), covered);
        assert_eq!(cut.bytes(&path).unwrap().len(), length as usize, "reading changes nothing");
        let refused = open(&files, covered + 1);
        assert!(matches!(refused, Err(LogError::Damaged { .. } | LogError::Shorter { .. })));
        assert!(cut.operations() >= operations);
        let log = open(&files, covered).unwrap();
        assert_eq!(log.tree_size(), covered);
        log.append(&blocks[there.min(2)], &[]).map_or_else(|_| assert_eq!(there, 3), |()| assert!(there < 3));
        assert_eq!(faults(&scan(&files)), []);
    }
}

#[test]
fn frames_are_bound_to_their_place() {
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let blocks = chain(&[1, 1, 1, 1]);
    let log = create(&files);
    blocks.iter().for_each(|block| log.append(block, &[]).unwrap());
    let ranges: Vec<_> = (0..4)
        .map(|height| {
            let frame = log.read(height).unwrap();
            frame.offset() as usize..(frame.offset() + frame.bytes_on_disk()) as usize
        })
        .collect();
    let (name, bytes) = segments_of(&disk).remove(0);
    let path = Path::new("log").join(&name);
    let join = |order: &[usize]| order.iter().flat_map(|at| bytes[ranges[*at].clone()].to_vec()).collect::<Vec<u8>>();
    for (order, expected) in [
        (&[0, 2, 1, 3][..], vec![FaultKind::Missing, FaultKind::Order, FaultKind::Missing]),
        (&[0, 1, 1, 2, 3], vec![FaultKind::Order]),
        (&[0, 2, 3], vec![FaultKind::Missing]),
        (&[1, 2, 3], vec![FaultKind::Missing]),
    ] {
        disk.plant(&path, &join(order));
        let kinds: Vec<_> = faults(&scan(&files)).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, expected, "{order:?}");
        assert!(matches!(open(&files, 0), Err(LogError::Damaged { .. })), "{order:?}");
    }
    disk.plant(&path, &bytes);
    assert!(open(&files, 0).is_ok());
    // A whole frame of another log of the same chain, under another key, at the right height.
    let other = MemoryFiles::new();
    let other_files: Arc<dyn Files> = Arc::new(other.clone());
    written(&other_files, &blocks, 1 << 20);
    let foreign = segments_of(&other).remove(0).1;
    let theirs = open(&other_files, 0).unwrap().read(2).unwrap();
    let theirs = &foreign[theirs.offset() as usize..(theirs.offset() + theirs.bytes_on_disk()) as usize];
    disk.plant(&path, &[&join(&[0, 1]), theirs, &join(&[3])].concat());
    let kinds: Vec<_> = faults(&scan(&files)).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds[..2], [FaultKind::Order, FaultKind::KeyMissing]);
    assert!(matches!(open(&files, 0), Err(LogError::Damaged { height: 2, section: None, .. })));
}

#[test]
fn damage_in_the_middle_is_never_cut_away() {
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let blocks = chain(&[1; 5]);
    let log = create(&files);
    blocks.iter().for_each(|block| log.append(block, &[]).unwrap());
    let (name, bytes) = segments_of(&disk).remove(0);
    let path = Path::new("log").join(&name);
    let places: Vec<_> = (0..5).map(|height| log.read(height).unwrap().offset() as usize).collect();
    for height in 1..4 {
        let mut zeroed = bytes.clone();
        zeroed[places[height]..places[height + 1]].fill(0);
        disk.plant(&path, &zeroed);
        let found = open(&files, 0);
        assert!(matches!(found, Err(LogError::Damaged { height: at, section: None, .. }) if at == height as u64));
        assert_eq!(faults(&scan(&files)), [(FaultKind::Header, Some(height as u64))]);
        assert_eq!(disk.bytes(&path).unwrap(), zeroed, "a refused open changes nothing");
    }
    // The last two: the sections of one are damaged, the other's as well. Only one can be a torn write.
    let mut twice = bytes.clone();
    for place in &places[3..] {
        twice[place + 400] ^= 1;
    }
    disk.plant(&path, &twice);
    assert!(matches!(open(&files, 0), Err(LogError::Damaged { height: 3, section: Some(_), .. })));
    let mut last = bytes.clone();
    last[places[4] + 400] ^= 1;
    disk.plant(&path, &last);
    assert!(matches!(open(&files, blocks[4].tree_size), Err(LogError::Damaged { height: 4, section: Some(_), .. })));
    assert_eq!(open(&files, blocks[3].tree_size).unwrap().height(), Some(3));
}

#[test]
fn a_missing_segment_or_key_is_named() {
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let blocks = chain(&CRASH_COUNTS);
    written(&files, &blocks, SMALL_SEGMENT);
    let names: Vec<_> = segments_of(&disk).into_iter().map(|(name, _)| name).collect();
    assert!(names.len() >= 2);
    let without = disk.restarted(Loss::Nothing);
    without.remove(&Path::new("log").join(&names[0])).unwrap();
    let files_without: Arc<dyn Files> = Arc::new(without);
    assert!(matches!(open(&files_without, 0), Err(LogError::Damaged { height: 0, .. })));
    assert_eq!(faults(&scan(&files_without))[0], (FaultKind::Missing, Some(0)));
    let strangers = MemoryFiles::new();
    let strange_files: Arc<dyn Files> = Arc::new(strangers);
    let strange = keys(&strange_files, Path::new("keys"));
    assert!(matches!(
        open_with(&files, Arc::clone(&strange), OpenLog::default()),
        Err(LogError::KeyMissing { height: 0, .. })
    ));
    let found: Vec<_> = Scan::new(files, Path::new("log"), CHAIN, strange).unwrap().collect();
    assert_eq!(faults(&found).len(), blocks.len());
}

#[test]
fn a_reader_beside_the_writer_stops_at_the_last_whole_frame() {
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let blocks = chain(&[1; 4]);
    let log = create(&files);
    log.append(&blocks[0], &[]).unwrap();
    log.append(&blocks[1], &[pack(3, 2)]).unwrap();
    let read_only = OpenLog { checkpoint_size: 0, read_only: true };
    let reading_keys = Arc::new(KeyStore::open(Arc::clone(&files), Path::new("keys"), &ROOT_KEY, true).unwrap());
    let operations = disk.operations();
    let reader = open_with(&files, Arc::clone(&reading_keys), read_only).unwrap();
    assert!(matches!(reader.append(&blocks[2], &[]), Err(LogError::ReadOnly)));
    log.append(&blocks[2], &[]).unwrap();
    assert_eq!(reader.height(), Some(1));
    check_block(&reader, &blocks[1]);
    assert_eq!(open_with(&files, Arc::clone(&reading_keys), read_only).unwrap().height(), Some(2));
    // In the middle of an append, half a frame stands at the end.
    disk.fail_at(disk.operations(), Fault::Errno(5));
    assert!(log.append(&blocks[3], &[]).is_err());
    let before = segments_of(&disk);
    assert_eq!(open_with(&files, reading_keys, read_only).unwrap().height(), Some(2));
    assert_eq!(segments_of(&disk), before);
    // A scan tells the half frame by its height: no checkpoint covers it.
    assert!(matches!(faults(&scan(&files))[..], [(FaultKind::Section(_) | FaultKind::Tail, Some(3))]));
    assert_eq!(disk.operations(), operations + 3, "the reader changed nothing");
}

#[test]
fn many_reads_of_one_block_open_its_packs_once() {
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let log = create(&files);
    let blocks = chain(&[1, 1]);
    log.append(&blocks[0], &[pack(3, 5)]).unwrap();
    log.append(&blocks[1], &[pack(4, 5)]).unwrap();
    let item = |height, position| {
        log.read(height).and_then(|frame| frame.pack_item(0, position).map(|(item, _)| item.kept().unwrap().to_vec()))
    };
    assert_eq!(item(0, 1).unwrap(), pack(3, 5).items[1]);
    let (name, mut bytes) = segments_of(&disk).remove(0);
    let frame = log.read(0).unwrap();
    let end = (frame.offset() + frame.bytes_on_disk()) as usize;
    bytes[end - 300..end].fill(0);
    disk.plant(&Path::new("log").join(name), &bytes);
    assert_eq!(item(0, 4).unwrap(), pack(3, 5).items[4], "from the cache");
    assert_eq!(item(1, 4).unwrap(), pack(4, 5).items[4]);
    assert!(matches!(frame.check(), Ok(())), "the frame in hand shares the cache");
    drop(log);
    let log = open(&files, 0).unwrap();
    let damaged = log.read(0).unwrap();
    assert!(matches!(
        damaged.pack_item(0, 4),
        Err(LogError::Damaged { section: Some(Section::Packs | Section::Wraps), .. })
    ));
    assert_eq!(damaged.leaves().unwrap(), blocks[0].leaves, "only the section asked for is opened");
}

#[test]
fn a_block_that_contradicts_itself_or_its_roots_is_damage() {
    let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
    let log = create(&files);
    let mut wrong_root = pack(3, 2).as_ref().clone();
    wrong_root.root[0] ^= 1;
    let mut wrong_wraps = pack(3, 2).as_ref().clone();
    wrong_wraps.wraps.swap(0, 1);
    let mut blocks = chain(&[1, 1, 2, 1, 1, 1]);
    blocks[2].receipts.pop();
    blocks[3].transactions.clear();
    blocks[4].head.time_ms += 1;
    let other_height = block(9, blocks[4].head.first_index, 1).leaves.pop().unwrap();
    *blocks[4].leaves.last_mut().unwrap() = other_height;
    let packs = [vec![Arc::new(wrong_root)], vec![Arc::new(wrong_wraps)]];
    for (height, block) in blocks.iter().enumerate() {
        log.append(block, packs.get(height).map_or(&[], Vec::as_slice)).unwrap();
    }
    for (height, section) in
        [Section::Packs, Section::Wraps, Section::Receipts, Section::Transactions, Section::Leaves].iter().enumerate()
    {
        let checked = log.read(height as u64).unwrap().check();
        assert!(
            matches!(checked, Err(LogError::Damaged { section: Some(found), .. }) if found == *section),
            "{height}"
        );
    }
    assert!(matches!(log.read(0).unwrap().pack(0), Err(LogError::Damaged { section: Some(Section::Packs), .. })));
    let expected: Vec<_> = faults(&scan(&files)).into_iter().map(|(_, height)| height).collect();
    assert_eq!(expected, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
}

#[test]
fn a_rolled_log_goes_on_in_a_segment_under_another_key() {
    let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
    let log = create(&files);
    let blocks = chain(&[1, 1, 1, 1]);
    log.append(&blocks[0], &[]).unwrap();
    log.append(&blocks[1], &[]).unwrap();
    assert_eq!(log.last_segment_height(), Some(0));
    log.roll();
    assert_eq!(log.last_segment_height(), Some(0));
    log.append(&blocks[2], &[]).unwrap();
    log.append(&blocks[3], &[]).unwrap();
    assert_eq!(log.last_segment_height(), Some(2));
    let key = |height| log.read(height).unwrap().header().key_id;
    assert_eq!((key(0), key(2)), (key(1), key(3)));
    assert_ne!(key(1), key(2));
    drop(log);
    let log = open(&files, 0).unwrap();
    blocks.iter().for_each(|block| check_block(&log, block));
}

#[test]
fn a_block_written_twice_shares_no_key_stream() {
    // A copy of the disk from before the write, as a restore or a clone would have it.
    let disk = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let blocks = chain(&[1, 3]);
    written(&files, &blocks[..1], 1 << 20);
    let frames: Vec<Vec<u8>> = (0..2)
        .map(|_| {
            let files: Arc<dyn Files> = Arc::new(disk.restarted(Loss::Nothing));
            let log = open(&files, 0).unwrap();
            log.append(&blocks[1], &[pack(1, 3)]).unwrap();
            let frame = log.read(1).unwrap();
            let start = frame.offset() as usize;
            let path = Path::new("log").join(frame.segment_name());
            let file = files.open(&path, ehrfast_core::store::files::Access::Read).unwrap();
            file.read_all().unwrap()[start..start + frame.bytes_on_disk() as usize].to_vec()
        })
        .collect();
    assert_eq!(frames[0].len(), frames[1].len());
    let sealed = frames[0].len() - 400;
    // The same plaintext under the same segment key: equal bytes would be equal key streams.
    let equal = |a: &[u8], b: &[u8]| a.windows(16).zip(b.windows(16)).any(|(a, b)| a == b);
    assert!(!equal(&frames[0][frames[0].len() - sealed..], &frames[1][frames[1].len() - sealed..]));
}
