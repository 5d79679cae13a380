"""What an expert who is told the faults would do, in runs where not everything goes by the expert.

The expert's answer to every state is recorded, while what is done may differ: cures come late in a
part of the runs, now and then something useless is done, and a pupil may do as it thinks best
(DAgger; Ross, Gordon and Bagnell, AISTATS 2011). Without that, states that the expert never lets
happen would be missing, and those are where a policy that learned from it gets lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tamiyo.graph.schema import GLOBAL_COLUMNS
from tamiyo.learn.experience import flat_action
from tamiyo.learn.graphs import FIELDS, pack
from tamiyo.learn.rollout import to_env_actions
from tamiyo.learn.segments import TARGETS
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.actions import WHOLE_MODEL, Action

__all__ = ["Demonstrations", "LessonPlan", "demonstrate"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class TutoredEnv(Protocol):
    """A vector environment that knows what is wrong with its runs.

    All episodes end at the same step, and new ones begin within it.
    """

    num_envs: int

    def reset(self, *, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `gymnasium.vector.VectorEnv.reset`."""

    def step(self, actions: Ints) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """See `gymnasium.vector.VectorEnv.step`."""

    def oracle_actions(self) -> Ints:
        """[B, 3]: what mends each run now; nothing once it was done."""


@dataclass(frozen=True, slots=True)
class LessonPlan:
    """How demonstrations are made."""

    late: float = 0.5
    """Share of the runs whose cure is put off."""
    patience: float = 0.3
    """Probability, at each decision, that waiting ends."""
    wander: float = 0.02
    """Probability, at each decision where the expert does nothing, of a random legal action."""
    keep_idle: float = 0.4
    """Share of the states without anything to do that are kept; they count for more instead."""
    tolerance: float = 0.1
    """Loss of objective after an action that still counts as safe. It has to be more than noise:
    measured from chance to perfect, that of 128 held-out samples is doubled with two classes."""
    outlook: int = 4
    """Decisions ahead that trends are measured over."""


@dataclass(frozen=True, eq=False, slots=True)
class Demonstrations:
    """M states and the expert's answers."""

    observations: Mapping[str, Tensor]
    """Padded graphs, each [M, ...]; see `tamiyo.learn.graphs.FIELDS`."""
    action: Action
    """Each field [M]."""
    weights: Tensor
    """[M]."""
    targets: Tensor
    """[M, 6]: `segments.TARGETS`, NaN where unknown."""

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: Tensor) -> "Demonstrations":
        return Demonstrations(
            {name: column[index] for name, column in self.observations.items()},
            flat_action(self.action, index),
            self.weights[index],
            self.targets[index],
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Demonstrations"]) -> "Demonstrations":
        """All states of parts whose graphs are padded alike."""
        return cls(
            {name: torch.cat([part.observations[name] for part in parts]) for name in FIELDS},
            Action(
                torch.cat([part.action.adapt for part in parts]),
                torch.cat([part.action.target for part in parts]),
                torch.cat([part.action.type for part in parts]),
            ),
            torch.cat([part.weights for part in parts]),
            torch.cat([part.targets for part in parts]),
        )

    def save(self, path: Path) -> None:
        """Write one file, which appears when it is whole."""
        columns = {f"observation.{name}": t for name, t in self.observations.items()}
        columns |= {name: getattr(self.action, name) for name in ("adapt", "target", "type")}
        columns |= {"weights": self.weights, "targets": self.targets}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        save_file({name: t.contiguous() for name, t in columns.items()}, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Demonstrations":
        """Read what `save` wrote."""
        columns = load_file(path)
        return cls(
            {name: columns[f"observation.{name}"] for name in FIELDS},
            Action(columns["adapt"], columns["target"], columns["type"]),
            columns["weights"],
            columns["targets"],
        )


def demonstrate(
    env: TutoredEnv,
    episodes: int,
    *,
    seed: int,
    plan: LessonPlan | None = None,
    pupil: EnhancedTamiyoPolicyGNN | None = None,
) -> Demonstrations:
    """Have the expert answer in some whole episodes of every run.

    Args:
        env: The runs.
        episodes: Of each run.
        seed: Everything random follows from it.
        plan: How the runs are led away from the expert's way.
        pupil: Decides, drawing lots, in half of the runs.
    """
    plan = plan or LessonPlan()
    random = np.random.default_rng([seed, 0])
    raw, _ = env.reset(seed=seed)
    parts = []
    for _ in range(episodes):
        lesson = _Lesson(env.num_envs, plan, random, pupil)
        over = False
        while not over:
            expert = env.oracle_actions()
            done = lesson.behave(raw, expert)
            # Kept before the environment moves on: it may reuse its arrays.
            lesson.keep(raw, expert, done)
            raw, reward, terminated, truncated, _ = env.step(done)
            lesson.rewards.append(np.asarray(reward, np.float64))
            over = bool((terminated | truncated).all())
        parts.append(lesson.demonstrations())
    return Demonstrations.concatenate(parts)


class _Lesson:
    """One episode of B runs, as it is taught."""

    def __init__(
        self,
        runs: int,
        plan: LessonPlan,
        random: np.random.Generator,
        pupil: EnhancedTamiyoPolicyGNN | None,
    ) -> None:
        self.plan, self.random, self.pupil = plan, random, pupil
        late = random.random(runs) < plan.late
        self.waiting = np.where(late, random.geometric(plan.patience, runs), 0)
        self.free = random.random(runs) < (0.0 if pupil is None else 0.5)
        self.generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        self.observations: list[dict[str, Tensor]] = []
        self.expert: list[Ints] = []
        self.done: list[Ints] = []
        self.rewards: list[Floats] = []

    def behave(self, raw: Mapping[str, Any], expert: Ints) -> Ints:
        """[B, 3]: what is done about the present states."""
        done = expert.copy()
        wanted = expert[:, 0] == 1
        waits = wanted & (self.waiting > 0)
        self.waiting -= waits
        done[waits] = 0
        idle = ~wanted & (self.random.random(len(done)) < self.plan.wander)
        for run in np.flatnonzero(idle):
            legal = np.argwhere(
                np.concatenate([raw["action_mask"][run], raw["model_action_mask"][run][None]])
            )
            if len(legal):
                done[run] = 1, *self.random.choice(legal)
        if self.pupil is not None:
            done[self.free] = self._ask(self.pupil, raw)[self.free]
        return done

    def _ask(self, pupil: EnhancedTamiyoPolicyGNN, raw: Mapping[str, Any]) -> Ints:
        graphs = pack({name: torch.as_tensor(raw[name]) for name in FIELDS})
        with torch.no_grad():
            outputs = pupil(graphs.to(pupil.trunk.whole_model.device))
        action = outputs["distribution"].sample(self.generator)
        return to_env_actions(action, raw["node_mask"].shape[1])

    def keep(self, raw: Mapping[str, Any], expert: Ints, done: Ints) -> None:
        """Remember a state, the expert's answer and what was done."""
        self.observations.append({name: torch.tensor(raw[name]) for name in FIELDS})
        self.expert.append(expert)
        self.done.append(done)

    def demonstrations(self) -> Demonstrations:
        """The states that are kept, in the order of time."""
        expert, done = np.stack(self.expert), np.stack(self.done)
        wanted = expert[..., 0] == 1
        kept = wanted | (self.random.random(wanted.shape) < self.plan.keep_idle)
        index = torch.as_tensor(np.flatnonzero(kept))
        columns = {
            name: torch.stack([one[name] for one in self.observations]).flatten(0, 1)[index]
            for name in FIELDS
        }
        answers = torch.as_tensor(expert.reshape(-1, 3))[index]
        weights = torch.where(answers[:, 0] == 1, 1.0, 1.0 / self.plan.keep_idle)
        targets = torch.as_tensor(self._targets(expert, done), dtype=torch.float32)
        nodes = columns["node_mask"].shape[1]
        return Demonstrations(
            columns, _to_action(answers, nodes), weights, targets.flatten(0, 1)[index]
        )

    def _targets(self, expert: Ints, done: Ints) -> Floats:
        """[T, B, 6]."""
        acted = done[..., 0] == 1
        gain = _gain_until_next(np.stack(self.rewards), acted)
        wanted = expert[..., 0] == 1
        mended = wanted & (done == expert).all(-1)
        shares = np.stack([one["global_features"].numpy() for one in self.observations])
        known = np.stack([one["global_measured"].numpy() for one in self.observations]) > 0
        shares = np.where(known, shares, np.nan)
        # What is lost while nothing is done is what the cure gains.
        urgency = np.where(mended, np.clip(gain, 0.0, 1.0), np.where(wanted, np.nan, 0.0))
        rows = {
            "safety": np.where(acted, gain >= -self.plan.tolerance, np.nan),
            "risk": np.where(acted, np.clip(-gain, 0.0, 1.0), np.nan),
            "urgency": urgency,
            "health_trend": self._change(shares[..., HEALTH]),
            "stability_trend": self._change(shares[..., STABILITY]),
            "urgency_trend": self._change(urgency),
        }
        return np.stack([rows[name] for name in TARGETS], axis=-1)

    def _change(self, series: Floats) -> Floats:
        """[T, B]: what a series gains over the outlook; NaN where that is not known."""
        ahead = np.full_like(series, np.nan)
        steps = self.plan.outlook
        ahead[: max(len(series) - steps, 0)] = series[steps:] - series[:-steps]
        return np.clip(ahead, -1.0, 1.0)


_GLOBALS = [column.name for column in GLOBAL_COLUMNS]
HEALTH, STABILITY = _GLOBALS.index("health_mean"), _GLOBALS.index("stability")


def _gain_until_next(rewards: Floats, acted: npt.NDArray[np.bool_]) -> Floats:
    """[T, B]: rewards from each decision on, up to the run's next action."""
    gain = np.zeros_like(rewards)
    following = np.zeros(rewards.shape[1])
    for step in reversed(range(len(rewards))):
        following = rewards[step] + following
        gain[step] = following
        following = np.where(acted[step], 0.0, following)
    return gain


def _to_action(rows: Tensor, nodes: int) -> Action:
    """Actions of an environment, [M, 3], as the network takes them."""
    adapt = rows[:, 0] == 1
    target = torch.where(rows[:, 1] == nodes, WHOLE_MODEL, rows[:, 1])
    return Action(adapt, torch.where(adapt, target, WHOLE_MODEL), torch.where(adapt, rows[:, 2], 0))
