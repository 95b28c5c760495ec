//! Sealing and opening records: COSE_Encrypt0 under a fresh content key, its wraps beside it, and the commitment in
//! the state. Owns the key tree of a subject; refuses whatever does not open to exactly what was committed.

use aes_kw::KwAes256;
use aes_kw::cipher::KeyInit;
use curve25519_dalek::montgomery::MontgomeryPoint;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::cbor::{self, Reader, Writer};
use crate::digest::{self, Digest, DigestError, RandomBlock, Use};
use crate::merkle::log::pack_root;
use crate::pool;

const ENCRYPT0_TAG: u64 = 16;
const ALG_LABEL: i64 = 1;
const KID_LABEL: i64 = 4;
const NONCE_LABEL: i64 = 5;
const COMMITMENT_LABEL: i64 = -65537;
const A256GCM: i64 = 3;
const A256KW: i64 = -5;
const NONCE: [u8; 12] = [0; 12];
const GCM_TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = 40;
/// Largest sealed item: a resource of 16 MiB and what surrounds it.
pub const MAX_ITEM_BYTES: usize = 16 * 1024 * 1024 + 1024;
/// Largest list of wraps of one item.
pub const MAX_WRAPS_BYTES: usize = 64 * 1024;
const RECORDS_A_RUN: usize = 16;

/// Why something was not sealed or not opened.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The operating system gave no random bytes.
    #[error("no randomness")]
    NoRandomness(#[from] DigestError),
    /// An item or its wraps are not in the one form written here.
    #[error("malformed item")]
    Malformed(#[from] cbor::Error),
    /// A fixed part of an item is not what it must be.
    #[error("unexpected part")]
    Unexpected,
    /// None of the wraps is for this key.
    #[error("no wrap for this key")]
    NoWrap,
    /// The ciphertext or its wrap does not open.
    #[error("cannot open")]
    CannotOpen,
    /// It opens, and is not what was committed to.
    #[error("commitment mismatch")]
    CommitmentMismatch,
    /// A range points outside the data.
    #[error("range {index} is outside the data")]
    BadRange {
        /// Which record.
        index: usize,
    },
    /// A record without a recipient could never be opened.
    #[error("record {index} has no recipient")]
    NoRecipient {
        /// Which record.
        index: usize,
    },
}

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
}

impl SealedPack {
    /// A pack of items received from elsewhere; its roots are computed here.
    #[must_use]
    pub fn from_items(items: Vec<Vec<u8>>, wraps: Vec<Vec<u8>>) -> Self {
        let root = root_over(&items);
        let wraps_root = root_over(&wraps);
        SealedPack { items, wraps, root, wraps_root, commitments: Vec::new() }
    }

    /// Bytes of items and wraps.
    #[must_use]
    pub fn size(&self) -> usize {
        self.items.iter().chain(&self.wraps).map(Vec::len).sum()
    }
}

fn root_over(parts: &[Vec<u8>]) -> Digest {
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    pack_root(&digest::blake3_many(slices.as_slice()))
}

/// The key that opens one class of one subject's records at one custodian, for one epoch.
pub struct ClassKey {
    /// Random patient id, or the custodian itself.
    pub subject: [u8; 16],
    /// The organisation that keeps the records.
    pub custodian: [u8; 16],
    /// What kind of record it opens.
    pub class: String,
    /// Random id posted with the public key.
    pub epoch: [u8; 16],
    /// X25519, for whoever may write but not read.
    pub public_key: [u8; 32],
    /// CBOR [subject, custodian, class, epoch].
    pub kid: Vec<u8>,
    wrap: Zeroizing<[u8; 32]>,
}

impl ClassKey {
    /// Derives the class seed from the subject's root key, and wrap key and public key from the seed.
    ///
    /// # Errors
    /// `EnvelopeError::Malformed` for a class name that is not NFC.
    pub fn derive(
        root: &[u8; 32],
        subject: [u8; 16],
        custodian: [u8; 16],
        class: &str,
        epoch: [u8; 16],
    ) -> Result<Self, EnvelopeError> {
        let mut info = Writer::new();
        info.array(2).text(class)?.bytes(&epoch);
        let mut nothing = Writer::new();
        nothing.array(0);
        let seed = Zeroizing::new(digest::derive(Use::Class, root, info.as_bytes()));
        let wrap = Zeroizing::new(digest::derive(Use::Wrap, &seed, nothing.as_bytes()));
        let private = Zeroizing::new(digest::derive(Use::SealTo, &seed, nothing.as_bytes()));
        let public_key = MontgomeryPoint::mul_base_clamped(*private).to_bytes();
        let mut kid = Writer::new();
        kid.array(4).bytes(&subject).bytes(&custodian).text(class)?.bytes(&epoch);
        let kid = kid.into_bytes();
        Ok(ClassKey { subject, custodian, class: class.to_owned(), epoch, public_key, kid, wrap })
    }
}

/// One record about to be sealed.
pub struct Draft<'a> {
    /// The plaintext.
    pub content: &'a [u8],
    /// Random id, the same for every version.
    pub record_id: [u8; 16],
    /// 1 for the first.
    pub version: u64,
    /// The class bound into the ciphertext.
    pub class: &'a str,
    /// Whose key opens it; at least one.
    pub recipients: Vec<&'a ClassKey>,
}

/// Seals every draft under a fresh content key of its own, on the pool.
///
/// # Errors
/// `EnvelopeError::NoRecipient`, `EnvelopeError::NoRandomness`.
pub fn seal_records(origin: &str, drafts: &[Draft<'_>]) -> Result<SealedPack, EnvelopeError> {
    if let Some(index) = drafts.iter().position(|draft| draft.recipients.is_empty()) {
        return Err(EnvelopeError::NoRecipient { index });
    }
    let mut keys = Zeroizing::new(Vec::with_capacity(drafts.len()));
    let mut block = RandomBlock::draw()?;
    for _ in drafts {
        keys.push(block.take::<32>()?);
    }
    let mut sealed: Vec<Option<Result<Sealed, EnvelopeError>>> = Vec::new();
    sealed.resize_with(drafts.len(), || None);
    pool::fill_chunks(&mut sealed, RECORDS_A_RUN, |first, run| {
        for (number, slot) in run.iter_mut().enumerate() {
            let index = first + number;
            *slot = Some(seal_one(origin, &drafts[index], &keys[index]));
        }
    });
    let mut items = Vec::with_capacity(drafts.len());
    let mut wraps = Vec::with_capacity(drafts.len());
    let mut commitments = Vec::with_capacity(drafts.len());
    for one in sealed.into_iter().flatten() {
        let one = one?;
        items.push(one.item);
        wraps.push(one.wraps);
        commitments.push(one.commitment);
    }
    let mut pack = SealedPack::from_items(items, wraps);
    pack.commitments = commitments;
    Ok(pack)
}

struct Sealed {
    item: Vec<u8>,
    wraps: Vec<u8>,
    commitment: Digest,
}

fn seal_one(origin: &str, draft: &Draft<'_>, content_key: &[u8; 32]) -> Result<Sealed, EnvelopeError> {
    let protected = protected_header(&derived(Use::KeyCommitment, content_key));
    let aad = enc_structure(&protected, origin, draft.record_id, draft.version, draft.class)?;
    let mut ciphertext = Vec::with_capacity(draft.content.len() + GCM_TAG_BYTES);
    ciphertext.extend_from_slice(draft.content);
    cipher(content_key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(NONCE), Aad::from(&aad), &mut ciphertext)
        .map_err(|_| EnvelopeError::CannotOpen)?;
    let mut item = Writer::with_capacity(ciphertext.len() + protected.len() + 16);
    item.tag(ENCRYPT0_TAG).array(3).bytes(&protected).map(0).bytes(&ciphertext);
    let opening = Zeroizing::new(derived(Use::Opening, content_key));
    Ok(Sealed {
        item: item.into_bytes(),
        wraps: wrap_for(&draft.recipients, content_key)?,
        commitment: commit(&opening, draft.content),
    })
}

fn derived(key_use: Use, content_key: &[u8; 32]) -> [u8; 32] {
    const EMPTY_ARRAY: [u8; 1] = [0x80];
    digest::derive(key_use, content_key, &EMPTY_ARRAY)
}

fn commit(opening: &[u8; 32], content: &[u8]) -> Digest {
    digest::keyed_by(opening, &digest::blake3(content))
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, EnvelopeError> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| EnvelopeError::CannotOpen)
}

fn protected_header(key_commitment: &Digest) -> Vec<u8> {
    let mut header = Writer::with_capacity(64);
    header.map(3).int(ALG_LABEL).int(A256GCM).int(NONCE_LABEL).bytes(&NONCE);
    header.int(COMMITMENT_LABEL).bytes(key_commitment);
    header.into_bytes()
}

fn enc_structure(
    protected: &[u8],
    origin: &str,
    record_id: [u8; 16],
    version: u64,
    class: &str,
) -> Result<Vec<u8>, EnvelopeError> {
    let mut external = Writer::with_capacity(128);
    external.array(5).uint(1).text(origin)?.bytes(&record_id).uint(version).text(class)?;
    let mut structure = Writer::with_capacity(256);
    structure.array(3).text("Encrypt0")?.bytes(protected).bytes(external.as_bytes());
    Ok(structure.into_bytes())
}

fn wrap_for(recipients: &[&ClassKey], content_key: &[u8; 32]) -> Result<Vec<u8>, EnvelopeError> {
    let mut wraps = Writer::with_capacity(recipients.len() * 128 + 4);
    wraps.array(recipients.len());
    for recipient in recipients {
        let mut wrapped = [0_u8; WRAPPED_BYTES];
        KwAes256::new((&*recipient.wrap).into())
            .wrap_key(content_key, &mut wrapped)
            .map_err(|_| EnvelopeError::CannotOpen)?;
        wraps.array(3).bytes(&[]).map(2).int(ALG_LABEL).int(A256KW);
        wraps.int(KID_LABEL).bytes(&recipient.kid).bytes(&wrapped);
    }
    Ok(wraps.into_bytes())
}

/// One recipient of an item.
pub struct Wrap<'a> {
    /// CBOR [subject, custodian, class, epoch].
    pub kid: &'a [u8],
    wrapped: &'a [u8; WRAPPED_BYTES],
}

/// Reads the recipients of an item, in the one form written here.
///
/// # Errors
/// `EnvelopeError::Malformed`, `EnvelopeError::Unexpected`.
pub fn read_wraps(wraps: &[u8]) -> Result<Vec<Wrap<'_>>, EnvelopeError> {
    let mut reader = Reader::new(wraps, MAX_WRAPS_BYTES)?;
    let count = reader.array()?;
    let mut found = Vec::new();
    for _ in 0..count {
        reader.array_of(3)?;
        if !reader.bytes()?.is_empty() {
            return Err(EnvelopeError::Unexpected);
        }
        reader.map_of(2)?;
        reader.expect_int(ALG_LABEL)?;
        reader.expect_int(A256KW)?;
        reader.expect_int(KID_LABEL)?;
        let kid = reader.bytes()?;
        found.push(Wrap { kid, wrapped: reader.fixed_ref::<WRAPPED_BYTES>()? });
    }
    reader.finish()?;
    Ok(found)
}

/// The parts of a kid: subject, custodian, class, epoch.
///
/// # Errors
/// `EnvelopeError::Malformed`.
pub fn read_kid(kid: &[u8]) -> Result<([u8; 16], [u8; 16], &str, [u8; 16]), EnvelopeError> {
    let mut reader = Reader::new(kid, MAX_WRAPS_BYTES)?;
    reader.array_of(4)?;
    let parts = (reader.fixed()?, reader.fixed()?, reader.text()?, reader.fixed()?);
    reader.finish()?;
    Ok(parts)
}

/// What binds an item to its place.
pub struct Place<'a> {
    /// Chain the record was first recorded on.
    pub origin: &'a str,
    /// Which record.
    pub record_id: [u8; 16],
    /// Which version.
    pub version: u64,
    /// Which class.
    pub class: &'a str,
}

/// Opens an item; with a commitment, only to exactly what it commits to.
///
/// # Errors
/// `EnvelopeError::NoWrap`, `CannotOpen`, `CommitmentMismatch`, or the item is malformed.
pub fn open_record(
    item: &[u8],
    wraps: &[u8],
    key: &ClassKey,
    place: &Place<'_>,
    commitment: Option<&Digest>,
) -> Result<(Vec<u8>, Digest), EnvelopeError> {
    let listed = read_wraps(wraps)?;
    let wrap = listed.iter().find(|wrap| wrap.kid == key.kid).ok_or(EnvelopeError::NoWrap)?;
    let mut content_key = Zeroizing::new([0_u8; 32]);
    KwAes256::new((&*key.wrap).into())
        .unwrap_key(wrap.wrapped, content_key.as_mut())
        .map_err(|_| EnvelopeError::CannotOpen)?;
    let mut reader = Reader::new(item, MAX_ITEM_BYTES)?;
    reader.tag(ENCRYPT0_TAG)?;
    reader.array_of(3)?;
    let protected = reader.bytes()?;
    reader.map_of(0)?;
    let ciphertext = reader.bytes()?;
    reader.finish()?;
    if protected != protected_header(&derived(Use::KeyCommitment, &content_key)) {
        return Err(EnvelopeError::CannotOpen);
    }
    let aad = enc_structure(protected, place.origin, place.record_id, place.version, place.class)?;
    let mut content = ciphertext.to_vec();
    let length = cipher(&content_key)?
        .open_in_place(Nonce::assume_unique_for_key(NONCE), Aad::from(&aad), &mut content)
        .map_err(|_| EnvelopeError::CannotOpen)?
        .len();
    content.truncate(length);
    let opening = derived(Use::Opening, &content_key);
    if let Some(commitment) = commitment {
        if let Err(error) = verify_opening(&content, &opening, commitment) {
            content.zeroize();
            return Err(error);
        }
    }
    Ok((content, opening))
}

/// Whether content and opening key are what a state commitment commits to.
///
/// # Errors
/// `EnvelopeError::CommitmentMismatch`.
pub fn verify_opening(content: &[u8], opening: &Digest, commitment: &Digest) -> Result<(), EnvelopeError> {
    if bool::from(commit(opening, content).ct_eq(commitment)) { Ok(()) } else { Err(EnvelopeError::CommitmentMismatch) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ORIGIN: &str = "main-00112233445566778899aabbccddeeff";

    fn key(class: &str, epoch: u8) -> ClassKey {
        ClassKey::derive(&[7; 32], [1; 16], [2; 16], class, [epoch; 16]).unwrap()
    }

    fn sealed(content: &[u8], key: &ClassKey) -> SealedPack {
        let draft = Draft { content, record_id: [3; 16], version: 1, class: "clinical", recipients: vec![key] };
        seal_records(ORIGIN, &[draft]).unwrap()
    }

    fn place(version: u64) -> Place<'static> {
        Place { origin: ORIGIN, record_id: [3; 16], version, class: "clinical" }
    }

    #[test]
    fn what_is_sealed_opens_and_commits() {
        let key = key("clinical", 1);
        for length in [0, 1, 63, 64, 65, 1023, 1024, 1025, 100_000] {
            let content = vec![42; length];
            let pack = sealed(&content, &key);
            let (opened, opening) =
                open_record(&pack.items[0], &pack.wraps[0], &key, &place(1), Some(&pack.commitments[0])).unwrap();
            assert_eq!(opened, content);
            verify_opening(&content, &opening, &pack.commitments[0]).unwrap();
            assert!(verify_opening(b"other", &opening, &pack.commitments[0]).is_err());
        }
    }

    #[test]
    fn another_place_key_or_commitment_opens_nothing() {
        let mine = key("clinical", 1);
        let pack = sealed(b"{}", &mine);
        let open = |key: &ClassKey, place: &Place<'_>, commitment: Option<&Digest>| {
            open_record(&pack.items[0], &pack.wraps[0], key, place, commitment)
        };
        assert!(matches!(open(&key("clinical", 2), &place(1), None), Err(EnvelopeError::NoWrap)));
        assert!(matches!(open(&mine, &place(2), None), Err(EnvelopeError::CannotOpen)));
        assert!(matches!(open(&mine, &place(1), Some(&[0; 32])), Err(EnvelopeError::CommitmentMismatch)));
        open(&mine, &place(1), None).unwrap();
    }

    #[test]
    fn no_changed_or_missing_byte_opens() {
        let key = key("clinical", 1);
        let pack = sealed(b"{\"resourceType\":\"Basic\"}", &key);
        let commitment = pack.commitments[0];
        let opens = |item: &[u8], wraps: &[u8]| open_record(item, wraps, &key, &place(1), Some(&commitment)).is_ok();
        assert!(opens(&pack.items[0], &pack.wraps[0]));
        for position in 0..pack.items[0].len() {
            let mut changed = pack.items[0].clone();
            changed[position] ^= 1;
            assert!(!opens(&changed, &pack.wraps[0]), "byte {position}");
            assert!(!opens(&pack.items[0][..position], &pack.wraps[0]));
        }
        for position in 0..pack.wraps[0].len() {
            let mut changed = pack.wraps[0].clone();
            changed[position] ^= 1;
            assert!(!opens(&pack.items[0], &changed), "wrap byte {position}");
            assert!(!opens(&pack.items[0], &pack.wraps[0][..position]));
        }
    }

    #[test]
    fn equal_contents_never_share_a_key_stream() {
        let key = key("clinical", 1);
        let content = vec![0; 4096];
        let drafts: Vec<Draft<'_>> = (0..64)
            .map(|n| Draft { content: &content, record_id: [n; 16], version: 1, class: "c", recipients: vec![&key] })
            .collect();
        let pack = seal_records(ORIGIN, &drafts).unwrap();
        for (number, item) in pack.items.iter().enumerate() {
            assert!(pack.items[..number].iter().all(|other| other[100..132] != item[100..132]));
        }
    }

    #[test]
    fn every_recipient_opens_the_same_item() {
        let (mine, yours) = (key("audit", 1), key("audit", 2));
        let draft =
            Draft { content: b"x", record_id: [3; 16], version: 1, class: "clinical", recipients: vec![&mine, &yours] };
        let pack = seal_records(ORIGIN, &[draft]).unwrap();
        for key in [&mine, &yours] {
            assert_eq!(open_record(&pack.items[0], &pack.wraps[0], key, &place(1), None).unwrap().0, b"x");
        }
        let kids: Vec<_> = read_wraps(&pack.wraps[0]).unwrap().iter().map(|w| read_kid(w.kid).unwrap().3).collect();
        assert_eq!(kids, [[1; 16], [2; 16]]);
    }

    #[test]
    fn a_record_nobody_could_open_is_refused() {
        let draft = Draft { content: b"x", record_id: [3; 16], version: 1, class: "clinical", recipients: vec![] };
        assert!(matches!(seal_records(ORIGIN, &[draft]), Err(EnvelopeError::NoRecipient { index: 0 })));
    }

    /// RFC 3394 section 4.6: 256 bits of key data with a 256-bit key.
    #[test]
    fn key_wrap_is_rfc_3394() {
        let kek: [u8; 32] = std::array::from_fn(|n| n as u8);
        let data = hex::decode("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F").unwrap();
        let mut wrapped = [0_u8; 40];
        KwAes256::new(&kek.into()).wrap_key(&data, &mut wrapped).unwrap();
        let expected = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21";
        assert_eq!(hex::encode(wrapped), expected);
    }
}
