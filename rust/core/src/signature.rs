//! Ed25519 by the ZIP-215 rule on every path: a batch gives each item the verdict it would get alone.
//! Refuses s >= l and encodings that are no point; the equation is the cofactored one, everywhere.

use curve25519_dalek::Scalar;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest as _, Sha512};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::digest::{self, DigestError};

/// 32 bytes that encode a point, or claim to.
pub type PublicKey = [u8; 32];
/// R ‖ s.
pub type Signature = [u8; 64];

/// What signatures and keys are refused for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The signature does not hold for this key and message.
    #[error("the signature does not hold")]
    Invalid,
    /// The bytes encode no point of the curve.
    #[error("the key is no point of the curve")]
    NotAPoint,
    /// The key is another encoding of its point than the one form we register.
    #[error("the key is not canonically encoded")]
    NotCanonical,
    /// A point of order 1, 2, 4 or 8: signatures under it bind nobody.
    #[error("the key has small order")]
    SmallOrder,
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] DigestError),
}

/// An Ed25519 private key; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SigningKey {
    seed: [u8; 32],
    scalar: Scalar,
    prefix: [u8; 32],
    #[zeroize(skip)]
    public_key: PublicKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SigningKey").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new random key.
    ///
    /// # Errors
    /// `SignatureError::Random`.
    pub fn generate() -> Result<Self, SignatureError> {
        let seed = Zeroizing::new(digest::random_array::<32>()?);
        Ok(Self::from_seed(&seed))
    }

    /// The key of a seed. Source: RFC 8032, 5.1.5.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let expanded = Zeroizing::new(<[u8; 64]>::from(Sha512::digest(seed)));
        let mut low = Zeroizing::new([0; 32]);
        low.copy_from_slice(&expanded[..32]);
        let mut prefix = [0; 32];
        prefix.copy_from_slice(&expanded[32..]);
        let clamped = Zeroizing::new(curve25519_dalek::scalar::clamp_integer(*low));
        let scalar = Scalar::from_bytes_mod_order(*clamped);
        let public_key = EdwardsPoint::mul_base(&scalar).compress().to_bytes();
        SigningKey { seed: *seed, scalar, prefix, public_key }
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The seed, to be stored sealed and nowhere else.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Signs; the same message gives the same signature. Source: RFC 8032, 5.1.6.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let nonce = Zeroizing::new(hash_to_scalar(&[&self.prefix, message]));
        let r = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
        let s = hash_to_scalar(&[&r, &self.public_key, message]) * self.scalar + *nonce;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(s.as_bytes());
        signature
    }
}

fn hash_to_scalar(parts: &[&[u8]]) -> Scalar {
    let mut hasher = Sha512::new();
    parts.iter().for_each(|part| hasher.update(part));
    Scalar::from_bytes_mod_order_wide(&hasher.finalize().into())
}

/// One signature to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Whose it is said to be.
    pub public_key: &'a PublicKey,
    /// What was signed.
    pub message: &'a [u8],
    /// R ‖ s.
    pub signature: &'a Signature,
}

/// Judges one signature. Source: ZIP-215.
///
/// # Errors
/// `SignatureError::Invalid`.
pub fn verify(public_key: &PublicKey, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
    let (r, s) = split(signature);
    let point = CompressedEdwardsY(*public_key).decompress().ok_or(SignatureError::Invalid)?;
    let r_point = CompressedEdwardsY(r).decompress().ok_or(SignatureError::Invalid)?;
    let s = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)).ok_or(SignatureError::Invalid)?;
    let k = hash_to_scalar(&[&r, public_key, message]);
    let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &-point, &s);
    if (expected - r_point).mul_by_cofactor().is_identity() { Ok(()) } else { Err(SignatureError::Invalid) }
}

fn split(signature: &Signature) -> ([u8; 32], [u8; 32]) {
    let (mut r, mut s) = ([0; 32], [0; 32]);
    r.copy_from_slice(&signature[..32]);
    s.copy_from_slice(&signature[32..]);
    (r, s)
}

/// A verdict for each item, the same that [`verify`] gives.
pub fn verify_batch(items: &[Item<'_>]) -> Vec<bool> {
    let mut verdicts = vec![false; items.len()];
    crate::pool::fill_chunks(&mut verdicts, 64, |first, run| {
        run.iter_mut()
            .zip(&items[first..])
            .for_each(|(verdict, item)| *verdict = verify(item.public_key, item.message, item.signature).is_ok());
    });
    verdicts
}

/// The rule for registering a key: one encoding for each, and none that binds nobody.
///
/// # Errors
/// `NotAPoint`, `NotCanonical` or `SmallOrder`.
pub fn check_public_key(public_key: &PublicKey) -> Result<(), SignatureError> {
    let point = CompressedEdwardsY(*public_key).decompress().ok_or(SignatureError::NotAPoint)?;
    if point.is_small_order() {
        return Err(SignatureError::SmallOrder);
    }
    if point.compress().to_bytes() != *public_key {
        return Err(SignatureError::NotCanonical);
    }
    Ok(())
}
