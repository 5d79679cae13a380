"""Learning beside live runs: what the tutor says, what is kept of it, what comes of it."""

import shutil
from dataclasses import replace

import pytest
import torch

from tamiyo.bench.faults.cells import Cell
from tamiyo.bench.faults.live import accompany
from tamiyo.bench.live_training import finetuning, lessons
from tamiyo.bench.live_training.finetuning import finetune
from tamiyo.bench.live_training.lessons import Lesson, give_lessons, lessons_for, to_demonstrations
from tamiyo.bench.live_training.tutor import Tutored
from tamiyo.bench.policy_training import PRESETS
from tamiyo.bench.proposing import ProposingPolicy
from tamiyo.contracts import AdaptationType
from tamiyo.graph.schema import ACTIONS
from tamiyo.learn.graphs import pack
from tamiyo.learn.imitation import CloningConfig, Demonstrations
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.actions import WHOLE_MODEL
from tamiyo.policy.proposal import Proposal

ALL = torch.ones(len(ACTIONS), dtype=torch.bool)
REINITIALIZE = ACTIONS.index(AdaptationType.REINITIALIZE)
RATE = ACTIONS.index(AdaptationType.SCALE_LEARNING_RATE)
LIVE = "live-lessons.safetensors"
ZERO, LOW, NAN = "F9:one layer 0", "F2:rate × 1e-3", "F12:NaN batch"


class Stubborn(ProposingPolicy):
    """Wants one thing, whatever it sees."""

    def __init__(self, adaptation=None):
        super().__init__("stubborn")
        self._adaptation = adaptation

    def propose(self, state):
        if self._adaptation is None:
            return "nothing"
        return Proposal(self._adaptation, (), "so it is", {"factor": 0.5})


@pytest.fixture
def checkpoint(small_network, tmp_path):
    network = small_network()
    network.offered = ALL.clone()
    notes = {"command": "none: it is not trained", "layer_types": ["linear", "relu"]}
    network.save_pretrained(tmp_path / "before", notes)
    return tmp_path / "before"


def taught(cell, pupil=None, patience=0, *, offered=ALL, harmless=False):
    tutored = Tutored(offered, pupil, patience, harmless=harmless)
    row = accompany(cell, "tutored", tutored, 0)
    assert row.problems == ()
    return tutored.moments, row


def test_the_expert_decides_and_has_nothing_to_add_afterwards(cell):
    moments, row = taught(cell(ZERO))
    assert [act.adaptation for act in row.acts] == ["reinitialize"]
    # Then comes a pause, in which nothing can be decided, and the rest of the run.
    assert moments[0].type == REINITIALIZE
    assert 1 < len(moments) < 20
    assert all(one.type is None for one in moments[1:])
    (faulty,) = moments[0].rows
    assert moments[0].observation.action_mask[0, faulty, REINITIALIZE]


def test_while_it_waits_it_says_the_same(cell):
    moments, row = taught(cell(ZERO), patience=3)
    assert [one.type for one in moments[:4]] == [REINITIALIZE] * 4
    assert all(one.type is None for one in moments[4:])
    assert row.acts[0].step > taught(cell(ZERO))[1].acts[0].step


def test_a_pupil_that_does_nothing_is_told_to_the_end(cell):
    moments, row = taught(cell(LOW), Stubborn())
    assert row.acts == ()
    assert {one.type for one in moments} == {RATE}
    assert {one.rows for one in moments} == {(WHOLE_MODEL,)}


def test_what_the_pupil_did_right_is_not_asked_for_again(cell):
    moments, row = taught(cell(LOW), Stubborn(AdaptationType.SCALE_LEARNING_RATE))
    assert row.acts
    assert moments[0].type == RATE
    assert all(one.type is None for one in moments[1:])


def test_what_the_pupil_did_wrong_leaves_it_to_be_done(cell):
    moments, row = taught(cell(ZERO), Stubborn(AdaptationType.SCALE_LEARNING_RATE))
    assert row.acts[0].adaptation == "scale_learning_rate"
    # One state before the pause, and those that are left after it.
    assert len(moments) > 1
    assert {one.type for one in moments} == {REINITIALIZE}


def test_nothing_is_wrong_before_a_fault_strikes_nor_with_a_healthy_or_harmless_run(cell):
    struck = cell(NAN).recipe().strike.step
    moments, _ = taught(cell(NAN), Stubborn())
    wanted = [one.type is not None for one in moments]
    assert wanted == sorted(wanted)
    assert sum(not one for one in wanted) >= struck // 10
    for moments, row in (taught(cell()), taught(cell(ZERO), harmless=True)):
        assert row.acts == ()
        assert len(moments) > 10
        assert all(one.type is None for one in moments)


def test_what_the_network_may_not_choose_is_not_taught(cell):
    offered = ALL.clone()
    offered[REINITIALIZE] = False
    moments, _ = taught(cell(ZERO), Stubborn(), offered=offered)
    assert all(not one.observation.action_mask[..., REINITIALIZE].any() for one in moments)
    assert all(one.type != REINITIALIZE for one in moments)


def test_every_answer_is_legal_for_the_network(cell, checkpoint):
    moments = [*taught(cell(ZERO), Stubborn())[0], *taught(cell(LOW))[0], *taught(cell())[0]]
    found = to_demonstrations(moments, [1.0] * len(moments))
    network = EnhancedTamiyoPolicyGNN.from_pretrained(checkpoint)
    with torch.no_grad():
        outputs = network(pack(found.observations))
    log_prob = outputs["distribution"].log_prob(found.action)
    assert (log_prob > -30).all()
    assert found.action.adapt.tolist() == [one.type is not None for one in moments]
    assert found.targets.isnan().all()
    assert found.returns.isnan().all()


def test_a_few_states_stand_for_their_run(cell, checkpoint):
    given = [Lesson(cell(ZERO), 0, True, checkpoint, True, 3), *3 * [healthy(cell, checkpoint)]]
    found = give_lessons(given)
    assert found.action.adapt.tolist() == [True] * 2 + [False] * 8
    # The states of a run weigh as much as the run, however many there were of each kind.
    assert found.weights.unflatten(0, (-1, 2)).sum(1)[2:].tolist() == pytest.approx([1.0] * 3)
    assert float(found.weights[:4].sum()) == pytest.approx(1.0)
    assert len(found) <= lessons.MOST_KEPT * len(given)


def healthy(cell, checkpoint):
    return Lesson(cell(), 0, False, checkpoint, False, 0)


def test_an_error_in_a_run_ends_the_lessons(cell, checkpoint, monkeypatch):
    def fail(*_):
        raise RuntimeError("no attaching here")

    monkeypatch.setattr(Tutored, "attach", fail)
    with pytest.raises(RuntimeError, match="no attaching here"):
        give_lessons([healthy(cell, checkpoint)])


@pytest.fixture
def one_cell(cell, monkeypatch):
    """There is one faulty cell, which trains; those of the benchmark would take too long."""
    monkeypatch.setattr(lessons, "all_cells", lambda: iter([cell(ZERO), cell("F10:95:5")]))
    monkeypatch.setattr(lessons, "healthy_cells", lambda: iter([cell()]))
    monkeypatch.setattr(lessons, "split_of", lambda _cell: "train")


@pytest.mark.slow
def test_runs_are_taught_where_a_cure_was_seen_to_pay(one_cell, checkpoint, tmp_path):
    found = lessons_for("train", 6, checkpoint, tmp_path / "runs.jsonl")
    assert [one.cell.fault for one in found][3:] == ["F0"] * 3
    assert {one.cell.fault for one in found[:3]} == {ZERO}
    assert [one.seed for one in found] == [0, 1, 2] * 2
    assert [one.pays for one in found] == [True] * 3 + [False] * 3
    before = (tmp_path / "runs.jsonl").read_bytes()
    assert lessons_for("train", 6, checkpoint, tmp_path / "runs.jsonl") == found
    assert (tmp_path / "runs.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_policy_goes_on_learning_and_an_interrupted_call_goes_on(
    one_cell, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(finetuning, "EXPERIENCES", 16)
    monkeypatch.setattr(finetuning, "REHEARSALS", 1)
    monkeypatch.setattr(finetuning, "CALIBRATIONS", 1)
    monkeypatch.setattr(finetuning, "CLONING", CloningConfig(epochs=2, batch_size=32))
    tiny = replace(PRESETS["default"], runs=8)
    monkeypatch.setattr(finetuning, "PRESETS", {"default": tiny})
    before = (checkpoint / "policy.safetensors").read_bytes()
    again, copy = tmp_path / "again", tmp_path / "copy"
    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "clone", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(checkpoint, again, command="this")
    # Live runs have clocks in them, so that only what comes after them can be the same twice.
    shutil.copytree(again, copy)
    given = (again / LIVE).stat().st_mtime_ns
    made, same = (finetune(checkpoint, folder, command="this") for folder in (again, copy))
    for name in ("policy.safetensors", "policy.json"):
        assert (made / name).read_bytes() == (same / name).read_bytes()
    assert (again / LIVE).stat().st_mtime_ns == given
    tuned = EnhancedTamiyoPolicyGNN.from_pretrained(made)
    assert tuned.version != EnhancedTamiyoPolicyGNN.from_pretrained(checkpoint).version
    assert tuned.training_notes["command"] == "this"
    assert tuned.training_notes["live_states"] <= finetuning.EXPERIENCES
    assert (checkpoint / "policy.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="holds another training"):
        finetune(checkpoint, again, seed=1)


def interrupted(*_args, **_kwargs):
    raise KeyboardInterrupt


def test_live_states_are_half_of_what_is_learned_from(cell, checkpoint):
    live = to_demonstrations(taught(cell())[0], [1.0] * len(taught(cell())[0]))
    many = torch.arange(3 * len(live)) % len(live)
    rehearsal = finetuning._widened(live, 9, 20)[many]
    mixed = finetuning._mixed(rehearsal, live)
    assert len(mixed) == 2 * len(rehearsal)
    assert float(mixed.weights[len(rehearsal) :].sum()) == pytest.approx(
        float(rehearsal.weights.sum())
    )
    packed, alone = (pack(some[torch.arange(2)].observations) for some in (mixed, live))
    assert torch.equal(packed.x, alone.x)
    assert torch.equal(packed.edge_index, alone.edge_index)
    assert isinstance(mixed, Demonstrations)


def test_only_cells_with_a_cure_are_lessons():
    assert lessons._treatable(Cell(ZERO, "mlp_64_64", "circles"))
    assert not lessons._treatable(Cell("F10:40 % noise", "mlp_64_64", "circles"))
