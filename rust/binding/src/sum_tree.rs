//! `SumTree`: priorities of a replay memory.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::{Element, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use tamiyo_core::sum_tree;

use crate::errors;

type Sample<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f64>>);

/// Draws leaves in proportion to their priorities, and changes many at once.
#[pyclass(frozen, module = "tamiyo._core")]
pub struct SumTree {
    inner: Mutex<sum_tree::SumTree>,
}

#[pymethods]
impl SumTree {
    #[new]
    fn new(capacity: usize) -> PyResult<Self> {
        let inner = sum_tree::SumTree::new(capacity).map_err(errors::sum_tree)?;
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// Number of leaves.
    #[getter]
    fn capacity(&self, py: Python<'_>) -> usize {
        py.detach(|| self.tree().capacity())
    }

    /// Sum of all priorities.
    #[getter]
    fn total(&self, py: Python<'_>) -> f64 {
        py.detach(|| self.tree().total())
    }

    /// Smallest priority above 0; infinite where there is none.
    #[getter]
    fn least_positive(&self, py: Python<'_>) -> f64 {
        py.detach(|| self.tree().least_positive())
    }

    /// Largest priority.
    #[getter]
    fn largest(&self, py: Python<'_>) -> f64 {
        py.detach(|| self.tree().largest())
    }

    /// Every priority, by index.
    fn leaves<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        let leaves = py.detach(|| self.tree().leaves().to_vec());
        PyArray1::from_vec(py, leaves)
    }

    /// The priorities of these leaves.
    #[allow(clippy::needless_pass_by_value, reason = "arrays are borrowed by this wrapper")]
    fn get<'py>(
        &self,
        py: Python<'py>,
        indices: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let indices = values(&indices);
        let found = py.detach(|| self.tree().get(&indices)).map_err(errors::sum_tree)?;
        Ok(PyArray1::from_vec(py, found))
    }

    /// Change these leaves, all of them or none.
    #[allow(clippy::needless_pass_by_value, reason = "arrays are borrowed by this wrapper")]
    fn set(
        &self,
        py: Python<'_>,
        indices: PyReadonlyArray1<'_, i64>,
        priorities: PyReadonlyArray1<'_, f64>,
    ) -> PyResult<()> {
        let (indices, priorities) = (values(&indices), values(&priorities));
        py.detach(|| self.tree().set(&indices, &priorities)).map_err(errors::sum_tree)
    }

    /// A leaf for each uniform number, stratified, and its priority.
    #[allow(clippy::needless_pass_by_value, reason = "arrays are borrowed by this wrapper")]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        uniforms: PyReadonlyArray1<'py, f64>,
    ) -> PyResult<Sample<'py>> {
        let uniforms = values(&uniforms);
        let (indices, priorities) =
            py.detach(|| self.tree().sample(&uniforms)).map_err(errors::sum_tree)?;
        Ok((PyArray1::from_vec(py, indices), PyArray1::from_vec(py, priorities)))
    }
}

impl SumTree {
    /// A call that panicked would have left the tree as it was, or with groups that the next change
    /// of a neighbour recomputes.
    fn tree(&self) -> MutexGuard<'_, sum_tree::SumTree> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers where they are, or a copy of what does not lie one after the other.
fn values<'a, T: Element + Copy>(array: &'a PyReadonlyArray1<'_, T>) -> Cow<'a, [T]> {
    match array.as_slice() {
        Ok(slice) => Cow::Borrowed(slice),
        Err(_) => Cow::Owned(array.as_array().to_vec()),
    }
}
