import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tamiyo.contracts import Flag
from tamiyo.host import LayerProbe, TopologyRecorder, TrainingRun
from tamiyo.host.budget import TimeBudget
from tamiyo.host.statistics import apply_activation, layer_norms, sample_rows, unit_moments


def probe_of(run, **options):
    recorder = TopologyRecorder(run.model)
    recorder.attach()
    run.step()
    recorder.detach()
    training = TrainingRun(run.model, run.optimizer)
    return LayerProbe(training, recorder.layers(), budget=TimeBudget(1.0), **options)


def sample_of(run, probe, inputs=None):
    probe.arm(7)
    run.step(inputs)
    sample = probe.collect()
    assert not probe.faults.counts
    return sample


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_values_agree_with_a_naive_computation(loop, optimizer):
    """48 rows and at most 16 units: the probe's sample is the whole batch here."""
    run = loop("mlp", optimizer)
    probe = probe_of(run)
    inputs = torch.randn(48, 6)
    before = [p.detach().clone() for p in run.model.parameters()]
    outputs = []
    x = inputs
    for module in run.model:
        x = module(x).detach()
        outputs.append(x)
    sample = sample_of(run, probe, inputs)
    columns = sample.columns
    gradients = [p.grad for p in run.model.parameters()]
    after = [p.detach() for p in run.model.parameters()]
    for layer_id, first in ((0, 0), (2, 2), (4, 4)):
        pair = slice(first, first + 2)
        norm = torch.cat([g.flatten() for g in gradients[pair]]).norm()
        assert columns["gradient_norm"][layer_id] == pytest.approx(float(norm), rel=1e-5)
        weights = torch.cat([p.flatten() for p in after[pair]])
        assert columns["weight_norm"][layer_id] == pytest.approx(float(weights.norm()), rel=1e-5)
        old = torch.cat([p.flatten() for p in before[pair]])
        ratio = float((weights - old).norm() / old.norm())
        assert columns["update_ratio"][layer_id] == pytest.approx(ratio, rel=1e-3)
    for layer_id, output in enumerate(outputs):
        variance = output.var(dim=0).mean()
        assert columns["activation_variance"][layer_id] == pytest.approx(float(variance), rel=1e-4)
        r = np.corrcoef(output.numpy().T.astype(np.float64))
        r = r + r * (1 - r**2) / (2 * (len(inputs) - 3))
        units = len(r)
        expected = np.clip(r[~np.eye(units, dtype=bool)], -1, 1).mean()
        if output.std(dim=0).min() > 0:
            assert columns["avg_correlation"][layer_id] == pytest.approx(expected, abs=1e-4)
    dead = float((outputs[1].abs().amax(dim=0) <= 1e-5).float().mean())
    assert columns["dead_neuron_ratio"][0] == columns["dead_neuron_ratio"][1] == pytest.approx(dead)
    torch.testing.assert_close(probe.activity[0], outputs[1].abs().mean(dim=0))
    assert np.isnan(columns["saturation"][0])
    assert columns["saturation"][2] == 0
    assert np.isnan(columns["gradient_norm"][1])
    assert (columns["execution_latency"] > 0).all()
    assert sample.step == 7


def test_dead_and_saturated_units_are_seen_after_the_activation(loop):
    run = loop("mlp")
    probe = probe_of(run)
    with torch.no_grad():
        run.model[0].bias[:4] = -100
        run.model[2].bias[:2] = 100
    columns = sample_of(run, probe).columns
    assert columns["dead_neuron_ratio"][0] >= 4 / 16
    assert columns["saturation"][2] == pytest.approx(2 / 8)
    assert columns["saturation"][3] == pytest.approx(2 / 8)


def test_units_of_a_convolution_are_followed_through_its_normalisation(loop):
    run = loop("conv")
    probe = probe_of(run)
    with torch.no_grad():
        run.model[1].bias[2] = -100
    columns = sample_of(run, probe).columns
    assert columns["dead_neuron_ratio"][:3].tolist() == [0.25, 0.25, 0.25]
    assert probe.activity[0].shape == (4,)


def test_functional_activations_are_followed_too(loop):
    run = loop("residual")
    probe = probe_of(run)
    with torch.no_grad():
        run.model.up.bias[:] = -100
    by_name = {name: i for i, name in enumerate(probe.layers.names)}
    assert sample_of(run, probe).columns["dead_neuron_ratio"][by_name["up"]] == 1


def test_what_is_not_finite_becomes_a_flag_and_no_number(loop):
    run = loop("mlp")
    probe = probe_of(run)
    with torch.no_grad():
        run.model[2].weight[0, 0] = float("nan")
    sample = sample_of(run, probe)
    columns = sample.columns
    assert columns["flags"][2] & Flag.NONFINITE_ACTIVATION
    assert columns["flags"][2] & Flag.NONFINITE_WEIGHT
    assert columns["flags"][0] & Flag.NONFINITE_GRADIENT
    assert columns["health_score"][2] == 0
    assert columns["error_count"][2] == 1
    for name, column in columns.items():
        assert not np.isinf(column).any(), name
    assert sample.gradient_norm == float("inf")


def test_one_micro_batch_is_recorded_and_evaluations_are_not(loop):
    run = loop("mlp")
    probe = probe_of(run)
    probe.arm(1)
    run.model.eval()
    run.model(torch.full((8, 6), 100.0))
    run.model.train()
    with torch.no_grad():
        run.model(torch.full((8, 6), 100.0))
    first, second = torch.zeros(8, 6), torch.full((8, 6), 100.0)
    for inputs in (first, second):
        run.model(inputs).sum().backward()
    run.optimizer.step()
    assert probe.collect().columns["activation_variance"][0] == pytest.approx(0, abs=1e-9)


def test_a_step_without_forward_or_optimiser_measures_nothing(loop):
    probe = probe_of(loop("mlp"))
    probe.arm(1)
    columns = probe.collect().columns
    for name in ("activation_variance", "dead_neuron_ratio", "gradient_norm", "execution_latency"):
        assert np.isnan(columns[name]).all()
    assert (columns["flags"] == 0).all()
    assert np.isnan(columns["health_score"]).all()


def test_hooks_exist_only_during_the_sampled_step(loop):
    run = loop("conv")
    probe = probe_of(run)
    sample_of(run, probe)
    for module in run.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not run.optimizer._optimizer_step_pre_hooks
    assert not run.optimizer._optimizer_step_post_hooks
    probe.arm(9)
    probe.disarm()
    assert not run.model[0]._forward_hooks


@pytest.mark.parametrize("name", ["mlp", "residual", "conv", "language", "transformer", "shared"])
def test_every_kind_of_model_is_measured_without_changing_it(loop, name):
    twin = loop(name)
    losses = twin.steps(4)
    run = loop(name)
    probe = probe_of(run)
    samples = []
    for loss in losses[1:]:
        probe.arm(1)
        assert torch.equal(run.step(), loss)
        samples.append(probe.collect())
    assert not probe.faults.counts
    for a, b in zip(twin.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for sample in samples:
        trained = np.isfinite(sample.columns["gradient_norm"])
        owning = [bool(probe.layers.parameters(i)) for i in range(len(probe.layers))]
        assert trained.tolist() == owning


def test_gradients_of_a_fused_optimiser_are_unscaled(loop):
    norms = []
    for scale in (None, torch.tensor(4.0)):
        run = loop("mlp")
        run.optimizer = torch.optim.SGD(run.model.parameters(), 0.05, fused=True)
        probe = probe_of(run)
        probe.arm(1)
        run.backward(torch.ones(8, 6))
        run.optimizer.grad_scale = scale
        run.optimizer.found_inf = None if scale is None else torch.tensor(0.0)
        run.optimizer.step()
        norms.append(probe.collect().columns["gradient_norm"][[0, 2, 4]])
    np.testing.assert_allclose(norms[1] * 4, norms[0], rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    batch=st.integers(1, 130),
    second=st.booleans(),
)
def test_rows_come_from_the_output_and_spread_over_the_batch(shape, batch, second):
    output = torch.arange(batch * int(np.prod(shape)), dtype=torch.float64).view(batch, *shape)
    rows = sample_rows(output, channels_second=second)
    units = shape[0] if second else shape[-1]
    assert rows.shape[1] == units
    assert 1 <= rows.shape[0] <= 64
    moved = output.movedim(1, -1) if second else output
    every = {tuple(row) for row in moved.reshape(-1, units).tolist()}
    assert {tuple(row) for row in rows.tolist()} <= every
    size = int(np.prod(shape))
    samples = {int(value) // size for value in rows[:, 0].tolist()}
    assert len(samples) == min(batch, 64)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(5, 64),
    widths=st.lists(st.integers(1, 32), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_moments_agree_with_numpy(rows, widths, seed):
    generator = torch.Generator().manual_seed(seed)
    slices = [torch.randn(rows, width, generator=generator) for width in widths]
    variance, correlation = unit_moments(slices)
    for index, piece in enumerate(slices):
        assert variance[index] == pytest.approx(float(piece.var(dim=0).mean()), rel=1e-4)
        if piece.shape[1] < 2:
            assert torch.isnan(correlation[index])
            continue
        r = np.corrcoef(piece.numpy().T.astype(np.float64))
        r = np.clip(r + r * (1 - r**2) / (2 * (rows - 3)), -1, 1)
        expected = r[~np.eye(len(r), dtype=bool)].mean()
        assert correlation[index] == pytest.approx(expected, abs=1e-4)


def test_the_correction_takes_out_the_bias_of_small_samples():
    generator = torch.Generator().manual_seed(0)
    truth = 0.5
    draws = []
    for _ in range(4000):
        common = torch.randn(8, 1, generator=generator)
        own = torch.randn(8, 2, generator=generator)
        draws.append(common * truth**0.5 + own * (1 - truth) ** 0.5)
    _, correlation = unit_moments(draws)
    raw = torch.stack([torch.corrcoef(draw.T)[0, 1] for draw in draws]).mean()
    assert abs(correlation.mean() - truth) < 0.5 * abs(raw - truth)


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.integers(0, 4), max_size=6), seed=st.integers(0, 99), broken=st.booleans())
def test_norms_by_layer(ids, seed, broken):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(3, 2, generator=generator) for _ in ids]
    if broken and tensors:
        tensors[0][0, 0] = float("inf")
    norms = layer_norms(tensors, ids, 5)
    for layer_id in range(5):
        own = [t.flatten() for t, i in zip(tensors, ids, strict=True) if i == layer_id]
        if not own:
            assert torch.isnan(norms[layer_id])
        else:
            assert norms[layer_id] == pytest.approx(float(torch.cat(own).norm()), rel=1e-5)


@pytest.mark.parametrize("name", ["relu", "gelu", "log_sigmoid", "elu", "softsign", "hardswish"])
def test_activations_by_name(name):
    rows = torch.randn(4, 3)
    module = {"relu": nn.ReLU, "gelu": nn.GELU, "log_sigmoid": nn.LogSigmoid, "elu": nn.ELU,
              "softsign": nn.Softsign, "hardswish": nn.Hardswish}[name]()  # fmt: skip
    assert torch.equal(apply_activation(name, rows), module(rows))


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.001, 0.5), cost=st.floats(1e-4, 0.05), urgent=st.booleans())
def test_the_budget_holds_on_a_simulated_clock(share, cost, urgent):
    now, budget = 0.0, TimeBudget(share, now=0.0)
    for _ in range(4000):
        now += 1e-3
        if budget.allows(urgent=urgent, now=now):
            now += cost
            budget.spend(cost)
    advance = 5 if urgent else 2
    assert budget.spent <= share * now + advance * cost
    assert budget.overhead(now) == pytest.approx(budget.spent / now)


def test_an_interval_is_kept_whatever_it_costs(loop):
    run = loop("mlp")
    probe = probe_of(run, every=4)
    probe.budget.charge(1e9)
    assert [step for step in range(1, 13) if probe.due(step, urgent=step == 3)] == [4, 8, 12]


def test_no_budget_means_no_samples():
    assert not TimeBudget(0.0).allows(urgent=True)


def test_a_call_that_raised_is_measured_anew_and_evaluation_is_not(loop):
    class Fussy(nn.Linear):
        def forward(self, x):
            if len(x) == 1:
                raise RuntimeError("one is not enough")
            return super().forward(x)

    run = loop("mlp")
    run.model[2] = Fussy(16, 8)
    run.optimizer = torch.optim.SGD(run.model.parameters(), 0.1)
    probe = probe_of(run)
    probe.arm(1)
    with pytest.raises(RuntimeError):
        run.model(torch.randn(1, 6))
    stale = probe._step.watches[2]
    run.model.eval()
    with torch.no_grad():
        run.model(torch.full((12, 6), 1e6))
    run.model.train()
    run.step()
    assert probe._step.watches[2] is not stale
    sample = probe.collect()
    assert sample.columns["activation_variance"][2] < 1e3
    assert sample.columns["execution_latency"][2] > 0


def test_a_sample_of_an_output_without_a_batch_is_a_copy():
    output = torch.ones(5)
    rows = sample_rows(output, channels_second=False)
    output.zero_()
    assert rows.tolist() == [[1.0] * 5]


def test_an_overflow_that_loss_scaling_looks_for_is_no_fault(loop):
    run = loop("mlp")
    run.optimizer = torch.optim.AdamW(run.model.parameters(), 1e-2, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    probe = probe_of(run)

    def step(factor):
        probe.arm(1)
        run.optimizer.zero_grad()
        scaler.scale(run.model(run.inputs()).square().mean() * factor).backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in run.model.parameters()])
        scaler.step(run.optimizer)
        scaler.update()
        return probe.collect(), float(norm)

    sample, norm = step(1.0)
    assert sample.gradient_norm == pytest.approx(norm / 2.0**10, rel=1e-5)
    sample, _ = step(float("inf"))
    assert np.isnan(sample.gradient_norm)
    assert not sample.columns["error_count"].any()
