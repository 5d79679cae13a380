//! `Filter`: which signals are worth keeping one by one.

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyMapping;
use tamiyo_core::columns::Columns;
use tamiyo_core::filter::{self, FilterConfig};
use tamiyo_core::record::Record;
use tamiyo_core::refusal::Refusal;
use tamiyo_core::scalar::Scalar;
use tamiyo_core::table::{FIELDS, Ordinal, READY_FOR_TRANSITION};

use crate::{columns, errors};

/// Decides which signals are worth keeping one by one; the rest is thinned.
#[pyclass(frozen, module = "tamiyo._core")]
pub struct Filter {
    inner: filter::Filter,
}

#[pymethods]
impl Filter {
    #[new]
    #[pyo3(signature = (
        anomaly_threshold = 2.0, *, history = 100, minimum_history = 10, keep_every = 10,
        max_keys = 65_536
    ))]
    fn new(
        anomaly_threshold: f64,
        history: usize,
        minimum_history: usize,
        keep_every: u64,
        max_keys: usize,
    ) -> PyResult<Self> {
        let config =
            FilterConfig { anomaly_threshold, history, minimum_history, keep_every, max_keys };
        Ok(Self { inner: filter::Filter::new(config).map_err(errors::setting)? })
    }

    /// Whether to keep this signal. Each call is one signal of the key's history.
    #[pyo3(signature = (
        layer_id, seed_id, health_score, error_count = 0, is_ready_for_transition = false
    ))]
    fn should_process(
        &self,
        py: Python<'_>,
        layer_id: u32,
        seed_id: u32,
        health_score: f32,
        error_count: u32,
        is_ready_for_transition: bool,
    ) -> PyResult<bool> {
        let flags = if is_ready_for_transition { READY_FOR_TRANSITION } else { 0 };
        let record =
            Record { layer_id, seed_id, health_score, error_count, flags, ..Record::ABSENT };
        check(&[health_score])?;
        // Not long, but it takes a lock, and those are never waited for with the GIL held.
        let verdicts = py.detach(|| self.inner.judge(&[record])).map_err(errors::refusal)?;
        Ok(verdicts[0].keep)
    }

    /// The same for a batch, in order: `True` where a signal is kept.
    fn apply<'py>(
        &self,
        py: Python<'py>,
        columns: &Bound<'py, PyMapping>,
    ) -> PyResult<Bound<'py, PyArray1<bool>>> {
        let layer_id = FIELDS[Ordinal::layer_id as usize].name;
        let columns = columns::read(columns, |field| field.name == layer_id)?;
        check(&columns.health_score)?;
        let kept = py.detach(|| self.judge(&columns)).map_err(errors::refusal)?;
        Ok(PyArray1::from_vec(py, kept))
    }
}

impl Filter {
    fn judge(&self, columns: &Columns) -> Result<Vec<bool>, Refusal> {
        let records: Vec<_> = (0..columns.len()).map(|row| columns.row(row)).collect();
        Ok(self.inner.judge(&records)?.iter().map(|verdict| verdict.keep).collect())
    }
}

/// A score out of range would spoil its key's history.
fn check(scores: &[f32]) -> PyResult<()> {
    let field = &FIELDS[Ordinal::health_score as usize];
    for (index, score) in scores.iter().enumerate() {
        if let Some(fault) = score.fault(field) {
            return Err(errors::refusal(Refusal::from(fault).in_field(field.name).at(index)));
        }
    }
    Ok(())
}
