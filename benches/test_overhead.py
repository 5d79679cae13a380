"""What attaching costs a run: the host's own clock, and the same training with and without it.

Blocks of steps with and without Tamiyo alternate in one process; the quotient of each pair is
one sample. Nothing is asserted: on a busy machine the interval says how much to believe.
"""

import time

import numpy as np
import pytest
import torch
from torch import nn

import tamiyo
from tamiyo.envs import digits_mlp

PAIRS = 8
STEPS = 500


def block(task, seed, *, attached):
    """Seconds of a training block, and what the host counted."""
    torch.manual_seed(seed)
    model = task.make_model()
    optimizer = task.make_optimizer(model)
    batches = task.batches(seed)
    control = tamiyo.attach(model, optimizer) if attached else None
    started = time.perf_counter()
    for _ in range(STEPS):
        inputs, labels = next(batches)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        if control is not None:
            control.step(loss=loss)
    seconds = time.perf_counter() - started
    stats = control.stats()["host"] if control is not None else {}
    if control is not None:
        control.remove()
    return seconds, stats


@pytest.mark.parametrize("width", [64, 256])
def test_attached_against_alone(capsys, width):
    task = digits_mlp(STEPS, width=width)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    block(task, 0, attached=True)  # imports and caches
    quotients, own, probe, alone = [], [], [], []
    for seed in range(PAIRS):
        # Which of the two comes first alternates, so that a drift of the machine cancels out.
        runs = {
            attached: block(task, seed, attached=attached) for attached in (seed % 2, 1 - seed % 2)
        }
        quotients.append(runs[1][0] / runs[0][0])
        alone.append(runs[0][0] / STEPS)
        own.append(runs[1][1]["overhead"])
        probe.append(runs[1][1]["probe_overhead"])
    torch.set_num_threads(before)
    low, middle, high = np.quantile(quotients, [0.1, 0.5, 0.9])
    with capsys.disabled():
        print(
            f"\nMLP of width {width}, {1e3 * np.median(alone):.2f} ms a step: own clock "
            f"{np.median(own):.1%}, of which probing {np.median(probe):.1%}; "
            f"end to end × {middle:.3f} (80 % of pairs within {low:.3f} … {high:.3f})"
        )
