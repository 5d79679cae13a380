//! `encode`: one telemetry envelope around columns.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMapping};
use tamiyo_core::encode::{Encoding, encode as encode_columns};
use tamiyo_core::envelope::Header;
use tamiyo_core::table::Presence;

use crate::{columns, errors};

/// One telemetry envelope around `columns`.
#[pyfunction]
#[pyo3(signature = (
    columns, *, run, producer, incarnation, seq, topic = "telemetry.layer.health_signals", encoding = "packed"
))]
#[allow(clippy::too_many_arguments, reason = "one per key of the envelope, by keyword")]
pub fn encode<'py>(
    py: Python<'py>,
    columns: &Bound<'py, PyMapping>,
    run: &str,
    producer: &str,
    incarnation: u64,
    seq: u64,
    topic: &str,
    encoding: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let encoding = Encoding::from_name(encoding)
        .ok_or_else(|| errors::setting("encoding must be `packed`, `columns` or `maps`"))?;
    let columns = columns::read(columns, |field| field.presence == Presence::Required)?;
    let header = Header { run, producer, incarnation, seq, n: columns.len(), topic };
    let message = py.detach(|| encode_columns(&header, &columns, encoding));
    Ok(PyBytes::new(py, &message))
}
