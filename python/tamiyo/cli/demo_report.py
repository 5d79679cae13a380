"""The demo's report: one HTML file that needs nothing else."""

import json
from html import escape
from importlib.metadata import version
from pathlib import Path

from tamiyo.bench import Comparison, TrainingRecord
from tamiyo.bench.charts import Mark, line_chart
from tamiyo.bench.html import html_page, html_table
from tamiyo.cli.demo_display import describe_effect, describe_target

__all__ = ["write_report"]


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
    parts = [
        f"<p>Tamiyo {escape(version('tamiyo'))}, seed {comparison.seed}, "
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
        f"<pre>{escape(json.dumps(rescued.stats, indent=2, default=str))}</pre>",
    ]
    path.write_text(html_page("Tamiyo demo", parts), encoding="utf-8")


def _results(comparison: Comparison) -> str:
    rows = [[run.name, f"{run.accuracy:.1%}", f"{run.seconds:.1f} s"] for run in comparison.runs]
    overhead = comparison.rescued.stats["host"]["probe_overhead"]
    return (
        html_table(["run", "held-out accuracy", "wall time"], rows)
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
    return html_table(["step", "decision", "where", "why", "effect"], rows)


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
    return html_table(["layer", "type", "parameters", "output", "flows into"], rows)
