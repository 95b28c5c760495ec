//! Seals records and opens them: one fresh content key each, a public commitment to it, wraps for those who may read.
//! Owns the key tree below a patient's root key. A pack is the sealed items that travel with one transaction.
//! Refuses content whose key, commitment, place or class is another; nothing is given out before all of them hold.
//! Before: `bundle` finds the ranges. After: a transaction names both roots, state holds each commitment.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aes::Aes256;
use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use aes_kw::{InnerInit, KwAes256};
use hpke::aead::{AeadTag, AesGcm256};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem as _, X25519HkdfSha256};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use crate::cbor::{self, Reader, Writer};
use crate::digest::{self, Digest, Use};
use crate::merkle::log::pack_root;
use crate::pool;

/// Most bytes of one record's content.
pub const MAX_CONTENT_BYTES: usize = 16 << 20;
/// Most wraps of one record.
pub const MAX_RECIPIENTS: usize = 256;
/// Most bytes of a class name, which is ASCII letters, digits and `- _ .`.
pub const MAX_CLASS_BYTES: usize = 64;
/// Most bytes of a chain id.
pub const MAX_ORIGIN_BYTES: usize = 50;

/// CBOR tag of COSE_Encrypt0. Source: RFC 9052.
pub const TAG_ENCRYPT0: u64 = 16;
/// COSE algorithm A256GCM. Source: RFC 9053.
pub const A256GCM: i64 = 3;
/// COSE algorithm A256KW. Source: RFC 9053.
pub const A256KW: i64 = -5;
/// Ours, for HPKE base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (RFC 9180 suite 0x20, 1, 2).
pub const HPKE_X25519: i64 = -65538;

const ALGORITHM_HEADER: i64 = 1;
const KID_HEADER: i64 = 4;
const IV_HEADER: i64 = 5;
/// Ours: the public commitment to the content key.
const KEY_COMMITMENT_HEADER: i64 = -65537;
/// The encapsulated key.
const EK_HEADER: i64 = -4;

const HPKE_INFO: &[u8] = b"ehrfast/wrap/v1";
const TAG_BYTES: usize = 16;
/// Room of everything around the ciphertext.
const ITEM_OVERHEAD: usize = 96 + TAG_BYTES;
const MAX_ITEM_BYTES: usize = MAX_CONTENT_BYTES + ITEM_OVERHEAD;
const MAX_WRAPS_BYTES: usize = MAX_RECIPIENTS * 320;
const EMPTY_INFO: &[u8] = &[0x80];
/// How many records a thread takes at a time: enough of them to fill the lanes of hashing and wrapping.
const RUN: usize = 64;
/// How many AES blocks are in flight at once.
const IN_FLIGHT: usize = 8;

type Kem = X25519HkdfSha256;
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// Why sealing or opening is refused. Positions are 0-based within the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not as many spans as drafts, or items as wraps.
    #[error("{left} and {right} differ")]
    CountsDiffer {
        /// Spans, or items.
        left: usize,
        /// Drafts, or wraps.
        right: usize,
    },
    /// A span that is not within the data.
    #[error("span {position} is outside the data")]
    SpanOutOfRange {
        /// Which span.
        position: usize,
    },
    /// Content above [`MAX_CONTENT_BYTES`].
    #[error("content {position} has {bytes} bytes")]
    TooLarge {
        /// Which draft.
        position: usize,
        /// Its size.
        bytes: usize,
    },
    /// Nobody could open it, or more than [`MAX_RECIPIENTS`].
    #[error("draft {position} has {count} recipients")]
    RecipientCount {
        /// Which draft.
        position: usize,
        /// How many it has.
        count: usize,
    },
    /// The same class key twice.
    #[error("draft {position} names a recipient twice")]
    DuplicateRecipient {
        /// Which draft.
        position: usize,
    },
    /// A key of another class than the draft's.
    #[error("draft {position} is wrapped under another class")]
    WrongClass {
        /// Which draft.
        position: usize,
    },
    /// The same record twice in one pack.
    #[error("draft {position} repeats a record")]
    DuplicateRecord {
        /// Which draft.
        position: usize,
    },
    /// A class name outside its rule.
    #[error("not a class name")]
    ClassName,
    /// A chain id outside its rule.
    #[error("not a chain id")]
    Origin,
    /// A public key that gives everyone the same secret.
    #[error("public key of small order")]
    PublicKey,
    /// Not the one encoding of an item or of wraps.
    #[error("not a sealed record")]
    Malformed(#[from] cbor::Error),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
    /// None of the wraps is for this key.
    #[error("no wrap for this key")]
    NoWrap,
    /// A wrap or ciphertext that its key does not open: other bytes, another place, or another key of that name.
    #[error("cannot be opened")]
    CannotOpen,
    /// It opens, but is not what was committed to.
    #[error("not what was committed to")]
    CommitmentMismatch,
    /// Disclosed content or opening key that the commitment does not cover.
    #[error("the opening does not hold")]
    OpeningMismatch,
    /// The root does not cover these items.
    #[error("not the items of this root")]
    RootMismatch,
    /// One of a batch.
    #[error("position {position}: {error}")]
    At {
        /// Which of the batch.
        position: usize,
        /// What is wrong with it.
        error: Box<EnvelopeError>,
    },
}

// ── the key tree ───────────────────────────────────────────────────────────────────────────────────────────────

/// Which class key: what a kid says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClassId {
    /// The patient's random id, or the custodian where there is no patient.
    pub subject: [u8; 16],
    /// The organisation that keeps the record.
    pub custodian: [u8; 16],
    /// What kind of record the key opens.
    pub class: String,
    /// The random id of its epoch.
    pub epoch: [u8; 16],
}

impl ClassId {
    /// kid = CBOR [subject, custodian, class, epoch].
    ///
    /// # Errors
    /// `EnvelopeError::ClassName`.
    pub fn kid(&self) -> Result<Vec<u8>, EnvelopeError> {
        check_class(&self.class)?;
        let mut writer = Writer::with_capacity(56 + self.class.len());
        writer.array(4).bytes(&self.subject).bytes(&self.custodian).text(&self.class)?.bytes(&self.epoch);
        Ok(writer.into_bytes())
    }

    /// Reads what [`ClassId::kid`] gives.
    ///
    /// # Errors
    /// `EnvelopeError::Malformed`.
    pub fn from_kid(kid: &[u8]) -> Result<Self, EnvelopeError> {
        let mut reader = Reader::new(kid, 64 + MAX_CLASS_BYTES)?;
        reader.array_of(4)?;
        let (subject, custodian) = (reader.fixed()?, reader.fixed()?);
        let offset = reader.offset();
        let (class, epoch) = (reader.text()?.to_owned(), reader.fixed()?);
        reader.finish()?;
        check_class(&class).map_err(|_| cbor::Error::Unexpected { offset })?;
        Ok(ClassId { subject, custodian, class, epoch })
    }
}

fn check_class(class: &str) -> Result<(), EnvelopeError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match (1..=MAX_CLASS_BYTES).contains(&class.len()) && class.bytes().all(allowed) {
        true => Ok(()),
        false => Err(EnvelopeError::ClassName),
    }
}

/// The secret of one class and epoch: opens and wraps, and receives what is sealed to its public key.
pub struct ClassKey {
    id: ClassId,
    kid: Vec<u8>,
    seed: Key,
    wrap: Aes256,
    seal_to: Key,
    public_key: OnceLock<[u8; 32]>,
}

impl ClassKey {
    /// The key of (class, epoch) under the root key of (subject, custodian).
    ///
    /// # Errors
    /// `EnvelopeError::ClassName`.
    pub fn derive(root: &[u8; 32], id: ClassId) -> Result<Self, EnvelopeError> {
        check_class(&id.class)?;
        let mut info = Writer::with_capacity(24 + id.class.len());
        info.array(2).text(&id.class)?.bytes(&id.epoch);
        let seed = Zeroizing::new(digest::derive(Use::Class, root, info.as_bytes()));
        Self::from_seed(&seed, id)
    }

    /// The same key from its class seed, which is what a grant hands over.
    ///
    /// # Errors
    /// `EnvelopeError::ClassName`.
    pub fn from_seed(seed: &[u8; 32], id: ClassId) -> Result<Self, EnvelopeError> {
        let kid = id.kid()?;
        let wrap_key = Zeroizing::new(digest::derive(Use::Wrap, seed, EMPTY_INFO));
        let seal_to = Zeroizing::new(digest::derive(Use::SealTo, seed, EMPTY_INFO));
        let wrap = Aes256::new(&(*wrap_key).into());
        Ok(ClassKey { id, kid, seed: Zeroizing::new(*seed), wrap, seal_to, public_key: OnceLock::new() })
    }

    /// What the key is for.
    pub fn id(&self) -> &ClassId {
        &self.id
    }

    /// Its kid.
    pub fn kid(&self) -> &[u8] {
        &self.kid
    }

    /// What a grant hands over.
    pub(crate) fn seed(&self) -> &Key {
        &self.seed
    }

    /// X25519; computed when first asked for.
    pub fn public_key(&self) -> [u8; 32] {
        *self.public_key.get_or_init(|| match self.private_key() {
            Ok(private) => {
                let mut public = [0; 32];
                Kem::sk_to_pk(&private).write_exact(&mut public);
                public
            }
            Err(_) => [0; 32],
        })
    }

    fn private_key(&self) -> Result<<Kem as hpke::Kem>::PrivateKey, EnvelopeError> {
        <Kem as hpke::Kem>::PrivateKey::from_bytes(&*self.seal_to).map_err(|_| EnvelopeError::CannotOpen)
    }
}

impl fmt::Debug for ClassKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ClassKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The public half of a class key: whoever has it may write for the class, not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassPublicKey {
    id: ClassId,
    kid: Vec<u8>,
    public_key: [u8; 32],
}

impl ClassPublicKey {
    /// Checks class name and key.
    ///
    /// # Errors
    /// `EnvelopeError::ClassName`, `EnvelopeError::PublicKey`.
    pub fn new(id: ClassId, public_key: [u8; 32]) -> Result<Self, EnvelopeError> {
        let kid = id.kid()?;
        let shared = curve25519_dalek::MontgomeryPoint(public_key).mul_clamped([1; 32]);
        if shared.to_bytes() == [0; 32] {
            return Err(EnvelopeError::PublicKey);
        }
        Ok(ClassPublicKey { id, kid, public_key })
    }

    /// What the key is for.
    pub fn id(&self) -> &ClassId {
        &self.id
    }

    /// Its kid.
    pub fn kid(&self) -> &[u8] {
        &self.kid
    }

    /// X25519.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }
}

/// Whom a content key is wrapped for.
#[derive(Clone, Debug)]
pub enum Recipient {
    /// Under the wrap key.
    Class(Arc<ClassKey>),
    /// Sealed to the public key.
    Public(Arc<ClassPublicKey>),
}

impl Recipient {
    fn id(&self) -> &ClassId {
        match self {
            Recipient::Class(key) => &key.id,
            Recipient::Public(key) => &key.id,
        }
    }

    fn kid(&self) -> &[u8] {
        match self {
            Recipient::Class(key) => &key.kid,
            Recipient::Public(key) => &key.kid,
        }
    }
}

// ── items ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Where a record stands; authenticated with it, so no sealed record passes for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Id of the chain it was sealed for.
    pub origin: &'a str,
    /// Random id of the record.
    pub record_id: [u8; 16],
    /// Version, from 1.
    pub version: u64,
    /// Its class.
    pub class: &'a str,
}

impl Place<'_> {
    /// external_aad = CBOR [1, origin chain id, record id, version, class].
    ///
    /// # Errors
    /// `EnvelopeError::Origin`, `EnvelopeError::ClassName`.
    pub fn external_aad(&self) -> Result<Vec<u8>, EnvelopeError> {
        if self.origin.is_empty() || self.origin.len() > MAX_ORIGIN_BYTES || !cbor::is_normal(self.origin) {
            return Err(EnvelopeError::Origin);
        }
        check_class(self.class)?;
        let mut writer = Writer::with_capacity(40 + self.origin.len() + self.class.len());
        writer.array(5).uint(1).text(self.origin)?.bytes(&self.record_id).uint(self.version).text(self.class)?;
        Ok(writer.into_bytes())
    }
}

/// What a content key gives besides encrypting.
struct Derived {
    key_commitment: Digest,
    opening_key: Key,
}

fn derive_from(content_key: &[u8; 32]) -> Derived {
    Derived {
        key_commitment: digest::derive(Use::KeyCommitment, content_key, EMPTY_INFO),
        opening_key: Zeroizing::new(digest::derive(Use::Opening, content_key, EMPTY_INFO)),
    }
}

/// The state commitment of content whose BLAKE3 digest is `content_digest`.
pub fn commitment(opening_key: &[u8; 32], content_digest: &Digest) -> Digest {
    digest::keyed_by(opening_key, content_digest)
}

/// Checks content that was disclosed with its opening key.
///
/// # Errors
/// `EnvelopeError::OpeningMismatch`.
pub fn verify_opening(content: &[u8], opening_key: &[u8; 32], expected: &Digest) -> Result<(), EnvelopeError> {
    match commitment(opening_key, &digest::blake3(content)) == *expected {
        true => Ok(()),
        false => Err(EnvelopeError::OpeningMismatch),
    }
}

fn item_protected(key_commitment: &Digest) -> Vec<u8> {
    let mut writer = Writer::with_capacity(56);
    writer.map(3).int(ALGORITHM_HEADER).int(A256GCM).int(IV_HEADER).bytes(&[0; NONCE_LEN]);
    writer.int(KEY_COMMITMENT_HEADER).bytes(key_commitment);
    writer.into_bytes()
}

/// Enc_structure. Source: RFC 9052, 5.3.
fn enc_structure(context: &[u8], protected: &[u8], external_aad: &[u8]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(24 + protected.len() + external_aad.len());
    writer.array(3).raw(context).bytes(protected).bytes(external_aad);
    writer.into_bytes()
}

pub(crate) fn item_aad(protected: &[u8], external_aad: &[u8]) -> Vec<u8> {
    enc_structure(b"\x68Encrypt0", protected, external_aad)
}

fn wrap_aad(protected: &[u8], external_aad: &[u8]) -> Vec<u8> {
    enc_structure(b"\x6dEnc_Recipient", protected, external_aad)
}

/// The key is used for this one message, so the nonce is zero.
fn aead(content_key: &[u8; 32]) -> Result<(LessSafeKey, Nonce), EnvelopeError> {
    let key = UnboundKey::new(&AES_256_GCM, content_key).map_err(|_| EnvelopeError::CannotOpen)?;
    Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key([0; NONCE_LEN])))
}

/// A sealed record as read, not yet opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    protected: &'a [u8],
    key_commitment: &'a Digest,
    ciphertext: &'a [u8],
}

impl<'a> Item<'a> {
    /// Reads the shape.
    ///
    /// # Errors
    /// Whatever is not the one encoding of a sealed record.
    pub fn decode(data: &'a [u8]) -> Result<Self, cbor::Error> {
        let mut reader = Reader::new(data, MAX_ITEM_BYTES)?;
        reader.tag(TAG_ENCRYPT0)?;
        reader.array_of(3)?;
        let protected = reader.bytes()?;
        reader.map_of(0)?;
        let offset = reader.offset();
        let ciphertext = reader.bytes()?;
        if ciphertext.len() < TAG_BYTES {
            return Err(cbor::Error::Unexpected { offset });
        }
        reader.finish()?;
        let mut header = Reader::new(protected, 64)?;
        header.map_of(3)?;
        header.expect_int(ALGORITHM_HEADER)?;
        header.expect_int(A256GCM)?;
        header.expect_int(IV_HEADER)?;
        let offset = header.offset();
        if header.fixed_ref::<NONCE_LEN>()? != &[0; NONCE_LEN] {
            return Err(cbor::Error::Unexpected { offset });
        }
        header.expect_int(KEY_COMMITMENT_HEADER)?;
        let key_commitment = header.fixed_ref()?;
        header.finish()?;
        Ok(Item { protected, key_commitment, ciphertext })
    }

    /// Opens with the content key; it must be the one committed to.
    fn open(&self, content_key: &[u8; 32], external_aad: &[u8]) -> Result<Opened, EnvelopeError> {
        let derived = derive_from(content_key);
        if derived.key_commitment != *self.key_commitment {
            return Err(EnvelopeError::CommitmentMismatch);
        }
        let (key, nonce) = aead(content_key)?;
        let mut content = Zeroizing::new(self.ciphertext.to_vec());
        let aad = item_aad(self.protected, external_aad);
        let opened = key.open_in_place(nonce, Aad::from(aad), &mut content).map_err(|_| EnvelopeError::CannotOpen)?;
        let length = opened.len();
        content.truncate(length);
        Ok(Opened { content, opening_key: derived.opening_key })
    }
}

/// Opened content; wiped when dropped.
pub struct Opened {
    /// As it was sealed.
    pub content: Zeroizing<Vec<u8>>,
    /// What lets others check the content against its commitment; secret until disclosed.
    pub opening_key: Key,
}

impl fmt::Debug for Opened {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Opened").field("bytes", &self.content.len()).finish_non_exhaustive()
    }
}

fn seal_item(
    content: &[u8],
    content_key: &[u8; 32],
    key_commitment: &Digest,
    external_aad: &[u8],
) -> Result<Vec<u8>, EnvelopeError> {
    let protected = item_protected(key_commitment);
    let mut writer = Writer::with_capacity(content.len() + ITEM_OVERHEAD);
    writer.tag(TAG_ENCRYPT0).array(3).bytes(&protected).map(0);
    writer.bytes_head(content.len() + TAG_BYTES);
    let mut item = writer.into_bytes();
    let start = item.len();
    item.extend_from_slice(content);
    let (key, nonce) = aead(content_key)?;
    let body = item.get_mut(start..).unwrap_or_default();
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(item_aad(&protected, external_aad)), body);
    item.extend_from_slice(tag.map_err(|_| EnvelopeError::CannotOpen)?.as_ref());
    Ok(item)
}

// ── wraps ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// One wrap as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrap<'a> {
    Class { kid: &'a [u8], wrapped: &'a [u8; 40] },
    Public { kid: &'a [u8], protected: &'a [u8], encapsulated: &'a [u8; 32], wrapped: &'a [u8; 48] },
}

impl<'a> Wrap<'a> {
    fn kid(&self) -> &'a [u8] {
        match self {
            Wrap::Class { kid, .. } | Wrap::Public { kid, .. } => kid,
        }
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, cbor::Error> {
        reader.array_of(3)?;
        let protected = reader.bytes()?;
        if protected.is_empty() {
            reader.map_of(2)?;
            reader.expect_int(ALGORITHM_HEADER)?;
            reader.expect_int(A256KW)?;
            reader.expect_int(KID_HEADER)?;
            let kid = reader.bytes()?;
            return Ok(Wrap::Class { kid, wrapped: reader.fixed_ref()? });
        }
        let mut header = Reader::new(protected, 256)?;
        header.map_of(3)?;
        header.expect_int(ALGORITHM_HEADER)?;
        header.expect_int(HPKE_X25519)?;
        header.expect_int(KID_HEADER)?;
        let kid = header.bytes()?;
        header.expect_int(EK_HEADER)?;
        let encapsulated = header.fixed_ref()?;
        header.finish()?;
        reader.map_of(0)?;
        Ok(Wrap::Public { kid, protected, encapsulated, wrapped: reader.fixed_ref()? })
    }

    fn open(&self, key: &ClassKey, external_aad: &[u8]) -> Result<Key, EnvelopeError> {
        let mut content_key = Zeroizing::new([0; 32]);
        match self {
            Wrap::Class { wrapped, .. } => {
                let unwrapped = KwAes256::inner_init(key.wrap.clone()).unwrap_key(*wrapped, &mut *content_key);
                unwrapped.map_err(|_| EnvelopeError::CannotOpen)?;
            }
            Wrap::Public { protected, encapsulated, wrapped, .. } => {
                let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(*encapsulated)
                    .map_err(|_| EnvelopeError::CannotOpen)?;
                let (sealed, tag) = wrapped.split_at(32);
                content_key.copy_from_slice(sealed);
                let tag = AeadTag::<AesGcm256>::from_bytes(tag).map_err(|_| EnvelopeError::CannotOpen)?;
                hpke::single_shot_open_inout_detached::<AesGcm256, HkdfSha256, Kem>(
                    &OpModeR::Base,
                    &key.private_key()?,
                    &encapsulated,
                    HPKE_INFO,
                    InOutBuf::from(&mut content_key[..]),
                    &wrap_aad(protected, external_aad),
                    &tag,
                )
                .map_err(|_| EnvelopeError::CannotOpen)?;
            }
        }
        Ok(content_key)
    }
}

/// The wraps of one record as read: in ascending order of kid, none twice.
fn read_wraps(data: &[u8]) -> Result<Vec<Wrap<'_>>, EnvelopeError> {
    let mut reader = Reader::new(data, MAX_WRAPS_BYTES)?;
    let offset = reader.offset();
    let count = reader.array()?;
    if !(1..=MAX_RECIPIENTS).contains(&count) {
        return Err(cbor::Error::OutOfRange { offset }.into());
    }
    let mut wraps: Vec<Wrap<'_>> = Vec::with_capacity(count);
    for _ in 0..count {
        let offset = reader.offset();
        let wrap = Wrap::read(&mut reader)?;
        ClassId::from_kid(wrap.kid())?;
        if wraps.last().is_some_and(|last| last.kid() >= wrap.kid()) {
            return Err(cbor::Error::KeyOrder { offset }.into());
        }
        wraps.push(wrap);
    }
    reader.finish()?;
    Ok(wraps)
}

/// Whom each wrap is for, in order.
///
/// # Errors
/// `EnvelopeError::Malformed`.
pub fn wrap_ids(wraps: &[u8]) -> Result<Vec<ClassId>, EnvelopeError> {
    read_wraps(wraps)?.iter().map(|wrap| ClassId::from_kid(wrap.kid())).collect()
}

/// The wraps without those for one subject at one custodian; `None` when no other is left.
///
/// # Errors
/// `EnvelopeError::Malformed`.
pub fn without_subject(
    wraps: &[u8],
    subject: &[u8; 16],
    custodian: &[u8; 16],
) -> Result<Option<Vec<u8>>, EnvelopeError> {
    read_wraps(wraps)?;
    let mut reader = Reader::new(wraps, MAX_WRAPS_BYTES)?;
    let mut left = Vec::new();
    for _ in 0..reader.array()? {
        let start = reader.offset();
        let id = ClassId::from_kid(Wrap::read(&mut reader)?.kid())?;
        if (&id.subject, &id.custodian) != (subject, custodian) {
            left.push(wraps.get(start..reader.offset()).unwrap_or_default());
        }
    }
    if left.is_empty() {
        return Ok(None);
    }
    let mut writer = Writer::with_capacity(wraps.len());
    writer.array(left.len());
    left.iter().for_each(|wrap| _ = writer.raw(wrap));
    Ok(Some(writer.into_bytes()))
}

/// The content key, out of the wrap for this key.
pub(crate) fn open_wraps(wraps: &[u8], key: &ClassKey, external_aad: &[u8]) -> Result<Key, EnvelopeError> {
    let wraps = read_wraps(wraps)?;
    let wrap = wraps.iter().find(|wrap| wrap.kid() == key.kid).ok_or(EnvelopeError::NoWrap)?;
    wrap.open(key, external_aad)
}

/// The wraps of one content key, for a record that is sealed by itself.
pub(crate) fn seal_wraps_of(
    class: &str,
    recipients: &[Recipient],
    content_key: &[u8; 32],
    external_aad: &[u8],
) -> Result<Vec<u8>, EnvelopeError> {
    let (class, recipients) = (class.to_owned(), recipients.to_vec());
    let draft = Draft { record_id: [0; 16], version: 0, class, recipients };
    draft.check(0)?;
    let mut wrapped = wrap_run(std::slice::from_ref(&draft), std::slice::from_ref(content_key));
    seal_wraps(wrapped.first_mut().map_or(&mut [], |wrapped| wrapped), content_key, external_aad)
}

/// A content key as wrapped, beside whom it is for: class wraps are made many at once, before this.
type Wrapped<'a> = (&'a Recipient, Option<[u8; 40]>);

fn write_wrap(
    writer: &mut Writer,
    (recipient, wrapped): Wrapped<'_>,
    content_key: &[u8; 32],
    external_aad: &[u8],
) -> Result<(), EnvelopeError> {
    match recipient {
        Recipient::Class(key) => {
            let wrapped = wrapped.ok_or(EnvelopeError::CannotOpen)?;
            writer.array(3).bytes(&[]).map(2).int(ALGORITHM_HEADER).int(A256KW).int(KID_HEADER).bytes(&key.kid);
            writer.bytes(&wrapped);
        }
        Recipient::Public(key) => {
            let public =
                <Kem as hpke::Kem>::PublicKey::from_bytes(&key.public_key).map_err(|_| EnvelopeError::PublicKey)?;
            let (encapsulated, mut context) = hpke::setup_sender_with_rng::<AesGcm256, HkdfSha256, Kem>(
                &OpModeS::Base,
                &public,
                HPKE_INFO,
                &mut Ephemeral::draw()?,
            )
            .map_err(|_| EnvelopeError::PublicKey)?;
            let mut header = Writer::with_capacity(key.kid.len() + 48);
            header.map(3).int(ALGORITHM_HEADER).int(HPKE_X25519).int(KID_HEADER).bytes(&key.kid);
            header.int(EK_HEADER).bytes(&encapsulated.to_bytes());
            let protected = header.into_bytes();
            let mut sealed = Zeroizing::new(*content_key);
            let tag = context
                .seal_inout_detached(InOutBuf::from(&mut sealed[..]), &wrap_aad(&protected, external_aad))
                .map_err(|_| EnvelopeError::PublicKey)?;
            let wrapped = [&sealed[..], &tag.to_bytes()].concat();
            writer.array(3).bytes(&protected).map(0).bytes(&wrapped);
        }
    }
    Ok(())
}

fn seal_wraps(
    wrapped: &mut [Wrapped<'_>],
    content_key: &[u8; 32],
    external_aad: &[u8],
) -> Result<Vec<u8>, EnvelopeError> {
    wrapped.sort_unstable_by(|(left, _), (right, _)| left.kid().cmp(right.kid()));
    let room = wrapped.iter().map(|(recipient, _)| recipient.kid().len() + 144).sum::<usize>();
    let mut writer = Writer::with_capacity(4 + room);
    writer.array(wrapped.len());
    for wrap in wrapped {
        write_wrap(&mut writer, *wrap, content_key, external_aad)?;
    }
    Ok(writer.into_bytes())
}

/// AES key wrap (RFC 3394) of up to [`IN_FLIGHT`] content keys under one key. Its 24 steps depend on each other, so one
/// key at a time leaves the AES unit idle; side by side they fill it.
fn wrap_keys(cipher: &Aes256, content_keys: &[&[u8; 32]], out: &mut [[u8; 40]]) {
    let mut blocks = [Block::<Aes256>::default(); IN_FLIGHT];
    for ((block, key), out) in blocks.iter_mut().zip(content_keys).zip(out.iter_mut()) {
        block[..8].fill(0xa6);
        out[8..].copy_from_slice(*key);
    }
    let count = content_keys.len().min(out.len()).min(IN_FLIGHT);
    let (blocks, out) = (&mut blocks[..count], &mut out[..count]);
    for step in 1..=24u8 {
        let register = 8 * (1 + (usize::from(step) - 1) % 4);
        for (block, out) in blocks.iter_mut().zip(out.iter()) {
            block[8..].copy_from_slice(&out[register..register + 8]);
        }
        cipher.encrypt_blocks(blocks);
        for (block, out) in blocks.iter_mut().zip(out.iter_mut()) {
            out[register..register + 8].copy_from_slice(&block[8..]);
            block[7] ^= step;
        }
    }
    for (block, out) in blocks.iter().zip(out) {
        out[..8].copy_from_slice(&block[..8]);
    }
}

/// Every recipient of a run of records, class wraps filled in, key by key.
fn wrap_run<'a>(drafts: &'a [Draft], content_keys: &[[u8; 32]]) -> Vec<Vec<Wrapped<'a>>> {
    let mut wrapped: Vec<Vec<Wrapped<'a>>> =
        drafts.iter().map(|draft| draft.recipients.iter().map(|recipient| (recipient, None)).collect()).collect();
    // Places of class wraps, those under one key side by side.
    let mut places = Vec::with_capacity(drafts.len());
    for (record, draft) in drafts.iter().enumerate() {
        for (number, recipient) in draft.recipients.iter().enumerate() {
            if let Recipient::Class(key) = recipient {
                places.push((Arc::as_ptr(key), record, number, key));
            }
        }
    }
    places.sort_unstable_by_key(|(pointer, record, number, _)| (*pointer, *record, *number));
    for same_key in places.chunk_by(|(left, ..), (right, ..)| left == right) {
        for flight in same_key.chunks(IN_FLIGHT) {
            let keys: Vec<&[u8; 32]> = flight.iter().filter_map(|(_, record, ..)| content_keys.get(*record)).collect();
            let mut made = [[0; 40]; IN_FLIGHT];
            if let Some((_, _, _, key)) = flight.first() {
                wrap_keys(&key.wrap, &keys, &mut made);
            }
            for ((_, record, number, _), made) in flight.iter().zip(made) {
                if let Some((_, slot)) = wrapped.get_mut(*record).and_then(|record| record.get_mut(*number)) {
                    *slot = Some(made);
                }
            }
        }
    }
    wrapped
}

/// Random bytes for one encapsulation, from a seed of the operating system, so that a failure to draw it is an error
/// and not a panic inside the library that asks.
pub(crate) struct Ephemeral(blake3::OutputReader);

impl Ephemeral {
    pub(crate) fn draw() -> Result<Self, EnvelopeError> {
        let seed: Key = Zeroizing::new(digest::random_array().map_err(|_| EnvelopeError::NoRandomness)?);
        Ok(Ephemeral(blake3::Hasher::new_keyed(&seed).finalize_xof()))
    }
}

impl rand_core::TryRng for Ephemeral {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Ephemeral {}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

// ── packs ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// The sealed items that travel with one transaction, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPack {
    /// One COSE_Encrypt0 a position.
    pub items: Vec<Vec<u8>>,
    /// The COSE recipients beside each item.
    pub wraps: Vec<Vec<u8>>,
    /// keyed["pack"] root over the item digests.
    pub root: [u8; 32],
    /// The root of the same shape over the wrap digests.
    pub wraps_root: [u8; 32],
    /// State commitments by position; empty when the pack came from elsewhere.
    pub commitments: Vec<[u8; 32]>,
    /// Digests of the items whose bytes lie outside the pack, by position; `items` is empty there.
    pub outside: BTreeMap<usize, Digest>,
}

/// What is left of an item or of its wraps: the bytes, or their digest once they were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Still there.
    Kept(&'a [u8]),
    /// Removed.
    Removed(Digest),
}

/// Digest of an item or of the wraps beside it; it stands for them once they are removed.
pub fn part_digest(bytes: &[u8]) -> Digest {
    digest::keyed(Use::PackItem, &[bytes])
}

/// The root over parts of which some may be removed.
pub fn root_of_parts(parts: &[Part<'_>]) -> Digest {
    let digests = parts.iter().map(|part| match part {
        Part::Kept(bytes) => part_digest(bytes),
        Part::Removed(digest) => *digest,
    });
    pack_root(&digests.collect::<Vec<_>>())
}

/// Checks what is left of a pack against one of its roots.
///
/// # Errors
/// `EnvelopeError::RootMismatch`.
pub fn verify_parts(parts: &[Part<'_>], root: &Digest) -> Result<(), EnvelopeError> {
    if root_of_parts(parts) == *root { Ok(()) } else { Err(EnvelopeError::RootMismatch) }
}

/// A sealed record whose item lies outside its pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Digest of the item.
    pub item_digest: Digest,
    /// The COSE recipients that stand in the pack.
    pub wraps: Vec<u8>,
    /// State commitment to the content.
    pub commitment: Digest,
}

impl SealedPack {
    /// A pack received from elsewhere: every part has its one encoding, the roots are computed from the bytes.
    ///
    /// # Errors
    /// `EnvelopeError`: differing counts, or a malformed part with its position.
    pub fn from_items(items: Vec<Vec<u8>>, wraps: Vec<Vec<u8>>) -> Result<Self, EnvelopeError> {
        if items.len() != wraps.len() {
            return Err(EnvelopeError::CountsDiffer { left: items.len(), right: wraps.len() });
        }
        for (position, (item, beside)) in items.iter().zip(&wraps).enumerate() {
            Item::decode(item).map_err(|error| at(position, error.into()))?;
            read_wraps(beside).map_err(|error| at(position, error))?;
        }
        let root = pack_root(&digest::keyed_many(Use::PackItem, &items));
        let wraps_root = pack_root(&digest::keyed_many(Use::PackItem, &wraps));
        Ok(SealedPack { items, wraps, root, wraps_root, commitments: Vec::new(), outside: BTreeMap::new() })
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of items and wraps.
    pub fn size(&self) -> usize {
        self.items.iter().chain(&self.wraps).map(Vec::len).sum()
    }

    /// What stands for an item once it is removed, or while it lies outside.
    pub fn item_digest(&self, position: usize) -> Option<Digest> {
        let outside = self.outside.get(&position).copied();
        outside.or_else(|| self.items.get(position).map(|item| part_digest(item)))
    }

    /// The same pack with these items taken out: same roots, their digests in their places. Positions beyond the last
    /// and items already outside change nothing.
    pub fn without(&self, positions: &[usize]) -> Self {
        let moved = positions.iter().filter_map(|at| self.item_digest(*at).map(|digest| (*at, digest)));
        let mut outside = self.outside.clone();
        outside.extend(moved);
        let left = |(at, item): (usize, &Vec<u8>)| if outside.contains_key(&at) { Vec::new() } else { item.clone() };
        let items = self.items.iter().enumerate().map(left).collect();
        let (wraps, commitments) = (self.wraps.clone(), self.commitments.clone());
        SealedPack { items, wraps, root: self.root, wraps_root: self.wraps_root, commitments, outside }
    }

    /// The same pack behind records whose items lay outside from the start, such as those sealed in pieces.
    ///
    /// # Errors
    /// `EnvelopeError::Malformed`: not the one encoding of wraps, with the position.
    pub fn behind(&self, first: &[Outside]) -> Result<Self, EnvelopeError> {
        let mut pack = SealedPack { items: vec![Vec::new(); first.len()], ..self.clone() };
        pack.items.extend(self.items.iter().cloned());
        pack.outside = self.outside.iter().map(|(position, digest)| (position + first.len(), *digest)).collect();
        for (position, record) in first.iter().enumerate() {
            read_wraps(&record.wraps).map_err(|error| at(position, error))?;
            pack.outside.insert(position, record.item_digest);
        }
        pack.wraps.splice(..0, first.iter().map(|record| record.wraps.clone()));
        pack.commitments.splice(..0, first.iter().map(|record| record.commitment));
        let digests: Vec<Digest> = (0..pack.len()).filter_map(|position| pack.item_digest(position)).collect();
        pack.root = pack_root(&digests);
        pack.wraps_root = pack_root(&digest::keyed_many(Use::PackItem, &pack.wraps));
        Ok(pack)
    }

    /// What stands for an item's wraps once they are removed.
    pub fn wraps_digest(&self, position: usize) -> Option<Digest> {
        self.wraps.get(position).map(|wraps| part_digest(wraps))
    }
}

fn at(position: usize, error: EnvelopeError) -> EnvelopeError {
    EnvelopeError::At { position, error: Box::new(error) }
}

/// One record to be sealed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Random id of the record.
    pub record_id: [u8; 16],
    /// Version, from 1.
    pub version: u64,
    /// Its class.
    pub class: String,
    /// Whom it is wrapped for, at least one.
    pub recipients: Vec<Recipient>,
}

impl Draft {
    fn place<'a>(&'a self, origin: &'a str) -> Place<'a> {
        Place { origin, record_id: self.record_id, version: self.version, class: &self.class }
    }

    fn check(&self, position: usize) -> Result<(), EnvelopeError> {
        if !(1..=MAX_RECIPIENTS).contains(&self.recipients.len()) {
            return Err(EnvelopeError::RecipientCount { position, count: self.recipients.len() });
        }
        if self.recipients.iter().any(|recipient| recipient.id().class != self.class) {
            return Err(EnvelopeError::WrongClass { position });
        }
        let mut seen = HashSet::with_capacity(self.recipients.len());
        if !self.recipients.iter().all(|recipient| seen.insert(recipient.kid())) {
            return Err(EnvelopeError::DuplicateRecipient { position });
        }
        Ok(())
    }
}

/// The contents of a batch: ranges of one buffer, checked.
struct Contents<'a> {
    data: &'a [u8],
    spans: Vec<Range<usize>>,
}

impl<'a> Contents<'a> {
    fn new(data: &'a [u8], spans: &[[u64; 2]]) -> Result<Self, EnvelopeError> {
        let checked = spans.iter().enumerate().map(|(position, [start, end])| {
            let out_of_range = EnvelopeError::SpanOutOfRange { position };
            let (Ok(start), Ok(end)) = (usize::try_from(*start), usize::try_from(*end)) else {
                return Err(out_of_range);
            };
            match data.get(start..end) {
                None => Err(out_of_range),
                Some(content) if content.len() > MAX_CONTENT_BYTES => {
                    Err(EnvelopeError::TooLarge { position, bytes: content.len() })
                }
                Some(_) => Ok(start..end),
            }
        });
        Ok(Contents { data, spans: checked.collect::<Result<_, _>>()? })
    }

    fn at(&self, position: usize) -> &'a [u8] {
        self.spans.get(position).and_then(|span| self.data.get(span.clone())).unwrap_or_default()
    }
}

#[derive(Default)]
struct Sealed {
    item: Vec<u8>,
    wraps: Vec<u8>,
    commitment: Digest,
    item_digest: Digest,
    wraps_digest: Digest,
}

/// Seals the records from `first` on that `run` has room for.
fn seal_run(
    origin: &str,
    contents: &Contents<'_>,
    drafts: &[Draft],
    content_keys: &[[u8; 32]],
    first: usize,
    run: &mut [Sealed],
) -> Result<(), EnvelopeError> {
    let range = first..first.saturating_add(run.len());
    let drafts = drafts.get(range.clone()).unwrap_or_default();
    let content_keys = content_keys.get(range.clone()).unwrap_or_default();
    let plain: Vec<&[u8]> = range.map(|position| contents.at(position)).collect();
    let digests = digest::blake3_many(&plain);
    let mut wrapped = wrap_run(drafts, content_keys);
    let records = drafts.iter().zip(content_keys).zip(plain).zip(digests).zip(&mut wrapped);
    for (number, ((((draft, content_key), content), content_digest), wrapped)) in records.enumerate() {
        let Some(slot) = run.get_mut(number) else { continue };
        let mut sealing = || {
            let external_aad = draft.place(origin).external_aad()?;
            let derived = derive_from(content_key);
            slot.item = seal_item(content, content_key, &derived.key_commitment, &external_aad)?;
            slot.wraps = seal_wraps(wrapped, content_key, &external_aad)?;
            slot.commitment = commitment(&derived.opening_key, &content_digest);
            Ok(())
        };
        sealing().map_err(|error| at(first.saturating_add(number), error))?;
    }
    let item_digests = digest::keyed_many(Use::PackItem, &run.iter().map(|sealed| &sealed.item).collect::<Vec<_>>());
    let wraps_digests = digest::keyed_many(Use::PackItem, &run.iter().map(|sealed| &sealed.wraps).collect::<Vec<_>>());
    for ((sealed, item), wraps) in run.iter_mut().zip(item_digests).zip(wraps_digests) {
        (sealed.item_digest, sealed.wraps_digest) = (item, wraps);
    }
    Ok(())
}

/// Seals ranges of `data`, one a draft, for the chain `origin`; order is kept.
///
/// # Errors
/// `EnvelopeError`; nothing is sealed then.
pub fn seal_records(
    origin: &str,
    data: &[u8],
    spans: &[[u64; 2]],
    drafts: &[Draft],
) -> Result<SealedPack, EnvelopeError> {
    if spans.len() != drafts.len() {
        return Err(EnvelopeError::CountsDiffer { left: spans.len(), right: drafts.len() });
    }
    let contents = Contents::new(data, spans)?;
    let mut records = HashSet::with_capacity(drafts.len());
    for (position, draft) in drafts.iter().enumerate() {
        draft.check(position)?;
        if !records.insert(draft.record_id) {
            return Err(EnvelopeError::DuplicateRecord { position });
        }
    }
    // All keys of the batch in one request, wiped when the batch is sealed.
    let mut keys = Zeroizing::new(vec![0; drafts.len().saturating_mul(32)]);
    digest::random_bytes(&mut keys).map_err(|_| EnvelopeError::NoRandomness)?;
    let (keys, _) = keys.as_chunks::<32>();
    let mut sealed: Vec<Sealed> = Vec::new();
    sealed.resize_with(drafts.len(), Sealed::default);
    let failed = Mutex::new(None);
    pool::fill_chunks(&mut sealed, RUN, |first, run| {
        if let Err(error) = seal_run(origin, &contents, drafts, keys, first, run) {
            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let root = pack_root(&sealed.iter().map(|sealed| sealed.item_digest).collect::<Vec<_>>());
    let wraps_root = pack_root(&sealed.iter().map(|sealed| sealed.wraps_digest).collect::<Vec<_>>());
    let (items, wraps, commitments) = (Vec::new(), Vec::new(), Vec::new());
    let mut pack = SealedPack { items, wraps, root, wraps_root, commitments, outside: BTreeMap::new() };
    for sealed in sealed {
        pack.items.push(sealed.item);
        pack.wraps.push(sealed.wraps);
        pack.commitments.push(sealed.commitment);
    }
    Ok(pack)
}

/// One record to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The sealed record.
    pub item: &'a [u8],
    /// The wraps beside it.
    pub wraps: &'a [u8],
    /// The key to open it with.
    pub key: &'a ClassKey,
    /// Where it stands.
    pub place: Place<'a>,
    /// What state says of it; `None` where no state is at hand.
    pub commitment: Option<Digest>,
}

impl Opening<'_> {
    /// Everything but the commitment.
    fn unseal(&self) -> Result<Opened, EnvelopeError> {
        let item = Item::decode(self.item)?;
        let external_aad = self.place.external_aad()?;
        item.open(&*open_wraps(self.wraps, self.key, &external_aad)?, &external_aad)
    }

    fn check(&self, opened: Opened, content_digest: &Digest) -> Result<Opened, EnvelopeError> {
        match self.commitment {
            Some(expected) if commitment(&opened.opening_key, content_digest) != expected => {
                Err(EnvelopeError::CommitmentMismatch)
            }
            _ => Ok(opened),
        }
    }
}

/// Opens one record; content comes out only if wrap, key commitment, place and commitment all hold.
///
/// # Errors
/// `EnvelopeError::NoWrap` when the key is none of the recipients; otherwise the bytes are not what was sealed.
pub fn open_record(opening: &Opening<'_>) -> Result<Opened, EnvelopeError> {
    let opened = opening.unseal()?;
    let content_digest = digest::blake3(&opened.content);
    opening.check(opened, &content_digest)
}

/// Opens many, on the pool; order is kept.
///
/// # Errors
/// The first that [`open_record`] refuses, with its position.
pub fn open_records(openings: &[Opening<'_>]) -> Result<Vec<Opened>, EnvelopeError> {
    let mut opened: Vec<Result<Opened, EnvelopeError>> = Vec::new();
    opened.resize_with(openings.len(), || Err(EnvelopeError::CannotOpen));
    pool::fill_chunks(&mut opened, RUN, |first, run| {
        let openings = openings.get(first..).unwrap_or_default();
        let unsealed: Vec<_> = openings.iter().take(run.len()).map(Opening::unseal).collect();
        let contents = unsealed.iter().map(|opened| opened.as_ref().map_or(&[][..], |opened| &opened.content));
        let digests = digest::blake3_many(&contents.collect::<Vec<_>>());
        for (((slot, unsealed), opening), content_digest) in run.iter_mut().zip(unsealed).zip(openings).zip(digests) {
            *slot = unsealed.and_then(|opened| opening.check(opened, &content_digest));
        }
    });
    let checked = opened.into_iter().enumerate().map(|(position, result)| result.map_err(|error| at(position, error)));
    checked.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;
    use zeroize::ZeroizeOnDrop;

    use super::*;
    use crate::pinned::pinned;

    const ORIGIN: &str = "main-00000000000000000000000000000000";

    fn class_key(number: u8) -> ClassKey {
        let epoch = digest::blake3(&[number])[..16].try_into().unwrap();
        let class = format!("Class-{number}");
        let id = ClassId { subject: [number; 16], custodian: [255 - number; 16], class, epoch };
        ClassKey::derive(&[number; 32], id).unwrap()
    }

    fn place(number: u8, class: &str) -> Place<'_> {
        Place { origin: ORIGIN, record_id: [number; 16], version: u64::from(number) + 1, class }
    }

    fn content(number: u8) -> Vec<u8> {
        let mut content = vec![0; usize::from(number) * 37];
        blake3::Hasher::new().update(b"content").update(&[number]).finalize_xof().fill(&mut content);
        content
    }

    fn content_key(number: u8) -> [u8; 32] {
        digest::blake3_parts(&[b"content key", &[number]])
    }

    fn over(parts: &[Vec<u8>]) -> String {
        let lengths: Vec<_> = parts.iter().map(|part| (part.len() as u32).to_be_bytes()).collect();
        let all: Vec<&[u8]> = lengths.iter().zip(parts).flat_map(|(length, part)| [&length[..], part]).collect();
        hex::encode(digest::blake3_parts(&all))
    }

    #[test]
    fn generated_encodings_are_the_pinned_ones() {
        let count: u8 = pinned("envelope", "count").parse().unwrap();
        let keys: Vec<_> = (0..count).map(|number| Arc::new(class_key(number))).collect();
        let (mut aads, mut items, mut wraps) = (Vec::new(), Vec::new(), Vec::new());
        let (mut commitments, mut opening_keys) = (Vec::new(), Vec::new());
        for (number, key) in (0..count).zip(&keys) {
            let (content, content_key) = (content(number), content_key(number));
            let (aad, derived) = (place(number, &key.id.class).external_aad().unwrap(), derive_from(&content_key));
            items.push(seal_item(&content, &content_key, &derived.key_commitment, &aad).unwrap());
            let recipients = vec![Recipient::Class(Arc::clone(key))];
            let draft = Draft { record_id: [number; 16], version: 1, class: key.id.class.clone(), recipients };
            let mut wrapped = wrap_run(std::slice::from_ref(&draft), &[content_key]);
            wraps.push(seal_wraps(&mut wrapped[0], &content_key, &aad).unwrap());
            commitments.push(commitment(&derived.opening_key, &digest::blake3(&content)).to_vec());
            opening_keys.push(derived.opening_key.to_vec());
            aads.push(aad);
        }
        let of_keys = |pick: fn(&ClassKey) -> Vec<u8>| keys.iter().map(|key| pick(key)).collect::<Vec<_>>();
        for (name, parts) in [
            ("kids", &of_keys(|key| key.kid.clone())),
            ("public_keys", &of_keys(|key| key.public_key().to_vec())),
            ("external_aads", &aads),
            ("items", &items),
            ("wraps", &wraps),
            ("commitments", &commitments),
            ("opening_keys", &opening_keys),
        ] {
            assert_eq!(over(parts), pinned("envelope", name), "{name}");
        }
        assert_eq!(hex::encode(&items[1]), pinned("envelope", "example_item"));
        assert_eq!(hex::encode(&wraps[1]), pinned("envelope", "example_wraps"));
        let pack = SealedPack::from_items(items, wraps).unwrap();
        assert_eq!(hex::encode(pack.root), pinned("envelope", "root"));
        assert_eq!(hex::encode(pack.wraps_root), pinned("envelope", "wraps_root"));
    }

    #[test]
    fn pinned_examples_open() {
        let bytes = |name| hex::decode(pinned("envelope", name)).unwrap();
        let key = class_key(1);
        let (item, expected) = (bytes("example_item"), bytes("example_commitment").try_into().unwrap());
        for wraps in ["example_wraps", "example_public_wraps"] {
            let wraps = bytes(wraps);
            let place = place(1, &key.id.class);
            let opening = Opening { item: &item, wraps: &wraps, key: &key, place, commitment: Some(expected) };
            let opened = open_record(&opening).unwrap();
            assert_eq!(*opened.content, content(1));
            assert_eq!(*opened.opening_key, *derive_from(&content_key(1)).opening_key);
        }
    }

    /// Source: RFC 3394, 4.6: 256 bits of key data under a 256-bit key.
    #[test]
    fn wraps_keys_as_rfc_3394_does() {
        let key: [u8; 32] = std::array::from_fn(|at| at as u8);
        let data = hex::decode("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f").unwrap();
        let wrapped = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21";
        let mut out = [[0; 40]];
        wrap_keys(&Aes256::new(&key.into()), &[&data.try_into().unwrap()], &mut out);
        assert_eq!(hex::encode(out[0]), wrapped);
    }

    #[test]
    fn keys_in_flight_are_wrapped_as_one_by_one() {
        let cipher = Aes256::new(&[9; 32].into());
        let keys: Vec<[u8; 32]> = (0..=IN_FLIGHT as u8).map(|number| [number * 3; 32]).collect();
        for count in 0..=IN_FLIGHT {
            let mut made = [[0; 40]; IN_FLIGHT];
            wrap_keys(&cipher, &keys.iter().take(count).collect::<Vec<_>>(), &mut made);
            for (key, made) in keys.iter().zip(made).take(count) {
                let mut alone = [0; 40];
                KwAes256::inner_init(cipher.clone()).wrap_key(key, &mut alone).unwrap();
                assert_eq!(made, alone);
            }
        }
    }

    #[test]
    fn what_is_secret_is_wiped() {
        fn wiped<T: ZeroizeOnDrop>(_: &T) {}
        fn wiped_type<T: ZeroizeOnDrop>() {}
        let key = class_key(1);
        wiped(&key.wrap);
        // Made from a clone of that for one unwrapping; it holds nothing else.
        wiped_type::<Aes256>();
        assert_eq!(size_of::<KwAes256>(), size_of::<Aes256>());
        wiped(&key.seal_to);
        wiped(&key.seed);
        wiped(&derive_from(&[1; 32]).opening_key);
        let opened = Opened { content: Zeroizing::new(vec![1]), opening_key: Zeroizing::new([1; 32]) };
        wiped(&opened.content);
        wiped(&opened.opening_key);
        assert!(!format!("{key:?}{opened:?}").contains("seal_to"));
    }

    #[test]
    fn a_pack_verifies_after_parts_of_it_are_removed() {
        let key = Arc::new(class_key(1));
        let data = vec![7; 100];
        for count in [1, 2, 3, 4, 5, 8, 9] {
            let drafts: Vec<_> = (0..count)
                .map(|number| Draft {
                    record_id: [number; 16],
                    version: 1,
                    class: key.id.class.clone(),
                    recipients: vec![Recipient::Class(Arc::clone(&key))],
                })
                .collect();
            let pack = seal_records(ORIGIN, &data, &vec![[0, 100]; drafts.len()], &drafts).unwrap();
            let whole: Vec<_> = pack.items.iter().map(|item| Part::Kept(item)).collect();
            verify_parts(&whole, &pack.root).unwrap();
            assert_eq!(verify_parts(&whole, &pack.wraps_root), Err(EnvelopeError::RootMismatch));
            let wraps: Vec<_> = (0..pack.len()).map(|at| Part::Removed(pack.wraps_digest(at).unwrap())).collect();
            verify_parts(&wraps, &pack.wraps_root).unwrap();
            for removed in 0..pack.len() {
                let mut left = whole.clone();
                left[removed] = Part::Removed(pack.item_digest(removed).unwrap());
                verify_parts(&left, &pack.root).unwrap();
                left[removed] = Part::Removed([0; 32]);
                assert_eq!(verify_parts(&left, &pack.root), Err(EnvelopeError::RootMismatch));
                left.remove(removed);
                assert_eq!(verify_parts(&left, &pack.root), Err(EnvelopeError::RootMismatch));
            }
        }
    }

    #[test]
    fn every_content_keeps_its_place_across_runs() {
        let key = Arc::new(class_key(1));
        let data: Vec<u8> = (0..70 * RUN).map(|at| (at % 251) as u8).collect();
        let spans: Vec<_> = (0..3 * RUN as u64 + 1).map(|at| [at, at * 20]).collect();
        let drafts: Vec<_> = (0..spans.len())
            .map(|number| Draft {
                record_id: (number as u128).to_be_bytes(),
                version: number as u64,
                class: key.id.class.clone(),
                recipients: vec![Recipient::Class(Arc::clone(&key))],
            })
            .collect();
        let pack = seal_records(ORIGIN, &data, &spans, &drafts).unwrap();
        for (at, draft) in drafts.iter().enumerate() {
            let opening = Opening {
                item: &pack.items[at],
                wraps: &pack.wraps[at],
                key: &key,
                place: draft.place(ORIGIN),
                commitment: Some(pack.commitments[at]),
            };
            let [start, end] = spans[at].map(|end| end as usize);
            assert_eq!(*open_record(&opening).unwrap().content, data[start..end]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(item: Vec<u8>, wraps: Vec<u8>) {
            let key = class_key(1);
            let opening = Opening {
                item: &item,
                wraps: &wraps,
                key: &key,
                place: place(1, "x"),
                commitment: None,
            };
            prop_assert!(open_record(&opening).is_err());
            prop_assert!(wrap_ids(&wraps).is_err() || !wraps.is_empty());
        }

        #[test]
        fn what_is_read_is_the_one_encoding(at in 0usize..200, flip in 1u8..) {
            let bytes = |name| hex::decode(pinned("envelope", name)).unwrap();
            let mut item = bytes("example_item");
            let at_item = at % item.len();
            item[at_item] ^= flip;
            if let Ok(read) = Item::decode(&item) {
                let mut writer = Writer::new();
                writer.tag(TAG_ENCRYPT0).array(3).bytes(&item_protected(read.key_commitment)).map(0);
                prop_assert_eq!(writer.bytes(read.ciphertext).as_bytes(), &item[..]);
            }
        }
    }
}
