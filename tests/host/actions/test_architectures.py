"""Structural adaptations of models that nobody here wrote, wherever the host says it can."""

from collections import Counter

import pytest
import torch

from autograd_reference import first_tensor, make
from tamiyo.contracts import AdaptationType
from tamiyo.host import RunSnapshot, TopologyRecorder, TrainingRun
from tamiyo.host.actions import ACTIONS, Context
from zoo import ZOO

pytestmark = pytest.mark.filterwarnings(r"ignore:::(transformers|accelerate|torch)\b")  # not ours

PARAMETERS = {
    "widen": {"units": 3.0, "initialization": "zero_outgoing"},
    "prune": {"units": 1.0, "criterion": "dead"},
    "insert_normalization": {},
    "add_seed": {
        "units": 2.0,
        "training_steps": 1.0,
        "blending_steps": 1.0,
        "holding_steps": 1.0,
        "schedule": "linear",
    },
}
POSSIBLE = {
    "bert": {"widen": 2, "prune": 2, "insert_normalization": 9, "add_seed": 13},
    "llama": {"widen": 0, "prune": 0, "insert_normalization": 10, "add_seed": 15},
    "convnext": {"widen": 4, "prune": 4, "insert_normalization": 8, "add_seed": 14},
    "torch_encoder": {"widen": 2, "prune": 2, "insert_normalization": 0, "add_seed": 0},
    "gru": {"widen": 0, "prune": 0, "insert_normalization": 0, "add_seed": 1},
    "pyg_gcn": {"widen": 0, "prune": 0, "insert_normalization": 0, "add_seed": 0},
    "unet": {"widen": 1, "prune": 1, "insert_normalization": 2, "add_seed": 3},
    "shared": {"widen": 0, "prune": 0, "insert_normalization": 0, "add_seed": 1},
}
"""How many layers each adaptation can be applied to."""
FAST = ("bert", "convnext", "torch_encoder", "unet")


class Run:
    def __init__(self, name):
        self.sample = make(name)
        self.model = self.sample.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3)
        recorder = TopologyRecorder(self.model)
        recorder.attach()
        self.step()
        recorder.detach()
        self.layers = recorder.layers()
        self.context = Context(TrainingRun(self.model, self.optimizer), self.layers)

    def step(self):
        self.optimizer.zero_grad()
        first_tensor(self.sample.run()).float().square().mean().backward()
        self.optimizer.step()

    @torch.no_grad()
    def evaluated(self):
        self.model.eval()
        output = first_tensor(self.sample.run()).clone()
        self.model.train()
        return output

    def adaptations(self):
        for kind, parameters in PARAMETERS.items():
            action = ACTIONS[AdaptationType(kind)]
            for layer_id in range(len(self.layers)):
                if action.applies_to(self.layers, layer_id):
                    yield kind, action, layer_id, parameters


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ZOO]
)
def test_every_possible_adaptation_works_and_is_taken_back(name):
    run = Run(name)
    for kind, action, layer_id, parameters in list(run.adaptations()):
        snapshot, before = RunSnapshot(run.context.run, 0), run.evaluated()
        if kind == "prune":
            activity = torch.ones(len(run.layers.module(layer_id).weight))
            activity[0] = 0
            run.context.activity[layer_id] = activity
        undo = action.apply(run.context, (layer_id,), parameters)
        after = run.evaluated()
        if kind != "prune":
            torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
        run.step()
        undo()
        snapshot.restore()
        assert snapshot.verify(), (kind, run.layers.names[layer_id])


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_is_possible_where(name):
    counts = Counter(kind for kind, *_ in Run(name).adaptations())
    assert {kind: counts[kind] for kind in PARAMETERS} == POSSIBLE[name]
