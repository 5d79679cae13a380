"""Exchanging parameters moves the optimiser's state with them, and undoing is exact."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tamiyo.host import RunSnapshot, TopologyRecorder, TrainingRun
from tamiyo.host.actions import Refusal
from tamiyo.host.surgery import Surgery, gather

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, foreach=False),
    "amsgrad": lambda p: torch.optim.Adam(p, amsgrad=True, foreach=True),
    "adamw": lambda p: torch.optim.AdamW(p, fused=True),
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "rmsprop": lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.9),
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "rprop": torch.optim.Rprop,
    "asgd": torch.optim.ASGD,
}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(4, 5)
        self.decode = nn.Linear(4, 5)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.encode(x) + self.decode(x)


def operate(model, optimizer, steps=2):
    recorder = TopologyRecorder(model)
    recorder.attach()
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(3, 4)).square().sum().backward()
        optimizer.step()
    recorder.detach()
    run = TrainingRun(model, optimizer)
    return run, recorder.layers()


indices = st.lists(st.integers(-1, 5), min_size=1, max_size=9)


@given(index=indices, axis=st.integers(0, 2), filled=st.booleans())
def test_gather_takes_old_slices_and_puts_new_ones_between(index, axis, filled):
    tensor = torch.randn(6, 6, 6)
    new = index.count(-1)
    fresh = torch.randn(*(new if a == axis else 6 for a in range(3))) if filled else None
    result = gather(tensor, axis, torch.tensor(index), fresh)
    news = iter(fresh.unbind(axis) if filled else [torch.zeros(6, 6)] * new)
    for old, got in zip(index, result.unbind(axis), strict=True):
        assert torch.equal(got, next(news) if old < 0 else tensor.select(axis, old))


@given(order=st.permutations(range(6)), axis=st.integers(0, 1))
def test_gather_has_an_inverse(order, axis):
    tensor, index = torch.randn(6, 6), torch.tensor(order)
    assert torch.equal(gather(gather(tensor, axis, index), axis, index.argsort()), tensor)


@pytest.mark.parametrize("name", OPTIMIZERS)
@settings(max_examples=8)
@given(index=st.lists(st.integers(-1, 4), min_size=1, max_size=8))
def test_state_follows_and_comes_back(name, index):
    model = nn.Linear(4, 5)
    optimizer = OPTIMIZERS[name](model.parameters())
    run, layers = operate(model, optimizer)
    before, old = RunSnapshot(run, 0), model.weight
    state = dict(optimizer.state.get(old, {}))
    with Surgery(run, layers) as surgery:
        for parameter in (model.weight, model.bias):
            surgery.resize(parameter, 0, torch.tensor(index))
    assert old not in optimizer.state
    assert optimizer.param_groups[0]["params"] == [model.weight, model.bias]
    for key, value in state.items():
        moved = optimizer.state[model.weight][key]
        if isinstance(value, torch.Tensor) and value.dim():
            assert torch.equal(moved, gather(value, 0, torch.tensor(index)))
        elif isinstance(value, torch.Tensor):
            assert torch.equal(moved, value)
            assert moved is not value
    model(torch.ones(3, 4)).square().sum().backward()
    optimizer.step()
    surgery.undo()
    assert before.verify()
    assert layers.parameters(0) == [model.weight, model.bias]


@pytest.mark.parametrize("build", [torch.optim.Adafactor, torch.optim.LBFGS])
def test_an_optimiser_whose_state_cannot_follow_is_refused(build):
    model = nn.Linear(4, 5)
    optimizer = torch.optim.AdamW(model.parameters())
    run, layers = operate(model, optimizer)
    optimizer = build(model.parameters())

    def loss():
        optimizer.zero_grad()
        loss = model(torch.ones(3, 4)).square().sum()
        loss.backward()
        return loss

    optimizer.step(loss)
    run = TrainingRun(model, optimizer)
    before = RunSnapshot(run, 0)
    with pytest.raises(Refusal, match="cannot follow"), Surgery(run, layers) as surgery:
        surgery.put(model.__dict__, "out_features", 7)
        surgery.resize(model.weight, 0, torch.tensor([0, 1]))
    assert before.verify()
    assert model.out_features == 5


def test_all_owners_of_a_tied_parameter_get_the_new_one():
    model = Tied()
    run, layers = operate(model, torch.optim.Adam(model.parameters()))
    before = RunSnapshot(run, 0)
    with Surgery(run, layers) as surgery:
        new = surgery.resize(model.encode.weight, 0, torch.arange(3))
    assert model.encode.weight is model.decode.weight is new
    surgery.undo()
    assert before.verify()


def test_what_is_attached_to_a_parameter_stays_or_refuses():
    model = nn.Linear(4, 5)
    run, layers = operate(model, torch.optim.Adam(model.parameters()))
    model.weight.no_decay = True
    with Surgery(run, layers) as surgery:
        assert surgery.resize(model.weight, 0, torch.arange(3)).no_decay
    surgery.undo()
    model.weight.register_post_accumulate_grad_hook(lambda parameter: None)
    with pytest.raises(Refusal, match="hook"):
        surgery.resize(model.weight, 0, torch.arange(3))


@pytest.mark.parametrize("named", [False, True])
def test_new_parameters_join_the_group_of_their_neighbour_and_leave_it(named):
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5))
    parameters = [list(layer.named_parameters(prefix=str(i))) for i, layer in enumerate(model)]
    if not named:
        parameters = [[p for _, p in group] for group in parameters]
    groups = [{"params": group, "lr": 0.1 * i} for i, group in enumerate(parameters, 1)]
    run, layers = operate(model, torch.optim.AdamW(groups))
    before = RunSnapshot(run, 0)
    with Surgery(run, layers) as surgery:
        new = nn.Parameter(torch.ones(5))
        model[1].scale = new
        surgery.join(1, [new])
    group = run.optimizer.param_groups[1]
    assert layers.parameters(1)[-1] is new
    assert all(a is b for a, b in zip(group["params"], model[1].parameters(), strict=True))
    if named:
        assert group["param_names"] == ["1.weight", "1.bias", "1.scale"]
    surgery.undo()
    del model[1].scale
    assert before.verify()


def test_the_model_itself_is_not_replaced():
    model = nn.Linear(4, 5)
    run, layers = operate(model, torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(Refusal, match="itself"), Surgery(run, layers) as surgery:
        surgery.replace(model, nn.Linear(4, 5))
