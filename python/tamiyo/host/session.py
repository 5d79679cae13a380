"""One training run under observation: what the training loop talks to."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import nn

from tamiyo.contracts import (
    AdaptationDecision,
    AdaptationResult,
    ModelTopology,
    PerformanceMetrics,
)
from tamiyo.host.actions import HOOKS, Context
from tamiyo.host.desk import DecisionDesk, Mode
from tamiyo.host.executor import Executor
from tamiyo.host.faults import Faults
from tamiyo.host.governor import Governor
from tamiyo.host.inbox import DecisionInbox
from tamiyo.host.probe import LayerProbe, Sample
from tamiyo.host.readback import LossReader
from tamiyo.host.stats import SessionStats
from tamiyo.host.telemetry import Telemetry
from tamiyo.host.tracing import TopologyRecorder
from tamiyo.host.training import TrainingRun
from tamiyo.oona import OonaClient

__all__ = ["HostSession", "Mode"]

logger = logging.getLogger("tamiyo.host")

TRACE_WITHIN = 3
"""Steps to wait for a forward pass that can be recorded."""
ACTING = frozenset(("governor", "decisions", "executor", HOOKS))
"""Parts without which nothing may be applied."""


class HostSession:
    """Watches one run and, if allowed, applies decisions to it.

    Call `step(loss=...)` after each optimiser step. Nothing here raises into the training loop
    or waits in it; `remove()` leaves only plain torch modules behind. Where several processes train
    the same weights, a session only observes.

    Args:
        model: The model as the training loop calls it.
        optimizer: Its optimiser.
        client: The bus.
        run: Name of the run; decisions for another one are ignored.
        mode: `observe` only lists decisions as advice, `confirm` waits for `confirm(id)`,
            `autonomous` applies them.
        scheduler: Learning-rate scheduler, so that snapshots hold it.
        scaler: Gradient scaler, for the same reason.
        total_steps: Planned optimiser steps, to report progress.
        probe_budget: Share of the run's time for measuring layers.
        snapshot_budget: Share of the run's time for snapshots.
        snapshot_memory: Host memory for snapshots, in bytes; adaptations need one to return to.
        horizon: Steps for which an applied adaptation is watched.
        metrics_every: Steps between reports of metrics.

    Raises:
        ValueError: an unknown mode, a share outside [0, 1], or a number of steps below 1.
        BusClosedError: the bus is closed.
    """

    def __init__(  # noqa: PLR0913 - keywords with defaults, each described above
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        client: OonaClient,
        *,
        run: str,
        mode: Mode = "observe",
        scheduler: Any = None,
        scaler: torch.amp.GradScaler | None = None,
        total_steps: int | None = None,
        probe_budget: float = 0.01,
        snapshot_budget: float = 0.005,
        snapshot_memory: int = 4 << 30,
        horizon: int = 100,
        metrics_every: int = 100,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        for name, share in (("probe", probe_budget), ("snapshot", snapshot_budget)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}_budget must be in [0, 1], got {share}")
        for name, steps in (
            ("total_steps", total_steps),
            ("horizon", horizon),
            ("metrics_every", metrics_every),
        ):
            if steps is not None and steps < 1:
                raise ValueError(f"{name} must be at least 1, got {steps}")
        self.topology: ModelTopology | None = None
        """The model's layers, once a training step was traced."""
        self._name = run
        self._run = TrainingRun(model, optimizer, scheduler, scaler)
        alone = not self._run.other_ranks
        if not alone and mode != "observe":
            logger.warning("tamiyo: several processes train this model, so it is only observed")
        self.mode: Mode = mode if alone else "observe"
        self._faults = Faults()
        self._governor = Governor(
            self._run,
            snapshot_share=snapshot_budget if alone else 0.0,
            snapshot_memory=snapshot_memory,
            horizon=horizon,
        )
        self._telemetry = Telemetry(client, run)
        self._desk = DecisionDesk(DecisionInbox(client, run), self._publish_result)
        self._losses = LossReader()
        self._recorder = TopologyRecorder(model)
        self._probe: LayerProbe | None = None
        self._probe_budget = probe_budget
        self._total_steps = total_steps
        self._metrics_every = metrics_every
        self._step = self._epoch = 0
        self._loss_given = True
        self._paused = self._removed = False
        self._alarm: str | None = None
        self._last_sample: Sample | None = None
        self._own_time = 0.0
        self._started = time.perf_counter()
        self._guarded("trace", self._recorder.attach)

    def step(self, loss: torch.Tensor | float | None = None, *, epoch: int | None = None) -> None:
        """One optimiser step is done.

        Args:
            loss: The step's training loss. A tensor on a GPU is read one step later, without
                waiting for the device. Without losses nothing can be judged, so that
                `autonomous` acts like `confirm` until one is given.
            epoch: Training epoch, only to be reported.
        """
        if self._removed:
            return
        started = time.perf_counter()
        sample = self._last_sample
        self._step += 1
        self._epoch = self._epoch if epoch is None else epoch
        self._note_loss_given(loss is not None)
        if self.topology is None:
            self._guarded("trace", self._finish_trace)
        self._guarded("governor", self._observe_loss, loss)
        if self._probe is not None and (self._probe.armed or self._probe.pending):
            self._guarded("probe", self._collect_sample)
            if "probe" in self._faults.disabled:
                self._probe.disarm()
        if self._desk.has_mail:
            self._guarded("decisions", self._receive)
        self.apply_pending()
        if self._governor.trial is not None:
            self._guarded("executor", self._judge)
        if "governor" not in self._faults.disabled:
            self._guarded("snapshots", self._governor.consider_snapshot, self._step)
        changed, self._alarm = self._alarm != self._governor.alarm, self._governor.alarm
        # During an alarm, what the layers show is of use together with the loss of that moment.
        sampled = self._last_sample is not sample and self._alarm is not None
        if changed or sampled or self._step % self._metrics_every == 0:
            self._guarded("metrics", self._publish_metrics)
        if self._telemetry.waiting:
            self._guarded("control messages", self._telemetry.flush)
        if self._probe is not None and not self._paused:
            self._guarded("probe", self._arm_probe)
        self._own_time += time.perf_counter() - started

    def report(self, val_loss: float | None = None, val_accuracy: float | None = None) -> None:
        """Publish the result of an evaluation.

        Args:
            val_loss: Validation loss.
            val_accuracy: Validation accuracy in [0, 1].
        """
        if self._removed:
            return
        started = time.perf_counter()
        try:
            loss, accuracy = _finite(val_loss), _share(val_accuracy)
        except Exception as error:
            # One number that is no measurement must not end all further reports.
            self._faults.note("report", error, disable=False)
        else:
            self._guarded("metrics", self._publish_metrics, loss, accuracy)
        self._own_time += time.perf_counter() - started

    def apply_pending(self) -> None:
        """Apply what is approved. `step` does it too; call it only between optimiser steps."""
        if self._removed or self._paused or not self._desk.busy:
            return
        if failed := self._failed_parts():
            reason = f"not safe: {failed} failed earlier in this session"
            self._desk.refuse_all(self._step, reason)
            return
        self._guarded("executor", self._desk.apply_approved, self._step)
        self._guarded("trace", self._announce_changes)

    def confirm(self, decision_id: str) -> bool:
        """Allow a waiting decision; it is applied at the next step. False if none waits."""
        return self._desk.confirm(decision_id)

    def reject(self, decision_id: str) -> bool:
        """Refuse a waiting decision. False if none waits under this id."""
        return self._desk.reject(decision_id)

    @property
    def waiting(self) -> Sequence[AdaptationDecision]:
        """Decisions that wait for `confirm` or `reject`."""
        return self._desk.waiting

    @property
    def advice(self) -> Sequence[AdaptationDecision]:
        """The latest decisions of `observe` mode, which are never applied."""
        return tuple(self._desk.advice)

    @property
    def history(self) -> Sequence[tuple[AdaptationDecision, AdaptationResult]]:
        """Every decision that was answered, with its latest result."""
        return tuple(self._desk.history.values())

    def pause(self) -> None:
        """Apply nothing and measure no layers until `resume`.

        Losses are still watched, and an adaptation on trial is still judged and taken back.
        """
        self._paused = True

    def resume(self) -> None:
        """End a pause."""
        self._paused = False

    def remove(self) -> None:
        """Take all hooks off. What was adapted stays, in plain torch modules.

        An adaptation on trial is judged by what was seen so far. Scaled learning rates of
        single layers and gradient clipping live in optimiser hooks and end here. Seeds that the
        network does not feel yet are taken out, and others stay as they are.
        """
        if self._removed:
            return
        self._guarded("executor", self._desk.end, self._step)
        self._removed = True
        self._guarded("decisions", self._desk.inbox.close)
        self._recorder.detach()
        if self._probe is not None:
            self._probe.disarm()
        if self._desk.executor is not None:
            self._desk.executor.context.remove_hooks()
            self._guarded("seeds", self._desk.executor.context.seed_bed.settle)
        self._guarded("control messages", self._telemetry.flush)

    def stats(self) -> SessionStats:
        """What the session has done so far and what it cost."""
        good, probe, sample = self._governor.keeper.good, self._probe, self._last_sample
        hooks = probe.hook_time if probe is not None else 0.0
        scores = sample.columns["health_score"].tolist() if sample is not None else []
        known = [score for score in scores if not math.isnan(score)]
        return SessionStats(
            steps=self._step,
            samples=probe.samples if probe is not None else 0,
            mode=self._effective_mode,
            overhead=(self._own_time + hooks) / (time.perf_counter() - self._started),
            probe_overhead=probe.budget.overhead() if probe is not None else math.nan,
            health=sum(known) / len(known) if known else math.nan,
            measured=float(sample.measured.mean()) if sample is not None else math.nan,
            alarm=self._governor.alarm,
            snapshot_step=good.step if good is not None else None,
            outcomes={str(outcome): n for outcome, n in self._desk.outcomes.items()},
            ignored=dict(self._desk.inbox.ignored),
            lost={str(topic): n for topic, n in self._telemetry.lost.items()},
            errors=dict(self._faults.counts),
        )

    @property
    def _effective_mode(self) -> Mode:
        return "confirm" if self.mode == "autonomous" and not self._loss_given else self.mode

    def _failed_parts(self) -> str:
        return ", ".join(sorted(ACTING & self._faults.disabled))

    def _guarded(self, part: str, stage: Callable[..., object], *args: Any) -> None:
        if part not in self._faults.disabled:
            try:
                stage(*args)
            except Exception as error:
                self._faults.note(part, error)

    def _note_loss_given(self, given: bool) -> None:
        if self.mode == "autonomous" and self._loss_given and not given:
            logger.warning(
                "tamiyo: no loss was given to step(), so decisions wait for confirm() as in "
                "confirm mode"
            )
        self._loss_given = given

    def _finish_trace(self) -> None:
        if not self._recorder.complete and self._step < TRACE_WITHIN:
            return
        self._recorder.detach()
        layers = self._recorder.layers()
        self.topology = self._recorder.topology(self._name)
        self._telemetry.control(self.topology)
        self._probe = LayerProbe(self._run, layers, budget=self._probe_budget, faults=self._faults)
        context = Context(self._run, layers, faults=self._faults, activity=self._probe.activity)
        self._desk.executor = Executor(context, self._governor)

    def _announce_changes(self) -> None:
        """Publish the topology again if an adaptation has changed what it says."""
        if self.topology is not None:
            topology = self._recorder.topology(self._name)
            if topology != self.topology:
                self.topology = topology
                self._telemetry.control(topology)
                if self._probe is not None:
                    self._probe.refresh()

    def _observe_loss(self, loss: torch.Tensor | float | None) -> None:
        arrived = self._losses.pop() if loss is None else self._losses.push(self._step, loss)
        for step, value in arrived:
            self._governor.observe_loss(step, value)

    def _collect_sample(self) -> None:
        sample = self._probe.collect() if self._probe is not None else None
        if sample is not None:
            self._last_sample = sample
            self._governor.observe_sample(sample)
            self._telemetry.signals(sample, epoch=self._epoch)

    def _receive(self) -> None:
        self._desk.receive(self._step, self._effective_mode)

    def _judge(self) -> None:
        if self._desk.judge(self._step, self._failed_parts()):
            self._announce_changes()

    def _arm_probe(self) -> None:
        if self._probe is not None and self._probe.due(urgent=self._alarm is not None):
            self._probe.arm(self._step + 1)

    def _publish_result(self, result: AdaptationResult) -> None:
        self._telemetry.control(result)

    def _publish_metrics(
        self, val_loss: float | None = None, val_accuracy: float | None = None
    ) -> None:
        history, good = self._governor.history, self._governor.keeper.good
        loss, nonfinite = history.report()
        groups = self._run.optimizer.param_groups
        overhead = self._probe.budget.overhead() if self._probe is not None else None
        progress = min(1.0, self._step / self._total_steps) if self._total_steps else None
        self._telemetry.metrics(
            PerformanceMetrics(
                run=self._name,
                step=self._step,
                epoch=self._epoch,
                timestamp=time.time(),
                loss=loss,
                loss_level=history.slow_level,
                loss_nonfinite=nonfinite,
                validation_loss=val_loss,
                validation_accuracy=val_accuracy,
                learning_rate=_finite(groups[0].get("lr")) if groups else None,
                progress=progress,
                snapshot_step=good.step if good is not None else None,
                probe_overhead=overhead,
            )
        )


def _finite(value: Any) -> float | None:
    """The number, or `None` for a missing or non-finite one, which no metric can carry."""
    return float(value) if value is not None and math.isfinite(value) else None


def _share(value: Any) -> float | None:
    share = _finite(value)
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"an accuracy must be in [0, 1], got {share}")
    return share
