//! Ed25519 by the ZIP-215 rule on every path: a batch gives each item the verdict it would get alone.
//! Refuses s >= l and encodings that are no point; the equation is the cofactored one, everywhere.

use std::collections::HashMap;
use std::iter::once;
use std::ops::Range;
use std::sync::{LazyLock, RwLock};

use curve25519_dalek::Scalar;
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use sha2::{Digest as _, Sha512};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::digest::{self, DigestError};
use crate::pool;

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
    let known = KEYS.find(public_key);
    let point = known.or_else(|| decompress(public_key)).ok_or(SignatureError::Invalid)?;
    let term = Term::read(&Item { public_key, message, signature }).ok_or(SignatureError::Invalid)?;
    if !term.holds(&point) {
        return Err(SignatureError::Invalid);
    }
    if known.is_none() {
        KEYS.keep([(*public_key, point)]);
    }
    Ok(())
}

/// A verdict for each item, the same that [`verify`] gives it: in the cofactored equation a sum of terms is zero
/// whenever each is, whatever torsion they carry, and with random factors it else is so once in 2^128.
pub fn verify_batch(items: &[Item<'_>]) -> Vec<bool> {
    let mut verdicts = vec![false; items.len()];
    let share = items.len().div_ceil(pool::threads()).clamp(SMALLEST_SHARE, LARGEST_SHARE);
    pool::fill_chunks(&mut verdicts, share, |first, run| judge(&items[first..first + run.len()], run));
    verdicts
}

/// Below this a second thread saves nothing, since one long sum is cheaper than two short ones.
const SMALLEST_SHARE: usize = 64;
/// Above this little is gained, and one forged item has more neighbours that are summed again.
const LARGEST_SHARE: usize = 2048;
/// Segments up to this size are judged one by one.
const SINGLES: usize = 2;

/// What one signature adds to the equation [8](s B - R - k A) = 0.
struct Term {
    r: EdwardsPoint,
    s: Scalar,
    k: Scalar,
}

impl Term {
    fn read(item: &Item<'_>) -> Option<Self> {
        let (r, s) = item.signature.split_first_chunk::<32>()?;
        Some(Term {
            r: decompress(r)?,
            s: Scalar::from_canonical_bytes(*s.first_chunk()?).into_option()?,
            k: hash_to_scalar(&[r, item.public_key, item.message]),
        })
    }

    fn holds(&self, public_key: &EdwardsPoint) -> bool {
        let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&self.k, &-public_key, &self.s);
        (expected - self.r).mul_by_cofactor().is_identity()
    }
}

/// Not every encoding accepted here is canonical: ZIP-215 takes y >= p, and a sign for x = 0.
fn decompress(encoded: &[u8; 32]) -> Option<EdwardsPoint> {
    CompressedEdwardsY(*encoded).decompress()
}

/// Judges the items of one thread together.
fn judge(items: &[Item<'_>], verdicts: &mut [bool]) {
    let mut keys = Keyring::of(items);
    let Some(factors) = Factors::draw(items.len()) else {
        // Without randomness nothing may be summed.
        for ((item, key), verdict) in items.iter().zip(&keys.of_item).zip(verdicts) {
            *verdict = key.is_some_and(|key| holds(item, &keys.points[key]));
        }
        return;
    };
    let mut terms = Vec::with_capacity(items.len());
    for (index, (item, key)) in items.iter().zip(&keys.of_item).enumerate() {
        if let (Some(key), Some(Term { r, s, k })) = (*key, Term::read(item)) {
            let z = factors.at(index);
            terms.push(Weighted { index, key, zs: z * s, zk: z * k, z, r });
        }
    }
    let all = 0..terms.len();
    Share { items, points: &keys.points, terms: &terms, budget: 2 * items.len() }.settle(all, false, verdicts);
    keys.keep_those_that_signed(&terms, verdicts);
}

fn holds(item: &Item<'_>, public_key: &EdwardsPoint) -> bool {
    Term::read(item).is_some_and(|term| term.holds(public_key))
}

/// A term times its random factor z.
struct Weighted {
    index: usize,
    key: usize,
    z: Scalar,
    zs: Scalar,
    zk: Scalar,
    r: EdwardsPoint,
}

struct Share<'a> {
    items: &'a [Item<'a>],
    points: &'a [EdwardsPoint],
    terms: &'a [Weighted],
    /// How many terms may still be summed again in search of bad ones; bounds what a flood of forgeries costs.
    budget: usize,
}

impl Share<'_> {
    /// Bisection. `known_bad`: the sum over this range is already known not to be zero.
    fn settle(&mut self, range: Range<usize>, known_bad: bool, verdicts: &mut [bool]) {
        if range.len() <= SINGLES {
            return self.settle_singly(range, verdicts);
        }
        if !known_bad {
            if self.sum_is_zero(range.clone()) {
                return self.accept(range, verdicts);
            }
            return self.settle(range, true, verdicts);
        }
        if self.budget < range.len() {
            return self.settle_singly(range, verdicts);
        }
        self.budget -= range.len();
        let middle = range.start + range.len() / 2;
        let (left, right) = (range.start..middle, middle..range.end);
        if left.len() > SINGLES && self.sum_is_zero(left.clone()) {
            // The whole is not zero and this half is, so the other is not.
            self.accept(left, verdicts);
            self.settle(right, true, verdicts);
        } else {
            let left_known_bad = left.len() > SINGLES;
            self.settle(left, left_known_bad, verdicts);
            self.settle(right, false, verdicts);
        }
    }

    fn accept(&self, range: Range<usize>, verdicts: &mut [bool]) {
        self.terms[range].iter().for_each(|weighted| verdicts[weighted.index] = true);
    }

    fn settle_singly(&self, range: Range<usize>, verdicts: &mut [bool]) {
        for weighted in &self.terms[range] {
            verdicts[weighted.index] = holds(&self.items[weighted.index], &self.points[weighted.key]);
        }
    }

    /// Whether [8](Σ zs B - Σ z R - Σ zk A) = 0, the terms of one key drawn together.
    fn sum_is_zero(&self, range: Range<usize>) -> bool {
        let terms = &self.terms[range];
        let mut of_base = Scalar::ZERO;
        let mut of_key = vec![None; self.points.len()];
        for weighted in terms {
            of_base -= weighted.zs;
            *of_key[weighted.key].get_or_insert(Scalar::ZERO) += weighted.zk;
        }
        // Collected, since the sum wants to know its length beforehand.
        let used: Vec<(Scalar, &EdwardsPoint)> =
            of_key.into_iter().zip(self.points).filter_map(|(factor, point)| Some((factor?, point))).collect();
        let sum = EdwardsPoint::vartime_multiscalar_mul(
            once(&of_base).chain(used.iter().map(|(factor, _)| factor)).chain(terms.iter().map(|w| &w.z)),
            once(&ED25519_BASEPOINT_POINT)
                .chain(used.iter().map(|(_, point)| *point))
                .chain(terms.iter().map(|w| &w.r)),
        );
        sum.mul_by_cofactor().is_identity()
    }
}

/// Random 128-bit factors that nobody can foresee: the output of BLAKE3 under a key drawn for this share alone.
struct Factors(Vec<u8>);

impl Factors {
    fn draw(count: usize) -> Option<Self> {
        let seed = Zeroizing::new(digest::random_array::<32>().ok()?);
        let mut bytes = vec![0; count * 16];
        blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut bytes);
        Some(Factors(bytes))
    }

    fn at(&self, index: usize) -> Scalar {
        Scalar::from(u128::from_le_bytes(self.0.as_chunks::<16>().0[index]))
    }
}

/// The distinct keys of a share, decompressed.
struct Keyring {
    /// Which point each item's key is; `None` where it is no point.
    of_item: Vec<Option<usize>>,
    points: Vec<EdwardsPoint>,
    /// Keys that were not yet in the cache, by their point.
    fresh: Vec<(usize, PublicKey)>,
}

impl Keyring {
    fn of(items: &[Item<'_>]) -> Self {
        let mut ring = Keyring { of_item: Vec::with_capacity(items.len()), points: Vec::new(), fresh: Vec::new() };
        let mut seen: HashMap<&PublicKey, Option<usize>> = HashMap::new();
        for item in items {
            let known = *seen.entry(item.public_key).or_insert_with_key(|key| ring.add(key));
            ring.of_item.push(known);
        }
        ring
    }

    fn add(&mut self, key: &PublicKey) -> Option<usize> {
        let at = self.points.len();
        if let Some(point) = KEYS.find(key) {
            self.points.push(point);
        } else {
            self.points.push(decompress(key)?);
            self.fresh.push((at, *key));
        }
        Some(at)
    }

    /// Only keys with a good signature are kept, so that a flood of forgeries drives none out.
    fn keep_those_that_signed(&mut self, terms: &[Weighted], verdicts: &[bool]) {
        if self.fresh.is_empty() {
            return;
        }
        let mut signed = vec![false; self.points.len()];
        (terms.iter().filter(|weighted| verdicts[weighted.index])).for_each(|weighted| signed[weighted.key] = true);
        let points = &self.points;
        KEYS.keep(self.fresh.drain(..).filter(|(at, _)| signed[*at]).map(|(at, key)| (key, points[at])));
    }
}

/// Decompressed public keys: in two generations, so that the least used are forgotten half at a time.
#[derive(Default)]
struct KeyCache(RwLock<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<PublicKey, EdwardsPoint>,
    old: HashMap<PublicKey, EdwardsPoint>,
}

static KEYS: LazyLock<KeyCache> = LazyLock::new(KeyCache::default);

impl KeyCache {
    /// Keys a generation; a key and its point are 192 bytes.
    const GENERATION: usize = 1 << 15;

    // Never waits for the lock: a point can always be computed, and a child forked meanwhile would wait for ever.
    fn find(&self, key: &PublicKey) -> Option<EdwardsPoint> {
        let known = self.0.try_read().ok()?;
        known.young.get(key).or_else(|| known.old.get(key)).copied()
    }

    fn keep(&self, keys: impl IntoIterator<Item = (PublicKey, EdwardsPoint)>) {
        let Ok(mut known) = self.0.try_write() else { return };
        for (key, point) in keys {
            if known.young.len() >= Self::GENERATION {
                known.old = std::mem::take(&mut known.young);
            }
            known.young.insert(key, point);
        }
    }
}

/// The rule for registering a key: one encoding for each, and none that binds nobody.
///
/// # Errors
/// `NotAPoint`, `NotCanonical` or `SmallOrder`.
pub fn check_public_key(public_key: &PublicKey) -> Result<(), SignatureError> {
    let point = decompress(public_key).ok_or(SignatureError::NotAPoint)?;
    if point.is_small_order() {
        return Err(SignatureError::SmallOrder);
    }
    if point.compress().to_bytes() != *public_key {
        return Err(SignatureError::NotCanonical);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use curve25519_dalek::constants::EIGHT_TORSION;
    use proptest::prelude::*;

    use super::*;

    type Owned = (PublicKey, Vec<u8>, Signature);

    fn items(owned: &[Owned]) -> Vec<Item<'_>> {
        owned.iter().map(|(public_key, message, signature)| Item { public_key, message, signature }).collect()
    }

    fn singles(owned: &[Owned]) -> Vec<bool> {
        owned.iter().map(|(public_key, message, signature)| verify(public_key, message, signature).is_ok()).collect()
    }

    fn oracle((public_key, message, signature): &Owned) -> bool {
        ed25519_zebra::VerificationKey::try_from(*public_key)
            .is_ok_and(|key| key.verify(&ed25519_zebra::Signature::from(*signature), message).is_ok())
    }

    /// A signature that holds only in the cofactored equation, if `torsion` says so, and a message of its own.
    fn signed(number: u64, keys: u64, torsion: (usize, usize)) -> Owned {
        let secret = hash_to_scalar(&[b"key", &(number % keys).to_le_bytes()]);
        let nonce = hash_to_scalar(&[b"nonce", &number.to_le_bytes()]);
        let message = format!("message {number}").into_bytes();
        let public_key = (EdwardsPoint::mul_base(&secret) + EIGHT_TORSION[torsion.0]).compress().to_bytes();
        let r = (EdwardsPoint::mul_base(&nonce) + EIGHT_TORSION[torsion.1]).compress().to_bytes();
        let s = nonce + hash_to_scalar(&[&r, &public_key, &message]) * secret;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(s.as_bytes());
        (public_key, message, signature)
    }

    fn forge(item: &mut Owned, way: u8) {
        match way % 8 {
            0 => item.2[40] ^= 1,
            1 => item.2[0] ^= 1,
            2 => item.1.push(0),
            3 => item.0 = signed(1 << 40, 1 << 41, (0, 0)).0,
            // No point of the curve.
            4 => item.0 = [2; 32],
            5 => item.2[..32].copy_from_slice(&[2; 32]),
            // s + l: the same equation, another number.
            6 => {
                let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
                let mut carry = 0;
                for (digit, addend) in item.2[32..].iter_mut().zip(order) {
                    let sum = u16::from(*digit) + u16::from(addend) + carry;
                    (*digit, carry) = (sum as u8, sum >> 8);
                }
            }
            _ => item.2 = [0; 64],
        }
    }

    #[test]
    fn every_combination_of_torsion_holds_alone_and_together() {
        let owned: Vec<Owned> =
            (0..64).map(|number| signed(number, 5, (number as usize / 8, number as usize % 8))).collect();
        assert!(singles(&owned).into_iter().all(|verdict| verdict));
        assert!(owned.iter().all(oracle));
        // A cofactorless batch accepts these by chance: again and again it must not depend on the random factors.
        for _ in 0..50 {
            assert!(verify_batch(&items(&owned)).into_iter().all(|verdict| verdict));
        }
        for length in 1..owned.len() {
            assert!(verify_batch(&items(&owned[..length])).into_iter().all(|verdict| verdict));
        }
    }

    #[test]
    fn the_bad_ones_are_found_wherever_they_are() {
        for count in [1, 2, 3, 4, 5, 8, 63, 64, 65, 200] {
            let good: Vec<Owned> = (0..count as u64).map(|number| signed(number, 7, (0, 0))).collect();
            for way in 0..8 {
                for bad in [vec![0], vec![count - 1], vec![count / 2], vec![0, count - 1], (0..count).collect()] {
                    let mut owned = good.clone();
                    bad.iter()
                        .collect::<std::collections::HashSet<_>>()
                        .into_iter()
                        .for_each(|at| forge(&mut owned[*at], way));
                    let expected: Vec<bool> = (0..count).map(|at| !bad.contains(&at)).collect();
                    assert_eq!(verify_batch(&items(&owned)), expected, "{count} {way} {bad:?}");
                }
            }
        }
    }

    #[test]
    fn forgeries_that_cancel_each_other_are_found() {
        let mut owned: Vec<Owned> = (0..40).map(|number| signed(number, 1, (0, 0))).collect();
        let s_of = |item: &Owned| Term::read(&items(std::slice::from_ref(item))[0]).unwrap().s;
        let (raised, lowered) = (s_of(&owned[3]) + Scalar::ONE, s_of(&owned[30]) - Scalar::ONE);
        owned[3].2[32..].copy_from_slice(raised.as_bytes());
        owned[30].2[32..].copy_from_slice(lowered.as_bytes());
        let verdicts = verify_batch(&items(&owned));
        assert!(verdicts.iter().enumerate().all(|(at, verdict)| *verdict != [3, 30].contains(&at)));
    }

    #[test]
    fn a_batch_of_several_shares_keeps_its_order() {
        let count = 2 * LARGEST_SHARE + 5;
        let mut owned: Vec<Owned> = (0..count as u64).map(|number| signed(number, 90, (0, 0))).collect();
        let bad = [0, LARGEST_SHARE - 1, LARGEST_SHARE, count - 1];
        bad.iter().for_each(|at| forge(&mut owned[*at], 0));
        let verdicts = verify_batch(&items(&owned));
        assert!(verdicts.iter().enumerate().all(|(at, verdict)| *verdict != bad.contains(&at)));
        assert!(verify_batch(&[]).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_batch_gives_the_verdicts_of_singles(
            drawn in prop::collection::vec((0..8usize, 0..8usize, prop::option::weighted(0.2, any::<u8>())), 0..80),
            keys in 1..20u64,
        ) {
            let owned: Vec<Owned> = (drawn.iter().enumerate())
                .map(|(number, (of_key, of_r, way))| {
                    let mut item = signed(number as u64, keys, (*of_key, *of_r));
                    way.iter().for_each(|way| forge(&mut item, *way));
                    item
                })
                .collect();
            let verdicts = verify_batch(&items(&owned));
            prop_assert_eq!(&verdicts, &singles(&owned));
            prop_assert_eq!(&verdicts, &owned.iter().map(oracle).collect::<Vec<_>>());
            for ((_, _, way), verdict) in drawn.iter().zip(verdicts) {
                prop_assert_eq!(verdict, way.is_none());
            }
        }
    }

    #[test]
    fn only_keys_that_signed_are_remembered() {
        let good = signed(0, 1, (3, 0));
        let mut bad = signed(1 << 50, 1 << 51, (0, 0));
        forge(&mut bad, 0);
        let strange_key = bad.0;
        let verdicts = verify_batch(&items(&[good.clone(), bad.clone(), good.clone()]));
        assert_eq!(verdicts, [true, false, true]);
        assert!(KEYS.find(&good.0).is_some());
        assert!(verify(&bad.0, &bad.1, &bad.2).is_err());
        assert!(KEYS.find(&strange_key).is_none());
    }

    #[test]
    fn the_cache_forgets_by_halves() {
        let cache = KeyCache::default();
        let key = |number: usize| -> PublicKey {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key
        };
        let point = EdwardsPoint::default();
        let total = 3 * KeyCache::GENERATION + 1;
        cache.keep((0..total).map(|number| (key(number), point)));
        let held = cache.0.read().map(|known| (known.young.len(), known.old.len())).unwrap();
        assert_eq!(held, (1, KeyCache::GENERATION));
        assert!(cache.find(&key(total - 1)).is_some() && cache.find(&key(total - 2)).is_some());
        assert!(cache.find(&key(0)).is_none());
    }

    #[test]
    fn a_key_is_registered_in_one_form_and_never_with_small_order() {
        let key = SigningKey::from_seed(&[4; 32]);
        assert_eq!(check_public_key(key.public_key()), Ok(()));
        assert_eq!(check_public_key(&[2; 32]), Err(SignatureError::NotAPoint));
        for point in EIGHT_TORSION {
            assert_eq!(check_public_key(&point.compress().to_bytes()), Err(SignatureError::SmallOrder));
        }
        // y = p + 3 .. p + 18 are the non-canonical forms of y = 3 .. 18; some of these are points of large order.
        let mut found = 0;
        for y in 3..19u8 {
            let mut canonical = [0; 32];
            canonical[0] = y;
            let mut other = [0xff; 32];
            (other[0], other[31]) = (0xed + y, 0x7f);
            if decompress(&canonical).is_some_and(|point| !point.is_small_order()) {
                assert_eq!(check_public_key(&canonical), Ok(()));
                assert_eq!(check_public_key(&other), Err(SignatureError::NotCanonical));
                found += 1;
            }
        }
        assert!(found > 0);
    }

    #[test]
    fn signing_is_that_of_rfc_8032() {
        // Source: RFC 8032, 7.1, TEST 2.
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SigningKey::from_seed(seed.as_slice().try_into().unwrap());
        assert_eq!(hex::encode(key.public_key()), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        assert_eq!(
            hex::encode(key.sign(&[0x72])),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert_eq!(key.seed().as_slice(), seed);
        let generated = SigningKey::generate().unwrap();
        assert_eq!(verify(generated.public_key(), b"m", &generated.sign(b"m")), Ok(()));
        assert!(!format!("{generated:?}").contains(&format!("{:?}", generated.seed())));
    }
}
