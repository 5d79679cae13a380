from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from tamiyo.contracts import AdaptationType, ModelTopology
from tamiyo.host import TopologyRecorder, trace
from tamiyo.host.modules import Ownership


def edges(topology: ModelTopology):
    names = [node.name for node in topology.nodes]
    return {(names[e.source], names[e.target], e.joins) for e in topology.edges}


def chain(*names):
    return {(a, b, False) for a, b in pairwise(names)}


RESIDUAL = {
    ("stem", "up", False),
    ("up", "down", False),
    ("stem", "head", True),
    ("down", "head", True),
}
BRANCHES = {("left", "merge", True), ("right", "merge", True)}


def encoder_layer(source, i):
    p = f"encoder.layers.{i}."
    return {
        *((name, p + "self_attn", joins) for name, joins in source),
        (p + "self_attn", p + "self_attn.out_proj", False),
        *((name, p + "norm1", True) for name, _ in source),
        (p + "self_attn.out_proj", p + "norm1", True),
        (p + "norm1", p + "linear1", False),
        (p + "linear1", p + "linear2", False),
        (p + "norm1", p + "norm2", True),
        (p + "linear2", p + "norm2", True),
    }


EXPECTED = {
    "mlp": chain("0", "1", "2", "3", "4"),
    "residual": RESIDUAL,
    "in-place residual": RESIDUAL,
    "branches": BRANCHES,
    "buffered": BRANCHES,
    "shared": chain("stem", "cell", "head") | {("cell", "cell", False)},
    "conv": chain("0", "1", "2", "4", "5", "8"),
    "language": chain("embed", "lstm", "head"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_edges_by_hand(loop, name):
    run = loop(name)
    topology = trace(run.model, run.inputs(), run="r")
    assert topology.run == "r"
    assert edges(topology) == EXPECTED[name]
    assert not topology.notes


def test_transformer_edges(loop):
    run = loop("transformer")
    topology = trace(run.model, run.inputs())
    # The class token belongs to the root, whose path is empty: what it is joined with passes it.
    expected = {("stem", "", False), ("encoder.layers.1.norm2", "head", False)}
    expected |= encoder_layer([("", False)], 0)
    expected |= encoder_layer([("encoder.layers.0.norm2", False)], 1)
    assert edges(topology) == expected


@pytest.mark.parametrize("name", [*EXPECTED, "transformer"])
def test_every_parameter_belongs_to_exactly_one_node(loop, name):
    run = loop(name)
    topology = trace(run.model, run.inputs())
    assert sum(n.parameters for n in topology.nodes) == sum(
        p.numel() for p in run.model.parameters()
    )
    assert all(run.model.get_submodule(n.name) is not None for n in topology.nodes)


@pytest.mark.parametrize("name", [*EXPECTED, "transformer"])
def test_ancestors_cover_those_of_autograd(loop, name):
    """Every parameter in the graph of a layer's output is an ancestor in the recorded topology."""
    run = loop(name)
    inputs = run.inputs()
    topology = trace(run.model, inputs)
    ownership = Ownership.of(run.model)
    reached = {}

    def note(path):
        def hook(_module, _args, output):
            tensor = output[0] if isinstance(output, tuple) else output
            reached.setdefault(path, set()).update(_parameters_below(tensor.grad_fn))

        return hook

    handles = [
        ownership.layers[path].register_forward_hook(note(path)) for path in ownership.leaves
    ]
    run.model(inputs)
    for handle in handles:
        handle.remove()
    by_name = topology.by_name
    for path, parameters in reached.items():
        ancestors, waiting = set(), [by_name[path].layer_id]
        while waiting:
            node = waiting.pop()
            if node not in ancestors:
                ancestors.add(node)
                waiting += topology.predecessors(node)
        names = {topology.nodes[node].name for node in ancestors}
        held = set().union(*(ownership.held[name] for name in names))
        assert {ownership.owner[id(p)] for p in parameters} <= held


def _parameters_below(grad_fn):
    seen, found, waiting = set(), [], [grad_fn]
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if hasattr(function, "variable"):
            found.append(function.variable)
        waiting += [below for below, _ in function.next_functions]
    return found


def test_activations_shapes_and_depths(loop):
    run = loop("mlp")
    topology = trace(run.model, run.inputs())
    assert [node.activation for node in topology.nodes] == ["relu", None, "tanh", None, None]
    assert [node.shape for node in topology.nodes] == [(16,), (16,), (8,), (8,), (3,)]
    assert list(topology.depths) == [0, 1, 2, 3, 4]
    run = loop("residual")
    by_name = trace(run.model, run.inputs()).by_name
    assert by_name["up"].activation == "relu"
    assert by_name["stem"].activation is None
    run = loop("transformer")
    by_name = trace(run.model, run.inputs()).by_name
    assert by_name["encoder.layers.0.linear1"].activation == "relu"
    run = loop("conv")
    by_name = trace(run.model, run.inputs()).by_name
    assert by_name["0"].activation is None
    assert by_name["1"].activation == "relu"
    assert by_name["4"].shape == (6, 2, 2)


def test_actions_are_those_that_can_be_applied(loop):
    run = loop("mlp")
    topology = trace(run.model, run.inputs())
    actions = {node.name: set(node.actions) for node in topology.nodes}
    assert AdaptationType.REINITIALIZE in actions["0"]
    assert actions["1"] == {AdaptationType.CHANGE_ACTIVATION}
    # What reads the model's output is not known, so its units cannot be recycled.
    assert AdaptationType.REINITIALIZE not in actions["4"]
    assert AdaptationType.RESTORE in topology.actions
    run = loop("residual")
    actions = {n.name: set(n.actions) for n in trace(run.model, run.inputs()).nodes}
    assert AdaptationType.REINITIALIZE in actions["up"]
    assert AdaptationType.REINITIALIZE not in actions["stem"]
    assert AdaptationType.CHANGE_ACTIVATION not in actions["up"]


@pytest.mark.parametrize("name", [*EXPECTED, "transformer"])
def test_tracing_leaves_no_trace(loop, name):
    run = loop(name)
    inputs = run.inputs()
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    random = torch.get_rng_state()
    trace(run.model, inputs)
    assert torch.equal(torch.get_rng_state(), random)
    after = run.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    for module in run.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(p.grad is None for p in run.model.parameters())


@pytest.mark.parametrize("name", [*EXPECTED, "transformer"])
def test_a_recorded_step_trains_bit_identically(loop, name):
    plain, traced = loop(name), loop(name)
    torch.manual_seed(1)
    expected = plain.steps(3)
    recorder = TopologyRecorder(traced.model)
    recorder.attach()
    torch.manual_seed(1)
    losses = traced.steps(3)
    recorder.detach()
    assert recorder.complete
    assert losses == expected
    for a, b in zip(plain.model.parameters(), traced.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_model_that_fails_falls_back_to_module_order():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.b = nn.Linear(2, 2)
            self.a = nn.Linear(2, 2)

        def forward(self, x):
            raise RuntimeError("no such luck")

    topology = trace(Broken(), torch.ones(1, 2))
    assert [node.name for node in topology.nodes] == ["b", "a"]
    assert topology.edges == ()
    assert any("no such luck" in note for note in topology.notes)


def test_a_model_that_fails_once_is_recorded_at_the_next_try(loop):
    run = loop("mlp")
    recorder = TopologyRecorder(run.model)
    recorder.attach()
    with pytest.raises(RuntimeError):
        run.model(torch.ones(2, 5))
    run.model(run.inputs())
    recorder.detach()
    assert edges(recorder.topology("r")) == EXPECTED["mlp"]


def test_an_evaluation_is_not_recorded(loop):
    run = loop("mlp")
    recorder = TopologyRecorder(run.model)
    recorder.attach()
    with torch.no_grad():
        run.model(run.inputs())
    assert not recorder.complete
    recorder.detach()


def test_unused_layers_come_last_and_are_named():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(2, 2)
            self.used = nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    topology = trace(Half(), torch.ones(1, 2))
    assert [node.name for node in topology.nodes] == ["used", "unused"]
    assert "unused" in topology.notes[0]


def test_a_model_without_parameters():
    topology = trace(nn.Sequential(nn.ReLU(), nn.Tanh()), torch.ones(2, 2))
    assert [node.type for node in topology.nodes] == ["ReLU", "Tanh"]
    assert topology.actions == ()


def test_parametrized_modules_are_one_layer():
    model = nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2)
    )
    topology = trace(model, torch.randn(5, 3))
    assert [node.name for node in topology.nodes] == ["0", "1", "2"]
    assert topology.nodes[0].type == "Linear"
    assert edges(topology) == chain("0", "1", "2")


def test_an_interrupt_leaves_no_recording_behind(loop):
    class Interrupted(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    run = loop("mlp")
    run.model.append(Interrupted())
    recorder = TopologyRecorder(run.model)
    recorder.attach()
    with pytest.raises(KeyboardInterrupt):
        run.model(run.inputs())
    recorder.detach()
    assert not _get_current_dispatch_mode_stack()


def test_inputs_that_cannot_be_recorded_do_not_reach_the_loop():
    class Opaque(torch.Tensor):
        __hash__ = None

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            raise TypeError("not for you")

    class Model(nn.Linear):
        def forward(self, x):
            return super().forward(torch.ones(1, 2))

    model = Model(2, 2)
    recorder = TopologyRecorder(model)
    recorder.attach()
    inputs = torch.ones(1, 2).as_subclass(Opaque)
    assert model(inputs).shape == (1, 2)
    recorder.detach()
    assert not _get_current_dispatch_mode_stack()
    assert recorder.topology("r").nodes[0].type == "Model"
