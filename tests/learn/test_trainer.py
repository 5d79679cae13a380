import pytest

from tamiyo.learn import ProductionPolicyTrainer, ProductionTrainingConfig
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig

CONFIG = PolicyConfig(hidden_dim=8, num_gnn_layers=1, num_attention_heads=2)


@pytest.fixture
def trainer():
    return ProductionPolicyTrainer(
        EnhancedTamiyoPolicyGNN(CONFIG), CONFIG, ProductionTrainingConfig()
    )


def test_arguments_are_checked():
    policy, training = EnhancedTamiyoPolicyGNN(CONFIG), ProductionTrainingConfig()
    with pytest.raises(TypeError, match="ProductionTrainingConfig"):
        ProductionPolicyTrainer(policy, CONFIG, CONFIG)
    with pytest.raises(ValueError, match="another PolicyConfig"):
        ProductionPolicyTrainer(policy, PolicyConfig(), training)


async def test_what_is_not_there_says_so(trainer):
    with pytest.raises(NotImplementedError, match="comes with the learner"):
        await trainer.train_with_experience_collection(num_episodes=1)
    with pytest.raises(NotImplementedError, match="comes with the learner"):
        trainer.get_training_statistics()
    with pytest.raises(NotImplementedError, match="comes with the learner"):
        trainer.replay_buffer.add_experience(reward=0.0)
