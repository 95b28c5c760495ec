//! The profile against `minicbor` as the outside reader and writer, and against what it must refuse.

use ehrfast_core::cbor::{Error, Item, MAX_DEPTH, MapKeys, Reader, Value, Writer, decode, encode, key_rank};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;

fn read(hex_digits: &str) -> Result<Value, Error> {
    decode(&hex::decode(hex_digits).unwrap(), 1 << 20)
}

/// Text in NFC, with letters whose composed and decomposed forms differ.
fn text() -> impl Strategy<Value = String> {
    "[ a-eé\u{301}\u{327}Å日한🙂]{0,12}".prop_map(|text| text.nfc().collect())
}

fn value() -> impl Strategy<Value = Value> {
    let edge = prop_oneof![0..=24i128, 250..=260i128, 65530..=65540i128, (1i128 << 32) - 2..(1i128 << 32) + 2];
    let integer = prop_oneof![any::<u64>().prop_map(i128::from), any::<i64>().prop_map(i128::from), edge];
    let leaf = prop_oneof![
        integer.clone().prop_map(Value::Integer),
        integer.prop_map(|n| Value::Integer((-1 - n).max(i64::MIN.into()))),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
        text().prop_map(Value::Text),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
    ];
    leaf.prop_recursive(MAX_DEPTH as u32, 64, 6, |inner| {
        let pairs = prop::collection::btree_map(-40..40i128, inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..30).prop_map(Value::Array),
            pairs.prop_map(|pairs| {
                let mut pairs: Vec<_> = pairs.into_iter().collect();
                pairs.sort_by_key(|(key, _)| key_rank(*key));
                Value::Map(pairs)
            }),
        ]
    })
}

fn write_with_minicbor(out: &mut Encoder<Vec<u8>>, value: &Value) {
    match value {
        Value::Integer(n) => match u64::try_from(*n) {
            Ok(n) => out.u64(n).unwrap(),
            Err(_) => out.i64(i64::try_from(*n).unwrap()).unwrap(),
        },
        Value::Bytes(bytes) => out.bytes(bytes).unwrap(),
        Value::Text(text) => out.str(text).unwrap(),
        Value::Bool(flag) => out.bool(*flag).unwrap(),
        Value::Null => out.null().unwrap(),
        Value::Array(items) => {
            out.array(items.len() as u64).unwrap();
            items.iter().for_each(|item| write_with_minicbor(out, item));
            out
        }
        Value::Map(pairs) => {
            out.map(pairs.len() as u64).unwrap();
            for (key, item) in pairs {
                write_with_minicbor(out, &Value::Integer(*key));
                write_with_minicbor(out, item);
            }
            out
        }
    };
}

fn minicbor_encoding(value: &Value) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    write_with_minicbor(&mut out, value);
    out.into_writer()
}

/// Reads leniently with minicbor, then holds the result to the profile; `None` = outside it.
fn lenient(reader: &mut Decoder<'_>, open: usize) -> Option<Value> {
    let integer = |reader: &mut Decoder<'_>| {
        let n = i128::from(reader.int().ok()?);
        (n >= i128::from(i64::MIN)).then_some(n)
    };
    Some(match reader.datatype().ok()? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
            Value::Integer(integer(reader)?)
        }
        Type::Bytes => Value::Bytes(reader.bytes().ok()?.to_vec()),
        Type::String => Value::Text(reader.str().ok()?.to_owned()),
        Type::Bool => Value::Bool(reader.bool().ok()?),
        Type::Null => {
            reader.null().ok()?;
            Value::Null
        }
        Type::Array if open < MAX_DEPTH => {
            let count = reader.array().ok()??;
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(lenient(reader, open + 1)?);
            }
            Value::Array(items)
        }
        Type::Map if open < MAX_DEPTH => {
            let count = reader.map().ok()??;
            let mut pairs = Vec::new();
            for _ in 0..count {
                pairs.push((integer(reader)?, lenient(reader, open + 1)?));
            }
            Value::Map(pairs)
        }
        _ => return None,
    })
}

fn texts_are_nfc(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.nfc().eq(text.chars()),
        Value::Array(items) => items.iter().all(texts_are_nfc),
        Value::Map(pairs) => pairs.iter().all(|(_, item)| texts_are_nfc(item)),
        _ => true,
    }
}

fn keys_ascend(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(keys_ascend),
        Value::Map(pairs) => {
            pairs
                .windows(2)
                .all(|two| minicbor_encoding(&Value::Integer(two[0].0)) < minicbor_encoding(&Value::Integer(two[1].0)))
                && pairs.iter().all(|(_, item)| keys_ascend(item))
        }
        _ => true,
    }
}

fn expected(data: &[u8]) -> Option<Value> {
    let value = lenient(&mut Decoder::new(data), 0)?;
    (minicbor_encoding(&value) == data && texts_are_nfc(&value) && keys_ascend(&value)).then_some(value)
}

/// Our reader takes `data` exactly when the outside one, held to the profile, does; and `raw` agrees with `value`.
fn agree(data: &[u8]) {
    let ours = decode(data, data.len());
    assert_eq!(ours.clone().ok(), expected(data), "{}", hex::encode(data));
    let mut reader = Reader::new(data, data.len()).unwrap();
    let raw = reader.raw(0).and_then(|bytes| reader.finish().map(|()| bytes.to_vec()));
    assert_eq!(raw.as_ref().err(), ours.as_ref().err());
    if let Ok(value) = ours {
        assert_eq!(raw.unwrap(), data);
        assert_eq!(encode(&value).unwrap(), data);
    }
}

proptest! {
    #[test]
    fn writes_what_minicbor_writes_and_reads_it_back(value in value()) {
        match encode(&value) {
            Ok(bytes) => {
                prop_assert_eq!(&bytes, &minicbor_encoding(&value));
                prop_assert_eq!(decode(&bytes, bytes.len()), Ok(value));
                let cap = bytes.len() - 1;
                prop_assert_eq!(decode(&bytes, cap), Err(Error::TooLarge { size: cap + 1, limit: cap }));
            }
            Err(error) => {
                let too_deep = matches!(error, Error::TooDeep { .. });
                prop_assert!(too_deep, "{:?}", error);
            }
        }
    }

    #[test]
    fn reads_what_minicbor_held_to_the_profile_reads(data in prop::collection::vec(any::<u8>(), 0..40)) {
        agree(&data);
    }

    #[test]
    fn agrees_on_every_cut_and_changed_encoding(value in value(), change in any::<u8>(), at in any::<prop::sample::Index>()) {
        prop_assume!(encode(&value).is_ok());
        let mut bytes = encode(&value).unwrap();
        for length in 0..bytes.len().min(600) {
            prop_assert!(decode(&bytes[..length], length).is_err());
        }
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        agree(&bytes);
        bytes.push(change);
        agree(&bytes);
    }
}

#[test]
fn agrees_on_every_input_of_up_to_two_bytes() {
    agree(&[]);
    for first in 0..=255 {
        agree(&[first]);
        for second in 0..=255 {
            agree(&[first, second]);
        }
    }
}

#[test]
fn refuses_each_other_form_with_its_own_error() {
    for (hex_digits, refused) in [
        ("1817", Error::NotShortest { offset: 0 }),
        ("1900ff", Error::NotShortest { offset: 0 }),
        ("1a0000ffff", Error::NotShortest { offset: 0 }),
        ("1b00000000ffffffff", Error::NotShortest { offset: 0 }),
        ("82013817", Error::NotShortest { offset: 2 }),
        ("5801ff", Error::NotShortest { offset: 0 }),
        ("780161", Error::NotShortest { offset: 0 }),
        ("980101", Error::NotShortest { offset: 0 }),
        ("b8010101", Error::NotShortest { offset: 0 }),
        ("5f4101ff", Error::Indefinite { offset: 0 }),
        ("7f6161ff", Error::Indefinite { offset: 0 }),
        ("9f01ff", Error::Indefinite { offset: 0 }),
        ("bf0101ff", Error::Indefinite { offset: 0 }),
        ("ff", Error::Indefinite { offset: 0 }),
        ("f90000", Error::Unsupported { offset: 0 }),
        ("fa00000000", Error::Unsupported { offset: 0 }),
        ("fb0000000000000000", Error::Unsupported { offset: 0 }),
        ("f7", Error::Unsupported { offset: 0 }),
        ("e0", Error::Unsupported { offset: 0 }),
        ("f8ff", Error::Unsupported { offset: 0 }),
        ("c100", Error::Unsupported { offset: 0 }),
        ("1c", Error::Unsupported { offset: 0 }),
        ("3b8000000000000000", Error::OutOfRange { offset: 0 }),
        ("62c328", Error::NotUtf8 { offset: 0 }),
        ("63eda080", Error::NotUtf8 { offset: 0 }),
        ("6365cc81", Error::NotNfc { offset: 0 }),
        ("a201000100", Error::KeyOrder { offset: 3 }),
        ("a202000100", Error::KeyOrder { offset: 3 }),
        ("a220000100", Error::KeyOrder { offset: 3 }),
        ("a221002000", Error::KeyOrder { offset: 3 }),
        ("a1616100", Error::KeyOrder { offset: 1 }),
        ("0000", Error::TrailingBytes { offset: 1 }),
        ("", Error::Truncated { offset: 0 }),
        ("8201", Error::Truncated { offset: 0 }),
        ("8301", Error::Truncated { offset: 0 }),
        ("a101", Error::Truncated { offset: 0 }),
        ("42ff", Error::Truncated { offset: 0 }),
        ("5bffffffffffffffff", Error::Truncated { offset: 0 }),
        ("9bffffffffffffffff", Error::Truncated { offset: 0 }),
        ("bb7fffffffffffffff", Error::Truncated { offset: 0 }),
        ("818181818181818180", Error::TooDeep { offset: 8 }),
        ("8181818181818181a0", Error::TooDeep { offset: 8 }),
        ("a100a100a100a100a100a100a100a10080", Error::TooDeep { offset: 16 }),
    ] {
        assert_eq!(read(hex_digits), Err(refused), "{hex_digits}");
    }
}

#[test]
fn takes_the_limits_themselves() {
    assert_eq!(read("1bffffffffffffffff"), Ok(Value::Integer(u64::MAX.into())));
    assert_eq!(read("3b7fffffffffffffff"), Ok(Value::Integer(i64::MIN.into())));
    assert!(read("8181818181818180").is_ok());
    assert_eq!(read("a201000020"), Err(Error::KeyOrder { offset: 3 }));
    assert_eq!(
        read("a3000118180220f6"),
        Ok(Value::Map(vec![(0, Value::Integer(1)), (24, Value::Integer(2)), (-1, Value::Null)]))
    );
}

#[test]
fn writes_no_value_that_it_would_not_read() {
    let refused = |value: &Value| encode(value).unwrap_err();
    assert!(matches!(refused(&Value::Integer(1i128 << 64)), Error::OutOfRange { .. }));
    assert!(matches!(refused(&Value::Integer(-(1i128 << 63) - 1)), Error::OutOfRange { .. }));
    assert!(matches!(refused(&Value::Text("e\u{301}".into())), Error::NotNfc { .. }));
    assert!(matches!(Writer::new().text("e\u{301}"), Err(Error::NotNfc { .. })));
    for keys in [[1, 1], [1, 0], [-1, 0], [-2, -1]] {
        let map = Value::Map(keys.map(|key| (key, Value::Null)).to_vec());
        assert!(matches!(refused(&map), Error::KeyOrder { .. }));
    }
    let nested = |levels| (1..levels).fold(Value::Array(Vec::new()), |inner, _| Value::Array(vec![inner]));
    assert!(encode(&nested(MAX_DEPTH)).is_ok());
    assert!(matches!(refused(&nested(MAX_DEPTH + 1)), Error::TooDeep { .. }));
}

#[test]
fn typed_getters_take_their_own_type_and_no_other() {
    type Getter = fn(&mut Reader<'_>) -> Result<(), Error>;
    let getters: [(&str, Getter); 9] = [
        ("00", |r| r.uint().map(drop)),
        ("20", |r| r.int().map(drop)),
        ("41ff", |r| r.bytes().map(drop)),
        ("6161", |r| r.text().map(drop)),
        ("80", |r| r.array().map(drop)),
        ("a0", |r| r.map().map(drop)),
        ("f5", |r| r.boolean().map(drop)),
        ("d2", |r| r.tag(18)),
        ("f6", |r| if r.take_null() { Ok(()) } else { Err(Error::Unexpected { offset: r.offset() }) }),
    ];
    for (own, getter) in &getters {
        for (other, _) in &getters {
            let bytes = hex::decode(other).unwrap();
            let mut reader = Reader::new(&bytes, 8).unwrap();
            let taken = getter(&mut reader);
            // An integer getter takes both signs, where the sign fits.
            if own == other || (*own == "20" && *other == "00") {
                assert_eq!((taken, reader.remaining()), (Ok(()), 0));
            } else {
                assert_eq!(taken, Err(Error::Unexpected { offset: 0 }), "{own} getter on {other}");
            }
        }
    }
}

#[test]
fn typed_getters_hold_to_the_length_and_value_asked_for() {
    let reader = |bytes| Reader::new(bytes, 16).unwrap();
    let unexpected = Error::Unexpected { offset: 0 };
    assert_eq!(reader(b"\x42ab").fixed::<2>(), Ok(*b"ab"));
    assert_eq!(reader(b"\x42ab").fixed::<3>(), Err(unexpected));
    assert_eq!(reader(b"\x81\x00").array_of(2), Err(unexpected));
    assert_eq!(reader(b"\xa1\x00\x00").map_of(0), Err(unexpected));
    assert_eq!(reader(b"\xd3\x00").tag(18), Err(unexpected));
    assert_eq!(reader(b"\x02").expect_int(1), Err(unexpected));
    assert_eq!(reader(b"\x21").expect_int(-2), Ok(()));
    assert_eq!(reader(b"\x18\xff").uint_as::<u8>(), Ok(255));
    assert_eq!(reader(b"\x19\x01\x00").uint_as::<u8>(), Err(Error::OutOfRange { offset: 0 }));
    assert_eq!(reader(b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff").int(), Err(Error::OutOfRange { offset: 0 }));
    assert_eq!(reader(b"\x81\x80").raw(MAX_DEPTH - 1), Err(Error::TooDeep { offset: 1 }));
    assert_eq!(reader(b"\x81\x80").raw(MAX_DEPTH - 2), Ok(&b"\x81\x80"[..]));
    assert_eq!(reader(b"\xd2\x00").item(), Ok(Item::Tag(18)));
    let mut sorted = reader(b"\x01\x01");
    let mut keys = MapKeys::new();
    assert_eq!(keys.next(&mut sorted), Ok(1));
    assert_eq!(keys.next(&mut sorted), Err(Error::KeyOrder { offset: 1 }));
}
