"""A policy that goes on learning from live runs, and rehearses what it knows already."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tamiyo.bench.evaluation.splits import SPLITS
from tamiyo.bench.faults.splits import Split
from tamiyo.bench.live_training.lessons import MOST_KEPT, give_lessons, lessons_for
from tamiyo.bench.policy_training.claim import PACKAGES, claim
from tamiyo.bench.policy_training.presets import PRESETS
from tamiyo.bench.policy_training.stages import Report, Workshop, layer_types
from tamiyo.bench.pools import interrupts_held_back
from tamiyo.bench.provenance import environment_digest
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.learn.imitation import CloningConfig, Demonstrations, clone
from tamiyo.learn.imitation.temperatures import fit_calibration
from tamiyo.learn.seeds import derive
from tamiyo.policy import EnhancedTamiyoPolicyGNN

__all__ = ["EXPERIENCES", "finetune"]

EXPERIENCES = 1000
"""Most states of live runs that are learned from."""
REHEARSALS, CALIBRATIONS = 8, 6
"""Rounds of Training-v0, see `Preset`."""
LIVE = 0.5
"""Share of the live states in everything that is learned from; each comes up so often."""
CLONING = CloningConfig(epochs=4, learning_rate=3e-4)


def finetune(
    checkpoint: Path,
    directory: Path,
    *,
    split: Split = "train",
    seed: int = 0,
    workers: int = 1,
    command: str = "",
    report: Report = lambda _stage, _done, _total, _figures: None,
) -> Path:
    """Learn from live runs of the fault benchmark what an expert does who is told the faults.

    The policy decides in a half of the runs, and is corrected (DAgger, see
    `tamiyo.learn.imitation.demonstrations`). Besides it rehearses runs of Training-v0, so that it
    does not forget them.

    Args:
        checkpoint: Folder of the policy to start from, which stays as it is.
        directory: Of everything that is kept; a call that was interrupted goes on there.
        split: Of the fault benchmark's cells.
        seed: Everything random follows from it.
        workers: Processes.
        command: For the checkpoint's record.
        report: Is told the progress.

    Returns:
        The folder of the new checkpoint.

    Raises:
        CheckpointError: the policy cannot be read.
        ValueError: the directory cannot be used, or holds another training.
        MissingExtraError: the package of a data set is not installed.
        RuntimeError: something went wrong in a live run.
    """
    policy = EnhancedTamiyoPolicyGNN.from_pretrained(checkpoint)
    notes = policy.training_notes
    claim(
        directory,
        {
            "fine-tuned from": policy.version,
            "split": split,
            "seed": seed,
            **{name: version(name) for name in PACKAGES},
            "environment": environment_digest(),
        },
    )
    live = _live_lessons(checkpoint, directory, split, seed, workers, report)
    with interrupts_held_back():
        preset = PRESETS["default"]
        env = TrainingVectorEnv(preset.runs, config=SPLITS["train"].config, workers=workers)
    try:
        shop = Workshop(preset, directory, seed, env, report, torch.device("cpu"))
        rehearsal = shop.lessons("rehearsal", REHEARSALS, policy)
        config = CLONING.model_copy(update={"seed": derive(seed, "fine-tuning")})

        def tell(measured: Mapping[str, float]) -> None:
            report("fine-tuning", int(measured["epoch"]), config.epochs, measured)

        clone(policy, _mixed(rehearsal, live), config, directory=directory / "tuned", report=tell)
        policy.calibration = fit_calibration(
            policy.eval(), shop.lessons("calibration", CALIBRATIONS, policy)
        )
    finally:
        env.close()
    known = sorted({*notes.get("layer_types", ()), *layer_types(live)})
    record: dict[str, Any] = {
        **{name: value for name, value in notes.items() if name != "adaptations"},
        "command": command,
        "tuned_from": policy.version,
        "live_states": len(live),
        "layer_types": known,
        "kin": policy.adopt_kin(known),
    }
    policy.save_pretrained(directory / "policy", record)
    return directory / "policy"


def _live_lessons(
    checkpoint: Path, directory: Path, split: Split, seed: int, workers: int, report: Report
) -> Demonstrations:
    """Those of an earlier call, if it got so far."""
    path = directory / "live-lessons.safetensors"
    if not path.exists():
        _give_live_lessons(path, checkpoint, split, seed, workers, report)
    # Read even when it was just written: other addresses in memory may mean other last bits.
    return Demonstrations.load(path)


def _give_live_lessons(
    path: Path, checkpoint: Path, split: Split, seed: int, workers: int, report: Report
) -> None:
    def told(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: report(stage, done, total, {})

    lessons = lessons_for(
        split,
        EXPERIENCES // MOST_KEPT,
        checkpoint,
        path.with_name("runs.jsonl"),
        seed=seed,
        workers=workers,
        report=told("runs"),
    )
    give_lessons(lessons, workers, told("lessons")).save(path)


def _mixed(rehearsal: Demonstrations, live: Demonstrations) -> Demonstrations:
    """Both together: the live states so often that they make up their share, and weigh as much."""
    nodes = max(one.observations["x"].shape[1] for one in (rehearsal, live))
    edges = max(one.observations["edge_attr"].shape[1] for one in (rehearsal, live))
    often = torch.arange(round(len(rehearsal) * LIVE / (1 - LIVE))) % len(live)
    repeated = _widened(live, nodes, edges)[often]
    weights = repeated.weights * rehearsal.weights.mean() / repeated.weights.mean()
    again = Demonstrations(
        repeated.observations, repeated.action, weights, repeated.targets, repeated.returns
    )
    return Demonstrations.concatenate([_widened(rehearsal, nodes, edges), again])


def _widened(some: Demonstrations, nodes: int, edges: int) -> Demonstrations:
    """The same with graphs that are padded further."""
    last = {"edge_index": edges, "edge_mask": edges, "node_mask": nodes, "layer_type": nodes}
    rows = dict.fromkeys(("x", "x_measured", "action_mask"), nodes)
    rows |= dict.fromkeys(("edge_attr", "edge_measured"), edges)

    def wide(name: str, column: Tensor) -> Tensor:
        if name in last:
            return functional.pad(column, (0, last[name] - column.shape[-1]))
        if name in rows:
            return functional.pad(column, (0, 0, 0, rows[name] - column.shape[-2]))
        return column

    columns = {name: wide(name, column) for name, column in some.observations.items()}
    return Demonstrations(columns, some.action, some.weights, some.targets, some.returns)
