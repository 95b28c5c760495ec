//! COSE_Sign1 and COSE_Sign (RFC 9052) in the one form we use: Ed25519 (RFC 9864), the public key as kid, nothing
//! unprotected, payload attached, tagged, signers in ascending order of their keys.
//! Reading checks the shape only; a signature counts when `verify` has returned.

use crate::cbor::{self, Reader, Writer};
use crate::signature::{self, Item, PublicKey, Signature, SignatureError, SigningKey};

/// CBOR tag of COSE_Sign1.
pub const TAG_SIGN1: u64 = 18;
/// CBOR tag of COSE_Sign.
pub const TAG_SIGN: u64 = 98;
/// Bytes that a COSE_Sign1 adds around payload and payload length.
pub const SIGN1_OVERHEAD: usize = 109;

/// The encoded map {1 (alg): -19 (Ed25519), 4 (kid): 32 bytes}, up to those bytes.
const PROTECTED_PREFIX: [u8; 6] = [0xa2, 0x01, 0x32, 0x04, 0x58, 0x20];
const PROTECTED_BYTES: usize = PROTECTED_PREFIX.len() + 32;

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoseError {
    /// Not the one form we read and write.
    #[error("not a message of our form")]
    Malformed(#[from] cbor::Error),
    /// A message of many signers has none.
    #[error("no signer")]
    NoSigner,
    /// The signers are not in ascending order, or one is there twice.
    #[error("signer {position} is out of order")]
    SignerOrder {
        /// Counted from 0.
        position: usize,
    },
    /// A signature does not hold.
    #[error("signature {position} does not hold")]
    Signature {
        /// Counted from 0.
        position: usize,
    },
}

/// A COSE_Sign1 whose signature is not yet verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign1<'a> {
    /// The signer it names.
    pub key: &'a PublicKey,
    /// What was signed.
    pub payload: &'a [u8],
    /// R ‖ s.
    pub signature: &'a Signature,
}

impl<'a> Sign1<'a> {
    /// Reads a whole message of at most `max_bytes`.
    ///
    /// # Errors
    /// Whatever is not the one encoding of such a message.
    pub fn decode(data: &'a [u8], max_bytes: usize) -> Result<Self, cbor::Error> {
        let mut reader = Reader::new(data, max_bytes)?;
        reader.tag(TAG_SIGN1)?;
        reader.array_of(4)?;
        let key = read_protected(&mut reader)?;
        reader.map_of(0)?;
        let payload = reader.bytes()?;
        let signature = reader.fixed_ref()?;
        reader.finish()?;
        Ok(Sign1 { key, payload, signature })
    }

    /// The one encoding of this message.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(SIGN1_OVERHEAD + 9 + self.payload.len());
        writer.tag(TAG_SIGN1).array(4).bytes(&protected(self.key)).map(0);
        writer.bytes(self.payload).bytes(self.signature);
        writer.into_bytes()
    }

    /// The bytes under the signature.
    pub fn signed_bytes(&self, external_aad: &[u8]) -> Vec<u8> {
        sign1_structure(self.key, external_aad, self.payload)
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// `CoseError::Signature`.
    pub fn verify(&self, external_aad: &[u8]) -> Result<(), CoseError> {
        signature::verify(self.key, &self.signed_bytes(external_aad), self.signature)
            .map_err(|_: SignatureError| CoseError::Signature { position: 0 })
    }
}

/// The Sig_structure of a COSE_Sign1. Source: RFC 9052, 4.4.
pub fn sign1_structure(key: &PublicKey, external_aad: &[u8], payload: &[u8]) -> Vec<u8> {
    const CONTEXT: &[u8] = b"\x6aSignature1";
    let room = 1 + CONTEXT.len() + 2 + PROTECTED_BYTES + 9 + external_aad.len() + 9 + payload.len();
    let mut writer = Writer::with_capacity(room);
    writer.array(4).raw(CONTEXT).bytes(&protected(key)).bytes(external_aad).bytes(payload);
    writer.into_bytes()
}

/// A signed COSE_Sign1.
pub fn sign1(key: &SigningKey, payload: &[u8], external_aad: &[u8]) -> Vec<u8> {
    let signature = key.sign(&sign1_structure(key.public_key(), external_aad, payload));
    Sign1 { key: key.public_key(), payload, signature: &signature }.encode()
}

/// A COSE_Sign whose signatures are not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign<'a> {
    /// What was signed.
    pub payload: &'a [u8],
    /// Signer and signature, keys ascending, at least one.
    pub signatures: Vec<(PublicKey, Signature)>,
}

impl<'a> Sign<'a> {
    /// Reads a whole message of at most `max_bytes`.
    ///
    /// # Errors
    /// Whatever is not the one encoding of such a message.
    pub fn decode(data: &'a [u8], max_bytes: usize) -> Result<Self, CoseError> {
        let mut reader = Reader::new(data, max_bytes)?;
        reader.tag(TAG_SIGN)?;
        reader.array_of(4)?;
        // An empty protected header is the empty byte string, never an encoded empty map.
        reader.fixed_ref::<0>()?;
        reader.map_of(0)?;
        let payload = reader.bytes()?;
        let count = reader.array()?;
        let mut signatures = Vec::new();
        for _ in 0..count {
            reader.array_of(3)?;
            let key = *read_protected(&mut reader)?;
            reader.map_of(0)?;
            signatures.push((key, reader.fixed()?));
        }
        reader.finish()?;
        check_order(&signatures)?;
        Ok(Sign { payload, signatures })
    }

    /// A message of signatures that were made apart, in any order.
    ///
    /// # Errors
    /// No signature, or two of one key.
    pub fn gather(payload: &'a [u8], mut signatures: Vec<(PublicKey, Signature)>) -> Result<Self, CoseError> {
        signatures.sort_unstable();
        check_order(&signatures)?;
        Ok(Sign { payload, signatures })
    }

    /// The one encoding of this message.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.tag(TAG_SIGN).array(4).bytes(&[]).map(0).bytes(self.payload).array(self.signatures.len());
        for (key, signature) in &self.signatures {
            writer.array(3).bytes(&protected(key)).map(0).bytes(signature);
        }
        writer.into_bytes()
    }

    /// Checks every signature; one that fails fails the message.
    ///
    /// # Errors
    /// `CoseError::Signature` with the first that does not hold.
    pub fn verify(&self, external_aad: &[u8]) -> Result<(), CoseError> {
        let messages: Vec<_> =
            self.signatures.iter().map(|(key, _)| sign_structure(key, external_aad, self.payload)).collect();
        let items: Vec<_> = self
            .signatures
            .iter()
            .zip(&messages)
            .map(|((public_key, signature), message)| Item { public_key, message, signature })
            .collect();
        match signature::verify_batch(&items).iter().position(|holds| !holds) {
            Some(position) => Err(CoseError::Signature { position }),
            None => Ok(()),
        }
    }
}

fn check_order(signatures: &[(PublicKey, Signature)]) -> Result<(), CoseError> {
    if signatures.is_empty() {
        return Err(CoseError::NoSigner);
    }
    match signatures.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
        Some(before) => Err(CoseError::SignerOrder { position: before + 1 }),
        None => Ok(()),
    }
}

/// The Sig_structure for one signer of a COSE_Sign. Source: RFC 9052, 4.4.
pub fn sign_structure(key: &PublicKey, external_aad: &[u8], payload: &[u8]) -> Vec<u8> {
    const CONTEXT: &[u8] = b"\x69Signature";
    let mut writer = Writer::with_capacity(80 + external_aad.len() + payload.len());
    writer.array(5).raw(CONTEXT).bytes(&[]).bytes(&protected(key)).bytes(external_aad).bytes(payload);
    writer.into_bytes()
}

/// A COSE_Sign by all of `keys`, in whatever order they come.
///
/// # Errors
/// No key, or one twice.
pub fn sign<'k>(
    keys: impl IntoIterator<Item = &'k SigningKey>,
    payload: &[u8],
    external_aad: &[u8],
) -> Result<Vec<u8>, CoseError> {
    let signatures = keys
        .into_iter()
        .map(|key| (*key.public_key(), key.sign(&sign_structure(key.public_key(), external_aad, payload))))
        .collect();
    Ok(Sign::gather(payload, signatures)?.encode())
}

fn protected(key: &PublicKey) -> [u8; PROTECTED_BYTES] {
    let mut header = [0; PROTECTED_BYTES];
    header[..PROTECTED_PREFIX.len()].copy_from_slice(&PROTECTED_PREFIX);
    header[PROTECTED_PREFIX.len()..].copy_from_slice(key);
    header
}

fn read_protected<'a>(reader: &mut Reader<'a>) -> Result<&'a PublicKey, cbor::Error> {
    let offset = reader.offset();
    let bytes = reader.bytes()?;
    let kid = bytes.strip_prefix(&PROTECTED_PREFIX).and_then(|kid| kid.try_into().ok());
    kid.ok_or(cbor::Error::Unexpected { offset })
}
