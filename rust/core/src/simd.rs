//! Which instructions hash many inputs, chosen at run time, and the only unsafe code of the core.
//! Every tier gives the same bytes: each is compared with the plain form before its first use, and a tier that
//! differs is not used. `EHRFAST_SIMD` forces a tier; Ed25519 below us chooses for itself.

use std::sync::OnceLock;

use blake3::hazmat::{self, HasherExt as _};
use blake3::platform::Platform;
use sha2::Digest as _;
use thiserror::Error;

use crate::digest::Digest;

/// What is wrong with `EHRFAST_SIMD`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SimdError {
    /// Not the name of a tier.
    #[error("EHRFAST_SIMD is none of portable, avx2, avx512")]
    UnknownTier {
        /// What it was set to.
        setting: String,
    },
    /// This processor lacks the instructions of the tier.
    #[error("this processor has no {}", tier.name())]
    Unsupported {
        /// The tier asked for.
        tier: Tier,
    },
}

/// A set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// What every processor of the architecture has.
    Portable,
    /// Eight BLAKE3 lanes; SHA instructions where the processor has them.
    Avx2,
    /// Sixteen BLAKE3 lanes; SHA instructions where the processor has them.
    Avx512,
}

impl Tier {
    /// From the plainest on.
    pub const ALL: [Tier; 3] = [Tier::Portable, Tier::Avx2, Tier::Avx512];

    /// The name that `EHRFAST_SIMD` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Tier::Portable => "portable",
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
        }
    }
}

/// The tier that `EHRFAST_SIMD` names, or the best one of this processor.
///
/// # Errors
/// `SimdError` for an unknown name, and for a tier this processor lacks.
pub fn configured_tier() -> Result<Tier, SimdError> {
    let setting = match std::env::var("EHRFAST_SIMD") {
        Ok(setting) => setting,
        Err(std::env::VarError::NotPresent) => {
            return Ok(Tier::ALL.into_iter().rev().find(|tier| platform(*tier).is_some()).unwrap_or(Tier::Portable));
        }
        Err(std::env::VarError::NotUnicode(raw)) => raw.to_string_lossy().into_owned(),
    };
    match Tier::ALL.into_iter().find(|tier| tier.name() == setting) {
        None => Err(SimdError::UnknownTier { setting }),
        Some(tier) if platform(tier).is_none() => Err(SimdError::Unsupported { tier }),
        Some(tier) => Ok(tier),
    }
}

fn platform(tier: Tier) -> Option<Platform> {
    match tier {
        // Outside x86-64 blake3 chooses at compile time among what the whole architecture has.
        Tier::Portable if cfg!(target_arch = "x86_64") => Some(Platform::portable()),
        Tier::Portable => Some(Platform::detect()),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => Platform::avx2(),
        #[cfg(not(target_arch = "x86_64"))]
        Tier::Avx2 => None,
        // The constructor is there only where blake3's build found a compiler for it.
        Tier::Avx512 => Some(Platform::detect()).filter(|detected| detected.simd_degree() == 16),
    }
}

/// The lanes of one tier.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    tier: Tier,
    blake3: Option<Platform>,
    #[cfg(target_arch = "x86_64")]
    sha: Option<sha_ni::ShaNi>,
}

/// The lanes of the configured tier. A wrong setting counts as portable here; loading the module refuses it.
pub fn lanes() -> &'static Lanes {
    static LANES: OnceLock<Lanes> = OnceLock::new();
    LANES.get_or_init(|| {
        configured_tier().and_then(Lanes::of).unwrap_or(Lanes {
            tier: Tier::Portable,
            blake3: None,
            #[cfg(target_arch = "x86_64")]
            sha: None,
        })
    })
}

/// How BLAKE3 is started: without a key, or keyed.
#[derive(Clone, Copy, Debug)]
pub struct Blake3Mode {
    key: Option<[u8; 32]>,
    words: [u32; 8],
    flags: u8,
}

impl Blake3Mode {
    /// Plain BLAKE3.
    pub const PLAIN: Blake3Mode = Blake3Mode {
        key: None,
        // The initial value of BLAKE3 (and of SHA-256).
        words: [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19],
        flags: 0,
    };

    /// BLAKE3 under this key.
    pub fn keyed(key: &[u8; 32]) -> Self {
        const KEYED_HASH: u8 = 1 << 4;
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Blake3Mode { key: Some(*key), words, flags: KEYED_HASH }
    }

    /// One input of any length.
    pub fn hash(&self, data: &[u8]) -> Digest {
        match &self.key {
            None => blake3::hash(data).into(),
            Some(key) => blake3::keyed_hash(key, data).into(),
        }
    }

    /// The chaining value of one chunk, of at most 1024 bytes, that is not the root.
    pub fn chaining_value(&self, number: u64, chunk: &[u8]) -> Digest {
        let mut hasher = self.key.as_ref().map_or_else(blake3::Hasher::new, blake3::Hasher::new_keyed);
        hasher.set_input_offset(number * 1024).update(chunk).finalize_non_root()
    }

    /// The digest over the chaining values of an input's chunks, two at least.
    pub fn root(&self, chunks: &[Digest]) -> Digest {
        let (left, right) = self.subtrees(chunks);
        hazmat::merge_subtrees_root(&left, &right, self.hazmat()).into()
    }

    fn subtrees(&self, chunks: &[Digest]) -> (Digest, Digest) {
        let left = chunks.len().div_ceil(2).next_power_of_two().min(chunks.len());
        let (left, right) = chunks.split_at(left);
        (self.subtree(left), self.subtree(right))
    }

    fn subtree(&self, chunks: &[Digest]) -> Digest {
        match chunks {
            [chunk] => *chunk,
            [] => [0; 32],
            _ => {
                let (left, right) = self.subtrees(chunks);
                hazmat::merge_subtrees_non_root(&left, &right, self.hazmat())
            }
        }
    }

    fn hazmat(&self) -> hazmat::Mode<'_> {
        self.key.as_ref().map_or(hazmat::Mode::Hash, hazmat::Mode::KeyedHash)
    }
}

const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;

/// How many references are gathered for one call into the lanes: whole groups of every tier's degree.
pub const GROUP: usize = 64;

impl Lanes {
    /// The lanes of `tier`, compared with the plain forms.
    ///
    /// # Errors
    /// `SimdError::Unsupported`.
    pub fn of(tier: Tier) -> Result<Self, SimdError> {
        let blake3 = platform(tier).ok_or(SimdError::Unsupported { tier })?;
        let lanes = Lanes {
            tier,
            blake3: Some(blake3),
            #[cfg(target_arch = "x86_64")]
            sha: if tier == Tier::Portable { None } else { sha_ni::ShaNi::detect() },
        };
        Ok(lanes.without_what_differs())
    }

    /// Which tier this is.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// BLAKE3 of inputs of N bytes, N being 64 or 1024: whole blocks within one chunk, so that the root flags come
    /// with the last block. Fills as many digests as both sides have room for.
    pub fn blake3<const N: usize>(&self, mode: &Blake3Mode, inputs: &[&[u8; N]], out: &mut [Digest]) {
        const ROOT: u8 = 8;
        const { assert!(N.is_multiple_of(64) && N > 0 && N <= 1024) };
        let count = inputs.len().min(out.len());
        let (inputs, out) = (&inputs[..count], &mut out[..count]);
        match &self.blake3 {
            // Five to seven inputs in eight lanes are faster than in four and one by one.
            Some(platform) if platform.simd_degree() == 8 && count % 8 >= 5 => {
                let whole = count - count % 8;
                self.blake3(mode, &inputs[..whole], &mut out[..whole]);
                let mut padded = [inputs[count - 1]; 8];
                padded[..count - whole].copy_from_slice(&inputs[whole..]);
                let mut digests = [[0; 32]; 8];
                self.blake3(mode, &padded, &mut digests);
                out[whole..].copy_from_slice(&digests[..count - whole]);
            }
            Some(platform) => platform.hash_many(
                inputs,
                &mode.words,
                0,
                blake3::IncrementCounter::No,
                mode.flags,
                CHUNK_START,
                CHUNK_END | ROOT,
                out.as_flattened_mut(),
            ),
            None => inputs.iter().zip(out).for_each(|(input, digest)| *digest = mode.hash(*input)),
        }
    }

    /// The chaining values of chunks that are not the root, `number` being the place of each in its own input.
    pub fn blake3_chunks(&self, mode: &Blake3Mode, number: u64, chunks: &[&[u8; 1024]], out: &mut [Digest]) {
        let count = chunks.len().min(out.len());
        let (chunks, out) = (&chunks[..count], &mut out[..count]);
        match &self.blake3 {
            Some(platform) => platform.hash_many(
                chunks,
                &mode.words,
                number,
                blake3::IncrementCounter::No,
                mode.flags,
                CHUNK_START,
                CHUNK_END,
                out.as_flattened_mut(),
            ),
            None => chunks.iter().zip(out).for_each(|(chunk, value)| *value = mode.chaining_value(number, *chunk)),
        }
    }

    /// BLAKE3 of adjacent inputs of 64 bytes.
    pub fn blake3_nodes(&self, mode: &Blake3Mode, inputs: &[[u8; 64]], out: &mut [Digest]) {
        for (inputs, out) in inputs.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
            let mut references = [&[0; 64]; GROUP];
            for (reference, input) in references.iter_mut().zip(inputs) {
                *reference = input;
            }
            self.blake3(mode, &references[..inputs.len()], out);
        }
    }

    /// SHA-256 of (prefix ‖ input at each index), the prefix being empty or one byte.
    pub fn sha256<'a>(&self, prefix: Option<u8>, input_at: impl Fn(usize) -> &'a [u8], out: &mut [Digest]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(sha) = &self.sha {
            return sha.hash_many(prefix, input_at, out);
        }
        out.iter_mut().enumerate().for_each(|(index, digest)| *digest = sha256_plain(prefix, input_at(index)));
    }

    /// SHA-256(0x01 ‖ left ‖ right) of each pair.
    pub fn sha256_nodes(&self, pairs: &[[Digest; 2]], out: &mut [Digest]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(sha) = &self.sha {
            return sha.hash_nodes(pairs, out);
        }
        for (pair, digest) in pairs.iter().zip(out) {
            *digest = sha256_plain(Some(1), pair.as_flattened());
        }
    }

    /// blake3 offers its lanes without a promise, and processors have had faults: a wrong hash must never be signed.
    fn without_what_differs(mut self) -> Self {
        if !blake3_agrees(
            |mode, inputs, out| self.blake3(mode, inputs, out),
            |mode, inputs, out| {
                self.blake3(mode, inputs, out);
            },
        ) || !chunks_agree(|mode, number, chunks, out| self.blake3_chunks(mode, number, chunks, out))
        {
            self.blake3 = None;
        }
        #[cfg(target_arch = "x86_64")]
        if !sha256_agrees(
            |inputs, out| self.sha256(Some(0), |index| inputs[index], out),
            |pairs, out| self.sha256_nodes(pairs, out),
        ) {
            self.sha = None;
        }
        self
    }
}

/// Enough for one whole group of the widest tier, and a rest.
const COMPARED: usize = 19;

fn patterns() -> Vec<[u8; 1024]> {
    let mut byte = 1u8;
    let mut next = || {
        byte = byte.wrapping_mul(5).wrapping_add(113);
        byte
    };
    (0..COMPARED).map(|_| std::array::from_fn(|_| next())).collect()
}

fn blake3_agrees(
    of_blocks: impl Fn(&Blake3Mode, &[&[u8; 64]], &mut [Digest]),
    of_chunks: impl Fn(&Blake3Mode, &[&[u8; 1024]], &mut [Digest]),
) -> bool {
    let patterns = patterns();
    let chunks: Vec<&[u8; 1024]> = patterns.iter().collect();
    let blocks: Vec<&[u8; 64]> = patterns.iter().filter_map(|pattern| pattern.last_chunk()).collect();
    [Blake3Mode::PLAIN, Blake3Mode::keyed(&[7; 32])].iter().all(|mode| {
        let (mut block_digests, mut chunk_digests) = ([[0; 32]; COMPARED], [[0; 32]; COMPARED]);
        of_blocks(mode, &blocks, &mut block_digests);
        of_chunks(mode, &chunks, &mut chunk_digests);
        blocks.iter().zip(block_digests).all(|(block, digest)| mode.hash(*block) == digest)
            && chunks.iter().zip(chunk_digests).all(|(chunk, digest)| mode.hash(*chunk) == digest)
    })
}

fn chunks_agree(of_chunks: impl Fn(&Blake3Mode, u64, &[&[u8; 1024]], &mut [Digest])) -> bool {
    let patterns = patterns();
    let chunks: Vec<&[u8; 1024]> = patterns.iter().collect();
    [Blake3Mode::PLAIN, Blake3Mode::keyed(&[7; 32])].iter().all(|mode| {
        [0, 1, u64::from(u32::MAX)].into_iter().all(|number| {
            let mut values = [[0; 32]; COMPARED];
            of_chunks(mode, number, &chunks, &mut values);
            chunks.iter().zip(values).all(|(chunk, value)| mode.chaining_value(number, *chunk) == value)
        })
    })
}

#[cfg(any(target_arch = "x86_64", test))]
fn sha256_agrees(
    of_leaves: impl Fn(&[&[u8]], &mut [Digest]),
    of_nodes: impl Fn(&[[Digest; 2]], &mut [Digest]),
) -> bool {
    let patterns = patterns();
    let leaves: Vec<&[u8]> = patterns.iter().enumerate().map(|(index, pattern)| &pattern[..index * 17]).collect();
    let (mut digests, mut node_digests) = ([[0; 32]; COMPARED], [[0; 32]; COMPARED]);
    of_leaves(&leaves, &mut digests);
    let pairs: Vec<[Digest; 2]> = (0..COMPARED).map(|at| [digests[at], digests[(at * 7 + 1) % COMPARED]]).collect();
    of_nodes(&pairs, &mut node_digests);
    leaves.iter().zip(digests).all(|(leaf, digest)| sha256_plain(Some(0), leaf) == digest)
        && pairs.iter().zip(node_digests).all(|(pair, digest)| sha256_plain(Some(1), pair.as_flattened()) == digest)
}

/// SHA-256 of one input after at most one byte of prefix, by the library.
pub fn sha256_plain(prefix: Option<u8>, data: &[u8]) -> Digest {
    let hasher = sha2::Sha256::new();
    match prefix {
        None => hasher.chain_update(data).finalize().into(),
        Some(byte) => hasher.chain_update([byte]).chain_update(data).finalize().into(),
    }
}

#[cfg(target_arch = "x86_64")]
mod sha_ni {
    //! SHA-256 by the SHA instructions, several messages in flight: one message alone waits for the result of
    //! each pair of rounds, so a second and third one cost almost nothing.

    use std::arch::x86_64::*;

    use super::sha256_plain;
    use crate::digest::Digest;

    /// Messages of any length in flight: two keep the rounds busy, more only spill registers.
    const LANES: usize = 2;
    /// Nodes in flight: their second block needs no schedule, which leaves room for more.
    const NODE_LANES: usize = 4;

    /// FIPS 180-4, 4.2.2.
    const ROUND: [u32; 64] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
        0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
        0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
        0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
        0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
        0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
        0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    ];

    /// The second block of a 65-byte message holds one free byte, so there are 256 of them; their schedules with the
    /// round constants already added spare a third of the work on it.
    static NODE_TAIL: [[u32; 64]; 256] = node_tails();

    const fn node_tails() -> [[u32; 64]; 256] {
        let mut tables = [[0; 64]; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut words = [0u32; 64];
            words[0] = (byte as u32) << 24 | 0x80 << 16;
            words[15] = 65 * 8;
            let mut at = 16;
            while at < 64 {
                let (before, recent) = (words[at - 15], words[at - 2]);
                let low = before.rotate_right(7) ^ before.rotate_right(18) ^ (before >> 3);
                let high = recent.rotate_right(17) ^ recent.rotate_right(19) ^ (recent >> 10);
                words[at] = words[at - 16].wrapping_add(low).wrapping_add(words[at - 7]).wrapping_add(high);
                at += 1;
            }
            at = 0;
            while at < 64 {
                tables[byte][at] = words[at].wrapping_add(ROUND[at]);
                at += 1;
            }
            byte += 1;
        }
        tables
    }

    /// Proof that this processor has the SHA instructions: only `detect` makes one.
    #[derive(Clone, Copy, Debug)]
    pub struct ShaNi(());

    /// The two halves of a state as the instructions want them: ABEF and CDGH.
    type State = [__m128i; 2];

    impl ShaNi {
        pub fn detect() -> Option<Self> {
            (is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3"))
                .then_some(ShaNi(()))
        }

        pub fn hash_nodes(self, pairs: &[[Digest; 2]], out: &mut [Digest]) {
            // SAFETY: a ShaNi exists only on a processor with these instructions.
            unsafe { hash_nodes(pairs, out) }
        }

        /// Whenever a message ends, its lane takes up the next one, so lengths may be mixed freely. At the end the
        /// last few messages go on in fewer lanes.
        pub fn hash_many<'a>(self, prefix: Option<u8>, input_at: impl Fn(usize) -> &'a [u8], out: &mut [Digest]) {
            let count = out.len();
            if count < LANES {
                return (out.iter_mut().enumerate())
                    .for_each(|(index, digest)| *digest = sha256_plain(prefix, input_at(index)));
            }
            let mut next = LANES;
            let mut streams: [Stream<'a>; LANES] =
                std::array::from_fn(|index| Stream::new(prefix, input_at(index), index));
            // SAFETY: a ShaNi exists only on a processor with these instructions.
            let mut states = [unsafe { initial() }; LANES];
            loop {
                let mut padded = [[0; 64]; LANES];
                let mut blocks = [&[0; 64]; LANES];
                for ((block, stream), padded) in blocks.iter_mut().zip(&streams).zip(&mut padded) {
                    *block = stream.block(padded);
                }
                // SAFETY: as above.
                unsafe { compress(&mut states, blocks) };
                streams.iter_mut().for_each(|stream| stream.block += 1);
                for lane in 0..LANES {
                    let stream = &mut streams[lane];
                    if stream.block < stream.blocks {
                        continue;
                    }
                    // SAFETY: as above.
                    out[stream.index] = unsafe { finish(states[lane]) };
                    if next == count {
                        // The others are finished one by one, from where they are.
                        for other in (0..LANES).filter(|other| *other != lane) {
                            let (stream, state) = (&mut streams[other], &mut states[other]);
                            while stream.block < stream.blocks {
                                let mut padded = [0; 64];
                                // SAFETY: as above.
                                unsafe { compress(std::array::from_mut(state), [stream.block(&mut padded)]) };
                                stream.block += 1;
                            }
                            // SAFETY: as above.
                            out[stream.index] = unsafe { finish(*state) };
                        }
                        return;
                    }
                    *stream = Stream::new(prefix, input_at(next), next);
                    // SAFETY: as above.
                    states[lane] = unsafe { initial() };
                    next += 1;
                }
            }
        }
    }

    /// A message cut into blocks.
    struct Stream<'a> {
        prefix: Option<u8>,
        data: &'a [u8],
        index: usize,
        block: usize,
        blocks: usize,
    }

    impl<'a> Stream<'a> {
        fn new(prefix: Option<u8>, data: &'a [u8], index: usize) -> Self {
            let length = data.len() + usize::from(prefix.is_some());
            Stream { prefix, data, index, block: 0, blocks: (length + 1 + 8).div_ceil(64) }
        }

        /// The current block: the data itself where it lies whole in it, else put together in `padded` (all zero).
        fn block<'b>(&self, padded: &'b mut [u8; 64]) -> &'b [u8; 64]
        where
            'a: 'b,
        {
            let prefix_length = usize::from(self.prefix.is_some());
            let length = self.data.len() + prefix_length;
            let start = self.block * 64;
            if start >= prefix_length
                && let Some(whole) = self.data.get(start - prefix_length..).and_then(|rest| rest.first_chunk())
            {
                return whole;
            }
            let mut at = 0;
            if let (0, Some(byte)) = (start, self.prefix) {
                padded[0] = byte;
                at = 1;
            }
            let rest = self.data.get(start + at - prefix_length..).unwrap_or(&[]);
            let taken = rest.len().min(64 - at);
            padded[at..at + taken].copy_from_slice(&rest[..taken]);
            if (start..start + 64).contains(&length) {
                padded[length - start] = 0x80;
            }
            if self.block + 1 == self.blocks {
                padded[56..].copy_from_slice(&(length as u64 * 8).to_be_bytes());
            }
            padded
        }
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn initial() -> State {
        // FIPS 180-4, 5.3.3, in the order of the instructions.
        [
            _mm_set_epi32(0x6a09e667, 0xbb67ae85_u32 as i32, 0x510e527f, 0x9b05688c_u32 as i32),
            _mm_set_epi32(0x3c6ef372, 0xa54ff53a_u32 as i32, 0x1f83d9ab, 0x5be0cd19),
        ]
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn finish([abef, cdgh]: State) -> Digest {
        let feba = _mm_shuffle_epi32(abef, 0b00_01_10_11);
        let dchg = _mm_shuffle_epi32(cdgh, 0b10_11_00_01);
        let abcd = swap_bytes(_mm_blend_epi16(feba, dchg, 0b1111_0000));
        let efgh = swap_bytes(_mm_alignr_epi8(dchg, feba, 8));
        let mut digest = [0; 32];
        // SAFETY: both halves lie inside the 32 bytes; the stores need no alignment.
        unsafe {
            _mm_storeu_si128(digest.as_mut_ptr().cast(), abcd);
            _mm_storeu_si128(digest.as_mut_ptr().add(16).cast(), efgh);
        }
        digest
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn swap_bytes(words: __m128i) -> __m128i {
        _mm_shuffle_epi8(words, _mm_set_epi64x(0x0c0d0e0f_08090a0b, 0x04050607_00010203))
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn load(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: sixteen readable bytes; the load needs no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn load_words(words: &[u32; 4]) -> __m128i {
        // SAFETY: sixteen readable bytes; the load needs no alignment.
        unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
    }

    /// One block into each state.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn compress<const N: usize>(states: &mut [State; N], blocks: [&[u8; 64]; N]) {
        let words = blocks.map(|block| {
            let quarters = block.as_chunks::<16>().0;
            [0, 1, 2, 3].map(|quarter| swap_bytes(load(&quarters[quarter])))
        });
        compress_words(states, words);
    }

    /// Sixteen steps of four rounds, the lanes side by side in each.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    #[inline]
    fn compress_words<const N: usize>(states: &mut [State; N], mut words: [[__m128i; 4]; N]) {
        let before = *states;
        macro_rules! four_rounds {
            ($($step:literal)*) => {$(
                let round = load_words(&[ROUND[4 * $step], ROUND[4 * $step + 1], ROUND[4 * $step + 2], ROUND[4 * $step + 3]]);
                for lane in 0..N {
                    let [abef, cdgh] = &mut states[lane];
                    let w = &mut words[lane];
                    let sum = _mm_add_epi32(w[$step % 4], round);
                    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
                    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(sum, 0b00_00_11_10));
                    if $step < 12 {
                        let (second, third, fourth) = (w[($step + 1) % 4], w[($step + 2) % 4], w[($step + 3) % 4]);
                        let partial = _mm_sha256msg1_epu32(w[$step % 4], second);
                        let partial = _mm_add_epi32(partial, _mm_alignr_epi8(fourth, third, 4));
                        w[$step % 4] = _mm_sha256msg2_epu32(partial, fourth);
                    }
                }
            )*};
        }
        four_rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for (state, before) in states.iter_mut().zip(before) {
            *state = [_mm_add_epi32(state[0], before[0]), _mm_add_epi32(state[1], before[1])];
        }
    }

    /// A block whose schedule is known: only the rounds.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    #[inline]
    fn compress_scheduled<const N: usize>(states: &mut [State; N], schedules: [&[u32; 64]; N]) {
        let before = *states;
        for step in 0..16 {
            for lane in 0..N {
                let [abef, cdgh] = &mut states[lane];
                let sum = load_words(&schedules[lane].as_chunks::<4>().0[step]);
                *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
                *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(sum, 0b00_00_11_10));
            }
        }
        for (state, before) in states.iter_mut().zip(before) {
            *state = [_mm_add_epi32(state[0], before[0]), _mm_add_epi32(state[1], before[1])];
        }
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn hash_nodes(pairs: &[[Digest; 2]], out: &mut [Digest]) {
        let count = pairs.len().min(out.len());
        let (fours, rest) = pairs[..count].as_chunks::<NODE_LANES>();
        let (four_digests, rest_digests) = out[..count].as_chunks_mut::<NODE_LANES>();
        for (group, digests) in fours.iter().zip(four_digests) {
            *digests = hash_node_group(group.each_ref());
        }
        let (twos, rest) = rest.as_chunks::<2>();
        let (two_digests, rest_digests) = rest_digests.as_chunks_mut::<2>();
        for (group, digests) in twos.iter().zip(two_digests) {
            *digests = hash_node_group(group.each_ref());
        }
        for (pair, digest) in rest.iter().zip(rest_digests) {
            [*digest] = hash_node_group([pair]);
        }
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    #[inline]
    fn hash_node_group<const N: usize>(pairs: [&[Digest; 2]; N]) -> [Digest; N] {
        let mut states = [initial(); N];
        let bytes: [&[u8]; N] = pairs.map(|pair| pair.as_flattened());
        let words = bytes.map(|pair| {
            // Everything is one byte later than in the pair, behind the prefix.
            let at = |start: usize| pair[start..].first_chunk().map_or(_mm_setzero_si128(), |chunk| load(chunk));
            let first = _mm_or_si128(_mm_slli_si128(at(0), 1), _mm_set_epi32(0, 0, 0, 1));
            [swap_bytes(first), swap_bytes(at(15)), swap_bytes(at(31)), swap_bytes(at(47))]
        });
        compress_words(&mut states, words);
        compress_scheduled(&mut states, bytes.map(|pair| &NODE_TAIL[usize::from(pair[63])]));
        states.map(|state| finish(state))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tiers() -> Vec<Lanes> {
        Tier::ALL.into_iter().filter_map(|tier| Lanes::of(tier).ok()).collect()
    }

    fn inputs<const N: usize>(count: usize) -> Vec<[u8; N]> {
        (0..count).map(|number| std::array::from_fn(|at| (number * 31 + at * 7 + at / 256) as u8)).collect()
    }

    #[test]
    fn every_tier_of_this_processor_is_really_used() {
        assert!(!tiers().is_empty());
        for lanes in tiers() {
            assert!(lanes.blake3.is_some(), "{:?}", lanes.tier);
            #[cfg(target_arch = "x86_64")]
            assert_eq!(
                lanes.sha.is_some(),
                lanes.tier != Tier::Portable && sha_ni::ShaNi::detect().is_some(),
                "{:?}",
                lanes.tier
            );
        }
    }

    #[test]
    fn blake3_lanes_equal_one_by_one() {
        for lanes in tiers() {
            for mode in [Blake3Mode::PLAIN, Blake3Mode::keyed(&[9; 32])] {
                for count in (0..=35).chain([63, 64, 65, 129]) {
                    let blocks = inputs::<64>(count);
                    let mut digests = vec![[0; 32]; count];
                    lanes.blake3_nodes(&mode, &blocks, &mut digests);
                    assert!(blocks.iter().zip(&digests).all(|(block, digest)| mode.hash(block) == *digest), "{count}");
                    let chunks = inputs::<1024>(count);
                    let references: Vec<_> = chunks.iter().collect();
                    lanes.blake3(&mode, &references, &mut digests);
                    assert!(chunks.iter().zip(&digests).all(|(chunk, digest)| mode.hash(chunk) == *digest), "{count}");
                }
            }
        }
    }

    #[test]
    fn a_short_output_is_filled_and_no_more() {
        for lanes in tiers() {
            let blocks = inputs::<64>(9);
            let references: Vec<_> = blocks.iter().collect();
            let mut digests = [[0; 32]; 5];
            lanes.blake3(&Blake3Mode::PLAIN, &references, &mut digests);
            assert_eq!(digests[4], Blake3Mode::PLAIN.hash(&blocks[4]));
            let mut digests = [[1; 32]; 9];
            lanes.blake3(&Blake3Mode::PLAIN, &references[..7], &mut digests);
            assert_eq!(digests[7..], [[1; 32]; 2]);
            let pairs = vec![[[3; 32]; 2]; 7];
            let mut nodes = [[0; 32]; 3];
            lanes.sha256_nodes(&pairs, &mut nodes);
            assert_eq!(nodes, [sha256_plain(Some(1), &[3; 64]); 3]);
            let mut nodes = [[0; 32]; 9];
            lanes.sha256_nodes(&pairs, &mut nodes);
            assert_eq!(nodes[7..], [[0; 32]; 2]);
        }
    }

    #[test]
    fn sha256_lanes_equal_the_library_for_every_length() {
        let bytes: Vec<u8> = inputs::<1024>(1)[0].to_vec();
        for lanes in tiers() {
            for prefix in [None, Some(0), Some(1), Some(255)] {
                let mut digests = vec![[0; 32]; 300];
                lanes.sha256(prefix, |index| &bytes[index..index + index], &mut digests);
                for (index, digest) in digests.iter().enumerate() {
                    assert_eq!(*digest, sha256_plain(prefix, &bytes[index..2 * index]), "{index} {prefix:?}");
                }
            }
        }
    }

    #[test]
    fn sha256_lanes_finish_whatever_ends_first() {
        let bytes = [5u8; 700];
        for lanes in tiers() {
            for lengths in [
                &[][..],
                &[3],
                &[0, 0],
                &[600, 0],
                &[0, 600],
                &[64, 64, 600],
                &[600, 1, 2, 3],
                &[1, 600, 2, 3],
                &[1, 2, 600, 3, 599],
                &[55, 56, 63, 64, 65, 119, 120],
            ] {
                let mut digests = vec![[0; 32]; lengths.len()];
                lanes.sha256(None, |index| &bytes[..lengths[index]], &mut digests);
                let expected: Vec<_> = lengths.iter().map(|length| sha256_plain(None, &bytes[..*length])).collect();
                assert_eq!(digests, expected, "{lengths:?}");
            }
        }
    }

    #[test]
    fn sha256_nodes_equal_the_library_for_every_last_byte() {
        for lanes in tiers() {
            for count in (0..20).chain([256]) {
                let pairs: Vec<[Digest; 2]> = (0..count)
                    .map(|number| {
                        let mut right = sha256_plain(None, &[number as u8, 2]);
                        right[31] = number as u8;
                        [sha256_plain(None, &[number as u8, 1]), right]
                    })
                    .collect();
                let mut digests = vec![[0; 32]; count];
                lanes.sha256_nodes(&pairs, &mut digests);
                for (pair, digest) in pairs.iter().zip(&digests) {
                    assert_eq!(*digest, sha256_plain(Some(1), pair.as_flattened()));
                }
            }
        }
    }

    #[test]
    fn one_wrong_bit_in_any_lane_is_noticed_before_first_use() {
        let blocks = |mode: &Blake3Mode, inputs: &[&[u8; 64]], out: &mut [Digest]| {
            inputs.iter().zip(out).for_each(|(input, digest)| *digest = mode.hash(*input));
        };
        let chunks = |mode: &Blake3Mode, inputs: &[&[u8; 1024]], out: &mut [Digest]| {
            inputs.iter().zip(out).for_each(|(input, digest)| *digest = mode.hash(*input));
        };
        let leaves = |inputs: &[&[u8]], out: &mut [Digest]| {
            inputs.iter().zip(out).for_each(|(input, digest)| *digest = sha256_plain(Some(0), input));
        };
        let nodes = |pairs: &[[Digest; 2]], out: &mut [Digest]| {
            pairs.iter().zip(out).for_each(|(pair, digest)| *digest = sha256_plain(Some(1), pair.as_flattened()));
        };
        let values = |mode: &Blake3Mode, number: u64, chunks: &[&[u8; 1024]], out: &mut [Digest]| {
            chunks.iter().zip(out).for_each(|(chunk, value)| *value = mode.chaining_value(number, *chunk));
        };
        assert!(blake3_agrees(blocks, chunks) && chunks_agree(values) && sha256_agrees(leaves, nodes));
        for lane in 0..COMPARED {
            let flip = |out: &mut [Digest]| out[lane][31] ^= 1;
            assert!(
                !chunks_agree(|m, n, i, o| {
                    values(m, n, i, o);
                    flip(o)
                }),
                "{lane}"
            );
            assert!(
                !blake3_agrees(
                    |m, i, o| {
                        blocks(m, i, o);
                        flip(o)
                    },
                    chunks
                ),
                "{lane}"
            );
            assert!(
                !blake3_agrees(blocks, |m, i, o| {
                    chunks(m, i, o);
                    flip(o)
                }),
                "{lane}"
            );
            assert!(
                !sha256_agrees(
                    |i, o| {
                        leaves(i, o);
                        flip(o)
                    },
                    nodes
                ),
                "{lane}"
            );
            assert!(
                !sha256_agrees(leaves, |i, o| {
                    nodes(i, o);
                    flip(o)
                }),
                "{lane}"
            );
        }
    }
}
