from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tamiyo.contracts import AdaptationType, Flag, HealthSignal, SignalBatch
from tamiyo.graph import ModelGraphBuilder
from tamiyo.policy import DecisionPolicy, PolicyConfig, RulesPolicy

HEALTHY = {
    "health_score": 0.9,
    "dead_neuron_ratio": 0.4,
    "saturation": 0.1,
    "gradient_norm": 0.5,
    "update_ratio": 2e-3,
}


@pytest.fixture
def watch(make_topology, make_state, make_report):
    """Feeds a policy one state per step; `readings` and `loss` are functions of the step."""

    def run(readings, loss=lambda step: 1.0, *, steps=range(10, 60, 10), policy=None, **options):
        topology = options.pop("topology", None) or make_topology(7)
        policy = policy or RulesPolicy()
        reports, verdicts = [], []
        for step in steps:
            value = loss(step)
            fields = value if isinstance(value, dict) else {"loss": value}
            reports.append(make_report(step, **{"loss_level": 1.0} | options | fields))
            per_layer = {
                layer: HEALTHY | readings(step).get(layer, {}) for layer in range(len(topology))
            }
            state = make_state(topology, per_layer, step=step, metrics=reports)
            verdicts.append(policy.decide(state))
        return verdicts

    return run


def decisions(verdicts):
    return [
        (verdict.decision.adaptation, verdict.decision.target)
        for verdict in verdicts
        if verdict.decision is not None
    ]


def everywhere(**fields):
    return lambda _step: dict.fromkeys(range(7), fields)


def test_it_is_a_decision_policy():
    assert isinstance(RulesPolicy(), DecisionPolicy)


def test_a_healthy_run_is_left_alone(watch):
    verdicts = watch(lambda _: {}, lambda step: 2.3 * 0.99**step, steps=range(10, 2000, 10))
    assert decisions(verdicts) == []
    assert {verdict.reason for verdict in verdicts} == {"no rule found a symptom"}


def test_a_converged_noisy_run_is_left_alone(watch):
    noise = [1.0, 3.0, 0.5, 2.5, 0.7]
    verdicts = watch(
        lambda step: everywhere(update_ratio=1e-6, gradient_norm=1e-5 * noise[step // 10 % 5])(
            step
        ),
        lambda step: 2.3 if step < 50 else 1e-3 * noise[step // 10 % 5],
        steps=range(10, 1000, 10),
        loss_level=1e-3,
    )
    assert decisions(verdicts) == []


def test_a_loss_that_is_not_finite_restores_at_once(watch):
    broken = {"loss": None, "loss_nonfinite": 3, "snapshot_step": 5}
    (verdict,) = watch(lambda _: {}, lambda _: broken, steps=[10])
    assert decisions([verdict]) == [(AdaptationType.RESTORE, ())]
    assert verdict.decision.parameters == {"learning_rate_factor": 0.5}
    assert "nonfinite" in verdict.decision.reason


def test_without_a_snapshot_the_learning_rate_is_cut_instead(watch):
    (verdict,) = watch(lambda _: {}, lambda _: {"loss": None, "loss_nonfinite": 3}, steps=[10])
    assert decisions([verdict]) == [(AdaptationType.SCALE_LEARNING_RATE, ())]
    assert verdict.decision.parameters == {"factor": 0.1}


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        (Flag.NONFINITE_WEIGHT, [(AdaptationType.RESTORE, ())]),
        (Flag.NONFINITE_ACTIVATION, [(AdaptationType.RESTORE, ())]),
        (Flag.NONFINITE_GRADIENT, []),
    ],
)
def test_weights_and_activations_count_and_a_gradient_alone_does_not(watch, flag, expected):
    verdicts = watch(lambda _: {2: {"flags": flag}}, steps=[10], snapshot_step=5)
    assert decisions(verdicts) == expected


def test_a_loss_far_above_its_history_restores_once_it_persists(watch):
    verdicts = watch(
        lambda _: {},
        lambda step: 2.0 if step <= 20 else 0.5 if step < 100 else 8.0,
        steps=range(10, 130, 10),
        loss_level=0.5,
        snapshot_step=5,
    )
    assert decisions(verdicts) == [(AdaptationType.RESTORE, ())]
    assert verdicts[-2].decision is not None
    assert verdicts[-3].decision is None


def test_losses_below_zero_are_not_judged_by_quotients(watch):
    verdicts = watch(lambda _: {}, lambda step: -1.0 - step / 10, steps=range(10, 300, 10))
    assert decisions(verdicts) == []


def test_updates_as_large_as_the_weights(watch):
    verdicts = watch(everywhere(update_ratio=3.0), steps=[10, 20], snapshot_step=5)
    assert decisions(verdicts) == [(AdaptationType.RESTORE, ())]


def test_large_updates_count_when_the_loss_suffers(watch):
    assert decisions(watch(everywhere(update_ratio=0.3), snapshot_step=5)) == []
    suffering = watch(everywhere(update_ratio=0.3), loss_level=0.4, snapshot_step=5)
    assert decisions(suffering) == [(AdaptationType.RESTORE, ())]


def test_units_killed_by_large_updates_are_the_learning_rates_fault(watch):
    readings = everywhere(update_ratio=0.3, dead_neuron_ratio=0.9)
    verdicts = watch(readings, steps=[10, 20], snapshot_step=5)
    assert decisions(verdicts) == [(AdaptationType.RESTORE, ())]


def test_dead_units_are_recycled_in_the_layer_that_feeds_them(watch):
    verdicts = watch(lambda _: {3: {"dead_neuron_ratio": 1.0}}, steps=[10, 20])
    assert decisions(verdicts) == [(AdaptationType.REINITIALIZE, (2,))]
    assert verdicts[-1].decision.parameters == {"scope": "dormant"}


def test_many_dead_units_alone_are_no_fault_in_a_run_that_learns(watch):
    wide = {3: {"dead_neuron_ratio": 0.8}}
    steps = range(10, 400, 10)
    learning = watch(lambda _: wide, lambda step: 2.3 * 0.98**step, steps=steps)
    assert decisions(learning) == []
    stalled = watch(lambda _: wide, lambda _: 2.3, steps=range(10, 100, 10), loss_level=2.3)
    assert decisions(stalled) == [(AdaptationType.REINITIALIZE, (2,))]


def test_of_several_dead_layers_the_most_upstream_is_the_culprit(watch):
    dead = {layer: {"dead_neuron_ratio": 1.0} for layer in (3, 5)}
    assert decisions(watch(lambda _: dead, steps=[10, 20])) == [(AdaptationType.REINITIALIZE, (2,))]


def test_a_layer_dead_altogether_comes_before_ill_ones_that_it_cuts_off(watch):
    dead = {1: {"dead_neuron_ratio": 0.75}, 3: {"dead_neuron_ratio": 1.0}}
    assert decisions(watch(lambda _: dead, steps=[10, 20])) == [(AdaptationType.REINITIALIZE, (2,))]


def test_the_output_layer_may_be_as_dead_as_it_likes(watch):
    assert decisions(watch(lambda _: {6: {"dead_neuron_ratio": 1.0}})) == []


def test_a_layer_that_dies_again_gets_another_activation(watch):
    verdicts = watch(lambda _: {3: {"dead_neuron_ratio": 0.9}}, steps=range(10, 400, 10))
    assert decisions(verdicts) == [
        (AdaptationType.REINITIALIZE, (2,)),
        (AdaptationType.CHANGE_ACTIVATION, (3,)),
    ]
    assert "nothing left to try" in verdicts[-1].reason


def test_a_symptom_must_persist_over_distinct_steps(watch, make_topology):
    sick = {3: {"dead_neuron_ratio": 1.0}}
    assert decisions(watch(lambda _: sick, steps=[10])) == []
    assert decisions(watch(lambda _: sick, steps=[10, 10, 10])) == []
    flicker = watch(lambda step: sick if step % 20 else {}, steps=range(10, 100, 10))
    assert decisions(flicker) == []


def test_readings_from_before_a_cure_could_act_do_not_count(watch):
    policy = RulesPolicy(PolicyConfig(cooldown_steps=100, decision_ttl_steps=100))
    verdicts = watch(
        lambda _: {3: {"dead_neuron_ratio": 1.0}}, steps=range(10, 130, 5), policy=policy
    )
    assert len(decisions(verdicts)) == 2
    assert [v.decision.issued_at_step for v in verdicts if v.decision] == [15, 125]


def test_what_may_be_a_consequence_waits_for_the_more_urgent_symptom(watch):
    verdicts = watch(
        lambda step: {3: {"dead_neuron_ratio": 1.0}} if step >= 90 else {},
        lambda step: 0.5 if step < 100 else 8.0,
        steps=range(10, 120, 10),
        loss_level=0.5,
        snapshot_step=5,
    )
    assert verdicts[-2].reason == "exploding loss seen, not yet persistent"
    assert decisions(verdicts) == [(AdaptationType.RESTORE, ())]


def collapsing(step):
    return 2.3 if step == 10 else 0.05 if step < 100 else 2.0


def test_a_collapse_without_a_culprit_is_taken_back(watch):
    verdicts = watch(
        lambda _: {}, collapsing, steps=range(10, 120, 10), loss_level=0.05, snapshot_step=5
    )
    assert decisions(verdicts) == [(AdaptationType.RESTORE, ())]
    assert verdicts[-1].reason.startswith("collapsed loss")


def test_a_collapse_that_a_dead_layer_explains_is_cured_there(watch):
    verdicts = watch(
        lambda step: {3: {"dead_neuron_ratio": 1.0}} if step >= 100 else {},
        collapsing,
        steps=range(10, 120, 10),
        loss_level=0.05,
        snapshot_step=5,
    )
    [(adaptation, target)] = decisions(verdicts)
    assert adaptation is AdaptationType.REINITIALIZE
    assert len(target) == 1


def test_one_probe_and_a_new_report_are_not_two_sightings(make_topology, make_state, make_report):
    policy, topology = RulesPolicy(), make_topology(7)
    readings = {layer: {"update_ratio": 3.0} for layer in range(7)}
    reports = [make_report(10), make_report(20)]
    for count in (1, 2):
        state = make_state(topology, readings, step=10, metrics=reports[:count])
        assert policy.make_decision(state) is None


def test_asked_again_at_the_same_step_it_answers_the_same(watch):
    policy = RulesPolicy()
    verdicts = watch(
        lambda _: {3: {"dead_neuron_ratio": 1.0}}, steps=[10, 20, 20, 20], policy=policy
    )
    assert verdicts[1] == verdicts[2] == verdicts[3]
    assert policy.budget.spent("run", 20, 0) == 1


def test_the_budget_bounds_the_decisions_of_an_epoch(watch):
    verdicts = watch(
        lambda step: {1 + 2 * (step // 100 % 3): {"dead_neuron_ratio": 1.0}},
        steps=range(10, 900, 10),
    )
    assert len(decisions(verdicts)) == 2
    assert any("budget" in verdict.reason for verdict in verdicts)


def test_a_gradient_spike_is_clipped(watch, make_topology, make_state, make_report):
    policy, topology = RulesPolicy(), make_topology(7)
    verdicts = []
    for spikes in (1, 2):
        norms = [0.1] * 60 + [100.0] * spikes
        batch = SignalBatch.from_signals(
            HealthSignal(layer_id=layer, epoch=0, step=step, timestamp=step, gradient_norm=norm)
            for step, norm in enumerate(norms)
            for layer in range(7)
        )
        reports = tuple(
            make_report(step, 1.0 if step < 60 else 2.5, loss_level=1.0)
            for step in (20, 40, 59 + spikes)
        )
        state = ModelGraphBuilder().build_model_graph(
            SignalBatch(batch.columns, None, topology, reports)
        )
        verdicts.append(policy.decide(state))
    assert decisions(verdicts) == [(AdaptationType.CLIP_GRADIENTS, ())]


def test_gradients_that_grow_towards_the_input_are_clipped(watch):
    verdicts = watch(lambda _: {0: {"gradient_norm": 100.0}}, steps=[10, 20])
    assert decisions(verdicts) == [(AdaptationType.CLIP_GRADIENTS, ())]


def test_vanishing_gradients_change_every_squashing_activation(watch, make_topology):
    vanishing = {0: {"gradient_norm": 1e-6}}
    verdicts = watch(
        lambda _: vanishing,
        steps=range(10, 120, 10),
        topology=make_topology(7, activation="Sigmoid"),
    )
    assert decisions(verdicts) == [(AdaptationType.CHANGE_ACTIVATION, (1, 3, 5))]


def test_vanishing_gradients_without_such_an_activation_are_normalised(watch):
    vanishing = {0: {"gradient_norm": 1e-6}}
    verdicts = watch(lambda _: vanishing, steps=range(10, 120, 10))
    assert decisions(verdicts) == [(AdaptationType.INSERT_NORMALIZATION, (0, 2, 4))]
    learning = watch(lambda _: vanishing, lambda step: 2.0 * 0.99**step, steps=range(10, 120, 10))
    assert decisions(learning) == []


def test_saturation_changes_the_most_upstream_activation(watch, make_topology):
    saturated = {layer: {"saturation": 0.9} for layer in (3, 5)}
    topology = make_topology(7, activation="Tanh")
    verdicts = watch(lambda _: saturated, steps=range(10, 120, 10), topology=topology)
    assert decisions(verdicts) == [(AdaptationType.CHANGE_ACTIVATION, (3,))]


def test_an_oscillating_loss_slows_learning_down(watch):
    verdicts = watch(lambda _: {}, lambda step: 1.0 if step % 20 else 2.5, steps=range(10, 150, 10))
    assert decisions(verdicts) == [(AdaptationType.SCALE_LEARNING_RATE, ())]


def test_a_run_that_never_moved_is_sped_up(watch):
    verdicts = watch(everywhere(update_ratio=1e-7), steps=range(10, 120, 10))
    assert decisions(verdicts)[0] == (AdaptationType.SCALE_LEARNING_RATE, ())
    assert next(v.decision for v in verdicts if v.decision).parameters == {"factor": 10.0}


def test_only_legal_actions_are_taken(watch, make_topology):
    topology = make_topology(7, model_actions=())
    broken = {"loss": None, "loss_nonfinite": 3, "snapshot_step": 5}
    verdicts = watch(lambda _: {}, lambda _: broken, topology=topology)
    assert decisions(verdicts) == []


def test_a_run_that_went_back_is_seen_with_fresh_eyes(watch):
    sick = {3: {"dead_neuron_ratio": 1.0}}
    policy = RulesPolicy()
    watch(lambda _: sick, steps=[1000, 1010], policy=policy)
    verdicts = watch(lambda _: sick, steps=[10, 20], policy=policy)
    assert decisions(verdicts) == [(AdaptationType.REINITIALIZE, (2,))]


def test_without_topology_nothing_is_decided(make_state):
    verdict = RulesPolicy().decide(make_state(None, {0: {}}))
    assert verdict.decision is None
    assert "topology" in verdict.reason


reading = st.fixed_dictionaries(
    {},
    optional={
        "dead_neuron_ratio": st.floats(0, 1, width=32),
        "saturation": st.floats(0, 1, width=32),
        "gradient_norm": st.floats(0, 1e9, width=32),
        "update_ratio": st.floats(0, 1e3, width=32),
        "flags": st.sampled_from([0, 2, 4, 8, 14]),
    },
)
losses = st.one_of(st.none(), st.floats(-10, 1e6))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.dictionaries(st.integers(0, 4), reading), losses), min_size=2, max_size=12
    )
)
def test_whatever_a_run_shows_decisions_are_legal_and_few(
    make_topology, make_state, make_report, course
):
    policy, topology, reports = RulesPolicy(), make_topology(5), []
    made = []
    for index, (readings, loss) in enumerate(course):
        step = 60 * index
        nonfinite = int(loss is None)
        reports.append(make_report(step, loss, loss_nonfinite=nonfinite, snapshot_step=0))
        state = make_state(topology, readings, step=step, metrics=reports)
        decision = policy.make_decision(state)
        if decision is None:
            continue
        made.append(step)
        legal = [topology.nodes[layer].actions for layer in decision.target]
        assert all(decision.adaptation in actions for actions in legal or [topology.actions])
    assert all(later - earlier >= 100 for earlier, later in pairwise(made))
    assert len(made) <= 2
