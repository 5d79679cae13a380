//! Records in columns, one vector per field, and the way between the two.
//!
//! Rows and columns are exchanged in blocks that stay in the first-level cache.

use crate::record::Record;
use crate::scalar::{Array, Kind, Scalar};
use crate::table::{FIELDS, Field, Ordinal, signal_table};

/// Rows of a block.
const BLOCK: usize = 64;

macro_rules! write_columns {
    ({ $($before:tt)* } { $($measured:tt)* } { $($after:tt)* }) => {
        write_fields! { $($before)* $($measured)* $($after)* }
    };
}

macro_rules! write_fields {
    ($($name:ident: $type:ident, $unit:literal, $low:expr, $high:expr, $presence:ident, $doc:literal;)*) => {
        /// Records in columns: one vector per field, all of one length.
        #[derive(Clone, Debug, Default)]
        pub struct Columns {
            $(#[doc = $doc] pub $name: Vec<$type>,)*
        }

        impl Columns {
            /// Empty columns with room for `rows` records.
            #[must_use]
            pub fn with_capacity(rows: usize) -> Self {
                Self { $($name: Vec::with_capacity(rows),)* }
            }

            /// Makes room for `rows` more records.
            pub fn reserve(&mut self, rows: usize) {
                $(self.$name.reserve(rows);)*
            }

            /// Forgets all records, but keeps the memory.
            pub fn clear(&mut self) {
                $(self.$name.clear();)*
            }

            /// Appends at most a block of records, one column after the other.
            fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record> + Clone) {
                $(self.$name.extend(records.clone().map(|record| record.$name));)*
            }

            /// The record in one row.
            ///
            /// # Panics
            /// There is no such row.
            #[must_use]
            pub fn row(&self, row: usize) -> Record {
                Record { $($name: self.$name[row],)* }
            }

            /// Columns from arrays in wire order; where there is none, the value of an absent field.
            ///
            /// # Errors
            /// The arrays differ in length, or one is not of its field's type.
            pub fn from_arrays(arrays: [Option<Array>; FIELDS.len()]) -> Result<Self, ColumnsError> {
                let rows = arrays.iter().flatten().next().map_or(0, Array::len);
                let [$($name,)*] = arrays;
                Ok(Self { $($name: column(&FIELDS[Ordinal::$name as usize], $name, rows)?,)* })
            }

            /// The columns in wire order.
            #[must_use]
            pub fn into_arrays(self) -> [Array; FIELDS.len()] {
                [$(<$type as Scalar>::array(self.$name),)*]
            }
        }
    };
}

signal_table!(write_columns);

/// Why arrays do not make columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnsError {
    /// A column of another length than the first.
    Length {
        /// Name of the column.
        field: &'static str,
        /// Its length.
        rows: usize,
        /// The length of the first.
        expected: usize,
    },
    /// A column of another type than the field table says.
    Type {
        /// Name of the column.
        field: &'static str,
        /// The type that the table says.
        expected: Kind,
    },
}

fn column<T: Scalar>(
    field: &Field,
    array: Option<Array>,
    rows: usize,
) -> Result<Vec<T>, ColumnsError> {
    let Some(array) = array else { return Ok(vec![T::ABSENT; rows]) };
    if array.len() != rows {
        let (field, expected) = (field.name, rows);
        return Err(ColumnsError::Length { field, rows: array.len(), expected });
    }
    T::values(array).ok_or(ColumnsError::Type { field: field.name, expected: field.kind })
}

impl Columns {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layer_id.len()
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layer_id.is_empty()
    }

    /// Appends the records of items that hold one each.
    pub fn extend<T>(&mut self, items: &[T], record: impl Fn(&T) -> &Record + Copy) {
        for block in items.chunks(BLOCK) {
            self.append(block.iter().map(record));
        }
    }
}

impl<'a> FromIterator<&'a Record> for Columns {
    fn from_iter<I: IntoIterator<Item = &'a Record>>(records: I) -> Self {
        let records: Vec<Record> = records.into_iter().copied().collect();
        let mut columns = Self::with_capacity(records.len());
        columns.extend(&records, |record| record);
        columns
    }
}
