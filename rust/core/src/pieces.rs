//! Seals a content of any length in pieces of 1 MiB, one at a time, and opens it again piece by piece.
//! Owns the shape of such an item: what is authenticated, a sealed head that says what the content is, then the pieces.
//! Refuses a piece at another place, twice, left out, or cut off: its key names its index and whether it is the last.
//! Before: a stream. After: an item that lies outside its pack, with digest, wraps and commitment like any other.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::cbor::{self, Reader, Writer};
use crate::digest::{self, Digest, Use};
use crate::envelope::{ClassKey, EnvelopeError, Outside, Place, Recipient, commitment, open_wraps, seal_wraps_of};

/// Bytes of content in every piece but the last.
pub const PIECE_BYTES: usize = 1 << 20;
/// Bytes of content in all pieces of one item.
pub const MAX_STREAM_BYTES: u64 = 2 << 30;
/// Bytes of the head.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
/// What sealing adds to a piece, and to the head.
pub const TAG_BYTES: usize = 16;
/// Bytes of the protected header with its length in front, at most.
pub const MAX_LEAD_BYTES: usize = 80;

/// Ours: AES-256-GCM in pieces, each under a key of its own.
pub const A256GCM_PIECES: i64 = -65539;
const ALGORITHM_HEADER: i64 = 1;
const KEY_COMMITMENT_HEADER: i64 = -65537;
const HEAD_BYTES_HEADER: i64 = -65540;
const EMPTY_INFO: &[u8] = &[0x80];

type Key = Zeroizing<[u8; 32]>;

/// Why sealing or opening in pieces is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PiecesError {
    /// A place, recipient, wrap or commitment that does not hold.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Not the one encoding of the front of an item.
    #[error("not an item in pieces")]
    Malformed(#[from] cbor::Error),
    /// More than [`MAX_STREAM_BYTES`] of content.
    #[error("more than {MAX_STREAM_BYTES} bytes of content")]
    TooLarge,
    /// A head above [`MAX_HEAD_BYTES`].
    #[error("a head of {bytes} bytes")]
    HeadTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// This piece does not open here: changed, cut, of another item, at another index, or not the last.
    #[error("piece {index} does not open")]
    Piece {
        /// Which piece, from 0.
        index: u64,
    },
    /// The pieces ended before the last one.
    #[error("the last piece is missing after {pieces}")]
    Unfinished {
        /// How many were opened.
        pieces: u64,
    },
    /// Something follows the last piece.
    #[error("bytes after the last piece")]
    AfterLast,
}

/// What is authenticated with the head and every piece.
struct Context {
    content_key: Key,
    aad: Vec<u8>,
}

impl Context {
    fn new(content_key: Key, protected: &[u8], place: &Place<'_>) -> Result<Self, PiecesError> {
        let external_aad = place.external_aad()?;
        let mut writer = Writer::with_capacity(24 + protected.len() + external_aad.len());
        writer.array(3).text("Pieces")?.bytes(protected).bytes(&external_aad);
        Ok(Context { content_key, aad: writer.into_bytes() })
    }

    /// key = derive("piece", content key, info); used for one message, so the nonce is zero.
    fn key(&self, info: &[u8]) -> Result<(LessSafeKey, Nonce), EnvelopeError> {
        let key = Zeroizing::new(digest::derive(Use::Piece, &self.content_key, info));
        let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| EnvelopeError::CannotOpen)?;
        Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key([0; NONCE_LEN])))
    }

    /// Appends `content`, sealed.
    fn seal(&self, info: &[u8], content: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        let (key, nonce) = self.key(info)?;
        let start = out.len();
        out.extend_from_slice(content);
        let body = out.get_mut(start..).unwrap_or_default();
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&self.aad), body);
        out.extend_from_slice(tag.map_err(|_| EnvelopeError::CannotOpen)?.as_ref());
        Ok(())
    }

    fn open(&self, info: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
        let (key, nonce) = self.key(info)?;
        let mut content = Zeroizing::new(sealed.to_vec());
        let opened = key.open_in_place(nonce, Aad::from(&self.aad), &mut content);
        let length = opened.map_err(|_| EnvelopeError::CannotOpen)?.len();
        content.truncate(length);
        Ok(content)
    }
}

/// CBOR [index, last].
fn piece_info(index: u64, last: bool) -> Vec<u8> {
    let mut writer = Writer::with_capacity(12);
    writer.array(2).uint(index).boolean(last);
    writer.into_bytes()
}

fn protected_header(key_commitment: &Digest, head_bytes: usize) -> Vec<u8> {
    let mut writer = Writer::with_capacity(64);
    writer.map(3).int(ALGORITHM_HEADER).int(A256GCM_PIECES);
    writer.int(KEY_COMMITMENT_HEADER).bytes(key_commitment);
    writer.int(HEAD_BYTES_HEADER).uint(head_bytes as u64);
    writer.into_bytes()
}

/// The front of an item as read: what stands in clear, and how long the sealed head behind it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    protected: Vec<u8>,
    key_commitment: Digest,
    head_bytes: usize,
}

impl Lead {
    /// Reads it from the start of an item; whatever follows is not looked at.
    ///
    /// # Errors
    /// Whatever is not the one encoding, `HeadTooLarge`.
    pub fn read(item: &[u8]) -> Result<Self, PiecesError> {
        let front = item.get(..item.len().min(MAX_LEAD_BYTES)).unwrap_or_default();
        let mut reader = Reader::new(front, MAX_LEAD_BYTES)?;
        let protected = reader.bytes()?;
        let mut header = Reader::new(protected, MAX_LEAD_BYTES)?;
        header.map_of(3)?;
        header.expect_int(ALGORITHM_HEADER)?;
        header.expect_int(A256GCM_PIECES)?;
        header.expect_int(KEY_COMMITMENT_HEADER)?;
        let key_commitment = *header.fixed_ref()?;
        header.expect_int(HEAD_BYTES_HEADER)?;
        let bytes = header.uint()?;
        header.finish()?;
        let head_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if head_bytes > MAX_HEAD_BYTES {
            return Err(PiecesError::HeadTooLarge { bytes: head_bytes });
        }
        Ok(Lead { protected: protected.to_vec(), key_commitment, head_bytes })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(MAX_LEAD_BYTES);
        writer.bytes(&self.protected);
        writer.into_bytes()
    }

    /// Bytes before the first piece.
    pub fn front_bytes(&self) -> usize {
        self.bytes().len() + self.head_bytes + TAG_BYTES
    }
}

/// Seals one content as it comes. Dropped before `finish`, it leaves nothing that opens: the content key goes with it.
pub struct PieceSealer {
    context: Context,
    external_aad: Vec<u8>,
    opening_key: Key,
    content: blake3::Hasher,
    item: blake3::Hasher,
    held: Zeroizing<Vec<u8>>,
    index: u64,
    bytes: u64,
}

/// What sealing in pieces gives beside the item's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPieces {
    /// What its pack holds of it.
    pub outside: Outside,
    /// BLAKE3 of the content.
    pub content_digest: Digest,
    /// Bytes of the content.
    pub bytes: u64,
}

impl PieceSealer {
    /// Begins an item under a fresh content key, and gives its first bytes.
    ///
    /// # Errors
    /// `HeadTooLarge`; `Envelope`: the place, or no random bytes.
    pub fn begin(place: &Place<'_>, head: &[u8]) -> Result<(Self, Vec<u8>), PiecesError> {
        let content_key = digest::random_array().map_err(|_| EnvelopeError::NoRandomness)?;
        Self::begin_under(Zeroizing::new(content_key), place, head)
    }

    fn begin_under(content_key: Key, place: &Place<'_>, head: &[u8]) -> Result<(Self, Vec<u8>), PiecesError> {
        if head.len() > MAX_HEAD_BYTES {
            return Err(PiecesError::HeadTooLarge { bytes: head.len() });
        }
        let key_commitment = digest::derive(Use::KeyCommitment, &content_key, EMPTY_INFO);
        let opening_key = Zeroizing::new(digest::derive(Use::Opening, &content_key, EMPTY_INFO));
        let protected = protected_header(&key_commitment, head.len());
        let context = Context::new(content_key, &protected, place)?;
        let mut front = Lead { protected, key_commitment, head_bytes: head.len() }.bytes();
        context.seal(EMPTY_INFO, head, &mut front)?;
        let mut item = digest::keyed_hasher(Use::PackItem);
        item.update(&front);
        let sealer = PieceSealer {
            context,
            external_aad: place.external_aad()?,
            opening_key,
            content: blake3::Hasher::new(),
            item,
            held: Zeroizing::new(Vec::with_capacity(PIECE_BYTES)),
            index: 0,
            bytes: 0,
        };
        Ok((sealer, front))
    }

    /// Takes more content and gives the pieces that are certainly not the last.
    ///
    /// # Errors
    /// `TooLarge`; nothing more may be done with it then.
    pub fn update(&mut self, mut content: &[u8]) -> Result<Vec<u8>, PiecesError> {
        let bytes = self.bytes.saturating_add(content.len() as u64);
        if bytes > MAX_STREAM_BYTES {
            return Err(PiecesError::TooLarge);
        }
        self.bytes = bytes;
        self.content.update(content);
        let mut out = Vec::new();
        while !content.is_empty() {
            if self.held.len() == PIECE_BYTES {
                self.seal_held(false, &mut out)?;
            }
            let (now, later) = content.split_at(content.len().min(PIECE_BYTES - self.held.len()));
            self.held.extend_from_slice(now);
            content = later;
        }
        self.item.update(&out);
        Ok(out)
    }

    fn seal_held(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), PiecesError> {
        self.context.seal(&piece_info(self.index, last), &self.held, out)?;
        self.index = self.index.saturating_add(1);
        self.held.clear();
        Ok(())
    }

    /// Gives the last piece, and what the pack needs; the content key is wrapped for `recipients`.
    ///
    /// # Errors
    /// `Envelope`: the recipients.
    pub fn finish(mut self, class: &str, recipients: &[Recipient]) -> Result<(Vec<u8>, SealedPieces), PiecesError> {
        let mut out = Vec::new();
        self.seal_held(true, &mut out)?;
        self.item.update(&out);
        let content_digest: Digest = self.content.finalize().into();
        let wraps = seal_wraps_of(class, recipients, &self.context.content_key, &self.external_aad)?;
        let outside = Outside {
            item_digest: self.item.finalize().into(),
            wraps,
            commitment: commitment(&self.opening_key, &content_digest),
        };
        Ok((out, SealedPieces { outside, content_digest, bytes: self.bytes }))
    }
}

impl fmt::Debug for PieceSealer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PieceSealer").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Opens one item, piece after piece.
pub struct PieceOpener {
    context: Context,
    opening_key: Key,
    content: blake3::Hasher,
    head: Zeroizing<Vec<u8>>,
    index: u64,
    finished: bool,
}

impl PieceOpener {
    /// Opens the front of an item: `front` is its first [`Lead::front_bytes`] bytes.
    ///
    /// # Errors
    /// `Envelope`: no wrap for this key, or one that does not open; `Malformed`.
    pub fn begin(front: &[u8], wraps: &[u8], key: &ClassKey, place: &Place<'_>) -> Result<Self, PiecesError> {
        let lead = Lead::read(front)?;
        let content_key = open_wraps(wraps, key, &place.external_aad()?)?;
        if digest::derive(Use::KeyCommitment, &content_key, EMPTY_INFO) != lead.key_commitment {
            return Err(EnvelopeError::CommitmentMismatch.into());
        }
        let opening_key = Zeroizing::new(digest::derive(Use::Opening, &content_key, EMPTY_INFO));
        let context = Context::new(content_key, &lead.protected, place)?;
        if front.len() != lead.front_bytes() {
            return Err(EnvelopeError::CannotOpen.into());
        }
        let sealed = front.get(lead.bytes().len()..).unwrap_or_default();
        let head = context.open(EMPTY_INFO, sealed)?;
        Ok(PieceOpener { context, opening_key, content: blake3::Hasher::new(), head, index: 0, finished: false })
    }

    /// What the item says its content is.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Opens the next piece: all of its sealed bytes, a full piece unless it is the last.
    ///
    /// # Errors
    /// `Piece`, `AfterLast`, `TooLarge`.
    pub fn open(&mut self, sealed: &[u8], last: bool) -> Result<Zeroizing<Vec<u8>>, PiecesError> {
        let refused = PiecesError::Piece { index: self.index };
        if self.finished {
            return Err(PiecesError::AfterLast);
        }
        let full = sealed.len() == PIECE_BYTES + TAG_BYTES;
        // The one cut: only the last piece is shorter, and it is empty only where there is no content at all.
        let empty = sealed.len() == TAG_BYTES && self.index > 0;
        if sealed.len() > PIECE_BYTES + TAG_BYTES || (!last && !full) || empty {
            return Err(refused);
        }
        if self.index >= MAX_STREAM_BYTES / PIECE_BYTES as u64 {
            return Err(PiecesError::TooLarge);
        }
        let content = self.context.open(&piece_info(self.index, last), sealed).map_err(|_| refused)?;
        self.content.update(&content);
        self.index = self.index.saturating_add(1);
        self.finished = last;
        Ok(content)
    }

    /// Whether the last piece was opened and the whole is what the state commits to; gives the opening key.
    ///
    /// # Errors
    /// `Unfinished`; `Envelope`: `CommitmentMismatch`.
    pub fn finish(&self, expected: &Digest) -> Result<&[u8; 32], PiecesError> {
        if !self.finished {
            return Err(PiecesError::Unfinished { pieces: self.index });
        }
        match commitment(&self.opening_key, &self.content.finalize().into()) == *expected {
            true => Ok(&self.opening_key),
            false => Err(EnvelopeError::CommitmentMismatch.into()),
        }
    }
}

impl fmt::Debug for PieceOpener {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PieceOpener").field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::envelope::ClassId;
    use crate::pinned::pinned;

    const SIZES: [usize; 6] = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 17];
    const SEALED: usize = PIECE_BYTES + TAG_BYTES;

    /// One of the pinned items, its place, content and keys as in tests/reference/pieces.py.
    struct Sample {
        key: Arc<ClassKey>,
        class: String,
        number: u8,
        content: Vec<u8>,
    }

    impl Sample {
        fn new(number: u8, size: usize) -> Self {
            let class = format!("Class-{number}");
            let epoch = digest::blake3(&[number])[..16].try_into().unwrap();
            let id = ClassId { subject: [number; 16], custodian: [255 - number; 16], class: class.clone(), epoch };
            let mut content = vec![0; size];
            blake3::Hasher::new().update(b"content").update(&[number]).finalize_xof().fill(&mut content);
            Sample { key: Arc::new(ClassKey::derive(&[number; 32], id).unwrap()), class, number, content }
        }

        fn place(&self) -> Place<'_> {
            let origin = "main-00000000000000000000000000000000";
            Place { origin, record_id: [self.number; 16], version: u64::from(self.number) + 1, class: &self.class }
        }

        fn head(&self) -> Vec<u8> {
            format!("{{\"resourceType\":\"Binary\",\"id\":\"{}\"}}", self.number).into_bytes()
        }

        /// The item under a fixed content key, from content that comes in parts of these sizes, over and over.
        fn seal(&self, parts: &[usize]) -> (Vec<u8>, SealedPieces) {
            let content_key = Zeroizing::new(digest::blake3_parts(&[b"content key", &[self.number]]));
            let (mut sealer, mut item) = PieceSealer::begin_under(content_key, &self.place(), &self.head()).unwrap();
            let (mut left, mut sizes) = (self.content.as_slice(), parts.iter().cycle());
            while !left.is_empty() {
                let (now, later) = left.split_at(*sizes.next().unwrap().min(&left.len()));
                item.extend(sealer.update(now).unwrap());
                left = later;
            }
            let (last, sealed) = sealer.finish(&self.class, &[Recipient::Class(Arc::clone(&self.key))]).unwrap();
            item.extend(last);
            (item, sealed)
        }

        fn seal_at_once(&self) -> (Vec<u8>, SealedPieces) {
            self.seal(&[usize::MAX])
        }

        /// Front and pieces, cut where a reader that knows the item's length cuts them.
        fn open(&self, item: &[u8], sealed: &SealedPieces) -> Result<Vec<u8>, PiecesError> {
            let front_bytes = Lead::read(item)?.front_bytes().min(item.len());
            let (front, rest) = item.split_at(front_bytes);
            let mut opener = PieceOpener::begin(front, &sealed.outside.wraps, &self.key, &self.place())?;
            assert_eq!(opener.head(), self.head());
            let mut content = Vec::new();
            let mut pieces: Vec<&[u8]> = rest.chunks(SEALED).collect();
            let last = pieces.pop().unwrap_or_default();
            for piece in pieces {
                content.extend_from_slice(&opener.open(piece, false)?);
            }
            content.extend_from_slice(&opener.open(last, true)?);
            opener.finish(&sealed.outside.commitment)?;
            Ok(content)
        }
    }

    #[test]
    fn generated_items_are_the_pinned_ones() {
        let mut hashers = [(); 3].map(|()| blake3::Hasher::new());
        for (number, size) in SIZES.into_iter().enumerate() {
            let sample = Sample::new(u8::try_from(number).unwrap(), size);
            let (item, sealed) = sample.seal_at_once();
            let parts: [&[u8]; 3] = [&item, &sealed.outside.item_digest, &sealed.outside.commitment];
            for (hasher, part) in hashers.iter_mut().zip(parts) {
                hasher.update(&u32::try_from(part.len()).unwrap().to_be_bytes()).update(part);
            }
            if number == 1 {
                assert_eq!(hex::encode(&item), pinned("pieces", "example_item"));
                assert_eq!(hex::encode(&sealed.outside.wraps), pinned("pieces", "example_wraps"));
            }
        }
        for (name, hasher) in ["items", "item_digests", "commitments"].into_iter().zip(hashers) {
            assert_eq!(hasher.finalize().to_hex().as_str(), pinned("pieces", name), "{name}");
        }
    }

    #[test]
    fn every_size_at_a_boundary_opens_again() {
        for (number, size) in SIZES.into_iter().enumerate() {
            let sample = Sample::new(u8::try_from(number).unwrap(), size);
            let (item, sealed) = sample.seal_at_once();
            let pieces = size.div_ceil(PIECE_BYTES).max(1);
            assert_eq!(item.len(), Lead::read(&item).unwrap().front_bytes() + size + pieces * TAG_BYTES);
            assert_eq!(sealed.bytes, size as u64);
            assert_eq!(sealed.content_digest, digest::blake3(&sample.content));
            assert_eq!(sealed.outside.item_digest, digest::keyed(Use::PackItem, &[&item]));
            assert!(sample.open(&item, &sealed).unwrap() == sample.content);
        }
    }

    #[test]
    fn more_than_the_cap_is_refused_on_both_ways() {
        let sample = Sample::new(3, PIECE_BYTES);
        let (mut sealer, _) = PieceSealer::begin(&sample.place(), b"").unwrap();
        sealer.bytes = MAX_STREAM_BYTES - 2;
        assert!(sealer.update(&[1, 2]).is_ok());
        assert_eq!(sealer.update(&[3]), Err(PiecesError::TooLarge));
        let (item, sealed) = sample.seal_at_once();
        let (front, piece) = item.split_at(Lead::read(&item).unwrap().front_bytes());
        let mut opener = PieceOpener::begin(front, &sealed.outside.wraps, &sample.key, &sample.place()).unwrap();
        opener.index = MAX_STREAM_BYTES / PIECE_BYTES as u64;
        assert_eq!(opener.open(piece, true).err(), Some(PiecesError::TooLarge));
    }

    #[test]
    fn the_last_piece_must_come_and_nothing_after_it() {
        let sample = Sample::new(4, PIECE_BYTES + 1);
        let (item, sealed) = sample.seal_at_once();
        let (front, rest) = item.split_at(Lead::read(&item).unwrap().front_bytes());
        let (first, last) = rest.split_at(SEALED);
        let begin = || PieceOpener::begin(front, &sealed.outside.wraps, &sample.key, &sample.place()).unwrap();
        let mut opener = begin();
        opener.open(first, false).unwrap();
        assert_eq!(opener.finish(&sealed.outside.commitment).err(), Some(PiecesError::Unfinished { pieces: 1 }));
        opener.open(last, true).unwrap();
        assert!(opener.finish(&sealed.outside.commitment).is_ok());
        assert_eq!(opener.finish(&[7; 32]).err(), Some(PiecesError::Envelope(EnvelopeError::CommitmentMismatch)));
        assert_eq!(opener.open(last, true).err(), Some(PiecesError::AfterLast));
        assert_eq!(begin().open(first, true).err(), Some(PiecesError::Piece { index: 0 }));
    }

    #[test]
    fn no_two_sealings_share_a_key() {
        let sample = Sample::new(5, 4096);
        let sealed = || {
            let (mut sealer, front) = PieceSealer::begin(&sample.place(), b"head").unwrap();
            assert!(sealer.update(&sample.content).unwrap().is_empty());
            (front, sealer.finish(&sample.class, &[Recipient::Class(Arc::clone(&sample.key))]).unwrap().0)
        };
        let ((first_front, first), (second_front, second)) = (sealed(), sealed());
        assert_ne!(first_front, second_front);
        let same = first.iter().zip(&second).filter(|(one, other)| one == other).count();
        assert!(same < 200, "{same} of {} bytes are the same", first.len());
    }

    /// What somebody who holds the item, and not its key, could do to its pieces.
    #[derive(Clone, Debug)]
    enum Tampering {
        Swap(usize, usize),
        Drop(usize),
        Repeat(usize),
        Cut(usize),
        Append(usize),
        Flip(usize),
    }

    fn tampered(item: &[u8], how: &Tampering) -> Vec<u8> {
        let (front, rest) = item.split_at(Lead::read(item).unwrap().front_bytes());
        let mut pieces: Vec<Vec<u8>> = rest.chunks(SEALED).map(<[u8]>::to_vec).collect();
        let count = pieces.len();
        match *how {
            Tampering::Swap(one, other) => pieces.swap(one % count, other % count),
            Tampering::Drop(at) => _ = pieces.remove(at % count),
            Tampering::Repeat(at) => pieces.insert(at % count, pieces[at % count].clone()),
            Tampering::Append(bytes) => pieces.push(vec![0; 1 + bytes % (2 * SEALED)]),
            Tampering::Cut(bytes) => return item[..item.len() - 1 - bytes % rest.len()].to_vec(),
            Tampering::Flip(bit) => {
                let mut changed = item.to_vec();
                changed[bit / 8 % item.len()] ^= 1 << (bit % 8);
                return changed;
            }
        }
        [front.to_vec(), pieces.concat()].concat()
    }

    fn tamperings() -> impl Strategy<Value = Tampering> {
        prop_oneof![
            (0..4_usize, 0..4_usize).prop_map(|(one, other)| Tampering::Swap(one, other)),
            (0..4_usize).prop_map(Tampering::Drop),
            (0..4_usize).prop_map(Tampering::Repeat),
            any::<usize>().prop_map(Tampering::Cut),
            any::<usize>().prop_map(Tampering::Append),
            any::<usize>().prop_map(Tampering::Flip),
        ]
    }

    fn sizes() -> impl Strategy<Value = usize> {
        let near = (0..4_usize, 0..3_usize).prop_map(|(pieces, by)| (pieces * PIECE_BYTES + by).saturating_sub(1));
        prop_oneof![3 => near, 1 => 0..3 * PIECE_BYTES]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn however_the_content_comes_the_item_is_the_same(
            number in any::<u8>(),
            size in sizes(),
            parts in prop::collection::vec(prop_oneof![1..8_usize, 1..2 * PIECE_BYTES], 1..5),
        ) {
            prop_assume!(parts.iter().any(|part| *part > 10_000) || size < 50_000);
            let sample = Sample::new(number, size);
            let (streamed, at_once) = (sample.seal(&parts), sample.seal_at_once());
            prop_assert!(streamed == at_once);
            prop_assert!(sample.open(&streamed.0, &streamed.1).unwrap() == sample.content);
        }

        #[test]
        fn pieces_swapped_dropped_repeated_cut_or_changed_are_refused(
            number in any::<u8>(),
            size in sizes(),
            how in tamperings(),
        ) {
            let sample = Sample::new(number, size);
            let (item, sealed) = sample.seal_at_once();
            let changed = tampered(&item, &how);
            prop_assume!(changed != item);
            prop_assert!(sample.open(&changed, &sealed).is_err());
        }
    }
}
