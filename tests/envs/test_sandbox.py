"""References: the whole process listed state by state, and the learner that has to solve it."""

import time

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import tamiyo.envs  # noqa: F401 - registers the environments
from tamiyo.envs.sandbox import (
    CURES,
    DORMANT,
    EXPLODING,
    FAULTS,
    NONE,
    RATE,
    RESTORE,
    Rules,
    optimal_actions,
    optimal_return,
    optimal_values,
)
from tamiyo.graph import ACTIONS
from tamiyo.learn import ProductionPolicyTrainer, ProductionTrainingConfig
from tamiyo.learn.graphs import pack
from tamiyo.learn.rollout import to_env_actions
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig

LAYERS = 3


@pytest.fixture
def make_env():
    def make(count, **settings):
        return gymnasium.make_vec(
            "tamiyo/Sandbox-v0",
            num_envs=count,
            vectorization_mode="vector_entry_point",
            **settings,
        )

    return make


def every_state():
    """(fault, place) of a chain of three layers."""
    yield NONE, -1
    yield from ((DORMANT, place) for place in range(LAYERS))
    yield from ((EXPLODING, place) for place in range(LAYERS - 1))
    yield RATE, -1


def every_action():
    yield 0, -1, 0
    for target in (-1, *range(LAYERS)):
        yield from ((1, target, kind) for kind in range(len(ACTIONS)))


RULES = (
    Rules(horizon=5),
    Rules(horizon=4, strike=0.9, rate_price=0.9),
    Rules(horizon=4, restore_price=0.5),
)


@pytest.mark.parametrize("rules", RULES)
def test_the_optimum_is_that_of_listing_every_state_and_action(rules):
    states, actions = list(every_state()), list(every_action())
    pairs = [(state, action) for state in states for action in actions]
    fault, place = np.array([state for state, _ in pairs]).T
    well, rewards = rules.outcome(fault, place, np.array([action for _, action in pairs]))
    places = {kind: [state for state in states if state[0] == kind] for kind in FAULTS}
    values = dict.fromkeys(states, 0.0)
    for left in range(1, rules.horizon + 1):
        struck = np.mean([np.mean([values[s] for s in places[kind]]) for kind in FAULTS])
        after_well = (1 - rules.strike) * values[(NONE, -1)] + rules.strike * struck
        totals = {state: [] for state in states}
        for (state, _), good, reward in zip(pairs, well, rewards, strict=True):
            totals[state].append(reward + (after_well if good else values[state]))
        values = {state: max(totals[state]) for state in states}
        for state in states:
            assert optimal_values(rules)[left, state[0]] == pytest.approx(values[state])
            best = optimal_actions(rules, *np.array([[state[0]], [state[1]], [left]]))
            chosen = actions.index(tuple(best[0].tolist()))
            assert totals[state][chosen] == pytest.approx(values[state])


def test_a_wrong_learning_rate_is_left_alone_in_the_last_moment_only():
    rules, rate = Rules(), np.array([RATE, RATE])
    actions = optimal_actions(rules, rate, np.array([-1, -1]), np.array([1, 2]))
    assert actions.tolist() == [[0, -1, 0], [1, -1, CURES[RATE]]]


def play(env, choose, seed=0):
    """Mean return of one episode of every run, and its standard error."""
    observations, _ = env.reset(seed=seed)
    total = np.zeros(env.num_envs)
    for _ in range(env.unwrapped.rules.horizon):
        observations, rewards, over, _, _ = env.step(choose(observations))
        total += rewards
    assert over.all()
    return total.mean(), total.std() / np.sqrt(env.num_envs)


def test_playing_the_best_policy_earns_the_optimum_and_others_less(make_env):
    env, best = make_env(4000), optimal_return(Rules())
    mean, error = play(env, lambda _: env.unwrapped.optimal_actions())
    assert abs(mean - best) < 4 * error
    env.action_space.seed(0)
    assert play(env, lambda _: env.action_space.sample())[0] < 0.1 * best
    assert play(env, lambda _: np.zeros((4000, 3), int))[0] < 0.2 * best

    def restore_always(_):
        actions = env.unwrapped.optimal_actions()
        actions[actions[:, 0] == 1] = (1, 6, RESTORE)
        return actions

    assert play(env, restore_always)[0] < 0


def test_gymnasium_finds_nothing_wrong():
    env = gymnasium.make("tamiyo/Sandbox-v0")
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=1)
    over, moments = False, 0
    while not over:
        _, _, over, truncated, _ = env.step(env.unwrapped.optimal_action())
        moments += 1
        assert not truncated
    assert moments == 12


def test_observations_lie_in_the_space_and_seeds_repeat_them(make_env):
    env = make_env(5)
    first, _ = env.reset(seed=[1, 2, 3, 4, None])
    assert env.observation_space.contains(first)
    env.action_space.seed(0)
    actions = env.action_space.sample()
    stepped = env.step(actions)[0]
    assert env.observation_space.contains(stepped)
    again, _ = env.reset(seed=[1, 2, 3, 4, None])
    for name, column in first.items():
        assert np.array_equal(column, again[name])
    for name, column in env.step(actions)[0].items():
        assert np.array_equal(column, stepped[name])
    assert any((env.reset(seed=2)[0]["x"] != first["x"]).ravel())


def test_a_finished_run_starts_anew_and_hands_over_its_last_observation(make_env):
    env = make_env(3)
    env.reset(seed=0)
    nothing = np.zeros((3, 3), int)
    for moment in range(12):
        observations, _, over, _, infos = env.step(nothing)
        assert over.all() == (moment == 11)
    progress = 15
    assert infos["final_obs"]["global_features"][:, progress].tolist() == [1, 1, 1]
    assert infos["_final_obs"].all()
    assert observations["global_features"][:, progress].tolist() == [0, 0, 0]


def test_a_symptom_shows_where_the_rules_say(make_env):
    env = make_env(400)
    observations, _ = env.reset(seed=0)
    actions = env.unwrapped.optimal_actions()
    seen = set()
    for row, (acts, target, kind) in enumerate(actions):
        x, dead, gradient = observations["x"][row], 3, 6
        assert (x[:, dead] > 0.5).sum() == (kind == CURES[DORMANT])
        assert (x[:, gradient] > 0.5).sum() == (acts == 1 and kind == CURES[EXPLODING])
        assert (observations["global_features"][row, 14] > 0.2) == (kind == CURES[RATE])
        if kind == CURES[DORMANT]:
            assert x[target, dead] > 0.5
        if acts and kind == CURES[EXPLODING]:
            assert x[target + 1, gradient] > 0.5
        if acts:
            legal = np.vstack(
                [observations["action_mask"][row], observations["model_action_mask"][row]]
            )
            assert legal[target, kind]
        seen.add((acts, kind))
    assert len(seen) == 4


def solve(env, seed, steps, enough):
    """Train until the return while learning is that share of the optimum; the time it took."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = PolicyConfig(hidden_dim=32, num_gnn_layers=2, num_attention_heads=2)
        policy = EnhancedTamiyoPolicyGNN(config)
    settings = ProductionTrainingConfig(
        seed=seed,
        learning_rate=2e-3,
        lr_scheduler_patience=30,
        batch_size=256,
        rollout_length=24,
        num_training_steps=steps,
        entropy_bonus_coeff=0.03,
        exploration=0.3,
        replay_share=0.0,
        uncertainty_regularization=0.0,
    )
    trainer = ProductionPolicyTrainer(policy, config, settings)
    started = time.perf_counter()
    trainer.train(
        env,
        stop=lambda row: row["return"] > enough * optimal_return(env.unwrapped.rules),
    )
    return policy, time.perf_counter() - started


def share_of_optimum(env, policy):
    @torch.no_grad()
    def choose(observations):
        padded = {name: torch.as_tensor(column) for name, column in observations.items()}
        return to_env_actions(policy(pack(padded))["distribution"].mode(), 6)

    return play(env, choose, seed=54321)[0] / optimal_return(env.unwrapped.rules)


def test_the_learner_finds_the_cheap_cure_within_seconds(make_env):
    """Where `restore` costs next to nothing, it does for every fault; waiting earns 10 %."""
    rules = Rules(restore_price=0.1)
    policy, _ = solve(make_env(32, rules=rules), seed=0, steps=300, enough=0.8)
    assert share_of_optimum(make_env(500, rules=rules), policy) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_learner_solves_the_sandbox_within_a_minute(make_env, seed, record_property):
    policy, seconds = solve(make_env(64), seed, steps=2000, enough=0.93)
    share = share_of_optimum(make_env(2000), policy)
    record_property("share_of_optimum", float(share))
    record_property("seconds", seconds)
    print(f"seed {seed}: {share:.3f} of the optimum after {seconds:.1f} s")
    assert share >= 0.95
