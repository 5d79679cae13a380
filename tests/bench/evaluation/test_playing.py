"""Cohorts play the same runs, and what is written down is what happened."""

import numpy as np
import pytest

from tamiyo.bench.evaluation import playing
from tamiyo.bench.evaluation.lineup import COHORTS, Lineup
from tamiyo.bench.evaluation.players import Answer
from tamiyo.bench.evaluation.playing import PROGRAM, Job, play, play_all
from tamiyo.bench.evaluation.rows import KINDS, NEVER, Rows
from tamiyo.envs.training.vector_env import TrainingVectorEnv

FIXED = ("seed", "host", "data", "fault", "layer", "struck", "curable", "twin_accuracy")
SAID = ("probability", "confidence", "uncertainty")


@pytest.fixture(scope="module")
def rows(played):
    return {name: Rows.concatenate([one[name] for one in played]) for name in played[0]}


def test_all_cohorts_are_there_in_their_order(rows):
    assert tuple(name for name in rows if name != "clone") == COHORTS


def test_every_cohort_had_the_same_runs_with_the_same_twins(rows):
    for one in rows.values():
        for name in FIXED:
            np.testing.assert_array_equal(getattr(one, name), getattr(rows["no-op"], name))


def test_seeds_differ(played):
    first, second = (one["no-op"] for one in played)
    assert not np.array_equal(first.accuracy, second.accuracy)


def test_nothing_done_is_the_twin_and_gains_nothing(rows):
    idle = rows["no-op"]
    np.testing.assert_array_equal(idle.accuracy, idle.twin_accuracy)
    np.testing.assert_array_equal(idle.objective, 0.0)
    assert not idle.adapted.any()


def test_the_oracle_is_right_wherever_it_can_act_and_nowhere_else(rows):
    oracle = rows["oracle"]
    np.testing.assert_array_equal(oracle.right, oracle.curable)
    np.testing.assert_array_equal(oracle.adapted, oracle.curable)
    assert (oracle.first >= oracle.struck).all()
    assert oracle.curable.sum() >= 5
    # It acts whenever it is due, and is no longer due when it has acted.
    np.testing.assert_array_equal(oracle.acted, oracle.due)


def test_who_is_due_is_faulty_and_struck(rows):
    for one in rows.values():
        happened = (np.arange(one.decisions) >= one.struck[:, None]) & one.faulty[:, None]
        assert not (one.due & ~happened).any()
        np.testing.assert_array_equal(one.struck == NEVER, ~one.faulty)


def test_only_the_networks_say_how_sure_they_are(rows):
    for name, one in rows.items():
        said = np.isfinite([getattr(one, column) for column in SAID])
        assert said.all() if name in ("clone", "learned") else not said.any()


def test_the_same_checkpoint_plays_the_same(rows):
    np.testing.assert_array_equal(rows["clone"].acted, rows["learned"].acted)
    np.testing.assert_array_equal(rows["clone"].objective, rows["learned"].objective)
    assert 0 < rows["clone"].acted.mean() < 1


class _Scripted:
    """Scales the learning rate of the first layer at the second decision."""

    name = "no-op"

    def begin(self, env, seed):
        self.moment = 0

    def act(self, env, observation):
        actions = np.zeros((env.num_envs, 3), np.int64)
        actions[:, 0], actions[:, 2] = self.moment == 1, 7
        self.moment += 1
        return Answer(actions)


def test_rows_are_what_the_environment_says(small_split, monkeypatch):
    monkeypatch.setattr(Lineup, "players", lambda _: [_Scripted()])
    [rows] = play(Job(small_split, 3, 20, Lineup(()))).values()
    env, player = TrainingVectorEnv(20, config=small_split.config, cohort_size=PROGRAM), _Scripted()
    observation, infos = env.reset(seed=small_split.seed(3))
    data = [one.spec.data for episode in env.episodes for one in episode.scenarios]
    player.begin(env, 0)
    total = np.zeros(20)
    for _ in range(small_split.config.decisions):
        observation, rewards, _, _, infos = env.step(player.act(env, observation).actions)
        total += rewards
    np.testing.assert_array_equal(rows.objective, total)
    np.testing.assert_array_equal(rows.accuracy, infos["accuracy"])
    np.testing.assert_array_equal(rows.twin_accuracy, infos["twin_accuracy"])
    np.testing.assert_array_equal(rows.fault, infos["fault_kind"])
    assert rows.data.tolist() == data
    assert (rows.first == 1).all()
    assert (rows.target[:, 1] == 0).all()
    assert (rows.type[:, 1] == 7).all()


def test_other_runs_at_the_start_are_noticed(small_split, monkeypatch):
    reset, starts = TrainingVectorEnv.reset, []

    def wandering(self, *, seed):
        starts.append(seed)
        return reset(self, seed=len(starts) // 3)

    monkeypatch.setattr(TrainingVectorEnv, "reset", wandering)
    with pytest.raises(RuntimeError, match="the same runs"):
        play(Job(small_split, 0, 2, Lineup(("random",))))


def test_jobs_come_back_in_order_and_are_reported(small_split, monkeypatch):
    monkeypatch.setattr(playing, "play", lambda job: job.index)
    jobs, done = [Job(small_split, seed, 2, Lineup(())) for seed in (2, 0, 1)], []
    assert play_all(jobs, on_done=done.append) == [2, 0, 1]
    assert done == jobs


@pytest.mark.slow
def test_processes_change_nothing(small_split, checkpoint):
    lineup = Lineup(("rules", "learned", "random"), learned=checkpoint)
    jobs, done = [Job(small_split, seed, 4, lineup) for seed in range(3)], []
    alone, together = play_all(jobs), play_all(jobs, workers=2, on_done=done.append)
    assert sorted(job.index for job in done) == [0, 1, 2]
    for one, other in zip(alone, together, strict=True):
        assert list(one) == list(other)
        for name in one:
            for column in ("objective", "acted", "confidence", "struck"):
                mine, theirs = getattr(one[name], column), getattr(other[name], column)
                np.testing.assert_array_equal(mine, theirs)


def test_faults_of_several_kinds_were_played(rows):
    assert len({KINDS[fault] for fault in rows["no-op"].fault}) >= 4
