//! Reads every write a disk ever saw, as someone would who has the root key, and holds the key streams against each
//! other: a block torn and written again, a copy that goes its own way, a state rebuilt. Its own reading of the formats.

use std::collections::HashMap;
use std::path::Path;

use aes::Aes256;
use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use ehrfast_core::cbor::{Reader, Writer};
use ehrfast_core::digest::{self, Use};

use crate::store::blocks::ROOT_KEY;

const TAG_BYTES: usize = 16;

/// Every message seen, by the start of its key stream.
#[derive(Debug, Default)]
pub struct Streams {
    seen: HashMap<[u8; 16], [u8; 32]>,
    pub slots: usize,
    pub records: usize,
    pub sections: usize,
    pub values: usize,
}

/// AES-256-GCM encrypts its n-th block with the block cipher of nonce ‖ n + 2.
fn stream(key: &[u8; 32], nonce: u32, length: usize) -> Vec<u8> {
    let cipher = Aes256::new(key.into());
    let blocks = (2u32..).take(length.div_ceil(16).max(1));
    let bytes = blocks.flat_map(|counter| {
        let mut block = Block::<Aes256>::default();
        block[8..12].copy_from_slice(&nonce.to_be_bytes());
        block[12..].copy_from_slice(&counter.to_be_bytes());
        cipher.encrypt_block(&mut block);
        block
    });
    bytes.collect()
}

fn derived(key_use: Use, key: &[u8; 32], info: &Writer) -> [u8; 32] {
    digest::derive(key_use, key, info.as_bytes())
}

fn of_salt(key_use: Use, key: &[u8; 32], salt: &[u8]) -> [u8; 32] {
    let mut info = Writer::new();
    info.array(1).bytes(salt);
    derived(key_use, key, &info)
}

fn places<'a>(bytes: &'a [u8], magic: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    (0..bytes.len()).filter(move |start| bytes[*start..].starts_with(magic)).map(|start| &bytes[start..])
}

impl Streams {
    /// Notes a sealed message (its tag at the end) and gives its plaintext, and whether its key stream was used
    /// before, for another message.
    fn message(&mut self, key: &[u8; 32], nonce: u32, sealed: &[u8]) -> (Vec<u8>, usize) {
        let content = &sealed[..sealed.len() - TAG_BYTES];
        let stream = stream(key, nonce, content.len());
        let plain = content.iter().zip(&stream).map(|(byte, mask)| byte ^ mask).collect();
        let digest = digest::blake3(sealed);
        let before = self.seen.insert(*stream.first_chunk().unwrap(), digest);
        (plain, usize::from(before.is_some_and(|before| before != digest)))
    }

    /// Reads every write; gives how many messages were sealed under a key stream that had sealed another.
    pub fn read(&mut self, written: &[Vec<u8>]) -> usize {
        let mut reused = 0;
        let mut stores = HashMap::new();
        for slot in written.iter().filter(|bytes| bytes.starts_with(b"ehrslot1")) {
            let key = of_salt(Use::Slot, &ROOT_KEY, &slot[16..48]);
            let (store, again) = self.message(&key, 0, &slot[48..96]);
            let generation = u64::from_be_bytes(slot[8..16].try_into().unwrap());
            stores.insert(<[u8; 32]>::try_from(store).unwrap(), generation);
            (reused, self.slots) = (reused + again, self.slots + 1);
        }
        let mut segments = HashMap::new();
        for bytes in written {
            let mut rest = bytes.as_slice();
            if rest.starts_with(b"ehrkeys1") {
                let generation = u64::from_be_bytes(rest[8..16].try_into().unwrap());
                for (store, _) in stores.iter().filter(|(_, of)| **of == generation) {
                    reused += self.message(&of_salt(Use::EntriesHeader, store, &rest[24..56]), 0, &rest[56..72]).1;
                }
                rest = &rest[72..];
            }
            while let Some((salt, sealed, after)) = record(rest) {
                reused += self.record(&stores, salt, sealed, &mut segments);
                rest = after;
            }
        }
        for bytes in written {
            reused += places(bytes, b"ehrb").map(|frame| self.frame(&segments, frame)).sum::<usize>();
        }
        reused
    }

    fn record(
        &mut self,
        stores: &HashMap<[u8; 32], u64>,
        salt: &[u8],
        sealed: &[u8],
        segments: &mut HashMap<Vec<u8>, [u8; 32]>,
    ) -> usize {
        for store in stores.keys() {
            let key = of_salt(Use::Entry, store, salt);
            let start = stream(&key, 0, 16);
            // CBOR [* [kind, id, value]]: the second array has three.
            if sealed[0] ^ start[0] >= 0x80 && sealed[0] ^ start[0] < 0x98 && sealed[1] ^ start[1] == 0x83 {
                let (plain, again) = self.message(&key, 0, sealed);
                let Some(entries) = entries(&plain) else { continue };
                segments.extend(entries);
                self.records += 1;
                return again;
            }
        }
        panic!("a record that no store key opens");
    }

    /// Every section of a frame.
    fn frame(&mut self, segments: &HashMap<Vec<u8>, [u8; 32]>, frame: &[u8]) -> usize {
        let Some(header) = header(frame) else { return 0 };
        let mut reader = Reader::new(header, 512).unwrap();
        reader.array_of(8).unwrap();
        reader.expect_int(1).unwrap();
        let segment = segments[reader.bytes().unwrap()];
        reader.text().unwrap();
        reader.uint().unwrap();
        let salt = reader.bytes().unwrap();
        let (mut rest, mut reused) = (&frame[16 + header.len()..], 0);
        for number in 0..reader.array().unwrap() as u64 {
            let (sealed, after) = rest.split_at(reader.uint().unwrap() as usize);
            let mut info = Writer::new();
            info.array(2).bytes(salt).uint(number);
            let (plain, again) = self.message(&derived(Use::FrameSection, &segment, &info), 0, sealed);
            assert_eq!(plain[0] >> 5, 4, "a section is an array");
            (reused, rest, self.sections) = (reused + again, after, self.sections + 1);
        }
        reused
    }

    /// Reads the rows of a state database; gives how many key streams had sealed another value.
    pub fn read_state(&mut self, folder: &Path, key: &[u8; 32]) -> usize {
        let database = fjall::Database::builder(folder).open().unwrap();
        let mut reused = 0;
        for name in ["state", "shelf"] {
            let rows = database.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
            for row in rows.iter() {
                let (name, row) = row.into_inner().unwrap();
                // Before what is sealed of a value, which alone is named by a path, stands its digest.
                let Some(row) = row.get(if name.len() == 32 { 32.. } else { 0.. }).filter(|row| !row.is_empty()) else {
                    continue;
                };
                let nonce = u32::from_be_bytes(row[16..20].try_into().unwrap());
                reused += self.message(&of_salt(Use::StateValue, key, &row[..16]), nonce, &row[20..]).1;
                self.values += 1;
            }
        }
        reused
    }
}

/// length (4) ‖ salt (32) ‖ check (12) ‖ sealed.
pub fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, salt, check) = (bytes.get(..4)?, bytes.get(4..36)?, bytes.get(36..48)?);
    if digest::keyed(Use::EntryCheck, &[length, salt])[..12] != *check {
        return None;
    }
    let end = 48 + u32::from_be_bytes(length.try_into().ok()?) as usize;
    Some((salt, bytes.get(48..end)?, &bytes[end..]))
}

/// (id, key) of the segment keys in a record.
fn entries(plain: &[u8]) -> Option<Vec<(Vec<u8>, [u8; 32])>> {
    let mut reader = Reader::new(plain, 1 << 20).ok()?;
    let mut segments = Vec::new();
    for _ in 0..reader.array().ok()? {
        reader.array_of(3).ok()?;
        let (kind, id, value) = (reader.text().ok()?, reader.bytes().ok()?, reader.bytes().ok()?);
        if kind == "segment" {
            segments.push((id.to_vec(), value.try_into().ok()?));
        }
    }
    reader.finish().ok()?;
    Some(segments)
}

/// magic (4) ‖ length (4) ‖ check (8) ‖ header; four bytes alone may look like the magic by chance.
fn header(frame: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(frame.get(4..8)?.try_into().ok()?) as usize;
    let header = frame.get(16..16_usize.checked_add(length)?)?;
    (digest::keyed(Use::FrameCheck, &[header])[..8] == frame[8..16]).then_some(header)
}
