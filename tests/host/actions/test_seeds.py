"""A seed is not felt while it learns, is blended in and out smoothly, and leaves plain torch."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from adaptable import OPTIMIZERS, Training, trainings
from tamiyo.host import RunSnapshot
from tamiyo.host.actions import Refusal
from tamiyo.host.actions.add_seed import AddSeed
from tamiyo.host.actions.remove_seed import RemoveSeed
from tamiyo.host.lifecycle import SCHEDULES, Stage

ADD, REMOVE = AddSeed(), RemoveSeed()


def plan(training=3, blending=6, holding=2, schedule="linear", units=0.5):
    return {
        "units": units,
        "training_steps": training,
        "blending_steps": blending,
        "holding_steps": holding,
        "schedule": schedule,
    }


OUT = {"blending_steps": 4, "schedule": "linear"}


def sites(training):
    return [i for i in range(len(training.layers)) if ADD.applies_to(training.layers, i)]


def loss_of(training):
    return functional.mse_loss(training.outputs()[0], training.target).item()


def make(kind="mlp", optimizer="adamw", seed=0):
    return Training(kind, [4, 6], False, nn.ReLU, optimizer, seed)


@settings(max_examples=30)
@given(training=trainings, data=st.data())
def test_nothing_changes_at_birth_and_undo_is_exact(training, data):
    target = data.draw(st.lists(st.sampled_from(sites(training)), min_size=1, unique=True))
    before, snapshot = training.outputs(), RunSnapshot(training.context.run, 3)
    undo = ADD.apply(training.context, target, plan())
    assert all(map(torch.equal, before, training.outputs()))
    undo()
    assert snapshot.verify()
    assert not list(training.context.seed_bed)
    assert not training.optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["mlp", "cnn", "blocks"])
def test_an_isolated_seed_learns_and_the_host_trains_bit_for_bit_as_without_it(kind, optimizer):
    training, twin = make(kind, optimizer), make(kind, optimizer)
    ADD.apply(training.context, sites(training), plan(training=100))
    weights = [seed.network[2].weight for seed in training.context.seed_bed]
    assert not any(weight.any() for weight in weights)
    assert training.steps(8) == twin.steps(8)
    own = dict(training.model.named_parameters())
    for name, parameter in twin.model.named_parameters():
        assert torch.equal(own[name], parameter)
    assert all(weight.any() for weight in weights)
    assert {seed.stage for seed in training.context.seed_bed} == {Stage.TRAINING}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_seed_goes_through_its_stages_and_alpha_follows_the_schedule(schedule):
    training = make()
    ADD.apply(training.context, [0], plan(3, 4, 2, schedule))
    (seed,) = training.context.seed_bed
    seen = [(seed.stage, seed.alpha)]
    for _ in range(11):
        training.step()
        seen.append((seed.stage, seed.alpha))
    ramp = [SCHEDULES[schedule](i / 4) for i in range(5)]
    expected = [("germinated", 0), *[("training", 0)] * 3]
    expected += [("blending", alpha) for alpha in ramp[:4]]
    expected += [("holding", 1), ("holding", 1), *[("permanent", 1)] * 2]
    assert [stage for stage, _ in seen] == [stage for stage, _ in expected]
    assert [alpha for _, alpha in seen] == pytest.approx([alpha for _, alpha in expected])


@settings(max_examples=15)
@given(training=trainings)
def test_each_exchange_of_modules_preserves_the_function_and_the_loss_falls(training):
    before = loss_of(training)
    ADD.apply(training.context, sites(training), plan(3, 20, 5))
    stages, bed = [], training.context.seed_bed

    def compare(*_):
        expected = training.outputs()
        stage = next(iter(bed)).stage
        tick()
        alpha = {seed.alpha for seed in bed}
        if stage is not Stage.BLENDING or alpha == {0.0}:
            assert all(map(torch.equal, expected, training.outputs()))
        stages.append(stage)

    tick = bed.tick
    training.optimizer._optimizer_step_post_hooks.clear()
    training.optimizer.register_step_post_hook(compare)
    training.steps(60)
    assert set(stages) == {"germinated", "training", "blending", "holding", "permanent"}
    assert loss_of(training) < before


@pytest.mark.parametrize("steps", [0, 2, 5, 10, 14])
def test_a_seed_can_be_removed_at_every_stage(steps):
    training = make()
    names = list(training.model.state_dict())
    parameters = set(training.optimizer.param_groups[0]["params"])
    layer = training.model[0]
    ADD.apply(training.context, [0], plan())
    training.steps(steps)
    seed = training.context.seed_bed.seed(0)
    before, felt, alpha = training.outputs(), seed.alpha > 0, seed.alpha
    snapshot = RunSnapshot(training.context.run, 0)
    undo = REMOVE.apply(training.context, [0], OUT)
    assert all(map(torch.equal, before, training.outputs()))
    undo()
    assert snapshot.verify()
    assert seed.alpha == alpha
    REMOVE.apply(training.context, [0], OUT)
    falling = []
    while not seed.stage.ended:
        training.step()
        falling.append(seed.alpha)
    assert falling == pytest.approx([alpha * (1 - i / 4) for i in range(1, 5)] if felt else [])
    assert training.model[0] is layer
    assert list(training.model.state_dict()) == names
    assert set(training.optimizer.param_groups[0]["params"]) == parameters
    assert set(training.optimizer.state) == parameters
    assert set(training.layers.ownership.owner) == {id(p) for p in parameters}
    assert not REMOVE.applies_to(training.layers, 0)
    training.steps(2)
    ADD.apply(training.context, [0], plan())


def test_undoing_a_second_planting_leaves_one_hook_that_ticks_once_a_step():
    training = make()
    ADD.apply(training.context, [0], plan())
    training.step()
    REMOVE.apply(training.context, [0], OUT)
    for _ in range(3):
        ADD.apply(training.context, [0], plan())()
    ADD.apply(training.context, [0], plan(training=3))
    assert len(training.optimizer._optimizer_step_post_hooks) == 1
    training.steps(3)
    assert training.context.seed_bed.seed(0).stage is Stage.TRAINING


def test_undoing_a_removal_that_is_complete_brings_the_seed_back():
    training = make()
    ADD.apply(training.context, [0], plan())
    training.steps(13)
    seed = training.context.seed_bed.seed(0)
    snapshot = RunSnapshot(training.context.run, 0)
    undo = REMOVE.apply(training.context, [0], OUT)
    training.steps(6)
    assert seed.stage is Stage.CULLED
    undo()
    snapshot.restore(random_state=False)
    assert snapshot.verify(random_state=False)
    assert seed.stage is Stage.PERMANENT
    training.steps(2)


@pytest.mark.parametrize("steps", [1, 5, 10, 14])
def test_undoing_a_planting_after_steps_leaves_the_bare_model(steps):
    training = make("cnn")
    snapshot = RunSnapshot(training.context.run, 0)
    undo = ADD.apply(training.context, sites(training), plan())
    seeds = list(training.context.seed_bed)
    training.steps(steps)
    undo()
    snapshot.restore(random_state=False)
    assert snapshot.verify(random_state=False)
    assert {seed.stage for seed in seeds} == {Stage.ROLLED_BACK}
    training.steps(1)


@pytest.mark.parametrize(("taken", "restored"), [(2, 6), (5, 8), (8, 20), (6, 11)])
def test_a_seed_goes_on_from_where_a_snapshot_puts_it(taken, restored):
    training = make()
    ADD.apply(training.context, [0], plan())
    (seed,) = training.context.seed_bed
    training.steps(taken)
    stage, alpha = seed.stage, seed.alpha
    snapshot = RunSnapshot(training.context.run, 0)
    training.steps(restored - taken)
    snapshot.restore()
    assert snapshot.verify()
    training.step()
    assert (seed.stage, seed.alpha >= alpha) == (stage, True)
    assert seed.alpha - alpha <= 0.2
    training.steps(20)
    assert seed.stage is Stage.PERMANENT


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("steps", [2, 6, 20])
def test_the_result_is_plain_torch(kind, steps):
    training = make(kind)
    ADD.apply(training.context, sites(training), plan())
    training.steps(steps)
    model = training.model.eval()
    assert all(type(m).__module__.startswith("torch.") for m in model.modules())
    expected = model(training.inputs)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert torch.equal(twin(training.inputs), expected)
    other = make(kind, seed=5)
    ADD.apply(other.context, sites(other), plan())
    other.steps(steps)
    other.model.load_state_dict(model.state_dict())
    assert torch.equal(other.model.eval()(training.inputs), expected)


def test_the_end_of_a_session_takes_isolated_seeds_out_and_leaves_the_others():
    training = make()
    ADD.apply(training.context, [0], plan())
    training.steps(6)
    ADD.apply(training.context, [2], plan())
    training.step()
    before = training.outputs()
    training.context.remove_hooks()
    training.context.seed_bed.settle()
    assert type(training.model[2]) is nn.Linear
    assert "0.alpha" in training.model.state_dict()
    assert all(map(torch.equal, before, training.outputs()))
    state = training.model.state_dict()["0.alpha"].clone()
    training.steps(3)
    assert training.model.state_dict()["0.alpha"] == state


def test_a_seed_with_an_optimiser_that_cannot_take_it_is_refused():
    training = make()
    training.optimizer.param_groups[0]["params"][:] = training.model[2].parameters()
    snapshot = RunSnapshot(training.context.run, 0)
    with pytest.raises(Refusal, match="does not train"):
        ADD.apply(training.context, [2, 0], plan())
    assert snapshot.verify()
    assert not list(training.context.seed_bed)
    ADD.apply(training.context, [2], plan())
    training.context.seed_bed._seeds.clear()
    with pytest.raises(Refusal, match="not planted in this session"):
        REMOVE.apply(training.context, [2], OUT)


def test_composite_modules_of_torch_and_hooked_layers_are_left_alone():
    training = make()
    training.model[2].register_forward_hook(lambda module, args, output: output)
    assert [training.layers.names[i] for i in sites(training)] == ["0", "4"]
