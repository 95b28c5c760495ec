//! Sealing of what lies on disk: AES-256-GCM under keys derived from random bytes drawn for that very write.
//! Refuses whatever does not authenticate, without saying why. Invariant: no (key, nonce) pair seals twice.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use crate::cbor::Writer;
use crate::digest::{self, DigestError, Use};

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// A secret key, wiped when dropped.
pub type Key = Zeroizing<[u8; 32]>;

/// The bytes are not what was sealed under this key, number and associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed bytes do not authenticate")]
pub struct NotAuthentic;

/// A fresh random key.
pub fn random_key() -> Result<Key, DigestError> {
    digest::random_array().map(Zeroizing::new)
}

/// One derived key, ready to seal or open the messages drawn under it.
pub struct Sealer(Option<LessSafeKey>);

impl Sealer {
    /// derive(use, key, [salt]).
    pub fn derived(key_use: Use, key: &[u8; 32], salt: &[u8]) -> Self {
        Self::under(key_use, key, Writer::new().array(1).bytes(salt).as_bytes())
    }

    /// derive(use, key, [salt, number]).
    pub fn derived_numbered(key_use: Use, key: &[u8; 32], salt: &[u8], number: u64) -> Self {
        Self::under(key_use, key, Writer::new().array(2).bytes(salt).uint(number).as_bytes())
    }

    fn under(key_use: Use, key: &[u8; 32], info: &[u8]) -> Self {
        let mut derived = digest::derive(key_use, key, info);
        // ring refuses a key only for its length, which is right here; a missing key opens nothing.
        let unbound = UnboundKey::new(&AES_256_GCM, &derived);
        derived.zeroize();
        Sealer(unbound.ok().map(LessSafeKey::new))
    }

    /// Encrypts in place and gives the tag. `number` tells apart the messages of one write.
    pub fn seal(&self, number: u32, aad: &[u8], message: &mut [u8]) -> Result<[u8; TAG_BYTES], NotAuthentic> {
        let key = self.0.as_ref().ok_or(NotAuthentic)?;
        let tag = key.seal_in_place_separate_tag(nonce(number), Aad::from(aad), message).map_err(|_| NotAuthentic)?;
        tag.as_ref().try_into().map_err(|_| NotAuthentic)
    }

    /// Decrypts `sealed` (message ‖ tag) in place; what is left is the message.
    pub fn open(&self, number: u32, aad: &[u8], sealed: &mut Vec<u8>) -> Result<(), NotAuthentic> {
        let key = self.0.as_ref().ok_or(NotAuthentic)?;
        let length = key.open_in_place(nonce(number), Aad::from(aad), sealed).map_err(|_| NotAuthentic)?.len();
        sealed.truncate(length);
        Ok(())
    }
}

const PART_SALT_BYTES: usize = 32;

/// Seals one part of a backup: salt (32 fresh random bytes) ‖ message ‖ tag under derive("backup-part", key, [salt]).
pub fn seal_part(key: &[u8; 32], aad: &[u8], message: &[u8]) -> Result<Vec<u8>, PartError> {
    let salt: [u8; PART_SALT_BYTES] = digest::random_array()?;
    let mut sealed = Vec::with_capacity(PART_SALT_BYTES + message.len() + TAG_BYTES);
    sealed.extend_from_slice(&salt);
    sealed.extend_from_slice(message);
    let tag = Sealer::derived(Use::BackupPart, key, &salt).seal(0, aad, &mut sealed[PART_SALT_BYTES..])?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Opens what `seal_part` gave.
pub fn open_part(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
    let (salt, sealed) = sealed.split_first_chunk::<PART_SALT_BYTES>().ok_or(NotAuthentic)?;
    let mut message = Zeroizing::new(sealed.to_vec());
    Sealer::derived(Use::BackupPart, key, salt).open(0, aad, &mut message)?;
    Ok(message)
}

/// Why a part was not sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Randomness(#[from] DigestError),
    /// Longer than one message of AES-256-GCM may be.
    #[error("a part too long to seal")]
    TooLong(#[from] NotAuthentic),
}

fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_part_opens_only_under_its_key_and_place() {
        let sealed = seal_part(&[1; 32], b"place", b"secret").unwrap();
        assert_eq!(open_part(&[1; 32], b"place", &sealed).unwrap().as_slice(), b"secret");
        assert!(open_part(&[2; 32], b"place", &sealed).is_err());
        assert!(open_part(&[1; 32], b"other", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(open_part(&[1; 32], b"place", &flipped).is_err());
            assert!(open_part(&[1; 32], b"place", &sealed[..at]).is_err());
        }
        // Sealed again, not a byte of key stream comes back.
        let again = seal_part(&[1; 32], b"place", b"secret").unwrap();
        assert_ne!(sealed[..PART_SALT_BYTES], again[..PART_SALT_BYTES]);
        assert_ne!(sealed[PART_SALT_BYTES..], again[PART_SALT_BYTES..]);
    }

    #[test]
    fn opens_only_what_was_sealed() {
        let sealer = Sealer::derived(Use::Entry, &[1; 32], &[2; 32]);
        let mut message = b"secret".to_vec();
        let tag = sealer.seal(7, b"aad", &mut message).unwrap();
        assert_ne!(message, b"secret");
        message.extend_from_slice(&tag);
        let open = |sealer: &Sealer, number, aad: &[u8], mut sealed: Vec<u8>| {
            sealer.open(number, aad, &mut sealed).map(|()| sealed)
        };
        assert_eq!(open(&sealer, 7, b"aad", message.clone()).unwrap(), b"secret");
        assert!(open(&sealer, 8, b"aad", message.clone()).is_err());
        assert!(open(&sealer, 7, b"aae", message.clone()).is_err());
        assert!(open(&Sealer::derived(Use::Entry, &[1; 32], &[3; 32]), 7, b"aad", message.clone()).is_err());
        assert!(open(&Sealer::derived(Use::Slot, &[1; 32], &[2; 32]), 7, b"aad", message.clone()).is_err());
        assert!(
            open(&Sealer::derived_numbered(Use::Entry, &[1; 32], &[2; 32], 0), 7, b"aad", message.clone()).is_err()
        );
        for at in 0..message.len() {
            let mut flipped = message.clone();
            flipped[at] ^= 1;
            assert!(open(&sealer, 7, b"aad", flipped).is_err());
            assert!(open(&sealer, 7, b"aad", message[..at].to_vec()).is_err());
        }
    }
}
