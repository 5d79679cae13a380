"""Watches the run: raises alarms, keeps a good snapshot, judges an adaptation on probation."""

import math
from collections.abc import Sequence

from tamiyo.contracts import AdaptationDecision, Outcome
from tamiyo.host.actions import Undo
from tamiyo.host.drift import WeightDrift
from tamiyo.host.keeper import SnapshotKeeper
from tamiyo.host.sample import Sample
from tamiyo.host.snapshot import RunSnapshot, TrainedParameters
from tamiyo.host.training import TrainingRun
from tamiyo.host.trial import WINDOWS, Trial, Validation
from tamiyo.host.watch import LossHistory, RobustWatch

__all__ = ["Governor"]

_SMALLEST = -45.0
"""Logarithm that stands for a norm of zero: the smallest positive float32."""


class Governor:
    """Reads the loss at each step, gradient norm and update ratio at samples, weights now and then.

    Args:
        run: The run.
        snapshot_share: Share of the run's time for snapshots.
        snapshot_memory: Bytes of host memory for snapshots.
        proof: Healthy steps that make a snapshot a good one.
        horizon: Steps for which an adaptation is watched.
    """

    def __init__(
        self,
        run: TrainingRun,
        *,
        snapshot_share: float = 0.005,
        snapshot_memory: int = 4 << 30,
        proof: int = 50,
        horizon: int = 100,
    ) -> None:
        self.history = LossHistory()
        self.keeper = SnapshotKeeper(run, share=snapshot_share, memory=snapshot_memory, proof=proof)
        self.trial: Trial | None = None
        """The adaptation on probation."""
        self.horizon = horizon
        self._loss = RobustWatch()
        # Norms vary over decades in a healthy run, so their logarithm is watched. Samples are
        # rare, so few in a row are enough.
        self._samples = {
            name: RobustWatch(
                minimum=8,
                raise_at=4,
                clear_at=2,
                raise_after=2,
                clear_after=2,
                relative_floor=0,
                initial_floor=0,
                absolute_floor=0.375,
            )
            for name in ("gradient norm", "update ratio")
        }
        self._drift = WeightDrift(run, window=max(1, horizon // WINDOWS))
        self._validation: Validation | None = None
        self._validated = 0
        """Losses that were seen when it was reported."""
        self._calm = 0
        """Losses that were seen when nothing was wrong with them for the last time."""
        self._losses_before: Sequence[float] = ()
        """The last ones before the trial."""
        self._sample_alarm: str | None = None
        self._sample_trouble = False
        self._cut_off = False

    @property
    def alarm(self) -> str | None:
        """What is wrong, in words; `None` while nothing is."""
        return "loss" if self._loss.alarm else self._sample_alarm

    @property
    def at_rest(self) -> bool:
        """Whether nothing is wrong, suspected or on trial."""
        return self.alarm is None and self.trial is None and not self._loss.suspicious

    @property
    def loss_bound(self) -> float:
        """Losses up to this one are nothing remarkable."""
        return self._loss.bound

    @property
    def next_look(self) -> int:
        """The step after which `consider_snapshot` wants to be called, if nothing happens."""
        return self._drift.due

    @property
    def initial_loss(self) -> float:
        """Level at which the loss started; 0 while it is not known."""
        return self._loss.initial or 0.0

    def observe_loss(self, step: int, loss: float) -> None:
        """The loss of a step, computed before that step's update."""
        self.history.observe(loss)
        self._loss.observe(loss)
        if not self._loss.suspicious:
            self._calm = self.history.seen
        if self.trial is not None and step > self.trial.step:
            self.trial.observe(loss)

    def observe_sample(self, sample: Sample) -> None:
        """What the probe saw of a step."""
        for name, value in (
            ("gradient norm", sample.gradient_norm),
            ("update ratio", sample.update_ratio),
        ):
            if not math.isnan(value):
                self._samples[name].observe(math.log10(value) if value > 0 else _SMALLEST)
        self._cut_off = sample.cut_off
        watches = self._samples
        self._sample_alarm = next((name for name in watches if watches[name].alarm), None)
        self._sample_trouble = any(watch.suspicious for watch in watches.values())

    def loss_before(self) -> float | None:
        """Level to compare with after an adaptation; `None` if it is not finite or not known.

        It is that of the run as it is now: after a jump of the losses since then, otherwise the
        recent one in an alarm and the robust one without.
        """
        usual = LossHistory.SHORT if self.alarm else LossHistory.RECENT
        return self.history.level(min(self._jumped, LossHistory.SHORT) or usual)

    def observe_validation(self, loss: float, accuracy: float | None = None) -> None:
        """An evaluation on held-out data; an accuracy is in [0, 1]."""
        found = Validation(loss, accuracy)
        if self.trial is not None:
            self.trial.validations.append(found)
        else:
            self._validate(found if math.isfinite(loss) else None)

    def open_trial(
        self,
        decision: AdaptationDecision,
        undo: Undo,
        before: RunSnapshot,
        trained: TrainedParameters,
        step: int,
        *,
        steps_lost: int = 0,
        duration_ms: float = 0.0,
    ) -> Trial:
        """Watch an adaptation that was applied after `step` optimiser steps; see `Trial`."""
        # A run in trouble is no measure of how fast its loss should fall or its weights move.
        jumped = bool(self._jumped)
        healthy = self.alarm is None and not jumped
        stale = (self._loss.alarm or jumped) and self._validated <= self._calm
        level, self._losses_before = self.loss_before(), self.history.recent
        self._drift.restart(step, compare=healthy)
        self.trial = Trial(
            decision,
            undo,
            before,
            trained,
            step,
            self.horizon,
            level,
            self.history.spread(),
            self.initial_loss,
            latest=self.history.level(LossHistory.SHORT) if healthy else None,
            noise=self.history.noise(),
            latest_noise=self.history.noise(LossHistory.RECENT // 2),
            pace=self.history.pace() if healthy else 0.0,
            rates=self._drift.rates,
            unscheduled=self._drift.unscheduled,
            stillest=self._drift.stillest,
            shares=self._drift.shares,
            steady=self._drift.steady,
            validation=None if stale else self._validation,
            diverged=level is None and self.history.seen > 0,
            cut_off=self._cut_off,
            steps_lost=steps_lost,
            duration_ms=duration_ms,
        )
        return self.trial

    def close_trial(self, step: int, *, rolled_back: bool) -> None:
        """End the watch after `step` optimiser steps."""
        trial, self.trial = self.trial, None
        if rolled_back:
            self._drift.restart(step, compare=False)
            self.history.recall(self._losses_before)
            if trial is not None and trial.validation is not None:
                self._validate(trial.validation)
            return
        self._drift.forget()
        if trial is not None and trial.validations:
            self._validate(trial.validations[-1])

    def consider_snapshot(self, step: int) -> None:
        """Let the keeper go on after a step. Without losses nothing is checked and nothing kept."""
        self._drift.observe(step)
        trouble = self._loss.suspicious or self._sample_trouble
        if trouble or self.trial is not None:
            self.keeper.drop_candidate()
        elif self._loss.ready:
            self.keeper.consider(step, checks=self.history.seen)

    def verdict(self, step: int, *, last: bool = False) -> tuple[Outcome, str] | None:
        """What is to become of the adaptation on probation, if it can be said; see `Trial`."""
        trial = self.trial
        if trial is None:
            return None
        verdict = trial.verdict(step, last=last)
        ends = verdict is not None and verdict[0] is Outcome.KEPT
        # Not every value shows in the training loss: statistics of a normalisation do not.
        if (ends or step == trial.step) and trial.before.broken_since():
            return self.hurt("it brought in values that are not finite")
        if verdict is not None and verdict[0] is Outcome.ROLLED_BACK:
            return self.hurt(verdict[1])
        return verdict

    def hurt(self, reason: str) -> tuple[Outcome, str]:
        """What is to become of an adaptation on probation that cannot be kept.

        It is taken back, unless the run was broken before it: it cannot be worse than that.

        Raises:
            RuntimeError: no adaptation is on trial.
        """
        trial = self.trial
        if trial is None:
            raise RuntimeError("no adaptation is on trial")
        if trial.diverged or trial.before.broken(self.keeper.good):
            return Outcome.FAILED, f"{reason}; it stays, because the run was broken before it"
        return Outcome.ROLLED_BACK, reason

    @property
    def _jumped(self) -> int:
        """Losses since a jump that has not been made good; 0 without one."""
        return self.history.since_jump(self._loss.bound)

    def _validate(self, found: Validation | None) -> None:
        """Take an evaluation for that of the run as it is now."""
        self._validation, self._validated = found, self.history.seen
