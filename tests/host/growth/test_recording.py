"""A recording takes what a pass shows at a site, and nothing that is computed changes."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from growing import BUILDERS, Growing
from tamiyo.host.growth import recording as module
from tamiyo.host.growth.recording import GradientRecording


@pytest.mark.parametrize("name", BUILDERS)
def test_it_sees_the_layers_input_and_the_readers_gradients(name):
    growing = Growing(name)
    seen, gradients = [], []
    growing.site.layer.register_forward_hook(lambda _module, args, _output: seen.append(args[0]))
    for outlet in growing.site.outlets:
        outlet.reader.register_full_backward_hook(
            lambda _module, _inputs, outputs: gradients.append(outputs[0])
        )
    (found,), norm = growing.recorded()
    assert torch.equal(found.inputs, seen[0])
    by_shape = {gradient.shape: gradient for gradient in gradients}
    for gradient in found.gradients:
        torch.testing.assert_close(gradient * norm, by_shape[gradient.shape])


def test_training_is_bit_for_bit_as_without_it():
    growing = Growing("convolution")
    plain = copy.deepcopy(growing.model)
    growing.loss(plain).backward()
    growing.recorded()
    for parameter, other in zip(growing.model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad)
    assert not any(m._forward_hooks for m in growing.model.modules())


def test_every_micro_batch_is_a_pass_of_its_own():
    growing = Growing()
    with GradientRecording(growing.site) as recording:
        losses = [growing.loss(), 3 * growing.loss()]
        assert recording.count == 0
        for loss in reversed(losses):
            loss.backward()
        assert recording.count == 2
    (found,) = recording.passes()
    assert torch.equal(found.inputs, torch.cat([growing.inputs] * 2))
    first, second = found.gradients[0].chunk(2)
    torch.testing.assert_close(second, 3 * first)
    torch.testing.assert_close(found.gradients[0].norm(), torch.ones(()).double())


def test_passes_of_other_shapes_stay_apart():
    growing = Growing("convolution")
    with GradientRecording(growing.site) as recording:
        for inputs in (growing.inputs, growing.inputs[:2], growing.inputs[..., :4]):
            growing.model(inputs).square().mean().backward()
    assert [len(found.inputs) for found in recording.passes()] == [6, 4]


def test_only_training_steps_count():
    growing = Growing()
    with GradientRecording(growing.site) as recording:
        with torch.no_grad():
            growing.model(growing.inputs)
        growing.model.eval()
        growing.loss().backward()
        growing.model.train()
        growing.loss()
    assert recording.count == 0
    assert recording.passes() == []
    growing.loss().backward()
    assert recording.count == 0


def test_a_pass_that_does_not_count_leaves_the_one_before_alone():
    growing = Growing()
    with GradientRecording(growing.site) as recording:
        growing.loss()
        growing.model.eval()
        growing.loss().backward()
    assert recording.count == 0


def test_values_that_are_not_finite_do_not_count():
    growing = Growing()
    with GradientRecording(growing.site) as recording:
        (growing.loss() * torch.inf).backward()
        growing.loss().backward()
    assert recording.count == 2
    (found,) = recording.passes()
    assert torch.isfinite(found.gradients[0]).all()


def test_gradients_of_zero_are_no_gradients():
    growing = Growing()
    with GradientRecording(growing.site) as recording:
        (growing.loss() * 0).backward()
    assert recording.passes() == []


@pytest.mark.parametrize(("name", "rows"), [("linear", 3), ("tokens", 7), ("convolution", 119)])
def test_of_large_batches_the_same_samples_are_kept_everywhere(name, rows):
    growing = Growing(name)
    with GradientRecording(growing.site, rows) as recording:
        output = growing.model(growing.inputs)
        output.retain_grad()
        output.sub(growing.target).square().mean().backward()
    (found,) = recording.passes()
    kept = [0, 2, 4] if len(growing.inputs) == 6 else [0, 1, 2]
    assert torch.equal(found.inputs, growing.inputs[kept])
    expected = output.grad[kept]
    torch.testing.assert_close(found.gradients[0], expected / expected.norm())


def test_one_sample_is_kept_however_large():
    growing = Growing("convolution")
    with GradientRecording(growing.site, 1) as recording:
        growing.loss().backward()
    (found,) = recording.passes()
    assert len(found.inputs) == 1


def test_passes_are_not_piled_up_without_end(monkeypatch):
    monkeypatch.setattr(module, "MOST_PASSES", 2)
    growing = Growing()
    with GradientRecording(growing.site) as recording:
        for _ in range(4):
            growing.loss().backward()
    assert recording.count == 2


def test_a_sample_without_a_batch_is_not_taken_for_one():
    growing = Growing("convolution")
    growing.inputs = growing.inputs[0]
    growing.target = growing.target[0]
    with GradientRecording(growing.site) as recording:
        growing.loss().backward()
    assert recording.count == 0


def test_recomputed_passes_are_recorded_once():
    growing = Growing()
    with GradientRecording(growing.site) as recording:
        inputs = growing.inputs.clone().requires_grad_()
        output = checkpoint(growing.model, inputs, use_reentrant=True)
        (output - growing.target).square().mean().backward()
    (found,) = recording.passes()
    (expected,), _ = growing.recorded()
    torch.testing.assert_close(found.gradients[0], expected.gradients[0])


def test_an_output_that_is_changed_in_place_shows_the_gradient_from_before():
    growing = Growing()
    model = nn.Sequential(*growing.model, nn.ReLU(inplace=True))
    with GradientRecording(growing.site) as recording:
        growing.loss(model).backward()
    (found,) = recording.passes()
    closed = growing.model(growing.inputs) <= 0
    assert closed.any()
    assert not found.gradients[0][closed].any()


def test_half_precision_is_noticed_and_recorded_in_single():
    growing = Growing()
    assert not GradientRecording(growing.site).half
    with GradientRecording(growing.site) as recording:
        growing.model.float()
        with torch.autocast("cpu", torch.float16):
            output = growing.model(growing.inputs.float())
        output.float().square().mean().backward()
    assert recording.half
    (found,) = recording.passes()
    assert found.gradients[0].dtype is torch.float32
