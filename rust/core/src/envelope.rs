//! The envelope around a batch: who sent it, where it belongs in the sequence, and what it is.

use std::str;

use crate::msgpack::{MAX_DEPTH, Reader, Value};
use crate::refusal::{Reason, Refusal};
use crate::scalar::{Kind, Number};
use crate::{SCHEMA_VERSION, table};

/// Longest run, producer or topic name in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// End of the longest sequence: 35 years at a million signals a second, and small enough that
/// sums over all producers fit in 64 bits.
pub const MAX_SEQUENCE: u64 = 1 << 50;

/// Unknown keys that one map may carry, so that looking for duplicates among them stays cheap.
pub const MAX_UNKNOWN_KEYS: usize = 16;

/// Fewest bytes that one signal takes in any encoding: its required columns.
pub const MIN_SIGNAL_BYTES: usize = {
    let mut bytes = 0;
    let mut field = 0;
    while field < table::FIELDS.len() {
        if matches!(table::FIELDS[field].presence, table::Presence::Required) {
            bytes += Kind::size(table::FIELDS[field].kind);
        }
        field += 1;
    }
    bytes
};

/// Names of the header keys, in the order in which this build writes them; the body comes last.
pub const KEYS: [&str; 7] = ["v", "run", "producer", "incarnation", "seq", "n", "topic"];
/// Name of the body's key.
pub const BODY: &str = "body";

/// What an envelope says about its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The training run.
    pub run: &'a str,
    /// Who sends.
    pub producer: &'a str,
    /// Which life of the producer; a restart begins a new one.
    pub incarnation: u64,
    /// Index of the batch's first signal among all that this incarnation has sent.
    pub seq: u64,
    /// Number of signals.
    pub n: usize,
    /// The stream that the batch belongs to, which says what the body means.
    pub topic: &'a str,
}

/// An opened message. The header can be readable where the body is not.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// Who, where, what.
    pub header: Header<'a>,
    /// The bytes of the body, not decoded yet.
    pub body: Result<&'a [u8], Refusal>,
}

/// Opens a message without decoding its body.
///
/// Keys may come in any order and unknown ones are skipped, so that a newer sender can add some.
///
/// # Errors
/// The header cannot be read or believed; then the batch belongs to nobody.
pub fn open(message: &[u8]) -> Result<Envelope<'_>, Refusal> {
    let opened = walk(message);
    if let Err(refusal) = opened {
        // Another version may have changed anything, so its number explains every other oddity.
        return Err(if speaks_another_version(message) {
            Refusal::from(Reason::UnknownVersion).in_field("v")
        } else {
            refusal
        });
    }
    opened
}

#[derive(Default)]
struct Parts<'a> {
    version: Option<()>,
    run: Option<&'a str>,
    producer: Option<&'a str>,
    incarnation: Option<u64>,
    seq: Option<u64>,
    n: Option<u64>,
    topic: Option<&'a str>,
    body: Option<&'a [u8]>,
}

fn walk(message: &[u8]) -> Result<Envelope<'_>, Refusal> {
    let mut reader = Reader::new(message);
    let mut parts = Parts::default();
    let entries = reader.map()?;
    let fault = read_entries(&mut reader, entries, &mut parts)
        .and_then(|()| reader.finish().map_err(Refusal::from));
    let missing = Refusal::from(Reason::MissingField).in_field(BODY);
    match (parts.header(message.len()), fault) {
        // Two values for one key: neither can be believed.
        (_, Err(refusal)) if refusal.reason == Reason::DuplicateKey => Err(refusal),
        (Ok(header), Err(refusal)) => Ok(Envelope { header, body: Err(refusal) }),
        (Ok(header), Ok(())) => Ok(Envelope { header, body: parts.body.ok_or(missing) }),
        (Err(_), Err(refusal)) | (Err(refusal), Ok(())) => Err(refusal),
    }
}

fn read_entries<'a>(
    reader: &mut Reader<'a>,
    entries: usize,
    parts: &mut Parts<'a>,
) -> Result<(), Refusal> {
    let mut unknown = UnknownKeys::default();
    for entry in 0..entries {
        let key = reader.string()?;
        match key {
            b"v" => once(&mut parts.version, "v", || version(reader))?,
            b"run" => once(&mut parts.run, "run", || name(reader))?,
            b"producer" => once(&mut parts.producer, "producer", || name(reader))?,
            b"incarnation" => once(&mut parts.incarnation, "incarnation", || unsigned(reader))?,
            b"seq" => once(&mut parts.seq, "seq", || unsigned(reader))?,
            b"n" => once(&mut parts.n, "n", || unsigned(reader))?,
            b"topic" => once(&mut parts.topic, "topic", || name(reader))?,
            b"body" => once(&mut parts.body, BODY, || {
                // The usual place, where nothing has to be skipped to find its end: the decoder
                // notices what trails it.
                if entry + 1 == entries { Ok(reader.take_rest()) } else { spanned(reader) }
            })?,
            _ => {
                unknown.note(key)?;
                reader.skip(MAX_DEPTH - 1)?;
            }
        }
    }
    Ok(())
}

fn once<T>(
    slot: &mut Option<T>,
    key: &'static str,
    read: impl FnOnce() -> Result<T, Reason>,
) -> Result<(), Refusal> {
    if slot.is_some() {
        return Err(Refusal::from(Reason::DuplicateKey).in_field(key));
    }
    *slot = Some(read().map_err(|reason| Refusal::from(reason).in_field(key))?);
    Ok(())
}

/// Skips a value and returns its bytes.
fn spanned<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Reason> {
    let start = reader.rest();
    reader.skip(MAX_DEPTH - 1)?;
    Ok(&start[..start.len() - reader.rest().len()])
}

fn unsigned(reader: &mut Reader<'_>) -> Result<u64, Reason> {
    match reader.value()? {
        Value::Number(Number::Unsigned(value)) => Ok(value),
        Value::Number(Number::Negative(_)) => Err(Reason::OutOfRange),
        _ => Err(Reason::WrongType),
    }
}

fn version(reader: &mut Reader<'_>) -> Result<(), Reason> {
    match unsigned(reader)? {
        SCHEMA_VERSION => Ok(()),
        _ => Err(Reason::UnknownVersion),
    }
}

fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Reason> {
    let bytes = reader.string()?;
    if bytes.len() > MAX_NAME_BYTES {
        return Err(Reason::TooLarge);
    }
    str::from_utf8(bytes).map_err(|_| Reason::WrongType)
}

impl<'a> Parts<'a> {
    fn header(&self, message_bytes: usize) -> Result<Header<'a>, Refusal> {
        let missing = |key| move || Refusal::from(Reason::MissingField).in_field(key);
        self.version.ok_or_else(missing("v"))?;
        let seq = self.seq.ok_or_else(missing("seq"))?;
        if seq > MAX_SEQUENCE {
            return Err(Refusal::from(Reason::OutOfRange).in_field("seq"));
        }
        // What a message cannot hold must not count as sent: a header is cheap to forge.
        let n = usize::try_from(self.n.ok_or_else(missing("n"))?)
            .ok()
            .filter(|n| *n <= message_bytes / MIN_SIGNAL_BYTES)
            .ok_or(Refusal::from(Reason::LengthMismatch).in_field("n"))?;
        Ok(Header {
            run: self.run.ok_or_else(missing("run"))?,
            producer: self.producer.ok_or_else(missing("producer"))?,
            incarnation: self.incarnation.ok_or_else(missing("incarnation"))?,
            seq,
            n,
            topic: self.topic.ok_or_else(missing("topic"))?,
        })
    }
}

/// Whether the message is a map with a version other than ours anywhere in it.
fn speaks_another_version(message: &[u8]) -> bool {
    let mut reader = Reader::new(message);
    let Ok(entries) = reader.map() else { return false };
    for _ in 0..entries {
        match reader.string() {
            Ok(b"v") => return matches!(unsigned(&mut reader), Ok(v) if v != SCHEMA_VERSION),
            Ok(_) if reader.skip(MAX_DEPTH - 1).is_ok() => {}
            _ => return false,
        }
    }
    false
}

/// The unknown keys of one map, kept to notice duplicates.
#[derive(Debug, Default)]
pub struct UnknownKeys<'a> {
    keys: Vec<&'a [u8]>,
}

impl<'a> UnknownKeys<'a> {
    /// Notes one more unknown key.
    ///
    /// # Errors
    /// It was there before, or there are too many.
    pub fn note(&mut self, key: &'a [u8]) -> Result<(), Reason> {
        if self.keys.contains(&key) {
            return Err(Reason::DuplicateKey);
        }
        if self.keys.len() == MAX_UNKNOWN_KEYS {
            return Err(Reason::TooLarge);
        }
        self.keys.push(key);
        Ok(())
    }

    /// Forgets all keys, for the next map.
    pub fn clear(&mut self) {
        self.keys.clear();
    }
}
