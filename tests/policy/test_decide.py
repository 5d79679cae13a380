"""From the network's outputs to a decision or a reason."""

import dataclasses

import pytest
import torch

from tamiyo.contracts import AdaptationType
from tamiyo.graph import _pyg
from tamiyo.policy import DecisionPolicy, EnhancedTamiyoPolicyGNN
from tamiyo.policy.calibration import Calibration, calibrated
from tamiyo.policy.judgement import thresholds

CERTAIN = {"adapt": 8.0, "safety": 8.0}


@pytest.fixture
def load(make_network, tmp_path):
    """A network that came from a checkpoint, its graph heads biased to the given logits."""

    def make(biases=CERTAIN, calibration=None, **settings):
        network = make_network(**settings)
        with torch.no_grad():
            for name, bias in biases.items():
                network.heads.head(name).last.weight.zero_()
                network.heads.head(name).last.bias.fill_(bias)
            network.heads.head("target").last.weight.mul_(0.1)
            network.heads.head("adaptation").last.weight.mul_(0.1)
        network.calibration = calibration or Calibration()
        network.save_pretrained(tmp_path / "policy", {"command": "test", "seed": 0})
        return EnhancedTamiyoPolicyGNN.from_pretrained(tmp_path / "policy")

    return make


@pytest.fixture
def state(make_topology, make_state, random_readings):
    return make_state(make_topology(5), random_readings(5))


def test_it_is_a_decision_policy(load):
    assert isinstance(load(), DecisionPolicy)


def test_a_network_that_was_never_trained_declines(make_network, state):
    verdict = make_network().decide(state)
    assert verdict.decision is None
    assert "untrained" in verdict.reason
    assert make_network().version == "untrained"


def test_all_checks_passed_make_a_decision(load, state):
    policy = load()
    verdict = policy.decide(state)
    decision = verdict.decision
    assert decision is not None
    assert all(check.passed for check in verdict.checks)
    assert [check.name for check in verdict.checks] == [
        "confidence",
        "safety",
        "uncertainty",
        "budget",
        "cooldown",
    ]
    assert (decision.run, decision.issued_at_step, decision.expires_at_step) == ("run", 10, 110)
    assert (decision.policy, decision.policy_version) == ("gnn", policy.version)
    assert decision.confidence > 0.75
    assert decision.safety == pytest.approx(verdict.outputs["safety"])
    assert decision.log_prob < 0
    assert decision.value == pytest.approx(verdict.outputs["value_estimate"])


def test_the_action_is_legal_for_its_target(load, state, make_topology):
    topology = make_topology(5)
    for seed in range(8):
        decision = load(seed=seed).make_decision(state)
        if decision.target:
            assert decision.adaptation in topology.nodes[decision.target[0]].actions
        else:
            assert decision.adaptation in topology.actions
            assert decision.adaptation is not AdaptationType.RESTORE


def test_the_same_weights_and_state_give_the_same_decision(load, state):
    policy, twin = load(), load()
    first = policy.make_decision(state)
    assert policy.make_decision(state) == first == twin.make_decision(state)
    assert policy.budget.spent("run", 10, 0) == 1


@pytest.mark.parametrize(
    ("biases", "name"),
    [
        ({"adapt": 0.0, "safety": 8.0}, "confidence"),
        ({"adapt": 8.0, "safety": 1.0}, "safety"),
    ],
)
def test_a_threshold_that_is_missed_is_the_reason(load, state, biases, name):
    verdict = load(biases).decide(state)
    assert verdict.decision is None
    assert verdict.reason.startswith(name)
    assert {"target", "adaptation", "target_probability"} <= verdict.outputs.keys()
    assert {check.name for check in verdict.checks if not check.passed} == {name}
    assert verdict.outputs["adaptation_prob"] == pytest.approx(
        float(torch.sigmoid(torch.tensor(biases["adapt"])))
    )


def test_uncertainty_can_stop_a_decision_and_can_be_switched_off(load, state):
    unsure = {"uncertainty_threshold": 0.0, "attention_dropout": 0.5}
    verdict = load(**unsure).decide(state)
    assert verdict.decision is None
    assert verdict.reason.startswith("uncertainty")
    assert load(**unsure, enable_uncertainty=False).make_decision(state) is not None


def test_thresholds_act_on_the_calibrated_scale(load, state):
    biases = {"adapt": 2.0, "safety": 8.0}
    assert load(biases).make_decision(state) is not None
    assert load(biases, Calibration(adapt_temperature=4.0)).make_decision(state) is None
    assert load(CERTAIN, Calibration(safety_temperature=8.0)).make_decision(state) is None


@pytest.mark.parametrize("uncertain", [True, False])
def test_a_batch_passes_the_same_thresholds_as_its_graphs(
    load, make_topology, make_state, random_readings, uncertain
):
    """Batched evaluation and live decisions share their arithmetic."""
    calibration = Calibration(1.3, 0.7)
    policy = load({}, calibration, enable_uncertainty=uncertain, attention_dropout=0.4)
    with torch.no_grad():
        for name in ("adapt", "safety"):
            policy.heads.head(name).last.bias.fill_(1.5)
    states = [
        make_state(make_topology(layers), random_readings(layers, seed))
        for seed, layers in enumerate((3, 5, 7, 5, 3, 5))
    ]
    batch = _pyg.Batch.from_data_list([state.graph_data for state in states])
    with torch.no_grad():
        outputs = policy(batch, uncertainty=uncertain)
    together = thresholds(outputs, policy.config, calibration)
    assert [one.name for one in together] == ["confidence", "safety", "uncertainty"][
        : 2 + uncertain
    ]
    for index, state in enumerate(states):
        checks = policy.decide(state).checks[: len(together)]
        for check, one in zip(checks, together, strict=True):
            assert check.value == pytest.approx(float(one.value[index]), abs=1e-5)
            assert check.passed == bool(one.passed[index])
            assert check.limit == one.limit
    values = calibrated(outputs, calibration)
    assert torch.equal(values.confidence, together[0].value)
    assert len({check.passed for state in states for check in policy.decide(state).checks}) == 2


def test_values_that_are_not_finite_pass_no_threshold(load, state):
    policy = load()
    with torch.no_grad():
        outputs = policy(state.graph_data, uncertainty=True)
    broken = {
        name: torch.full_like(outputs[name], torch.nan)
        for name in ("epistemic_confidence", "safety_score", "uncertainty")
    }
    for one in thresholds(outputs | broken, policy.config, policy.calibration):
        assert not bool(one.passed), one.name


def test_budget_and_cooldown(load, make_topology, make_state, random_readings):
    policy, topology = load(), make_topology(5)

    def decide(step):
        return policy.decide(make_state(topology, random_readings(5), step=step))

    assert decide(10).decision is not None
    assert decide(60).reason.startswith("cooldown")
    assert decide(110).decision is not None
    assert decide(250).reason.startswith("budget")
    assert decide(1050).decision is not None


def test_without_topology_there_is_nothing_to_decide(load, make_state):
    verdict = load().decide(make_state(None, {0: {}}))
    assert verdict.decision is None
    assert "topology" in verdict.reason


def test_without_legal_actions_there_is_nothing_to_decide(load, make_state, make_topology):
    topology = make_topology(3, model_actions=())
    nodes = tuple(node.model_copy(update={"actions": ()}) for node in topology.nodes)
    verdict = load().decide(make_state(topology.model_copy(update={"nodes": nodes})))
    assert (verdict.decision, verdict.reason) == (None, "no legal action")


@pytest.mark.parametrize("head", ["adapt", "target", "adaptation", "value", "temporal", "risk"])
def test_outputs_that_are_not_finite_decide_nothing(load, state, head):
    policy = load()
    with torch.no_grad():
        policy.heads.head(head).last.bias.fill_(float("nan"))
    verdict = policy.decide(state)
    assert verdict.decision is None
    assert "not finite" in verdict.reason


def test_a_graph_of_another_schema_is_refused(load, state):
    with pytest.raises(ValueError, match="schema version 99"):
        load().decide(dataclasses.replace(state, schema_version=99))
