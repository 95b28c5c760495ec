//! The strict CBOR profile all our formats share: one encoding for each value, nothing else is read.
//! Refuses indefinite lengths, long integers, floats, tags (unless asked for), undefined, unsorted or doubled keys,
//! text that is not UTF-8 in NFC, more than `MAX_DEPTH` open containers, trailing bytes, and input above its cap.
//! Map keys are integers in the order of RFC 8949 section 4.2.1: 0, 1, 2, … then -1, -2, …

use unicode_normalization::is_nfc;

/// How many arrays and maps may be open at once. A byte string that holds CBOR starts counting again.
pub const MAX_DEPTH: usize = 8;

/// The cap where a format names none of its own.
pub const DEFAULT_MAX_BYTES: usize = 1 << 20;

/// Why bytes or a value are outside the profile. Offsets count from the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More bytes than the cap; nothing was parsed.
    #[error("{size} bytes exceed the cap of {limit}")]
    TooLarge {
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The input ends inside an item, or an item claims more than the input holds.
    #[error("input ends inside the item at {offset}")]
    Truncated {
        /// Where the item starts.
        offset: usize,
    },
    /// Bytes follow the item.
    #[error("bytes follow the item, from {offset}")]
    TrailingBytes {
        /// Where they start.
        offset: usize,
    },
    /// An integer or length has a shorter encoding.
    #[error("a longer encoding than needed at {offset}")]
    NotShortest {
        /// Where the item starts.
        offset: usize,
    },
    /// An indefinite length, or the stop code of one.
    #[error("indefinite length at {offset}")]
    Indefinite {
        /// Where the item starts.
        offset: usize,
    },
    /// A float, a tag where none belongs, undefined, another simple value, or a reserved head.
    #[error("an item outside the profile at {offset}")]
    Unsupported {
        /// Where the item starts.
        offset: usize,
    },
    /// An integer outside -2^63..=2^64-1, or outside what its field allows.
    #[error("integer out of range at {offset}")]
    OutOfRange {
        /// Where the item starts.
        offset: usize,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8 at {offset}")]
    NotUtf8 {
        /// Where the item starts.
        offset: usize,
    },
    /// Text that is not in normalisation form C.
    #[error("text is not NFC at {offset}")]
    NotNfc {
        /// Where the item starts.
        offset: usize,
    },
    /// A map key that is no integer, repeats, or comes before the one preceding it.
    #[error("map key out of order at {offset}")]
    KeyOrder {
        /// Where the key starts.
        offset: usize,
    },
    /// More than `MAX_DEPTH` containers are open.
    #[error("nested too deep at {offset}")]
    TooDeep {
        /// Where the container starts.
        offset: usize,
    },
    /// Well-formed, but not the type, length or value that the format has here.
    #[error("not what the format has at {offset}")]
    Unexpected {
        /// Where the item starts.
        offset: usize,
    },
}

impl Error {
    /// The stable code programs see.
    pub fn code(&self) -> &'static str {
        match self {
            Error::TooLarge { .. } => "cbor.too_large",
            Error::Truncated { .. } => "cbor.truncated",
            Error::TrailingBytes { .. } => "cbor.trailing_bytes",
            Error::NotShortest { .. } => "cbor.not_shortest",
            Error::Indefinite { .. } => "cbor.indefinite",
            Error::Unsupported { .. } => "cbor.unsupported",
            Error::OutOfRange { .. } => "cbor.out_of_range",
            Error::NotUtf8 { .. } => "cbor.not_utf8",
            Error::NotNfc { .. } => "cbor.not_nfc",
            Error::KeyOrder { .. } => "cbor.key_order",
            Error::TooDeep { .. } => "cbor.too_deep",
            Error::Unexpected { .. } => "cbor.unexpected",
        }
    }

    /// The place in the input, where there is one.
    pub fn offset(&self) -> Option<usize> {
        match *self {
            Error::TooLarge { .. } => None,
            Error::Truncated { offset }
            | Error::TrailingBytes { offset }
            | Error::NotShortest { offset }
            | Error::Indefinite { offset }
            | Error::Unsupported { offset }
            | Error::OutOfRange { offset }
            | Error::NotUtf8 { offset }
            | Error::NotNfc { offset }
            | Error::KeyOrder { offset }
            | Error::TooDeep { offset }
            | Error::Unexpected { offset } => Some(offset),
        }
    }
}

/// Whether text may stand in one of our formats.
pub fn is_normal(text: &str) -> bool {
    text.is_ascii() || is_nfc(text)
}

/// One head with what belongs to it; the items of an array or map follow in the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// 0..=2^64-1.
    Unsigned(u64),
    /// -2^63..=-1.
    Negative(i64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// UTF-8 in NFC.
    Text(&'a str),
    /// As many items follow.
    Array(usize),
    /// As many pairs follow.
    Map(usize),
    /// A tag; the tagged item follows.
    Tag(u64),
    /// true or false.
    Bool(bool),
    /// null.
    Null,
}

/// Reads one strictly encoded input from front to back, borrowing from it.
///
/// ```
/// use ehrfast_core::cbor::{Reader, Writer};
/// let mut writer = Writer::new();
/// writer.array(2).uint(7).bytes(b"abc");
/// let bytes = writer.into_bytes();
/// let mut reader = Reader::new(&bytes, 64)?;
/// reader.array_of(2)?;
/// assert_eq!((reader.uint()?, reader.bytes()?), (7, &b"abc"[..]));
/// reader.finish()?;
/// # Ok::<(), ehrfast_core::cbor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    data: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `data`; more than `max_bytes` are refused unread.
    pub fn new(data: &'a [u8], max_bytes: usize) -> Result<Self, Error> {
        if data.len() > max_bytes {
            return Err(Error::TooLarge { size: data.len(), limit: max_bytes });
        }
        Ok(Reader { data, offset: 0 })
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.data.len().saturating_sub(self.offset)
    }

    /// The bytes read since `start`, an earlier `offset()`.
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.data.get(start..self.offset).unwrap_or_default()
    }

    /// Refuses trailing bytes.
    pub fn finish(self) -> Result<(), Error> {
        if self.remaining() == 0 { Ok(()) } else { Err(Error::TrailingBytes { offset: self.offset }) }
    }

    /// The next head with its content. Lengths never exceed what the input can still hold, so they may size an
    /// allocation.
    pub fn item(&mut self) -> Result<Item<'a>, Error> {
        let start = self.offset;
        let first = *self.data.get(start).ok_or(Error::Truncated { offset: start })?;
        let (major, short) = (first >> 5, first & 0x1f);
        self.offset = start + 1;
        if major == 7 {
            return match first {
                0xf4 => Ok(Item::Bool(false)),
                0xf5 => Ok(Item::Bool(true)),
                0xf6 => Ok(Item::Null),
                0xff => Err(Error::Indefinite { offset: start }),
                _ => Err(Error::Unsupported { offset: start }),
            };
        }
        let argument = self.argument(start, short)?;
        match major {
            0 => Ok(Item::Unsigned(argument)),
            1 => match i64::try_from(argument) {
                Ok(argument) => Ok(Item::Negative(-1 - argument)),
                Err(_) => Err(Error::OutOfRange { offset: start }),
            },
            2 => Ok(Item::Bytes(self.take(start, argument)?)),
            3 => {
                let bytes = self.take(start, argument)?;
                let text = std::str::from_utf8(bytes).map_err(|_| Error::NotUtf8 { offset: start })?;
                if is_normal(text) { Ok(Item::Text(text)) } else { Err(Error::NotNfc { offset: start }) }
            }
            4 => Ok(Item::Array(self.count(start, argument, 1)?)),
            5 => Ok(Item::Map(self.count(start, argument, 2)?)),
            _ => Ok(Item::Tag(argument)),
        }
    }

    fn argument(&mut self, start: usize, short: u8) -> Result<u64, Error> {
        let (value, least) = match short {
            0..=23 => return Ok(u64::from(short)),
            24 => (u64::from(self.big_endian::<1>(start)?[0]), 24),
            25 => (u64::from(u16::from_be_bytes(self.big_endian(start)?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.big_endian(start)?)), 1 << 16),
            27 => (u64::from_be_bytes(self.big_endian(start)?), 1 << 32),
            31 => return Err(Error::Indefinite { offset: start }),
            _ => return Err(Error::Unsupported { offset: start }),
        };
        if value < least { Err(Error::NotShortest { offset: start }) } else { Ok(value) }
    }

    fn big_endian<const N: usize>(&mut self, start: usize) -> Result<[u8; N], Error> {
        let rest = self.data.get(self.offset..).unwrap_or_default();
        let bytes = rest.first_chunk::<N>().ok_or(Error::Truncated { offset: start })?;
        self.offset += N;
        Ok(*bytes)
    }

    fn take(&mut self, start: usize, length: u64) -> Result<&'a [u8], Error> {
        let length = usize::try_from(length).map_err(|_| Error::Truncated { offset: start })?;
        let rest = self.data.get(self.offset..).unwrap_or_default();
        let bytes = rest.get(..length).ok_or(Error::Truncated { offset: start })?;
        self.offset += length;
        Ok(bytes)
    }

    fn count(&self, start: usize, count: u64, least_bytes: usize) -> Result<usize, Error> {
        match usize::try_from(count) {
            Ok(count) if count <= self.remaining() / least_bytes => Ok(count),
            _ => Err(Error::Truncated { offset: start }),
        }
    }

    /// An unsigned integer.
    pub fn uint(&mut self) -> Result<u64, Error> {
        let offset = self.offset;
        match self.item()? {
            Item::Unsigned(value) => Ok(value),
            _ => Err(Error::Unexpected { offset }),
        }
    }

    /// An unsigned integer that fits a narrower type (`u8`, `u32`, `usize` …).
    pub fn uint_as<T: TryFrom<u64>>(&mut self) -> Result<T, Error> {
        let offset = self.offset;
        T::try_from(self.uint()?).map_err(|_| Error::OutOfRange { offset })
    }

    /// An integer of either sign that fits 64 signed bits.
    pub fn int(&mut self) -> Result<i64, Error> {
        let offset = self.offset;
        match self.item()? {
            Item::Unsigned(value) => i64::try_from(value).map_err(|_| Error::OutOfRange { offset }),
            Item::Negative(value) => Ok(value),
            _ => Err(Error::Unexpected { offset }),
        }
    }

    /// Exactly this integer: a version, an algorithm, a key of a fixed map.
    pub fn expect_int(&mut self, value: i64) -> Result<(), Error> {
        let offset = self.offset;
        if self.int()? == value { Ok(()) } else { Err(Error::Unexpected { offset }) }
    }

    /// A byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let offset = self.offset;
        match self.item()? {
            Item::Bytes(bytes) => Ok(bytes),
            _ => Err(Error::Unexpected { offset }),
        }
    }

    /// A byte string of exactly `N` bytes.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.fixed_ref().copied()
    }

    /// The same, borrowed from the input.
    pub fn fixed_ref<const N: usize>(&mut self) -> Result<&'a [u8; N], Error> {
        let offset = self.offset;
        <&[u8; N]>::try_from(self.bytes()?).map_err(|_| Error::Unexpected { offset })
    }

    /// A text string.
    pub fn text(&mut self) -> Result<&'a str, Error> {
        let offset = self.offset;
        match self.item()? {
            Item::Text(text) => Ok(text),
            _ => Err(Error::Unexpected { offset }),
        }
    }

    /// true or false.
    pub fn boolean(&mut self) -> Result<bool, Error> {
        let offset = self.offset;
        match self.item()? {
            Item::Bool(value) => Ok(value),
            _ => Err(Error::Unexpected { offset }),
        }
    }

    /// Takes a null if one is next; for fields that hold a value or null.
    pub fn take_null(&mut self) -> bool {
        let null = self.data.get(self.offset) == Some(&0xf6);
        if null {
            self.offset += 1;
        }
        null
    }

    /// The head of an array: how many items follow.
    pub fn array(&mut self) -> Result<usize, Error> {
        let offset = self.offset;
        match self.item()? {
            Item::Array(count) => Ok(count),
            _ => Err(Error::Unexpected { offset }),
        }
    }

    /// The head of an array of exactly `count` items.
    pub fn array_of(&mut self, count: usize) -> Result<(), Error> {
        let offset = self.offset;
        if self.array()? == count { Ok(()) } else { Err(Error::Unexpected { offset }) }
    }

    /// The head of a map: how many pairs follow. The caller checks the keys with `MapKeys` or `expect_int`.
    pub fn map(&mut self) -> Result<usize, Error> {
        let offset = self.offset;
        match self.item()? {
            Item::Map(count) => Ok(count),
            _ => Err(Error::Unexpected { offset }),
        }
    }

    /// The head of a map of exactly `count` pairs.
    pub fn map_of(&mut self, count: usize) -> Result<(), Error> {
        let offset = self.offset;
        if self.map()? == count { Ok(()) } else { Err(Error::Unexpected { offset }) }
    }

    /// Exactly this tag; the tagged item follows.
    pub fn tag(&mut self, tag: u64) -> Result<(), Error> {
        let offset = self.offset;
        if self.item()? == Item::Tag(tag) { Ok(()) } else { Err(Error::Unexpected { offset }) }
    }

    /// The bytes of one whole item without tags, checked against the profile. `open` is how many containers of this
    /// input the caller has open around it.
    pub fn raw(&mut self, open: usize) -> Result<&'a [u8], Error> {
        let start = self.offset;
        self.check(open)?;
        Ok(self.since(start))
    }

    fn check(&mut self, open: usize) -> Result<(), Error> {
        let offset = self.offset;
        match self.item()? {
            Item::Tag(_) => Err(Error::Unsupported { offset }),
            Item::Array(count) => {
                let open = deeper(open, offset)?;
                (0..count).try_for_each(|_| self.check(open))
            }
            Item::Map(count) => {
                let open = deeper(open, offset)?;
                let mut keys = MapKeys::new();
                (0..count).try_for_each(|_| {
                    keys.next(self)?;
                    self.check(open)
                })
            }
            _ => Ok(()),
        }
    }

    /// One whole item without tags; `open` as in `raw`.
    pub fn value(&mut self, open: usize) -> Result<Value, Error> {
        let offset = self.offset;
        Ok(match self.item()? {
            Item::Unsigned(value) => Value::Integer(value.into()),
            Item::Negative(value) => Value::Integer(value.into()),
            Item::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Item::Text(text) => Value::Text(text.to_owned()),
            Item::Bool(value) => Value::Bool(value),
            Item::Null => Value::Null,
            Item::Tag(_) => return Err(Error::Unsupported { offset }),
            Item::Array(count) => {
                let open = deeper(open, offset)?;
                // An item is one byte here and 32 in memory, so the length is not taken as a capacity.
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.value(open)?);
                }
                Value::Array(items)
            }
            Item::Map(count) => {
                let open = deeper(open, offset)?;
                let mut keys = MapKeys::new();
                let mut pairs = Vec::new();
                for _ in 0..count {
                    let key = keys.next(self)?;
                    pairs.push((key, self.value(open)?));
                }
                Value::Map(pairs)
            }
        })
    }
}

/// One more container is opened at `offset` inside `open` others.
pub fn deeper(open: usize, offset: usize) -> Result<usize, Error> {
    if open < MAX_DEPTH { Ok(open + 1) } else { Err(Error::TooDeep { offset }) }
}

/// The order of integer keys: as their encodings compare.
pub fn key_rank(key: i128) -> (bool, u128) {
    (key < 0, key.unsigned_abs())
}

/// Reads the keys of one map and holds them to strictly ascending order.
#[derive(Clone, Copy, Debug, Default)]
pub struct MapKeys {
    last: Option<(bool, u128)>,
}

impl MapKeys {
    /// For a map whose head was just read.
    pub fn new() -> Self {
        MapKeys::default()
    }

    /// The next key; its value follows in the reader.
    pub fn next(&mut self, reader: &mut Reader<'_>) -> Result<i128, Error> {
        let offset = reader.offset();
        let key = match reader.item()? {
            Item::Unsigned(key) => i128::from(key),
            Item::Negative(key) => i128::from(key),
            _ => return Err(Error::KeyOrder { offset }),
        };
        let rank = key_rank(key);
        if self.last.is_some_and(|last| rank <= last) {
            return Err(Error::KeyOrder { offset });
        }
        self.last = Some(rank);
        Ok(key)
    }
}

/// Appends items in the profile. The caller writes as many items as it announced, and map keys in order.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Writer::default()
    }

    /// An empty writer with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Writer { out: Vec::with_capacity(bytes) }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// What was written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    #[inline]
    fn head(&mut self, major: u8, argument: u64) -> &mut Self {
        let major = major << 5;
        match argument {
            0..=23 => self.out.push(major | argument as u8),
            24..=0xff => self.out.extend_from_slice(&[major | 24, argument as u8]),
            0x100..=0xffff => {
                self.out.push(major | 25);
                self.out.extend_from_slice(&(argument as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(major | 26);
                self.out.extend_from_slice(&(argument as u32).to_be_bytes());
            }
            _ => {
                self.out.push(major | 27);
                self.out.extend_from_slice(&argument.to_be_bytes());
            }
        }
        self
    }

    /// An unsigned integer.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.head(0, value)
    }

    /// An integer of either sign.
    pub fn int(&mut self, value: i64) -> &mut Self {
        // !value is -1 - value: the argument of a negative integer.
        if value < 0 { self.head(1, !value as u64) } else { self.head(0, value as u64) }
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(2, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
        self
    }

    /// The head of a byte string of `length` bytes, which the caller appends.
    pub fn bytes_head(&mut self, length: usize) -> &mut Self {
        self.head(2, length as u64)
    }

    /// A text string; refuses text that is not NFC, since no reader would take it.
    pub fn text(&mut self, text: &str) -> Result<&mut Self, Error> {
        if !is_normal(text) {
            return Err(Error::NotNfc { offset: self.out.len() });
        }
        self.head(3, text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
        Ok(self)
    }

    /// The head of an array of `count` items.
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.head(4, count as u64)
    }

    /// The head of a map of `count` pairs.
    pub fn map(&mut self, count: usize) -> &mut Self {
        self.head(5, count as u64)
    }

    /// A tag; the tagged item follows.
    pub fn tag(&mut self, tag: u64) -> &mut Self {
        self.head(6, tag)
    }

    /// true or false.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { 0xf5 } else { 0xf4 });
        self
    }

    /// null.
    pub fn null(&mut self) -> &mut Self {
        self.out.push(0xf6);
        self
    }

    /// Whole items that are already encoded.
    pub fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.out.extend_from_slice(encoded);
        self
    }

    fn integer(&mut self, value: i128) -> Result<&mut Self, Error> {
        if let Ok(value) = u64::try_from(value) {
            Ok(self.uint(value))
        } else if let Ok(value) = i64::try_from(value) {
            Ok(self.int(value))
        } else {
            Err(Error::OutOfRange { offset: self.out.len() })
        }
    }

    /// One value; `open` is how many containers the caller has open around it.
    pub fn value(&mut self, value: &Value, open: usize) -> Result<&mut Self, Error> {
        match value {
            Value::Integer(value) => self.integer(*value),
            Value::Bytes(bytes) => Ok(self.bytes(bytes)),
            Value::Text(text) => self.text(text),
            Value::Bool(value) => Ok(self.boolean(*value)),
            Value::Null => Ok(self.null()),
            Value::Array(items) => {
                let open = deeper(open, self.out.len())?;
                self.array(items.len());
                for item in items {
                    self.value(item, open)?;
                }
                Ok(self)
            }
            Value::Map(pairs) => {
                let open = deeper(open, self.out.len())?;
                self.map(pairs.len());
                let mut last = None;
                for (key, item) in pairs {
                    let rank = Some(key_rank(*key));
                    if rank <= last {
                        return Err(Error::KeyOrder { offset: self.out.len() });
                    }
                    last = rank;
                    self.integer(*key)?.value(item, open)?;
                }
                Ok(self)
            }
        }
    }
}

/// Any value of the profile, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// -2^63..=2^64-1; others are refused when encoded.
    Integer(i128),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A text string, NFC when encoded or refused.
    Text(String),
    /// true or false.
    Bool(bool),
    /// null.
    Null,
    /// Items in order.
    Array(Vec<Value>),
    /// Pairs in key order (see `key_rank`); others are refused when encoded.
    Map(Vec<(i128, Value)>),
}

/// The one encoding of a value.
pub fn encode(value: &Value) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new();
    writer.value(value, 0)?;
    Ok(writer.into_bytes())
}

/// The value that encodes to exactly `data`.
pub fn decode(data: &[u8], max_bytes: usize) -> Result<Value, Error> {
    let mut reader = Reader::new(data, max_bytes)?;
    let value = reader.value(0)?;
    reader.finish()?;
    Ok(value)
}
