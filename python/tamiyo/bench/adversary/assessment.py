"""What the records show: who was hurt, what was taken back, and how sure that is."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, stdev

from scipy.stats import beta, t  # type: ignore[import-untyped] # it has no stubs

from tamiyo.bench.adversary.catalogue import ALWAYS, HARMFUL, HARMLESS
from tamiyo.bench.adversary.runs import Case, Record
from tamiyo.contracts import Outcome

__all__ = ["Assessment", "Attack", "Share", "clopper_pearson"]

CHANCE = 0.01
"""A difference is significant if two healthy runs differ as much with a lower probability."""
APPLIED = frozenset((Outcome.KEPT, Outcome.ROLLED_BACK, Outcome.FAILED))
"""Outcomes of what was not refused."""
_HARMLESS = frozenset(entry.name for entry in HARMLESS)
_HARMFUL = frozenset(entry.name for entry in HARMFUL)


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a binomial share (Clopper and Pearson, Biometrika 26, 1934).

    Args:
        successes: How often it happened.
        trials: How often it could have.
        confidence: Coverage, at least.
    """
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many."""

    count: int
    total: int

    def __str__(self) -> str:
        if not self.total:
            return "–"
        low, high = clopper_pearson(self.count, self.total)
        share = self.count / self.total
        return f"{self.count} / {self.total} = {share:.1%} ({low:.1%} … {high:.1%})"


@dataclass(frozen=True, slots=True)
class Attack:
    """A governed run, and whether its adaptation hurts when it is left in place."""

    record: Record
    worse: float
    """Final held-out loss if left alone minus the untouched twin's."""
    hurts: bool

    @property
    def taken_back(self) -> bool:
        """Whether it was rolled back."""
        return self.record.outcome == Outcome.ROLLED_BACK


@dataclass
class Assessment:
    """Records of a whole experiment.

    The untouched twin ends *significantly* better if its final held-out loss is lower by more than
    two healthy runs of different seeds differ in 99 of 100 cases: by `t · √2 · s`, with the
    standard deviation `s` over the subject's twins and the 0.99 quantile `t` of Student's
    distribution. A loss that is not finite is worse than any.
    """

    records: Sequence[Record]
    attacks: list[Attack] = field(init=False)
    """Applied adaptations that were meant to hurt."""
    harmless: list[Attack] = field(init=False)
    """Applied adaptations that were not."""

    def __post_init__(self) -> None:
        self._by_case: Mapping[Case, Record] = {record.case: record for record in self.records}
        judged = [self._judge(record) for record in self.records if record.case.arm == "governed"]
        applied = [attack for attack in judged if attack is not None]
        self.attacks = [a for a in applied if a.record.case.adaptation in _HARMFUL]
        self.harmless = [a for a in applied if a.record.case.adaptation in _HARMLESS]

    @property
    def twins(self) -> list[Record]:
        """Untouched runs."""
        return [record for record in self.records if record.case.arm == "twin"]

    def significant(self, subject: str) -> float:
        """Difference of final losses that two healthy runs exceed with a probability of 1 %."""
        finals = [record.final for record in self.twins if record.case.subject == subject]
        if len(finals) < 2:
            return math.inf
        return float(t.ppf(1 - CHANCE, len(finals) - 1)) * math.sqrt(2) * stdev(finals)

    def always(self) -> Share:
        """Of what must be taken back every time, how much came back bit for bit."""
        must = [a for a in self.attacks if a.record.case.adaptation in ALWAYS]
        return _share(must, lambda a: a.taken_back and bool(a.record.identical))

    def recall(self) -> Share:
        """Of what hurts significantly, how much was taken back."""
        return _share([a for a in self.attacks if a.hurts], lambda a: a.taken_back)

    def exact(self) -> Share:
        """Of all rollbacks, how many gave every bit back."""
        back = [a for a in (*self.attacks, *self.harmless) if a.taken_back]
        return _share(back, lambda a: bool(a.record.identical and a.record.verified))

    def false_rollbacks(self) -> Share:
        """Of the healthy runs, untouched or with a harmless adaptation, how many were set back."""
        count = sum(attack.taken_back for attack in self.harmless)
        return Share(count, len(self.harmless) + len(self.twins))

    def raised(self) -> Share:
        """Of all runs, how many had an exception in their training loop."""
        return Share(sum(record.raised > 0 for record in self.records), len(self.records))

    def false_alarms(self) -> Share:
        """Of the untouched runs, how many raised an alarm."""
        return Share(sum(record.alarms > 0 for record in self.twins), len(self.twins))

    def by(self, key: str) -> list[tuple[str, Sequence[Attack]]]:
        """Attacks grouped by `subject` or `adaptation`, in order of name."""
        groups: dict[str, list[Attack]] = {}
        for attack in self.attacks:
            groups.setdefault(getattr(attack.record.case, key), []).append(attack)
        return sorted(groups.items())

    def _judge(self, record: Record) -> Attack | None:
        case = record.case
        twin = self._by_case.get(Case("twin", case.subject, case.seed))
        if record.outcome not in APPLIED or twin is None:
            return None
        left = record
        if record.outcome != Outcome.KEPT:
            alone = Case("alone", case.subject, case.seed, case.adaptation, case.at)
            if alone not in self._by_case:
                return None
            left = self._by_case[alone]
        worse = left.final - twin.final
        return Attack(record, worse, not worse <= self.significant(case.subject))


def median_watch(attacks: Iterable[Attack]) -> float:
    """Median number of steps to the rollback; NaN without one."""
    steps = [a.record.watched for a in attacks if a.taken_back]
    return median(steps) if steps else math.nan


def _share(attacks: Sequence[Attack], holds: Callable[[Attack], bool]) -> Share:
    return Share(sum(map(holds, attacks)), len(attacks))
