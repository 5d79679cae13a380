//! What goes wrong in the core, as Python exceptions.

use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use tamiyo_core::columns::ColumnsError;
use tamiyo_core::refusal::Refusal;
use tamiyo_core::sum_tree::SumTreeError;
use tamiyo_core::table::Field;

/// A setting that makes no sense.
pub fn setting(message: &str) -> PyErr {
    PyValueError::new_err(message.to_owned())
}

/// A signal, or a batch of them, that the core refuses.
pub fn refusal(refusal: impl Into<Refusal>) -> PyErr {
    PyValueError::new_err(refusal.into().to_string())
}

/// A column that no field has.
pub fn unknown_column(name: &str) -> PyErr {
    PyValueError::new_err(format!("unknown column: {name}"))
}

/// A required column that is absent.
pub fn missing_column(name: &str) -> PyErr {
    PyValueError::new_err(format!("missing column: {name}"))
}

/// A column that is not a one-dimensional array of the right type.
pub fn column_type(field: &Field, value: &Bound<'_, PyAny>) -> PyErr {
    let found = value.getattr("dtype").map_or_else(
        |_| value.get_type().to_string(),
        |dtype| match value.getattr("ndim") {
            Ok(dimensions) => format!("a {dimensions}-dimensional array of {dtype}"),
            Err(_) => dtype.to_string(),
        },
    );
    let (name, dtype) = (field.name, field.kind.dtype());
    PyTypeError::new_err(format!("{name} must be a one-dimensional array of {dtype}, not {found}"))
}

/// Columns that do not go together.
pub fn columns(error: ColumnsError) -> PyErr {
    match error {
        ColumnsError::Length { field, rows, expected } => PyValueError::new_err(format!(
            "columns of unequal length: {field} has {rows} rows, the first column {expected}"
        )),
        ColumnsError::Type { field, expected } => {
            PyTypeError::new_err(format!("{field} must be {}", expected.dtype()))
        }
    }
}

/// What a sum tree refuses.
pub fn sum_tree(error: SumTreeError) -> PyErr {
    match error {
        SumTreeError::Index { .. } => PyIndexError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}
