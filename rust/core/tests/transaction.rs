//! Transactions: pinned encodings, every change refused or another transaction, a verdict per item.
//! The generator's twin is tests/reference/transaction.py.

use ehrfast_core::cbor::{Value, Writer, encode};
use ehrfast_core::cose::{Sign1, sign1};
use ehrfast_core::digest;
use ehrfast_core::signature::SigningKey;
use ehrfast_core::transaction::{
    Attachment, Draft, EXTERNAL_AAD, LARGEST_BYTES, MAX_BYTES, Transaction, TransactionError, admit, admit_decoded,
    decode, sign_many,
};

use crate::pinned::pinned;

/// Bytes drawn from the BLAKE3 output of a label, front to back.
struct Stream(blake3::OutputReader);

impl Stream {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill(&mut out);
        out
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.take::<1>()[0] % bound
    }

    fn number(&mut self, least_shift: u8) -> u64 {
        let value = u64::from_be_bytes(self.take());
        value >> (least_shift + self.below(64 - least_shift))
    }

    fn name(&mut self) -> String {
        (0..1 + self.below(12)).map(|_| char::from(b'a' + self.below(26))).collect()
    }

    fn value(&mut self, depth: u8) -> Value {
        match self.below(if depth == 3 { 5 } else { 7 }) {
            0 => Value::Integer(self.number(0).into()),
            1 => Value::Integer(-1 - i128::from(self.number(1))),
            2 => {
                let mut bytes = vec![0; self.take::<1>()[0].into()];
                self.0.fill(&mut bytes);
                Value::Bytes(bytes)
            }
            3 => {
                let letters = ['a', 'é', '日', '🙂', 'ß', ' '];
                Value::Text((0..self.below(20)).map(|_| letters[usize::from(self.below(6))]).collect())
            }
            4 => [Value::Bool(true), Value::Bool(false), Value::Null][usize::from(self.below(3))].clone(),
            kind => {
                let count = self.below(4);
                if kind == 5 {
                    return Value::Array((0..count).map(|_| self.value(depth + 1)).collect());
                }
                let keys = [0, 1, -1, -2].into_iter().take(count.into());
                Value::Map(keys.map(|key| (key, self.value(depth + 1))).collect())
            }
        }
    }
}

fn generated(number: u32) -> Transaction {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("ehrfast transaction vector {number}").as_bytes());
    let mut draw = Stream(hasher.finalize_xof());
    let key = SigningKey::from_seed(&draw.take());
    let (salt, expires, lane) = (draw.take(), draw.number(1), draw.below(3));
    let chain_id = format!("vector-{}", hex::encode(draw.take::<16>()));
    let (contract, method) = (draw.name(), draw.name());
    let pairs = 1..1 + i128::from(draw.below(5));
    let args = encode(&Value::Map(pairs.map(|key| (key, draw.value(0))).collect())).unwrap();
    let attachments: Vec<Attachment> = (0..draw.below(3)).map(|_| (draw.take(), draw.take())).collect();
    Draft {
        chain_id: &chain_id,
        contract: &contract,
        method: &method,
        args: &args,
        lane,
        expires,
        salt,
        attachments: &attachments,
    }
    .sign(&key)
    .unwrap()
}

fn example() -> Transaction {
    let args = encode(&Value::Map(vec![
        (1, Value::Bytes((0..16).collect())),
        (2, Value::Array(vec![Value::Integer(1), Value::Integer(2)])),
    ]))
    .unwrap();
    let chain_id = format!("main-{}", "0".repeat(32));
    let draft = Draft { chain_id: &chain_id, args: &args, ..DRAFT };
    draft.sign(&key(1)).unwrap()
}

const DRAFT: Draft<'_> = Draft {
    chain_id: "chain-1",
    contract: "access",
    method: "open",
    args: &[0xa0],
    lane: 0,
    expires: 1_800_000_000_000,
    salt: [2; 16],
    attachments: &[],
};

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

/// What the encoder would write for these fields under this signature.
fn encoded_again(transaction: &Transaction) -> Vec<u8> {
    let payload = Draft {
        chain_id: &transaction.chain_id,
        contract: &transaction.contract,
        method: &transaction.method,
        args: &transaction.args,
        lane: transaction.lane,
        expires: transaction.expires,
        salt: transaction.salt,
        attachments: &transaction.attachments,
    }
    .payload()
    .unwrap();
    let signature = transaction.received.last_chunk().unwrap();
    Sign1 { key: &transaction.sender, payload: &payload, signature }.encode()
}

#[test]
fn generated_encodings_are_pinned() {
    let (mut encodings, mut ids) = (blake3::Hasher::new(), blake3::Hasher::new());
    for number in 0..pinned("transaction", "count").parse().unwrap() {
        let transaction = generated(number);
        encodings.update(&(transaction.received.len() as u32).to_be_bytes()).update(&transaction.received);
        ids.update(&transaction.id);
        assert_eq!(decode(&transaction.received).as_ref(), Ok(&transaction));
        assert_eq!(encoded_again(&transaction), *transaction.received);
    }
    assert_eq!(encodings.finalize().to_hex().as_str(), pinned("transaction", "encodings"));
    assert_eq!(ids.finalize().to_hex().as_str(), pinned("transaction", "ids"));
    assert_eq!(hex::encode(&example().received), pinned("transaction", "example"));
    assert_eq!(hex::encode(example().id), pinned("transaction", "example_id"));
}

#[test]
fn the_id_is_of_what_was_signed_and_the_digest_of_what_was_received() {
    let transaction = example();
    let message = Sign1::decode(&transaction.received, MAX_BYTES).unwrap();
    assert_eq!(transaction.id, *blake3::hash(&message.signed_bytes(b"ehrfast/transaction/v1")).as_bytes());
    assert_eq!(transaction.received_digest, digest::sha256(&transaction.received));
    let other = Sign1 { signature: &[0; 64], ..message }.encode();
    let other = decode(&other).unwrap();
    assert_eq!(other.id, transaction.id);
    assert_ne!(other.received_digest, transaction.received_digest);
}

#[test]
fn every_changed_byte_is_refused_or_another_transaction() {
    for original in [example(), generated(3)] {
        let signature_at = original.received.len() - 64;
        for (at, change) in (0..original.received.len()).flat_map(|at| (1..=255).map(move |change| (at, change))) {
            let mut changed = original.received.to_vec();
            changed[at] ^= change;
            if let Ok(read) = decode(&changed) {
                assert_eq!(encoded_again(&read), changed, "byte {at}");
                assert_eq!(read.id == original.id, at >= signature_at, "byte {at}");
            }
        }
        let changed: Vec<_> = (0..original.received.len())
            .flat_map(|at| (0..8).map(move |bit| (at, bit)))
            .map(|(at, bit)| {
                let mut changed = original.received.to_vec();
                changed[at] ^= 1 << bit;
                changed
            })
            .collect();
        assert!(admit(&changed, &original.chain_id, MAX_BYTES).iter().all(Result::is_err));
    }
}

#[test]
fn every_cut_is_refused() {
    for original in [example(), generated(3)] {
        for length in 0..original.received.len() {
            assert!(decode(&original.received[..length]).is_err());
        }
        let longer = [&original.received[..], &[0]].concat();
        assert!(decode(&longer).is_err());
    }
}

/// A message whose payload is `payload`, rightly signed: only the payload is at fault.
fn with_payload(payload: &[u8]) -> Result<Transaction, TransactionError> {
    decode(&sign1(&key(1), payload, EXTERNAL_AAD))
}

fn field(key: u8, value: Value) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.map(7);
    for (number, usual) in [
        (1, Value::Text("chain-1".into())),
        (2, Value::Text("access".into())),
        (3, Value::Text("open".into())),
        (4, Value::Map(Vec::new())),
        (5, Value::Integer(2)),
        (6, Value::Integer(1)),
        (7, Value::Bytes(vec![0; 16])),
    ] {
        writer.uint(number).value(if number == u64::from(key) { &value } else { &usual }, 1).unwrap();
    }
    writer.into_bytes()
}

#[test]
fn each_field_holds_only_what_it_may() {
    assert!(with_payload(&field(0, Value::Null)).is_ok());
    let text = |text: &str| Value::Text(text.into());
    let long = "a".repeat(65);
    for (key, value) in [
        (1, text("")),
        (1, text(&long[..51])),
        (1, text("Chain")),
        (1, text("chain_1")),
        (1, text("kette-ä")),
        (2, text("")),
        (2, text(&long)),
        (2, text("1access")),
        (2, text("access-log")),
        (2, text("_access")),
        (3, text("Open")),
        (3, text("open()")),
        (5, Value::Integer(3)),
        (6, Value::Integer(1 << 63)),
    ] {
        let verdict = with_payload(&field(key, value.clone()));
        assert_eq!(verdict, Err(TransactionError::Field { key }), "{value:?}");
    }
    for (key, value) in [
        (1, Value::Bytes(b"chain-1".to_vec())),
        (3, Value::Null),
        (4, Value::Array(Vec::new())),
        (4, Value::Null),
        (5, Value::Bool(false)),
        (5, Value::Integer(256)),
        (6, Value::Integer(-1)),
        (7, Value::Bytes(vec![0; 15])),
        (7, Value::Bytes(vec![0; 17])),
    ] {
        let verdict = with_payload(&field(key, value.clone()));
        assert!(matches!(verdict, Err(TransactionError::Malformed(_))), "{key} {value:?}");
    }
    for (key, value) in [(1, text(&long[..50])), (2, text(&long[..64])), (6, Value::Integer((1 << 63) - 1))] {
        assert!(with_payload(&field(key, value)).is_ok());
    }
}

#[test]
fn another_encoding_of_the_payload_is_refused() {
    let usual = field(0, Value::Null);
    let splice = |from: &[u8], to: &[u8]| {
        let at = usual.windows(from.len()).position(|window| window == from).unwrap();
        [&usual[..at], to, &usual[at + from.len()..]].concat()
    };
    assert!(with_payload(&splice(b"\x05\x02", b"\x05\x01")).is_ok());
    for (from, to) in [
        (&b"\x05\x02"[..], &b"\x05\x18\x02"[..]),
        (b"\x05\x02", b"\x05\xfb\x40\0\0\0\0\0\0\0"),
        (b"\x06\x01", b"\x06\xc1\x01"),
        (b"\x66access", b"\x78\x06access"),
        (b"\x66access", b"\x7f\x66access\xff"),
        (b"\x04\xa0", b"\x04\xbf\xff"),
        (b"\x04\xa0", b"\x04\xa1\x01\x63e\xcc\x81"),
        (b"\x04\xa0", b"\x04\xa2\x01\x00\x01\x00"),
        (b"\x04\xa0", b"\x04\xa2\x02\x00\x01\x00"),
        (b"\x04\xa0", b"\x04\xa1\x61a\x00"),
        (b"\x04\xa0", b"\x04\xa1\x01\xf7"),
        (b"\x04\xa0", b"\x04\xa1\x01\x81\x81\x81\x81\x81\x81\x80"),
        (b"\x05\x02\x06\x01", b"\x06\x01\x05\x02"),
        (b"\xa7", b"\xa8"),
        (b"\xa7", b"\xb8\x07"),
        (b"\xa7", b"\xbf"),
        (b"\xa7\x01", b"\xa7\x18\x01"),
    ] {
        assert!(with_payload(&splice(from, to)).is_err(), "{from:x?} as {to:x?}");
    }
    assert!(with_payload(&splice(b"\x04\xa0", b"\x04\xa1\x01\x81\x81\x81\x81\x81\x80")).is_ok());
    let with_field_8 = |value: &[u8]| with_payload(&[&splice(b"\xa7", b"\xa8")[..], b"\x08", value].concat());
    let pair = [&b"\x82\x58\x20"[..], &[1; 32], b"\x58\x20", &[2; 32]].concat();
    assert_eq!(with_field_8(&[b"\x81", &pair[..]].concat()).unwrap().attachments, [([1; 32], [2; 32])]);
    assert_eq!(with_field_8(b"\x80"), Err(TransactionError::Field { key: 8 }));
    assert!(with_field_8(&pair).is_err());
    assert!(with_field_8(b"\x81\x80").is_err());
    assert!(with_payload(&[&splice(b"\xa7", b"\xa8")[..], b"\x09\x00"].concat()).is_err());
    assert!(with_payload(&[&usual[..], b"\x00"].concat()).is_err());
}

#[test]
fn another_form_of_the_message_is_refused() {
    let usual = example().received;
    let header = 1 + 1 + 2 + 38;
    let payload = &usual[header + 1..];
    let head = &usual[..header];
    let joined = |parts: &[&[u8]]| decode(&parts.concat());
    assert!(joined(&[head, b"\xa0", payload]).is_ok());
    assert!(joined(&[head, b"\xa1\x04\x41\x01", payload]).is_err(), "something unprotected");
    assert!(joined(&[&usual[1..]]).is_err(), "no tag");
    assert!(joined(&[b"\xd3", &usual[1..]]).is_err(), "another tag");
    assert!(joined(&[b"\xd8\x12", &usual[1..]]).is_err(), "a long tag");
    assert!(joined(&[b"\xd9\xd9\xf7", &usual]).is_err(), "a self-described message");
    assert!(joined(&[b"\xd2\x85", &usual[2..], b"\x40"]).is_err(), "a fifth part");
    let with_header = |header: &[u8]| {
        let mut writer = Writer::new();
        writer.bytes(header);
        decode(&[b"\xd2\x84", writer.as_bytes(), b"\xa0", payload].concat())
    };
    let kid = &usual[10..header];
    assert_eq!(kid, example().sender);
    assert!(with_header(&[b"\xa2\x01\x32\x04\x58\x20", kid].concat()).is_ok());
    assert!(with_header(&[b"\xa2\x01\x27\x04\x58\x20", kid].concat()).is_err(), "EdDSA, the older name");
    assert!(with_header(&[b"\xa2\x04\x58\x20", kid, b"\x01\x32"].concat()).is_err(), "keys in another order");
    assert!(with_header(&[b"\xa3\x01\x32\x03\x00\x04\x58\x20", kid].concat()).is_err(), "a further header");
    assert!(with_header(&[b"\xa2\x01\x32\x04\x58\x1f", &kid[1..]].concat()).is_err(), "a short key");
    assert!(with_header(b"\xa1\x01\x32").is_err(), "no key");
    assert!(with_header(&[b"\xa2\x01\x32\x04\x58\x20", kid, b"\x00"].concat()).is_err(), "bytes after the header");
    let signature = &usual[usual.len() - 66..];
    assert!(joined(&[head, b"\xa0\xf6", signature]).is_err(), "a detached payload");
    let short = &usual[..usual.len() - 66];
    assert!(joined(&[short, b"\x58\x3f", &signature[3..]]).is_err(), "a short signature");
}

#[test]
fn sizes_are_capped_before_anything_is_read() {
    let mut writer = Writer::new();
    writer.map(1).uint(1).bytes(&vec![0; LARGEST_BYTES - 1000]);
    let args = writer.into_bytes();
    let large = Draft { args: &args, ..DRAFT }.sign(&key(1)).unwrap();
    let size = large.received.len();
    assert!(size > MAX_BYTES && decode(&large.received).is_ok());
    let verdicts = admit(&[&large.received[..]], "chain-1", MAX_BYTES);
    assert_eq!(verdicts, [Err(TransactionError::TooLarge { size, limit: MAX_BYTES })]);
    assert!(admit(&[&large.received[..]], "chain-1", size)[0].is_ok());
    assert_eq!(admit_decoded(&[Shared(large.clone())], "chain-1", size), [Ok(())]);
    let refused = Err(TransactionError::TooLarge { size, limit: size - 1 });
    assert_eq!(admit_decoded(&[Shared(large)], "chain-1", size - 1), [refused]);
    let zeros = vec![0; LARGEST_BYTES + 1];
    let refused = TransactionError::TooLarge { size: LARGEST_BYTES + 1, limit: LARGEST_BYTES };
    assert_eq!(decode(&zeros), Err(refused.clone()));
    assert_eq!(admit(&[&zeros[..]], "chain-1", usize::MAX), [Err(refused)]);
    let mut writer = Writer::new();
    writer.map(1).uint(1).bytes(&vec![0; LARGEST_BYTES - 100]);
    let args = writer.into_bytes();
    let verdict = Draft { args: &args, ..DRAFT }.sign(&key(1));
    assert!(matches!(verdict, Err(TransactionError::TooLarge { .. })));
}

struct Shared(Transaction);

impl AsRef<Transaction> for Shared {
    fn as_ref(&self) -> &Transaction {
        &self.0
    }
}

/// Every kind of fault among good neighbours, in sizes around the share of one thread.
#[test]
fn each_item_gets_its_own_verdict_and_stops_no_other() {
    let keys: Vec<_> = (1..=5).map(key).collect();
    for count in [0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300] {
        let mut items = Vec::new();
        let mut expected = Vec::new();
        for number in 0..count {
            let draft = Draft { expires: number as u64, ..DRAFT };
            let chain_id = if number % 7 == 3 { "chain-2" } else { "chain-1" };
            let good = Draft { chain_id, ..draft }.sign(&keys[number % keys.len()]).unwrap();
            let mut bytes = good.received.to_vec();
            expected.push(match number % 7 {
                1 => {
                    let last = bytes.len() - 10;
                    bytes[last] ^= 1;
                    Err("signature.invalid")
                }
                3 => Err("transaction.wrong_chain"),
                5 => {
                    bytes.pop();
                    Err("transaction.malformed")
                }
                6 => {
                    bytes.resize(1001, 0);
                    Err("transaction.too_large")
                }
                _ => Ok(good.id),
            });
            items.push(bytes);
        }
        let verdicts: Vec<_> = admit(&items, "chain-1", 1000)
            .into_iter()
            .map(|verdict| verdict.map(|transaction| transaction.id).map_err(|error| error.code()))
            .collect();
        assert_eq!(verdicts, expected);

        let decoded: Vec<_> = items.iter().filter_map(|bytes| decode(bytes).ok().map(Shared)).collect();
        let verdicts = admit_decoded(&decoded, "chain-1", 1000).into_iter();
        let verdicts: Vec<_> = verdicts.map(|verdict| verdict.map_err(|error| error.code())).collect();
        let kept = expected.iter().filter(|v| !matches!(v, Err("transaction.malformed" | "transaction.too_large")));
        assert_eq!(verdicts, kept.map(|verdict| verdict.map(drop)).collect::<Vec<_>>());
    }
}

#[test]
fn a_signature_for_another_use_admits_nothing() {
    let message = sign1(&key(1), &field(0, Value::Null), b"ehrfast/batch/v1");
    assert_eq!(admit(&[message], "chain-1", MAX_BYTES), [Err(TransactionError::Signature)]);
}

#[test]
fn many_are_signed_in_order_each_under_its_own_salt() {
    let args: Vec<_> = (0..100u64).map(|n| encode(&Value::Map(vec![(1, Value::Integer(n.into()))])).unwrap()).collect();
    let signed = sign_many(&key(1), &DRAFT, &args).unwrap();
    assert!(signed.iter().map(|transaction| &transaction.args).eq(&args));
    let salts: std::collections::HashSet<_> = signed.iter().map(|transaction| transaction.salt).collect();
    assert_eq!(salts.len(), 100);
    let received: Vec<_> = signed.iter().map(|transaction| transaction.received.clone()).collect();
    assert!(admit(&received, "chain-1", MAX_BYTES).iter().all(Result::is_ok));
    let mut args = args;
    args[57] = vec![0x80];
    assert!(matches!(sign_many(&key(1), &DRAFT, &args), Err(TransactionError::Malformed(_))));
    assert_eq!(sign_many(&key(1), &DRAFT, &[]), Ok(Vec::new()));
}

#[test]
fn nothing_is_signed_that_would_not_be_read() {
    let refuses = |draft: Draft<'_>| draft.sign(&key(1)).is_err();
    assert!(!refuses(DRAFT));
    assert!(refuses(Draft { chain_id: "Chain", ..DRAFT }));
    assert!(refuses(Draft { contract: "", ..DRAFT }));
    assert!(refuses(Draft { method: "a b", ..DRAFT }));
    assert!(refuses(Draft { lane: 3, ..DRAFT }));
    assert!(refuses(Draft { expires: 1 << 63, ..DRAFT }));
    for args in [&b""[..], b"\x80", b"\xa0\xa0", b"\xa1\x18\x01\x00", b"\xa1\x01", b"\xbf\xff"] {
        assert!(refuses(Draft { args, ..DRAFT }), "{args:x?}");
    }
}
