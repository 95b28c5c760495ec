//! Grants: a class seed sealed by HPKE (RFC 9180) to a key that its recipient made for this one subject.
//! Refuses a grant of another subject, custodian, class or epoch, to another recipient or chain, and a seed that is not
//! the one behind the key the epoch was posted with: a custodian cannot hand over a seed that opens nothing.
//! Before: the recipient posts its fresh key. After: erasing that key makes the grant, a removable pack item, useless.

use std::fmt;

use hpke::aead::{AeadTag, AesGcm256};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use crate::cbor::{self, Reader, Writer};
use crate::digest;
use crate::envelope::{
    ClassId, ClassKey, ClassPublicKey, EnvelopeError, Ephemeral, HPKE_X25519, Key, MAX_ORIGIN_BYTES, TAG_ENCRYPT0,
    item_aad,
};

/// Ours, for HPKE base mode with X-Wing, HKDF-SHA256, AES-256-GCM (suite 0x647a, 1, 2).
pub const HPKE_XWING: i64 = -65539;
/// Longest grant: an X-Wing encapsulation, and room for the names.
pub const MAX_GRANT_BYTES: usize = 1536;

const INFO: &[u8] = b"ehrfast/grant/v1";
const ALGORITHM_HEADER: i64 = 1;
const KID_HEADER: i64 = 4;
const EK_HEADER: i64 = -4;
const SEALED_BYTES: usize = 48;

/// Why a grant is not made or not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not the one encoding of a grant.
    #[error("not a grant")]
    Malformed(#[from] cbor::Error),
    /// A suite that is unknown or not built in, or another one than the recipient's key is for.
    #[error("not a suite of this key")]
    Suite,
    /// No public key of its suite, or one that gives everyone the same secret.
    #[error("not a public key")]
    PublicKey,
    /// A chain id outside its rule.
    #[error("not a chain id")]
    Origin,
    /// A grant about another subject.
    #[error("a grant about another subject")]
    OtherSubject,
    /// A grant by another custodian.
    #[error("a grant by another custodian")]
    OtherCustodian,
    /// A grant of another class.
    #[error("a grant of another class")]
    OtherClass,
    /// A grant of another epoch.
    #[error("a grant of another epoch")]
    OtherEpoch,
    /// To another recipient, key or chain, or changed bytes.
    #[error("cannot be opened")]
    CannotOpen,
    /// It opens to another seed than the one behind the posted key.
    #[error("not the seed behind the posted key")]
    OtherSeed,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
}

/// Which key encapsulation a recipient's key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// DHKEM(X25519, HKDF-SHA256).
    X25519,
    /// X-Wing: ML-KEM-768 with X25519. Built in by the feature `xwing`.
    XWing,
}

impl Suite {
    /// The name programs use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Suite::X25519 => "x25519",
            Suite::XWing => "xwing",
        }
    }

    /// The suite of a name, if it is built in.
    ///
    /// # Errors
    /// `GrantError::Suite`.
    pub fn from_name(name: &str) -> Result<Self, GrantError> {
        match name {
            "x25519" => Ok(Suite::X25519),
            "xwing" if cfg!(feature = "xwing") => Ok(Suite::XWing),
            _ => Err(GrantError::Suite),
        }
    }

    const fn algorithm(self) -> i64 {
        match self {
            Suite::X25519 => HPKE_X25519,
            Suite::XWing => HPKE_XWING,
        }
    }
}

/// Between whom a grant is: what its bytes do not say and are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantContext<'a> {
    /// Id of the chain on which access was given.
    pub origin: &'a str,
    /// Random id of the organisation or identity that receives it.
    pub recipient: [u8; 16],
}

impl GrantContext<'_> {
    /// CBOR [1, origin chain id, recipient id, recipient's public key].
    fn external_aad(&self, public_key: &[u8]) -> Result<Vec<u8>, GrantError> {
        if self.origin.is_empty() || self.origin.len() > MAX_ORIGIN_BYTES || !cbor::is_normal(self.origin) {
            return Err(GrantError::Origin);
        }
        let mut writer = Writer::with_capacity(40 + self.origin.len() + public_key.len());
        writer.array(4).uint(1).text(self.origin)?.bytes(&self.recipient).bytes(public_key);
        Ok(writer.into_bytes())
    }
}

/// The key that a recipient makes for the grants about one subject; wiped when dropped.
pub struct GrantKey {
    suite: Suite,
    seed: Key,
    public_key: Vec<u8>,
}

impl GrantKey {
    /// A fresh one.
    ///
    /// # Errors
    /// `GrantError::NoRandomness`, `GrantError::Suite`.
    pub fn generate(suite: Suite) -> Result<Self, GrantError> {
        let seed: Key = Zeroizing::new(digest::random_array().map_err(|_| GrantError::NoRandomness)?);
        Self::from_seed(suite, &seed)
    }

    /// The same key again, from the 32 bytes that a key store kept.
    ///
    /// # Errors
    /// `GrantError::Suite` where the suite is not built in.
    pub fn from_seed(suite: Suite, seed: &[u8; 32]) -> Result<Self, GrantError> {
        let public_key = match suite {
            Suite::X25519 => public_of::<X25519HkdfSha256>(seed)?,
            #[cfg(feature = "xwing")]
            Suite::XWing => public_of::<hpke::kem::XWing>(seed)?,
            #[cfg(not(feature = "xwing"))]
            Suite::XWing => return Err(GrantError::Suite),
        };
        Ok(GrantKey { suite, seed: Zeroizing::new(*seed), public_key })
    }

    /// What it is for.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The private key, to be kept in a key store and nowhere else.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// What is posted: 32 bytes, or 1,216 for X-Wing.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

impl fmt::Debug for GrantKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("GrantKey").field("suite", &self.suite).finish_non_exhaustive()
    }
}

fn public_of<K: Kem>(seed: &[u8; 32]) -> Result<Vec<u8>, GrantError> {
    let private = K::PrivateKey::from_bytes(seed).map_err(|_| GrantError::PublicKey)?;
    Ok(K::sk_to_pk(&private).to_bytes().to_vec())
}

/// A grant as read, not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// What kind of key it is sealed to.
    pub suite: Suite,
    /// Which class key it hands over.
    pub id: ClassId,
    protected: &'a [u8],
    encapsulated: &'a [u8],
    sealed: &'a [u8; SEALED_BYTES],
}

impl<'a> Grant<'a> {
    /// Reads what [`grant`] gives and nothing else.
    ///
    /// # Errors
    /// `GrantError::Malformed`, `GrantError::Suite`.
    pub fn decode(data: &'a [u8]) -> Result<Self, GrantError> {
        let mut reader = Reader::new(data, MAX_GRANT_BYTES)?;
        reader.tag(TAG_ENCRYPT0)?;
        reader.array_of(3)?;
        let protected = reader.bytes()?;
        reader.map_of(0)?;
        let sealed = reader.fixed_ref()?;
        reader.finish()?;
        let mut header = Reader::new(protected, MAX_GRANT_BYTES)?;
        header.map_of(3)?;
        header.expect_int(ALGORITHM_HEADER)?;
        let suite = match header.int()? {
            HPKE_X25519 => Suite::X25519,
            HPKE_XWING => Suite::XWing,
            _ => return Err(GrantError::Suite),
        };
        header.expect_int(KID_HEADER)?;
        let offset = header.offset();
        let id = ClassId::from_kid(header.bytes()?).map_err(|_| cbor::Error::Unexpected { offset })?;
        header.expect_int(EK_HEADER)?;
        let offset = header.offset();
        let encapsulated = header.bytes()?;
        header.finish()?;
        let length = match suite {
            Suite::X25519 => 32,
            Suite::XWing => 1120,
        };
        if encapsulated.len() != length {
            return Err(cbor::Error::Unexpected { offset }.into());
        }
        Ok(Grant { suite, id, protected, encapsulated, sealed })
    }
}

/// Seals the seed of a class key to a recipient's public key.
///
/// # Errors
/// `GrantError::PublicKey`, `GrantError::Suite`, `GrantError::Origin`, `GrantError::NoRandomness`.
pub fn grant(
    key: &ClassKey,
    suite: Suite,
    recipient_public_key: &[u8],
    context: &GrantContext<'_>,
) -> Result<Vec<u8>, GrantError> {
    match suite {
        Suite::X25519 => seal::<X25519HkdfSha256>(key, suite, recipient_public_key, context),
        #[cfg(feature = "xwing")]
        Suite::XWing => seal::<hpke::kem::XWing>(key, suite, recipient_public_key, context),
        #[cfg(not(feature = "xwing"))]
        Suite::XWing => Err(GrantError::Suite),
    }
}

fn seal<K: Kem>(
    key: &ClassKey,
    suite: Suite,
    public_key: &[u8],
    context: &GrantContext<'_>,
) -> Result<Vec<u8>, GrantError> {
    let external_aad = context.external_aad(public_key)?;
    let public = K::PublicKey::from_bytes(public_key).map_err(|_| GrantError::PublicKey)?;
    let mut random = Ephemeral::draw().map_err(|_| GrantError::NoRandomness)?;
    let (encapsulated, mut sender) =
        hpke::setup_sender_with_rng::<AesGcm256, HkdfSha256, K>(&OpModeS::Base, &public, INFO, &mut random)
            .map_err(|_| GrantError::PublicKey)?;
    let mut header = Writer::with_capacity(key.kid().len() + 1160);
    header.map(3).int(ALGORITHM_HEADER).int(suite.algorithm()).int(KID_HEADER).bytes(key.kid());
    header.int(EK_HEADER).bytes(&encapsulated.to_bytes());
    let protected = header.into_bytes();
    let mut sealed = key.seed().clone();
    let tag = sender
        .seal_inout_detached(InOutBuf::from(&mut sealed[..]), &item_aad(&protected, &external_aad))
        .map_err(|_| GrantError::PublicKey)?;
    let mut writer = Writer::with_capacity(protected.len() + 64);
    writer.tag(TAG_ENCRYPT0).array(3).bytes(&protected).map(0).bytes(&[&sealed[..], &tag.to_bytes()].concat());
    Ok(writer.into_bytes())
}

/// Opens a grant; the class key comes out only if it is the one behind `posted`, which the chain says of the epoch.
///
/// # Errors
/// `GrantError`, by what does not hold.
pub fn open_grant(
    data: &[u8],
    key: &GrantKey,
    posted: &ClassPublicKey,
    context: &GrantContext<'_>,
) -> Result<ClassKey, GrantError> {
    let grant = Grant::decode(data)?;
    let (own, other) = (&grant.id, posted.id());
    for (same, error) in [
        (grant.suite == key.suite, GrantError::Suite),
        (own.subject == other.subject, GrantError::OtherSubject),
        (own.custodian == other.custodian, GrantError::OtherCustodian),
        (own.class == other.class, GrantError::OtherClass),
        (own.epoch == other.epoch, GrantError::OtherEpoch),
    ] {
        if !same {
            return Err(error);
        }
    }
    let external_aad = context.external_aad(&key.public_key)?;
    let seed = match grant.suite {
        Suite::X25519 => open::<X25519HkdfSha256>(&grant, &key.seed, &external_aad)?,
        #[cfg(feature = "xwing")]
        Suite::XWing => open::<hpke::kem::XWing>(&grant, &key.seed, &external_aad)?,
        #[cfg(not(feature = "xwing"))]
        Suite::XWing => return Err(GrantError::Suite),
    };
    let class_key = ClassKey::from_seed(&seed, grant.id).map_err(|_: EnvelopeError| GrantError::CannotOpen)?;
    if class_key.public_key() != *posted.public_key() {
        return Err(GrantError::OtherSeed);
    }
    Ok(class_key)
}

fn open<K: Kem>(grant: &Grant<'_>, private_key: &[u8; 32], external_aad: &[u8]) -> Result<Key, GrantError> {
    let private = K::PrivateKey::from_bytes(private_key).map_err(|_| GrantError::CannotOpen)?;
    let encapsulated = K::EncappedKey::from_bytes(grant.encapsulated).map_err(|_| GrantError::CannotOpen)?;
    let (sealed, tag) = grant.sealed.split_at(32);
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(sealed);
    let tag = AeadTag::<AesGcm256>::from_bytes(tag).map_err(|_| GrantError::CannotOpen)?;
    hpke::single_shot_open_inout_detached::<AesGcm256, HkdfSha256, K>(
        &OpModeR::Base,
        &private,
        &encapsulated,
        INFO,
        InOutBuf::from(&mut seed[..]),
        &item_aad(grant.protected, external_aad),
        &tag,
    )
    .map_err(|_| GrantError::CannotOpen)?;
    Ok(seed)
}
