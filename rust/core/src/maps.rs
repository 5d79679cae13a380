//! The maps encoding: a list of maps, for producers in any language.
//!
//! Maps of one batch nearly always have the same keys in the same order, so each key is first
//! compared, encoded as it is, with the key at the same position of the previous map.

use crate::envelope::UnknownKeys;
use crate::msgpack::{MAX_DEPTH, Reader, Value};
use crate::record::{FIELDS, Ordinal, Presence, Record};
use crate::refusal::{Reason, Refusal};
use crate::scalar::Scalar;
use crate::topics::{Key, Schema, Slot};

/// Size of the smallest map that any topic accepts; bounds what is allocated ahead.
const MIN_MAP_BYTES: usize = "layer_id".len() + "timestamp".len() + 6;

/// Reads a list of `n` maps.
pub(crate) fn decode_maps(
    reader: &mut Reader<'_>,
    n: usize,
    schema: &'static Schema,
) -> Result<Vec<Record>, Refusal> {
    if reader.array()? != n {
        return Err(Reason::LengthMismatch.into());
    }
    let mut records = Vec::with_capacity(n.min(reader.rest().len() / MIN_MAP_BYTES));
    let mut rows = Rows::new(schema);
    for index in 0..n {
        records.push(rows.read(reader).map_err(|refusal| refusal.at(index))?);
    }
    Ok(records)
}

/// A key at its position: how it is encoded, and which key of the schema it is, if any.
type Prediction<'a> = (&'a [u8], Option<usize>);

struct Rows<'a> {
    schema: &'static Schema,
    required: u64,
    predictions: Vec<Prediction<'a>>,
    unknown: UnknownKeys<'a>,
}

/// One map on its way to becoming a record.
struct Row {
    record: Record,
    /// Bits from booleans, kept apart so that an integer `flags` does not undo them.
    flags: u32,
    beside: f64,
    seen: u64,
}

impl<'a> Rows<'a> {
    fn new(schema: &'static Schema) -> Self {
        let bits = schema.keys.iter().enumerate().map(|(at, key)| u64::from(key.required) << at);
        Self {
            schema,
            required: bits.sum(),
            predictions: Vec::new(),
            unknown: UnknownKeys::default(),
        }
    }

    fn read(&mut self, reader: &mut Reader<'a>) -> Result<Record, Refusal> {
        let mut row = Row { record: Record::ABSENT, flags: 0, beside: f64::NAN, seen: 0 };
        self.unknown.clear();
        for position in 0..reader.map()? {
            let (name, key) = self.key(reader, position)?;
            if let Some(at) = key {
                row.take(reader, &self.schema.keys[at], 1 << at)?;
            } else {
                self.unknown.note(name)?;
                reader.skip(MAX_DEPTH - 3)?;
            }
        }
        let missing = self.required & !row.seen;
        if missing != 0 {
            let name = self.schema.keys[missing.trailing_zeros() as usize].name;
            return Err(Refusal::from(Reason::MissingField).in_field(name));
        }
        row.record.flags |= row.flags;
        (self.schema.complete)(&mut row.record, row.beside);
        Ok(row.record)
    }

    #[inline]
    fn key(&mut self, reader: &mut Reader<'a>, position: usize) -> Result<Prediction<'a>, Refusal> {
        match self.predictions.get(position) {
            Some(&prediction) if reader.take_if(prediction.0) => Ok(prediction),
            _ => self.look_up(reader, position),
        }
    }

    #[cold]
    fn look_up(
        &mut self,
        reader: &mut Reader<'a>,
        position: usize,
    ) -> Result<Prediction<'a>, Refusal> {
        let start = reader.rest();
        let name = reader.string()?;
        let encoded = &start[..start.len() - reader.rest().len()];
        let key = self.schema.keys.iter().position(|key| key.name.as_bytes() == name);
        let prediction = (encoded, key);
        match self.predictions.get_mut(position) {
            Some(stale) => *stale = prediction,
            // Positions come in order, and each adds one entry at most.
            None => self.predictions.push(prediction),
        }
        Ok(prediction)
    }
}

impl Row {
    #[inline]
    fn take(&mut self, reader: &mut Reader<'_>, key: &Key, bit: u64) -> Result<(), Refusal> {
        let refuse = |reason: Reason| Refusal::from(reason).in_field(key.name);
        if self.seen & bit != 0 {
            return Err(refuse(Reason::DuplicateKey));
        }
        self.seen |= bit;
        let value = reader.value().map_err(refuse)?;
        let taken = match (key.slot, value) {
            (Slot::Field(field), Value::Number(number)) => self.record.set(field, number),
            (Slot::Field(field), Value::Nil) if not_measured(field) => Ok(()),
            (Slot::Flag(bits), Value::Bool(on)) => {
                self.flags |= if on { bits } else { 0 };
                Ok(())
            }
            (Slot::Number(field), Value::Number(number)) => {
                u32::checked(number, field).map(|value| self.beside = value.into())
            }
            (Slot::Truth, Value::Bool(truth)) => {
                self.beside = f64::from(u8::from(truth));
                Ok(())
            }
            _ => return Err(refuse(Reason::WrongType)),
        };
        taken.map_err(|fault| Refusal::from(fault).in_field(key.name))
    }
}

/// Whether nil may stand for a value of this field: not measured.
fn not_measured(field: Ordinal) -> bool {
    FIELDS[field as usize].presence == Presence::NotMeasured
}
