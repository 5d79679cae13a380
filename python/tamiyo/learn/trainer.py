"""The trainer's face: construction is checked, learning itself comes with the learner."""

from typing import Any, NoReturn

from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig

__all__ = ["ProductionPolicyTrainer"]

REASON = "learning is not part of this version: {} comes with the learner"


class _ReplayBuffer:
    def add_experience(self, **_experience: Any) -> NoReturn:
        """Keep one transition.

        Raises:
            NotImplementedError: always, in this version.
        """
        raise NotImplementedError(REASON.format("the replay buffer"))


class ProductionPolicyTrainer:
    """Trains a policy from experience.

    Args:
        policy: The network to train.
        policy_config: The configuration that the network was made with.
        training_config: The learner's settings.

    Raises:
        TypeError: an argument of another type.
        ValueError: the network was made with another configuration.
    """

    def __init__(
        self,
        policy: EnhancedTamiyoPolicyGNN,
        policy_config: PolicyConfig,
        training_config: ProductionTrainingConfig,
    ) -> None:
        for value, kind in (
            (policy, EnhancedTamiyoPolicyGNN),
            (policy_config, PolicyConfig),
            (training_config, ProductionTrainingConfig),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        if policy.config != policy_config:
            raise ValueError("the policy was made with another PolicyConfig")
        self.policy = policy
        self.policy_config = policy_config
        self.training_config = training_config
        self.replay_buffer = _ReplayBuffer()

    async def train_with_experience_collection(self, **_arguments: Any) -> NoReturn:
        """Collect episodes and learn from them.

        Raises:
            NotImplementedError: always, in this version.
        """
        raise NotImplementedError(REASON.format("training"))

    def get_training_statistics(self) -> NoReturn:
        """Losses and returns of the training so far.

        Raises:
            NotImplementedError: always, in this version.
        """
        raise NotImplementedError(REASON.format("training statistics"))
