//! From the bytes of a body to checked records, whichever of the three encodings it is in.

use crate::envelope::{Header, UnknownKeys};
use crate::maps::decode_maps;
use crate::msgpack::{MAX_DEPTH, Reader};
use crate::record::{FIELDS, Ordinal, Presence, RECORD_BYTES, Record, fill};
use crate::refusal::{Reason, Refusal};
use crate::topics::{HEALTH_SIGNALS, schema};

/// Decodes the body of a batch: all of its signals, or none.
///
/// # Errors
/// Why the batch is refused, with the field and the index of the signal where there is one.
pub fn decode(header: &Header<'_>, body: &[u8]) -> Result<Vec<Record>, Refusal> {
    let unknown_topic = Refusal::from(Reason::UnknownTopic).in_field("topic");
    let schema = schema(header.topic).ok_or(unknown_topic)?;
    let mut reader = Reader::new(body);
    let health = header.topic == HEALTH_SIGNALS;
    let records = match body.first() {
        Some(0xc4..=0xc6) if health => decode_packed(&mut reader, header.n)?,
        Some(0x80..=0x8f | 0xde | 0xdf) if health => decode_columns(&mut reader, header.n)?,
        _ => decode_maps(&mut reader, header.n, schema)?,
    };
    reader.finish()?;
    Ok(records)
}

fn decode_packed(reader: &mut Reader<'_>, n: usize) -> Result<Vec<Record>, Refusal> {
    let bytes = reader.binary()?;
    if n.checked_mul(RECORD_BYTES) != Some(bytes.len()) {
        return Err(Reason::LengthMismatch.into());
    }
    let mut records = Vec::with_capacity(n);
    for chunk in bytes.chunks_exact(RECORD_BYTES) {
        let mut raw = [0; RECORD_BYTES];
        raw.copy_from_slice(chunk);
        records.push(Record::from_bytes(&raw));
    }
    check(&records)?;
    Ok(records)
}

fn decode_columns(reader: &mut Reader<'_>, n: usize) -> Result<Vec<Record>, Refusal> {
    let mut columns = [None; FIELDS.len()];
    let mut unknown = UnknownKeys::default();
    for _ in 0..reader.map()? {
        let name = reader.string()?;
        let Some(at) = FIELDS.iter().position(|field| field.name.as_bytes() == name) else {
            unknown.note(name)?;
            reader.skip(MAX_DEPTH - 2)?;
            continue;
        };
        let refuse = |reason: Reason| Refusal::from(reason).in_field(FIELDS[at].name);
        let column = reader.binary().map_err(refuse)?;
        if columns[at].replace(column).is_some() {
            return Err(refuse(Reason::DuplicateKey));
        }
        if n.checked_mul(FIELDS[at].kind.size()) != Some(column.len()) {
            return Err(refuse(Reason::LengthMismatch));
        }
    }
    for (field, column) in FIELDS.iter().zip(columns) {
        if field.presence == Presence::Required && column.is_none() {
            return Err(Refusal::from(Reason::MissingField).in_field(field.name));
        }
    }
    let mut records = vec![Record::ABSENT; n];
    for (ordinal, column) in Ordinal::ALL.into_iter().zip(columns) {
        if let Some(column) = column {
            fill(&mut records, ordinal, column);
        }
    }
    check(&records)?;
    Ok(records)
}

fn check(records: &[Record]) -> Result<(), Refusal> {
    let Some(index) = records.iter().position(|record| !record.is_legal()) else { return Ok(()) };
    records[index]
        .first_fault()
        .map_or(Ok(()), |(field, fault)| Err(Refusal::from(fault).in_field(field).at(index)))
}
