"""Who decides, on what grounds, and what the other one remembers of it."""

import dataclasses
import json

import pytest
import torch
from torch import nn

import tamiyo
from tamiyo.contracts import AdaptationType, Outcome
from tamiyo.graph import ACTIONS
from tamiyo.policy import (
    DecisionPolicy,
    EnhancedTamiyoPolicyGNN,
    FallbackPolicy,
    PolicyConfig,
    RulesPolicy,
    checkpoint,
    learned_policy,
    shipped,
)
from tamiyo.service import read_journal

LAYERS = 7
TRAINING = {"command": "test", "seed": 0, "layer_types": ["linear", "relu"]}
DEAD = {"dead_neuron_ratio": 1.0}
HEALTHY = {"health_score": 0.9, "dead_neuron_ratio": 0.4, "gradient_norm": 0.5}
EAGER = {"adapt": 8.0, "safety": 8.0}
IDLE = {"adapt": -2.0, "safety": 8.0}
SURE = {"adapt": -8.0, "safety": 8.0}


@pytest.fixture
def topology(make_topology):
    return make_topology(LAYERS)


@pytest.fixture
def see(topology, make_state, make_report):
    """A state at a step, with one layer dead where asked."""

    def make(step, sick=None, topology=topology, loss=1.0, **report):
        readings = {
            layer: HEALTHY | {"gradient_norm": 0.5 + 0.01 * layer} for layer in range(LAYERS)
        }
        if sick is not None:
            readings[sick] = readings[sick] | DEAD
        reports = [make_report(step, loss, loss_level=1.0, snapshot_step=0, **report)]
        return make_state(topology, readings, step=step, metrics=reports)

    return make


@pytest.fixture
def save(make_network, see, tmp_path):
    """A checkpoint of a network that leans the given ways, fitted to the states of `see`."""

    def make(biases=EAGER, training=TRAINING, **settings):
        network = make_network(**{"confirmation_steps": 0} | settings)
        with torch.no_grad():
            for name, bias in biases.items():
                network.heads.head(name).last.weight.zero_()
                network.heads.head(name).last.bias.fill_(bias)
            for name in ("target", "adaptation"):
                network.heads.head(name).last.weight.mul_(0.1)
        states = [see(step, sick).graph_data for step, sick in ((10, None), (20, 3), (30, 5))]
        columns = {
            name: torch.cat([state[name] for state in states])
            for name in ("x", "x_measured", "global_features", "global_measured")
        }
        network.trunk.node_norm.fit(columns["x"], columns["x_measured"])
        network.trunk.global_norm.fit(columns["global_features"], columns["global_measured"])
        network.save_pretrained(tmp_path / "policy", training)
        return tmp_path / "policy"

    return make


@pytest.fixture
def load(save):
    def make(*args, **settings):
        return FallbackPolicy.from_pretrained(save(*args, **settings))

    return make


def test_it_is_a_decision_policy(load):
    policy = load()
    assert isinstance(policy, DecisionPolicy)
    assert policy.learned.version in policy.version


def test_a_learned_policy_that_can_be_relied_on_decides(load, see):
    policy = load()
    verdict = policy.decide(see(10))
    assert verdict.decision is not None
    assert verdict.decision.policy == "gnn"
    assert verdict.decision.policy_version == policy.learned.version
    assert list(verdict.passed_over) == ["rules"]
    assert "no rule found a symptom" in verdict.passed_over["rules"]


def test_what_the_learned_policy_proposes_has_to_stand(load, see):
    policy = load(confirmation_steps=10)
    first = policy.decide(see(10))
    assert first.decision is None
    assert first.pressing
    assert "has been proposed for 0 steps" in first.reason
    strange = see(15)
    strange.graph_data.x += 1e6
    assert policy.decide(strange).passed_over["gnn"].startswith("layers far from training")
    assert policy.decide(see(20)).decision is None
    verdict = policy.decide(see(30))
    assert verdict.decision.policy == "gnn"
    assert policy.budget.spent("run", 40, 0) == 1


def test_a_learned_policy_that_would_do_nothing_is_heard_until_a_rule_finds_a_cure(load, see):
    policy = load(IDLE)
    assert policy.decide(see(5)).reason.startswith("confidence")
    first = policy.decide(see(10, sick=3))
    assert first.decision is None
    assert "not yet persistent" in first.passed_over["rules"]
    # The rules have watched all along: once the symptom has persisted, its cure is theirs.
    verdict = policy.decide(see(20, sick=3))
    assert verdict.decision.policy == "rules"
    assert (verdict.decision.adaptation, verdict.decision.target) == ("reinitialize", (2,))
    assert verdict.passed_over["gnn"].startswith("it saw nothing to do here: confidence")
    assert policy.budget.spent("run", 30, 0) == 1


def test_one_that_is_as_good_as_sure_is_taken_at_its_word_except_where_a_run_is_broken(load, see):
    policy = load(SURE)
    for step in (10, 20, 30):
        verdict = policy.decide(see(step, sick=3))
        assert verdict.decision is None
        assert verdict.reason.startswith("confidence")
    assert "reinitialize" in verdict.passed_over["rules"] or "dead" in verdict.passed_over["rules"]
    broken = policy.decide(see(40, loss=None, loss_nonfinite=3))
    assert broken.decision.policy == "rules"
    assert broken.decision.adaptation is AdaptationType.RESTORE
    never_sure = load(SURE, quiet_confidence=0.0)
    assert [never_sure.decide(see(step, sick=3)).decision for step in (10, 20)][1] is not None


@pytest.mark.parametrize(("first", "decides"), [(0.0, "rules"), (0.3, None)])
def test_nor_where_no_gradient_reaches_the_first_layer(
    load, topology, make_state, make_report, first, decides
):
    policy = load(SURE)
    for step in (10, 20):
        readings = {layer: HEALTHY | {"gradient_norm": 0.5} for layer in range(LAYERS)}
        readings[0] = readings[0] | {"gradient_norm": first}
        readings[3] = readings[3] | DEAD
        report = make_report(step, 1.0, loss_level=1.0)
        verdict = policy.decide(make_state(topology, readings, step=step, metrics=[report]))
    found = None if verdict.decision is None else verdict.decision.policy
    assert found == decides


def damage_weights(path):
    (path / "policy.safetensors").write_bytes(b"garbage")


def change_schema(path):
    manifest = json.loads((path / "policy.json").read_text())
    (path / "policy.json").write_text(json.dumps(manifest | {"schema_version": 99}))


def remove(path):
    (path / "policy.json").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage_weights, "not those of its manifest"),
        (change_schema, "schema version 99"),
        (remove, "cannot read"),
    ],
)
def test_the_rules_decide_where_the_learned_policy_cannot_be_loaded(save, see, harm, reason):
    path = save()
    harm(path)
    policy = FallbackPolicy.from_pretrained(path)
    assert policy.decide(see(10, sick=3)).decision is None
    verdict = policy.decide(see(20, sick=3))
    assert verdict.decision.policy == "rules"
    assert (verdict.decision.adaptation, verdict.decision.target) == ("reinitialize", (2,))
    assert reason in verdict.passed_over["gnn"]


def decided_by_rules(policy, states, reason):
    for state in states:
        verdict = policy.decide(state)
        assert reason in verdict.passed_over["gnn"], verdict.passed_over
    assert verdict.decision is not None
    assert verdict.decision.policy == "rules"
    return verdict


def test_the_rules_decide_where_the_network_was_never_trained(make_network, see):
    policy = FallbackPolicy(make_network())
    decided_by_rules(policy, [see(10, sick=3), see(20, sick=3)], "untrained")


def test_the_rules_decide_where_there_is_no_network(see):
    policy = FallbackPolicy(None)
    decided_by_rules(policy, [see(10, sick=3), see(20, sick=3)], "no learned policy")


def test_the_rules_decide_where_the_network_is_uncertain(load, see):
    policy = load(uncertainty_threshold=0.0, attention_dropout=0.5)
    decided_by_rules(policy, [see(10, sick=3), see(20, sick=3)], "uncertainty")


def test_an_uncertain_no_is_no_reason_for_silence(load, see):
    biases = {"safety": 8.0}
    policy = load(biases, uncertainty_threshold=0.0, attention_dropout=0.5)
    policy.learned.config = policy.config.model_copy(
        update={"adaptation_confidence_threshold": 1.0}
    )
    decided_by_rules(policy, [see(10, sick=3), see(20, sick=3)], "uncertainty")


def test_the_rules_decide_where_layers_are_of_unseen_types(load, see, topology):
    policy = load()
    nodes = tuple(
        node.model_copy(update={"type": "Mish"} if node.layer_id % 2 else {})
        for node in topology.nodes
    )
    foreign = topology.model_copy(update={"nodes": nodes})
    states = [see(step, sick=3, topology=foreign) for step in (10, 20)]
    decided_by_rules(policy, states, "layers of unseen types")


def test_what_a_network_sees_as_its_own_is_no_reason_for_the_rules(load, see, topology):
    nodes = tuple(node.model_copy(update={"type": "Conv2d"}) for node in topology.nodes)
    convolutional = topology.model_copy(update={"nodes": nodes})
    states = [see(step, sick=3, topology=convolutional) for step in (10, 20)]
    policy = load(training=TRAINING | {"kin": {"conv": "linear"}})
    assert not any("gnn" in policy.decide(state).passed_over for state in states)
    decided_by_rules(load(), states, "layers of unseen types")


@pytest.mark.parametrize("strange", range(LAYERS))
def test_one_strange_layer_matters_where_the_network_points_at_it(load, see, topology, strange):
    policy, only = load(), 4
    nodes = tuple(
        node.model_copy(
            update={
                "type": "Mish" if node.layer_id == strange else node.type,
                "actions": node.actions if node.layer_id == only else (),
            }
        )
        for node in topology.nodes
    )
    state = see(10, topology=topology.model_copy(update={"nodes": nodes, "actions": ()}))
    assert policy.learned.consider(state).outputs["target"] == [only]
    verdict = policy.decide(state)
    assert ("gnn" in verdict.passed_over) == (strange == only)
    if strange == only:
        assert "target of an unseen type" in verdict.passed_over["gnn"]


def test_the_rules_decide_where_a_checkpoint_does_not_say_what_it_has_seen(load, see):
    policy = load(training={"command": "test"})
    decided_by_rules(policy, [see(10, sick=3), see(20, sick=3)], "layers of unseen types")


def test_the_rules_decide_where_the_target_is_far_from_training(load, see):
    policy = load()
    target = policy.learned.consider(see(10)).outputs["target"]
    if not target:
        pytest.fail("the network of this test must point at a layer")
    policy.learned.trunk.node_norm.scale.mul_(1e-3)
    decided_by_rules(policy, [see(10, sick=3), see(20, sick=3)], "far from training")


def test_the_rules_decide_where_the_outputs_are_not_finite(load, see):
    policy = load()
    with torch.no_grad():
        policy.learned.heads.head("value").last.bias.fill_(torch.nan)
    decided_by_rules(policy, [see(10, sick=3), see(20, sick=3)], "finite")


def test_the_rules_decide_about_graphs_of_another_schema(load, see):
    policy = load()
    states = [dataclasses.replace(see(step, sick=3), schema_version=99) for step in (10, 20)]
    decided_by_rules(policy, states, "schema version 99")


def test_without_topology_nothing_is_decided(load, make_state):
    verdict = load().decide(make_state(None, {0: {}}))
    assert verdict.decision is None


def test_a_cure_does_not_count_as_tried_where_the_network_decided_instead(load, see):
    policy = load(adaptation_confidence_threshold=1.0)
    assert policy.decide(see(10, sick=3)).decision is None
    thresholds = {"adaptation_confidence_threshold": 0.75}
    policy.learned.config = policy.config.model_copy(update=thresholds)
    assert policy.rules.diagnose(see(20, sick=3)).verdict.decision is not None
    assert policy.decide(see(20, sick=3)).decision.policy == "gnn"
    policy.learned = None
    assert policy.decide(see(130, sick=3)).decision.adaptation == "reinitialize"


def test_the_rules_wait_for_what_the_network_has_decided(load, see):
    policy = load()
    assert policy.decide(see(10, sick=3)).decision.policy == "gnn"
    policy.learned = None
    # Readings from before the decision could take effect say nothing, whoever has decided.
    for step in range(20, 111, 10):
        verdict = policy.decide(see(step, sick=3))
        assert verdict.reason == "no rule found a symptom"
    assert policy.decide(see(120, sick=3)).decision is None
    assert policy.decide(see(130, sick=3)).decision.policy == "rules"


def test_both_share_one_budget_and_one_cooldown(load, see):
    policy = load()
    assert policy.budget is policy.rules.budget is policy.learned.budget
    assert policy.decide(see(10, sick=3)).decision.policy == "gnn"
    assert policy.decide(see(60, sick=3)).reason.startswith("cooldown")
    learned, policy.learned = policy.learned, None
    verdicts = [policy.decide(see(step, sick=3)) for step in (120, 130)]
    assert verdicts[-1].decision.policy == "rules"
    policy.learned = learned
    assert policy.decide(see(240, sick=3)).reason.startswith("budget")
    assert policy.budget.spent("run", 240, 0) == 2


@pytest.mark.parametrize("sure", [True, False])
def test_asked_again_at_the_same_step_it_answers_the_same(load, see, sure):
    policy = load() if sure else load(uncertainty_threshold=0.0, attention_dropout=0.5)
    policy.decide(see(10, sick=3))
    if not sure:
        assert policy.decide(see(20, sick=3)).decision is not None
    step = 10 if sure else 20
    again = [policy.decide(see(step, sick=3)).decision for _ in range(3)]
    assert len({decision.decision_id for decision in again}) == 1
    assert policy.budget.spent("run", 20, 0) == 1


def test_symptoms_that_have_to_be_confirmed_press_whoever_decides(load, see):
    policy = load(IDLE)
    assert policy.decide(see(10)).quiet
    assert not policy.decide(see(20, sick=3)).quiet
    alone = EnhancedTamiyoPolicyGNN
    assert isinstance(policy.learned, alone)
    assert policy.learned.decide(see(30, sick=3)).quiet


def test_a_healthy_run_is_left_alone_by_both(load, see):
    policy = load(IDLE)
    for step in range(10, 500, 10):
        verdict = policy.decide(see(step, loss=2.0 * 0.99**step))
        assert verdict.decision is None


def test_thresholds_can_be_given_and_the_shape_is_the_checkpoints(save):
    config = PolicyConfig(safety_margin=0.01, cooldown_steps=150, max_adaptations_per_epoch=5)
    policy = FallbackPolicy.from_pretrained(save(), config)
    assert policy.learned is not None
    assert policy.config == policy.learned.config == policy.rules.config
    assert policy.config.safety_margin == 0.01
    assert policy.config.hidden_dim == 16
    assert (policy.budget.max_per_epoch, policy.budget.cooldown_steps) == (5, 150)


def test_the_default_is_what_ships_and_the_rules_where_nothing_does(save, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "nothing")
    assert shipped() is None
    config = PolicyConfig(cooldown_steps=333)
    policy = learned_policy(config)
    assert isinstance(policy, RulesPolicy)
    assert policy.config is config
    monkeypatch.setattr(checkpoint, "PRETRAINED", save())
    assert shipped() == tmp_path / "policy"
    policy = learned_policy(config)
    assert isinstance(policy, FallbackPolicy)
    assert policy.learned.is_trained
    assert policy.budget.cooldown_steps == 333


def test_what_ships_can_be_loaded_and_says_what_it_has_seen():
    """Where no policy comes with the package, the rules stand in."""
    policy = learned_policy()
    if shipped() is None:
        assert isinstance(policy, RulesPolicy)
    else:
        assert policy.learned is not None
        assert policy.learned.training_notes["layer_types"]
        assert sum(path.stat().st_size for path in shipped().iterdir()) < 10e6


def test_a_policy_of_the_default_size_is_small_enough_to_ship(tmp_path):
    EnhancedTamiyoPolicyGNN().save_pretrained(tmp_path, TRAINING)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 10e6


def test_restoring_is_still_the_rules_first_thought_in_an_emergency(load, see):
    policy = load(uncertainty_threshold=0.0, attention_dropout=0.5)
    verdict = policy.decide(see(10, loss=None, loss_nonfinite=3))
    assert verdict.decision.adaptation is AdaptationType.RESTORE
    assert verdict.decision.parameters == {"learning_rate_factor": 0.5}


@pytest.mark.parametrize(
    "adaptation",
    [
        AdaptationType.SCALE_LEARNING_RATE,
        AdaptationType.CLIP_GRADIENTS,
        AdaptationType.REINITIALIZE,
        AdaptationType.CHANGE_ACTIVATION,
        AdaptationType.WIDEN,
    ],
)
def test_a_live_run_takes_what_the_learned_policy_prescribes(save, tmp_path, adaptation):
    path = save()
    network = EnhancedTamiyoPolicyGNN.from_pretrained(path)
    with torch.no_grad():
        network.heads.head("adaptation").last.bias[ACTIONS.index(adaptation)] = 50.0
        # Of layers that are as likely the first one is taken.
        network.heads.head("target").last.weight.zero_()
        # Fitted to the states of these tests, which a real run does not look like.
        for norm in (network.trunk.node_norm, network.trunk.global_norm):
            norm.mean.zero_()
            norm.scale.fill_(1.0)
            norm.share.zero_()
    network.save_pretrained(path, TRAINING)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    journal = tmp_path / "journal.jsonl"
    with tamiyo.attach(
        model,
        optimizer,
        mode="autonomous",
        policy=FallbackPolicy.from_pretrained(path),
        journal=journal,
        pace="lockstep",
        probe_budget=1.0,
    ) as control:
        for _ in range(60):
            inputs = torch.randn(32, 8)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long())
            loss.backward()
            optimizer.step()
            control.step(loss=loss)
        decision, result = control.history[0]
    assert (decision.adaptation, decision.policy) == (adaptation, "gnn")
    assert result.outcome in (Outcome.APPLIED, Outcome.KEPT, Outcome.ROLLED_BACK), result.reason
    assert decision.parameters
    entry = next(entry for entry in read_journal(journal) if entry["event"] == "proposed")
    assert "rules" in entry["passed_over"]
