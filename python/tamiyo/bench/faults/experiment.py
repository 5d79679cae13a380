"""All runs of a measurement that a file does not hold yet, in one process or in several."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tamiyo.bench.faults.cells import Cell
from tamiyo.bench.faults.companion import NOBODY, POLICIES
from tamiyo.bench.faults.live import play, settings_of
from tamiyo.bench.faults.registry import load_plugin
from tamiyo.bench.faults.rows import FaultRow
from tamiyo.bench.faults.validity import TWINS
from tamiyo.bench.pools import run_jobs
from tamiyo.bench.row_file import RowFile

__all__ = ["Job", "Plan", "PolicyChangedError", "experiment"]

OnRow = Callable[[FaultRow], None]


class PolicyChangedError(RuntimeError):
    """The rows of one measurement would be of two versions of a policy."""


class Job(NamedTuple):
    """One run: the arguments of `play`."""

    cell: Cell
    policy: str
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Which runs are made.

    Attributes:
        cells: With faults.
        seeds: Runs of each.
        healthy_cells: Without.
        healthy_seeds: Runs of each.
    """

    cells: Sequence[Cell]
    seeds: int
    healthy_cells: Sequence[Cell]
    healthy_seeds: int

    def with_cells(self, cells: Iterable[Cell]) -> "Plan":
        """With more cells, and the healthy ones that belong to them."""
        more = tuple(cells)
        healthy = (*self.healthy_cells, *(cell.healthy for cell in more))
        return replace(
            self,
            cells=tuple(dict.fromkeys((*self.cells, *more))),
            healthy_cells=tuple(dict.fromkeys(healthy)),
        )

    def narrowed(self, part: str, seeds: int | None, healthy_seeds: int | None) -> "Plan":
        """Only cells whose key contains a text, with the healthy ones that belong to them.

        And other numbers of runs, where they are given.
        """
        cells = [cell for cell in self.cells if part in cell.key]
        pairs = {cell.healthy for cell in cells}
        return Plan(
            cells,
            self.seeds if seeds is None else seeds,
            [cell for cell in self.healthy_cells if part in cell.key or cell in pairs],
            self.healthy_seeds if healthy_seeds is None else healthy_seeds,
        )

    def jobs(self, policies: Sequence[str]) -> list[Job]:
        """Every run, each once.

        Those with nobody beside them, which all others are compared with, come first; then
        seed by seed, so that whatever was interrupted has some of everything.
        """
        seeds = max(self.seeds, self.healthy_seeds)
        twins = dict.fromkeys((*(cell.healthy for cell in self.cells), *self.healthy_cells))
        jobs = [Job(cell, NOBODY, seed) for seed in range(TWINS) for cell in twins]
        for policy_of in ([NOBODY], [policy for policy in policies if policy != NOBODY]):
            for seed in range(seeds):
                cells = (
                    *(self.cells if seed < self.seeds else ()),
                    *(self.healthy_cells if seed < self.healthy_seeds else ()),
                )
                jobs += [Job(cell, policy, seed) for policy in policy_of for cell in cells]
        return list(dict.fromkeys(jobs))


def experiment(
    plan: Plan,
    policies: Sequence[str],
    path: Path,
    *,
    workers: int = 1,
    plugins: Sequence[Path] = (),
    networks: Mapping[str, Path] = MappingProxyType({}),
    on_row: OnRow = lambda _row: None,
) -> list[FaultRow]:
    """Make the runs of a plan.

    Args:
        plan: Which.
        policies: Who is beside them; nobody is always.
        path: File of all rows; what it holds is not run again. Begin a new one after a change of
            the code: a row knows what it was built from and the version of its policy, and nothing
            else.
        workers: Processes.
        plugins: Files that the processes have to load first; this one has done so.
        networks: What they have to give to `add_networks`, likewise.
        on_row: Called with every row, old or new.

    Returns:
        The rows of the plan.

    Raises:
        ValueError: an unknown policy.
        MissingExtraError: the package of a data set is not installed.
        PolicyChangedError: a policy was replaced by another version meanwhile.
    """
    jobs = plan.jobs(policies)
    versions = {policy: POLICIES.find(policy).make().version for policy in {job[1] for job in jobs}}
    settings = {job.cell: settings_of(job.cell.recipe()) for job in jobs}
    file = RowFile(path, FaultRow.from_line)

    def row_of(job: Job) -> FaultRow | None:
        cell, version = job.cell, versions[job.policy]
        key = (cell.fault, cell.architecture, cell.data, job.seed, job.policy, version)
        row = file.rows.get(key)
        return row if row is not None and row.settings == settings[cell] else None

    for job in jobs:
        if (row := row_of(job)) is not None:
            on_row(row)
    missing = [job for job in jobs if row_of(job) is None]
    with file.adding() as add:

        def keep(_place: int, row: FaultRow) -> None:
            add(row)
            if row.version != versions[row.policy]:
                raise PolicyChangedError(
                    f"{row.policy} was {versions[row.policy]!r} and is {row.version!r} now: "
                    "run the same command again"
                )
            on_row(row)

        run_jobs(_play, missing, workers, keep, prepare=partial(_prepare, plugins, dict(networks)))
    return [row for job in jobs if (row := row_of(job)) is not None]


def _play(job: Job) -> FaultRow:
    return play(*job)


def _prepare(plugins: Sequence[Path], networks: Mapping[str, Path]) -> None:
    """Give a new process the registers that this one has."""
    import tamiyo.bench.faults  # noqa: F401, PLC0415 - fills them
    from tamiyo.bench.faults.companions.controlled import add_networks  # noqa: PLC0415 - likewise

    add_networks(networks)
    for plugin in plugins:
        load_plugin(plugin)
