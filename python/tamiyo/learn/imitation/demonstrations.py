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

from tamiyo.learn.experience import flat_action
from tamiyo.learn.graphs import FIELDS, pack
from tamiyo.learn.outcomes import outcome_targets
from tamiyo.learn.rollout import to_env_actions
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
    returns: Tensor
    """[M]: rewards of the rest of the episode where the expert was followed in all of it, else NaN.
    """

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: Tensor) -> "Demonstrations":
        return Demonstrations(
            {name: column[index] for name, column in self.observations.items()},
            flat_action(self.action, index),
            self.weights[index],
            self.targets[index],
            self.returns[index],
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
            torch.cat([part.returns for part in parts]),
        )

    def save(self, path: Path) -> None:
        """Write one file, which appears when it is whole."""
        columns = {f"observation.{name}": t for name, t in self.observations.items()}
        columns |= {name: getattr(self.action, name) for name in ("adapt", "target", "type")}
        columns |= {name: getattr(self, name) for name in ("weights", "targets", "returns")}
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
            columns["returns"],
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
        device = None if pupil is None else pupil.device
        self.generator = torch.Generator(device or "cpu").manual_seed(int(random.integers(2**62)))
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
            outputs = pupil(graphs.to(pupil.device))
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
        nodes = columns["node_mask"].shape[1]
        return Demonstrations(
            columns,
            _to_action(answers, nodes),
            weights,
            torch.as_tensor(self._targets(expert, done)).flatten(0, 1)[index],
            torch.as_tensor(self._returns(expert, done), dtype=torch.float32).flatten()[index],
        )

    def _targets(self, expert: Ints, done: Ints) -> npt.NDArray[np.float32]:
        """[T, B, 6]."""
        wanted = expert[..., 0] == 1
        over = np.zeros(wanted.shape, np.bool_)
        over[-1] = True
        return outcome_targets(
            np.stack(self.rewards),
            done[..., 0] == 1,
            over,
            np.stack([one["global_features"].numpy() for one in self.observations]),
            np.stack([one["global_measured"].numpy() for one in self.observations]),
            wanted=wanted,
            mended=wanted & (done == expert).all(-1),
        )

    def _returns(self, expert: Ints, done: Ints) -> Floats:
        """[T, B]."""
        rest = np.stack(self.rewards)[::-1].cumsum(axis=0)[::-1]
        # A pupil that follows the expert to the end does so where that is easy.
        followed = (done == expert).all(-1) & ~self.free
        return np.where(np.logical_and.accumulate(followed[::-1])[::-1], rest, np.nan)


def _to_action(rows: Tensor, nodes: int) -> Action:
    """Actions of an environment, [M, 3], as the network takes them."""
    adapt = rows[:, 0] == 1
    target = torch.where(rows[:, 1] == nodes, WHOLE_MODEL, rows[:, 1])
    return Action(adapt, torch.where(adapt, target, WHOLE_MODEL), torch.where(adapt, rows[:, 2], 0))
