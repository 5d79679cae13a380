//! `window_features`: per-layer aggregates of signals in columns.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use tamiyo_core::features;
use tamiyo_core::summary::{LAYER_FIELDS, SummaryColumns};
use tamiyo_core::table::Presence;

use crate::{columns, errors};

/// Per-layer aggregates of signals in one pass (the columns of `layer_fields`).
#[pyfunction]
#[pyo3(signature = (columns, *, window = 100))]
pub fn window_features<'py>(
    py: Python<'py>,
    columns: &Bound<'py, PyMapping>,
    window: usize,
) -> PyResult<Bound<'py, PyDict>> {
    if window == 0 {
        return Err(errors::setting("window must be at least 1"));
    }
    let columns = columns::read(columns, |field| field.presence == Presence::Required)?;
    write(py, || {
        let records: Vec<_> = (0..columns.len()).map(|row| columns.row(row)).collect();
        let summaries = features::window_features(&records, window);
        let mut columns = SummaryColumns::with_capacity(summaries.len());
        columns.extend(&summaries);
        columns
    })
}

/// The columns of aggregates that are computed without the GIL.
pub fn write(
    py: Python<'_>,
    summarise: impl Send + FnOnce() -> SummaryColumns,
) -> PyResult<Bound<'_, PyDict>> {
    let arrays = py.detach(|| summarise().into_arrays());
    columns::write(py, &LAYER_FIELDS, arrays)
}
