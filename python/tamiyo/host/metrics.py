"""What a run reports about the model as a whole."""

import math
import time
from typing import Any

from tamiyo.contracts import PerformanceMetrics
from tamiyo.host.governor import Governor
from tamiyo.host.telemetry import Telemetry
from tamiyo.host.training import TrainingRun

__all__ = ["MetricsReporter", "checked_share", "finite"]


class MetricsReporter:
    """Publishes the present metrics of a run.

    Args:
        run: The run.
        governor: Knows its losses, alarms and snapshots.
        telemetry: Where metrics go.
        name: The run's name.
        total_steps: Steps planned, if known.
    """

    def __init__(
        self,
        run: TrainingRun,
        governor: Governor,
        telemetry: Telemetry,
        *,
        name: str,
        total_steps: int | None,
    ) -> None:
        self._run = run
        self._governor = governor
        self._telemetry = telemetry
        self._name = name
        self._total_steps = total_steps

    def publish(
        self,
        step: int,
        epoch: int,
        *,
        probe_overhead: float | None,
        validation: tuple[float | None, float | None] = (None, None),
    ) -> None:
        """Publish them; the losses since the last report count once.

        Args:
            step: Optimiser steps done.
            epoch: Training epoch.
            probe_overhead: Share of the time that measuring takes, if anything is measured.
            validation: Loss and accuracy of an evaluation.
        """
        history, good = self._governor.history, self._governor.keeper.good
        loss, nonfinite = history.report()
        groups, total = self._run.optimizer.param_groups, self._total_steps
        self._telemetry.metrics(
            PerformanceMetrics(
                run=self._name,
                step=step,
                epoch=epoch,
                timestamp=time.time(),
                loss=loss,
                loss_level=history.slow_level,
                loss_nonfinite=nonfinite,
                validation_loss=validation[0],
                validation_accuracy=validation[1],
                learning_rate=finite(groups[0].get("lr")) if groups else None,
                progress=min(1.0, step / total) if total else None,
                snapshot_step=good.step if good is not None else None,
                alarm=self._governor.alarm,
                probe_overhead=probe_overhead,
            )
        )


def finite(value: Any) -> float | None:
    """The number, or `None` for a missing or non-finite one, which no metric can carry."""
    return float(value) if value is not None and math.isfinite(value) else None


def checked_share(value: Any) -> float | None:
    """The same for a share.

    Raises:
        ValueError: it is outside [0, 1].
    """
    share = finite(value)
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"an accuracy must be in [0, 1], got {share}")
    return share
