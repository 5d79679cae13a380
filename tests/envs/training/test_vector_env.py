"""The environment keeps gymnasium's contract, and its twins are twins."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import tamiyo.envs  # noqa: F401 - registers the environments
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingEnv, TrainingVectorEnv
from tamiyo.graph.schema import GLOBAL_COLUMNS

SMALL = TrainingConfig(decisions=4, max_hidden=4, widths=(16,), held_out=64)


def make(runs=6, **options):
    return TrainingVectorEnv(runs, **{"config": SMALL, "cohort_size": 4} | options)


def play(env, actions, steps):
    """Everything that `steps` steps with these actions give."""
    return [env.step(actions(env)) for _ in range(steps)]


def wait(env):
    return np.zeros((env.num_envs, 3), np.int64)


def legal_at_random(env, observation, random):
    """A legal action for every run that has one."""
    actions = wait(env)
    for run in range(env.num_envs):
        mask = np.vstack([observation["action_mask"][run], observation["model_action_mask"][run]])
        choices = np.argwhere(mask)
        if len(choices):
            actions[run] = 1, *random.choice(choices)
    return actions


@pytest.mark.filterwarnings("ignore:.*The environment.*out of date.*")
def test_check_env():
    check_env(TrainingEnv(config=SMALL), skip_render_check=True)


def test_is_registered_and_makes_vectors():
    assert gymnasium.make("tamiyo/Training-v0", config=SMALL).spec.id == "tamiyo/Training-v0"
    env = gymnasium.make_vec("tamiyo/Training-v0", num_envs=3, config=SMALL)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert isinstance(env, TrainingVectorEnv)


@pytest.mark.parametrize(("name", "hidden"), [("TrainingSmall", 3), ("TrainingMedium", 6)])
def test_smaller_sizes_have_less_padding(name, hidden):
    env = gymnasium.make_vec(f"tamiyo/{name}-v0", num_envs=2, config=SMALL)
    observation, _ = env.reset(seed=0)
    assert observation["x"].shape[1] == 2 * hidden + 1
    assert env.observation_space.contains(observation)
    one = gymnasium.make(f"tamiyo/{name}-v0", config=SMALL)
    assert one.observation_space == env.single_observation_space


def test_the_same_seed_gives_the_same_episodes():
    def course(seed):
        env, random = make(), np.random.default_rng(0)
        observation, _ = env.reset(seed=seed)
        rewards = []
        for _ in range(6):
            observation, reward, *_ = env.step(legal_at_random(env, observation, random))
            rewards.append(reward)
        return np.array(rewards), observation["x"]

    rewards, x = course(3)
    again, x_again = course(3)
    np.testing.assert_array_equal(rewards, again)
    np.testing.assert_array_equal(x, x_again)
    assert not np.array_equal(x, course(4)[1])


def test_a_run_that_is_left_alone_is_its_twin_to_the_last_bit():
    env = make()
    _, infos = env.reset(seed=1)
    random = np.random.default_rng(0)
    observation, _ = env.reset(seed=1)
    # Others are adapted meanwhile: hosts share nothing.
    for _ in range(SMALL.decisions):
        actions = legal_at_random(env, observation, random)
        actions[::2] = 0
        observation, reward, _, _, infos = env.step(actions)
        np.testing.assert_array_equal(infos["loss"][::2], infos["twin_loss"][::2])
        np.testing.assert_array_equal(reward[::2], 0.0)
    assert (infos["loss"][1::2] != infos["twin_loss"][1::2]).any()


def test_episodes_end_together_and_begin_anew_in_the_same_step():
    env = make()
    env.reset(seed=0)
    seen = play(env, wait, SMALL.decisions + 1)
    for observation, _, terminated, truncated, infos in seen[:-2]:
        assert not terminated.any()
        assert not truncated.any()
        assert "final_obs" not in infos
        assert env.observation_space.contains(observation)
    observation, _, terminated, _, infos = seen[-2]
    assert terminated.all()
    progress = infos["final_obs"]["global_features"][:, _column("progress")]
    np.testing.assert_allclose(progress, 1.0)
    np.testing.assert_allclose(
        observation["global_features"][:, _column("progress")], 1 / (SMALL.decisions + 1)
    )


def test_what_is_not_legal_is_not_done():
    env = make()
    observation, _ = env.reset(seed=0)
    actions = np.ones((6, 3), np.int64)
    actions[:, 1], actions[:, 2] = 2 * SMALL.max_hidden, 0
    assert not observation["action_mask"][:, -1, 0].any()
    _, reward, _, _, infos = env.step(actions)
    assert not infos["adapted"].any()
    np.testing.assert_array_equal(reward, 0.0)


def test_nothing_is_legal_once_the_budget_is_spent():
    env, random = make(config=TrainingConfig(**_with(max_adaptations=2))), np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        observation, *_, infos = env.step(legal_at_random(env, observation, random))
    assert (infos["adaptations"] == 2).all()
    assert not observation["action_mask"].any()
    assert not observation["model_action_mask"].any()


def test_a_nan_stays_within_its_host():
    kinds = TrainingConfig(**_with(faults=(FaultKind.NOT_A_NUMBER,), decisions=12))
    env = make(8, config=kinds, cohort_size=8)
    env.reset(seed=0)
    observation, _, _, _, infos = play(env, wait, kinds.decisions - 1)[-1]
    struck = infos["struck"]
    assert struck.any()
    assert not struck.all()
    assert (infos["accuracy"][struck] == 0).all()
    assert (infos["accuracy"][~struck] > 0).all()
    assert np.isfinite(infos["loss"]).all()
    assert env.observation_space.contains(observation)
    assert (observation["global_features"][struck, _column("loss_nonfinite")] == 1).all()


def test_the_oracle_only_does_what_is_legal_and_nothing_to_healthy_runs():
    env = make(24, cohort_size=24)
    env.reset(seed=0)
    for _ in range(SMALL.decisions):
        actions = env.oracle_actions()
        *_, infos = env.step(actions)
        np.testing.assert_array_equal(infos["adapted"], actions[:, 0] == 1)
        healthy = infos["fault_kind"] == list(FaultKind).index(FaultKind.HEALTHY)
        assert not infos["adapted"][healthy].any()
    assert infos["adaptations"].sum() > 0


def test_a_wrong_number_of_runs_is_refused():
    with pytest.raises(ValueError, match="0 runs"):
        TrainingVectorEnv(0)


def test_a_step_before_the_first_reset_is_an_error():
    with pytest.raises(RuntimeError, match="reset"):
        make().step(np.zeros((6, 3), np.int64))


def test_runs_on_a_device_that_is_named():
    env = make(2, device=torch.device("cpu"))
    env.reset(seed=0)
    assert env.episodes[0].cohort.weights.first.device.type == "cpu"


def _with(**changes):
    fields = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    return fields | changes


def _column(name):
    return [column.name for column in GLOBAL_COLUMNS].index(name)
