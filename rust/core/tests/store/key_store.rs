//! The key store: what it keeps, what it forgets, and what crashes, failures and flipped bits do to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ehrfast_core::store::files::{Fault, Files, Loss, MemoryFiles, Operation, RealFiles};
use ehrfast_core::store::key_store::{ENTRIES_FILE, Entry, KeyStore, KeyStoreError, SLOTS_FILE, derive_root_key};

use super::blocks::ROOT_KEY;

type Contents = BTreeMap<(String, Vec<u8>), Vec<u8>>;

fn folder() -> &'static Path {
    Path::new("keys")
}

fn create(disk: &MemoryFiles) -> Result<KeyStore, KeyStoreError> {
    KeyStore::create(Arc::new(disk.clone()), folder(), &ROOT_KEY)
}

fn open(disk: &MemoryFiles) -> Result<KeyStore, KeyStoreError> {
    KeyStore::open(Arc::new(disk.clone()), folder(), &ROOT_KEY, false)
}

fn contents(store: &KeyStore) -> Contents {
    let kinds = ["segment", "patient-root", "x"];
    let ids = kinds.iter().flat_map(|kind| store.ids(kind).into_iter().map(move |id| (*kind, id)));
    ids.map(|(kind, id)| ((kind.to_owned(), id.clone()), store.get(kind, &id).unwrap().to_vec())).collect()
}

fn value(id: u8) -> Vec<u8> {
    vec![id.wrapping_mul(7); 32]
}

fn put(store: &KeyStore, kind: &str, ids: &[u8]) -> Result<(), KeyStoreError> {
    let named: Vec<_> = ids.iter().map(|id| ([*id; 16], value(*id))).collect();
    store.put(&named.iter().map(|(id, value)| Entry { kind, id, value }).collect::<Vec<_>>())
}

fn forget(store: &KeyStore, kind: &str, ids: &[u8], height: u64) -> Result<(), KeyStoreError> {
    let ids: Vec<_> = ids.iter().map(|id| [*id; 16]).collect();
    store.forget(&ids.iter().map(|id| (kind, &id[..])).collect::<Vec<_>>(), height)
}

#[test]
fn keeps_what_was_put() {
    let real = tempfile::tempdir().unwrap();
    let places: [(Arc<dyn Files>, _); 2] =
        [(Arc::new(RealFiles), real.path().join("keys")), (Arc::new(MemoryFiles::new()), "keys".into())];
    for (files, folder) in places {
        let store = KeyStore::create(Arc::clone(&files), &folder, &ROOT_KEY).unwrap();
        put(&store, "segment", &[1, 2, 3]).unwrap();
        put(&store, "patient-root", &[1]).unwrap();
        store.put(&[Entry { kind: "x", id: b"empty", value: b"" }]).unwrap();
        store.put(&[]).unwrap();
        let before = contents(&store);
        assert_eq!((before.len(), store.count()), (5, 5));
        drop(store);
        let open = |read_only| KeyStore::open(Arc::clone(&files), &folder, &ROOT_KEY, read_only);
        let store = open(false).unwrap();
        assert_eq!(contents(&store), before);
        assert_eq!(store.key("segment", &[2; 16]).unwrap().as_slice(), value(2));
        assert!(store.key("x", b"empty").is_none() && store.get("segment", b"none").is_none());
        forget(&store, "segment", &[1, 9], 40).unwrap();
        assert_eq!((store.generation(), store.applied_erasure_height()), (2, 40));
        put(&store, "segment", &[4]).unwrap();
        let reader = open(true).unwrap();
        assert!(matches!(put(&reader, "segment", &[8]), Err(KeyStoreError::ReadOnly)));
        drop(store);
        let store = open(false).unwrap();
        assert_eq!(contents(&store), contents(&reader));
        assert_eq!((store.generation(), store.applied_erasure_height(), store.damaged_copies()), (2, 40, 0));
        assert_eq!(store.ids("segment"), [[2; 16], [3; 16], [4; 16]]);
        assert!(matches!(KeyStore::create(Arc::clone(&files), &folder, &ROOT_KEY), Err(KeyStoreError::Exists)));
        let wrong = KeyStore::open(Arc::clone(&files), &folder, &[8; 32], false);
        assert!(matches!(wrong, Err(KeyStoreError::WrongRootKey)));
        assert!(matches!(KeyStore::open(files, Path::new("none"), &ROOT_KEY, true), Err(KeyStoreError::Missing)));
    }
}

#[test]
fn never_replaces_a_key() {
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    put(&store, "segment", &[1]).unwrap();
    let operations = disk.operations();
    put(&store, "segment", &[1]).unwrap();
    assert_eq!(disk.operations(), operations, "the same value is there already");
    let other = Entry { kind: "segment", id: &[1; 16], value: b"other" };
    assert!(matches!(store.put(&[other]), Err(KeyStoreError::KeyExists { .. })));
    let twice = [Entry { kind: "x", id: b"a", value: b"1" }, Entry { kind: "x", id: b"a", value: b"2" }];
    assert!(matches!(store.put(&twice), Err(KeyStoreError::KeyExists { .. })));
    let long = [0; 65];
    let bad = [
        Entry { kind: "", id: b"a", value: b"" },
        Entry { kind: "Upper", id: b"a", value: b"" },
        Entry { kind: "x", id: b"", value: b"" },
        Entry { kind: "x", id: &long, value: b"" },
        Entry { kind: "x", id: b"a", value: &[0; 65_537] },
    ];
    for entry in bad {
        assert!(matches!(store.put(&[entry]), Err(KeyStoreError::InvalidEntry)));
    }
    forget(&store, "segment", &[1], 5).unwrap();
    assert!(matches!(forget(&store, "segment", &[], 4), Err(KeyStoreError::HeightGoesBack { applied: 5, asked: 4 })));
    put(&store, "segment", &[2]).unwrap();
    assert_eq!((disk.operations(), store.count()), (disk.operations(), 1));
}

#[test]
fn a_put_costs_one_sync() {
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    let (syncs, operations) = (disk.syncs(), disk.operations());
    put(&store, "segment", &(0..100).collect::<Vec<_>>()).unwrap();
    assert_eq!((disk.syncs() - syncs, disk.operations() - operations), (1, 2));
}

/// One operation on the store, and what it changes in what must be there once it is acknowledged.
type Step = (fn(&KeyStore) -> Result<(), KeyStoreError>, fn(&mut Contents));

/// What a run of the store does, step by step.
fn steps() -> Vec<Step> {
    fn add(contents: &mut Contents, kind: &str, ids: &[u8]) {
        contents.extend(ids.iter().map(|id| ((kind.to_owned(), vec![*id; 16]), value(*id))));
    }
    fn cut(contents: &mut Contents, kind: &str, id: u8) {
        contents.remove(&(kind.to_owned(), vec![id; 16]));
    }
    vec![
        (|store| put(store, "segment", &[1, 2]), |contents| add(contents, "segment", &[1, 2])),
        (
            |store| put(store, "patient-root", &(0..40).collect::<Vec<_>>()),
            |contents| add(contents, "patient-root", &(0..40).collect::<Vec<_>>()),
        ),
        (|store| forget(store, "patient-root", &[3], 7), |contents| cut(contents, "patient-root", 3)),
        (|store| put(store, "x", &[9]), |contents| add(contents, "x", &[9])),
        (|store| forget(store, "segment", &[1], 8), |contents| cut(contents, "segment", 1)),
        (|store| put(store, "x", &[10]), |contents| add(contents, "x", &[10])),
    ]
}

/// Runs the steps until one fails: (contents after the last acknowledged step, and after the one that failed).
fn run(disk: &MemoryFiles) -> (Option<Contents>, Option<Contents>) {
    let Ok(store) = create(disk) else { return (None, Some(Contents::new())) };
    let mut acknowledged = Contents::new();
    for (act, effect) in steps() {
        let mut next = acknowledged.clone();
        effect(&mut next);
        if act(&store).is_err() {
            return (Some(acknowledged), Some(next));
        }
        assert_eq!(contents(&store), next);
        acknowledged = next;
    }
    (Some(acknowledged), None)
}

fn check_after(disk: &MemoryFiles, acknowledged: Option<&Contents>, failed: Option<&Contents>) {
    let store = match (open(disk), acknowledged) {
        (Err(KeyStoreError::Missing), None) => create(disk).unwrap(),
        (opened, _) => opened.unwrap(),
    };
    let there = contents(&store);
    assert!(Some(&there) == acknowledged || Some(&there) == failed, "{} entries", there.len());
    // Only the slot of the generation in force is left.
    let slots = disk.bytes(&folder().join(SLOTS_FILE)).unwrap();
    let free = 1 - (store.generation() % 2) as usize;
    assert!(slots[free * 4096..][..4096].iter().all(|byte| *byte == 0));
    assert!(disk.bytes(&folder().join("keys.new")).is_none());
    put(&store, "x", &[77]).unwrap();
    forget(&store, "patient-root", &[1], 100).unwrap();
    let then = contents(&store);
    assert_eq!(contents(&open(&disk.restarted(Loss::Unsynced)).unwrap()), then);
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_or_the_new() {
    let whole = MemoryFiles::new();
    assert!(run(&whole).1.is_none());
    for operation in 0..whole.operations() {
        for fault in [Fault::Crash, Fault::CrashInside, Fault::Errno(5), Fault::Errno(28)] {
            let disk = MemoryFiles::new();
            disk.fail_at(operation, fault);
            let (acknowledged, failed) = run(&disk);
            let losses = [Loss::Nothing, Loss::Unsynced].into_iter().chain((0..12).map(Loss::Seeded));
            for loss in losses {
                let restarted = disk.restarted(loss);
                check_after(&restarted, acknowledged.as_ref(), failed.as_ref());
            }
        }
    }
}

#[test]
fn a_crash_while_opening_after_a_crash_changes_nothing_more() {
    let whole = MemoryFiles::new();
    run(&whole);
    for operation in 0..whole.operations() {
        let disk = MemoryFiles::new();
        disk.fail_at(operation, Fault::CrashInside);
        let (acknowledged, failed) = run(&disk);
        for loss in [Loss::Nothing, Loss::Seeded(operation)] {
            for second in 0..6 {
                let opening = disk.restarted(loss);
                opening.fail_at(second, Fault::CrashInside);
                drop(open(&opening));
                check_after(&opening.restarted(Loss::Seeded(second)), acknowledged.as_ref(), failed.as_ref());
            }
        }
    }
}

#[test]
fn after_a_failed_sync_only_opening_again_helps() {
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Errno(5));
    assert!(matches!(put(&store, "x", &[1]), Err(KeyStoreError::Io(_))));
    assert!(matches!(put(&store, "x", &[2]), Err(KeyStoreError::Poisoned)));
    assert!(store.get("x", &[1; 16]).is_none());
    // A full disk before anything was promised: the half record goes, the store goes on.
    let store = open(&disk.restarted(Loss::Unsynced)).unwrap();
    drop(store);
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    disk.fail_at(disk.operations(), Fault::Errno(28));
    assert!(matches!(put(&store, "x", &[1]), Err(KeyStoreError::Io(_))));
    put(&store, "x", &[2]).unwrap();
    assert_eq!(open(&disk.restarted(Loss::Unsynced)).unwrap().ids("x"), [[2; 16]]);
}

#[test]
fn what_a_failed_sync_gave_up_is_written_again_at_open() {
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    put(&store, "x", &[1]).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Errno(5));
    assert!(put(&store, "x", &[2]).is_err());
    // The process starts again, and the cache still has what the disk never got.
    let disk = disk.restarted(Loss::Nothing);
    let store = open(&disk).unwrap();
    assert_eq!(store.ids("x").len(), 2);
    put(&store, "x", &[3]).unwrap();
    assert_eq!(open(&disk.restarted(Loss::Unsynced)).unwrap().ids("x").len(), 3);
}

#[test]
fn an_old_slot_is_wiped_on_the_medium_and_not_in_the_cache_alone() {
    for fault in [Fault::Crash, Fault::Errno(5)] {
        let disk = MemoryFiles::new();
        let store = create(&disk).unwrap();
        put(&store, "x", &[1, 2]).unwrap();
        let before = disk.operations();
        forget(&store, "x", &[1], 1).unwrap();
        // The same again, but the process is killed, or the sync fails, when the zeros are in the cache alone.
        let last = 2 * disk.operations() - before - 1;
        disk.fail_at(last, fault);
        assert!(forget(&store, "x", &[2], 2).is_err());
        assert_eq!((disk.met(), disk.operations()), (Some(Operation::SyncData), last + 1));
        let disk = disk.restarted(Loss::Nothing);
        let store = open(&disk).unwrap();
        assert_eq!(store.applied_erasure_height(), 2);
        let free = 1 - (store.generation() % 2) as usize;
        let slots = disk.restarted(Loss::Unsynced).bytes(&folder().join(SLOTS_FILE)).unwrap();
        assert!(slots[free * 4096..][..4096].iter().all(|byte| *byte == 0), "{fault:?}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let disk = MemoryFiles::new();
    run(&disk);
    let before = contents(&open(&disk).unwrap());
    for name in [SLOTS_FILE, ENTRIES_FILE] {
        let path = folder().join(name);
        let bytes = disk.bytes(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let damaged = disk.restarted(Loss::Nothing);
            damaged.plant(&path, &flipped);
            match open(&damaged) {
                Ok(store) => {
                    assert_eq!(contents(&store), before, "{name} {at}");
                    let wiped = damaged.bytes(&path).unwrap() == bytes;
                    assert!(store.damaged_copies() > 0 || wiped, "{name} {at} went unnoticed");
                }
                Err(KeyStoreError::SlotsDamaged | KeyStoreError::HeadDamaged | KeyStoreError::RecordDamaged { .. }) => {
                }
                Err(other) => panic!("{name} {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_cut_entries_file_keeps_whole_records_only() {
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    put(&store, "x", &[1]).unwrap();
    put(&store, "x", &[2]).unwrap();
    let path = folder().join(ENTRIES_FILE);
    let bytes = disk.bytes(&path).unwrap();
    let mut seen = Vec::new();
    for length in 0..bytes.len() {
        let cut = disk.restarted(Loss::Nothing);
        cut.plant(&path, &bytes[..length]);
        match open(&cut) {
            Ok(store) => seen.push(store.count()),
            Err(error) => assert!(matches!(error, KeyStoreError::HeadDamaged) && seen.is_empty()),
        }
    }
    assert!(seen.is_sorted());
    assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&1)));
}

#[test]
fn records_are_bound_to_their_place() {
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    let path = folder().join(ENTRIES_FILE);
    let mut ends = vec![disk.bytes(&path).unwrap().len()];
    for id in 1..=3 {
        put(&store, "x", &[id]).unwrap();
        ends.push(disk.bytes(&path).unwrap().len());
    }
    let bytes = disk.bytes(&path).unwrap();
    let record = |number: usize| &bytes[ends[number - 1]..ends[number]];
    for order in [&[2, 1, 3][..], &[1, 3], &[1, 1, 2, 3], &[2, 3], &[1, 2, 2]] {
        let records: Vec<_> = order.iter().map(|number| record(*number)).collect();
        let damaged = disk.restarted(Loss::Nothing);
        damaged.plant(&path, &[&bytes[..ends[0]], &records.concat()].concat());
        assert!(matches!(open(&damaged), Err(KeyStoreError::RecordDamaged { .. })), "{order:?}");
    }
    // An entries file of an earlier generation opens nothing: its store key is gone.
    forget(&store, "x", &[1], 1).unwrap();
    disk.plant(&path, &bytes);
    assert!(matches!(open(&disk), Err(KeyStoreError::HeadDamaged)));
}

#[test]
fn one_copy_of_the_store_key_is_enough() {
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    put(&store, "x", &[1]).unwrap();
    let path = folder().join(SLOTS_FILE);
    let mut slots = disk.bytes(&path).unwrap();
    for (quarter, damaged) in [(0, 1), (2, 2), (3, 3)] {
        slots[4096 + quarter * 1024 + 50] ^= 1;
        disk.plant(&path, &slots);
        let store = open(&disk).unwrap();
        assert_eq!((store.damaged_copies(), store.ids("x").len()), (damaged, 1));
    }
    slots[4096 + 1024] ^= 1;
    disk.plant(&path, &slots);
    assert!(matches!(open(&disk), Err(KeyStoreError::SlotsDamaged)));
}

#[test]
fn secrets_and_names_never_stand_in_clear() {
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    store.put(&[Entry { kind: "patient-root", id: b"marked-identifier", value: b"marked-secret-value" }]).unwrap();
    store.forget(&[], 1).unwrap();
    let seen = disk.all_bytes();
    let shows = |needle: &[u8]| seen.iter().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle));
    for needle in [&b"marked-identifier"[..], b"marked-secret-value", b"patient-root", &ROOT_KEY] {
        assert!(!shows(needle));
    }
}

#[test]
fn a_passphrase_gives_one_key_per_salt() {
    let key = derive_root_key("Hörnchen", &[1; 16]).unwrap();
    assert_eq!(key, derive_root_key("Ho\u{308}rnchen", &[1; 16]).unwrap(), "typed in either normal form");
    assert_ne!(key, derive_root_key("Hörnchen", &[2; 16]).unwrap());
    assert_ne!(key, derive_root_key("hörnchen", &[1; 16]).unwrap());
    assert!(matches!(derive_root_key("", &[1; 16]), Err(KeyStoreError::InvalidEntry)));
    assert!(matches!(derive_root_key("x", &[1; 15]), Err(KeyStoreError::InvalidEntry)));
}

#[test]
fn damaged_copies_of_the_store_key_are_written_again() {
    let disk = MemoryFiles::new();
    put(&create(&disk).unwrap(), "x", &[1]).unwrap();
    let slots = folder().join(SLOTS_FILE);
    let sound = disk.bytes(&slots).unwrap();
    let mut damaged = sound.clone();
    for copy in [0, 1, 3] {
        damaged[4096 + copy * 1024 + 40] ^= 1;
    }
    disk.plant(&slots, &damaged);
    let beside = KeyStore::open(Arc::new(disk.clone()), folder(), &ROOT_KEY, true).unwrap();
    assert_eq!(beside.damaged_copies(), 3);
    assert_eq!(disk.bytes(&slots).unwrap(), damaged);
    drop(open(&disk).unwrap());
    assert_eq!(disk.bytes(&slots).unwrap(), sound);
    assert_eq!(open(&disk).unwrap().damaged_copies(), 0);
}

#[test]
fn a_turned_generation_is_a_damaged_head_and_not_a_damaged_slot() {
    let disk = MemoryFiles::new();
    drop(create(&disk).unwrap());
    let entries = folder().join(ENTRIES_FILE);
    let sound = disk.bytes(&entries).unwrap();
    for bit in 0..64 {
        let mut damaged = sound.clone();
        damaged[8 + bit / 8] ^= 1 << (bit % 8);
        disk.plant(&entries, &damaged);
        assert!(matches!(open(&disk), Err(KeyStoreError::HeadDamaged)), "{bit}");
    }
}

#[test]
fn a_new_root_key_takes_over_at_once_or_not_at_all() {
    const NEXT: [u8; 32] = [0x5a; 32];
    let with = |disk: &MemoryFiles, root: &[u8; 32]| KeyStore::open(Arc::new(disk.clone()), folder(), root, false);
    for operation in 0.. {
        for loss in [Loss::Nothing, Loss::Unsynced, Loss::Seeded(operation)] {
            let disk = MemoryFiles::new();
            let store = create(&disk).unwrap();
            put(&store, "x", &[1, 2]).unwrap();
            let before = contents(&store);
            disk.fail_at(disk.operations() + operation, Fault::CrashInside);
            let outcome = store.rotate_root(&NEXT);
            let disk = disk.restarted(loss);
            let opened: Vec<_> = [ROOT_KEY, NEXT].iter().filter_map(|root| with(&disk, root).ok()).collect();
            assert_eq!(opened.len(), 1, "{operation} {loss:?}");
            assert_eq!(contents(&opened[0]), before);
            if outcome.is_ok() {
                assert!(matches!(with(&disk, &ROOT_KEY), Err(KeyStoreError::WrongRootKey)));
                put(&with(&disk, &NEXT).unwrap(), "x", &[3]).unwrap();
                assert!(operation > 5);
                return;
            }
        }
    }
}

#[test]
fn the_slot_of_a_former_generation_is_overwritten() {
    let disk = MemoryFiles::new();
    let store = create(&disk).unwrap();
    put(&store, "x", &[1, 2]).unwrap();
    for generation in 1..4 {
        forget(&store, "x", &[generation as u8], generation).unwrap();
        let slots = disk.bytes(&folder().join(SLOTS_FILE)).unwrap();
        let former = &slots[generation as usize % 2 * 4096..][..4096];
        assert!(former.iter().all(|byte| *byte == 0), "{generation}");
    }
}

#[test]
fn a_replaced_value_is_there_at_once_or_not_at_all() {
    for operation in 0.. {
        for loss in [Loss::Nothing, Loss::Unsynced, Loss::Seeded(operation)] {
            let disk = MemoryFiles::new();
            let store = create(&disk).unwrap();
            put(&store, "x", &[1, 2]).unwrap();
            let before = contents(&store);
            let mut after = before.clone();
            after.insert(("x".to_owned(), vec![2; 16]), b"another".to_vec());
            disk.fail_at(disk.operations() + operation, Fault::CrashInside);
            let outcome = store.replace(&Entry { kind: "x", id: &[2; 16], value: b"another" });
            let found = contents(&open(&disk.restarted(loss)).unwrap());
            assert!(found == after || (found == before && outcome.is_err()), "{operation} {loss:?}");
            if outcome.is_ok() {
                assert!(operation > 5);
                return;
            }
        }
    }
}
