"""The tables of a report."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from tamiyo.bench.evaluation.resampling import Figure
from tamiyo.bench.evaluation.sheets import Sheet, span
from tamiyo.bench.faults.bars import summary
from tamiyo.bench.faults.cohort import ORACLE, FaultCase, Rows
from tamiyo.bench.faults.companion import NOBODY
from tamiyo.bench.faults.figures import balanced_accuracy, fault_figures
from tamiyo.bench.transfer.figures import groups

__all__ = ["by_kind", "shown", "tables"]

_LABELS: Mapping[str, str] = {
    "valid": "harmed",
    "lost": "points lost",
    "alarms": "false alarms",
    "detected": "detected",
    "balanced": "balanced accuracy",
    "culprit": "culprit",
    "type": "right type",
    "decision": "decision",
    "repaired": "repaired",
    "repaired_curable": "repaired, of the oracle's",
    "gained": "points gained",
    "gained_share": "of the oracle's",
    "detection_steps": "steps to detection",
    "repair_steps": "steps to repair",
    "repair_epochs": "epochs to repair",
    "compute": "compute, faulty",
    "healthy_compute": "compute, healthy",
    "harm": "points on healthy runs",
    "rolled_back": "rollbacks per faulty run",
    "verified": "verified",
    "disturbed": "changed by watching",
    "troubled": "errors",
}
_BENEFIT = (
    *("alarms", "detected", "balanced", "culprit", "type", "decision"),
    *("repaired", "repaired_curable", "gained", "gained_share"),
)
_COST = (
    *("detection_steps", "repair_steps", "repair_epochs", "compute", "healthy_compute", "harm"),
    *("rolled_back", "verified", "disturbed", "troubled"),
)
_BY_KIND = (
    *("valid", "lost", "detected", "balanced", "culprit", "type", "decision"),
    *("repaired", "repaired_curable", "gained", "repair_epochs"),
)
_IN_POINTS = frozenset(("gained", "lost", "harm"))
_IN_STEPS = frozenset(("detection_steps", "repair_steps"))
_PUBLISHED: Sequence[Sequence[str]] = (
    ("false alarms on healthy runs", "alarms", ".36", "DeepDiagnosis, from its released logs"),
    ("balanced accuracy", "balanced", ".66", "DeepDiagnosis, from its released logs"),
    ("culprit found", "culprit", ".65", "DeepDiagnosis, 34 of 52 programs"),
    ("correct fix named", "decision", ".54", "DeepDiagnosis, 28 of 52 programs"),
    ("repaired", "repaired", ".97", "AutoTrainer, by restarting, at 1.8 to 3.1 × the time"),
    ("points gained", "gained", "47.1", "AutoTrainer, by restarting"),
)


def tables(rows: Rows) -> Iterator[Sheet]:
    """All of them that have anything in them.

    Args:
        rows: Of a measurement.
    """
    return (sheet for sheet in _sheets(rows, rows.acting) if sheet.rows)


def shown(name: str, figure: Figure) -> str:
    """A figure with its interval, as it is shown everywhere.

    Args:
        name: Its name in `summary`.
        figure: Itself.
    """
    if name in _IN_POINTS:
        figure = Figure(100 * figure.value, 100 * figure.low, 100 * figure.high, figure.count)
    return span(figure, 0 if name in _IN_STEPS else 1 if name in _IN_POINTS else 2)


def _sheets(rows: Rows, policies: Sequence[str]) -> Iterator[Sheet]:
    figures = {policy: summary(rows, policy) for policy in policies}
    counts = {
        policy: f"{sum(case.valid for case in rows.faulty(policy))} harmed of "
        f"{len(rows.faulty(policy))}, {len(rows.healthy(policy))} healthy"
        for policy in policies
    }
    for title, columns in (("Who rescues runs", _BENEFIT), ("At what price", _COST)):
        lines = [
            (policy, counts[policy], *(shown(name, figures[policy][name]) for name in columns))
            for policy in policies
        ]
        yield Sheet(title, ("policy", "runs", *(_LABELS[name] for name in columns)), lines)
    yield Sheet(
        "Beside what was published",
        ("figure", *policies, "published", "by whom (re-created protocol)"),
        [
            (name, *(shown(key, figures[policy][key]) for policy in policies), *published)
            for name, key, *published in _PUBLISHED
        ],
    )
    yield Sheet("Cells", _CELL, list(_cells(rows)))
    for policy in policies:
        kinds = by_kind(rows.faulty(policy))
        yield Sheet(
            f"Faults: {policy}",
            ("fault", "runs", *(_LABELS[name] for name in _BY_KIND)),
            [_kind_line(rows, policy, kind, cases) for kind, cases in kinds.items()],
        )
    yield Sheet("What was decided in healthy runs", _ALARM, list(_alarms(rows, policies)))


_CELL = ("fault", "architecture", "data", "split", "clean", "untouched", "harmed", "oracle")
_ALARM = ("policy", "run", "seed", "step", "what", "where", "outcome", "accuracy", "reason")


def _kind_line(rows: Rows, policy: str, kind: str, cases: Sequence[FaultCase]) -> list[str]:
    balance = balanced_accuracy(cases, rows.healthy(policy))
    figures = {**fault_figures(cases), "balanced": balance}
    return [kind, str(len(cases)), *(shown(name, figures[name]) for name in _BY_KIND)]


def _cells(rows: Rows) -> Iterator[Sequence[str]]:
    """What each fault costs, and what the oracle wins back: means over seeds."""
    told = groups(rows.faulty(ORACLE), lambda case: case.row.cell)
    for name, cases in groups(rows.faulty(NOBODY), lambda case: case.row.cell).items():
        row = cases[0].row
        harmed = sum(case.valid for case in cases)
        yield (
            row.fault,
            row.architecture,
            row.data,
            row.split,
            _mean(cases[0].clean),
            _mean([case.row.accuracy for case in cases]),
            f"{harmed} of {len(cases)}",
            _mean([case.row.accuracy for case in told.get(name, ())]),
        )


def _alarms(rows: Rows, policies: Sequence[str]) -> Iterator[Sequence[str]]:
    for policy in policies:
        for case in rows.healthy(policy):
            for act in case.row.acts:
                yield (
                    policy,
                    f"{case.row.architecture}, {case.row.data}",
                    str(case.row.seed),
                    str(act.step),
                    act.adaptation,
                    ", ".join(act.target) or "whole model",
                    act.outcome,
                    f"{case.untouched.accuracy:.3f} → {case.row.accuracy:.3f}",
                    act.reason,
                )


def by_kind(cases: Sequence[FaultCase]) -> dict[str, list[FaultCase]]:
    """Cases by the kind of their fault, F1 before F10."""
    found = groups(cases, lambda case: case.row.kind)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _mean(accuracies: Sequence[float]) -> str:
    return f"{fmean(accuracies):.3f}" if accuracies else "–"
