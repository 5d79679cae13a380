//! The maps encoding: a list of maps, for producers in any language.
//!
//! Most maps are read by a template ([`crate::template`]). Those that are not, because they are the
//! first of their shape, odd or illegal, are read key by key. Maps of one batch nearly always have
//! the same keys in the same order, so each key is first compared, encoded as it is, with the key at
//! the same position of the map before.

use crate::envelope::UnknownKeys;
use crate::msgpack::pattern::Pattern;
use crate::msgpack::{MAX_DEPTH, Reader, Value};
use crate::record::{BOUNDS, Record};
use crate::refusal::{Reason, Refusal};
use crate::scalar::Scalar;
use crate::table::{MEASURED, MEASUREMENTS};
use crate::template::Templates;
use crate::topics::{Schema, Slot};

/// Size of the smallest map that any topic accepts; bounds what is allocated ahead.
const MIN_MAP_BYTES: usize = "layer_id".len() + "timestamp".len() + 6;

/// Reads a list of `n` maps.
pub(crate) fn decode_maps(
    reader: &mut Reader<'_>,
    n: usize,
    schema: &'static Schema,
    records: &mut Vec<Record>,
) -> Result<(), Refusal> {
    if reader.array()? != n {
        return Err(Reason::LengthMismatch.into());
    }
    records.reserve(n.min(reader.rest().len() / MIN_MAP_BYTES));
    let mut rows = Rows::new(schema);
    let mut templates = Templates::default();
    for index in 0..n {
        let start = reader.rest();
        if let Some((record, rest)) = templates.read(start) {
            *reader = Reader::new(rest);
            records.push(record);
            continue;
        }
        let (record, rest) = rows.read(*reader).map_err(|refusal| refusal.at(index))?;
        *reader = rest;
        records.push(record);
        if index + 1 < n {
            templates.learn(&start[..start.len() - rest.rest().len()], schema);
        }
    }
    Ok(())
}

/// A key at its position.
#[derive(Clone, Copy)]
struct Prediction<'a> {
    pattern: Option<Pattern>,
    name: &'a [u8],
    target: Target,
}

/// Where the value of a key goes.
#[derive(Clone, Copy)]
enum Target {
    /// Into a measurement; both are indices, the first among the keys of the schema.
    Measurement(usize, usize),
    /// Where that key of the schema says.
    Key(usize),
    /// Nowhere.
    Unknown,
}

impl Target {
    fn of(name: &[u8], schema: &Schema) -> Self {
        let found = schema.keys.iter().position(|key| key.name.as_bytes() == name);
        let Some(at) = found else { return Self::Unknown };
        let Slot::Field(field) = schema.keys[at].slot else { return Self::Key(at) };
        let measurement = MEASUREMENTS.iter().position(|measurement| *measurement == field);
        measurement.map_or(Self::Key(at), |measurement| Self::Measurement(at, measurement))
    }
}

struct Rows<'a> {
    schema: &'static Schema,
    required: u64,
    predictions: Vec<Prediction<'a>>,
    unknown: UnknownKeys<'a>,
}

/// One map on its way to becoming a record.
struct Row {
    record: Record,
    measurements: [f32; MEASURED],
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

    /// Reads one map and returns what follows it. The reader is passed along by value, here and
    /// below, so that it stays in registers.
    fn read(&mut self, mut reader: Reader<'a>) -> Result<(Record, Reader<'a>), Refusal> {
        let mut row = Row::new();
        self.unknown.clear();
        for position in 0..reader.map()? {
            let target = match self.predictions.get(position) {
                Some(Prediction { pattern: Some(pattern), target, .. })
                    if reader.take_if(pattern) =>
                {
                    *target
                }
                _ => {
                    let (target, rest) = self.look_up(reader, position)?;
                    reader = rest;
                    target
                }
            };
            match target {
                Target::Measurement(at, measurement) => {
                    let fault = |reason: Reason| self.schema.refuse(at, reason);
                    row.see(at).map_err(fault)?;
                    row.measurements[measurement] =
                        measured(&mut reader, measurement).map_err(fault)?;
                }
                Target::Key(at) => {
                    let slot = self.schema.keys[at].slot;
                    let taken = row.see(at).and_then(|()| row.take(&mut reader, slot));
                    taken.map_err(|reason| self.schema.refuse(at, reason))?;
                }
                Target::Unknown => reader = self.skip(reader, position)?,
            }
        }
        let missing = self.required & !row.seen;
        if missing != 0 {
            let name = self.schema.keys[missing.trailing_zeros() as usize].name;
            return Err(Refusal::from(Reason::MissingField).in_field(name));
        }
        Ok((row.complete(self.schema), reader))
    }

    #[cold]
    fn look_up(
        &mut self,
        mut reader: Reader<'a>,
        position: usize,
    ) -> Result<(Target, Reader<'a>), Refusal> {
        let start = reader.rest();
        let name = reader.string()?;
        let pattern = Pattern::new(&start[..start.len() - reader.rest().len()]);
        let target = Target::of(name, self.schema);
        let prediction = Prediction { pattern, name, target };
        match self.predictions.get_mut(position) {
            Some(stale) => *stale = prediction,
            // Positions come in order, and each adds one entry at most.
            None => self.predictions.push(prediction),
        }
        Ok((target, reader))
    }

    #[cold]
    fn skip(&mut self, mut reader: Reader<'a>, position: usize) -> Result<Reader<'a>, Refusal> {
        self.unknown.note(self.predictions[position].name)?;
        reader.skip(MAX_DEPTH - 3)?;
        Ok(reader)
    }
}

/// A legal value of a measurement, or NaN for nil.
#[inline]
fn measured(reader: &mut Reader<'_>, measurement: usize) -> Result<f32, Reason> {
    let value = match reader.take_f32() {
        Some(value) => value,
        None => match reader.value()? {
            Value::Number(number) => number.as_f32(),
            Value::Nil => f32::NAN,
            Value::Bool(_) => return Err(Reason::WrongType),
        },
    };
    let (low, high) = BOUNDS[measurement];
    if (value < low) | (value > high) { Err(Reason::OutOfRange) } else { Ok(value) }
}

impl Row {
    const fn new() -> Self {
        let measurements = [f32::NAN; MEASURED];
        Self { record: Record::ABSENT, measurements, flags: 0, beside: f64::NAN, seen: 0 }
    }

    #[inline]
    fn see(&mut self, at: usize) -> Result<(), Reason> {
        let bit = 1 << at;
        if self.seen & bit != 0 {
            return Err(Reason::DuplicateKey);
        }
        self.seen |= bit;
        Ok(())
    }

    #[inline]
    fn take(&mut self, reader: &mut Reader<'_>, slot: Slot) -> Result<(), Reason> {
        match (slot, reader.value()?) {
            (Slot::Field(field), Value::Number(number)) => self.record.set(field, number)?,
            (Slot::Flag(bits), Value::Bool(on)) => self.flags |= if on { bits } else { 0 },
            (Slot::Number(field), Value::Number(number)) => {
                self.beside = u32::checked(number, field)?.into();
            }
            (Slot::Truth, Value::Bool(truth)) => self.beside = f64::from(u8::from(truth)),
            _ => return Err(Reason::WrongType),
        }
        Ok(())
    }

    fn complete(mut self, schema: &Schema) -> Record {
        self.record.set_measurements(self.measurements);
        self.record.flags |= self.flags;
        (schema.complete)(&mut self.record, self.beside);
        self.record
    }
}
