"""Measures ingest and its peers, prints one table, and fails when a bar of `bars.toml` is missed.

    python benches/table.py [--against RESULTS.json] [--write]

The results go to `runs/bench/`. `--against` shows an earlier run's figures beside this one's, and
`--write` puts the table into the README.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import face
from peers import PEERS
from signals import BATCH

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
STAGES = {
    "memcpy": "memcpy of the records (the floor)",
    "packed": "decode and validate, packed",
    "columns": "decode and validate, columns",
    "maps": "decode and validate, maps",
    "filter": "filter",
    "lanes": "lanes: push and drain, 64 at a time",
    "features": "features of 50,000 records, 1,000 layers",
    "whole_packed": "bytes to lanes, streaming features and drained columns, packed",
    "whole_columns": "the same, columns",
    "whole_maps": "the same, maps",
    "whole_packed_1000_layers": "the same, packed, 1,000 layers",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    figure: float
    unit: str
    share: float | None = None
    bar: float | None = None
    met: bool = True

    def cells(self, earlier: dict[str, float]) -> tuple[str, ...]:
        """Its cells, as text."""
        small = self.unit == "s"
        figure = f"{self.figure * 1e6:,.0f} µs" if small else f"{self.figure:,.3g} {self.unit}"
        if self.unit == "signals/s":
            figure = f"{self.figure / 1e6:,.3g} M/s"
        share = "" if self.share is None else f"{self.share:.3f}"
        bar = "" if self.bar is None else self._bar()
        before = earlier.get(self.name)
        change = "" if before is None else f"{self.figure / before - 1:+.0%}"
        return (self.title, figure, share, bar, change)

    def _bar(self) -> str:
        limit = {"s": f"≤ {(self.bar or 0) * 1e6:,.0f} µs"}.get(self.unit, f"≥ {self.bar:,.3g}")
        return f"{limit} {'met' if self.met else 'MISSED'}"


def core(bars: dict[str, dict[str, float]]) -> list[Row]:
    """The stages of the core, measured by the Rust benchmark `floor`."""
    command = ("cargo", "bench", "--quiet", "--package", "tamiyo-core", "--bench", "floor")
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    found = {line["stage"]: line for line in map(json.loads, ran.stdout.splitlines())}
    rows = []
    for name, title in STAGES.items():
        share, bar = found[name]["share_of_floor"], bars["share_of_floor"].get(name)
        rate = found[name]["signals_per_second"]
        met = bar is None or share >= bar
        rows.append(Row(name, title, rate, "signals/s", share, bar, met))
    threads, bar = found["threads"], bars["speedup"]["threads"]
    speedup = threads["two"] / threads["one"]
    rows.append(Row("threads", "two producers, of one", speedup, "×", None, bar, speedup > bar))
    seconds, limit = found["snapshot_1000"]["seconds"], bars["seconds"]["snapshot_1000"]
    title = "snapshot of 1,000 layers"
    return [*rows, Row("snapshot_1000", title, seconds, "s", None, limit, seconds <= limit)]


def through_python(bars: dict[str, dict[str, float]]) -> list[Row]:
    """The face."""
    rows = []
    for encoding in ("packed", "columns", "maps"):
        name = f"face_{encoding}"
        rate, bar = face.signals_per_second(encoding), bars["signals_per_second"].get(name)
        title = f"through Python, bytes to features, {encoding}"
        rows.append(Row(name, title, rate, "signals/s", None, bar, bar is None or rate >= bar))
    name = "publish_to_features_p99"
    p99, bar = face.publish_to_features_p99(), bars["seconds"][name]
    title = f"published to features, {BATCH:,} signals, 99th percentile"
    return [*rows, Row(name, title, p99, "s", None, bar, p99 <= bar)]


def peers(ours: Iterable[Row]) -> list[Row]:
    """Each peer, and how many times as fast the figure beside it is."""
    figures = {row.name: row for row in ours}
    rows = []
    for name, (make, beside) in PEERS.items():
        rate = BATCH / face.fastest(make(), rounds=10)
        title = f"{name} (Tamiyo: {figures[beside].figure / rate:,.0f} times as fast)"
        rows.append(Row(name, title, rate, "signals/s"))
    return rows


def table(rows: Iterable[Row], earlier: dict[str, float]) -> str:
    """The rows in Markdown."""
    lines = [("stage", "measured", "share of floor", "bar", "change")]
    lines.append(("---",) * len(lines[0]))
    lines.extend(row.cells(earlier) for row in rows)
    width = len(lines[0]) if earlier else len(lines[0]) - 1
    return "\n".join("| " + " | ".join(line[:width]) + " |" for line in lines)


def keep(rows: Iterable[Row]) -> Path:
    """Write the results where a later run can be compared with them."""
    folder = ROOT / "runs" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    machine = {"machine": platform.processor() or platform.machine(), "python": sys.version}
    path.write_text(json.dumps(machine | {"rows": [asdict(row) for row in rows]}, indent=1))
    return path


def write_readme(text: str) -> None:
    """Put the table between its markers."""
    pattern = r"(<!-- table performance -->\n).*?(<!-- end -->)"
    old = README.read_text()
    new = re.sub(pattern, lambda match: f"{match[1]}\n{text}\n\n{match[2]}", old, flags=re.DOTALL)
    README.write_text(new)


def main() -> int:
    """Measure, print, keep, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    bars = tomllib.loads((ROOT / "benches" / "bars.toml").read_text())
    earlier = {}
    if options.against:
        rows = json.loads(options.against.read_text())["rows"]
        earlier = {row["name"]: row["figure"] for row in rows}
    ours = [*core(bars), *through_python(bars)]
    rows = [*ours, *peers(ours)]
    print(table(rows, earlier))
    print(f"\n{keep(rows).relative_to(ROOT)}")
    if options.write:
        write_readme(table(rows, {}))
    missed = [row.title for row in rows if not row.met]
    for title in missed:
        print(f"missed: {title}")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
