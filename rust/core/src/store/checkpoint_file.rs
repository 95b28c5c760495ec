//! The last checkpoint of a chain, in two 4 KiB slots of one file, and the lock of a node's folder.
//! Refuses notes over `MAX_NOTE_BYTES`. Invariant: at every moment one slot holds a whole note that was synced.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::files::{Access, File, Files, open_if_there, replace};
use crate::digest::{self, Use};

const SLOT_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"ehrcheck";
const HEAD_BYTES: usize = 8 + 8 + 2;
const CHECK_BYTES: usize = 32;
/// Longest note, signatures and cosignatures included.
pub const MAX_NOTE_BYTES: usize = SLOT_BYTES - HEAD_BYTES - CHECK_BYTES;

/// Why the checkpoint file refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    /// The file below failed.
    #[error("the checkpoint file failed")]
    Io(#[from] io::Error),
    /// Neither slot holds what was written.
    #[error("both slots of the checkpoint file are damaged")]
    Damaged,
    /// A note that is empty or does not fit a slot.
    #[error("a checkpoint of {0} bytes")]
    NoteLength(usize),
    /// Opened for reading.
    #[error("the checkpoint file was opened read-only")]
    ReadOnly,
    /// There is none, and reading makes none.
    #[error("no checkpoint file")]
    Missing,
}

/// An open checkpoint file.
#[derive(Debug)]
pub struct CheckpointFile {
    file: Arc<dyn File>,
    read_only: bool,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    sequence: u64,
    /// The slot that must not be touched: its note is synced, the other's may not be.
    synced_slot: usize,
}

impl CheckpointFile {
    /// Opens the file; for writing, makes it where missing.
    pub fn open(files: &dyn Files, path: &Path, read_only: bool) -> Result<Self, CheckpointFileError> {
        let access = if read_only { Access::Read } else { Access::Write };
        let file = match open_if_there(files, path, access)? {
            Some(file) => file,
            None if read_only => return Err(CheckpointFileError::Missing),
            None => {
                let mut bytes = slot(0, &[]).to_vec();
                bytes.resize(2 * SLOT_BYTES, 0);
                replace(files, path, &bytes)?;
                files.open(path, access)?
            }
        };
        let (synced_slot, sequence, note) = newest(&*file)?;
        if !read_only {
            // What is read here may be relied on, so it must not vanish afterwards: written again, it reaches the
            // disk even if a sync failed on it before.
            file.write_at(&slot(sequence, &note), (synced_slot * SLOT_BYTES) as u64)?;
            file.sync_data()?;
        }
        let state = Mutex::new(State { sequence, synced_slot });
        Ok(CheckpointFile { file, read_only, state })
    }

    /// The newest note, `None` when none was written yet.
    pub fn read(&self) -> Result<Option<Vec<u8>>, CheckpointFileError> {
        let _state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, _, note) = newest(&*self.file)?;
        Ok(if note.is_empty() { None } else { Some(note) })
    }

    /// Writes a note; with `sync` it is durable when this returns, without it a crash may leave the last synced one.
    pub fn write(&self, note: &[u8], sync: bool) -> Result<(), CheckpointFileError> {
        if self.read_only {
            return Err(CheckpointFileError::ReadOnly);
        }
        if note.is_empty() || note.len() > MAX_NOTE_BYTES {
            return Err(CheckpointFileError::NoteLength(note.len()));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let target = 1 - state.synced_slot;
        let sequence = state.sequence + 1;
        self.file.write_at(&slot(sequence, note), (target * SLOT_BYTES) as u64)?;
        state.sequence = sequence;
        if sync {
            self.file.sync_data()?;
            state.synced_slot = target;
        }
        Ok(())
    }
}

/// magic (8) ‖ sequence (8) ‖ length (2) ‖ note ‖ check (32) ‖ zeros.
fn slot(sequence: u64, note: &[u8]) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let end = HEAD_BYTES + note.len();
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&sequence.to_be_bytes());
    slot[16..18].copy_from_slice(&(note.len() as u16).to_be_bytes());
    slot[HEAD_BYTES..end].copy_from_slice(note);
    let check = digest::keyed(Use::CheckpointCheck, &[&slot[..end]]);
    slot[end..end + CHECK_BYTES].copy_from_slice(&check);
    slot
}

fn read_slot(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let sequence = u64::from_be_bytes(*bytes.get(8..16)?.first_chunk()?);
    let length = usize::from(u16::from_be_bytes(*bytes.get(16..18)?.first_chunk()?));
    let note = bytes.get(HEAD_BYTES..HEAD_BYTES + length)?;
    // Only the bytes that writing this note gives are a slot.
    (length <= MAX_NOTE_BYTES && slot(sequence, note)[..] == *bytes).then_some((sequence, note))
}

/// (slot number, sequence, note) of the newest whole slot.
fn newest(file: &dyn File) -> Result<(usize, u64, Vec<u8>), CheckpointFileError> {
    let bytes = file.read_all()?;
    if bytes.len() != 2 * SLOT_BYTES {
        return Err(CheckpointFileError::Damaged);
    }
    let slots = bytes.chunks_exact(SLOT_BYTES).enumerate();
    let whole = slots.filter_map(|(number, bytes)| read_slot(bytes).map(|(sequence, note)| (number, sequence, note)));
    let (number, sequence, note) =
        whole.max_by_key(|(_, sequence, _)| *sequence).ok_or(CheckpointFileError::Damaged)?;
    Ok((number, sequence, note.to_vec()))
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file below failed.
    #[error("the lock file failed")]
    Io(#[from] io::Error),
    /// Another process, or another handle in this one, holds it.
    #[error("held by process {pid:?}")]
    Held {
        /// Who wrote its pid last.
        pid: Option<u32>,
    },
}

/// The lock of a node's folder: held by one open handle at a time, gone with its process, and it names the pid.
#[derive(Debug)]
pub struct LockFile {
    _file: Arc<dyn File>,
}

impl LockFile {
    /// Takes the lock or says who holds it. The file stays when the lock goes.
    pub fn acquire(files: &dyn Files, path: &Path) -> Result<Self, LockError> {
        let file = match files.create_new(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => files.open(path, Access::Write)?,
            Err(error) => return Err(error.into()),
        };
        if !file.lock()? {
            let text = file.read_all()?;
            let pid = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            return Err(LockError::Held { pid });
        }
        file.truncate(0)?;
        file.write_at(format!("{}\n", std::process::id()).as_bytes(), 0)?;
        Ok(LockFile { _file: file })
    }
}
