"""A whole evaluation: what is asked for, played and found."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from tamiyo.bench.evaluation.bars import Judgement, judge
from tamiyo.bench.evaluation.lineup import Lineup
from tamiyo.bench.evaluation.playing import Job, play_all
from tamiyo.bench.evaluation.resampling import RESAMPLES
from tamiyo.bench.evaluation.result import SplitResult
from tamiyo.bench.evaluation.splits import SEEDS, Split
from tamiyo.bench.provenance import environment_digest

__all__ = ["Evaluation", "Request", "evaluate"]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be evaluated.

    Raises:
        ValueError: no seeds or no runs, or seeds below 0.
    """

    splits: Sequence[Split]
    lineup: Lineup
    seeds: int = 10
    """Evaluation seeds of each split."""
    hosts: int = 32
    """Runs of each seed."""
    first: int = 0
    """The first evaluation seed."""

    def __post_init__(self) -> None:
        if min(self.seeds, self.hosts) < 1:
            raise ValueError(f"{self.seeds} seeds of {self.hosts} runs are nothing to evaluate")
        if not 0 <= self.first <= SEEDS - self.seeds:
            raise ValueError(f"there are no {self.seeds} seeds from {self.first} on")

    def jobs(self) -> list[Job]:
        """One for each split and seed."""
        seeds = range(self.first, self.first + self.seeds)
        return [
            Job(split, seed, self.hosts, self.lineup) for split in self.splits for seed in seeds
        ]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What came of it."""

    request: Request
    results: Sequence[SplitResult]

    @property
    def versions(self) -> dict[str, str]:
        """Of what the figures depend on: software, the environment's sources and weights."""
        packages = ("tamiyo", "torch", "numpy", "scikit-learn")
        software = {name: version(name) for name in packages}
        return {
            "python": platform.python_version(),
            **software,
            "environment": environment_digest(),
            **self.request.lineup.versions(),
        }

    @property
    def judgements(self) -> list[Judgement]:
        """All bars that apply."""
        return judge(self.results)

    def as_json(self) -> dict[str, Any]:
        """One document."""
        request = self.request
        return {
            "versions": self.versions,
            "seeds": request.seeds,
            "first_seed": request.first,
            "hosts": request.hosts,
            "resamples": RESAMPLES,
            "cohorts": list(request.lineup.names),
            "splits": {result.split.name: result.as_json() for result in self.results},
            "bars": [judgement.as_json() for judgement in self.judgements],
        }

    def records(self) -> Iterator[dict[str, Any]]:
        """Every run of every cohort."""
        for result in self.results:
            for cohort, rows in result.rows.items():
                for record in rows.records(cohort):
                    yield {"split": result.split.name, **record}


def evaluate(
    request: Request, workers: int = 1, on_done: Callable[[Job], None] = lambda _job: None
) -> Evaluation:
    """Play and count; the result does not depend on the number of processes.

    Args:
        request: What is to be evaluated.
        workers: Processes.
        on_done: Called after every job.
    """
    jobs = request.jobs()
    played = play_all(jobs, workers, on_done)
    results = []
    for split in request.splits:
        seeds = [one for job, one in zip(jobs, played, strict=True) if job.split == split]
        results.append(SplitResult.of(split, seeds))
    return Evaluation(request, results)
