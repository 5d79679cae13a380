//! The shape of a map: everything about its bytes but the numbers in it.
//!
//! Maps of one batch nearly always have the same keys in the same order and numbers of the same
//! width. Then one masked comparison of the whole map stands for reading its keys one by one, and
//! every number lies where it lay in the map before. A template reads a map as the slow reader
//! would, or not at all: what is odd or illegal is left to that one.

use crate::msgpack::{Reader, Value};
use crate::record::{ABSENT_BITS, Record};
use crate::scalar::{Kind, Number};
use crate::table::FIELDS;
use crate::topics::{Schema, Slot};

/// Bytes that are compared at once.
const CHUNK: usize = 16;

/// Longest map that has a template.
const MAX_BYTES: usize = 1024;

/// Shapes that are remembered. The width of an id varies within a batch, little else does.
const MAX_TEMPLATES: usize = 4;

/// Once all places are taken, so many maps without a template pass before one is replaced.
const PATIENCE: usize = 8;

/// A number: the eight bytes from `at` on, shifted down, are its bits.
#[derive(Clone, Copy, Debug)]
struct Cell {
    at: u16,
    shift: u8,
    field: u8,
}

/// What maps of one shape have in common.
#[derive(Debug)]
struct Template {
    /// One map of the shape, and ones where others have to agree, in chunks; the last one is filled up
    /// with zeros.
    chunks: Vec<([u8; CHUNK], [u8; CHUNK])>,
    length: usize,
    cells: Vec<Cell>,
    /// Float64 values of float32 fields.
    wide: Vec<Cell>,
}

impl Template {
    /// The shape of a map that was read and found legal, if a template can read such maps.
    fn of(map: &[u8], schema: &Schema) -> Option<Self> {
        let mut mask = vec![0xff; map.len()];
        let (mut cells, mut wide) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(map);
        for _ in 0..reader.map().ok()? {
            let name = reader.string().ok()?;
            let key = schema.keys.iter().find(|key| key.name.as_bytes() == name)?;
            let Slot::Field(field) = key.slot else { return None };
            let start = map.len() - reader.rest().len();
            let marker = *map.get(start)?;
            let value = reader.value().ok()?;
            let end = map.len() - reader.rest().len();
            let at = if end > start + 1 { start + 1 } else { start };
            let cell = Cell {
                at: u16::try_from(at).ok()?,
                shift: u8::try_from(64 - 8 * (end - at)).ok()?,
                field: u8::try_from(field as usize).ok()?,
            };
            match (FIELDS[field as usize].kind, value) {
                (_, Value::Nil) => continue,
                (Kind::F32, Value::Number(Number::Float(_))) if marker == 0xcb => wide.push(cell),
                (Kind::F32, Value::Number(Number::Float(_))) => cells.push(cell),
                (Kind::F64, Value::Number(Number::Float(_))) if marker == 0xcb => cells.push(cell),
                (Kind::U16 | Kind::U32 | Kind::U64, Value::Number(Number::Unsigned(_))) => {
                    cells.push(cell);
                }
                _ => return None,
            }
            // A small integer is its own marker, which only its highest bit says.
            mask[at..end].fill(if at == start { 0x80 } else { 0 });
        }
        Some(Self { chunks: chunks(map, &mask), length: map.len(), cells, wide })
    }

    /// Reads a map of this shape off the front of `bytes`, and returns what follows it.
    #[inline]
    fn read<'a>(&self, bytes: &'a [u8]) -> Option<(Record, &'a [u8])> {
        // As many more, so that eight bytes can be read anywhere and the last chunk is whole.
        bytes.get(self.length + CHUNK)?;
        if !self.fits(bytes) {
            return None;
        }
        let mut bits = ABSENT_BITS;
        for cell in &self.cells {
            bits[usize::from(cell.field)] = cell.bits(bytes)?;
        }
        for cell in &self.wide {
            let value = Number::Float(f64::from_bits(cell.bits(bytes)?));
            bits[usize::from(cell.field)] = value.as_f32().to_bits().into();
        }
        let record = Record::from_bits(&bits)?;
        Some((record, &bytes[self.length..]))
    }

    #[inline]
    fn fits(&self, bytes: &[u8]) -> bool {
        let mut differs = [0; CHUNK];
        for (chunk, (expected, mask)) in bytes.as_chunks::<CHUNK>().0.iter().zip(&self.chunks) {
            for at in 0..CHUNK {
                differs[at] |= (chunk[at] ^ expected[at]) & mask[at];
            }
        }
        differs == [0; CHUNK]
    }
}

impl Cell {
    #[inline]
    fn bits(self, bytes: &[u8]) -> Option<u64> {
        let bytes = bytes.get(usize::from(self.at)..)?.first_chunk()?;
        Some(u64::from_be_bytes(*bytes) >> self.shift)
    }
}

fn chunks(map: &[u8], mask: &[u8]) -> Vec<([u8; CHUNK], [u8; CHUNK])> {
    let padded = |part: &[u8]| {
        let mut chunk = [0; CHUNK];
        chunk[..part.len()].copy_from_slice(part);
        chunk
    };
    map.chunks(CHUNK)
        .zip(mask.chunks(CHUNK))
        .map(|(map, mask)| (padded(map), padded(mask)))
        .collect()
}

/// The shapes that the maps of one batch have had.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    known: Vec<Template>,
    missed: usize,
}

impl Templates {
    /// Reads a map of a known shape off the front of `bytes`, and returns what follows it.
    #[inline]
    pub(crate) fn read<'a>(&self, bytes: &'a [u8]) -> Option<(Record, &'a [u8])> {
        self.known.iter().find_map(|template| template.read(bytes))
    }

    /// Learns from a map that had no known shape.
    #[cold]
    pub(crate) fn learn(&mut self, map: &[u8], schema: &Schema) {
        self.missed += 1;
        let full = self.known.len() == MAX_TEMPLATES;
        if map.len() > MAX_BYTES || (full && !self.missed.is_multiple_of(PATIENCE)) {
            return;
        }
        let Some(template) = Template::of(map, schema) else { return };
        if full {
            self.known[self.missed / PATIENCE % MAX_TEMPLATES] = template;
        } else {
            self.known.push(template);
        }
    }
}
