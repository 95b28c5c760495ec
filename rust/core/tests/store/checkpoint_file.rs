//! The checkpoint slots and the node lock under crashes and flipped bits.

use std::path::Path;

use ehrfast_core::store::checkpoint_file::{CheckpointFile, CheckpointFileError, LockError, LockFile, MAX_NOTE_BYTES};
use ehrfast_core::store::files::{Fault, Files, Loss, MemoryFiles, RealFiles};

const PATH: &str = "node/checkpoint";

fn open(disk: &MemoryFiles) -> Result<CheckpointFile, CheckpointFileError> {
    CheckpointFile::open(disk, Path::new(PATH), false)
}

fn note(number: usize) -> Vec<u8> {
    format!("origin\n{number}\n{}", "root ".repeat(number * 50)).into_bytes()
}

#[test]
fn gives_back_the_newest_note() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let read_only = || CheckpointFile::open(&RealFiles, &path, true);
    assert!(matches!(read_only(), Err(CheckpointFileError::Missing)));
    let file = CheckpointFile::open(&RealFiles, &path, false).unwrap();
    assert_eq!(file.read().unwrap(), None);
    for number in 0..9 {
        file.write(&note(number), number % 3 == 0).unwrap();
        assert_eq!(file.read().unwrap(), Some(note(number)));
        assert_eq!(read_only().unwrap().read().unwrap(), Some(note(number)));
    }
    drop(file);
    let file = CheckpointFile::open(&RealFiles, &path, false).unwrap();
    assert_eq!(file.read().unwrap(), Some(note(8)));
    let longest = vec![7; MAX_NOTE_BYTES];
    file.write(&longest, true).unwrap();
    assert_eq!(read_only().unwrap().read().unwrap(), Some(longest));
    assert!(matches!(file.write(&[7; MAX_NOTE_BYTES + 1], true), Err(CheckpointFileError::NoteLength(_))));
    assert!(matches!(file.write(b"", true), Err(CheckpointFileError::NoteLength(0))));
    assert!(matches!(read_only().unwrap().write(b"x", true), Err(CheckpointFileError::ReadOnly)));
}

#[test]
fn a_crash_at_any_operation_leaves_the_last_synced_note_or_a_later_one() {
    let run = |disk: &MemoryFiles| {
        let (mut synced, mut tried) = (0, 0);
        let Ok(file) = open(disk) else { return (false, 0, 0) };
        for number in 1..10 {
            tried = number;
            let sync = number % 3 == 0;
            if file.write(&note(number), sync).is_err() {
                break;
            }
            if sync {
                synced = number;
            }
        }
        (true, synced, tried)
    };
    let whole = MemoryFiles::new();
    run(&whole);
    for operation in 0..whole.operations() {
        for fault in [Fault::Crash, Fault::CrashInside, Fault::Errno(5)] {
            let disk = MemoryFiles::new();
            disk.fail_at(operation, fault);
            let (_, synced, tried) = run(&disk);
            for loss in [Loss::Nothing, Loss::Unsynced].into_iter().chain((0..20).map(Loss::Seeded)) {
                let restarted = disk.restarted(loss);
                let file = open(&restarted).unwrap();
                let found = file.read().unwrap();
                let allowed = (synced..=tried).any(|number| match number {
                    0 => found.is_none(),
                    number => found.as_deref() == Some(&note(number)[..]),
                });
                assert!(allowed, "operation {operation}: synced {synced}, tried {tried}");
                // What opening showed stays.
                file.write(&note(15), false).unwrap();
                let again = open(&restarted.restarted(Loss::Unsynced)).unwrap().read().unwrap();
                assert_eq!(again, found);
            }
        }
    }
}

#[test]
fn what_a_failed_sync_gave_up_is_written_again_at_open() {
    let disk = MemoryFiles::new();
    let file = open(&disk).unwrap();
    file.write(&note(1), true).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Errno(5));
    assert!(file.write(&note(2), true).is_err());
    // The process starts again, reads the second note from the cache, and the third goes where the first was.
    let disk = disk.restarted(Loss::Nothing);
    let file = open(&disk).unwrap();
    assert_eq!(file.read().unwrap(), Some(note(2)));
    file.write(&note(3), false).unwrap();
    for seed in 0..50 {
        let found = open(&disk.restarted(Loss::Seeded(seed))).unwrap().read().unwrap();
        assert!([Some(note(2)), Some(note(3))].contains(&found), "{seed}");
    }
}

#[test]
fn every_flipped_bit_leaves_the_other_slot() {
    let disk = MemoryFiles::new();
    let file = open(&disk).unwrap();
    (1..4).for_each(|number| file.write(&note(number), true).unwrap());
    let bytes = disk.bytes(Path::new(PATH)).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        disk.plant(Path::new(PATH), &flipped);
        // The third note is in the second slot, since the first slot held the empty one.
        let expected = if at < 4096 { note(3) } else { note(2) };
        assert_eq!(open(&disk).unwrap().read().unwrap(), Some(expected), "{at}");
        flipped[(at + 4096) % 8192] ^= 1;
        disk.plant(Path::new(PATH), &flipped);
        assert!(matches!(open(&disk), Err(CheckpointFileError::Damaged)));
    }
    for length in [0, 4096, 8191, 8193] {
        let mut cut = bytes.clone();
        cut.resize(length, 0);
        disk.plant(Path::new(PATH), &cut);
        assert!(matches!(open(&disk), Err(CheckpointFileError::Damaged)));
    }
}

#[test]
fn a_lock_has_one_holder_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let disk = MemoryFiles::new();
    for (files, path) in [(&RealFiles as &dyn Files, path.as_path()), (&disk, Path::new("lock"))] {
        let lock = LockFile::acquire(files, path).unwrap();
        let held = LockFile::acquire(files, path).unwrap_err();
        assert!(matches!(held, LockError::Held { pid: Some(pid) } if pid == std::process::id()));
        drop(lock);
        drop(LockFile::acquire(files, path).unwrap());
    }
}
