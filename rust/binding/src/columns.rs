//! Columns across the border: dictionaries of NumPy arrays, each copied once on the way in and
//! moved on the way out.

use numpy::{Element, PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use tamiyo_core::columns::Columns;
use tamiyo_core::scalar::{Array, Kind};
use tamiyo_core::table::{FIELDS, Field};

use crate::errors;

/// Reads signals in columns; a column for which `required` holds must be there.
///
/// Raises `ValueError` for columns that are unknown, missing or of unequal length, and `TypeError`
/// for one that is not a one-dimensional array of its field's type.
pub fn read(
    mapping: &Bound<'_, PyMapping>,
    required: impl Fn(&Field) -> bool,
) -> PyResult<Columns> {
    let mut arrays = [const { None }; FIELDS.len()];
    for item in mapping.items()?.iter() {
        let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
        let at = FIELDS.iter().position(|field| field.name == name);
        let at = at.ok_or_else(|| errors::unknown_column(&name))?;
        arrays[at] = Some(read_column(&FIELDS[at], &value)?);
    }
    for (field, array) in FIELDS.iter().zip(&arrays) {
        if required(field) && array.is_none() {
            return Err(errors::missing_column(field.name));
        }
    }
    Columns::from_arrays(arrays).map_err(errors::columns)
}

fn read_column(field: &Field, value: &Bound<'_, PyAny>) -> PyResult<Array> {
    match field.kind {
        Kind::U16 => values(field, value).map(Array::U16),
        Kind::U32 => values(field, value).map(Array::U32),
        Kind::U64 => values(field, value).map(Array::U64),
        Kind::F32 => values(field, value).map(Array::F32),
        Kind::F64 => values(field, value).map(Array::F64),
    }
}

fn values<T: Element + Copy>(field: &Field, value: &Bound<'_, PyAny>) -> PyResult<Vec<T>> {
    let wrong_type = |_| errors::column_type(field, value);
    let array = value.cast::<PyArray1<T>>().map_err(wrong_type)?;
    if array.is_aligned() {
        return Ok(array.readonly().as_array().to_vec());
    }
    // A field of a packed structured array, for example; NumPy copies it into place.
    let aligned = value.call_method0("copy")?;
    let aligned = aligned.cast::<PyArray1<T>>().map_err(|_| errors::column_type(field, value))?;
    Ok(aligned.readonly().as_array().to_vec())
}

/// A dictionary of arrays that own their memory.
pub fn write<'py>(
    py: Python<'py>,
    fields: &[Field],
    columns: impl IntoIterator<Item = Array>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (field, column) in fields.iter().zip(columns) {
        match column {
            Array::U16(values) => dict.set_item(field.name, PyArray1::from_vec(py, values))?,
            Array::U32(values) => dict.set_item(field.name, PyArray1::from_vec(py, values))?,
            Array::U64(values) => dict.set_item(field.name, PyArray1::from_vec(py, values))?,
            Array::F32(values) => dict.set_item(field.name, PyArray1::from_vec(py, values))?,
            Array::F64(values) => dict.set_item(field.name, PyArray1::from_vec(py, values))?,
        }
    }
    Ok(dict)
}
