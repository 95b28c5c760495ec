//! BLAKE3 and SHA-256, one by one and over many inputs at once, and the only source of randomness.
//! Owns the list of uses (`ctx` of formats.md): no hash of ours is keyed or derived outside it.

use std::sync::OnceLock;

use blake3::hazmat::HasherExt as _;
use sha2::Digest as _;
use thiserror::Error;
use zeroize::Zeroize;

use crate::pool;

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
    /// The offsets leave bytes before the first or behind the last item.
    #[error("{count} bytes belong to no item")]
    BytesOutsideItems {
        /// How many.
        count: usize,
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
    /// Key of one entry of the key store.
    Entry,
    /// Key of one piece of a large content.
    Piece,
    /// Key of a sealed batch of transactions.
    Batch,
    /// Keys of the search index.
    Index,
}

impl Use {
    /// All of them, in order of declaration.
    pub const ALL: [Use; 17] = [
        Use::Path,
        Use::Leaf,
        Use::Node,
        Use::Blind,
        Use::Timer,
        Use::Pack,
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
            Use::ALL.map(|listed| Keys {
                hash: blake3::derive_key(&listed.ctx(), b""),
                derive: blake3::hazmat::hash_derive_key_context(&listed.ctx()),
            })
        });
        &all[self as usize]
    }
}

/// Both are functions of the public context string alone, so they are no secrets.
struct Keys {
    hash: [u8; 32],
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

/// One buffer and n + 1 ascending offsets: item i is `data[offsets[i]..offsets[i + 1]]`, and every byte belongs to one.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    data: &'a [u8],
    offsets: &'a [u64],
}

impl<'a> Items<'a> {
    /// Checks the offsets against the data.
    ///
    /// # Errors
    /// `DigestError`: no offsets, descending ones, or ones that do not cover the data exactly.
    pub fn new(data: &'a [u8], offsets: &'a [u64]) -> Result<Self, DigestError> {
        let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
            return Err(DigestError::NoOffsets);
        };
        if let Some(at) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(DigestError::OffsetsDescend { index: at + 1 });
        }
        let length = data.len();
        let end = match usize::try_from(last) {
            Ok(end) if end <= length => end,
            _ => return Err(DigestError::OffsetOutOfRange { offset: last, length }),
        };
        // The first is not above the last, so it fits as well.
        let outside = length - end + first as usize;
        if outside > 0 {
            return Err(DigestError::BytesOutsideItems { count: outside });
        }
        Ok(Items { data, offsets })
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
const RUN: usize = 512;

fn digests<I: Inputs + ?Sized>(inputs: &I, hash: impl Fn(&[u8]) -> Digest + Sync) -> Vec<Digest> {
    let mut out = vec![[0; 32]; inputs.count()];
    pool::fill_chunks(&mut out, RUN, |first, run| {
        run.iter_mut().enumerate().for_each(|(at, digest)| *digest = hash(inputs.at(first + at)));
    });
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
    digests(inputs, blake3)
}

/// keyed[use](x), x being the concatenation of `parts`.
pub fn keyed(key_use: Use, parts: &[&[u8]]) -> Digest {
    if let [whole] = parts {
        return blake3::keyed_hash(&key_use.keys().hash, whole).into();
    }
    let mut hasher = blake3::Hasher::new_keyed(&key_use.keys().hash);
    parts.iter().for_each(|part| _ = hasher.update(part));
    hasher.finalize().into()
}

/// keyed[use] of each input.
pub fn keyed_many<I: Inputs + ?Sized>(key_use: Use, inputs: &I) -> Vec<Digest> {
    digests(inputs, |data| keyed(key_use, &[data]))
}

/// keyed[use] of each 64-byte input: the nodes and leaves of the state trie.
pub fn keyed_nodes(key_use: Use, inputs: &[[u8; 64]]) -> Vec<Digest> {
    keyed_many(key_use, inputs)
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
    sha2::Sha256::digest(data).into()
}

/// SHA-256 of each input.
pub fn sha256_many<I: Inputs + ?Sized>(inputs: &I) -> Vec<Digest> {
    digests(inputs, sha256)
}

/// The RFC 6962 hash of a leaf: SHA-256(0x00 ‖ leaf).
pub fn sha256_leaf(leaf: &[u8]) -> Digest {
    sha2::Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

/// [`sha256_leaf`] of each input.
pub fn sha256_leaves<I: Inputs + ?Sized>(inputs: &I) -> Vec<Digest> {
    digests(inputs, sha256_leaf)
}

/// The RFC 6962 hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn sha256_node(left: &Digest, right: &Digest) -> Digest {
    sha2::Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// [`sha256_node`] of each pair; a level of a tree gives its pairs by `level.as_chunks::<2>().0`.
pub fn sha256_nodes(pairs: &[[Digest; 2]]) -> Vec<Digest> {
    let mut out = vec![[0; 32]; pairs.len()];
    pool::fill_chunks(&mut out, RUN, |first, run| {
        run.iter_mut().zip(&pairs[first..]).for_each(|(digest, [left, right])| *digest = sha256_node(left, right));
    });
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
