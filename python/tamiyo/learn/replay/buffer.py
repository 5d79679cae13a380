"""The replay memory as the trainer has it: fed by single transitions too, and saved with them."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tamiyo.contracts import AdaptationDecision
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import SCHEMA_VERSION
from tamiyo.learn.observations import Observations
from tamiyo.learn.replay.archive import pack, unpack
from tamiyo.learn.replay.episodes import OpenEpisode, Step, action_of, target_row
from tamiyo.learn.replay.memory import PrioritizedMemory
from tamiyo.learn.segments import SEGMENT_LENGTH

__all__ = ["PrioritizedReplay"]

FORMAT = "tamiyo-replay-1"


class PrioritizedReplay(PrioritizedMemory):
    """A memory of segments that also gathers the single transitions of a live loop into segments.

    See `PrioritizedMemory` for what is kept, how it is drawn, and the arguments.
    """

    def __init__(self, capacity: int = 50_000, **settings: Any) -> None:
        super().__init__(capacity, **settings)
        self._open: dict[str | None, OpenEpisode] = {}

    def add_experience(
        self,
        state: ModelGraphState,
        action: AdaptationDecision | None,
        reward: float,
        next_state: ModelGraphState | None = None,
        td_error: float | None = None,
        *,
        terminated: bool = False,
        truncated: bool = False,
        log_prob: float | None = None,
        sampled: bool = False,
        targets: Mapping[str, float] | None = None,
    ) -> None:
        """Keep one transition; those of one run in a row become segments, which can be drawn.

        Args:
            state: What was decided on.
            action: The decision, or None for doing nothing.
            reward: What followed.
            next_state: What came next; by default the `state` of this run's next transition.
            td_error: Initial |advantage|, if it is known.
            terminated: The episode ended by itself; no `next_state` is needed.
            truncated: The episode was cut off at `next_state`.
            log_prob: Of the action; by default the decision's own.
            sampled: Whether the policy drew the action and no check changed it.
            targets: What is known of `segments.TARGETS`.

        Raises:
            ValueError: a decision about several layers, a truncated episode without its last
                moment, or anything that a `Segment` refuses. Nothing is kept then.
        """
        if truncated and next_state is None:
            raise ValueError("a truncated episode needs its last moment, next_state")
        if log_prob is None:
            log_prob = getattr(action, "log_prob", None)
        step = Step(
            Observations.from_data(state.graph_data),
            *action_of(state, action),
            log_prob=_or_nan(log_prob),
            reward=float(reward),
            sampled=sampled,
            targets=target_row(targets),
            td_error=_or_nan(td_error),
        )
        successor = None if next_state is None else Observations.from_data(next_state.graph_data)
        if td_error is not None:
            self._priorities(np.array([td_error]))
        # Refused here, while it can be told which transition is wrong.
        OpenEpisode(self.policy_version, [step]).close(step.observation)
        with self._lock:
            episode = self._follow(state.run, step.observation)
            episode.add(step, successor)
            ended = terminated or truncated
            if ended or (successor is not None and len(episode.steps) == SEGMENT_LENGTH):
                del self._open[state.run]
                self._close(episode, step.observation, terminated=terminated, truncated=truncated)

    def end_episode(self, run: str | None) -> None:
        """What this run sends next does not follow what it sent before.

        A last transition whose `next_state` never came is lost.
        """
        with self._lock:
            episode = self._open.pop(run, None)
            if episode is None:
                return
            if episode.successor is None:
                episode.successor = episode.steps.pop().observation
            if episode.steps:
                self._close(episode, episode.successor)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, open episodes and the state of the draws included, as CPU tensors.

        Safetensors can hold it. A memory that is restored from it draws the same, bit for bit.
        """
        with self._lock:
            episodes = list(self._open.values())
            # A moment that is still to come is filled in by the last one, and marked.
            closed = [episode.close(episode.last_moment) for episode in episodes]
            errors = [step.td_error for episode in episodes for step in episode.steps]
            arrays = {
                "metadata": np.frombuffer(json.dumps(self._metadata()).encode(), np.uint8).copy(),
                "serials": self._held(),
                "priorities": self.priorities,
                "open.errors": np.array(errors, np.float64),
            }
            held = self.segments
        arrays |= {f"held.{name}": array for name, array in pack(held).items()}
        arrays |= {f"open.{name}": array for name, array in pack(closed).items()}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Become the memory that `state_dict` was taken of; nothing is changed where that fails.

        Raises:
            ValueError: the state of a memory of another capacity, of another schema of the graph,
                or of something else.
        """
        arrays = {name: tensor.numpy(force=True) for name, tensor in state.items()}
        try:
            metadata = _checked(arrays["metadata"], self.capacity)
            held = unpack(_below("held.", arrays))
            left = unpack(_below("open.", arrays))
            serials, priorities = arrays["serials"], arrays["priorities"]
            errors = arrays["open.errors"].tolist()
        except KeyError as error:
            raise ValueError(f"not the state of a replay memory: {error} is missing") from None
        episodes = {}
        for segment, (run, has_successor) in zip(left, metadata["open"], strict=True):
            own, errors = errors[: len(segment)], errors[len(segment) :]
            episodes[run] = OpenEpisode.reopen(segment, own, has_successor)
        with self._lock:
            self._replace(held, serials, priorities, metadata["next_serial"])
            self._open = episodes
            self.policy_version = metadata["policy_version"]
            self.beta = metadata["beta"]
            self._generator.bit_generator.state = metadata["generator"]

    def _metadata(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "capacity": self.capacity,
            "next_serial": self._next_serial,
            "policy_version": self.policy_version,
            "beta": self.beta,
            "generator": self._generator.bit_generator.state,
            "open": [[run, kept.successor is not None] for run, kept in self._open.items()],
        }

    def _follow(self, run: str | None, observation: Observations) -> OpenEpisode:
        """The open episode to which a decision on this moment belongs."""
        episode = self._open.get(run)
        if episode is None or not episode.fits(observation, self.policy_version):
            if episode is not None:
                del self._open[run]
                self._close(episode, observation)
            episode = self._open[run] = OpenEpisode(self.policy_version)
        return episode

    def _close(self, episode: OpenEpisode, following: Observations, **end: bool) -> None:
        """Keep an episode's steps, `following` being the moment after them unless it was given."""
        last = following if episode.successor is None else episode.successor
        self.add_segment(episode.close(last, **end), episode.error)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _below(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _checked(encoded: npt.NDArray[Any], capacity: int) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(encoded.tobytes())
    expected = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "capacity": capacity}
    for name, value in expected.items():
        if metadata[name] != value:
            raise ValueError(f"the state has {name} {metadata[name]}, this memory {value}")
    return metadata
