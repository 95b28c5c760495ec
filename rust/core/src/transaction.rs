//! Transactions: strict decode, id, signing, and the checks that need no state (form, size, chain, signature).
//! What was received is what is hashed and kept. The id is of what was signed, so no other signature changes it.
//! Before: the bytes of a client. After: replay check and execution, which judge what the sender may do.

use std::sync::Arc;

use crate::cbor::{self, Reader, Writer};
use crate::cose::{self, Sign1};
use crate::digest::{self, DigestError, RandomBlock};
use crate::pool;
use crate::signature::{self, Item, Signature, SigningKey};

/// What a transaction's signature is for.
pub const EXTERNAL_AAD: &[u8] = b"ehrfast/transaction/v1";
/// The cap without another one: a transaction whose packs travel beside it.
pub const MAX_BYTES: usize = 64 * 1024;
/// Nothing above this is ever read: the arguments of 700 records, and room for the rest.
pub const LARGEST_BYTES: usize = 320 * 1024;
/// CometBFT's limit, which chain ids keep to.
pub const MAX_CHAIN_ID_BYTES: usize = 50;
/// For the names of contracts and methods.
pub const MAX_NAME_BYTES: usize = 64;
/// Lanes are 0 emergency, 1 urgent, 2 routine.
pub const LAST_LANE: u8 = 2;

const CHAIN_ID: u8 = 1;
const CONTRACT: u8 = 2;
const METHOD: u8 = 3;
const ARGS: u8 = 4;
/// Key of the lane in the payload.
pub const LANE: u8 = 5;
/// Key of the expiry in the payload.
pub const EXPIRES: u8 = 6;
const SALT: u8 = 7;
const ATTACHMENTS: u8 = 8;

/// (pack root, wraps root) of a pack that travels with a transaction.
pub type Attachment = ([u8; 32], [u8; 32]);

/// A decoded transaction and the bytes it was received as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// BLAKE3 of the Sig_structure.
    pub id: [u8; 32],
    /// The public key in the protected header (kid).
    pub sender: [u8; 32],
    /// Field 1.
    pub chain_id: String,
    /// Field 2.
    pub contract: String,
    /// Field 3.
    pub method: String,
    /// Field 4, the encoded map.
    pub args: Vec<u8>,
    /// Field 5: 0 emergency, 1 urgent, 2 routine.
    pub lane: u8,
    /// Field 6, Unix milliseconds.
    pub expires: u64,
    /// Field 7.
    pub salt: [u8; 16],
    /// Field 8: (pack root, wraps root).
    pub attachments: Vec<Attachment>,
    /// What was received, never re-encoded.
    pub received: Arc<[u8]>,
    /// SHA-256 of `received`.
    pub received_digest: [u8; 32],
}

/// Why a transaction is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Not the one encoding of a transaction.
    #[error("not the encoding of a transaction")]
    Malformed(#[from] cbor::Error),
    /// A field holds what it may not.
    #[error("field {key} holds what it may not")]
    Field {
        /// Its key in the payload map.
        key: u8,
    },
    /// More bytes than allowed.
    #[error("{size} bytes exceed the cap of {limit}")]
    TooLarge {
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Signed for another chain.
    #[error("signed for another chain")]
    WrongChain,
    /// The signature does not hold.
    #[error("the signature does not hold")]
    Signature,
    /// No random bytes for a salt.
    #[error(transparent)]
    Random(#[from] DigestError),
}

impl TransactionError {
    /// The stable code programs see.
    pub fn code(&self) -> &'static str {
        match self {
            TransactionError::Malformed(_) | TransactionError::Field { .. } => "transaction.malformed",
            TransactionError::TooLarge { .. } => "transaction.too_large",
            TransactionError::WrongChain => "transaction.wrong_chain",
            TransactionError::Signature => "signature.invalid",
            TransactionError::Random(_) => "random.unavailable",
        }
    }
}

/// What is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The chain it is for.
    pub chain_id: &'a str,
    /// The contract it calls.
    pub contract: &'a str,
    /// And the method of it.
    pub method: &'a str,
    /// The encoded argument map.
    pub args: &'a [u8],
    /// 0 emergency, 1 urgent, 2 routine.
    pub lane: u8,
    /// Unix milliseconds; at most 2^63-1.
    pub expires: u64,
    /// 16 bytes that nobody can foresee.
    pub salt: [u8; 16],
    /// (pack root, wraps root).
    pub attachments: &'a [Attachment],
}

impl Draft<'_> {
    /// The payload, with every field held to what a reader would accept.
    ///
    /// # Errors
    /// `Field` or `Malformed` (arguments that are not one encoded map).
    pub fn payload(&self) -> Result<Vec<u8>, TransactionError> {
        check_chain_id(self.chain_id)?;
        check_name(self.contract, CONTRACT)?;
        check_name(self.method, METHOD)?;
        check_lane(self.lane)?;
        check_expires(self.expires)?;
        let mut args = Reader::new(self.args, LARGEST_BYTES)?;
        read_args(&mut args)?;
        args.finish()?;
        let mut writer = Writer::with_capacity(128 + self.args.len() + 70 * self.attachments.len());
        let attached = !self.attachments.is_empty();
        writer.map(7 + usize::from(attached));
        writer.uint(CHAIN_ID.into()).text(self.chain_id)?;
        writer.uint(CONTRACT.into()).text(self.contract)?;
        writer.uint(METHOD.into()).text(self.method)?;
        writer.uint(ARGS.into()).raw(self.args);
        writer.uint(LANE.into()).uint(self.lane.into());
        writer.uint(EXPIRES.into()).uint(self.expires);
        writer.uint(SALT.into()).bytes(&self.salt);
        if attached {
            writer.uint(ATTACHMENTS.into()).array(self.attachments.len());
            for (pack, wraps) in self.attachments {
                writer.array(2).bytes(pack).bytes(wraps);
            }
        }
        Ok(writer.into_bytes())
    }

    /// Signs it.
    ///
    /// # Errors
    /// As `payload`, and `TooLarge` above `LARGEST_BYTES`.
    pub fn sign(&self, key: &SigningKey) -> Result<Transaction, TransactionError> {
        let payload = self.payload()?;
        let signed = cose::sign1_structure(key.public_key(), EXTERNAL_AAD, &payload);
        let signature = key.sign(&signed);
        let received = Sign1 { key: key.public_key(), payload: &payload, signature: &signature }.encode();
        check_size(received.len(), LARGEST_BYTES)?;
        Ok(Transaction {
            id: digest::blake3(&signed),
            sender: *key.public_key(),
            chain_id: self.chain_id.to_owned(),
            contract: self.contract.to_owned(),
            method: self.method.to_owned(),
            args: self.args.to_vec(),
            lane: self.lane,
            expires: self.expires,
            salt: self.salt,
            attachments: self.attachments.to_vec(),
            received_digest: digest::sha256(&received),
            received: received.into(),
        })
    }
}

/// Signs one draft with each of `args` in its place, each under a fresh salt, on the pool.
///
/// # Errors
/// The first that cannot be signed; then none is.
pub fn sign_many(key: &SigningKey, draft: &Draft<'_>, args: &[Vec<u8>]) -> Result<Vec<Transaction>, TransactionError> {
    let mut salts = RandomBlock::draw()?;
    let salts = args.iter().map(|_| salts.take()).collect::<Result<Vec<_>, _>>()?;
    let mut signed = refusals(args.len());
    pool::fill_chunks(&mut signed, CHUNK, |first, run| {
        let inputs = args.iter().zip(&salts).skip(first);
        run.iter_mut()
            .zip(inputs)
            .for_each(|(slot, (args, salt))| *slot = Draft { args, salt: *salt, ..*draft }.sign(key));
    });
    signed.into_iter().collect()
}

/// Reads a transaction strictly. Its signature is NOT checked.
///
/// # Errors
/// `Malformed`, `Field`, or `TooLarge` above `LARGEST_BYTES`.
pub fn decode(received: &[u8]) -> Result<Transaction, TransactionError> {
    Ok(decode_within(received, LARGEST_BYTES)?.transaction)
}

/// A transaction and what its signature must be checked against.
pub(crate) struct Unverified {
    pub transaction: Transaction,
    pub signed: Vec<u8>,
    pub signature: Signature,
}

pub(crate) fn decode_within(received: &[u8], max_bytes: usize) -> Result<Unverified, TransactionError> {
    check_size(received.len(), max_bytes)?;
    let message = Sign1::decode(received, max_bytes)?;
    let mut reader = Reader::new(message.payload, max_bytes)?;
    let fields = reader.map()?;
    if fields != 7 && fields != 8 {
        return Err(cbor::Error::Unexpected { offset: 0 }.into());
    }
    reader.expect_int(CHAIN_ID.into())?;
    let chain_id = reader.text()?;
    check_chain_id(chain_id)?;
    reader.expect_int(CONTRACT.into())?;
    let contract = reader.text()?;
    check_name(contract, CONTRACT)?;
    reader.expect_int(METHOD.into())?;
    let method = reader.text()?;
    check_name(method, METHOD)?;
    reader.expect_int(ARGS.into())?;
    let args = read_args(&mut reader)?;
    reader.expect_int(LANE.into())?;
    let lane = reader.uint_as()?;
    check_lane(lane)?;
    reader.expect_int(EXPIRES.into())?;
    let expires = reader.uint()?;
    check_expires(expires)?;
    reader.expect_int(SALT.into())?;
    let salt = reader.fixed()?;
    let attachments = if fields == 8 { read_attachments(&mut reader)? } else { Vec::new() };
    reader.finish()?;
    let signed = message.signed_bytes(EXTERNAL_AAD);
    let transaction = Transaction {
        id: digest::blake3(&signed),
        sender: *message.key,
        chain_id: chain_id.to_owned(),
        contract: contract.to_owned(),
        method: method.to_owned(),
        args: args.to_vec(),
        lane,
        expires,
        salt,
        attachments,
        received: received.into(),
        received_digest: digest::sha256(received),
    };
    Ok(Unverified { transaction, signed, signature: *message.signature })
}

fn read_args<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], TransactionError> {
    let offset = reader.offset();
    // One container, the payload map, is open around the arguments.
    let args = reader.raw(1)?;
    match args.first() {
        Some(head) if head >> 5 == 5 => Ok(args),
        _ => Err(cbor::Error::Unexpected { offset }.into()),
    }
}

fn read_attachments(reader: &mut Reader<'_>) -> Result<Vec<Attachment>, TransactionError> {
    reader.expect_int(ATTACHMENTS.into())?;
    let count = reader.array()?;
    if count == 0 {
        // None is said by leaving the field out.
        return Err(TransactionError::Field { key: ATTACHMENTS });
    }
    let mut attachments = Vec::new();
    for _ in 0..count {
        reader.array_of(2)?;
        attachments.push((reader.fixed()?, reader.fixed()?));
    }
    Ok(attachments)
}

fn check_size(size: usize, limit: usize) -> Result<(), TransactionError> {
    if size > limit { Err(TransactionError::TooLarge { size, limit }) } else { Ok(()) }
}

fn check_chain_id(text: &str) -> Result<(), TransactionError> {
    let letters = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    check_field((1..=MAX_CHAIN_ID_BYTES).contains(&text.len()) && text.bytes().all(letters), CHAIN_ID)
}

fn check_name(text: &str, key: u8) -> Result<(), TransactionError> {
    let letters = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.');
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    check_field(first && text.len() <= MAX_NAME_BYTES && text.bytes().all(letters), key)
}

fn check_lane(lane: u8) -> Result<(), TransactionError> {
    check_field(lane <= LAST_LANE, LANE)
}

/// Times stay within 63 bits, so that a sum of two never overflows.
fn check_expires(expires: u64) -> Result<(), TransactionError> {
    check_field(i64::try_from(expires).is_ok(), EXPIRES)
}

fn check_field(holds: bool, key: u8) -> Result<(), TransactionError> {
    if holds { Ok(()) } else { Err(TransactionError::Field { key }) }
}

/// Items one thread takes at a time: large enough to hide the hand-over, small enough to share 1,000.
const CHUNK: usize = 32;

/// Slots to be filled by the pool; one that were left out would stay refused.
fn refusals<T>(count: usize) -> Vec<Result<T, TransactionError>> {
    (0..count).map(|_| Err(TransactionError::Signature)).collect()
}

/// Decodes and checks each item by itself: form, size, chain, signature. Order is kept, and no item stops another.
pub fn admit<B: AsRef<[u8]> + Sync>(
    received: &[B],
    chain_id: &str,
    max_bytes: usize,
) -> Vec<Result<Transaction, TransactionError>> {
    let limit = max_bytes.min(LARGEST_BYTES);
    let mut decoded = refusals(received.len());
    pool::fill_chunks(&mut decoded, CHUNK, |first, run| {
        run.iter_mut().zip(received.iter().skip(first)).for_each(|(slot, bytes)| {
            let item = decode_within(bytes.as_ref(), limit);
            *slot = item.and_then(|item| match item.transaction.chain_id == chain_id {
                true => Ok(item),
                false => Err(TransactionError::WrongChain),
            });
        });
    });
    let items: Vec<_> = decoded
        .iter()
        .flatten()
        .map(|item| Item { public_key: &item.transaction.sender, message: &item.signed, signature: &item.signature })
        .collect();
    let mut verdicts = signature::verify_batch(&items).into_iter();
    decoded
        .into_iter()
        .map(|item| {
            let item = item?;
            if verdicts.next() == Some(true) { Ok(item.transaction) } else { Err(TransactionError::Signature) }
        })
        .collect()
}

/// The same checks for transactions that are already decoded.
pub fn admit_decoded<T: AsRef<Transaction> + Sync>(
    transactions: &[T],
    chain_id: &str,
    max_bytes: usize,
) -> Vec<Result<(), TransactionError>> {
    let mut decoded = refusals(transactions.len());
    pool::fill_chunks(&mut decoded, CHUNK, |first, run| {
        run.iter_mut().zip(transactions.iter().skip(first)).for_each(|(slot, transaction)| {
            *slot = signed_part(transaction.as_ref(), chain_id, max_bytes);
        });
    });
    let items: Vec<_> = decoded
        .iter()
        .zip(transactions)
        .filter_map(|(part, transaction)| {
            let (message, signature) = part.as_ref().ok()?;
            Some(Item { public_key: &transaction.as_ref().sender, message, signature })
        })
        .collect();
    let mut verdicts = signature::verify_batch(&items).into_iter();
    decoded
        .iter()
        .map(|part| match part {
            Ok(_) if verdicts.next() == Some(true) => Ok(()),
            Ok(_) => Err(TransactionError::Signature),
            Err(error) => Err(error.clone()),
        })
        .collect()
}

fn signed_part(
    transaction: &Transaction,
    chain_id: &str,
    max_bytes: usize,
) -> Result<(Vec<u8>, Signature), TransactionError> {
    let limit = max_bytes.min(LARGEST_BYTES);
    check_size(transaction.received.len(), limit)?;
    let message = Sign1::decode(&transaction.received, limit)?;
    if transaction.chain_id != chain_id {
        return Err(TransactionError::WrongChain);
    }
    Ok((message.signed_bytes(EXTERNAL_AAD), *message.signature))
}
