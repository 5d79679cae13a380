"""What the policy that ships has to reach, and by how much it does or does not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from tamiyo.bench.evaluation.resampling import Figure
from tamiyo.bench.faults.cohort import ORACLE, Rows
from tamiyo.bench.faults.companion import NOBODY
from tamiyo.bench.faults.figures import balanced_accuracy, fault_figures, healthy_figures

__all__ = ["BARS", "Bar", "judged", "missed", "summary"]

LEARNED = "learned"


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure has to keep to.

    Attributes:
        name: In words.
        figure: Its name in `summary`.
        bound: `value`, `low` or `high` of it.
        least: At least.
        most: At most.
    """

    name: str
    figure: str
    bound: str = "value"
    least: float = -inf
    most: float = inf

    def missed(self, figure: Figure) -> str | None:
        """What is wrong, in words; what is unknown is wrong, too."""
        value = float(getattr(figure, self.bound))
        if value >= self.least and value <= self.most:
            return None
        asked = f"at least {self.least:g}" if self.least > -inf else f"at most {self.most:g}"
        return f"{self.name}: {value:.4f}, {asked} is asked for"


BARS: Sequence[Bar] = (
    Bar("false alarms on healthy runs", "alarms", most=0.05),
    Bar("balanced accuracy of detection", "balanced", least=0.90),
    Bar("culprit layer, first try", "culprit", least=0.80),
    Bar("decision accuracy", "decision", least=0.80),
    Bar("repaired in place, of those that the oracle repairs", "repaired_curable", least=0.90),
    Bar("points gained, share of the oracle's", "gained_share", least=0.90),
    Bar("epochs from onset to repair, median", "repair_epochs", most=1.0),
    Bar("compute of faulty runs", "compute", most=1.3),
    Bar("compute of healthy runs", "healthy_compute", most=1.02),
    Bar("accuracy gained on healthy runs, lower bound", "harm", "low", least=-0.005),
    Bar("rollbacks verified", "verified", least=1.0),
)


def summary(rows: Rows, policy: str) -> dict[str, Figure]:
    """All figures of a policy over all cells; those of healthy runs win where names are equal."""
    faulty, healthy = rows.faulty(policy), rows.healthy(policy)
    alone = healthy_figures(healthy)
    return {
        **fault_figures(faulty),
        "balanced": balanced_accuracy(faulty, healthy),
        "alarms": alone["alarms"],
        "harm": alone["harm"],
        "healthy_compute": alone["compute"],
        "troubled": alone["troubled"],
        "disturbed": alone["disturbed"],
    }


def judged(policies: Sequence[str]) -> list[str]:
    """Who is held to the bars: the learned policy, or where it is not there all who act."""
    acting = [policy for policy in policies if policy not in {NOBODY, ORACLE}]
    return [LEARNED] if LEARNED in acting else acting


def missed(rows: Rows, policies: Sequence[str]) -> list[str]:
    """The bars that somebody misses, in words.

    A figure of nothing at all cannot be held to a bar: where nothing was rolled back, all
    rollbacks were verified.
    """
    return [f"{policy}: {said}" for policy in policies for said in _missed(summary(rows, policy))]


def _missed(figures: dict[str, Figure]) -> Iterator[str]:
    for bar in BARS:
        figure = figures[bar.figure]
        if bar.figure == "verified" and not figure.count:
            continue
        if (said := bar.missed(figure)) is not None:
            yield said
