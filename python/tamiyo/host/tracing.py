"""`trace` a model into a `ModelTopology`, or record one passively in the user's own first step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from tamiyo.contracts import ModelTopology
from tamiyo.host.actions import available_actions, model_actions
from tamiyo.host.compiled import EagerSteps
from tamiyo.host.distributed import active_wrapper, distributed_run, wrapper_of
from tamiyo.host.faults import Hook
from tamiyo.host.layers import Layers
from tamiyo.host.modules import Ownership
from tamiyo.host.recorder import FlowRecorder
from tamiyo.host.recurrent import given_state
from tamiyo.host.training import unwrap

__all__ = ["TopologyRecorder", "trace"]


def trace(model: nn.Module, *example_inputs: Any, run: str = "", **kwargs: Any) -> ModelTopology:
    """The model's layers and the data flow between them.

    Runs `model(*example_inputs, **kwargs)` once, in its present mode and with gradients enabled,
    and leaves parameters, buffers and random state exactly as they were.

    Args:
        model: Any module; data-parallel and compiled wrappers are looked through.
        *example_inputs: Inputs of one forward pass. Without any inputs at all nothing is run.
        run: Name of the training run, copied into the result.
        **kwargs: Keyword inputs of the forward pass.

    Returns:
        Nodes in order of first use. If the model cannot be run or recorded, nodes come in the
        order of `named_modules()`, without edges, and `notes` says why.
    """
    inner = unwrap(model)
    recorder = TopologyRecorder(inner)
    if example_inputs or kwargs:
        buffers = [(buffer, buffer.detach().clone()) for buffer in inner.buffers()]
        devices = sorted({p.device.index for p in inner.parameters() if p.is_cuda})
        recorder.attach()
        eager = EagerSteps(model)
        eager.sample()
        try:
            with torch.random.fork_rng(devices=devices), torch.enable_grad():
                inner(*example_inputs, **kwargs)
        except Exception as error:
            recorder.note(f"the forward pass failed: {type(error).__name__}: {error}")
        finally:
            eager.end()
            recorder.detach()
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
    return recorder.topology(run)


class TopologyRecorder:
    """Records data flow during the user's own first forward pass with gradients enabled.

    `attach()`, let the training step run, then `layers()` or `topology(run)`, and `detach()`.
    Outputs, gradients, random numbers and parameters are bit-identical to an unrecorded step
    (one step costs about five forward passes).
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrap(model)
        self.wrapper: DistributedDataParallel | None = wrapper_of(model)
        """The data-parallel wrapper through which the model is trained, once it is known."""
        self.ownership = Ownership.of(self.model)
        self._notes: list[str] = []
        self._handles: list[RemovableHandle] = []
        self._recorder: FlowRecorder | None = None
        self._active = False
        self._complete = False
        self._layers: Layers | None = None

    @property
    def complete(self) -> bool:
        """Whether a whole forward pass was recorded."""
        return self._complete

    def note(self, text: str) -> None:
        """Something that the topology's reader should know."""
        if text not in self._notes:
            self._notes.append(text)

    def attach(self) -> None:
        """Wait for the next forward pass. The hooks do nothing outside it.

        In compiled code they are not called (see `EagerSteps`).
        """
        if self._handles:
            return
        model = self.model
        self._handles = [
            model.register_forward_pre_hook(Hook(self._begin), prepend=True, with_kwargs=True)
        ]
        for path in sorted(self.ownership.leaves):
            module = self.ownership.layers[path]
            enter = Hook(self._enter(path))
            self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            self._handles.append(module.register_forward_hook(Hook(self._leave), always_call=True))
        self._handles.append(model.register_forward_hook(Hook(self._end), always_call=True))

    def detach(self) -> None:
        """Remove the hooks. What was recorded stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._stop()

    def adopt(self, layers: Layers, notes: Sequence[str]) -> None:
        """Record nothing: take the layers of an earlier session on the same model."""
        self.detach()
        if distributed_run():
            self._handles.append(self.model.register_forward_pre_hook(Hook(self._find_wrapper)))
        self.ownership, self._layers, self._complete = layers.ownership, layers, True
        self._notes[:] = notes

    def layers(self) -> Layers:
        """The recorded layers, or all of them without data flow if nothing was recorded."""
        if self._layers is None:
            flow = None
            if self._recorder is not None and self._recorder.failure is not None:
                self.note(f"recording failed: {self._recorder.failure!r}")
            elif self._recorder is not None and self._complete and self._recorder.graph.layers:
                flow = self._recorder.graph
                self.ownership.settle(flow.layers)
            if flow is None:
                self.note("not traced: layers in the order of named_modules(), no edges")
            self._layers = Layers(self.model, self.ownership, flow)
            self._recorder = None
        return self._layers

    def topology(self, run: str) -> ModelTopology:
        """What was recorded, as it is announced to the controller."""
        layers = self.layers()
        actions = [available_actions(layers, layer_id) for layer_id in range(len(layers))]
        return layers.topology(run, actions, model_actions(layers), self._notes)

    @property
    def notes(self) -> Sequence[str]:
        """What could not be traced, in words."""
        return tuple(self._notes)

    def _begin(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._complete or self._active or not torch.is_grad_enabled():
            return
        self._find_wrapper()
        try:
            self._recorder = FlowRecorder(self.model, self.ownership)
            self._recorder.begin((args, kwargs))
            self._recorder.__enter__()  # type: ignore[no-untyped-call]
            self._active = True
        except Exception as error:
            self.note(f"recording failed: {error!r}")
            self._recorder, self._complete = None, True

    def _find_wrapper(self, *_: Any) -> None:
        self.wrapper = self.wrapper or active_wrapper()

    def _end(self, _module: nn.Module, _args: Any, output: Any) -> None:
        if not self._active:
            return
        self._stop()
        if output is None:
            self.note("the first forward pass returned nothing or raised")
            return
        self._shielded(lambda recorder: recorder.end(output))
        self._complete = True

    def _stop(self) -> None:
        """End the recording; also where an interrupt has ended a forward pass without hooks."""
        if self._active and self._recorder is not None:
            self._active = False
            self._recorder.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _enter(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            if self._active:
                state = given_state(module, args, kwargs)
                self._shielded(lambda recorder: recorder.enter(path, with_state=state))

        return enter

    def _leave(self, _module: nn.Module, _args: Any, output: Any) -> None:
        if self._active:
            self._shielded(lambda recorder: recorder.leave(output))

    def _shielded(self, record: Callable[[FlowRecorder], None]) -> None:
        recorder = self._recorder
        if recorder is None or recorder.failure is not None:
            return
        try:
            record(recorder)
        except Exception as error:
            recorder.failure = error
