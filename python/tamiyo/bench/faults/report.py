"""The report of a measurement, as Markdown and as HTML, made from its rows alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from statistics import fmean

from tamiyo.bench.evaluation.sheets import Sheet
from tamiyo.bench.faults.bars import judged, missed, summary
from tamiyo.bench.faults.cohort import FaultCase, Rows
from tamiyo.bench.faults.companion import NOBODY
from tamiyo.bench.faults.plots import courses, interval_charts
from tamiyo.bench.faults.tables import shown, tables
from tamiyo.bench.html import html_page
from tamiyo.bench.transfer.figures import groups

__all__ = ["html", "markdown"]

TITLE = "Does it work?"
_HEADLINE = {
    "repaired": "Brought back to within two points of their clean twins, without a restart",
    "gained": "Points of accuracy gained over the same run untouched",
    "alarms": "Healthy runs in which anything was decided",
}


def markdown(rows: Rows, command: str) -> str:
    """All of it, but for the courses of the runs, which want a picture.

    Args:
        rows: Of a measurement.
        command: What makes them.
    """
    intro, *points = _headline(rows)
    sheets = (sheet.markdown() for sheet in (*tables(rows), *_unrepaired(rows)))
    plots = (f"### {plot.title}\n\n```text\n{plot.text()}\n```" for plot in interval_charts(rows))
    parts = (
        f"# {TITLE}",
        f"`{command}` makes this page.",
        intro,
        _bullets(points),
        *plots,
        *sheets,
        "### Bars missed",
        _bullets(_missed(rows)) or "None.",
    )
    return "\n\n".join(parts)


def html(rows: Rows, command: str) -> str:
    """All of it as one file.

    Args:
        rows: Of a measurement.
        command: What makes them.
    """
    intro, *points = _headline(rows)
    parts = (
        f"<p><code>{escape(command)}</code> makes this page.",
        f"<p>{escape(intro)}{_list(points)}",
        *(plot.svg() for plot in interval_charts(rows)),
        *(sheet.html() for sheet in (*tables(rows), *_unrepaired(rows))),
        f"<h2>Bars missed</h2>{_list(_missed(rows) or ['None.'])}",
        "<h2>How runs went on: means of the harmed ones</h2>",
        *courses(rows),
    )
    return html_page(TITLE, parts)


def _headline(rows: Rows) -> Sequence[str]:
    """What it comes to: of which runs, and then line by line."""
    faulty, healthy = rows.faulty(NOBODY), rows.healthy(NOBODY)
    harmed = sum(case.valid for case in faulty)
    figures = {policy: summary(rows, policy) for policy in rows.acting}
    return (
        f"Of {len(faulty)} live runs with a fault {harmed} were harmed by it; "
        f"{len(healthy)} healthy ones were run besides.",
        *(
            f"{said}: {', '.join(f'{name} {shown(key, of[key])}' for name, of in figures.items())}."
            for key, said in _HEADLINE.items()
        ),
    )


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}' for line in lines)}</ul>"


def _missed(rows: Rows) -> Sequence[str]:
    policies = judged(rows.acting)
    return missed(rows, policies) if policies else []


def _unrepaired(rows: Rows) -> Iterator[Sheet]:
    """Harmed runs that ended out of reach of their clean twins, cell by cell."""
    where, ends = ("fault", "architecture", "data"), ("clean", "untouched", "with it", "oracle")
    head = (*where, "runs", "done first", *ends)
    for policy in judged(rows.acting):
        hurt = [case for case in rows.faulty(policy) if case.valid]
        lines = [
            (*name.split("|"), *_misses(cases))
            for name, cases in groups(hurt, lambda case: case.row.cell).items()
            if not all(case.repaired for case in cases)
        ]
        if lines:
            yield Sheet(f"What {policy} did not repair", head, lines)


def _misses(cases: Sequence[FaultCase]) -> Sequence[str]:
    lost = [case for case in cases if not case.repaired]
    told = [case.told.accuracy for case in lost if case.told is not None]
    done = Counter(_done(case) for case in lost)
    return (
        f"{len(lost)} of {len(cases)}",
        "; ".join(f"{what} ({count})" for what, count in done.most_common()),
        *(f"{fmean(of):.3f}" for of in (lost[0].clean, [case.untouched.accuracy for case in lost])),
        f"{fmean(case.row.accuracy for case in lost):.3f}",
        f"{fmean(told):.3f}" if told else "–",
    )


def _done(case: FaultCase) -> str:
    first = case.row.first
    if first is None:
        return "nothing"
    return f"{first.adaptation}, {first.outcome.replace('_', ' ')}"
