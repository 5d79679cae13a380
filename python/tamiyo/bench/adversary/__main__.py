"""`python -m tamiyo.bench.adversary`: attack, watch, and say what came of it."""

import argparse
import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.progress import track

from tamiyo.bench.adversary.assessment import APPLIED, Assessment
from tamiyo.bench.adversary.costs import measure
from tamiyo.bench.adversary.plan import attacks, healthy, mixed, twins
from tamiyo.bench.adversary.report import cost_table, report
from tamiyo.bench.adversary.runs import Case, Record, run
from tamiyo.bench.adversary.subjects import SUBJECTS
from tamiyo.bench.row_file import RowFile
from tamiyo.contracts import Outcome

__all__ = ["experiment", "main"]


def experiment(cases: Iterable[Case], path: Path) -> list[Record]:
    """Run the cases that a file does not hold yet, adding a line for each.

    What was taken back is run once more and left alone, to see whether it would have hurt.
    """
    file = RowFile(path, Record.from_line)
    with file.adding() as add:

        def once(case: Case) -> Record:
            if case.key not in file.rows:
                add(run(case))
            return file.rows[case.key]

        for case in cases:
            record = once(case)
            if record.outcome in APPLIED - {Outcome.KEPT}:
                once(Case("alone", case.subject, case.seed, case.adaptation, case.at))
    return list(file.rows.values())


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tamiyo.bench.adversary", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("adversary.jsonl"), help="records")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of each attack")
    parser.add_argument("--healthy", type=int, default=5, help="seeds of each harmless adaptation")
    parser.add_argument("--twins", type=int, default=12, help="seeds of untouched runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("tamiyo").setLevel(logging.ERROR)
    treated = mixed(healthy(arguments.healthy), attacks(arguments.seeds))
    cases = [*twins(arguments.twins), *treated]
    records = experiment(track(cases, description="runs"), arguments.out)
    print(report(Assessment(records)))
    print(f"\n{cost_table(map(measure, SUBJECTS))}")


if __name__ == "__main__":
    main()
