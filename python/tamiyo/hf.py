"""Tamiyo as a Hugging Face callback: `Trainer(callbacks=[TamiyoCallback(mode="confirm")])`."""

from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tamiyo.control import Control, attach

__all__ = ["TamiyoCallback"]


class TamiyoCallback(TrainerCallback):
    """Attaches Tamiyo when training begins and takes it off when it ends.

    The Trainer hands no loss to its callbacks, so the model's own output is watched for one.

    Args:
        accuracy: Name of the accuracy among the evaluation's metrics, in [0, 1].
        **options: Options of `tamiyo.attach`, such as `mode` or `journal`.
    """

    def __init__(self, *, accuracy: str = "eval_accuracy", **options: Any) -> None:
        self.control: Control | None = None
        """The handle of the run, from the start of training on."""
        self._accuracy = accuracy
        self._options = options
        self._losses: list[torch.Tensor] = []
        self._handle: RemovableHandle | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Attach."""
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        self._handle = model.register_forward_hook(self._note_loss)
        defaults: dict[str, Any] = {
            "scheduler": kwargs.get("lr_scheduler"),
            "total_steps": state.max_steps,
        }
        raw = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        self.control = attach(model, raw, **defaults | self._options)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Step, with the mean loss of the batches that were accumulated."""
        if self.control is not None:
            loss = torch.stack(self._losses).mean() if self._losses else None
            self._losses.clear()
            self.control.step(loss=loss, epoch=int(state.epoch or 0))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Report the evaluation."""
        metrics = kwargs.get("metrics") or {}
        if self.control is not None:
            self.control.report(
                val_loss=metrics.get("eval_loss"), val_accuracy=metrics.get(self._accuracy)
            )

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Take everything off."""
        if self._handle is not None:
            self._handle.remove()
        if self.control is not None:
            self.control.remove()

    def _note_loss(self, model: torch.nn.Module, _inputs: Any, output: Any) -> None:
        loss = output.get("loss") if hasattr(output, "get") else getattr(output, "loss", None)
        if model.training and loss is not None:
            self._losses.append(loss.detach().float().mean())
