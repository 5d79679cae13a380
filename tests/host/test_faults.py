"""Hooks belong to the live model: copies, pickles and compiled graphs of it are free of them."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from tamiyo.host import HostSession
from tamiyo.host.faults import Faults


def hooks(model):
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


@pytest.fixture(params=["tracing", "probing"])
def hooked(request, loop, client):
    """A run whose model carries the hooks of the recorder, or those of a sampled step."""
    run = loop("mlp", "adamw")
    run.session = HostSession(run.model, run.optimizer, client, run="run", probe_budget=1.0)
    if request.param == "probing":
        run.steps(1)
        while not hooks(run.model):
            run.step()
    return run


def test_a_copy_made_in_the_middle_is_not_measured(hooked):
    average = copy.deepcopy(hooked.model)
    average.train()
    assert hooks(average)
    average(torch.randn(32, 6) * 1e6).sum().backward()
    hooked.step()
    while hooked.session._last_sample is None:
        hooked.step()
    assert hooked.session.stats().errors == {}
    assert hooked.session._last_sample.columns["activation_variance"].max() < 1e3


def test_a_model_saved_in_the_middle_loads_without_tamiyo(hooked, tmp_path):
    torch.save(hooked.model, tmp_path / "model.pt")
    expected = hooked.model.eval()(torch.ones(2, 6))
    torch.save(expected, tmp_path / "expected.pt")
    script = (
        "import sys, torch\n"
        "model = torch.load(sys.argv[1] + '/model.pt', weights_only=False).eval()\n"
        "assert torch.equal(model(torch.ones(2, 6)), torch.load(sys.argv[1] + '/expected.pt'))\n"
        "assert not any(name.startswith('tamiyo') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_a_model_compiled_after_attaching_trains_on_undisturbed(loop, client):
    plain = loop("mlp")
    plain.model = torch.compile(plain.model, backend="eager")
    expected = plain.steps(6)
    run = loop("mlp")
    session = HostSession(run.model, run.optimizer, client, run="run", probe_budget=1.0)
    run.model, run.session = torch.compile(run.model, backend="eager", fullgraph=True), session
    assert run.steps(6) == expected
    assert session.stats().errors == {}


def test_a_failing_hook_is_counted_and_stays_off():
    faults = Faults()
    calls = []

    def broken(*args):
        calls.append(args)
        raise ValueError("broken")

    hook = faults.shield("part", broken)
    hook(1, 2)
    hook(1, 2)
    assert calls == [(1, 2)]
    assert faults.counts == {"part": 1}
    assert pickle.loads(pickle.dumps(hook))(1, 2) is None  # noqa: S301 - made on this line
