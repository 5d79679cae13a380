"""PPO of stable-baselines3 learns on `tamiyo/Training-v0`, networks that really train.

    pip install stable-baselines3
    python examples/stable_baselines3_training.py --steps 20000 --workers 2

All runs come from one vectorised environment, which stable-baselines3 is given through a small
adapter. Its policy sees each graph's node features as their mean and their extremes beside the
global features, so that it can tell that something is wrong, but hardly where: Tamiyo's own policy
points at layers. Actions that are not legal do nothing.
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv


class TrainingRuns(VecEnv):
    """A `TrainingVectorEnv` with the interface of stable-baselines3."""

    def __init__(self, runs: TrainingVectorEnv) -> None:
        self.runs = runs
        super().__init__(runs.num_envs, runs.single_observation_space, runs.single_action_space)
        self._actions = np.zeros((runs.num_envs, 3), np.int64)

    def reset(self) -> dict[str, npt.NDArray[Any]]:
        """Start all runs anew."""
        observations, _ = self.runs.reset(seed=self._seeds[0])
        self._reset_seeds()
        return observations

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Remember what to do."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Do it."""
        observations, rewards, terminated, _, columns = self.runs.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for run in np.flatnonzero(terminated):
            last = {name: values[run] for name, values in columns["final_obs"].items()}
            infos[run] = {"terminal_observation": last, "TimeLimit.truncated": False}
        return observations, rewards.astype(np.float32), terminated, infos

    def close(self) -> None:
        """End the workers."""
        self.runs.close()

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """An attribute, which all runs share."""
        return [getattr(self.runs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:  # noqa: ARG002 - its signature
        """Set an attribute of all runs."""
        setattr(self.runs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Runs have no methods of their own."""
        raise NotImplementedError(f"{method_name} would be called for {indices or 'all'} runs")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> Sequence[bool]:  # noqa: ARG002 - its signature
        """They are not."""
        return [False for _ in self._get_indices(indices)]


class GraphSummary(BaseFeaturesExtractor):
    """Mean, largest and smallest value of each node feature, and the global features."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        nodes, globals_ = observation_space["x"], observation_space["global_features"]
        super().__init__(observation_space, 3 * nodes.shape[1] + globals_.shape[0])

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """[B, features]."""
        x, exists = observations["x"], observations["node_mask"][..., None].float()
        mean = (x * exists).sum(dim=1) / exists.sum(dim=1).clamp_min(1.0)
        highest = x.masked_fill(exists == 0, -torch.inf).amax(dim=1)
        lowest = x.masked_fill(exists == 0, torch.inf).amin(dim=1)
        return torch.cat([mean, highest, lowest, observations["global_features"]], dim=1)


def train(steps: int, runs: int, workers: int, config: TrainingConfig | None = None) -> PPO:
    """Train for at least so many decisions.

    Args:
        steps: Decisions of all runs together.
        runs: Runs at a time.
        workers: Processes that train them.
        config: What episodes are made of; their decisions should be a multiple of four.
    """
    env = TrainingVectorEnv(runs, config=config, cohort_size=-(-runs // workers), workers=workers)
    model = PPO(
        "MultiInputPolicy",
        VecMonitor(TrainingRuns(env)),
        n_steps=env.config.decisions,
        batch_size=runs * env.config.decisions // 4,
        gamma=1.0,
        ent_coef=0.003,
        policy_kwargs={"features_extractor_class": GraphSummary, "net_arch": [64, 64]},
        device="cpu",
        seed=0,
    )
    model.learn(steps)
    return model


def main() -> None:
    """Train and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=20_000, help="decisions")
    parser.add_argument("--runs", type=int, default=128, help="networks that train at a time")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = train(arguments.steps, arguments.runs, arguments.workers)
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    print(f"{model.num_timesteps} decisions; mean return {np.mean(returns):+.3f}")
    model.get_env().close()


if __name__ == "__main__":
    main()
