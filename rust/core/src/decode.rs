//! From the bytes of a body to checked records, whichever of the three encodings it is in.

use crate::block::turn;
use crate::envelope::{Header, UnknownKeys};
use crate::maps::decode_maps;
use crate::msgpack::{MAX_DEPTH, Reader};
use crate::record::Record;
use crate::refusal::{Reason, Refusal};
use crate::table::{FIELDS, Presence, RECORD_BYTES};
use crate::topics::{HEALTH_SIGNALS, schema};

/// Decodes the body of a batch into `records`: all of its signals, or none.
///
/// # Errors
/// Why the batch is refused, with the field and the index of the signal where there is one.
pub fn decode(header: &Header<'_>, body: &[u8], records: &mut Vec<Record>) -> Result<(), Refusal> {
    let decoded = decode_body(header, body, records);
    if decoded.is_err() {
        records.clear();
    }
    decoded
}

fn decode_body(header: &Header<'_>, body: &[u8], records: &mut Vec<Record>) -> Result<(), Refusal> {
    let unknown_topic = Refusal::from(Reason::UnknownTopic).in_field("topic");
    let schema = schema(header.topic).ok_or(unknown_topic)?;
    let mut reader = Reader::new(body);
    let health = header.topic == HEALTH_SIGNALS;
    match body.first() {
        Some(0xc4..=0xc6) if health => decode_packed(&mut reader, header.n, records)?,
        Some(0x80..=0x8f | 0xde | 0xdf) if health => {
            decode_columns(&mut reader, header.n, records)?;
        }
        _ => {
            records.clear();
            decode_maps(&mut reader, header.n, schema, records)?;
        }
    }
    Ok(reader.finish()?)
}

fn decode_packed(
    reader: &mut Reader<'_>,
    n: usize,
    records: &mut Vec<Record>,
) -> Result<(), Refusal> {
    let bytes = reader.binary()?;
    let (packed, rest) = bytes.as_chunks::<RECORD_BYTES>();
    if packed.len() != n || !rest.is_empty() {
        return Err(Reason::LengthMismatch.into());
    }
    let mut legal = true;
    records.clear();
    records.extend(packed.iter().map(|packed| {
        let record = Record::from_bytes(packed);
        legal &= record.is_legal();
        record
    }));
    if legal { Ok(()) } else { Err(first_fault(records)) }
}

fn decode_columns(
    reader: &mut Reader<'_>,
    n: usize,
    records: &mut Vec<Record>,
) -> Result<(), Refusal> {
    let columns = read_columns(reader, n)?;
    records.resize(n, Record::ABSENT);
    if turn(&columns, records) { Ok(()) } else { Err(first_fault(records)) }
}

/// The bytes of every column, which hold `n` values each.
fn read_columns<'a>(
    reader: &mut Reader<'a>,
    n: usize,
) -> Result<[Option<&'a [u8]>; FIELDS.len()], Refusal> {
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
    Ok(columns)
}

/// What is wrong with the first of these records that is not legal.
#[cold]
fn first_fault(records: &[Record]) -> Refusal {
    let faults = records.iter().map(Record::first_fault).enumerate();
    let mut faults = faults.filter_map(|(index, fault)| fault.map(|fault| (index, fault)));
    let (index, (field, fault)) = faults.next().expect("called where there is one");
    Refusal::from(fault).in_field(field).at(index)
}
