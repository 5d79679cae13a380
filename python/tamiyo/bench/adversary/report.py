"""The tables of an experiment, in Markdown."""

from collections.abc import Iterable, Sequence

from tamiyo.bench.adversary.assessment import Assessment, Attack, median_watch
from tamiyo.bench.adversary.costs import Cost
from tamiyo.bench.markdown import markdown_table

__all__ = ["cost_table", "report"]


def report(assessment: Assessment) -> str:
    """Everything that was found, but the costs."""
    return "\n\n".join(
        (
            markdown_table(("what", "share (95 % interval)"), _promises(assessment)),
            markdown_table(_COLUMNS, _groups(assessment, "adaptation")),
            markdown_table(_COLUMNS, _groups(assessment, "subject")),
            markdown_table(
                ("missed", "run", "step", "worse by", "significant from"), _missed(assessment)
            ),
        )
    )


def cost_table(costs: Iterable[Cost]) -> str:
    """What snapshots and rollbacks take."""
    head = ("run", "parameters", "snapshot, bytes", "step, ms", "snapshot, ms", "rollback, ms")
    return markdown_table(
        head,
        (
            (
                cost.subject,
                f"{cost.parameters:,}",
                f"{cost.nbytes:,}",
                *(f"{ms:.2f}" for ms in (cost.step_ms, cost.snapshot_ms, cost.rollback_ms)),
            )
            for cost in costs
        ),
    )


def _promises(assessment: Assessment) -> Iterable[Sequence[str]]:
    yield "NaN, zero and × 1e6 taken back, every bit", str(assessment.always())
    yield "of what hurts significantly, taken back", str(assessment.recall())
    yield "rollbacks that gave every bit back", str(assessment.exact())
    yield "healthy runs set back", str(assessment.false_rollbacks())
    yield "untouched runs with an alarm", str(assessment.false_alarms())
    yield "runs with an exception in the loop", str(assessment.raised())


_COLUMNS = (
    "what",
    "applied",
    "hurt",
    "of these taken back",
    "taken back without hurting",
    "steps to the rollback",
)


def _groups(assessment: Assessment, key: str) -> Iterable[Sequence[str]]:
    for name, attacks in assessment.by(key):
        hurt = [attack for attack in attacks if attack.hurts]
        yield (
            name,
            str(len(attacks)),
            str(len(hurt)),
            str(_taken_back(hurt)),
            str(_taken_back(attacks) - _taken_back(hurt)),
            f"{median_watch(attacks):.0f}" if _taken_back(attacks) else "–",
        )


def _missed(assessment: Assessment) -> Iterable[Sequence[str]]:
    missed = [attack for attack in assessment.attacks if attack.hurts and not attack.taken_back]
    for attack in sorted(missed, key=lambda a: (a.record.case.adaptation, a.record.case.subject)):
        case = attack.record.case
        yield (
            case.adaptation,
            case.subject,
            str(case.at),
            f"{attack.worse:.3f}",
            f"{assessment.significant(case.subject):.3f}",
        )


def _taken_back(attacks: Iterable[Attack]) -> int:
    return sum(attack.taken_back for attack in attacks)
