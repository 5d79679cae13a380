"""The demo's report: one HTML file that needs nothing else."""

import json
from html import escape
from importlib.metadata import version
from pathlib import Path

from tamiyo.bench import Comparison, TrainingRecord
from tamiyo.cli.charts import Mark, line_chart
from tamiyo.cli.demo_display import describe_effect, describe_target

__all__ = ["write_report"]

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1c1e21, #e6e6e6);
  --paper: light-dark(#fff, #17191c); --line: light-dark(#ddd, #3a3d42);
  --a: light-dark(#2a7d4f, #5cc48a); --b: light-dark(#b3402e, #ef8168);
  --c: light-dark(#2b5fb0, #7fb0ff); }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 1.5rem 0 } svg { width: 100%; height: auto }
svg text { font-size: 11px; fill: var(--ink) }
polyline { fill: none; stroke-width: 1.6 } .grid { stroke: var(--line) }
.fault { stroke: var(--b); stroke-dasharray: 4 3 } .decision { stroke: var(--c); stroke-width: 1.5 }
polyline.series-0 { stroke: var(--a) } polyline.series-1 { stroke: var(--b) }
polyline.series-2 { stroke: var(--c) }
span.series-0 { color: var(--a) } span.series-1 { color: var(--b) }
span.series-2 { color: var(--c) }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top } td.number { text-align: right; font-variant-numeric: tabular-nums }
pre { overflow-x: auto; font-size: .85rem }
"""


def write_report(path: Path, comparison: Comparison) -> None:
    """Write the report of one comparison to `path`.

    Raises:
        OSError: the file cannot be written.
    """
    rescued = comparison.rescued
    marks = [Mark(fault.step, f"fault: {fault.name}", "fault") for fault in rescued.faults]
    marks += [
        Mark(decision.issued_at_step, f"{decision.adaptation}: {decision.reason}", "decision")
        for decision, _result in rescued.history
    ]
    accuracy = {
        run.name: [(step, value) for step, _loss, value in run.evaluations]
        for run in comparison.runs
    }
    losses = {run.name: list(enumerate(run.losses, start=1)) for run in comparison.runs}
    page = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>Tamiyo demo</title><style>{STYLE}</style>",
        f"<h1>Tamiyo demo</h1><p>Tamiyo {escape(version('tamiyo'))}, seed {comparison.seed}, "
        f"decisions by <b>{escape(rescued.stats['service']['policy']['name'])}</b>.</p>",
        _results(comparison),
        line_chart("Held-out accuracy by step", accuracy, marks=marks),
        line_chart("Training loss by step (logarithmic)", losses, marks=marks, log=True),
        "<p>Dashed: a fault was injected. Solid: Tamiyo decided. Hover for details.</p>",
        "<h2>Decisions</h2>",
        _decisions(rescued),
        "<h2>The model</h2>",
        _model(rescued),
        "<h2>Accounting</h2>",
        f"<pre>{escape(json.dumps(rescued.stats, indent=2, default=str))}</pre></html>",
    ]
    path.write_text("\n".join(page), encoding="utf-8")


def _results(comparison: Comparison) -> str:
    rows = [[run.name, f"{run.accuracy:.1%}", f"{run.seconds:.1f} s"] for run in comparison.runs]
    overhead = comparison.rescued.stats["host"]["probe_overhead"]
    return (
        _table(["run", "held-out accuracy", "wall time"], rows)
        + f"<p>{comparison.recovered_share:.0%} of the lost accuracy was won back. Probing took "
        f"{overhead:.2%} of the training time, by its own clock.</p>"
    )


def _decisions(record: TrainingRecord) -> str:
    rows = [
        [
            str(decision.issued_at_step),
            decision.adaptation,
            describe_target(decision, record.topology),
            decision.reason,
            describe_effect(result),
        ]
        for decision, result in record.history
    ]
    return _table(["step", "decision", "where", "why", "effect"], rows)


def _model(record: TrainingRecord) -> str:
    topology = record.topology
    if topology is None:
        return "<p>The model was not traced.</p>"
    rows = [
        [
            node.name,
            node.type,
            f"{node.parameters:,}",
            " × ".join(map(str, node.shape)),
            ", ".join(topology.nodes[after].name for after in topology.successors(node.layer_id)),
        ]
        for node in topology.nodes
    ]
    return _table(["layer", "type", "parameters", "output", "flows into"], rows)


def _table(headings: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f"<div class=scroll><table><tr>{head}{body}</table></div>"
