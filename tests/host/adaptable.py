"""Random small models that can be adapted, and a loop that trains them on a fixed problem."""

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tamiyo.contracts import AdaptationType
from tamiyo.host import RunSnapshot, TopologyRecorder, TrainingRun
from tamiyo.host.actions import ACTIONS, Context, Refusal
from tamiyo.host.readers import unit_count

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.02, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, 2e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, 2e-3, amsgrad=True, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, 2e-3, fused=True),
}


class Block(nn.Module):
    """The MLP block of a transformer, with functional activation and dropout."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x):
        hidden = functional.dropout(functional.gelu(self.up(self.norm(x))), 0.0, self.training)
        return x + self.down(hidden)


def build_mlp(widths, norm, activation):
    layers = []
    for before, after in zip([5, *widths], widths, strict=False):
        layers.append(nn.Linear(before, after))
        if norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(activation())
    return nn.Sequential(*layers, nn.Linear(widths[-1], 3))


def build_cnn(widths, norm, activation):
    layers = []
    for before, after in zip([2, *widths], widths, strict=False):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm2d(after))
        layers.append(activation())
    return nn.Sequential(
        *layers, nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.0), nn.Linear(widths[-1] * 9, 3)
    )


def build_blocks(widths, norm, activation):
    return nn.Sequential(nn.Linear(5, 6), *(Block(6, width) for width in widths), nn.Linear(6, 3))


BUILDERS = {
    "mlp": (build_mlp, (5,)),
    "cnn": (build_cnn, (2, 6, 6)),
    "blocks": (build_blocks, (4, 5)),
}


class Training:
    """A full-batch regression, and the host's view of it."""

    def __init__(self, kind, widths, norm, activation, optimizer, seed):
        build, shape = BUILDERS[kind]
        torch.manual_seed(seed)
        self.recipe = build, (widths, norm, activation), OPTIMIZERS[optimizer]
        self.model, self.optimizer = self.fresh()
        self.inputs = torch.randn(16, *shape)
        with torch.no_grad():
            target = build(widths, False, activation)(self.inputs)
        self.target = target + 0.1 * torch.randn_like(target)
        recorder = TopologyRecorder(self.model)
        recorder.attach()
        self.steps(3)
        recorder.detach()
        self.layers = recorder.layers()
        run = TrainingRun(self.model, self.optimizer)
        self.context = Context(run, self.layers, seed=seed)

    def fresh(self):
        """Model and optimiser as the program builds them, with values of their own."""
        build, sizes, optimizer = self.recipe
        model = build(*sizes)
        return model, optimizer(model.parameters())

    def step(self):
        loss = functional.mse_loss(self.model(self.inputs), self.target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def steps(self, count):
        return [self.step() for _ in range(count)]

    def outputs(self):
        """Outputs in both modes, leaving the running statistics alone."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with torch.no_grad():
            train = self.model(self.inputs)
            evaluated = self.model.eval()(self.inputs)
            self.model.train()
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
        return train, evaluated


trainings = st.builds(
    Training,
    kind=st.sampled_from(sorted(BUILDERS)),
    widths=st.lists(st.integers(2, 7), min_size=1, max_size=3),
    norm=st.booleans(),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.PReLU]),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    seed=st.integers(0, 999),
)


STRUCTURAL = ("widen", "prune", "insert_normalization", "add_seed", "remove_seed")
QUICK = {"training_steps": 1, "blending_steps": 2, "holding_steps": 1}
ADAPTED = {
    "units": [1.0, 2.0, 0.3],
    "initialization": ["zero_outgoing", "net2net"],
    "to": ["relu", "gelu", "tanh"],
}


def legal(training):
    layers = training.layers
    return [
        (kind, layer_id)
        for kind in (*STRUCTURAL, "reinitialize", "change_activation")
        for layer_id in range(len(layers))
        if ACTIONS[AdaptationType(kind)].applies_to(layers, layer_id)
    ]


def chosen_parameters(choose, rules):
    drawn = {name: choose.choice(options) for name, options in ADAPTED.items()}
    defaults = {name: rule.default for name, rule in rules.items()}
    return {name: (drawn | QUICK).get(name, default) for name, default in defaults.items()}


def measure_activity(training):
    """One dead unit in each layer that has units, as a sample could show it."""
    for layer_id in range(len(training.layers)):
        if (units := unit_count(training.layers.module(layer_id))) is not None:
            activity = torch.ones(units)
            activity[0] = 0
            training.context.activity[layer_id] = activity


def adapt(training, choose):
    """Apply a random legal adaptation; undoing it first must leave no trace."""
    kind, layer_id = choose.choice(legal(training))
    action = ACTIONS[AdaptationType(kind)]
    parameters = chosen_parameters(choose, action.rules)
    measure_activity(training)
    snapshot = RunSnapshot(training.context.run, 0)
    try:
        undo = action.apply(training.context, (layer_id,), parameters)
    except Refusal:
        assert snapshot.verify()
        return
    undo()
    assert snapshot.verify(), (kind, layer_id)
    measure_activity(training)
    action.apply(training.context, (layer_id,), parameters)
