"""Runs in several processes: whether the ranks can act together, and their gradient reducer."""

import gc
from typing import Any

from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tamiyo.host.rendezvous import store_of
from tamiyo.host.training import TrainingRun, unwrap, wrappers

__all__ = [
    "Reducer",
    "active_wrapper",
    "alone_may_run_eagerly",
    "distributed_run",
    "rank_of",
    "unfit",
    "wrapper_around",
    "wrapper_of",
]


def distributed_run() -> bool:
    """Whether this process is one of a group, if only of one."""
    return distributed.is_available() and distributed.is_initialized()


def rank_of(run: TrainingRun) -> int:
    """This process's rank; 0 where it trains alone."""
    return distributed.get_rank() if run.other_ranks else 0


def wrapper_of(model: nn.Module) -> DistributedDataParallel | None:
    """The data-parallel wrapper around the user's own module, where the model shows it."""
    found = [part for part in wrappers(model) if isinstance(part, DistributedDataParallel)]
    return found[0] if found else None


def wrapper_around(module: nn.Module) -> DistributedDataParallel | None:
    """The wrapper of a module, wherever it is; looks through all objects of the process."""
    for thing in gc.get_objects():
        if issubclass(type(thing), DistributedDataParallel) and unwrap(thing) is module:
            return thing  # type: ignore[no-any-return]
    return None


def active_wrapper() -> DistributedDataParallel | None:
    """The wrapper whose forward pass is running.

    Frameworks hand out the module inside, but call it through the wrapper.
    """
    wrapper: Any = DistributedDataParallel._get_active_ddp_module()
    return wrapper if isinstance(wrapper, DistributedDataParallel) else None


def unfit(run: TrainingRun, wrapper: DistributedDataParallel | None) -> str:
    """Why the ranks of a run cannot act together; empty if they can."""
    if any(hasattr(parameter, "device_mesh") for parameter in run.model.parameters()) or any(
        type(module).__name__.startswith(("FullyShardedDataParallel", "FSDP"))
        for module in run.model.modules()
    ):
        return "its parameters are sharded over processes"
    if wrapper is None:
        return "several processes train it, and not through DistributedDataParallel"
    if distributed.get_world_size(wrapper.process_group) != distributed.get_world_size():
        return "it is replicated on a part of the processes only"
    if type(run.optimizer).__name__ == "ZeroRedundancyOptimizer":
        return "its optimiser's state is sharded over processes"
    if store_of(wrapper.process_group) is None:
        return "its process group has no store"
    return ""


class Reducer:
    """Builds a wrapper's gradient reducer anew when the model consists of other parameters.

    A wrapper registers its parameters once. It would wait for gradients of those that are gone, and
    leave those that are new to drift apart on each rank.
    """

    def __init__(self, wrapper: DistributedDataParallel) -> None:
        self._wrapper = wrapper

    def objection(self) -> str:
        """Why it cannot be built anew; empty if it can."""
        wrapper = self._wrapper
        for name, kind in (
            ("static_graph", "a static graph"),
            ("mixed_precision", "mixed precision of its own"),
            ("_delay_all_reduce_params", "delayed reductions"),
            ("_use_python_reducer", "the Python reducer"),
            ("_require_manual_backward_finalization", "a backward pass finished by hand"),
        ):
            if getattr(wrapper, name, None):
                return f"the data-parallel wrapper has {kind}"
        if getattr(wrapper, "_comm_hooks", None) or _has_builtin_hook(wrapper):
            return "the data-parallel wrapper has a communication hook"
        if any(hasattr(p, "_in_backward_optimizers") for p in wrapper.module.parameters()):
            return "the optimiser's step is part of the backward pass"
        return ""

    def rebuild(self) -> None:
        """Build it from the parameters and buffers that the model has now.

        As when a wrapper is unpickled, nothing is sent to other ranks; each of them must do the
        same before its next forward pass.
        """
        wrapper = self._wrapper
        parameters, sparse = wrapper._build_params_for_reducer()
        names = wrapper._build_debug_param_to_name_mapping(parameters)
        wrapper._ddp_init_helper(parameters, sparse, names, False)
        wrapper._module_parameters = list(wrapper.module.parameters())
        wrapper._has_rebuilt_buckets = False


def alone_may_run_eagerly(wrapper: DistributedDataParallel) -> bool:
    """Whether one rank may run a step uncompiled while the others run it compiled.

    The reducer launches its reductions in the order of its buckets however gradients come about.
    Where the compiler itself orders the communication, ranks would wait for each other for ever.
    """
    return not getattr(wrapper, "_use_python_reducer", False)


def _has_builtin_hook(wrapper: DistributedDataParallel) -> bool:
    return bool(wrapper._get_ddp_logging_data().get("comm_hook"))
