"""Watches the run: raises alarms, keeps a good snapshot, judges an adaptation on probation."""

import math

from tamiyo.contracts import AdaptationDecision, Outcome
from tamiyo.host.actions import Undo
from tamiyo.host.drift import WeightDrift
from tamiyo.host.keeper import SnapshotKeeper
from tamiyo.host.sample import Sample
from tamiyo.host.snapshot import RunSnapshot, TrainedParameters
from tamiyo.host.training import TrainingRun
from tamiyo.host.trial import WINDOWS, Trial
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
        self._validation: float | None = None
        self._sample_alarm: str | None = None
        self._sample_trouble = False

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
        watches = self._samples
        self._sample_alarm = next((name for name in watches if watches[name].alarm), None)
        self._sample_trouble = any(watch.suspicious for watch in watches.values())

    def loss_before(self) -> float | None:
        """Level to compare with after an adaptation: recent in an alarm, robust otherwise."""
        return self.history.level(short=self.alarm is not None)

    def observe_validation(self, loss: float) -> None:
        """The loss of an evaluation on held-out data."""
        if self.trial is not None:
            self.trial.validations.append(loss)
        else:
            self._validation = loss if math.isfinite(loss) else None

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
        healthy = self.alarm is None
        self._drift.restart(step, compare=healthy)
        self.trial = Trial(
            decision,
            undo,
            before,
            trained,
            step,
            self.horizon,
            self.loss_before(),
            self.history.spread(),
            self.initial_loss,
            latest=self.history.level(short=True) if healthy else None,
            noise=self.history.noise(),
            latest_noise=self.history.noise(LossHistory.RECENT // 2),
            pace=self.history.pace() if healthy else 0.0,
            rates=self._drift.rates,
            unscheduled=self._drift.unscheduled,
            stillest=self._drift.stillest,
            shares=self._drift.shares,
            steady=self._drift.steady,
            validation=self._validation,
            steps_lost=steps_lost,
            duration_ms=duration_ms,
        )
        return self.trial

    def close_trial(self, step: int, *, rolled_back: bool) -> None:
        """End the watch after `step` optimiser steps."""
        trial, self.trial = self.trial, None
        if rolled_back:
            self._drift.restart(step, compare=False)
            return
        self._drift.forget()
        if trial is not None and trial.validations:
            self._validation = trial.validations[-1]

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
            return Outcome.ROLLED_BACK, "it brought in values that are not finite"
        return verdict
