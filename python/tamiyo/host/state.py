"""The state of a session as plain data, so that adaptations survive saving and loading.

A state holds what has become of the model's structure (see `tamiyo.host.structure`), the recorded
data flow, what the optimiser trains, seeds on their way, and hooks that are in force. Values of
tensors are not part of it: they are in the state of the model and of the optimiser.
"""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, TypeAlias

from torch import nn

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions import ACTIONS, Context
from tamiyo.host.groups import arrange, group_names, parameter_names
from tamiyo.host.layers import Layers
from tamiyo.host.modules import Ownership
from tamiyo.host.recorder import Flow, FlowGraph
from tamiyo.host.structure import StructureError, apply_changes, changes, original
from tamiyo.host.training import TrainingRun, unwrap

__all__ = ["State", "StructureError", "capture", "rebuild", "restore", "resume"]

logger = logging.getLogger("tamiyo.host")

State: TypeAlias = dict[str, Any]
"""Dictionaries, lists, strings and numbers only: it can be saved by `torch.save` and as JSON."""
VERSION = 1


def capture(run: TrainingRun, context: Context | None) -> State:
    """The state of a run and of what adaptations have made of it.

    Never raises: it is called from the training loop. What cannot be described, because of what
    the program itself has done to the model, is said when the state is loaded.

    Args:
        run: The run.
        context: What actions work on; `None` before the model was traced.
    """
    model = unwrap(run.model)
    names = parameter_names(model)
    try:
        first = original(model)
        state = {
            "version": VERSION,
            "original": first,
            "changes": changes(model, first),
            "groups": group_names(run.optimizer, names),
            "layers": None if context is None else _of_layers(context.layers, names),
        }
        seeds = [] if context is None else context.seed_bed.alive()
        state["seeds"] = [seed.state() for seed in seeds]
        state["standing"] = [asdict(item) for item in context.standing] if context else []
    except Exception as error:
        logger.warning("tamiyo: this run's adaptations cannot be saved: %s", error)
        return {"version": VERSION, "problem": f"{type(error).__name__}: {error}"}
    return state


def rebuild(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Give a freshly built model the structure that it had when the state was saved.

    A model that has it already stays as it is. Load the model's own `state_dict` afterwards.

    Args:
        model: The model, as the program builds it; wrappers are looked through.
        state: Of `Control.state_dict()`.

    Raises:
        StructureError: the model is not the one that was saved; it was not changed.
    """
    _rebuilt(unwrap(model), state)


def restore(run: TrainingRun, state: Mapping[str, Any]) -> Layers | None:
    """Bring model and optimiser of a run that has not begun into the form that was saved.

    Returns:
        The layers; `None` if the saved run had not been traced.

    Raises:
        StructureError: the state is not of this run; nothing was changed.
    """
    model = unwrap(run.model)
    now = group_names(run.optimizer, parameter_names(model))
    with ExitStack() as undone:
        for whole in (model, *(companion.inside for companion in run.companions)):
            undone.callback(_rebuilt(whole, state))
        own = {
            f"{path}.{name}".lstrip(".")
            for path, row in state["original"].items()
            for name in row["tensors"]
        }
        arrange(run.optimizer, model, now, state["groups"], own)
        undone.pop_all()
    return None if state["layers"] is None else _to_layers(model, state["layers"])


def resume(context: Context, state: Mapping[str, Any]) -> None:
    """Put saved seeds on their way and saved hooks in force again, after `restore`."""
    for item in state["standing"]:
        action = ACTIONS[AdaptationType(item["adaptation"])]
        action.apply(context, item["target"], item["parameters"])
    for seed in state["seeds"]:
        context.tend_seeds()
        context.seed_bed.resume(seed)


def _rebuilt(model: nn.Module, state: Mapping[str, Any]) -> Any:
    if state.get("version") != VERSION:
        raise StructureError(f"a state of version {state.get('version')!r}, not {VERSION}")
    if "problem" in state:
        raise StructureError(f"the adaptations could not be saved: {state['problem']}")
    return apply_changes(model, state["original"], state["changes"])


def _of_layers(layers: Layers, names: Mapping[int, str]) -> State:
    ownership, flow = layers.ownership, layers.flow
    return {
        "flow": None if flow is None else _of_flow(flow),
        "owners": [
            {
                "path": path,
                "parameters": [_name(p, path, names) for p in ownership.parameters[path]],
                "held": sorted(ownership.held[path]),
                "tied": path in ownership.tied,
                "leaf": path in ownership.leaves,
            }
            for path in ownership.layers
        ],
    }


def _to_layers(model: nn.Module, state: State) -> Layers:
    parameters = dict(model.named_parameters())
    ownership = Ownership()
    for row in state["owners"]:
        path = row["path"]
        ownership.layers[path] = model.get_submodule(path)
        ownership.parameters[path] = [parameters[name] for name in row["parameters"]]
        ownership.owner |= {id(p): path for p in ownership.parameters[path]}
        ownership.held[path] = set(row["held"])
        ownership.tied |= {path} if row["tied"] else set()
        ownership.leaves |= {path} if row["leaf"] else set()
    flow = None if state["flow"] is None else _to_flow(state["flow"])
    return Layers(model, ownership, flow)


def _name(parameter: nn.Parameter, path: str, names: Mapping[int, str]) -> str:
    if id(parameter) not in names:
        raise StructureError(f"the program has exchanged a parameter of {path!r}")
    return names[id(parameter)]


def _of_flow(flow: FlowGraph) -> State:
    return {
        "layers": dict(flow.layers),
        "edges": [
            [source, target, way.joins, sorted(way.via)]
            for (source, target), way in flow.edges.items()
        ],
        "outputs": sorted(flow.outputs),
        "shapes": {path: list(shape) for path, shape in flow.shapes.items()},
        "activations": {path: sorted(names) for path, names in flow.activations.items()},
        "stateful": sorted(flow.stateful),
    }


def _to_flow(state: State) -> FlowGraph:
    return FlowGraph(
        layers=dict(state["layers"]),
        edges={
            (source, target): Flow(joins, frozenset(via))
            for source, target, joins, via in state["edges"]
        },
        outputs=set(state["outputs"]),
        shapes={path: tuple(shape) for path, shape in state["shapes"].items()},
        activations={path: set(names) for path, names in state["activations"].items()},
        stateful=set(state["stateful"]),
    )
