//! `signal_fields` and `layer_fields`: the field tables.

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tamiyo_core::summary::LAYER_FIELDS;
use tamiyo_core::table;

/// One row of the field table.
#[pyclass(frozen, get_all, module = "tamiyo._core")]
pub struct Field {
    name: &'static str,
    dtype: &'static str,
    unit: &'static str,
    low: f64,
    high: f64,
    presence: &'static str,
    doc: &'static str,
}

impl From<&table::Field> for Field {
    fn from(row: &table::Field) -> Self {
        Self {
            name: row.name,
            dtype: row.kind.dtype(),
            unit: row.unit,
            low: row.low,
            high: row.high,
            presence: row.presence.label(),
            doc: row.doc,
        }
    }
}

fn table<'py>(py: Python<'py>, rows: &[table::Field]) -> PyResult<Bound<'py, PyTuple>> {
    let rows =
        rows.iter().map(|row| Py::new(py, Field::from(row))).collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, rows)
}

/// The field table of a health signal, in wire order.
#[pyfunction]
pub fn signal_fields(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    table(py, &table::FIELDS)
}

/// The table of per-layer aggregates, the columns that `Ingest.layers` returns.
#[pyfunction]
pub fn layer_fields(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    table(py, &LAYER_FIELDS)
}
