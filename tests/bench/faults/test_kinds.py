"""Every fault does what its name says, knows where it is, and changes nothing else."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from tamiyo.bench.faults import FAULTS, Cell, Place, all_cells
from tamiyo.bench.faults.architectures import weighted_layers
from tamiyo.bench.faults.fault import hidden_layers
from tamiyo.host.actions import ACTIONS

MLP, DIGITS = "mlp_64_64", "digits"


def recipes(fault, architecture=MLP, data=DIGITS):
    cell = Cell(fault, architecture, data)
    return cell.recipe(), cell.healthy.recipe()


def model_of(recipe, seed=0):
    torch.manual_seed(seed)
    return recipe.make_model()


def told_of(fault, architecture=MLP, data=DIGITS):
    cell = Cell(fault, architecture, data)
    recipe = cell.recipe()
    return cell.kind_of_fault.told(recipe, model_of(recipe)), recipe


@pytest.mark.parametrize(
    ("fault", "rate"), [("F1:rate × 10", 0.3), ("F1:rate 3", 3.0), ("F2:rate × 1e-3", 3e-5)]
)
def test_rates(fault, rate):
    faulty, _ = recipes(fault)
    optimizer = faulty.make_optimizer(model_of(faulty))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_optimisers():
    def made(fault, architecture=MLP):
        faulty, _ = recipes(fault, architecture)
        return faulty, faulty.make_optimizer(model_of(faulty))

    assert isinstance(made("F11:Adam at the rate of SGD")[1], torch.optim.Adam)
    slow = made("F11:SGD at the rate of Adam", "mlp_20")[1]
    assert isinstance(slow, torch.optim.SGD)
    assert (slow.defaults["lr"], slow.defaults["momentum"]) == (3e-3, 0.0)
    assert made("F11:momentum .999")[1].defaults["momentum"] == 0.999
    single, _ = made("F11:batch of 1")
    assert len(next(single.batches(0))[1]) == 1


@pytest.mark.parametrize(("fault", "kind"), [("F3:sigmoid", nn.Sigmoid), ("F3:tanh", nn.Tanh)])
def test_saturating_stacks(fault, kind):
    faulty, healthy = recipes(fault, "mlp_20")
    stack, clean = model_of(faulty), model_of(healthy)
    assert sum(isinstance(module, kind) for module in stack.modules()) == 20
    assert not any(isinstance(module, nn.ReLU) for module in stack.modules())
    same = all(map(torch.equal, stack.parameters(), clean.parameters()))
    assert same == (kind is nn.Sigmoid)
    if kind is nn.Tanh:
        # Uniform within one over the root of the number of inputs.
        assert stack.hidden5.weight.abs().max() <= 1 / math.sqrt(32)


@pytest.mark.parametrize(
    ("fault", "low", "total"),
    [("F6:relu", 0, None), ("F6:sigmoid", 0, None), ("F6:softmax", 0, 1)],
)
def test_outputs_are_squashed(fault, low, total):
    faulty, _ = recipes(fault)
    outputs = model_of(faulty)(torch.randn(8, 64))
    assert outputs.min() >= low
    if total is not None:
        assert torch.allclose(outputs.sum(1), torch.full((8,), float(total)))


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("F4:std × 20", lambda weight, _bias: (20 * weight, torch.zeros_like(_bias))),
        ("F5:bias -3", lambda weight, bias: (weight, torch.full_like(bias, -3))),
        ("F9:one layer 0", lambda weight, bias: (0 * weight, torch.zeros_like(bias))),
    ],
)
def test_first_weights_of_one_layer(fault, change):
    faulty, healthy = recipes(fault)
    spoiled, clean = model_of(faulty), model_of(healthy)
    told, _ = told_of(fault)
    assert told.culprits == ("hidden2",)
    for name in weighted_layers(clean):
        now, before = (model.get_submodule(name) for model in (spoiled, clean))
        expected = (before.weight, before.bias)
        if name in told.culprits:
            expected = change(*expected)
        assert torch.equal(now.weight, expected[0])
        assert torch.equal(now.bias, expected[1])


def test_units_that_never_open():
    faulty, _ = recipes("F5:bias -10", "mlp_10x5", "circles")
    model = model_of(faulty)
    place = [name for name, _ in model.named_children()].index("hidden6")
    assert not model[: place + 2](faulty.data.train[0]).any()


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_weights_make_all_units_alike(value):
    faulty, _ = recipes(f"F9:all {value:g}")
    model = model_of(faulty)
    for name in hidden_layers(model):
        assert (model.get_submodule(name).weight == value).all()
    hidden = model[:2](faulty.data.train[0])
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))


def test_inputs_that_are_not_normalised():
    large, healthy = recipes("F8:× 100")
    shifted, _ = recipes("F8:+ 50")
    for which in ("train", "held_out"):
        inputs, labels = getattr(healthy.data, which)
        assert torch.equal(getattr(large.data, which)[0], 100 * inputs)
        assert torch.equal(getattr(shifted.data, which)[0], inputs + 50)
        assert torch.equal(getattr(large.data, which)[1], labels)


def test_label_noise_is_of_the_share_that_it_says():
    faulty, healthy = recipes("F10:40 % noise")
    labels, right = faulty.data.train[1], healthy.data.train[1]
    wrong = (labels != right).float().mean().item()
    assert wrong == pytest.approx(0.4, abs=4 * math.sqrt(0.24 / len(labels)))
    assert set(labels.tolist()) == set(right.tolist())
    assert torch.equal(faulty.data.train[0], healthy.data.train[0])
    assert all(map(torch.equal, faulty.data.held_out, healthy.data.held_out))
    assert torch.equal(recipes("F10:40 % noise")[0].data.train[1], labels)


def test_imbalance_is_of_the_share_that_it_says():
    faulty, healthy = recipes("F10:95:5")
    inputs, labels = faulty.data.train
    assert len(labels) == len(healthy.data.train[1])
    assert (labels == 0).float().mean().item() == pytest.approx(0.95, abs=1 / len(labels))
    known = {(tuple(x.tolist()), int(y)) for x, y in zip(*healthy.data.train, strict=True)}
    assert {(tuple(x.tolist()), int(y)) for x, y in zip(inputs, labels, strict=True)} <= known
    assert all(map(torch.equal, faulty.data.held_out, healthy.data.held_out))


def test_wrong_losses_do_not_measure_what_is_asked_for():
    labels = torch.arange(10)
    silent = torch.zeros(10, 10)
    absolute, _ = recipes("F7:absolute error")
    told = functional.one_hot(labels, 10).float()
    # Silence is nearly as good as the truth: nine outputs of ten should be 0.
    assert float(absolute.loss(silent, labels)) == pytest.approx(0.1)
    assert absolute.loss(told, labels) == 0
    regression, _ = recipes("F7:regression")
    perfect = labels[:, None].expand(10, 10).float()
    assert regression.loss(perfect, labels) == 0
    assert len(set(perfect.argmax(1).tolist())) == 1


def test_capacity():
    bottleneck, _ = recipes("F13:bottleneck")
    narrow, _ = recipes("F13:width / 4")
    assert bottleneck.network.widths == (64, 2)
    assert narrow.network.widths == (16, 16)
    assert told_of("F13:bottleneck")[0].culprits == ("hidden2",)
    assert told_of("F13:bottleneck", "residual_mlp")[0].culprits == ("block2.first",)
    assert told_of("F13:bottleneck", "lenet")[0].culprits == ("conv2",)


def test_treating_the_activation_behind_a_layer_is_treating_the_layer():
    assert told_of("F5:bias -10")[0].places == ("hidden2", "act2")
    assert told_of("F6:relu")[0].places == ("output", "output_act")
    assert told_of("F13:bottleneck", "residual_mlp")[0].places == ("block2.first", "block2.act")
    assert told_of("F9:one layer 0", "lenet")[0].places == ("conv2", "act2")
    assert told_of("F1:rate 3")[0].places == ()


def test_what_strikes_in_mid_run():
    for name, fault in FAULTS.items():
        if fault.kind == "F12":
            told, recipe = told_of(name)
            assert told.onset == recipe.strike.step == round(0.4 * recipe.steps)
    inputs = torch.randn(4, 64)
    assert recipes("F12:NaN batch")[0].strike.batch(inputs).isnan().all()
    assert torch.equal(recipes("F12:shifted inputs")[0].strike.inputs(inputs), inputs + 3)
    assert recipes("F12:gradient × 1000")[0].strike.gradient_factor == 1000
    faulty, _ = recipes("F12:rate × 100")
    model = model_of(faulty)
    optimizer = faulty.make_optimizer(model)
    faulty.strike.change(model, optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(3.0)
    recipes("F12:half the units 0")[0].strike.change(model, optimizer)
    assert (model.hidden2.weight.abs().sum(1) == 0).sum() == 32
    assert (model.hidden1.weight.abs().sum(1) == 0).sum() == 0


def test_every_fault_is_registered_and_says_no_more_than_it_knows():
    assert {fault.kind for fault in FAULTS.values()} == {f"F{n}" for n in range(1, 14)}
    cells = {}
    for cell in all_cells():
        cells.setdefault(cell.fault, cell)
    for name, fault in FAULTS.items():
        recipe = cells[name].recipe()
        told = fault.told(recipe, model_of(recipe))
        for cure in (*told.cures, *(after for one in told.cures for after in one.then)):
            rules = ACTIONS[cure.adaptation].rules
            for key, value in cure.parameters.items():
                rules[key].check(key, value)
            assert told.culprits or cure.place is not Place.CULPRITS
    assert not any(FAULTS[name].cures for name in FAULTS if FAULTS[name].kind in {"F7", "F10"})


def test_a_fault_is_refused_where_it_cannot_be():
    with pytest.raises(ValueError, match="cannot have F3:tanh"):
        Cell("F3:tanh", MLP, DIGITS)
    with pytest.raises(ValueError, match="cannot take circles"):
        Cell("F0", "lenet", "circles")
    with pytest.raises(ValueError, match="unknown fault"):
        Cell("F99:rust", MLP, DIGITS)
