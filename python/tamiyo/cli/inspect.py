"""`tamiyo inspect`: what Tamiyo sees in a model, and what it could do where."""

import importlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from tamiyo.contracts import ModelTopology
from tamiyo.control import attach
from tamiyo.host import trace
from tamiyo.host.growth.effective_rank import unit_use

__all__ = ["inspect"]

Loss = Callable[[Any], torch.Tensor]
STEPS = 8


def inspect(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:CALLABLE",
            help="Returns a model, (model, inputs) or (model, inputs, loss); inputs are a tuple of "
            "positional arguments or a dict of keywords, loss takes the output.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a model's layers, their data flow, their health and the adaptations possible where.

    With inputs the model is traced, and *use* is the share of a layer's units that its activations
    need, their effective rank; near 1, more units may pay. With a loss as well the model is
    trained on them for a few steps (AdamW, learning rate 0.001), and health is measured on the way.
    Exits with 2 when the target cannot be used.

    Example: tamiyo inspect examples.model:build
    """
    model, inputs, loss = _load(target)
    health: dict[str, float] = {}
    args, kwargs = inputs if inputs is not None else ((), {})
    if loss is None:
        topology = trace(model, *args, **kwargs)
    else:
        topology, health = _train(model, (args, kwargs), loss)
    use = unit_use(model, *args, **kwargs) if inputs is not None and topology.edges else {}
    if as_json:
        typer.echo(json.dumps(_plain(topology, health, use)))
    else:
        _print(Console(), topology, health, use)


Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def _load(target: str) -> tuple[nn.Module, Inputs | None, Loss | None]:
    module_name, separator, name = target.partition(":")
    if not separator or not name:
        raise typer.BadParameter(f"{target!r} is not MODULE:CALLABLE")
    sys.path.insert(0, str(Path.cwd()))
    try:
        built = getattr(importlib.import_module(module_name), name)()
    except (ImportError, AttributeError) as error:
        raise typer.BadParameter(f"{target}: {error}") from error
    parts = built if isinstance(built, tuple) else (built,)
    if not isinstance(parts[0], nn.Module) or len(parts) > 3:
        raise typer.BadParameter(f"{target} must return a model, with inputs and a loss if any")
    given = parts[1] if len(parts) > 1 else None
    inputs: Inputs | None = None
    if given is not None:
        inputs = ((), given) if isinstance(given, dict) else (tuple(_listed(given)), {})
    return parts[0], inputs, parts[2] if len(parts) > 2 else None


def _listed(inputs: Any) -> list[Any]:
    return list(inputs) if isinstance(inputs, tuple | list) else [inputs]


def _train(model: nn.Module, inputs: Inputs, loss: Loss) -> tuple[ModelTopology, dict[str, float]]:
    args, kwargs = inputs
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with attach(model, optimizer, pace="lockstep", probe_budget=1.0, run="inspect") as control:
        for _ in range(STEPS):
            optimizer.zero_grad()
            value = loss(model(*args, **kwargs))
            value.backward()
            optimizer.step()
            control.step(loss=value)
        health = control.health()
        topology = control.topology
    return topology if topology is not None else trace(model), health


def _plain(
    topology: ModelTopology, health: dict[str, float], use: dict[str, float]
) -> dict[str, Any]:
    scores, shares = (
        {name: None if math.isnan(value) else value for name, value in measured.items()}
        for measured in (health, use)
    )
    return {**topology.model_dump(mode="json"), "health": scores, "use": shares}


def _print(
    console: Console, topology: ModelTopology, health: dict[str, float], use: dict[str, float]
) -> None:
    title = f"{len(topology)} layers, {len(topology.edges)} connections"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("layer", "type"):
        table.add_column(heading, overflow="fold")
    table.add_column("scalars", justify="right", no_wrap=True)
    for heading in ("output", "into"):
        table.add_column(heading, overflow="fold")
    for heading in ("health", "use"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("possible", no_wrap=True)
    for node in topology.nodes:
        table.add_row(
            node.name or "(the model itself)",
            node.type,
            f"{node.parameters:,}",
            " × ".join(map(str, node.shape)),
            ", ".join(topology.nodes[after].name for after in topology.successors(node.layer_id)),
            *(_share(measured.get(node.name, math.nan)) for measured in (health, use)),
            "\n".join(node.actions),
        )
    console.print(table)
    if not health:
        console.print("Health needs training steps: have the callable return a loss as well.")
    console.print(f"Possible for the model as a whole: {', '.join(topology.actions) or 'nothing'}")
    for note in topology.notes:
        console.print(f"Note: {note}")


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
