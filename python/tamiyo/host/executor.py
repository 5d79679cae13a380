"""Checks a decision, applies it to the live run between two steps, and takes it back."""

import time
from dataclasses import dataclass

from tamiyo.contracts import AdaptationDecision, AdaptationResult, AdaptationType, Outcome
from tamiyo.host.actions import ACTIONS, Action, Context, Refusal
from tamiyo.host.governor import Governor
from tamiyo.host.results import result_of, result_of_trial
from tamiyo.host.snapshot import RunSnapshot
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

    def check(self, decision: AdaptationDecision) -> tuple[Action, dict[str, float | str]]:
        """The action and its complete parameters.

        Raises:
            Refusal: the host cannot or may not do this.
        """
        action = ACTIONS.get(decision.adaptation)
        if action is None:
            raise Refusal(f"this host cannot apply {decision.adaptation}")
        self._check_target(action, decision.target)
        unknown = sorted(set(decision.parameters) - set(action.rules))
        if unknown:
            raise Refusal(f"unknown parameters: {', '.join(unknown)[:200]}")
        return action, {
            name: rule.check(name, decision.parameters.get(name))
            for name, rule in action.rules.items()
        }

    def apply(self, decision: AdaptationDecision, step: int) -> AdaptationResult:
        """Apply a decision after `step` optimiser steps; a trial begins if that succeeds.

        Never raises: a refusal or an error becomes the result, and an error leaves the run as it
        was, which is verified.
        """
        started = time.perf_counter()
        try:
            action, parameters = self.check(decision)
        except Refusal as refusal:
            return result_of(decision, step, Outcome.REFUSED, str(refusal))
        if not self.governor.keeper.has_room():
            reason = "no room in the memory budget for a snapshot to return to"
            return result_of(decision, step, Outcome.REFUSED, reason)
        context = self.context
        before = RunSnapshot(context.run, step)
        context.before, context.good, context.seed = before, self.governor.keeper.good, step
        try:
            undo = action.apply(context, decision.target, parameters)
        except Refusal as refusal:
            return result_of(decision, step, Outcome.REFUSED, str(refusal))
        except Exception as error:
            before.restore()
            reason = f"{type(error).__name__}: {error}"
            return result_of(decision, step, Outcome.FAILED, reason, verified=before.verify())
        lost = 0
        if decision.adaptation is AdaptationType.RESTORE and context.good is not None:
            lost = max(0, step - context.good.step)
        self.governor.trial = trial = Trial(
            decision,
            undo,
            before,
            step,
            self.governor.horizon,
            self.governor.loss_before(),
            self.governor.history.spread(),
            self.governor.initial_loss,
            steps_lost=lost,
            duration_ms=(time.perf_counter() - started) * 1e3,
        )
        return result_of_trial(trial, step, Outcome.APPLIED, "")

    def conclude(self, step: int, outcome: Outcome, reason: str) -> AdaptationResult:
        """End the trial with an outcome; `ROLLED_BACK` returns to the state before it.

        Raises:
            RuntimeError: no adaptation is on trial.
        """
        trial = self.governor.trial
        if trial is None:
            raise RuntimeError("no adaptation is on trial")
        self.governor.trial = None
        if outcome is not Outcome.ROLLED_BACK:
            return result_of_trial(trial, step, outcome, reason)
        started = time.perf_counter()
        trial.undo()
        trial.before.restore(random_state=False)
        verified = trial.before.verify(random_state=False)
        trial.steps_lost = step - trial.step
        trial.duration_ms += (time.perf_counter() - started) * 1e3
        return result_of_trial(trial, step, outcome, reason, verified=verified)

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
