"""Tamiyo as a Lightning callback: `Trainer(callbacks=[TamiyoCallback(mode="confirm")])`.

Works with both distributions, `lightning` and `pytorch_lightning`, whichever the program uses.
"""

import logging
import sys
from typing import TYPE_CHECKING, Any

import torch

from tamiyo.control import Control, attach

if TYPE_CHECKING or "pytorch_lightning" not in sys.modules:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    from pytorch_lightning import Callback, LightningModule, Trainer

__all__ = ["TamiyoCallback"]

log = logging.getLogger(__name__)


class TamiyoCallback(Callback):
    """Attaches Tamiyo when fitting starts and takes it off when fitting ends, however it ends.

    Losses come from `training_step`, evaluations from what the module logs as `val_loss` and
    `val_accuracy` (or the names given here). A module with several optimisers is left alone, with
    a warning.

    Args:
        val_loss: Name under which the module logs its validation loss.
        val_accuracy: Name under which the module logs its validation accuracy, in [0, 1].
        **options: Options of `tamiyo.attach`, such as `mode` or `journal`.
    """

    def __init__(
        self, *, val_loss: str = "val_loss", val_accuracy: str = "val_accuracy", **options: Any
    ) -> None:
        super().__init__()
        self.control: Control | None = None
        """The handle of the run, from the start of fitting on."""
        self._val_loss = val_loss
        self._val_accuracy = val_accuracy
        self._options = options
        self._steps = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach."""
        if len(trainer.optimizers) != 1:
            log.warning("tamiyo: %d optimisers, only one is supported", len(trainer.optimizers))
            return
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._steps = trainer.global_step
        planned = trainer.estimated_stepping_batches
        defaults: dict[str, Any] = {
            "scheduler": schedulers[0] if schedulers else None,
            "total_steps": int(planned) if planned != float("inf") else None,
        }
        self.control = attach(pl_module, trainer.optimizers[0], **defaults | self._options)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Step, if this batch completed an optimiser step."""
        if self.control is None or trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            # Lightning divides the loss by the number of accumulated batches.
            loss = loss * trainer.accumulate_grad_batches
        self.control.step(loss=loss, epoch=trainer.current_epoch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the evaluation."""
        if self.control is None or trainer.sanity_checking:
            return
        metrics = trainer.callback_metrics
        self.control.report(
            val_loss=_number(metrics.get(self._val_loss)),
            val_accuracy=_number(metrics.get(self._val_accuracy)),
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take everything off."""
        self._remove()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take everything off."""
        self._remove()

    def _remove(self) -> None:
        if self.control is not None:
            self.control.remove()


def _number(value: torch.Tensor | None) -> float | None:
    return None if value is None else float(value)
