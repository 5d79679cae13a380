"""Hidden units of recurrent layers can be added, taken out and recycled like any others."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tamiyo.contracts import AdaptationType
from tamiyo.host import RunSnapshot, TopologyRecorder, TrainingRun
from tamiyo.host.actions import ACTIONS, Context, Refusal
from tamiyo.host.companions import Companion
from tamiyo.host.state import capture, restore
from tamiyo.host.structure import original

WIDEN = ACTIONS[AdaptationType.WIDEN]
PRUNE = ACTIONS[AdaptationType.PRUNE]
REINITIALIZE = ACTIONS[AdaptationType.REINITIALIZE]
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 5e-3),
}
KINDS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
BATCH, TIME, INPUTS = 11, 3, 4
"""No axis is as long as any layer has units."""


def final(hidden):
    return (hidden[0] if isinstance(hidden, tuple) else hidden)[-1]


WAYS = {
    "sequence": lambda out, hidden, time: out.mean(time),
    "last": lambda out, hidden, time: out.select(time, -1),
    "state": lambda out, hidden, time: final(hidden),
    "maximum": lambda out, hidden, time: out.amax(time),
    "steps": lambda out, hidden, time: out,
    "dropout": lambda out, hidden, time: functional.dropout(out.select(time, -1), 0.0),
}


class Recurrent(nn.Module):
    """A recurrent core that reads a linear layer, with another linear layer or core behind it."""

    def __init__(self, kind, units, *, way, batch_first, layers=1, bias=True, second=None):
        super().__init__()
        options = {"num_layers": layers, "bias": bias, "batch_first": batch_first}
        self.way, self.time = WAYS[way], 1 if batch_first else 0
        self.stem = nn.Linear(INPUTS, 6)
        self.core = KINDS[kind](6, units, **options)
        self.second = KINDS[second](units, 7, batch_first=batch_first) if second else None
        self.head = nn.Linear(7 if second else units, 2)

    def forward(self, x):
        out, hidden = self.core(torch.tanh(self.stem(x)))
        if self.second is not None:
            out, hidden = self.second(out)
        return self.head(self.way(out, hidden, self.time))


class Run:
    """A regression with a recorded step, and the host's view of it."""

    def __init__(self, kind, units=5, optimizer="adam", seed=0, **options):
        torch.manual_seed(seed)
        options = {"way": "last", "batch_first": True} | options
        self.recipe = lambda units=units: Recurrent(kind, units, **options)
        self.make_optimizer = OPTIMIZERS[optimizer]
        sizes = (BATCH, TIME) if options["batch_first"] else (TIME, BATCH)
        self.inputs = torch.randn(*sizes, INPUTS)
        self.begin(self.recipe())
        self.target = torch.randn_like(self.model(self.inputs)) * 0.3
        recorder = TopologyRecorder(self.model)
        recorder.attach()
        self.steps(3)
        recorder.detach()
        self.layers = recorder.layers()
        self.context = Context(TrainingRun(self.model, self.optimizer), self.layers, seed=seed)

    def begin(self, model):
        self.model, self.optimizer = model, self.make_optimizer(model.parameters())

    def loss(self):
        return functional.mse_loss(self.model(self.inputs), self.target)

    def step(self):
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def steps(self, count):
        return [self.step() for _ in range(count)]

    @torch.no_grad()
    def output(self):
        return self.model(self.inputs).clone()

    def applies(self, action, name="core"):
        return action.applies_to(self.layers, self.layers.ids[name])

    def apply(self, action, name="core", **parameters):
        complete = {key: rule.check(key, parameters.get(key)) for key, rule in action.rules.items()}
        return action.apply(self.context, (self.layers.ids[name],), complete)

    def measure(self, name="core", dead=(0,)):
        activity = torch.ones(self.model.get_submodule(name).hidden_size)
        activity[list(dead)] = 0
        self.context.activity[self.layers.ids[name]] = activity

    def silence(self, unit, layer=0):
        """Makes a unit of a recurrent layer zero for every input, with weights that are not."""
        core = self.model.core
        blocks = {"LSTM": 4, "GRU": 3}.get(core.mode, 1)
        rows = [unit + block * core.hidden_size for block in range(blocks)]
        with torch.no_grad():
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                parameter = core.get_parameter(f"{kind}_l{layer}")
                # The candidate of a GRU and the cell input of an LSTM.
                parameter[rows[min(2, blocks - 1)]] = 0


runs = st.builds(
    Run,
    kind=st.sampled_from(sorted(KINDS)),
    units=st.integers(4, 9).filter(lambda units: units != 6),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    seed=st.integers(0, 999),
    way=st.sampled_from(sorted(WAYS)),
    batch_first=st.booleans(),
    layers=st.integers(1, 2),
    bias=st.booleans(),
    second=st.sampled_from([None, *sorted(KINDS)]),
)
METHODS = ("zero_outgoing", "net2net")


@settings(max_examples=40)
@given(run=runs, method=st.sampled_from(METHODS), units=st.sampled_from([0.5, 1.0, 3.0]))
def test_widening_keeps_the_function_and_is_taken_back_bit_for_bit(run, method, units):
    before, snapshot = run.output(), RunSnapshot(run.context.run, 3)
    size, moments = run.model.core.hidden_size, len(run.optimizer.state)
    undo = run.apply(WIDEN, units=units, initialization=method)
    core = run.model.core
    assert core.hidden_size > size
    assert core.weight_hh_l0.shape[1] == core.hidden_size
    assert all(a is b for a, b in zip(core._flat_weights, core.parameters(), strict=True))
    assert len(run.optimizer.state) == moments
    torch.testing.assert_close(run.output(), before, rtol=1e-5, atol=1e-5)
    undo()
    assert snapshot.verify()
    assert core.hidden_size == size
    assert torch.equal(run.output(), before)


@settings(max_examples=12)
@given(run=runs, method=st.sampled_from(METHODS))
def test_the_loss_goes_on_falling_and_new_units_are_trained(run, method):
    size = run.model.core.hidden_size
    before = run.loss().item()
    run.apply(WIDEN, units=2.0, initialization=method)
    new = run.model.core.weight_hh_l0.detach()[:, size:].clone()
    losses = run.steps(40)
    assert losses[0] == pytest.approx(before, rel=1e-4)
    assert min(losses[1:]) < before
    weight = run.model.core.weight_hh_l0
    # Rectified units that are dead get no gradient.
    assert not torch.equal(weight[:, size:], new) or not weight.grad[:, size:].any()


@settings(max_examples=12)
@given(run=runs, method=st.sampled_from(METHODS))
def test_a_plain_model_of_the_new_size_loads_the_weights(run, method):
    run.apply(WIDEN, units=3.0, initialization=method)
    run.steps(2)
    twin = run.recipe(run.model.core.hidden_size)
    twin.load_state_dict(run.model.state_dict())
    with torch.no_grad():
        assert torch.equal(twin(run.inputs), run.output())


@settings(max_examples=15)
@given(run=runs)
def test_the_layer_before_a_recurrent_one_is_widened_too(run):
    before, snapshot = run.output(), RunSnapshot(run.context.run, 3)
    undo = run.apply(WIDEN, "stem", units=2.0)
    assert run.model.core.input_size == 8
    torch.testing.assert_close(run.output(), before, rtol=1e-5, atol=1e-5)
    run.steps(1)
    undo()
    snapshot.restore(random_state=False)
    assert run.model.core.input_size == 6
    assert torch.equal(run.output(), before)


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh", "relu"])
def test_a_dead_unit_is_pruned_without_changing_the_function(kind):
    run = Run(kind)
    run.silence(2)
    before, snapshot = run.output(), RunSnapshot(run.context.run, 3)
    run.measure(dead=[2])
    undo = run.apply(PRUNE)
    assert run.model.core.hidden_size == run.model.head.in_features == 4
    torch.testing.assert_close(run.output(), before, rtol=1e-6, atol=1e-6)
    undo()
    assert snapshot.verify()
    run.measure(dead=[2])
    run.apply(PRUNE)
    run.steps(2)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh", "relu"])
def test_recycling_a_dead_unit_keeps_the_function_and_gives_it_fresh_rows(kind, layers):
    run = Run(kind, layers=layers)
    run.silence(2, layers - 1)
    before, snapshot = run.output(), RunSnapshot(run.context.run, 3)
    run.measure(dead=[2])
    undo = run.apply(REINITIALIZE)
    torch.testing.assert_close(run.output(), before, rtol=1e-6, atol=1e-6)
    core, last = run.model.core, layers - 1
    others = [row for row in range(len(core.weight_ih_l0)) if row % 5 != 2]
    readers = core.get_parameter(f"weight_hh_l{last}")
    assert not readers[others, 2].any()
    assert readers[2].all()
    assert not run.model.head.weight[:, 2].any()
    blank = run.optimizer.state[core.get_parameter(f"weight_ih_l{last}")]["exp_avg"]
    assert not blank[2::5].any()
    assert blank[others].any()
    undo()
    assert snapshot.verify()


def outcomes(model, inputs):
    """Which adaptations of units a model's core allows."""
    recorder = TopologyRecorder(model)
    recorder.attach()
    output = model(inputs)
    (output[0] if isinstance(output, tuple) else output).square().sum().backward()
    recorder.detach()
    layers = recorder.layers()
    assert recorder.complete
    assert recorder.notes == ()
    actions = (WIDEN, PRUNE, REINITIALIZE)
    return [
        action.type.value for action in actions if action.applies_to(layers, layers.ids["core"])
    ]


class Odd(nn.Module):
    """A core used in a way that `way` says."""

    def __init__(self, way, units=5, inputs=5, **options):
        super().__init__()
        self.way = way
        self.core = nn.LSTM(INPUTS, units, batch_first=True, **options)
        self.head = nn.Linear(inputs, 2)

    def forward(self, x):
        return self.way(self, x)


def remembering(model, x):
    out, hidden = model.core(x)
    model.kept = hidden[0].detach()
    return model.head(out[:, -1])


def given_zeros(model, x):
    state = torch.zeros(1, len(x), model.core.hidden_size)
    return model.head(model.core(x, (state, state))[0])


REFUSED = {
    "an initial state": Odd(given_zeros),
    "a state kept between steps": Odd(remembering),
    "a state that leaves the model": Odd(lambda m, x: (m.head((both := m.core(x))[0]), both[1][0])),
    "the cells are read": Odd(lambda m, x: m.head(m.core(x)[1][1][-1])),
    "two directions": Odd(lambda m, x: m.head(m.core(x)[0]), inputs=10, bidirectional=True),
    "a projection": Odd(lambda m, x: m.head(m.core(x)[0]), inputs=3, proj_size=3),
    "as many steps as units": Odd(lambda m, x: m.head(m.core(x)[0][:, -1]), 3, 3),
    "steps instead of units": Odd(lambda m, x: m.head(m.core(x)[0][..., 0]), 3, 3),
    "cut to the number of units": Odd(
        lambda m, x: m.head(m.core(x.repeat(1, 2, 1))[0][:, :5].transpose(1, 2))
    ),
    "a reshape behind a transposition": Odd(
        lambda m, x: m.head(m.core(x)[0].transpose(1, 2).reshape(-1, 5))
    ),
    "pooled over neighbours": Odd(
        lambda m, x: m.head(functional.avg_pool1d(m.core(x)[0], 3, 1, 1))
    ),
    "added to something else": Odd(lambda m, x: m.head(m.core(x)[0] + x.sum(-1, keepdim=True))),
    "called twice": Odd(lambda m, x: m.head(m.core(x)[0] + m.core(x)[0])),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_shown_exactly_is_refused(why):
    assert outcomes(copy.deepcopy(REFUSED[why]), torch.randn(BATCH, TIME, INPUTS)) == []


def test_stacked_layers_are_pruned_never_and_recycled_where_the_last_one_is_read():
    inputs = torch.randn(BATCH, TIME, INPUTS)
    sequence = Odd(lambda m, x: m.head(m.core(x)[0][:, -1]), num_layers=2)
    state = Odd(lambda m, x: m.head(m.core(x)[1][0][0]), num_layers=2)
    assert outcomes(sequence, inputs) == ["widen", "reinitialize"]
    assert outcomes(state, inputs) == ["widen"]
    assert outcomes(Odd(lambda m, x: m.head(m.core(x)[1][0][-1])), inputs) == [
        *("widen", "prune", "reinitialize")
    ]


@pytest.mark.parametrize("name", ["core", "stem"])
@pytest.mark.parametrize("method", ["gradmax", "random", "correlated"])
def test_gradient_methods_are_refused_next_to_a_recurrent_layer(name, method):
    run = Run("lstm")
    snapshot = RunSnapshot(run.context.run, 3)
    with pytest.raises(Refusal, match="next to a recurrent layer"):
        run.apply(WIDEN, name, initialization=method)
    assert snapshot.verify()


def test_nothing_is_put_behind_a_layer_that_returns_several_things():
    run = Run("gru")
    for kind in ("add_seed", "insert_normalization", "change_activation"):
        assert not run.applies(ACTIONS[AdaptationType(kind)])


@pytest.mark.parametrize("kind", ["lstm", "relu"])
def test_a_fresh_model_is_given_the_new_size_from_a_saved_state(kind):
    run = Run(kind, layers=2)
    original(run.model)
    run.apply(WIDEN, units=2.0)
    run.apply(WIDEN, "stem", units=1.0)
    run.steps(2)
    state = capture(run.context.run, run.context)
    weights, moments = copy.deepcopy((run.model.state_dict(), run.optimizer.state_dict()))
    twin = copy.copy(run)
    twin.begin(run.recipe())
    layers = restore(TrainingRun(twin.model, twin.optimizer), state)
    twin.model.load_state_dict(weights)
    twin.optimizer.load_state_dict(moments)
    assert layers.flow == run.layers.flow
    assert twin.steps(5) == run.steps(5)
    assert WIDEN.applies_to(layers, layers.ids["core"])


def test_going_back_to_a_snapshot_alone_brings_the_size_back():
    run = Run("gru")
    before, snapshot = run.output(), RunSnapshot(run.context.run, 3)
    run.apply(WIDEN, units=2.0)
    snapshot.restore()
    assert torch.equal(run.output(), before)
    assert run.model.core.hidden_size == 5


def test_an_average_of_the_weights_follows_and_comes_back():
    run = Run("lstm")
    average = torch.optim.swa_utils.AveragedModel(run.model)
    whole = TrainingRun(run.model, run.optimizer, companions=[Companion(average, run.model)])
    run.context = Context(whole, run.layers)
    before = average(run.inputs).detach().clone()
    undo = run.apply(WIDEN, units=2.0)
    torch.testing.assert_close(average(run.inputs), before, rtol=1e-5, atol=1e-5)
    average.update_parameters(run.model)
    undo()
    assert average.module.core.hidden_size == 5
    average(run.inputs)
