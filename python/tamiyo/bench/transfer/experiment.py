"""All runs of a measurement that a file does not hold yet, in one process or in several."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from tamiyo.bench.pools import run_jobs
from tamiyo.bench.row_file import RowFile
from tamiyo.bench.transfer.cases import Case
from tamiyo.bench.transfer.deciders import NOBODY, ORACLE, OraclePolicy, make_policy
from tamiyo.bench.transfer.live import play
from tamiyo.bench.transfer.rows import Row

__all__ = ["count_runs", "experiment"]

Job: TypeAlias = tuple[Case, str, Row | None, Row | None]
"""Arguments of `play`."""
OnRow: TypeAlias = Callable[[Row], None]


def count_runs(cases: Sequence[Case], policies: Sequence[str]) -> int:
    """How many runs `experiment` needs, those of an earlier call included."""
    return len({case.key for case in (*cases, *(c.twin for c in cases))}) + len(cases) * len(
        [policy for policy in policies if policy != NOBODY]
    )


def experiment(
    cases: Sequence[Case],
    policies: Sequence[str],
    path: Path,
    *,
    workers: int = 1,
    on_row: OnRow = lambda _row: None,
) -> dict[str, list[Row]]:
    """Let policies watch the same runs, each of which is also made with nobody beside it.

    Args:
        cases: The runs.
        policies: Names of policies, see `make_policy`, and `none` or `oracle`.
        path: File of all rows; what it holds is not run again. Begin a new one after a change of
            the code: a row knows its host and the version of its policy, and nothing else.
        workers: Processes.
        on_row: Called with every row, old or new.

    Returns:
        By policy the row of each case, in order.

    Raises:
        CheckpointError: a policy cannot be used.
    """
    file = RowFile(path, Row.from_line)
    versions = {policy: _version(policy) for policy in (NOBODY, *policies)}

    def row_of(case: Case, policy: str) -> Row | None:
        row = file.rows.get((case.number, case.fault, case.steps, policy, versions[policy]))
        return row if row is not None and row.host == case.host.as_json() else None

    def make(jobs: Sequence[Job]) -> None:
        for job in jobs:
            if (row := row_of(job[0], job[1])) is not None:
                on_row(row)
        missing = [job for job in jobs if row_of(job[0], job[1]) is None]
        with file.adding() as add:

            def keep(_place: int, row: Row) -> None:
                add(row)
                on_row(row)

            run_jobs(_play, missing, workers, keep)

    twins = {case.twin.key: case.twin for case in cases}.values()
    make([(twin, NOBODY, None, None) for twin in twins])
    alone = [case for case in cases if case.kind is not None]
    make([(case, NOBODY, None, row_of(case.twin, NOBODY)) for case in alone])
    treating = [policy for policy in policies if policy != NOBODY]
    make(
        [
            (case, policy, row_of(case, NOBODY), row_of(case.twin, NOBODY))
            for policy in treating
            for case in cases
        ]
    )
    found = {policy: [row_of(case, policy) for case in cases] for policy in policies}
    return {policy: [row for row in rows if row is not None] for policy, rows in found.items()}


def _version(policy: str) -> str:
    if policy == NOBODY:
        return ""
    return OraclePolicy.version if policy == ORACLE else make_policy(policy).version


def _play(job: Job) -> Row:
    return play(*job)
