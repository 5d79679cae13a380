"""Tamiyo as a Lightning callback: `Trainer(callbacks=[TamiyoCallback(mode="confirm")])`.

Works with both distributions, `lightning` and `pytorch_lightning`, whichever the program uses.
"""

import logging
import sys
from typing import TYPE_CHECKING, Any

import torch

from tamiyo.control import Control, attach
from tamiyo.host import rebuild

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

    Adaptations are part of Lightning's own checkpoints. With this callback in the trainer,
    `ckpt_path=...` brings a freshly built module back into the form that it was saved in.

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
        self._saved: dict[str, Any] = {}
        """State of the checkpoint that fitting resumes from."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See to it that a checkpoint finds the module in the form that it was saved in.

        Lightning loads weights before it hands callbacks their state; the module's own hook is the
        only one that comes first.
        """
        hook = pl_module.on_load_checkpoint

        def rebuild_first(checkpoint: dict[str, Any]) -> None:
            vars(pl_module).pop("on_load_checkpoint", None)
            if state := checkpoint.get("callbacks", {}).get(self.state_key):
                rebuild(pl_module, state)
            hook(checkpoint)

        vars(pl_module)["on_load_checkpoint"] = rebuild_first

    def state_dict(self) -> dict[str, Any]:
        """What goes into a checkpoint."""
        return self.control.state_dict() if self.control is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What comes out of it; used as soon as fitting starts."""
        self._saved = state_dict

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach."""
        if len(trainer.optimizers) != 1:
            log.warning("tamiyo: %d optimisers, only one is supported", len(trainer.optimizers))
            return
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        planned = trainer.estimated_stepping_batches
        defaults: dict[str, Any] = {
            "scheduler": schedulers[0] if schedulers else None,
            "total_steps": int(planned) if planned != float("inf") else None,
        }
        saved, self._saved = self._saved, {}
        if saved:
            defaults["run"] = saved["run"]
        self.control = attach(pl_module, trainer.optimizers[0], **defaults | self._options)
        if saved:
            self.control.load_state_dict(saved)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count; where fitting is resumed, Lightning has its own count back by now."""
        self._steps = trainer.global_step

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook behind on a module that no checkpoint was loaded into."""
        vars(pl_module).pop("on_load_checkpoint", None)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let a step be traced that does not call the module itself but its parts."""
        if self.control is not None and self.control.topology is None:
            _call_through_forward(pl_module)

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


def _call_through_forward(module: LightningModule) -> None:
    """Make the next `training_step` a call of the module, so that its forward hooks see it."""
    step, own = module.training_step, vars(module)
    names = ("forward", "training_step")
    before: dict[str, Any] = {name: own[name] for name in names if name in own}

    def put_back() -> None:
        for name in names:
            own.pop(name, None)
        own.update(before)

    def inside(*args: Any, **kwargs: Any) -> Any:
        put_back()  # for what the step itself calls
        return step(*args, **kwargs)

    def redirected(*args: Any, **kwargs: Any) -> Any:
        own["forward"] = inside
        try:
            return module(*args, **kwargs)
        finally:
            put_back()

    own["training_step"] = redirected


def _number(value: torch.Tensor | None) -> float | None:
    return None if value is None else float(value)
