"""`tamiyo.attach`: a training run and its controller in one process.

The only file that knows both sides. They still meet on the bus alone, so that the same host can
be controlled from another machine.
"""

import asyncio
import logging
import math
import threading
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from tamiyo.contracts import AdaptationDecision, AdaptationResult, ModelTopology
from tamiyo.host import HostSession, Mode
from tamiyo.oona import OonaClient, connect
from tamiyo.policy import DecisionPolicy
from tamiyo.service import ServiceConfig, TamiyoService

__all__ = ["Control", "Pace", "attach"]

log = logging.getLogger(__name__)

Pace = Literal["realtime", "lockstep"]
STOP_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
"""Longest wait for a controller in lockstep; one that takes longer has died."""


def attach(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    mode: Mode = "observe",
    policy: DecisionPolicy | None = None,
    total_steps: int | None = None,
    journal: str | Path | None = None,
    run: str | None = None,
    pace: Pace = "realtime",
    think_share: float = 0.01,
    **host_options: Any,
) -> "Control":
    """Put Tamiyo beside a training run.

    Call `control.step(loss=loss)` after every `optimizer.step()`, and
    `control.report(val_loss=..., val_accuracy=...)` after an evaluation. Nothing in these calls
    raises into the loop or waits for the controller. In a data-parallel run, do so on every rank.

    Example:
        >>> with tamiyo.attach(model, optimizer, mode="autonomous") as control:
        ...     for inputs, labels in loader:
        ...         optimizer.zero_grad()
        ...         loss = criterion(model(inputs), labels)
        ...         loss.backward()
        ...         optimizer.step()
        ...         control.step(loss=loss)

    Args:
        model: The model that is trained. It is traced during its next training step.
        optimizer: Its optimiser.
        mode: `observe` only advises, `confirm` applies what is confirmed, `autonomous` applies
            what its checks let pass and takes back what hurts.
        policy: Who decides; by default the policy that ships with the package, and published rules
            (`RulesPolicy`) where there is none or it cannot be relied on.
        total_steps: Optimiser steps planned for the run, if known.
        journal: File for the decision journal.
        run: Name of the run; by default a new one.
        pace: `realtime` thinks in a thread beside the training loop. `lockstep` thinks inside
            `control.step()` whenever a sample was published, which costs training time but makes
            a seeded run repeatable: for experiments.
        think_share: Share of the time that the thread may think while nothing is wrong.
        **host_options: Further options of `tamiyo.host.HostSession`, such as `scheduler`,
            `scaler`, `companions` (averages of the weights that have to change their shape with
            the model) or `probe_budget`.

    Raises:
        ValueError: an unknown mode or pace, a share out of range, or a model without parameters.
        JournalError: the journal exists and is damaged.
        OSError: the journal cannot be written.
    """
    if pace not in ("realtime", "lockstep"):
        raise ValueError(f"pace must be 'realtime' or 'lockstep', got {pace!r}")
    run = run or f"run-{uuid.uuid4().hex[:12]}"
    client = connect("memory://")
    host = HostSession(
        model, optimizer, client, run=run, mode=mode, total_steps=total_steps, **host_options
    )
    try:
        config = ServiceConfig(
            think_share=think_share,
            journal=Path(journal) if journal is not None and host.leads else None,
        )
        service = TamiyoService(client, policy, run=run, config=config)
    except BaseException:
        host.remove()
        raise
    # Of several processes that train the same weights, one thinks.
    return Control(host, _ControllerThread(service, client, pace) if host.leads else None, service)


class _ControllerThread:
    """Runs a service on an event loop in a thread of its own, so that it works inside notebooks,
    whose threads run a loop already.
    """  # noqa: D205

    def __init__(self, service: TamiyoService, client: OonaClient, pace: Pace) -> None:
        self._service = service
        self._client = client
        self._lockstep = pace == "lockstep"
        self._failed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="tamiyo", daemon=True)
        self._thread.start()

    def after_step(self) -> None:
        """In lockstep, think about what is new; the host finds the decision at its next step."""
        if not self._lockstep or self._failed:
            return
        try:
            if not self._service.has_news():
                return
            advance = asyncio.run_coroutine_threadsafe(self._service.advance(), self._loop)
            advance.result(PATIENCE_SECONDS)
        except Exception:
            self._failed = True
            log.exception("the controller stopped; training goes on without it")

    def stop(self) -> None:
        # A controller that has died has closed its loop, and there is nothing left to stop.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._service.stop)
        self._thread.join(STOP_SECONDS)

    def _main(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            log.exception("the controller stopped; training goes on without it")
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        try:
            await self._service.run(thinking=not self._lockstep)
        finally:
            await self._client.close()


class Control:
    """The handle of an attached run. Use it as a context manager, or call `remove()` at the end."""

    def __init__(
        self,
        host: HostSession,
        controller: _ControllerThread | None,
        service: TamiyoService,
    ) -> None:
        self._host = host
        self._controller = controller
        self._service = service
        self._removed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def step(self, loss: Tensor | float | None = None, *, epoch: int | None = None) -> None:
        """Tell that an optimiser step was made, with its training loss and, if known, its epoch.

        Without losses nothing can be judged, so `autonomous` then waits for `confirm`.
        """
        self._host.step(loss, epoch=epoch)
        if self._controller is not None:
            self._controller.after_step()

    def report(self, *, val_loss: float | None = None, val_accuracy: float | None = None) -> None:
        """Tell the result of an evaluation on held-out data; accuracy in [0, 1]."""
        self._host.report(val_loss=val_loss, val_accuracy=val_accuracy)

    def confirm(self, decision_id: str) -> bool:
        """Allow a decision that waits; it is applied at the next step. False if none waits."""
        return self._host.confirm(decision_id)

    def reject(self, decision_id: str) -> bool:
        """Refuse a decision that waits. False if none waits."""
        return self._host.reject(decision_id)

    def pause(self) -> None:
        """Keep observing, apply nothing."""
        self._host.pause()

    def resume(self) -> None:
        """Apply decisions again."""
        self._host.resume()

    def state_dict(self) -> dict[str, Any]:
        """The adaptations in force, to be saved beside the states of model and optimiser.

        It consists of dictionaries, lists, strings and numbers only, so that
        `torch.load(..., weights_only=True)` reads it. Not part of it are the losses seen so far,
        snapshots, and what the controller remembers; an adaptation that is still under watch
        counts as kept. Call it between two optimiser steps.

        Example:
            >>> torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
            ...             "tamiyo": control.state_dict()}, path)
        """
        return self._host.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved run was; *first* this, then the states of model and optimiser.

        The model is given the structure that it had, the optimiser the parameters that it trained,
        and seeds, learning rates of single layers and gradient clipping are as they were.

        Example:
            >>> model, optimizer = build()
            >>> control = tamiyo.attach(model, optimizer, run=saved["tamiyo"]["run"])
            >>> control.load_state_dict(saved["tamiyo"])
            >>> model.load_state_dict(saved["model"])
            >>> optimizer.load_state_dict(saved["optimizer"])

        Raises:
            StructureError: model or optimiser are not those that were saved; nothing was changed.
            RuntimeError: the run has begun already.
        """
        self._host.load_state_dict(state)

    def remove(self) -> None:
        """Take everything of Tamiyo off the model and stop the controller. Twice is harmless."""
        if self._removed:
            return
        self._removed = True
        self._host.remove()
        if self._controller is not None:
            self._controller.stop()

    @property
    def topology(self) -> ModelTopology | None:
        """The traced model, once its first step was recorded."""
        return self._host.topology

    @property
    def policy(self) -> DecisionPolicy:
        """Who decides."""
        return self._service.policy

    @property
    def history(self) -> Sequence[tuple[AdaptationDecision, AdaptationResult]]:
        """Every decision that was answered, with its latest result."""
        return self._host.history

    @property
    def advice(self) -> Sequence[AdaptationDecision]:
        """What mode `observe` would have done, latest last."""
        return self._host.advice

    @property
    def waiting(self) -> Sequence[AdaptationDecision]:
        """Decisions that wait for `confirm` or `reject`."""
        return self._host.waiting

    def health(self) -> dict[str, float]:
        """Health score in [0, 1] of each layer at its last sample; NaN where none was measured."""
        if self.topology is None:
            return {}
        columns = self._service.collector.get_layer_aggregates()
        measured = dict(
            zip(columns["layer_id"].tolist(), columns["health_score_last"].tolist(), strict=True)
        )
        return {node.name: measured.get(node.layer_id, math.nan) for node in self.topology.nodes}

    def stats(self) -> dict[str, Any]:
        """What host and controller counted and measured, in plain types."""
        return {"host": asdict(self._host.stats()), "service": self._service.stats()}
