"""Every optimiser of torch is either carried along by a structural change or refused cleanly."""

import pytest
import torch
from torch import nn

from adaptable import Training
from tamiyo.contracts import AdaptationType
from tamiyo.host import RunSnapshot, TrainingRun
from tamiyo.host.actions import ACTIONS, Context, Refusal

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, nesterov=True),
    "sgd, dampened, decayed": lambda p: torch.optim.SGD(
        p, 0.01, momentum=0.9, dampening=0.1, weight_decay=1e-3
    ),
    "sgd, fused": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "adam, amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "adam, foreach": lambda p: torch.optim.Adam(p, 1e-3, foreach=True),
    "adam, fused": lambda p: torch.optim.Adam(p, 1e-3, fused=True),
    "adam, differing rates": lambda p: torch.optim.Adam(
        [{"params": [q], "lr": 1e-3 * i} for i, q in enumerate(p, 1)]
    ),
    "adamw, rate in a tensor": lambda p: torch.optim.AdamW(p, torch.tensor(1e-3)),
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adamax": torch.optim.Adamax,
    "asgd": torch.optim.ASGD,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, 1e-3),
    "adafactor": lambda p: torch.optim.Adafactor(p, 1e-3),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=2),
}
CHANGES = {
    "widen": {"units": 2.0},
    "insert_normalization": {},
    "add_seed": {"units": 2.0, "training_steps": 1.0, "blending_steps": 2.0, "holding_steps": 1.0},
}


class WithClosure(Training):
    def step(self):
        def closure():
            self.optimizer.zero_grad()
            loss = nn.functional.mse_loss(self.model(self.inputs), self.target)
            loss.backward()
            return loss

        return self.optimizer.step(closure).item()


def make(name):
    kind = WithClosure if name == "lbfgs" else Training
    training = kind("mlp", [4, 5], False, nn.Tanh, "sgd", 0)
    training.optimizer = OPTIMIZERS[name](list(training.model.parameters()))
    training.steps(2)
    training.context = Context(TrainingRun(training.model, training.optimizer), training.layers)
    return training


def apply(training, kind, layer):
    action = ACTIONS[AdaptationType(kind)]
    rules = action.rules.items()
    complete = {name: rule.check(name, CHANGES[kind].get(name)) for name, rule in rules}
    return action.apply(training.context, (layer,), complete)


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_follows_or_the_change_is_refused_without_a_trace(name, kind):
    training = make(name)
    snapshot = RunSnapshot(training.context.run, 0)
    try:
        undo = apply(training, kind, 0)
    except Refusal:
        assert name in ("lbfgs", "adafactor")
        assert snapshot.verify()
    else:
        undo()
        assert snapshot.verify()
        apply(training, kind, 0)
        trained = [id(p) for group in training.optimizer.param_groups for p in group["params"]]
        assert trained == [id(p) for p in training.model.parameters()] or "rates" in name
        assert sorted(trained) == sorted(id(p) for p in training.model.parameters())
    before = [p.detach().clone() for p in training.model.parameters()]
    assert all(map(torch.isfinite, map(torch.tensor, training.steps(6))))
    after = list(training.model.parameters())
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=False))
    held = set(training.optimizer.state)
    assert held <= set(after)


def test_layers_of_another_optimiser_are_left_alone():
    training = make("adam")
    first, *others = training.model.parameters()
    training.optimizer = torch.optim.Adam(others[3:], 1e-3)
    second = torch.optim.Adam([first, *others[:3]], 1e-3)
    training.context = Context(TrainingRun(training.model, training.optimizer), training.layers)
    snapshot = RunSnapshot(training.context.run, 0)
    for kind in CHANGES:
        with pytest.raises(Refusal, match="optimiser"):
            apply(training, kind, 0)
    assert snapshot.verify()
    apply(training, "add_seed", 4)
    training.steps(3)
    second.step()
