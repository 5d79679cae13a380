"""One training run under observation: what the training loop talks to."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tamiyo.contracts import (
    AdaptationDecision,
    AdaptationResult,
    AdaptationType,
    ModelTopology,
)
from tamiyo.host.acting import Acting
from tamiyo.host.actions import ACTIONS, Action, Context
from tamiyo.host.budget import TimeBudget
from tamiyo.host.companions import Companion
from tamiyo.host.compiled import EagerSteps
from tamiyo.host.desk import DecisionDesk, Mode
from tamiyo.host.executor import Executor
from tamiyo.host.faults import Faults
from tamiyo.host.governor import Governor
from tamiyo.host.inbox import DecisionInbox
from tamiyo.host.intake import LossIntake
from tamiyo.host.layers import Layers
from tamiyo.host.metrics import MetricsReporter, checked_share, finite
from tamiyo.host.options import check_options
from tamiyo.host.probe import LayerProbe
from tamiyo.host.sample import Sample
from tamiyo.host.state import State, capture, restore, resume
from tamiyo.host.stats import SessionStats
from tamiyo.host.structure import begin
from tamiyo.host.telemetry import Telemetry
from tamiyo.host.tracing import TopologyRecorder
from tamiyo.host.training import TrainingRun
from tamiyo.oona import OonaClient

__all__ = ["HostSession", "Mode"]

TRACE_WITHIN = 3
"""Steps to wait for a forward pass that can be recorded."""


class HostSession:
    """Watches one run and, if allowed, applies decisions to it.

    Call `step(loss=...)` after each optimiser step. Nothing here raises into the training loop
    or waits in it; `remove()` leaves only plain torch modules behind.

    Where several processes train the same weights through `DistributedDataParallel`, each of them
    has a session. That of rank 0 observes, reports and decides; all of them apply what it decides,
    at the same step, or none does. Other ways to train in several processes are only observed.

    Args:
        model: The model as the training loop calls it.
        optimizer: Its optimiser.
        client: The bus.
        run: Name of the run; decisions for another one are ignored.
        mode: `observe` only lists decisions as advice, `confirm` waits for `confirm(id)`,
            `autonomous` applies them.
        scheduler: Learning-rate scheduler, so that snapshots hold it.
        scaler: Gradient scaler, for the same reason.
        companions: Copies of the model that the program keeps, such as `AveragedModel`s, which
            have to change their shape with it.
        total_steps: Planned optimiser steps, to report progress.
        probe_budget: Share of the run's time for measuring layers.
        probe_every: Measure every so many steps, whatever it costs, instead.
        snapshot_budget: Share of the run's time for snapshots.
        snapshot_memory: Host memory for snapshots, in bytes; adaptations need one to return to.
        horizon: Steps for which an applied adaptation is watched.
        metrics_every: Steps between reports of metrics.
        actions: What may be applied at all.

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
        companions: Sequence[nn.Module] = (),
        total_steps: int | None = None,
        probe_budget: float = 0.01,
        probe_every: int | None = None,
        snapshot_budget: float = 0.005,
        snapshot_memory: int = 4 << 30,
        horizon: int = 100,
        metrics_every: int = 100,
        actions: Mapping[AdaptationType, Action] = ACTIONS,
    ) -> None:
        check_options(
            mode,
            shares={"probe_budget": probe_budget, "snapshot_budget": snapshot_budget},
            counts={
                "total_steps": total_steps,
                "horizon": horizon,
                "metrics_every": metrics_every,
                "probe_every": probe_every,
            },
        )
        self.topology: ModelTopology | None = None
        """The model's layers, once a training step was traced."""
        self._name = run
        copies = [Companion(companion, model) for companion in companions]
        self._run = TrainingRun(model, optimizer, scheduler, scaler, copies)
        self.mode: Mode = mode
        self._faults = Faults()
        alone = not self._run.other_ranks
        # Snapshots that several processes do not share are of no use.
        share = snapshot_budget if alone or mode != "observe" else 0.0
        self._governor = Governor(
            self._run, snapshot_share=share, snapshot_memory=snapshot_memory, horizon=horizon
        )
        self._telemetry = Telemetry(client, run)
        self._metrics = MetricsReporter(
            self._run, self._governor, self._telemetry, name=run, total_steps=total_steps
        )
        self._desk = DecisionDesk(DecisionInbox(client, run), self._publish_result)
        self._eager = EagerSteps(model, optimizer)
        self._acting = Acting(
            self._run,
            desk=self._desk,
            governor=self._governor,
            faults=self._faults,
            eager=self._eager,
            announce=self._announce_changes,
        )
        if not alone:
            self._governor.keeper = self._acting.keeper(share=share, memory=snapshot_memory)
        if self._acting.follows:
            self._desk.inbox.close()
        self._intake = LossIntake(self._governor)
        self._recorder = TopologyRecorder(model)
        self._probe: LayerProbe | None = None
        self._budget, self._probe_every = TimeBudget(probe_budget), probe_every
        self._metrics_every = metrics_every
        self._actions = actions
        self._step = self._epoch = 0
        self._removed = False
        self._alarm: str | None = None
        self._last_sample: Sample | None = None
        self._own_time = 0.0
        self._started = time.perf_counter()
        self._guarded("trace", self._trace)

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
        self._step += 1
        self._epoch = self._epoch if epoch is None else epoch
        # A rank that follows judges nothing, and would keep its losses forever.
        if not self._acting.follows:
            self._guarded("governor", self._intake.take, self._step, loss)
        resting = self._intake.resting(self._step, started)
        if not resting or self._desk.has_mail or self._desk.busy:
            self._look(started, loss_given=loss is not None)
        self._own_time += time.perf_counter() - started

    @property
    def leads(self) -> bool:
        """Whether this process speaks for the run: the only one, or that of rank 0."""
        return not self._acting.follows

    def report(self, val_loss: float | None = None, val_accuracy: float | None = None) -> None:
        """Publish the result of an evaluation.

        Args:
            val_loss: Validation loss.
            val_accuracy: Validation accuracy in [0, 1].
        """
        if self._removed or self._acting.follows:
            return
        started = time.perf_counter()
        try:
            loss, accuracy = finite(val_loss), checked_share(val_accuracy)
        except Exception as error:
            # One number that is no measurement must not end all further reports.
            self._faults.note("report", error, disable=False)
        else:
            self._guarded("governor", self._intake.hand_over)
            if val_loss is not None:
                observe = self._governor.observe_validation
                self._guarded("governor", observe, float(val_loss), accuracy)
            self._guarded("metrics", self._publish_metrics, loss, accuracy)
        self._own_time += time.perf_counter() - started

    def apply_pending(self) -> None:
        """Apply what is approved. `step` does it too; call it only between optimiser steps."""
        if not self._removed:
            self._guarded("governor", self._intake.hand_over)
            self._acting.apply_pending(self._step)

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
        self._acting.paused = True

    def resume(self) -> None:
        """End a pause."""
        self._acting.paused = False

    def remove(self) -> None:
        """Take all hooks off. What was adapted stays, in plain torch modules.

        An adaptation on trial is judged by what was seen so far. Scaled learning rates of
        single layers and gradient clipping live in optimiser hooks and end here. Seeds that the
        network does not feel yet are taken out, and others stay as they are.
        """
        if self._removed:
            return
        self._guarded("governor", self._intake.hand_over)
        self._acting.end(self._step)
        self._removed = True
        self._guarded("decisions", self._desk.inbox.close)
        self._recorder.detach()
        if self._probe is not None:
            self._probe.disarm()
        self._eager.end()
        self._guarded("control messages", self._telemetry.flush)

    def state_dict(self) -> State:
        """See `tamiyo.Control.state_dict`."""
        executor = self._desk.executor
        return {
            "run": self._name,
            "step": self._step,
            "epoch": self._epoch,
            "notes": list(self._recorder.notes),
            **capture(self._run, executor.context if executor is not None else None),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `tamiyo.Control.load_state_dict`."""
        if self._step or self.topology is not None or self._removed:
            raise RuntimeError("load the state right after attaching, before the first step")
        layers = restore(self._run, state)
        self._acting.restructured()
        self._step, self._epoch = state["step"], state["epoch"]
        if layers is not None:
            self._recorder.adopt(layers, state["notes"])
            self._begin(layers)
        if self._desk.executor is not None:
            resume(self._desk.executor.context, state)

    def stats(self) -> SessionStats:
        """What the session has done so far and what it cost."""
        good, probe, sample = self._governor.keeper.good, self._probe, self._last_sample
        hooks = probe.hook_time if probe is not None else 0.0
        return SessionStats(
            steps=self._step,
            samples=probe.samples if probe is not None else 0,
            mode=self._desk.in_effect(self.mode),
            overhead=(self._own_time + hooks) / (time.perf_counter() - self._started),
            probe_overhead=probe.budget.overhead() if probe is not None else math.nan,
            health=sample.health if sample is not None else math.nan,
            measured=float(sample.measured.mean()) if sample is not None else math.nan,
            alarm=self._governor.alarm,
            snapshot_step=good.step if good is not None else None,
            outcomes={str(outcome): n for outcome, n in self._desk.outcomes.items()},
            ignored=dict(self._desk.inbox.ignored),
            lost={str(topic): n for topic, n in self._telemetry.lost.items()},
            errors=dict(self._faults.counts),
        )

    def _look(self, now: float, *, loss_given: bool) -> None:
        """Everything that may have to be done between two steps."""
        self._eager.tick()
        if self.topology is None:
            self._guarded("trace", self._trace)
        if self.topology is not None and self._acting.undecided:
            self._guarded("ranks", self._join_ranks)
        if self._acting.follows:
            self._acting.act(self._step)
            return
        sample = self._last_sample
        self._desk.note_loss(loss_given, self.mode)
        self._guarded("governor", self._intake.hand_over)
        if self._probe is not None and (self._probe.armed or self._probe.pending):
            self._guarded("probe", self._collect_sample)
            if "probe" in self._faults.disabled:
                self._probe.disarm()
        if self._desk.has_mail:
            self._guarded("decisions", self._receive)
        self._acting.act(self._step)
        self._report_changes(sampled=self._last_sample is not sample)
        if self._probe is not None and not self._acting.paused:
            self._guarded("probe", self._arm_probe)
        if self._at_rest():
            self._intake.rest(self._step, now, self._metrics_every, self._probe_every)

    def _at_rest(self) -> bool:
        """Whether nothing is under way that the next step must be looked at for."""
        probe = self._probe
        if probe is None or probe.armed or probe.pending or self._telemetry.waiting:
            return False
        return self._governor.at_rest and self._acting.at_rest and not self._eager.possible

    def _report_changes(self, *, sampled: bool) -> None:
        changed, self._alarm = self._alarm != self._governor.alarm, self._governor.alarm
        # During an alarm, what the layers show is of use together with the loss of that moment.
        if changed or (sampled and self._alarm) or self._step % self._metrics_every == 0:
            self._guarded("metrics", self._publish_metrics)
        if self._telemetry.waiting:
            self._guarded("control messages", self._telemetry.flush)

    def _guarded(self, part: str, stage: Callable[..., object], *args: Any) -> None:
        self._faults.attempt(part, stage, *args)

    def _trace(self) -> None:
        """Record the next step, or take what was recorded."""
        if self._recorder.complete or self._step >= TRACE_WITHIN:
            self._recorder.detach()
            self._begin(self._recorder.layers())
        elif self._eager.record():
            self._recorder.attach()

    def _begin(self, layers: Layers) -> None:
        """The layers are known: announce them, and be ready to measure and to act."""
        self._guarded("state", begin, self._recorder.model)
        self.topology = self._recorder.topology(self._name)
        if self.leads:
            self._telemetry.control(self.topology)
        self._probe = LayerProbe(
            self._run,
            layers,
            budget=self._budget,
            every=self._probe_every,
            faults=self._faults,
            eager=self._eager,
        )
        context = Context(self._run, layers, faults=self._faults, activity=self._probe.activity)
        self._desk.executor = Executor(context, self._governor, self._actions)

    def _join_ranks(self) -> None:
        executor = self._desk.executor
        if executor is not None:
            self._recorder.detach()
            wrapper, wants = self._recorder.wrapper, self.mode != "observe"
            if not self._acting.join(executor, wrapper, wants_to_act=wants):
                self.mode = "observe"

    def _announce_changes(self) -> None:
        """Publish the topology again if an adaptation has changed what it says."""
        self._guarded("trace", self._compare_topology)

    def _compare_topology(self) -> None:
        if self.topology is not None:
            topology = self._recorder.topology(self._name)
            if topology != self.topology:
                self.topology = topology
                self._telemetry.control(topology)
                if self._probe is not None:
                    self._probe.refresh()

    def _collect_sample(self) -> None:
        sample = self._probe.collect() if self._probe is not None else None
        if sample is not None:
            self._last_sample = sample
            self._governor.observe_sample(sample)
            executor = self._desk.executor
            seeds = executor.context.seed_bed if executor is not None else ()
            self._telemetry.signals(sample, epoch=self._epoch, seeds=seeds)

    def _receive(self) -> None:
        self._desk.receive(self._step, self._desk.in_effect(self.mode))

    def _arm_probe(self) -> None:
        if self._probe is not None and self._probe.due(self._step, urgent=self._alarm is not None):
            self._probe.arm(self._step + 1)

    def _publish_result(self, result: AdaptationResult) -> None:
        if self.leads:
            self._telemetry.control(result)

    def _publish_metrics(
        self, val_loss: float | None = None, val_accuracy: float | None = None
    ) -> None:
        overhead = self._probe.budget.overhead() if self._probe is not None else None
        self._metrics.publish(
            self._step, self._epoch, probe_overhead=overhead, validation=(val_loss, val_accuracy)
        )
