//! The producer's side: an envelope around records, in any of the three encodings.

use crate::SCHEMA_VERSION;
use crate::columns::Columns;
use crate::envelope::{BODY, Header, KEYS};
use crate::msgpack::write;
use crate::record::Record;
use crate::scalar::Number;
use crate::table::{FIELDS, FLAGS, Ordinal, Presence, RECORD_BYTES};

/// How the body is laid out. All three decode to the same records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One block of fixed records: the fast lane.
    Packed,
    /// One block per field, for NumPy producers.
    Columns,
    /// A list of maps, for producers in any language.
    Maps,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: [Self; 3] = [Self::Packed, Self::Columns, Self::Maps];

    /// The encoding of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "packed" => Some(Self::Packed),
            "columns" => Some(Self::Columns),
            "maps" => Some(Self::Maps),
            _ => None,
        }
    }
}

/// One message with all of `columns`; `header.n` must be their length.
///
/// Values are written as they are: the receiver checks them.
#[must_use]
pub fn encode(header: &Header<'_>, columns: &Columns, encoding: Encoding) -> Vec<u8> {
    let names = header.run.len() + header.producer.len() + header.topic.len();
    let mut out = Vec::with_capacity(128 + names + columns.len() * RECORD_BYTES);
    write_header(&mut out, header);
    write::string(&mut out, BODY);
    match encoding {
        Encoding::Packed => write_packed(&mut out, columns),
        Encoding::Columns => write_columns(&mut out, columns.clone()),
        Encoding::Maps => write_maps(&mut out, columns),
    }
    out
}

fn write_header(out: &mut Vec<u8>, header: &Header<'_>) {
    let [version, run, producer, incarnation, seq, n, topic] = KEYS;
    write::map(out, KEYS.len() + 1);
    for (key, value) in [
        (version, Number::Unsigned(SCHEMA_VERSION)),
        (incarnation, Number::Unsigned(header.incarnation)),
        (seq, Number::Unsigned(header.seq)),
        (n, Number::Unsigned(header.n as u64)),
    ] {
        write::string(out, key);
        write::number(out, value);
    }
    for (key, value) in [(run, header.run), (producer, header.producer), (topic, header.topic)] {
        write::string(out, key);
        write::string(out, value);
    }
}

fn write_packed(out: &mut Vec<u8>, columns: &Columns) {
    write::binary(out, columns.len() * RECORD_BYTES);
    for row in 0..columns.len() {
        columns.row(row).write_to(out);
    }
}

fn write_columns(out: &mut Vec<u8>, columns: Columns) {
    write::map(out, FIELDS.len());
    for (field, column) in FIELDS.iter().zip(columns.into_arrays()) {
        write::string(out, field.name);
        write::binary(out, column.len() * field.kind.size());
        column.write_to(out);
    }
}

fn write_maps(out: &mut Vec<u8>, columns: &Columns) {
    write::array(out, columns.len());
    for row in 0..columns.len() {
        write_map(out, &columns.row(row));
    }
}

/// One map; what equals the value of an absent key is left out.
fn write_map(out: &mut Vec<u8>, record: &Record) {
    let present = |ordinal: &Ordinal| match (FIELDS[*ordinal as usize].presence, *ordinal) {
        (_, Ordinal::flags) => false,
        (Presence::Required, _) => true,
        (Presence::Zero, ordinal) => record.get(ordinal) != Number::Unsigned(0),
        (Presence::NotMeasured, ordinal) => !record.get(ordinal).as_f64().is_nan(),
    };
    let flags = FLAGS.iter().filter(|(_, bit)| record.flags & bit != 0);
    let fields = Ordinal::ALL.into_iter().filter(present);
    write::map(out, fields.clone().count() + flags.clone().count());
    for ordinal in fields {
        write::string(out, FIELDS[ordinal as usize].name);
        write::number(out, record.get(ordinal));
    }
    for (name, _) in flags {
        write::string(out, name);
        write::boolean(out, true);
    }
}
