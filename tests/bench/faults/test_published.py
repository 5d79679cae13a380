"""Published rule sets fire at their authors' bounds, whatever else is known of the run."""

from types import SimpleNamespace

import numpy as np
import pytest

from tamiyo.bench.faults import POLICIES, Cell, play
from tamiyo.bench.faults.companions import autotrainer, deepdiagnosis, sagemaker
from tamiyo.bench.faults.companions.published import accuracies, any_layer, blown_up, vanished
from tamiyo.contracts import Outcome

SETS = ("autotrainer", "deepdiagnosis", "sagemaker")


def evidence(*, told=(), progress=1.0, losses=(), **measured):
    """Four layers, of which the measurements are given by name."""
    readings = {name: np.array(values, float) for name, values in measured.items()}
    reports = [
        SimpleNamespace(step=step, loss=1.0, loss_nonfinite=0, validation_accuracy=accuracy)
        for step, accuracy in enumerate(told)
    ]
    return SimpleNamespace(
        state=SimpleNamespace(
            step=50, metrics=reports, layers={"nonfinite_last": np.zeros(4, np.int64)}
        ),
        report=SimpleNamespace(step=50, loss=1.0, loss_nonfinite=0, progress=progress),
        loss=losses[-1] if losses else 1.0,
        history=SimpleNamespace(recent=list(losses)),
        hidden=np.array([True, True, True, False]),
        fresh=np.ones(4, bool),
        topology=SimpleNamespace(nodes=[SimpleNamespace(name="layer", parameters=100)] * 4),
        last=readings.__getitem__,
        trainable=readings.__getitem__,
    )


def norms(*values):
    return evidence(gradient_norm=values)


@pytest.mark.parametrize(
    ("find", "seen", "found"),
    [
        (autotrainer.vanishing, norms(9e-5, 1, 1, 1), True),
        (autotrainer.vanishing, norms(2e-4, 1, 1, 1), False),
        (autotrainer.vanishing, norms(9e-5, 1, 1, 0.05), False),
        (autotrainer.exploding, norms(71, 1, 1, 1), True),
        (autotrainer.exploding, norms(69, 1, 1, 1), False),
        (autotrainer.exploding, evidence(gradient_norm=[1] * 4, losses=[1e3]), True),
        (blown_up, norms(1, np.inf, 1, 1), True),
        (blown_up, norms(1, 1e30, 1, 1), False),
        (autotrainer.oscillating, evidence(told=[0.5, 0.46, 0.5, 0.5, 0.5]), True),
        (autotrainer.oscillating, evidence(told=[0.5, 0.48, 0.5, 0.48, 0.5]), False),
        (autotrainer.oscillating, evidence(told=[0.5, 0.4]), False),
        (autotrainer.slow, evidence(told=[0.5, 0.505], progress=0.3), True),
        (autotrainer.slow, evidence(told=[0.5, 0.505], progress=0.29), False),
        (autotrainer.slow, evidence(told=[0.5, 0.52], progress=0.5), False),
        (autotrainer.slow, evidence(told=[0.6, 0.6], progress=0.5), False),
        (autotrainer.slow, evidence(told=[0.5], progress=None), False),
        (vanished, norms(9e-7, 1, 1, 1), True),
        (vanished, norms(2e-6, 1, 1, 1), False),
        (vanished, norms(*[np.nan] * 4), False),
        (deepdiagnosis.small_updates, evidence(update_ratio=[9e-6] * 3 + [1]), True),
        (deepdiagnosis.small_updates, evidence(update_ratio=[9e-6, 9e-6, 1, 1]), False),
        (deepdiagnosis.large_updates, evidence(update_ratio=[0.11] * 3 + [0]), True),
        (deepdiagnosis.large_updates, evidence(update_ratio=[0.09] * 4), False),
        (sagemaker.odd_updates, evidence(update_ratio=[0.1, 0.1, 11, 0.1]), True),
        (sagemaker.odd_updates, evidence(update_ratio=[0.1, 0.1, 1e-9, 0.1]), True),
        (sagemaker.odd_updates, evidence(update_ratio=[0.1, 9, 2e-8, 0.1]), False),
        (sagemaker.loss_not_decreasing, evidence(losses=[1.0] * 11), True),
        (sagemaker.loss_not_decreasing, evidence(losses=[1.0] * 10), False),
        (sagemaker.loss_not_decreasing, evidence(losses=[1.0] * 10 + [0.99]), False),
        (any_layer("saturation", 0.5), evidence(saturation=[0, 0.5, 0, 0]), True),
        (any_layer("saturation", 0.5), evidence(saturation=[0, 0.4, np.nan, 1]), False),
    ],
)
def test_symptoms_begin_at_the_published_bounds(find, seen, found):
    assert (find(seen) is not None) == found


def test_an_evaluation_that_is_told_again_counts_once():
    seen = evidence(told=[0.1, None, 0.3])
    seen.state.metrics.append(seen.state.metrics[-1])
    assert accuracies(seen) == [0.1, 0.3]


@pytest.mark.parametrize(
    ("policy", "first"),
    [
        ("autotrainer", "change_activation"),
        ("deepdiagnosis", "reinitialize"),
        ("sagemaker", "change_activation"),
    ],
)
def test_each_tries_its_own_repairs_in_turn_and_brings_a_dead_run_back(policy, first):
    row = play(Cell("F5:bias -10", "mlp_64_64", "blobs"), policy, 0)
    assert row.acts[0].adaptation == first
    assert {act.by for act in row.acts} == {policy}
    assert any(act.outcome == Outcome.KEPT for act in row.acts)
    assert row.accuracy > 0.9


def test_chance_acts_on_healthy_runs_too_and_again_the_same_way():
    cell = Cell("F0", "mlp_64_64", "blobs")
    one, same = (play(cell, "random", 0) for _ in range(2))
    other = play(cell, "random", 1)
    assert one.acts == same.acts
    assert one.acts
    assert [act.adaptation for act in other.acts] != [act.adaptation for act in one.acts]


def test_all_policies_that_are_to_be_compared_are_there():
    names = {"no-op", "random", "rules", "learned", "plateau", "zclip", "redo", "growth", "oracle"}
    assert names | set(SETS) <= set(POLICIES)
