"""The plots of a report: who repairs which kinds of faults, and how runs go on with whom."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from tamiyo.bench.charts import line_chart
from tamiyo.bench.faults.cohort import FaultCase, Rows
from tamiyo.bench.faults.figures import fault_figures
from tamiyo.bench.faults.rows import FaultRow
from tamiyo.bench.faults.tables import by_kind
from tamiyo.bench.interval_charts import IntervalChart

__all__ = ["courses", "interval_charts"]

_SHARES: Mapping[str, str] = {
    "repaired": "Share of harmed runs that were repaired, by fault",
    "gained": "Accuracy gained by harmed runs, by fault",
}


def interval_charts(rows: Rows) -> Iterator[IntervalChart]:
    """Shares repaired and accuracy gained, by kind of fault and policy."""
    found = {
        policy: {kind: fault_figures(cases) for kind, cases in by_kind(rows.faulty(policy)).items()}
        for policy in rows.acting
    }
    kinds = list(dict.fromkeys(kind for of_policy in found.values() for kind in of_policy))
    for name, title in _SHARES.items():
        groups = {
            kind: {policy: found[policy][kind][name] for policy in found if kind in found[policy]}
            for kind in kinds
        }
        yield IntervalChart(title, groups)


def courses(rows: Rows) -> Iterator[str]:
    """Held-out accuracy over the run, as figures of HTML, one for each kind of fault."""
    cases = {policy: by_kind(rows.faulty(policy)) for policy in rows.acting}
    kinds = list(dict.fromkeys(kind for of_policy in cases.values() for kind in of_policy))
    for kind in kinds:
        hurt = {
            policy: [case for case in of_policy.get(kind, ()) if case.valid]
            for policy, of_policy in cases.items()
        }
        first = next((some for some in hurt.values() if some), None)
        if first is not None:
            yield line_chart(f"{kind}: held-out accuracy, % of the run", _curves(first, hurt))


def _curves(
    any_policy: Sequence[FaultCase], hurt: Mapping[str, Sequence[FaultCase]]
) -> dict[str, list[tuple[float, float]]]:
    """Means over runs: of clean twins and untouched runs, then of each policy's."""
    return {
        "clean": _mean_course([twin for case in any_policy for twin in case.twins]),
        "untouched": _mean_course([case.untouched for case in any_policy]),
        **{policy: _mean_course([case.row for case in of]) for policy, of in hurt.items() if of},
    }


def _mean_course(runs: Sequence[FaultRow]) -> list[tuple[float, float]]:
    """Mean accuracy after each share of the run, in percent; runs differ in their lengths."""
    at: dict[float, list[float]] = {}
    for run in runs:
        last = run.evaluations[-1].step
        for seen in run.evaluations:
            at.setdefault(round(100 * seen.step / last), []).append(seen.accuracy)
    return [(share, fmean(values)) for share, values in sorted(at.items())]
