"""The evaluation card: a Markdown page with everything needed to believe or repeat the figures."""

from collections.abc import Iterator

from tamiyo.bench.evaluation.evaluation import Evaluation
from tamiyo.bench.evaluation.resampling import RESAMPLES
from tamiyo.bench.evaluation.result import SplitResult
from tamiyo.bench.evaluation.sheets import reliability_plot, sheets

__all__ = ["card"]


def card(evaluation: Evaluation, command: str) -> str:
    """The page.

    Args:
        evaluation: What was found.
        command: How to repeat it.
    """
    return "\n\n".join(_parts(evaluation, command)) + "\n"


def _parts(evaluation: Evaluation, command: str) -> Iterator[str]:
    request = evaluation.request
    built = ", ".join(f"{name} {number}" for name, number in evaluation.versions.items())
    yield "# Evaluation card"
    yield f"```bash\n{command}\n```"
    last = request.first + request.seeds - 1
    yield (
        f"{request.seeds} evaluation seeds ({request.first} to {last}) of {request.hosts} runs for "
        f"each split; every cohort plays the same runs. Intervals: bootstrap over seeds, "
        f"{RESAMPLES} resamples, 95 %. Figures are defined in `docs/evaluation.md`. {built}."
    )
    yield "## Bars"
    yield "\n".join(
        f"- {'reached' if judgement.passed else '**missed**'}: {judgement}"
        for judgement in evaluation.judgements
    )
    for result in evaluation.results:
        yield f"## {result.split.name}"
        yield from _split(result)


def _split(result: SplitResult) -> Iterator[str]:
    rows = next(iter(result.rows.values()))
    yield (
        f"{len(rows)} runs, {rows.faulty.sum()} of them faulty, and {rows.curable.sum()} of these "
        "with a cure that the oracle found legal."
    )
    for sheet in sheets(result):
        yield sheet.markdown(numbers=True)
    for name, cohort in result.cohorts.items():
        if cohort.reliability["width"]:
            yield f"### Reliability of {name}"
            yield f"```text\n{reliability_plot(cohort)}\n```"
