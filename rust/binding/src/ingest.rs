//! `Ingest`: bytes in, columns out.

use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use tamiyo_core::columns::Columns;
use tamiyo_core::filter::FilterConfig;
use tamiyo_core::ingest::{self, IngestConfig};
use tamiyo_core::table::FIELDS;

use crate::{accounting, columns, errors, features};

/// Bytes in, columns out: decode, filter, prioritise, buffer, aggregate, account.
#[pyclass(frozen, module = "tamiyo._core")]
pub struct Ingest {
    inner: ingest::Ingest,
}

#[pymethods]
impl Ingest {
    #[new]
    #[pyo3(signature = (
        run = None, *, capacity = 50_000, anomaly_threshold = 2.0, keep_every = 10, window = 100,
        max_keys = 65_536, max_message_bytes = 4_194_304
    ))]
    #[allow(clippy::too_many_arguments, reason = "settings, by keyword")]
    fn new(
        run: Option<String>,
        capacity: usize,
        anomaly_threshold: f64,
        keep_every: u64,
        window: usize,
        max_keys: usize,
        max_message_bytes: usize,
    ) -> PyResult<Self> {
        let filter =
            FilterConfig { anomaly_threshold, keep_every, max_keys, ..FilterConfig::default() };
        let config = IngestConfig { capacity, window, max_message_bytes, filter };
        Ok(Self { inner: ingest::Ingest::new(run, config).map_err(errors::setting)? })
    }

    /// The run whose signals are accepted; without one given, that of the first message.
    #[getter]
    fn run(&self) -> Option<&str> {
        self.inner.run()
    }

    /// Bind to `run` unless bound already; returns whether `run` is the one accepted.
    fn adopt(&self, py: Python<'_>, run: &str) -> bool {
        py.detach(|| self.inner.adopt(run))
    }

    /// Take telemetry envelopes; returns how many signals were accepted (kept or thinned).
    #[allow(clippy::needless_pass_by_value, reason = "keeps the bytes alive while they are read")]
    fn ingest(&self, py: Python<'_>, messages: Vec<PyBackedBytes>) -> usize {
        py.detach(|| self.inner.ingest(messages.iter().map(AsRef::as_ref)))
    }

    /// Layers of a declared topology: always admitted, whatever the bound on keys.
    #[allow(clippy::needless_pass_by_value, reason = "arrays are borrowed by this wrapper")]
    fn declare(&self, py: Python<'_>, layers: PyReadonlyArray1<'_, u32>) {
        let layers = layers.as_array().to_vec();
        py.detach(|| self.inner.declare(&layers));
    }

    /// The newest `count` signals of both lanes in time order, without draining.
    fn recent<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyDict>> {
        signals(py, || self.inner.recent(count))
    }

    /// The newest `count` signals of one layer in time order, without draining.
    fn for_layer<'py>(
        &self,
        py: Python<'py>,
        layer_id: u32,
        count: usize,
    ) -> PyResult<Bound<'py, PyDict>> {
        signals(py, || self.inner.for_layer(layer_id, count))
    }

    /// Remove and return up to `count` signals, urgent ones first, then oldest first.
    fn drain<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyDict>> {
        signals(py, || self.inner.drain(count))
    }

    /// Per-layer aggregates over the window of every valid signal (see `layer_fields`).
    fn layers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        features::write(py, || self.inner.layers())
    }

    /// Where every signal went.
    fn accounting<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (accounts, unreadable) = py.detach(|| (self.inner.accounts(), self.inner.unreadable()));
        accounting::write(py, accounts, &unreadable)
    }

    /// A bounded sample of the latest refused messages: the reason and their first bytes.
    fn refusals<'py>(&self, py: Python<'py>) -> Vec<(String, Bound<'py, PyBytes>)> {
        let samples = py.detach(|| self.inner.refusals());
        samples.into_iter().map(|(reason, bytes)| (reason, PyBytes::new(py, &bytes))).collect()
    }
}

fn signals(py: Python<'_>, read: impl Send + FnOnce() -> Columns) -> PyResult<Bound<'_, PyDict>> {
    let columns = py.detach(|| read().into_arrays());
    columns::write(py, &FIELDS, columns)
}
