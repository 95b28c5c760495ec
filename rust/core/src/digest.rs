//! BLAKE3 and SHA-256, one by one and over many inputs at once, and the only source of randomness.
//! Owns the list of uses (`ctx` of formats.md): no hash of ours is keyed or derived outside it.

use std::sync::OnceLock;

pub use blake3::Hasher;
use blake3::hazmat::HasherExt as _;
use thiserror::Error;
use zeroize::Zeroize;

use crate::pool;
use crate::simd::{self, Blake3Mode, GROUP, Lanes, sha256_plain};

/// Any 32-byte hash.
pub type Digest = [u8; 32];

/// What digests refuse.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DigestError {
    /// No use of this name is defined.
    #[error("unknown use")]
    UnknownUse,
    /// Offsets are n + 1 numbers, so there is at least one.
    #[error("no offsets")]
    NoOffsets,
    /// The offsets descend here.
    #[error("offset {index} is below the one before it")]
    OffsetsDescend {
        /// Position in the offsets.
        index: usize,
    },
    /// An offset lies behind the end of the data.
    #[error("the last offset is {offset}, the data has {length} bytes")]
    OffsetOutOfRange {
        /// The last offset.
        offset: u64,
        /// Bytes of data.
        length: usize,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
}

/// Every use of a keyed hash or a derived key. A use never serves two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Use {
    /// Key of the state trie for (contract, key).
    Path,
    /// Leaf of the state trie.
    Leaf,
    /// Inner node of the state trie.
    Node,
    /// Blind in front of a state value.
    Blind,
    /// Salt of a timer.
    Timer,
    /// Root of a pack, and of its wraps.
    Pack,
    /// Inner node below the root of a pack.
    PackNode,
    /// Digest of an item of a pack, or of the wraps beside it.
    PackItem,
    /// Public commitment to a content key.
    KeyCommitment,
    /// Opening key of a record.
    Opening,
    /// Class seed under a patient's root key.
    Class,
    /// Wrap key of a class seed.
    Wrap,
    /// X25519 private key of a class seed.
    SealTo,
    /// Section key of a frame in the block log.
    FrameSection,
    /// Key of a batch of values in the state database.
    StateValue,
    /// Key of one record of the key store: what one put appended.
    Entry,
    /// Key of one piece of a large content.
    Piece,
    /// Key of a sealed batch of transactions.
    Batch,
    /// Keys of the search index.
    Index,
    /// Key that seals the head of the key store's entries file.
    EntriesHeader,
    /// Key under a node's root key that wraps a store key.
    Slot,
    /// Check of the length and salt in front of a key store record.
    EntryCheck,
    /// Check of a key slot's copy.
    SlotCheck,
    /// Check of a frame header in the block log.
    FrameCheck,
    /// Check of a slot in the checkpoint file.
    CheckpointCheck,
    /// Key of one sealed part of a backup.
    BackupPart,
}

impl Use {
    /// All of them, in order of declaration.
    pub const ALL: [Use; 26] = [
        Use::Path,
        Use::Leaf,
        Use::Node,
        Use::Blind,
        Use::Timer,
        Use::Pack,
        Use::PackNode,
        Use::PackItem,
        Use::KeyCommitment,
        Use::Opening,
        Use::Class,
        Use::Wrap,
        Use::SealTo,
        Use::FrameSection,
        Use::StateValue,
        Use::Entry,
        Use::Piece,
        Use::Batch,
        Use::Index,
        Use::EntriesHeader,
        Use::Slot,
        Use::EntryCheck,
        Use::SlotCheck,
        Use::FrameCheck,
        Use::CheckpointCheck,
        Use::BackupPart,
    ];

    /// The name as formats.md prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Use::Path => "path",
            Use::Leaf => "leaf",
            Use::Node => "node",
            Use::Blind => "blind",
            Use::Timer => "timer",
            Use::Pack => "pack",
            Use::PackNode => "pack-node",
            Use::PackItem => "pack-item",
            Use::KeyCommitment => "key-commitment",
            Use::Opening => "opening",
            Use::Class => "class",
            Use::Wrap => "wrap",
            Use::SealTo => "seal-to",
            Use::FrameSection => "frame-section",
            Use::StateValue => "state-value",
            Use::Entry => "entry",
            Use::Piece => "piece",
            Use::Batch => "batch",
            Use::Index => "index",
            Use::EntriesHeader => "entries-header",
            Use::Slot => "slot",
            Use::EntryCheck => "entry-check",
            Use::SlotCheck => "slot-check",
            Use::FrameCheck => "frame-check",
            Use::CheckpointCheck => "checkpoint-check",
            Use::BackupPart => "backup-part",
        }
    }

    /// The use of this name.
    ///
    /// # Errors
    /// `DigestError::UnknownUse`.
    pub fn from_name(name: &str) -> Result<Use, DigestError> {
        Use::ALL.into_iter().find(|known| known.name() == name).ok_or(DigestError::UnknownUse)
    }

    /// ctx(use).
    pub fn ctx(self) -> String {
        format!("ehrfast 2026-11 {} v1", self.name())
    }

    fn keys(self) -> &'static Keys {
        static KEYS: OnceLock<[Keys; Use::ALL.len()]> = OnceLock::new();
        let all = KEYS.get_or_init(|| {
            Use::ALL.map(|listed| {
                let key = blake3::derive_key(&listed.ctx(), b"");
                let derive = blake3::hazmat::hash_derive_key_context(&listed.ctx());
                Keys { key, mode: Blake3Mode::keyed(&key), derive }
            })
        });
        &all[self as usize]
    }
}

/// All are functions of the public context string alone, so they are no secrets.
struct Keys {
    key: [u8; 32],
    mode: Blake3Mode,
    derive: blake3::hazmat::ContextKey,
}

/// Many byte strings that a batch call reads by index.
pub trait Inputs: Sync {
    /// How many.
    fn count(&self) -> usize;
    /// The one at `index`, which is below `count`.
    fn at(&self, index: usize) -> &[u8];
}

impl<T: AsRef<[u8]> + Sync> Inputs for [T] {
    fn count(&self) -> usize {
        self.len()
    }
    fn at(&self, index: usize) -> &[u8] {
        self[index].as_ref()
    }
}

impl<T: AsRef<[u8]> + Sync> Inputs for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }
    fn at(&self, index: usize) -> &[u8] {
        self[index].as_ref()
    }
}

/// One buffer and n + 1 ascending offsets: item i is `data[offsets[i]..offsets[i + 1]]`. A window of the offsets with
/// the whole data is as good.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    data: &'a [u8],
    offsets: &'a [u64],
}

impl<'a> Items<'a> {
    /// Checks the offsets against the data.
    ///
    /// # Errors
    /// `DigestError`: no offsets, descending ones, or ones behind the end of the data.
    pub fn new(data: &'a [u8], offsets: &'a [u64]) -> Result<Self, DigestError> {
        let Some(&last) = offsets.last() else {
            return Err(DigestError::NoOffsets);
        };
        if let Some(at) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(DigestError::OffsetsDescend { index: at + 1 });
        }
        let length = data.len();
        if usize::try_from(last).is_ok_and(|end| end <= length) {
            return Ok(Items { data, offsets });
        }
        Err(DigestError::OffsetOutOfRange { offset: last, length })
    }
}

impl Inputs for Items<'_> {
    fn count(&self) -> usize {
        self.offsets.len() - 1
    }
    fn at(&self, index: usize) -> &[u8] {
        &self.data[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }
}

/// How many inputs a thread takes at a time: below this a hand-over costs more than it saves.
const RUN: usize = 1024;
/// The same for inputs of 64 bytes.
const NODE_RUN: usize = 4096;

fn blake3_each<I: Inputs + ?Sized>(lanes: &Lanes, mode: &Blake3Mode, inputs: &I) -> Vec<Digest> {
    let mut out = vec![[0; 32]; inputs.count()];
    pool::fill_chunks(&mut out, RUN, |first, run| {
        let mut blocks = Gathered::<64>::new();
        let mut chunks = Gathered::<1024>::new();
        let mut long = Vec::new();
        for index in 0..run.len() {
            let input = inputs.at(first + index);
            if let Ok(block) = input.try_into() {
                blocks.add(lanes, mode, index, block, run);
            } else if let Ok(chunk) = input.try_into() {
                chunks.add(lanes, mode, index, chunk, run);
            } else if LONG.contains(&input.len()) {
                long.push((index, input));
                if long.len() == GROUP {
                    hash_long(lanes, mode, &long, run);
                    long.clear();
                }
            } else {
                run[index] = mode.hash(input);
            }
        }
        blocks.hash(lanes, mode, run);
        chunks.hash(lanes, mode, run);
        hash_long(lanes, mode, &long, run);
    });
    out
}

/// Lengths whose chunks are worth gathering across inputs: two chunks at least, and fewer than fill the lanes of
/// one input alone.
const LONG: std::ops::Range<usize> = 1025..8 * 1024;

/// Hashes inputs of several chunks: the whole chunks of one place together, the rest of each input by itself.
fn hash_long(lanes: &Lanes, mode: &Blake3Mode, inputs: &[(usize, &[u8])], out: &mut [Digest]) {
    // By place, then by input.
    let mut values = [[[0; 32]; GROUP]; 8];
    let (mut gathered, mut members) = (Vec::with_capacity(GROUP), [0; GROUP]);
    for (number, values) in values.iter_mut().enumerate() {
        gathered.clear();
        for (member, (_, input)) in inputs.iter().enumerate() {
            if let Some(chunk) = input.as_chunks::<1024>().0.get(number) {
                members[gathered.len()] = member;
                gathered.push(chunk);
            }
        }
        let mut found = [[0; 32]; GROUP];
        lanes.blake3_chunks(mode, number as u64, &gathered, &mut found);
        for (member, value) in members.iter().zip(found).take(gathered.len()) {
            values[*member] = value;
        }
    }
    for (member, (index, input)) in inputs.iter().enumerate() {
        let mut values = values.each_ref().map(|values| values[member]);
        let (chunks, rest) = input.as_chunks::<1024>();
        let mut count = chunks.len();
        if !rest.is_empty() {
            values[count] = mode.chaining_value(count as u64, rest);
            count += 1;
        }
        out[*index] = mode.root(&values[..count]);
    }
}

/// Inputs of one size that fill lanes, waiting for company.
struct Gathered<'a, const N: usize> {
    inputs: Vec<&'a [u8; N]>,
    indices: [usize; GROUP],
}

impl<'a, const N: usize> Gathered<'a, N> {
    fn new() -> Self {
        Gathered { inputs: Vec::new(), indices: [0; GROUP] }
    }

    fn add(&mut self, lanes: &Lanes, mode: &Blake3Mode, index: usize, input: &'a [u8; N], out: &mut [Digest]) {
        self.indices[self.inputs.len()] = index;
        self.inputs.push(input);
        if self.inputs.len() == GROUP {
            self.hash(lanes, mode, out);
        }
    }

    fn hash(&mut self, lanes: &Lanes, mode: &Blake3Mode, out: &mut [Digest]) {
        let mut digests = [[0; 32]; GROUP];
        lanes.blake3(mode, &self.inputs, &mut digests);
        for (index, digest) in self.indices.iter().zip(digests).take(self.inputs.len()) {
            out[*index] = digest;
        }
        self.inputs.clear();
    }
}

fn sha256_each<I: Inputs + ?Sized>(lanes: &Lanes, prefix: Option<u8>, inputs: &I) -> Vec<Digest> {
    let mut out = vec![[0; 32]; inputs.count()];
    pool::fill_chunks(&mut out, RUN, |first, run| lanes.sha256(prefix, |index| inputs.at(first + index), run));
    out
}

/// Plain BLAKE3: transaction id, genesis, value and plaintext digests.
pub fn blake3(data: &[u8]) -> Digest {
    blake3::hash(data).into()
}

/// Plain BLAKE3 of the concatenation of `parts`.
pub fn blake3_parts(parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    parts.iter().for_each(|part| _ = hasher.update(part));
    hasher.finalize().into()
}

/// [`blake3`] of each input.
pub fn blake3_many<I: Inputs + ?Sized>(inputs: &I) -> Vec<Digest> {
    blake3_each(simd::lanes(), &Blake3Mode::PLAIN, inputs)
}

/// keyed[use](x), x being the concatenation of `parts`.
pub fn keyed(key_use: Use, parts: &[&[u8]]) -> Digest {
    if let [whole] = parts {
        return key_use.keys().mode.hash(whole);
    }
    let mut hasher = blake3::Hasher::new_keyed(&key_use.keys().key);
    parts.iter().for_each(|part| _ = hasher.update(part));
    hasher.finalize().into()
}

/// keyed[use] of what comes piece by piece.
pub fn keyed_hasher(key_use: Use) -> Hasher {
    blake3::Hasher::new_keyed(&key_use.keys().key)
}

/// keyed[use] of each input.
pub fn keyed_many<I: Inputs + ?Sized>(key_use: Use, inputs: &I) -> Vec<Digest> {
    blake3_each(simd::lanes(), &key_use.keys().mode, inputs)
}

/// keyed[use] of each 64-byte input: the nodes and leaves of the state trie.
pub fn keyed_nodes(key_use: Use, inputs: &[[u8; 64]]) -> Vec<Digest> {
    let mut out = vec![[0; 32]; inputs.len()];
    pool::fill_chunks(&mut out, NODE_RUN, |first, run| {
        simd::lanes().blake3_nodes(&key_use.keys().mode, &inputs[first..], run);
    });
    out
}

/// BLAKE3 under a secret key; a record's commitment is this of its plaintext digest under the opening key.
pub fn keyed_by(key: &[u8; 32], data: &[u8]) -> Digest {
    blake3::keyed_hash(key, data).into()
}

/// derive(use, key32, info), `info_cbor` being CBOR(info). The caller wipes what it got.
pub fn derive(key_use: Use, key: &[u8; 32], info_cbor: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_from_context_key(&key_use.keys().derive);
    hasher.update(key).update(info_cbor);
    hasher.finalize().into()
}

/// SHA-256, where RFC 6962 asks for it.
pub fn sha256(data: &[u8]) -> Digest {
    sha256_plain(None, data)
}

/// SHA-256 of each input.
pub fn sha256_many<I: Inputs + ?Sized>(inputs: &I) -> Vec<Digest> {
    sha256_each(simd::lanes(), None, inputs)
}

/// The RFC 6962 hash of a leaf: SHA-256(0x00 ‖ leaf).
pub fn sha256_leaf(leaf: &[u8]) -> Digest {
    sha256_plain(Some(0), leaf)
}

/// [`sha256_leaf`] of each input.
pub fn sha256_leaves<I: Inputs + ?Sized>(inputs: &I) -> Vec<Digest> {
    sha256_each(simd::lanes(), Some(0), inputs)
}

/// The RFC 6962 hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn sha256_node(left: &Digest, right: &Digest) -> Digest {
    let mut out = [[0; 32]];
    simd::lanes().sha256_nodes(&[[*left, *right]], &mut out);
    out[0]
}

/// [`sha256_node`] of each pair; a level of a tree gives its pairs by `level.as_chunks::<2>().0`.
pub fn sha256_nodes(pairs: &[[Digest; 2]]) -> Vec<Digest> {
    let mut out = vec![[0; 32]; pairs.len()];
    pool::fill_chunks(&mut out, NODE_RUN, |first, run| simd::lanes().sha256_nodes(&pairs[first..], run));
    out
}

/// Fills `out` from the operating system.
///
/// # Errors
/// `DigestError::NoRandomness`.
pub fn random_bytes(out: &mut [u8]) -> Result<(), DigestError> {
    getrandom::fill(out).map_err(|_| DigestError::NoRandomness)
}

/// N fresh random bytes.
///
/// # Errors
/// `DigestError::NoRandomness`.
pub fn random_array<const N: usize>() -> Result<[u8; N], DigestError> {
    let mut out = [0; N];
    random_bytes(&mut out)?;
    Ok(out)
}

/// Random bytes drawn in blocks and handed out in small pieces, for one call that needs many.
///
/// It must not outlive the call: a block kept across calls would come twice after a fork, a restored
/// snapshot or a cloned machine, and keys drawn from it with it. What was handed out is wiped.
pub struct RandomBlock {
    bytes: [u8; RandomBlock::SIZE],
    taken: usize,
}

impl RandomBlock {
    const SIZE: usize = 4096;

    /// Draws the first block.
    ///
    /// # Errors
    /// `DigestError::NoRandomness`.
    pub fn draw() -> Result<Self, DigestError> {
        let mut block = RandomBlock { bytes: [0; Self::SIZE], taken: 0 };
        random_bytes(&mut block.bytes)?;
        Ok(block)
    }

    /// The next N bytes, at most 4096; each byte is handed out once.
    ///
    /// # Errors
    /// `DigestError::NoRandomness` when a further block cannot be drawn.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], DigestError> {
        const { assert!(N <= Self::SIZE) };
        if Self::SIZE - self.taken < N {
            random_bytes(&mut self.bytes)?;
            self.taken = 0;
        }
        let mut out = [0; N];
        let piece = &mut self.bytes[self.taken..self.taken + N];
        out.copy_from_slice(piece);
        piece.zeroize();
        self.taken += N;
        Ok(out)
    }
}

impl Drop for RandomBlock {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::simd::Tier;

    fn tiers() -> Vec<Lanes> {
        Tier::ALL.into_iter().filter_map(|tier| Lanes::of(tier).ok()).collect()
    }

    #[test]
    fn the_uses_are_what_formats_md_lists() {
        // BLAKE3 over all keyed[use]("") and derive(use, 00.., "") in order of the list, from another implementation.
        let mut all = Vec::new();
        for (number, key_use) in Use::ALL.into_iter().enumerate() {
            assert_eq!(key_use as usize, number);
            assert_eq!(Use::from_name(key_use.name()), Ok(key_use));
            all.extend(keyed(key_use, &[]));
            all.extend(derive(key_use, &[0; 32], &[]));
        }
        assert_eq!(hex::encode(blake3(&all)), "e3a989498fa89cd0fe65714cd447672be4ee80ef337b049032066afb6763a48f");
        assert_eq!(Use::KeyCommitment.ctx(), "ehrfast 2026-11 key-commitment v1");
        assert_eq!(Use::from_name("Leaf"), Err(DigestError::UnknownUse));
    }

    #[test]
    fn parts_hash_like_their_concatenation() {
        assert_eq!(keyed(Use::Leaf, &[b"ab", b"", b"c"]), keyed(Use::Leaf, &[b"abc"]));
        assert_eq!(keyed(Use::Leaf, &[]), keyed(Use::Leaf, &[b""]));
        assert_eq!(blake3_parts(&[b"ab", b"c"]), blake3(b"abc"));
        assert_ne!(keyed(Use::Leaf, &[b"abc"]), keyed(Use::Node, &[b"abc"]));
    }

    #[test]
    fn offsets_must_ascend_within_the_data() {
        let data = [0; 10];
        assert_eq!(Items::new(&data, &[]).unwrap_err(), DigestError::NoOffsets);
        assert_eq!(Items::new(&data, &[0, 5, 4, 10]).unwrap_err(), DigestError::OffsetsDescend { index: 2 });
        assert_eq!(Items::new(&data, &[0, 11]).unwrap_err(), DigestError::OffsetOutOfRange { offset: 11, length: 10 });
        assert_eq!(
            Items::new(&data, &[0, u64::MAX]).unwrap_err(),
            DigestError::OffsetOutOfRange { offset: u64::MAX, length: 10 }
        );
        assert_eq!(Items::new(&data, &[4]).unwrap().count(), 0);
        assert_eq!(Items::new(&data, &[3, 9]).unwrap().at(0).len(), 6);
        assert_eq!(Items::new(&[], &[0]).unwrap().count(), 0);
        let items = Items::new(&data, &[0, 0, 4, 10]).unwrap();
        assert_eq!((0..items.count()).map(|at| items.at(at).len()).collect::<Vec<_>>(), [0, 4, 6]);
    }

    #[test]
    fn batches_longer_than_a_run_equal_one_by_one() {
        for count in [0, 1, RUN - 1, RUN, RUN + 1, 2 * NODE_RUN + 3] {
            let nodes: Vec<[u8; 64]> = (0..count).map(|number| [(number % 251) as u8; 64]).collect();
            let expected: Vec<_> = nodes.iter().map(|node| keyed(Use::Node, &[node])).collect();
            assert!(keyed_nodes(Use::Node, &nodes) == expected, "{count}");
            assert!(keyed_many(Use::Node, &nodes) == expected, "{count}");
            let pairs: Vec<[Digest; 2]> = (0..count).map(|number| [[(number % 241) as u8; 32], [7; 32]]).collect();
            let expected: Vec<_> =
                pairs.iter().map(|[left, right]| sha256_plain(Some(1), &[*left, *right].concat())).collect();
            assert!(sha256_nodes(&pairs) == expected, "{count}");
        }
        let [left, right] = [[1; 32], [2; 32]];
        assert_eq!(sha256_node(&left, &right), sha256_plain(Some(1), &[left, right].concat()));
    }

    fn lengths() -> impl Strategy<Value = Vec<usize>> {
        let near = prop_oneof![Just(0usize), Just(64), Just(64), Just(1024), 0usize..200, 1000usize..1100];
        prop::collection::vec(near, 0..200)
    }

    proptest! {
        #[test]
        fn every_tier_equals_its_serial_twin(lengths in lengths(), seed in any::<u8>()) {
            let inputs: Vec<Vec<u8>> = (lengths.iter().enumerate())
                .map(|(number, length)| (0..*length).map(|at| (number * 7 + at) as u8 ^ seed).collect())
                .collect();
            for lanes in tiers() {
                let keyed_mode = &Use::Leaf.keys().mode;
                let plain: Vec<_> = inputs.iter().map(|input| blake3(input)).collect();
                let keyed: Vec<_> = inputs.iter().map(|input| keyed(Use::Leaf, &[input])).collect();
                let sha: Vec<_> = inputs.iter().map(|input| sha256(input)).collect();
                let leaf: Vec<_> = inputs.iter().map(|input| sha256_leaf(input)).collect();
                prop_assert_eq!(blake3_each(&lanes, &Blake3Mode::PLAIN, &inputs), plain);
                prop_assert_eq!(blake3_each(&lanes, keyed_mode, &inputs), keyed);
                prop_assert_eq!(sha256_each(&lanes, None, &inputs), sha);
                prop_assert_eq!(sha256_each(&lanes, Some(0), &inputs), leaf);
            }
        }
    }

    #[test]
    fn inputs_of_several_chunks_equal_one_by_one() {
        let lengths = (1..=9).flat_map(|chunks| [-65, -64, -1, 0, 1, 64, 65].map(|more| chunks * 1024 + more));
        let inputs: Vec<Vec<u8>> = lengths.map(|length| (0..length).map(|at| (at * at / 7) as u8).collect()).collect();
        for lanes in tiers() {
            for inputs in
                [&inputs[..], &inputs[..GROUP - 1], &inputs[20..21], &[inputs.clone(), inputs.clone()].concat()]
            {
                let plain: Vec<_> = inputs.iter().map(|input| blake3(input)).collect();
                let keyed: Vec<_> = inputs.iter().map(|input| keyed(Use::Leaf, &[input])).collect();
                assert_eq!(blake3_each(&lanes, &Blake3Mode::PLAIN, inputs), plain);
                assert_eq!(blake3_each(&lanes, &Use::Leaf.keys().mode, inputs), keyed);
            }
        }
    }

    #[test]
    fn random_bytes_do_not_repeat() {
        let mut block = RandomBlock::draw().unwrap();
        let drawn: std::collections::HashSet<[u8; 24]> = (0..1000).map(|_| block.take().unwrap()).collect();
        assert_eq!(drawn.len(), 1000);
        assert!(!drawn.contains(&[0; 24]));
        assert_ne!(random_array::<32>().unwrap(), random_array::<32>().unwrap());
        assert!(block.take::<4096>().unwrap().iter().any(|byte| *byte != 0));
    }

    #[test]
    fn what_a_block_hands_out_is_wiped_in_it() {
        let mut block = RandomBlock::draw().unwrap();
        let _ = block.take::<32>().unwrap();
        assert_eq!(block.bytes[..32], [0; 32]);
        assert_ne!(block.bytes[32..64], [0; 32]);
    }
}
