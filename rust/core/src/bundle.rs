//! Splits FHIR R4 JSON into resources, each as the byte range it was received in; nothing is re-encoded.
//! One pass of a strict scanner (RFC 8259, UTF-8, no recursion) finds ranges, ids and patient references together.
//! A fault inside one entry refuses that entry and is listed; a fault of the document refuses the document.
//! Before: bytes of a file or request. After: `envelope` seals the ranges.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use crate::fhir_types::{self, Element, ResourceType};

/// Largest resource as JSON, in bytes (formats.md, "Caps").
pub const MAX_RESOURCE_BYTES: usize = 16 << 20;
/// Deepest nesting of objects and arrays, counted from the resource (or, around the entries, from the Bundle).
pub const MAX_DEPTH: usize = 64;

/// Why one entry, line or single resource is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An NDJSON line is not JSON.
    InvalidJson,
    /// An NDJSON line is not UTF-8.
    InvalidUtf8,
    /// No `resourceType`, or not an object.
    NotFhir,
    /// `resourceType` is not an R4 type.
    UnknownType,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// Longer than the limit of the call.
    ResourceTooLarge,
    /// A `fullUrl` that an earlier entry has.
    DuplicateFullUrl,
    /// Type and id of an earlier entry with other bytes.
    DuplicateId,
    /// A member that decides type, id or patient is there twice.
    DuplicateKey,
    /// `id` is not `[A-Za-z0-9\-\.]{1,64}`.
    InvalidId,
    /// `fullUrl` is not a string.
    InvalidFullUrl,
    /// The entry has no resource.
    EntryWithoutResource,
}

impl Fault {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Fault::InvalidJson => "fhir.invalid_json",
            Fault::InvalidUtf8 => "fhir.invalid_utf8",
            Fault::NotFhir => "fhir.not_fhir",
            Fault::UnknownType => "fhir.unknown_type",
            Fault::TooDeep => "fhir.too_deep",
            Fault::ResourceTooLarge => "fhir.resource_too_large",
            Fault::DuplicateFullUrl => "fhir.duplicate_full_url",
            Fault::DuplicateId => "fhir.duplicate_id",
            Fault::DuplicateKey => "fhir.duplicate_key",
            Fault::InvalidId => "fhir.invalid_id",
            Fault::InvalidFullUrl => "fhir.invalid_full_url",
            Fault::EntryWithoutResource => "fhir.entry_without_resource",
        }
    }
}

/// Why a whole document is refused; offsets are bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not UTF-8.
    #[error("invalid UTF-8 at {offset}")]
    InvalidUtf8 {
        /// First byte that is not UTF-8.
        offset: usize,
    },
    /// Not JSON.
    #[error("invalid JSON at {offset}")]
    InvalidJson {
        /// Where the grammar is left.
        offset: usize,
    },
    /// A Bundle without a known type, or whose `entry` is not an array.
    #[error("invalid Bundle at {offset}")]
    InvalidBundle {
        /// The member concerned.
        offset: usize,
    },
    /// A single resource or the Bundle around the entries is at fault.
    #[error("{fault:?} at {offset}")]
    Refused {
        /// What is wrong.
        fault: Fault,
        /// Where.
        offset: usize,
    },
    /// Resource above the limit of the call.
    #[error("resource of {bytes} bytes, at most {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// A short text of the document: a range of it, or decoded where it was written with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// As written at this range.
    At(usize, usize),
    /// Escapes resolved.
    Decoded(Box<str>),
}

impl Text {
    /// The text, given the document it was found in.
    pub fn as_str<'a>(&'a self, data: &'a [u8]) -> &'a str {
        match self {
            Text::At(start, end) => {
                data.get(*start..*end).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
            }
            Text::Decoded(text) => text,
        }
    }
}

/// One resource of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its bytes in the document.
    pub span: Range<usize>,
    /// `resourceType`.
    pub resource_type: &'static str,
    /// `id`.
    pub id: Option<Text>,
    /// `fullUrl` of the entry.
    pub full_url: Option<Text>,
    /// Reference to the patient it is about, as written; a Patient's own is `Patient/<id>`, else its `fullUrl`.
    pub patient: Option<Text>,
    /// `request.method` of the entry.
    pub method: Option<Text>,
    /// `request.url` of the entry.
    pub url: Option<Text>,
    /// 0-based entry (line, for NDJSON).
    pub entry: usize,
}

/// What a document holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// `Bundle:<type>`, `resource` or `ndjson`.
    pub kind: &'static str,
    /// In entry order.
    pub resources: Vec<Resource>,
    /// Entries refused, ascending.
    pub rejected: Vec<(usize, Fault)>,
}

/// Splits a Bundle of any type, or takes a single resource.
pub fn split_resources(data: &[u8], max_resource_bytes: usize) -> Result<Split, BundleError> {
    check_utf8(data)?;
    let mut scanner = Scanner { data, at: 0, max_resource_bytes };
    scanner.whitespace();
    if scanner.peek() != Some(b'{') {
        let offset = scanner.at;
        scanner.skip_value(0)?;
        scanner.end()?;
        return Err(BundleError::Refused { fault: Fault::NotFhir, offset });
    }
    if scanner.root_is_bundle()? {
        return scanner.bundle();
    }
    let resource = scanner.single()?;
    Ok(Split { kind: "resource", resources: vec![resource], rejected: Vec::new() })
}

/// Splits a block of whole NDJSON lines, one resource a line; blank lines are passed over.
pub fn split_ndjson(data: &[u8], max_resource_bytes: usize) -> Split {
    let mut split = Split { kind: "ndjson", resources: Vec::new(), rejected: Vec::new() };
    let mut start = 0;
    for (number, line) in data.split(|byte| *byte == b'\n').enumerate() {
        let end = start + line.len();
        if !line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            match split_line(data, start..end, max_resource_bytes) {
                Ok(resource) => split.resources.push(Resource { entry: number, ..resource }),
                Err(fault) => split.rejected.push((number, fault)),
            }
        }
        start = end + 1;
    }
    split
}

/// Type, id and patient reference of one resource, whatever its type (a Bundle is taken as a resource here).
pub fn describe_resource(data: &[u8], max_resource_bytes: usize) -> Result<Resource, BundleError> {
    check_utf8(data)?;
    let mut scanner = Scanner { data, at: 0, max_resource_bytes };
    scanner.whitespace();
    scanner.single()
}

fn split_line(data: &[u8], line: Range<usize>, max_resource_bytes: usize) -> Result<Resource, Fault> {
    // The scanner sees the block up to the end of this line, so ranges need no shifting.
    let data = data.get(..line.end).unwrap_or_default();
    std::str::from_utf8(data.get(line.start..).unwrap_or_default()).map_err(|_| Fault::InvalidUtf8)?;
    let mut scanner = Scanner { data, at: line.start, max_resource_bytes };
    scanner.whitespace();
    scanner.single().map_err(|error| match error {
        BundleError::InvalidUtf8 { .. } => Fault::InvalidUtf8,
        BundleError::InvalidJson { .. } => Fault::InvalidJson,
        BundleError::InvalidBundle { .. } => Fault::NotFhir,
        BundleError::Refused { fault, .. } => fault,
        BundleError::TooLarge { .. } => Fault::ResourceTooLarge,
    })
}

fn check_utf8(data: &[u8]) -> Result<(), BundleError> {
    match std::str::from_utf8(data) {
        Ok(_) => Ok(()),
        Err(error) => Err(BundleError::InvalidUtf8 { offset: error.valid_up_to() }),
    }
}

/// FHIR `Bundle.type` of R4, with the `kind` it gives.
fn bundle_kind(code: &str) -> Option<&'static str> {
    Some(match code {
        "transaction" => "Bundle:transaction",
        "batch" => "Bundle:batch",
        "collection" => "Bundle:collection",
        "searchset" => "Bundle:searchset",
        "history" => "Bundle:history",
        "document" => "Bundle:document",
        "message" => "Bundle:message",
        "transaction-response" => "Bundle:transaction-response",
        "batch-response" => "Bundle:batch-response",
        _ => return None,
    })
}

fn valid_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

// ── what is found while scanning ───────────────────────────────────────────────────────────────────────────────

/// A string of the document: its range without the quotes.
#[derive(Clone, Copy)]
struct Token {
    start: usize,
    end: usize,
    escaped: bool,
}

/// A reference that may be the patient's; which it is may depend on entries further on.
#[derive(Clone)]
struct Candidate {
    reference: Text,
    /// The element names whom the resource is about, rather than somebody who took part.
    about: bool,
    /// `None`: only the entry it resolves to can tell.
    is_patient: Option<bool>,
}

struct Scanned {
    span: Range<usize>,
    resource_type: Option<&'static ResourceType>,
    id: Option<Text>,
    candidates: Vec<Candidate>,
    fault: Option<(Fault, usize)>,
}

impl Scanned {
    fn refuse(&mut self, fault: Fault, offset: usize) {
        self.fault.get_or_insert((fault, offset));
    }

    fn into_resource(self, entry: usize) -> Result<(Resource, Vec<Candidate>), (Fault, usize)> {
        match (self.fault, self.resource_type) {
            (Some(fault), _) => Err(fault),
            (None, None) => Err((Fault::NotFhir, self.span.start)),
            (None, Some(resource_type)) => Ok((
                Resource {
                    span: self.span,
                    resource_type: resource_type.name,
                    id: self.id,
                    full_url: None,
                    patient: None,
                    method: None,
                    url: None,
                    entry,
                },
                self.candidates,
            )),
        }
    }
}

/// The patient among the candidates: the first that is one, or that is about somebody and may be one.
fn choose_patient(candidates: Vec<Candidate>, data: &[u8], types: &HashMap<&str, &'static str>) -> Option<Text> {
    candidates
        .into_iter()
        .find(|candidate| match types.get(candidate.reference.as_str(data)) {
            Some(resource_type) => *resource_type == "Patient",
            None => candidate.is_patient.unwrap_or(candidate.about),
        })
        .map(|candidate| candidate.reference)
}

fn own_reference(resource: &Resource, data: &[u8]) -> Option<Text> {
    match &resource.id {
        Some(id) => Some(Text::Decoded(format!("Patient/{}", id.as_str(data)).into())),
        None => resource.full_url.clone(),
    }
}

/// What the words of a reference say of its target: `Patient/1`, `https://host/fhir/Patient/1/_history/2`,
/// `Patient?identifier=…`; a URN says nothing.
fn names_patient(reference: &str) -> Option<bool> {
    if reference.starts_with("urn:") {
        return None;
    }
    let path = reference.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("/_history/").map_or(path, |(resource, _)| resource);
    if path.len() < reference.len() && !path.contains('/') && reference.contains('?') {
        return Some(path == "Patient");
    }
    let mut parts = path.rsplit('/');
    let (_id, resource_type) = (parts.next()?, parts.next()?);
    if fhir_types::find(resource_type.as_bytes()).is_some() { Some(resource_type == "Patient") } else { None }
}

/// Entries of one Bundle as they are collected, before references and duplicates are settled.
#[derive(Default)]
struct Entries {
    resources: Vec<Resource>,
    candidates: Vec<Vec<Candidate>>,
    rejected: Vec<(usize, Fault)>,
}

impl Entries {
    /// FHIR rule bdl-7: a fullUrl is unique in a Bundle unless the versions differ; a history repeats both freely.
    fn duplicates(&self, data: &[u8], max_resource_bytes: usize) -> Vec<Option<Fault>> {
        let mut by_url: HashMap<&str, usize> = HashMap::with_capacity(self.resources.len());
        let mut by_id: HashMap<(&str, &str), usize> = HashMap::with_capacity(self.resources.len());
        let other_version = |first: usize, second: &Resource| {
            let version = |resource: &Resource| version_id(data, resource.span.start, max_resource_bytes);
            let first = self.resources.get(first).and_then(version);
            let second = version(second);
            matches!((first, second), (Some(a), Some(b)) if a.as_str(data) != b.as_str(data))
        };
        let other_bytes = |first: usize, second: &Resource| {
            let first = self.resources.get(first).and_then(|resource| data.get(resource.span.clone()));
            first != data.get(second.span.clone())
        };
        let mut faults = Vec::with_capacity(self.resources.len());
        for (index, resource) in self.resources.iter().enumerate() {
            let mut fault = None;
            if let Some(url) = &resource.full_url {
                let first = *by_url.entry(url.as_str(data)).or_insert(index);
                if first != index && !other_version(first, resource) {
                    fault = Some(Fault::DuplicateFullUrl);
                }
            }
            if let Some(id) = &resource.id {
                let first = *by_id.entry((resource.resource_type, id.as_str(data))).or_insert(index);
                if first != index && other_bytes(first, resource) && !other_version(first, resource) {
                    fault.get_or_insert(Fault::DuplicateId);
                }
            }
            faults.push(fault);
        }
        faults
    }

    fn settle(mut self, kind: &'static str, data: &[u8], max_resource_bytes: usize) -> Split {
        if kind != "Bundle:history" {
            let faults = self.duplicates(data, max_resource_bytes);
            if faults.iter().any(Option::is_some) {
                let both = self.resources.into_iter().zip(self.candidates).zip(faults);
                (self.resources, self.candidates) = (Vec::new(), Vec::new());
                for ((resource, candidates), fault) in both {
                    match fault {
                        Some(fault) => self.rejected.push((resource.entry, fault)),
                        None => {
                            self.resources.push(resource);
                            self.candidates.push(candidates);
                        }
                    }
                }
                self.rejected.sort_by_key(|(entry, _)| *entry);
            }
        }
        let patients: Vec<Option<Text>> = {
            let urls = self.resources.iter().filter_map(|resource| {
                resource.full_url.as_ref().map(|url| (url.as_str(data), resource.resource_type))
            });
            let types: HashMap<&str, &'static str> = urls.collect();
            let chosen = self.resources.iter().zip(self.candidates).map(|(resource, candidates)| {
                if resource.resource_type == "Patient" {
                    own_reference(resource, data)
                } else {
                    choose_patient(candidates, data, &types)
                }
            });
            chosen.collect()
        };
        for (resource, patient) in self.resources.iter_mut().zip(patients) {
            resource.patient = patient;
        }
        Split { kind, resources: self.resources, rejected: self.rejected }
    }
}

/// `meta.versionId` of the resource at `start`; read only where two entries collide.
fn version_id(data: &[u8], start: usize, max_resource_bytes: usize) -> Option<Text> {
    let mut scanner = Scanner { data, at: start, max_resource_bytes };
    let mut version = None;
    let scanned = scanner.members(|scanner, key| {
        if scanner.name(key).as_ref() == b"meta" && scanner.peek() == Some(b'{') {
            return scanner.members(|scanner, key| {
                if scanner.name(key).as_ref() == b"versionId" {
                    version = scanner.text()?;
                    return Ok(());
                }
                scanner.skip_value(2).map(|_| ())
            });
        }
        scanner.skip_value(1).map(|_| ())
    });
    scanned.ok().and(version)
}

// ── the scanner ────────────────────────────────────────────────────────────────────────────────────────────────

/// Walks JSON text that is known to be UTF-8. Every method leaves `at` behind what it consumed.
struct Scanner<'a> {
    data: &'a [u8],
    at: usize,
    max_resource_bytes: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    fn invalid<T>(&self) -> Result<T, BundleError> {
        Err(BundleError::InvalidJson { offset: self.at })
    }

    fn expect(&mut self, byte: u8) -> Result<(), BundleError> {
        if self.peek() != Some(byte) {
            return self.invalid();
        }
        self.at += 1;
        Ok(())
    }

    /// Passes over white space; indentation goes eight spaces at a time.
    #[inline]
    fn whitespace(&mut self) {
        const SPACES: u64 = 0x2020_2020_2020_2020;
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\n' => {
                    self.at += 1;
                    while let Some(chunk) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
                        let other = u64::from_le_bytes(*chunk) ^ SPACES;
                        self.at += (other.trailing_zeros() / 8) as usize;
                        if other != 0 {
                            break;
                        }
                    }
                }
                b'\t' | b'\r' => self.at += 1,
                _ => return,
            }
        }
    }

    fn end(&mut self) -> Result<(), BundleError> {
        self.whitespace();
        if self.at < self.data.len() { self.invalid() } else { Ok(()) }
    }

    /// A string; `at` is on its opening quote.
    #[inline]
    fn string(&mut self) -> Result<Token, BundleError> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = next_special(self.data, self.at);
            match self.peek() {
                Some(b'"') => {
                    let token = Token { start, end: self.at, escaped };
                    self.at += 1;
                    return Ok(token);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.invalid(),
            }
        }
    }

    fn escape(&mut self) -> Result<(), BundleError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return self.invalid();
                    }
                    self.at += 1;
                }
            }
            _ => return self.invalid(),
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), BundleError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.invalid();
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), BundleError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1
        } else {
            self.digits()?
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), BundleError> {
        match self.data.get(self.at..).and_then(|rest| rest.get(..word.len())) {
            Some(found) if found == word => {
                self.at += word.len();
                Ok(())
            }
            _ => self.invalid(),
        }
    }

    /// A member's key and its colon; leaves `at` on the value.
    #[inline]
    fn key(&mut self) -> Result<Token, BundleError> {
        let key = self.string()?;
        self.whitespace();
        self.expect(b':')?;
        self.whitespace();
        Ok(key)
    }

    /// Passes over one value inside `outer` containers. Gives the place where the nesting passes [`MAX_DEPTH`], if
    /// it does; the open containers are one bit each, so no nesting can exhaust the stack.
    fn skip_value(&mut self, outer: usize) -> Result<Option<usize>, BundleError> {
        let mut open = OpenContainers::default();
        let mut too_deep = None;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    if outer + open.depth >= MAX_DEPTH && too_deep.is_none() {
                        too_deep = Some(self.at);
                    }
                    let object = bracket == b'{';
                    self.at += 1;
                    self.whitespace();
                    if self.peek() == Some(if object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        open.push(object);
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => self.number()?,
            }
            loop {
                let Some(object) = open.top() else { return Ok(too_deep) };
                self.whitespace();
                match (self.peek(), object) {
                    (Some(b','), true) => {
                        self.at += 1;
                        self.whitespace();
                        self.key()?;
                        break;
                    }
                    (Some(b','), false) => {
                        self.at += 1;
                        self.whitespace();
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        open.pop();
                    }
                    _ => return self.invalid(),
                }
            }
        }
    }

    /// Visits the members of the object at `at`; the visitor gets each key and consumes the value.
    fn members(
        &mut self,
        mut visit: impl FnMut(&mut Self, Token) -> Result<(), BundleError>,
    ) -> Result<(), BundleError> {
        self.expect(b'{')?;
        self.whitespace();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.key()?;
            visit(self, key)?;
            self.whitespace();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.invalid(),
            }
            self.whitespace();
        }
    }

    /// Visits the items of the array at `at`; the visitor consumes each.
    fn items(&mut self, mut visit: impl FnMut(&mut Self) -> Result<(), BundleError>) -> Result<(), BundleError> {
        self.expect(b'[')?;
        self.whitespace();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            visit(self)?;
            self.whitespace();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.invalid(),
            }
            self.whitespace();
        }
    }

    /// A key's name; one that is written with escapes is decoded, so it cannot hide from the rules.
    #[inline]
    fn name(&self, key: Token) -> Cow<'_, [u8]> {
        let written = self.data.get(key.start..key.end).unwrap_or_default();
        match key.escaped {
            false => Cow::Borrowed(written),
            true => self.decode(key).map_or(Cow::Borrowed(written), |text| Cow::Owned(text.into_bytes())),
        }
    }

    fn decode(&self, token: Token) -> Option<String> {
        let quoted = self.data.get(token.start.checked_sub(1)?..token.end.checked_add(1)?)?;
        serde_json::from_slice(quoted).ok()
    }

    /// A string value as text; any other value is passed over and gives `None`.
    fn text(&mut self) -> Result<Option<Text>, BundleError> {
        if self.peek() != Some(b'"') {
            self.skip_value(1)?;
            return Ok(None);
        }
        let token = self.string()?;
        if !token.escaped {
            return Ok(Some(Text::At(token.start, token.end)));
        }
        match self.decode(token) {
            Some(text) => Ok(Some(Text::Decoded(text.into()))),
            None => Err(BundleError::InvalidJson { offset: token.start }),
        }
    }

    // ── FHIR on top of it ──

    /// Whether the object at `at` is a Bundle, without consuming it.
    fn root_is_bundle(&mut self) -> Result<bool, BundleError> {
        let start = self.at;
        let mut bundle = None;
        // Almost always the first member, so the walk ends there.
        self.expect(b'{')?;
        self.whitespace();
        if self.peek() == Some(b'"') {
            let key = self.key()?;
            if self.name(key).as_ref() == b"resourceType" {
                bundle = Some(self.text()?.is_some_and(|text| text.as_str(self.data) == "Bundle"));
            }
        }
        self.at = start;
        if let Some(bundle) = bundle {
            return Ok(bundle);
        }
        self.members(|scanner, key| {
            if bundle.is_none() && scanner.name(key).as_ref() == b"resourceType" {
                let text = scanner.text()?;
                bundle = Some(text.is_some_and(|text| text.as_str(scanner.data) == "Bundle"));
                return Ok(());
            }
            scanner.skip_value(1).map(|_| ())
        })?;
        self.at = start;
        Ok(bundle.unwrap_or(false))
    }

    /// A Bundle that is the whole document. Faults of its own wait for the end, so grammar is judged first.
    fn bundle(&mut self) -> Result<Split, BundleError> {
        let start = self.at;
        let mut seen = [false; 3];
        let (mut kind, mut fault) = (None, None);
        let mut entries = Entries::default();
        self.members(|scanner, key| {
            let member = match scanner.name(key).as_ref() {
                b"resourceType" => 0,
                b"type" => 1,
                b"entry" => 2,
                _ => {
                    if let Some(offset) = scanner.skip_value(1)? {
                        fault.get_or_insert(BundleError::Refused { fault: Fault::TooDeep, offset });
                    }
                    return Ok(());
                }
            };
            if let Some(seen) = seen.get_mut(member)
                && std::mem::replace(seen, true)
            {
                fault.get_or_insert(BundleError::Refused { fault: Fault::DuplicateKey, offset: key.start });
            }
            let offset = scanner.at;
            match member {
                0 => {
                    scanner.text()?;
                }
                1 => {
                    kind = scanner.text()?.and_then(|text| bundle_kind(text.as_str(scanner.data)));
                    if kind.is_none() {
                        fault.get_or_insert(BundleError::InvalidBundle { offset });
                    }
                }
                _ if scanner.peek() == Some(b'[') => {
                    let mut number = 0;
                    scanner.items(|scanner| {
                        scanner.entry(number, &mut entries)?;
                        number += 1;
                        Ok(())
                    })?;
                }
                _ => {
                    scanner.skip_value(1)?;
                    fault.get_or_insert(BundleError::InvalidBundle { offset });
                }
            }
            Ok(())
        })?;
        self.end()?;
        match (fault, kind) {
            (Some(fault), _) => Err(fault),
            (None, None) => Err(BundleError::InvalidBundle { offset: start }),
            (None, Some(kind)) => Ok(entries.settle(kind, self.data, self.max_resource_bytes)),
        }
    }

    fn entry(&mut self, number: usize, entries: &mut Entries) -> Result<(), BundleError> {
        if self.peek() != Some(b'{') {
            let too_deep = self.skip_value(2)?;
            let fault = if too_deep.is_some() { Fault::TooDeep } else { Fault::EntryWithoutResource };
            entries.rejected.push((number, fault));
            return Ok(());
        }
        let mut seen = [false; 3];
        let mut fault = None;
        let mut scanned = None;
        let mut full_url = None;
        let mut request = (None, None);
        self.members(|scanner, key| {
            let member = match scanner.name(key).as_ref() {
                b"fullUrl" => 0,
                b"resource" => 1,
                b"request" => 2,
                _ => {
                    if scanner.skip_value(3)?.is_some() {
                        fault.get_or_insert(Fault::TooDeep);
                    }
                    return Ok(());
                }
            };
            if let Some(seen) = seen.get_mut(member)
                && std::mem::replace(seen, true)
            {
                fault.get_or_insert(Fault::DuplicateKey);
            }
            match member {
                0 => {
                    full_url = scanner.text()?;
                    if full_url.is_none() {
                        fault.get_or_insert(Fault::InvalidFullUrl);
                    }
                }
                1 if scanner.peek() == Some(b'n') => scanner.literal(b"null")?,
                1 => scanned = Some(scanner.resource()?),
                _ => request = scanner.request()?,
            }
            Ok(())
        })?;
        let outcome = match (fault, scanned) {
            (Some(fault), _) => Err(fault),
            (None, None) => Err(Fault::EntryWithoutResource),
            (None, Some(scanned)) => scanned.into_resource(number).map_err(|(fault, _)| fault),
        };
        match outcome {
            Err(fault) => entries.rejected.push((number, fault)),
            Ok((mut resource, candidates)) => {
                resource.full_url = full_url;
                (resource.method, resource.url) = request;
                entries.resources.push(resource);
                entries.candidates.push(candidates);
            }
        }
        Ok(())
    }

    fn request(&mut self) -> Result<(Option<Text>, Option<Text>), BundleError> {
        let (mut method, mut url) = (None, None);
        if self.peek() != Some(b'{') {
            self.skip_value(3)?;
            return Ok((None, None));
        }
        self.members(|scanner, key| {
            match scanner.name(key).as_ref() {
                b"method" => method = scanner.text()?,
                b"url" => url = scanner.text()?,
                _ => {
                    scanner.skip_value(4)?;
                }
            }
            Ok(())
        })?;
        Ok((method, url))
    }

    /// A resource that is the whole document.
    fn single(&mut self) -> Result<Resource, BundleError> {
        let scanned = self.resource()?;
        self.end()?;
        let bytes = scanned.span.len();
        match scanned.into_resource(0) {
            Ok((mut resource, candidates)) => {
                resource.patient = if resource.resource_type == "Patient" {
                    own_reference(&resource, self.data)
                } else {
                    choose_patient(candidates, self.data, &HashMap::new())
                };
                Ok(resource)
            }
            Err((Fault::ResourceTooLarge, _)) => Err(BundleError::TooLarge { bytes, limit: self.max_resource_bytes }),
            Err((fault, offset)) => Err(BundleError::Refused { fault, offset }),
        }
    }

    fn resource(&mut self) -> Result<Scanned, BundleError> {
        let start = self.at;
        let (scanned, early) = self.resource_as(None)?;
        // Members that came before resourceType were not yet known to matter: look once more, now knowing the type.
        match scanned.resource_type {
            Some(resource_type) if early && !resource_type.elements.is_empty() => {
                self.at = start;
                Ok(self.resource_as(Some(resource_type))?.0)
            }
            _ => Ok(scanned),
        }
    }

    /// Scans one resource; the flag says that members were passed over before its type was known.
    fn resource_as(&mut self, known: Option<&'static ResourceType>) -> Result<(Scanned, bool), BundleError> {
        let start = self.at;
        let mut scanned =
            Scanned { span: start..start, resource_type: known, id: None, candidates: Vec::new(), fault: None };
        if self.peek() != Some(b'{') {
            self.skip_value(0)?;
            scanned.refuse(Fault::NotFhir, start);
            return Ok((scanned, false));
        }
        let (mut type_seen, mut id_seen, mut early) = (false, false, false);
        let mut found = [None; fhir_types::MAX_ELEMENTS];
        self.members(|scanner, key| {
            let (at, offset) = (scanner.at, key.start);
            match scanner.name(key).as_ref() {
                b"resourceType" => {
                    if std::mem::replace(&mut type_seen, true) {
                        scanned.refuse(Fault::DuplicateKey, offset);
                    }
                    let text = scanner.text()?;
                    let name = text.as_ref().map(|text| text.as_str(scanner.data));
                    let resource_type = name.and_then(|name| fhir_types::find(name.as_bytes()));
                    match (name, resource_type) {
                        (None, _) => scanned.refuse(Fault::NotFhir, at),
                        (Some(_), None) => scanned.refuse(Fault::UnknownType, at),
                        (Some(_), Some(_)) => scanned.resource_type = resource_type,
                    }
                    return Ok(());
                }
                b"id" => {
                    if std::mem::replace(&mut id_seen, true) {
                        scanned.refuse(Fault::DuplicateKey, offset);
                    }
                    scanned.id = scanner.text()?;
                    if !scanned.id.as_ref().is_some_and(|id| valid_id(id.as_str(scanner.data))) {
                        scanned.refuse(Fault::InvalidId, at);
                    }
                    return Ok(());
                }
                name => match scanned.resource_type {
                    None => early = true,
                    Some(resource_type) => {
                        let element = resource_type.elements.iter().position(|element| element.name() == name);
                        if let Some(place) = element.and_then(|element| found.get_mut(element))
                            && place.replace(at).is_some()
                        {
                            scanned.refuse(Fault::DuplicateKey, offset);
                        }
                    }
                },
            }
            if let Some(offset) = scanner.skip_value(1)? {
                scanned.refuse(Fault::TooDeep, offset);
            }
            Ok(())
        })?;
        scanned.span = start..self.at;
        if scanned.span.len() > self.max_resource_bytes {
            // Before other faults: a resource this large is not looked into any further.
            scanned.fault = Some((Fault::ResourceTooLarge, start));
        }
        if scanned.fault.is_none()
            && let Some(resource_type) = scanned.resource_type
        {
            self.collect_candidates(resource_type, &found, &mut scanned);
        }
        Ok((scanned, early))
    }

    /// Reads the references of the elements found, in the order of the type's table, up to the first sure Patient.
    fn collect_candidates(
        &self,
        resource_type: &'static ResourceType,
        found: &[Option<usize>; fhir_types::MAX_ELEMENTS],
        scanned: &mut Scanned,
    ) {
        for (element, at) in resource_type.elements.iter().zip(found) {
            let Some(at) = *at else { continue };
            let mut reader = Scanner { data: self.data, at, max_resource_bytes: self.max_resource_bytes };
            let path = element.path.get(1..).unwrap_or_default();
            if let Err(fault) = reader.references(path, element, &mut scanned.candidates) {
                scanned.refuse(fault, at);
                return;
            }
            if scanned.candidates.last().is_some_and(|candidate| candidate.is_patient == Some(true)) {
                return;
            }
        }
    }

    /// Follows `path` through objects and arrays to Reference values.
    fn references(
        &mut self,
        path: &[&'static str],
        element: &Element,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), Fault> {
        let mut fault = None;
        let walked = match self.peek() {
            Some(b'[') => self.items(|scanner| {
                if scanner.peek() != Some(b'{') {
                    return scanner.skip_value(0).map(|_| ());
                }
                scanner.reference_in(path, element, candidates, &mut fault)
            }),
            Some(b'{') => self.reference_in(path, element, candidates, &mut fault),
            _ => Ok(()),
        };
        match (walked, fault) {
            (_, Some(fault)) => Err(fault),
            (Err(_), None) => Err(Fault::InvalidJson),
            (Ok(()), None) => Ok(()),
        }
    }

    fn reference_in(
        &mut self,
        path: &[&'static str],
        element: &Element,
        candidates: &mut Vec<Candidate>,
        fault: &mut Option<Fault>,
    ) -> Result<(), BundleError> {
        if candidates.last().is_some_and(|candidate| candidate.is_patient == Some(true)) {
            return self.skip_value(0).map(|_| ());
        }
        if let Some((next, rest)) = path.split_first() {
            let mut seen = false;
            return self.members(|scanner, key| {
                if scanner.name(key).as_ref() != next.as_bytes() {
                    return scanner.skip_value(0).map(|_| ());
                }
                if std::mem::replace(&mut seen, true) {
                    fault.get_or_insert(Fault::DuplicateKey);
                }
                let at = scanner.at;
                if let Err(inner) = scanner.references(rest, element, candidates) {
                    fault.get_or_insert(inner);
                }
                scanner.at = at;
                scanner.skip_value(0).map(|_| ())
            });
        }
        let (mut reference, mut declared) = (None, None);
        self.members(|scanner, key| {
            let slot = match scanner.name(key).as_ref() {
                b"reference" => &mut reference,
                b"type" => &mut declared,
                _ => return scanner.skip_value(0).map(|_| ()),
            };
            if slot.is_some() {
                fault.get_or_insert(Fault::DuplicateKey);
            }
            *slot = scanner.text()?;
            Ok(())
        })?;
        let Some(reference) = reference else { return Ok(()) };
        let words = reference.as_str(self.data);
        if words.starts_with('#') || words.is_empty() {
            return Ok(());
        }
        let declared = declared.as_ref().map(|text: &Text| text.as_str(self.data) == "Patient");
        let is_patient = names_patient(words).or(declared);
        if is_patient != Some(false) {
            candidates.push(Candidate { reference, about: element.about, is_patient });
        }
        Ok(())
    }
}

/// The first place at or after `at` whose byte ends or breaks a string: a quote, a backslash or a control character.
/// Eight bytes a step; the tests of all eight are one subtraction each, exact up to the first hit.
#[inline]
fn next_special(data: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = data.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let hits = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let hits = hits & HIGHS;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while data.get(at).is_some_and(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\') {
        at += 1;
    }
    at
}

/// Which containers are open, one bit each (1 = object); the innermost 64 in a word, the rest behind it.
#[derive(Default)]
struct OpenContainers {
    depth: usize,
    word: u64,
    outer: Vec<u64>,
}

impl OpenContainers {
    #[inline]
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.word);
        }
        self.word = (self.word << 1) | u64::from(object);
        self.depth += 1;
    }

    #[inline]
    fn top(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.word & 1 == 1)
    }

    #[inline]
    fn pop(&mut self) {
        self.word >>= 1;
        self.depth = self.depth.saturating_sub(1);
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.word = self.outer.pop().unwrap_or_default();
        }
    }
}
