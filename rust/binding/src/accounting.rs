//! The books of a collector as dictionaries.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tamiyo_core::accounting::{Account, ByReason};
use tamiyo_core::refusal::Reason;

/// `producers`, `total` and `unreadable`.
pub fn write<'py>(
    py: Python<'py>,
    accounts: Vec<(String, Account)>,
    unreadable: &ByReason,
) -> PyResult<Bound<'py, PyDict>> {
    let producers = PyDict::new(py);
    let mut total = Account::default();
    for (name, account) in accounts {
        producers.set_item(name, account_dict(py, &account)?)?;
        total.add(&account);
    }
    let dict = PyDict::new(py);
    dict.set_item("producers", producers)?;
    dict.set_item("total", account_dict(py, &total)?)?;
    dict.set_item("unreadable", by_reason(py, unreadable)?)?;
    Ok(dict)
}

fn account_dict<'py>(py: Python<'py>, account: &Account) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("sent", account.sent)?;
    dict.set_item("held", account.held)?;
    dict.set_item("drained", account.drained)?;
    dict.set_item("refused", by_reason(py, &account.refused)?)?;
    dict.set_item("thinned", account.thinned)?;
    dict.set_item("overwritten", account.overwritten)?;
    dict.set_item("lost", account.lost)?;
    dict.set_item("duplicated", account.duplicated)?;
    Ok(dict)
}

/// The reasons that occurred, by label.
fn by_reason<'py>(py: Python<'py>, counts: &ByReason) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (reason, count) in Reason::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0) {
        dict.set_item(reason.label(), count)?;
    }
    Ok(dict)
}
