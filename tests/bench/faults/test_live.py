"""A run is a training loop as users write it, and differs by its fault and company alone."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from tamiyo.bench.faults import FAULTS, POLICIES, Cell, Companion, Fault, Policy, Strike, play
from tamiyo.bench.faults.live import EVALUATIONS
from tamiyo.bench.faults.recipe import Recipe


class Witness(Companion):
    """Puts down what it is shown; changes nothing."""

    def __init__(self):
        self.calls, self.losses, self.evaluations, self.norms = [], [], [], []

    def attach(self, subject):
        self.calls.append("attach")
        self.subject = subject

    def before_step(self):
        self.calls.append("before")
        self.norms.append(
            float(torch.nn.utils.get_total_norm([p.grad for p in self.subject.model.parameters()]))
        )

    def after_step(self, loss):
        self.calls.append("after")
        self.losses.append(float(loss.detach()))

    def evaluated(self, loss, accuracy):
        self.calls.append("evaluated")
        self.evaluations.append((self.subject.step, accuracy, loss))

    def close(self):
        self.calls.append("close")


@pytest.fixture
def watched(registers):
    """Plays a cell with a witness beside it; returns the row and the witness."""

    def watch(cell, seed=0):
        witness = Witness()
        POLICIES._items["witness"] = Policy("witness", lambda: witness)
        return play(cell, "witness", seed), witness

    return watch


def by_hand(recipe: Recipe, seed):
    """The same run in the fewest lines."""
    torch.manual_seed(seed)
    model = recipe.make_model()
    optimizer = recipe.make_optimizer(model)
    losses, batches = [], recipe.batches(seed)
    for _ in range(recipe.steps):
        inputs, labels = next(batches)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def test_a_healthy_run_is_the_loop_by_hand_bit_for_bit(cell, watched):
    row, witness = watched(cell())
    with torch.random.fork_rng(devices=[]):
        model, losses = by_hand(cell().recipe(), 0)
    assert witness.losses == losses
    assert all(map(torch.equal, model.parameters(), witness.subject.model.parameters()))
    inputs, labels = cell().recipe().data.held_out
    accuracy = (model(inputs).argmax(1) == labels).float().mean().item()
    assert row.evaluations[-1].accuracy == accuracy
    assert row.accuracy > 0.9
    assert row.problems == ()


def test_hooks_come_in_order(cell, watched):
    row, witness = watched(cell())
    steps = cell().recipe().steps
    often = steps // EVALUATIONS
    expected = []
    for step in range(1, steps + 1):
        expected += ["before", "after", *(["evaluated"] if step % often == 0 else [])]
    assert witness.calls == ["attach", *expected, "close"]
    assert [e.step for e in row.evaluations] == [step for step, *_ in witness.evaluations]
    assert len(row.evaluations) == EVALUATIONS


def test_a_seed_repeats_and_another_one_differs(cell):
    one, again, other = (play(cell(), "no-op", seed) for seed in (1, 1, 2))
    assert one == again
    assert one.checksum != other.checksum


def test_who_is_told_nothing_sees_nothing_of_the_fault(cell, watched):
    _, witness = watched(cell("F5:bias -10"))
    subject = witness.subject
    seen = {name: getattr(subject, name) for name in subject.__dataclass_fields__}
    assert set(seen) == {"model", "optimizer", "steps", "name", "step"}
    assert "F5" not in subject.name
    assert subject.name != watched(cell())[1].subject.name


def fault(**strike):
    return FAULTS.add(Fault("X", "y", lambda recipe: replace(recipe, strike=Strike(50, **strike))))


def test_a_gradient_spike_is_there_for_one_step(cell, watched):
    _, before = watched(cell())
    fault(gradient_factor=1000.0)
    row, spiked = watched(cell("X:y"))
    assert spiked.norms[:50] == before.norms[:50]
    assert spiked.norms[50] == pytest.approx(1000 * before.norms[50])
    assert spiked.losses[:51] == before.losses[:51]
    assert spiked.norms[51] < 100 * before.norms[51]
    assert row.onset == 50


def test_a_bad_batch_is_there_for_one_step(cell, watched):
    fault(batch=lambda inputs: 7 * inputs)
    _, witness = watched(cell("X:y"))
    _, clean = watched(cell())
    assert witness.losses[:50] == clean.losses[:50]
    assert witness.losses[50] != clean.losses[50]


def test_inputs_change_from_then_on_those_held_out_as_well(cell, watched):
    shown = []

    def keep(inputs):
        shown.append(len(inputs))
        return inputs

    _, clean = watched(cell())
    fault(inputs=keep)
    row, same = watched(cell("X:y"))
    assert same.losses == clean.losses
    steps, held_out = row.settings["steps"], len(cell().recipe().data.held_out[1])
    assert shown.count(row.settings["batch_size"]) == steps - 50
    assert shown.count(held_out) >= sum(seen.step > 50 for seen in row.evaluations)


def test_a_loss_that_is_not_finite_is_missing(cell, watched):
    fault(batch=lambda inputs: torch.full_like(inputs, torch.nan))
    row, _ = watched(cell("X:y"))
    assert [e.loss is None for e in row.evaluations] == [e.step > 50 for e in row.evaluations]
    assert row.accuracy == pytest.approx(0.5, abs=0.02)


def test_an_exception_is_put_down_and_the_companion_closed(cell, watched, monkeypatch):
    def fail(self, loss):
        raise ZeroDivisionError("a broken companion")

    monkeypatch.setattr(Witness, "after_step", fail)
    row, witness = watched(cell())
    assert "a broken companion" in row.problems[0]
    assert witness.calls[-1] == "close"
    assert 0 <= row.accuracy <= 1


def test_the_callers_random_numbers_are_left_alone(cell):
    torch.manual_seed(4711)
    before = torch.get_rng_state()
    play(cell(), "no-op", 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_settings_say_what_was_built(cell):
    row = play(cell("F1:rate × 10"), "no-op", 0)
    assert row.settings["learning_rate"] == pytest.approx(0.1)
    assert row.settings["widths"] == [16, 16]
    assert row.settings["steps_per_epoch"] == 1050 // 64


def test_an_unknown_policy_is_said():
    with pytest.raises(ValueError, match="unknown policy 'magic'"):
        play(Cell("F0", "mlp_64_64", "digits"), "magic", 0)
