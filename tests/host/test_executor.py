"""What happens when applying or taking back goes wrong, or the user changes the run meanwhile."""

import pytest
import torch
from torch import nn

from tamiyo.contracts import AdaptationType, Outcome, Topic
from tamiyo.host import HostSession, RunSnapshot, TrainingRun
from tamiyo.host.actions.base import MOST_HOOKS
from tamiyo.host.snapshot import state_bytes

SCALE, CLIP = AdaptationType.SCALE_LEARNING_RATE, AdaptationType.CLIP_GRADIENTS


@pytest.fixture
def attached(loop, client, decide):
    """A run that trains, and `send(type, target, ...)`, which decides and makes one step."""

    def attached(name="mlp", optimizer="sgd", **options):
        run = loop(name, optimizer)
        options = {"mode": "autonomous", **options}
        run.session = HostSession(run.model, run.optimizer, client, run="run", **options)

        def send(*args, **parameters):
            decision = decide(*args, **parameters)
            client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
            run.step()
            return results(run)[decision.decision_id]

        return run, send

    return attached


def results(run):
    return {decision.decision_id: result for decision, result in run.session.history}


class Stubborn(torch.optim.lr_scheduler.ConstantLR):
    def load_state_dict(self, state_dict):
        raise RuntimeError("not today")


def test_a_rollback_that_fails_says_so_and_nothing_more_is_applied(attached, loop, client):
    run, send = attached()
    run.session.remove()
    scheduler = Stubborn(run.optimizer, 1.0)
    run.session = HostSession(
        run.model, run.optimizer, client, run="run", mode="autonomous", scheduler=scheduler
    )
    run.steps(60)
    assert send(SCALE, factor=1e3).outcome is Outcome.APPLIED
    run.steps(60)
    result = results(run)["d1"]
    assert result.outcome is Outcome.FAILED
    assert result.verified is False
    assert "not today" in result.reason
    assert send(SCALE, name="d2", factor=0.5).outcome is Outcome.REFUSED


def test_a_group_that_the_user_added_survives(attached):
    run, send = attached(snapshot_budget=1.0)
    run.steps(150)
    assert run.session.stats().snapshot_step is not None
    extra = nn.Parameter(torch.zeros(3))
    run.optimizer.add_param_group({"params": [extra]})
    result = send(AdaptationType.RESTORE)
    assert result.outcome is Outcome.REFUSED
    assert "other parameters" in result.reason
    assert run.optimizer.param_groups[1]["params"] == [extra]


def test_a_group_that_the_user_added_during_a_trial_survives(attached):
    run, send = attached()
    run.steps(60)
    assert send(SCALE, (0, 2, 4), factor=1e3).outcome is Outcome.APPLIED
    extra = nn.Parameter(torch.zeros(3))
    run.optimizer.add_param_group({"params": [extra]})
    run.steps(60)
    result = results(run)["d1"]
    assert result.outcome is Outcome.FAILED
    assert result.verified is False
    assert "other parameters" in result.reason
    assert run.optimizer.param_groups[1]["params"] == [extra]
    assert not run.optimizer._optimizer_step_post_hooks
    assert send(SCALE, name="d2", factor=0.5).outcome is Outcome.REFUSED


def test_a_trial_whose_judge_failed_is_taken_back(attached):
    run, send = attached()
    run.steps(40)
    before = run.optimizer.param_groups[0]["lr"]
    assert send(SCALE, factor=0.5).outcome is Outcome.APPLIED
    run.session.step(loss="no number")
    assert run.session.stats().errors == {"governor": 1}
    result = results(run)["d1"]
    assert result.outcome is Outcome.ROLLED_BACK
    assert "governor failed" in result.reason
    assert result.verified is True
    assert run.optimizer.param_groups[0]["lr"] == before


def test_an_adaptation_whose_hook_failed_does_not_count_as_applied(attached):
    run, send = attached()
    run.steps(3)
    assert send(CLIP, (0,), ratio=1.0).outcome is Outcome.APPLIED
    run.backward()
    run.optimizer.grad_scale = torch.ones(7, 7)
    with pytest.raises(AssertionError):
        run.optimizer.step()  # torch itself refuses; the hook before it must not raise
    run.optimizer.grad_scale = None
    run.step()
    assert run.session.stats().errors == {"adaptation hooks": 1}
    result = results(run)["d1"]
    assert result.outcome is Outcome.ROLLED_BACK
    assert "hooks failed" in result.reason
    assert send(CLIP, (0,), name="d2", ratio=1.0).outcome is Outcome.REFUSED


def test_hooks_do_not_pile_up(attached):
    run, send = attached(horizon=1)
    run.steps(3)
    outcomes = []
    for number in range(MOST_HOOKS + 2):
        outcomes.append(send(CLIP, name=f"d{number}", ratio=1.0).outcome)
        run.steps(2)
    assert outcomes == [Outcome.APPLIED] * MOST_HOOKS + [Outcome.REFUSED] * 2
    assert len(run.optimizer._optimizer_step_pre_hooks) <= MOST_HOOKS + 1


def test_a_module_that_the_user_removed_fails_one_decision_only(attached):
    run, send = attached()
    run.steps(3)
    removed = run.model[3]
    del run.model[3]
    assert send(AdaptationType.CHANGE_ACTIVATION, (3,), to="gelu").outcome is Outcome.FAILED
    run.model.append(removed)
    assert "executor" not in run.session.stats().errors


def test_an_adaptation_fits_into_the_memory_of_two_snapshots(attached):
    run, send = attached("mlp", "adamw")
    run.steps(1)
    two = 2 * state_bytes(TrainingRun(run.model, run.optimizer))
    run.session.remove()
    run, send = attached("mlp", "adamw", snapshot_memory=two, snapshot_budget=1.0, horizon=5)
    run.steps(150)
    assert run.session.stats().snapshot_step is not None
    assert send(SCALE, factor=0.5).outcome is Outcome.APPLIED


def test_a_snapshot_is_not_held_longer_than_its_trial(attached):
    run, send = attached(horizon=2)
    run.steps(3)
    send(SCALE, factor=0.5)
    run.steps(4)
    context = run.session._desk.executor.context
    assert results(run)["d1"].outcome is Outcome.KEPT
    assert context.before is None
    assert context.good is None


def test_an_expanded_buffer_is_restored(loop):
    run = loop("mlp")
    run.model.register_buffer("positions", torch.zeros(1, 4).expand(3, 4))
    snapshot = RunSnapshot(TrainingRun(run.model, run.optimizer), 0)
    run.model.positions[:1].fill_(7.0)
    snapshot.restore()
    assert snapshot.verify()
    assert not run.model.positions.any()


def test_a_restore_that_is_refused_leaves_a_trial_alone(attached):
    run, send = attached()
    run.steps(3)
    assert send(SCALE, factor=0.5).outcome is Outcome.APPLIED
    result = send(AdaptationType.RESTORE, name="d2")
    assert (result.outcome, result.reason) == (
        Outcome.REFUSED,
        "there is no known good snapshot yet",
    )
    assert results(run)["d1"].outcome is Outcome.APPLIED
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize(("blending", "steps"), [(1.0, 7), (20.0, 32)])
def test_a_seed_is_not_kept_before_it_was_felt_in_full(attached, blending, steps):
    run, send = attached(horizon=4)
    run.steps(30)
    seed = {"units": 1.0, "training_steps": 3.0, "blending_steps": blending, "holding_steps": 1.0}
    assert send(AdaptationType.ADD_SEED, (0,), **seed).outcome is Outcome.APPLIED
    for _ in range(40):
        if results(run)["d1"].outcome is not Outcome.APPLIED:
            break
        run.step()
    assert results(run)["d1"].outcome is Outcome.KEPT
    assert results(run)["d1"].step == 31 + steps


def test_a_seed_that_hurts_is_taken_out_before_it_was_felt_in_full(attached):
    run, send = attached(horizon=4)
    run.steps(30)
    assert send(AdaptationType.ADD_SEED, (0,), blending_steps=500.0).outcome is Outcome.APPLIED
    run.step()
    run.session.step(loss=float("nan"))
    result = results(run)["d1"]
    assert (result.outcome, result.verified) == (Outcome.ROLLED_BACK, True)
    assert type(run.model[0]) is nn.Linear
