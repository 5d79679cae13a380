//! `tamiyo._core`: the Python face of the ingest core.

mod accounting;
mod columns;
mod encode;
mod errors;
mod features;
mod field;
mod filter;
mod ingest;
mod sum_tree;

use pyo3::prelude::*;

/// The ingest core: decoding, filtering, buffering and aggregating health signals.
#[pymodule(name = "_core", gil_used = false)]
mod core_module {
    use pyo3::exceptions::PyRuntimeWarning;
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::encode::encode;
    #[pymodule_export]
    use crate::features::window_features;
    #[pymodule_export]
    use crate::field::{Field, layer_fields, signal_fields};
    #[pymodule_export]
    use crate::filter::Filter;
    #[pymodule_export]
    use crate::ingest::Ingest;
    #[pymodule_export]
    use crate::sum_tree::SumTree;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        if cfg!(debug_assertions) {
            let category = module.py().get_type::<PyRuntimeWarning>();
            PyErr::warn(module.py(), &category, c"tamiyo._core is a debug build and slow", 1)?;
        }
        module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
        module.add("SCHEMA_VERSION", tamiyo_core::SCHEMA_VERSION)?;
        module.add("RECORD_BYTES", tamiyo_core::table::RECORD_BYTES)
    }
}
