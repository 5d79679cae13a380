"""Tamiyo as a Hugging Face callback: `Trainer(callbacks=[TamiyoCallback(mode="confirm")])`."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tamiyo.control import Control, attach
from tamiyo.host import rebuild
from tamiyo.host.faults import Hook

__all__ = ["TamiyoCallback"]

log = logging.getLogger(__name__)

STATE_FILE = "tamiyo.json"
"""File in a checkpoint's folder."""
SAMPLED = 1024
"""Scalars per tensor by which a checkpoint is recognised."""


class TamiyoCallback(TrainerCallback):
    """Attaches Tamiyo when training begins and takes it off when it ends.

    The Trainer hands no loss to its callbacks, so the model's own output is watched for one.

    Each checkpoint of the Trainer gets a file with the adaptations. `resume_from_checkpoint` then
    brings a freshly built model back into the form that it was saved in. The Trainer loads weights
    before it calls any callback and does not say from where, so a checkpoint is recognised by its
    weights. Models that the Trainer makes itself (`model_init`) cannot be resumed.

    Args:
        accuracy: Name of the accuracy among the evaluation's metrics, in [0, 1].
        checkpoints: Folder with the checkpoints that may be resumed; by default the Trainer's
            `output_dir`.
        **options: Options of `tamiyo.attach`, such as `mode` or `journal`.
    """

    def __init__(
        self,
        *,
        accuracy: str = "eval_accuracy",
        checkpoints: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.control: Control | None = None
        """The handle of the run, from the start of training on."""
        self._accuracy = accuracy
        self._options = options
        self._checkpoints = checkpoints
        self._saved: dict[str, Any] = {}
        """State of the checkpoint whose weights the model has."""
        self._losses: list[torch.Tensor] = []
        self._handle: RemovableHandle | None = None

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """See to it that a checkpoint's weights find the model in the form that it was saved in."""
        model = kwargs.get("model")
        folder = Path(self._checkpoints or args.output_dir or ".")

        def prepare(module: torch.nn.Module, weights: Mapping[str, Any], *_: Any) -> None:
            self._saved = _saved_with(weights, folder)
            if self._saved:
                rebuild(module, self._saved)

        if model is not None:
            model.register_load_state_dict_pre_hook(Hook(prepare))

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
        saved, self._saved = self._saved, {}
        if saved:
            defaults["run"] = saved["run"]
        self.control = attach(model, raw, **defaults | self._options)
        if saved:
            self.control.load_state_dict(saved)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Put the adaptations into the checkpoint that was just saved."""
        folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        if self.control is None or not state.is_world_process_zero or not folder.is_dir():
            return
        weights = kwargs["model"].state_dict()
        content = {"state": self.control.state_dict(), "weights": _fingerprints(weights)}
        temporary = folder / f"{STATE_FILE}.tmp"
        try:
            temporary.write_text(json.dumps(content))
            temporary.replace(folder / STATE_FILE)
        except OSError:
            log.exception("the adaptations could not be saved with the checkpoint")

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


def _saved_with(weights: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The state that was saved with these weights, empty if no checkpoint has them."""
    found = _fingerprints(weights)
    for path in sorted(folder.glob(f"*/{STATE_FILE}"), key=os.path.getmtime, reverse=True):
        content = json.loads(path.read_text())
        if found.items() <= content["weights"].items():
            return content["state"]  # type: ignore[no-any-return] # what on_save has written
    return {}


def _fingerprints(weights: Mapping[str, Any]) -> dict[str, str]:
    """By name, what a tensor is recognised by: its shape, dtype and evenly spread entries."""
    found = {}
    for name, tensor in weights.items():
        if isinstance(tensor, torch.Tensor):
            flat = tensor.detach().reshape(-1)
            spread = flat[:: max(1, flat.numel() // SAMPLED)].cpu().contiguous()
            digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(spread.view(torch.uint8).numpy().tobytes())
            found[name] = digest.hexdigest()[:16]
    return found
