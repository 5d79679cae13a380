"""An environment of which everything is known stands for the runs: one fault, one cure."""

import numpy as np
import pytest
import torch

from tamiyo.graph.schema import GLOBAL_COLUMNS
from tamiyo.learn.graphs import FIELDS
from tamiyo.learn.imitation.demonstrations import Demonstrations, LessonPlan, demonstrate
from tamiyo.learn.segments import TARGETS

RUNS, NODES, STEPS = 24, 3, 10
CURE = np.array([1, 1, 4])
WHOLE_CURE = np.array([1, NODES, 4])
HEALTH = [column.name for column in GLOBAL_COLUMNS].index("health_mean")
GAIN, HARM = 0.3, 0.2


class Ward:
    """Even runs fall ill at decision 2 and are mended by `CURE`; every other action harms.

    Run 0 is mended by `WHOLE_CURE` instead.
    """

    def __init__(self, graphs):
        self.num_envs = RUNS
        self._graphs = {name: np.asarray(column) for name, column in graphs.items()}
        self._graphs["action_mask"][..., 4] = True
        self._graphs["model_action_mask"][..., 4] = True

    def reset(self, *, seed):
        self.seed, self.moment = seed, 0
        self.ill = np.zeros(RUNS, bool)
        return self._observe(), {}

    def step(self, actions):
        cured = self.ill & (actions == self._cure).all(1)
        harmed = (actions[:, 0] == 1) & ~cured
        self.moment += 1
        self.ill &= ~cured
        if self.moment == 2:
            self.ill = np.arange(RUNS) % 2 == 0
        over = np.full(RUNS, self.moment == STEPS)
        if over[0]:
            self.moment, self.ill = 0, np.zeros(RUNS, bool)
        return self._observe(), GAIN * cured - HARM * harmed, over, np.zeros(RUNS, bool), {}

    def oracle_actions(self):
        return np.where(self.ill[:, None], self._cure, 0)

    @property
    def _cure(self):
        return np.stack([WHOLE_CURE] + [CURE] * (RUNS - 1))

    def _observe(self):
        seen = {name: column.copy() for name, column in self._graphs.items()}
        seen["global_features"][:, HEALTH] = 0.05 * self.moment
        seen["global_measured"][:, HEALTH] = True
        return seen


@pytest.fixture
def ward(make_graphs):
    return Ward(make_graphs([NODES] * RUNS))


def target(demonstrations, name):
    return demonstrations.targets[:, TARGETS.index(name)]


def test_the_expert_is_recorded_whatever_is_done(ward):
    plan = LessonPlan(late=1.0, patience=0.5, wander=0.0, keep_idle=1.0)
    found = demonstrate(ward, 1, seed=0, plan=plan)
    assert len(found) == RUNS * STEPS
    adapt = found.action.adapt.view(STEPS, RUNS)
    assert not adapt[:, 1::2].any()
    assert not adapt[:2].any()
    # Until it is mended, which comes late, the answer is the cure again and again.
    waited = adapt[:, ::2].sum(0)
    assert waited.min() >= 2
    assert waited.max() > 3
    assert found.action.target.view(STEPS, RUNS)[2, 0] == -1
    assert (found.action.target.view(STEPS, RUNS)[2, 2::2] == 1).all()
    assert (found.action.type[found.action.adapt] == 4).all()
    assert (found.action.target[~found.action.adapt] == -1).all()


def test_prompt_cures_come_at_once(ward):
    plan = LessonPlan(late=0.0, wander=0.0, keep_idle=1.0)
    adapt = demonstrate(ward, 1, seed=0, plan=plan).action.adapt.view(STEPS, RUNS)
    assert adapt[:, ::2].sum(0).tolist() == [1] * (RUNS // 2)


def test_outcomes_are_those_that_were_measured(ward):
    plan = LessonPlan(late=0.0, wander=0.2, keep_idle=1.0)
    found = demonstrate(ward, 2, seed=1, plan=plan)
    wanted, safety = found.action.adapt, target(found, "safety")
    assert (safety[wanted] == 1.0).all()
    torch.testing.assert_close(
        target(found, "urgency")[wanted], torch.full((int(wanted.sum()),), GAIN)
    )
    assert (target(found, "urgency")[~wanted] == 0.0).all()
    wandered = ~wanted & ~safety.isnan()
    assert wandered.sum() > 10
    assert (safety[wandered] == 0.0).all()
    torch.testing.assert_close(
        target(found, "risk")[wandered], torch.full((int(wandered.sum()),), HARM)
    )


def test_gains_end_where_the_next_action_begins(ward):
    plan = LessonPlan(late=1.0, patience=0.2, wander=0.0, keep_idle=1.0)
    found = demonstrate(ward, 1, seed=0, plan=plan)
    urgency = target(found, "urgency").view(STEPS, RUNS)
    held_back = found.action.adapt.view(STEPS, RUNS) & urgency.isnan()
    assert held_back.any()
    assert (urgency[~held_back] >= 0.0).all()


def test_returns_are_those_of_following_the_expert_from_there_on(ward):
    plan = LessonPlan(late=0.5, patience=0.6, wander=0.0, keep_idle=1.0)
    found = demonstrate(ward, 1, seed=0, plan=plan)
    returns, adapt = (column.view(STEPS, RUNS) for column in (found.returns, found.action.adapt))
    assert (returns[:, 1::2] == 0.0).all()
    sick = returns[:, ::2]
    cure = adapt[:, ::2] * torch.arange(STEPS)[:, None]
    mended_at = cure.max(0).values
    moment = torch.arange(STEPS)[:, None]
    # The last answer was followed, those before it were not.
    late = mended_at > 2
    assert 0 < late.sum() < len(late)
    assert sick[moment.expand_as(sick) > mended_at].eq(0.0).all()
    torch.testing.assert_close(sick.gather(0, mended_at[None])[0], torch.full((RUNS // 2,), GAIN))
    unfollowed = (moment < mended_at) & late
    assert sick[unfollowed].isnan().all()
    torch.testing.assert_close(sick[:2, ~late], torch.full((2, int((~late).sum())), GAIN))


def test_what_a_pupil_reaches_says_nothing_of_the_expert(ward, make_network):
    plan = LessonPlan(late=0.0, wander=0.0, keep_idle=1.0)
    found = demonstrate(ward, 1, seed=0, plan=plan, pupil=make_network())
    unknown = found.returns.view(STEPS, RUNS).isnan()
    assert (unknown.all(0) | ~unknown.any(0)).all()
    assert 0.25 < unknown.all(0).float().mean() < 0.75


def test_trends_look_ahead_and_end_with_the_episode(ward):
    plan = LessonPlan(keep_idle=1.0)
    trend = target(demonstrate(ward, 1, seed=0, plan=plan), "health_trend").view(STEPS, RUNS)
    torch.testing.assert_close(trend[:6], torch.full((6, RUNS), 0.2))
    assert trend[6:].isnan().all()


def test_idle_states_that_are_left_out_are_made_up_for(ward):
    plan = LessonPlan(keep_idle=0.25)
    found = demonstrate(ward, 6, seed=0, plan=plan)
    idle = ~found.action.adapt
    assert set(found.weights[idle].tolist()) == {4.0}
    assert set(found.weights[~idle].tolist()) == {1.0}
    total = float(found.weights.sum())
    assert total == pytest.approx(6 * RUNS * STEPS, rel=0.1)


def test_a_pupil_decides_in_half_of_the_runs_and_the_expert_corrects(ward, make_network):
    pupil = make_network()
    torch.nn.init.constant_(pupil.heads.head("adapt").last.bias, 20.0)
    plan = LessonPlan(late=0.0, wander=0.0, keep_idle=1.0)
    found = demonstrate(ward, 1, seed=0, plan=plan, pupil=pupil)
    busy = (~target(found, "safety").isnan()).view(STEPS, RUNS).sum(0) == STEPS
    assert 0.25 < busy.float().mean() < 0.75
    assert found.action.adapt.view(STEPS, RUNS)[2, ::2].all()


def test_the_same_seed_gives_the_same_demonstrations(ward, make_network, tmp_path):
    pupil = make_network()
    one, same, other = (demonstrate(ward, 2, seed=s, pupil=pupil) for s in (3, 3, 4))
    one.save(tmp_path / "one.safetensors")
    read = Demonstrations.load(tmp_path / "one.safetensors")
    for again in (same, read):
        for name in FIELDS:
            assert torch.equal(one.observations[name], again.observations[name])
        for name in ("adapt", "target", "type"):
            assert torch.equal(getattr(one.action, name), getattr(again.action, name))
        assert torch.equal(one.weights, again.weights)
        for name in ("targets", "returns"):
            column, same_column = getattr(one, name), getattr(again, name)
            torch.testing.assert_close(column, same_column, equal_nan=True, rtol=0, atol=0)
    assert len(other) != len(one) or not torch.equal(one.action.adapt, other.action.adapt)


def test_parts_go_together_and_apart(ward):
    one, other = demonstrate(ward, 1, seed=0), demonstrate(ward, 1, seed=1)
    both = Demonstrations.concatenate([one, other])
    assert len(both) == len(one) + len(other)
    tail = both[torch.arange(len(one), len(both))]
    assert torch.equal(tail.action.target, other.action.target)
    assert torch.equal(tail.observations["x"], other.observations["x"])
