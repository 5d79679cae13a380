"""From nothing to the policy that ships: watch the expert, be corrected, refine, calibrate, choose.

Imitation comes first, because where a fault was injected its cure is known, and refinement starts
there (`docs/learning-notes.md` has what else was tried). What refinement made of the clone is kept
only if it is better on runs that neither was trained on.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tamiyo.bench.evaluation.evaluation import Request, evaluate
from tamiyo.bench.evaluation.lineup import LEARNED, Lineup
from tamiyo.bench.evaluation.resampling import Figure
from tamiyo.bench.evaluation.splits import SPLITS
from tamiyo.bench.policy_training.claim import (
    PACKAGES,
    check_lessons,
    claim,
    find_device,
    identity,
)
from tamiyo.bench.policy_training.history import History
from tamiyo.bench.policy_training.presets import Preset
from tamiyo.bench.policy_training.stages import Report, Workshop, layer_types
from tamiyo.bench.pools import interrupts_held_back
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.learn.imitation import Demonstrations
from tamiyo.learn.imitation.temperatures import fit_calibration
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.checkpoint import replace_file

__all__ = ["Trained", "train_policy"]

HOSTS = 32
"""Runs of each evaluation seed in the comparison."""
CLONE = "clone"
"""Cohort of the policy before refinement there."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a training.

    Attributes:
        policy: Folder of the checkpoint that was kept.
        clone: Folder of the policy before reinforcement learning; `None` without imitation.
        kept: `clone` or `refined`.
        gain: Mean of J of the refined policy minus the clone's; `None` where there is only one.
    """

    policy: Path
    clone: Path | None
    kept: str
    gain: Figure | None


def train_policy(
    preset: Preset,
    directory: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    device: torch.device | str = "cpu",
    command: str = "",
    report: Report = lambda _stage, _done, _total, _figures: None,
) -> Trained:
    """Train a policy; a call that was interrupted goes on and ends with the same numbers.

    Args:
        preset: How much of everything.
        directory: Of everything that is kept; another training's must not be given.
        seed: Everything random follows from it.
        workers: Processes that train the runs.
        device: Where the runs train, and the networks.
        command: For the checkpoint's record.
        report: Is told the progress.

    Raises:
        ValueError: the directory cannot be used, or what it holds is damaged or was made under
            other conditions, see `identity`; there is no such device; or nothing is to be trained.
            Nothing was done then.
    """
    if not preset.lessons and not preset.refinements:
        raise ValueError("a training without imitation and without refinement makes no policy")
    place = find_device(device)
    conditions = identity(preset, seed, place)
    claim(directory, conditions)
    check_lessons(directory)
    with interrupts_held_back():
        env = TrainingVectorEnv(
            preset.runs, config=SPLITS["train"].config, workers=workers, device=place
        )
    try:
        history = History(directory)

        def note(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            history.add(stage, done, figures)
            report(stage, done, total, figures)

        shop = Workshop(preset, directory, seed, env, note, place)
        record = {
            "command": command,
            "preset": preset.name,
            "seed": seed,
            "versions": {name: conditions[name] for name in PACKAGES},
            "environment": conditions["environment"],
        }
        cloned = _imitate(shop, record) if preset.lessons else None
        refined = _refine(shop, record, cloned) if preset.refinements else None
    finally:
        env.close()
    gain = None
    if cloned is not None and refined is not None:
        gain = _compare(shop, cloned, refined, workers)
    better = cloned is None or (gain is not None and gain.low > 0)
    made = [one for one in (cloned, refined) if one is not None]
    policy = directory / "policy"
    shutil.copytree(made[-1] if better else made[0], policy, dirs_exist_ok=True)
    return Trained(policy, cloned, "refined" if better else "clone", gain)


def _imitate(shop: Workshop, record: dict[str, Any]) -> Path:
    """The clone's checkpoint."""
    preset = shop.preset
    lessons = shop.lessons("lessons", preset.lessons)
    policy = shop.cloned("first-clone", lessons)
    if preset.guided:
        corrected = shop.lessons("guided-lessons", preset.guided, policy)
        lessons = Demonstrations.concatenate([lessons, corrected])
        policy = shop.cloned("clone", lessons)
    record["states"] = len(lessons)
    record["layer_types"] = layer_types(lessons)
    return _save(shop, "cloned", policy, record)


def _refine(shop: Workshop, record: dict[str, Any], cloned: Path | None) -> Path:
    """The refined policy's checkpoint."""
    if cloned is None:
        policy = shop.new_policy()
    else:
        policy = EnhancedTamiyoPolicyGNN.from_pretrained(cloned).to(shop.device)
    shop.refined("refinement", policy)
    return _save(shop, "refined", policy, record | {"refinements": shop.preset.refinements})


def _save(
    shop: Workshop, stage: str, policy: EnhancedTamiyoPolicyGNN, record: dict[str, Any]
) -> Path:
    """Calibrate on fresh runs and write the checkpoint."""
    fresh = shop.lessons(f"{stage}-calibration", shop.preset.calibrations, policy)
    policy.calibration = fit_calibration(policy, fresh)
    kin = policy.adopt_kin(record.setdefault("layer_types", layer_types(fresh)))
    folder = shop.directory / f"{stage}-policy"
    policy.save_pretrained(folder, record | {"stage": stage, "kin": kin})
    return folder


def _compare(shop: Workshop, cloned: Path, refined: Path, workers: int) -> Figure:
    """Mean of J of the refined policy minus the clone's, on the same fresh runs."""
    path = shop.directory / "selection.json"
    if not path.exists():
        lineup = Lineup((CLONE, LEARNED), refined, {CLONE: cloned})
        request = Request([SPLITS["selection"]], lineup, shop.preset.selections, HOSTS)
        total, done = shop.preset.selections, 0

        def count(_job: Any) -> None:
            nonlocal done
            done += 1
            shop.report("selection", done, total, {})

        found = evaluate(request, workers, count).results[0].pairs[f"{LEARNED} - {CLONE}"]
        replace_file(path, json.dumps(asdict(found)).encode())
    return Figure(**json.loads(path.read_text(encoding="utf-8")))
