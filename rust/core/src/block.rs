//! Columns, turned into records.
//!
//! One value at a time, this takes a load and a store for each. Here four words of 32 bits of four
//! records change places in vector registers, which takes a load and a store for every four.

use std::array;

use bytemuck::cast;
use wide::{f32x4, u32x4};

use crate::record::{ABSENT_BITS, Record};
use crate::scalar::{Bits, Scalar};
use crate::table::{FIELDS, Ordinal, RECORD_BYTES, signal_table};

/// Lanes of a vector, and rows that are turned together.
const QUAD: usize = 4;
/// Rows of a block, whose columns and records stay in the first-level cache.
const BLOCK: usize = 16 * QUAD;
/// Bytes of the longest value.
const LONGEST: usize = size_of::<u64>();
/// Bytes of a vector.
const VECTOR: usize = QUAD * size_of::<u32>();
/// Vectors that hold a record.
const VECTORS: usize = RECORD_BYTES.div_ceil(VECTOR);

/// The bytes of the same rows of every column, in wire order.
type Block<'a> = [&'a [u8]; FIELDS.len()];

/// Where each field starts in a packed record.
const OFFSETS: [usize; FIELDS.len()] = {
    let mut offsets = [0; FIELDS.len()];
    let mut at = 1;
    while at < FIELDS.len() {
        offsets[at] = offsets[at - 1] + FIELDS[at - 1].kind.size();
        let last = offsets[at] + FIELDS[at].kind.size() - 1;
        assert!(offsets[at] / VECTOR == last / VECTOR, "a field lies in one vector");
        at += 1;
    }
    offsets
};

/// A block of every column as it is when the column is absent.
static ABSENT: [[u8; LONGEST * BLOCK]; FIELDS.len()] = {
    let mut columns = [[0; LONGEST * BLOCK]; FIELDS.len()];
    let mut field = 0;
    while field < FIELDS.len() {
        let value = ABSENT_BITS[field].to_le_bytes();
        let mut at = 0;
        while at < LONGEST * BLOCK {
            columns[field][at] = value[at % FIELDS[field].kind.size()];
            at += 1;
        }
        field += 1;
    }
    columns
};

/// Sets records from columns in wire order, which hold a value for each, or are absent. Stops after
/// the first block in which a value is not legal, and returns whether there was none.
pub(crate) fn turn(columns: &[Option<&[u8]>; FIELDS.len()], records: &mut [Record]) -> bool {
    let (whole, rest) = records.split_at_mut(records.len() - records.len() % QUAD);
    for (at, records) in whole.chunks_mut(BLOCK).enumerate() {
        if !turn_block(&rows(columns, at * BLOCK, records.len()), records) {
            return false;
        }
    }
    rest.is_empty() || turn_rest(&rows(columns, whole.len(), rest.len()), rest)
}

/// `count` rows of every column, at most a block of them.
fn rows<'a>(columns: &[Option<&'a [u8]>; FIELDS.len()], first: usize, count: usize) -> Block<'a> {
    array::from_fn(|field| {
        let size = FIELDS[field].kind.size();
        match columns[field] {
            Some(column) => &column[first * size..(first + count) * size],
            None => &ABSENT[field][..count * size],
        }
    })
}

/// Turns less than a vector of rows, among others of zeros, which are legal in every field.
fn turn_rest(columns: &Block<'_>, records: &mut [Record]) -> bool {
    let mut padded = [[0; LONGEST * QUAD]; FIELDS.len()];
    for (bytes, column) in padded.iter_mut().zip(columns) {
        bytes[..column.len()].copy_from_slice(column);
    }
    let padded = array::from_fn(|field| &padded[field][..FIELDS[field].kind.size() * QUAD]);
    let mut turned = [Record::ABSENT; QUAD];
    let legal = turn_block(&padded, &mut turned);
    records.copy_from_slice(&turned[..records.len()]);
    legal
}

/// Turns whole vectors of rows, and returns whether every value is legal.
fn turn_block(columns: &Block<'_>, records: &mut [Record]) -> bool {
    const { assert!(VECTORS == 6, "one line for each") }
    turn_vector::<0>(columns, records);
    turn_vector::<1>(columns, records);
    turn_vector::<2>(columns, records);
    turn_vector::<3>(columns, records);
    turn_vector::<4>(columns, records);
    turn_vector::<5>(columns, records);
    are_legal(columns)
}

macro_rules! write_block {
    ({ $($before:tt)* } { $($measured:tt)* } { $($after:tt)* }) => {
        write_fields! { $($before)* $($measured)* $($after)* }
    };
}

macro_rules! write_fields {
    ($($name:ident: $type:ident, $unit:literal, $low:expr, $high:expr, $presence:ident, $doc:literal;)*) => {
        /// Sets the fields that lie in one vector of a packed record.
        #[inline]
        fn turn_vector<const AT: usize>(columns: &Block<'_>, records: &mut [Record]) {
            let (records, _) = records.as_chunks_mut::<QUAD>();
            for (at, records) in records.iter_mut().enumerate() {
                let mut words = [u32x4::ZERO; QUAD];
                $({
                    let offset = OFFSETS[Ordinal::$name as usize];
                    if offset / VECTOR == AT {
                        let (values, _) = columns[Ordinal::$name as usize].as_chunks::<{ size_of::<$type>() }>();
                        let (values, _) = values.as_chunks();
                        put(&mut words, offset % VECTOR, &values[at]);
                    }
                })*
                for (record, words) in records.iter_mut().zip(transpose(words)) {
                    $({
                        let offset = OFFSETS[Ordinal::$name as usize];
                        if offset / VECTOR == AT {
                            record.$name = get(words, offset % VECTOR);
                        }
                    })*
                }
            }
        }

        /// Whether every value is legal.
        fn are_legal(columns: &Block<'_>) -> bool {
            true $(& {
                let (values, _) = columns[Ordinal::$name as usize].as_chunks();
                values.iter().fold(true, |legal, value| {
                    let value = <$type>::from_le_bytes(*value);
                    legal & value.is_legal(&FIELDS[Ordinal::$name as usize])
                })
            })*
        }
    };
}

signal_table!(write_block);

/// Puts the values of four rows at one place of each row's vector.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "cut into words")]
fn put<const SIZE: usize>(words: &mut [u32x4; QUAD], offset: usize, values: &[[u8; SIZE]; QUAD]) {
    let (word, shift) = (offset / size_of::<u32>(), 8 * (offset % size_of::<u32>()));
    if let Ok(bytes) = <[u8; VECTOR]>::try_from(values.as_flattened())
        && cfg!(target_endian = "little")
    {
        words[word] = cast(bytes);
        return;
    }
    let values = values.map(|value| {
        let mut bytes = [0; LONGEST];
        bytes[..SIZE].copy_from_slice(&value);
        u64::from_le_bytes(bytes)
    });
    words[word] |= u32x4::from(values.map(|value| (value << shift) as u32));
    if SIZE > size_of::<u32>() {
        words[word + 1] = u32x4::from(values.map(|value| (value >> 32) as u32));
    }
}

/// The value at one place of a row's vector.
#[inline]
fn get<T: Bits>(words: [u32; QUAD], offset: usize) -> T {
    let (word, shift) = (offset / size_of::<u32>(), 8 * (offset % size_of::<u32>()));
    let high = words.get(word + 1).copied().unwrap_or_default();
    T::from_bits((u64::from(words[word]) | u64::from(high) << 32) >> shift)
}

/// Four words of four rows. Moving bits as floats changes none.
#[inline]
fn transpose(words: [u32x4; QUAD]) -> [[u32; QUAD]; QUAD] {
    f32x4::transpose(words.map(cast)).map(cast)
}
