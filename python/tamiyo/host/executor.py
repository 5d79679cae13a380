"""Checks a decision, applies it to the live run between two steps, and takes it back."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tamiyo.contracts import AdaptationDecision, AdaptationResult, AdaptationType, Outcome
from tamiyo.host.actions import ACTIONS, Action, Context, Refusal
from tamiyo.host.actions.restore import usable
from tamiyo.host.governor import Governor
from tamiyo.host.results import describe, result_of, result_of_trial
from tamiyo.host.snapshot import RunSnapshot, TrainedParameters
from tamiyo.host.training import unwrap
from tamiyo.host.trial import Trial

__all__ = ["Executor"]

MOST_TARGETS = 4096


@dataclass(slots=True)
class Executor:
    """The only place that changes the user's model and optimiser.

    Whoever sent a decision, it is applied only if its type, layers and parameters are within the
    table of actions; that is the real protection against a forged or confused message.
    """

    context: Context
    governor: Governor
    actions: Mapping[AdaptationType, Action] = field(default_factory=lambda: ACTIONS)
    onset: int = 0
    """Steps after which the adaptation on trial has set in."""
    _put_back: Sequence[Callable[[], None]] = ()
    """Give the run's companions the values from before the adaptation on trial."""

    def check(self, decision: AdaptationDecision) -> tuple[Action, dict[str, float | str]]:
        """The action and its complete parameters.

        Raises:
            Refusal: the host cannot or may not do this.
        """
        action = self.actions.get(decision.adaptation)
        if action is None:
            raise Refusal(f"this host cannot apply {decision.adaptation}")
        self._check_target(action, decision.target)
        if decision.adaptation is AdaptationType.RESTORE:
            usable(self.governor.keeper.good)
        unknown = sorted(set(decision.parameters) - set(action.rules))
        if unknown:
            raise Refusal(f"unknown parameters: {', '.join(unknown)[:200]}")
        return action, {
            name: rule.check(name, decision.parameters.get(name))
            for name, rule in action.rules.items()
        }

    def objection(self, decision: AdaptationDecision) -> str:
        """Why the decision would be refused, as far as shows beforehand; empty if it may be."""
        try:
            self.check(decision)
        except Refusal as refusal:
            return str(refusal)
        return ""

    def apply(self, decision: AdaptationDecision, step: int) -> AdaptationResult:
        """Apply a decision after `step` optimiser steps; a trial begins if that succeeds.

        Never raises: a refusal or an error becomes the result, and an error leaves the run as it
        was, which is verified.
        """
        started = time.perf_counter()
        try:
            action, parameters = self.check(decision)
            before = self._capture(step)
        except Refusal as refusal:
            return result_of(decision, step, Outcome.REFUSED, str(refusal))
        except Exception as error:
            return result_of(decision, step, Outcome.FAILED, describe(error))
        context, good = self.context, self.governor.keeper.good
        context.before, context.good, context.seed = before, good, step
        self._put_back = [companion.remember() for companion in context.run.companions]
        try:
            undo = action.apply(context, decision.target, parameters)
        except Refusal as refusal:
            return result_of(decision, step, Outcome.REFUSED, str(refusal))
        except Exception as error:
            verified, trouble = self._take_back(before, random_state=True)
            reason = describe(error) + trouble
            return result_of(decision, step, Outcome.FAILED, reason, verified=verified)
        finally:
            # A snapshot is as large as the run; the trial alone says how long one is held.
            context.before = context.good = None
        lost = 0
        if decision.adaptation is AdaptationType.RESTORE and good is not None:
            lost = max(0, step - good.step)
            self._align_companions()
        trained = context.seed_bed.trained = TrainedParameters(context.run.optimizer)
        self.onset = action.onset(parameters)
        trial = self.governor.open_trial(
            decision,
            undo,
            before,
            trained,
            step,
            steps_lost=lost,
            duration_ms=(time.perf_counter() - started) * 1e3,
        )
        return result_of_trial(trial, step, Outcome.APPLIED, "")

    def verdict(self, step: int) -> tuple[Outcome, str] | None:
        """What is to become of the adaptation on trial; `None` while it is too early to say.

        One that sets in slowly is not kept before the losses that count for the verdict, the last
        quarter, are all of the network that feels it in full.
        """
        trial, verdict = self.governor.trial, self.governor.verdict(step)
        if trial is None or verdict is None or verdict[0] is not Outcome.KEPT:
            return verdict
        return verdict if 3 * (step - trial.step) >= 4 * self.onset else None

    def conclude(self, step: int, outcome: Outcome, reason: str) -> AdaptationResult:
        """End the trial with an outcome; `ROLLED_BACK` returns to the state before it.

        A rollback that does not succeed is `FAILED`, and nothing more is applied in this session.

        Raises:
            RuntimeError: no adaptation is on trial.
        """
        trial = self.governor.trial
        if trial is None:
            raise RuntimeError("no adaptation is on trial")
        if outcome is not Outcome.ROLLED_BACK:
            self._put_back = ()
            self.governor.close_trial(step, rolled_back=False)
            return result_of_trial(trial, step, outcome, reason)
        started = time.perf_counter()
        verified, trouble = self._take_back(trial.before, trial, random_state=False)
        self.governor.close_trial(step, rolled_back=True)
        trial.steps_lost = step - trial.step
        trial.duration_ms += (time.perf_counter() - started) * 1e3
        outcome = outcome if verified else Outcome.FAILED
        return result_of_trial(trial, step, outcome, reason + trouble, verified=verified)

    def _capture(self, step: int) -> RunSnapshot:
        before = self.governor.keeper.capture(step)
        if before is None:
            raise Refusal("no room in the memory budget for a snapshot to return to")
        return before

    def _take_back(
        self, before: RunSnapshot, trial: Trial | None = None, *, random_state: bool
    ) -> tuple[bool, str]:
        """Whether the run is as it was, and else what went wrong, to be added to a reason."""
        try:
            if trial is not None:
                self._check_still_fits(trial)
                trial.undo()
            before.restore(random_state=random_state)
            _check_restored(before.verify(random_state=random_state))
            for put_back in self._put_back:
                put_back()
            self._align_companions()
        except Exception as error:
            self.context.faults.note("executor", error)
            return False, f"; taking it back failed: {describe(error)}"
        return True, ""

    def _align_companions(self) -> None:
        for companion in self.context.run.companions:
            companion.align(unwrap(self.context.run.model))

    def _check_still_fits(self, trial: Trial) -> None:
        if trial.trained.unchanged():
            return
        # Values of before can no longer be put back, but hooks and rates can be taken off.
        if trial.decision.adaptation is not AdaptationType.RESTORE:
            trial.undo()
        raise RuntimeError("the optimiser was given other parameters since")

    def _check_target(self, action: Action, target: tuple[int, ...]) -> None:
        layers = self.context.layers
        if not target and not action.whole_model:
            raise Refusal(f"{action.type} needs at least one layer")
        if len(target) > MOST_TARGETS or len(set(target)) != len(target):
            raise Refusal("a target names each layer once")
        for layer_id in target:
            if not 0 <= layer_id < len(layers):
                raise Refusal(f"unknown layer {layer_id}")
            if not action.applies_to(layers, layer_id):
                raise Refusal(f"{action.type} cannot be applied to layer {layer_id}")


def _check_restored(verified: bool) -> None:
    if not verified:
        raise RuntimeError("the restored state differs from the one that was kept")
