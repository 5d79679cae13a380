import asyncio

import pytest
import torch

import tamiyo
from tamiyo.contracts import ModelTopology, PerformanceMetrics, Topic, TopologyNode
from tamiyo.graph import ModelGraphBuilder
from tamiyo.learn import ProductionPolicyTrainer, ProductionTrainingConfig
from tamiyo.learn.live import LiveSettings
from tamiyo.learn.rewards import RewardConfig
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig

CONFIG = PolicyConfig(hidden_dim=8, num_gnn_layers=1, num_attention_heads=2)


@pytest.fixture
def trainer(make_config):
    config = make_config(replay_share=0.25, batch_size=64)
    return ProductionPolicyTrainer(EnhancedTamiyoPolicyGNN(CONFIG), CONFIG, config)


def test_arguments_are_checked():
    policy, training = EnhancedTamiyoPolicyGNN(CONFIG), ProductionTrainingConfig()
    with pytest.raises(TypeError, match="ProductionTrainingConfig"):
        ProductionPolicyTrainer(policy, CONFIG, CONFIG)
    with pytest.raises(ValueError, match="another PolicyConfig"):
        ProductionPolicyTrainer(policy, PolicyConfig(), training)


def test_statistics_say_what_was_done(trainer, make_env):
    before = trainer.get_training_statistics()
    assert before["iterations"] == 0
    assert before["latest"] == {}
    trainer.train(make_env(), iterations=2)
    after = trainer.get_training_statistics()
    assert after["iterations"] == 2
    assert after["decisions"] == 2 * 16 * 8
    assert after["optimizer_steps"] == after["latest"]["optimizer_steps"]
    assert after["replay"]["transitions"] == 2 * 16 * 8
    assert after["replay"]["bytes"] > 0
    assert [row["iteration"] for row in after["history"]] == [0, 1]


def test_what_was_trained_can_be_saved_and_decides(trainer, make_env, tmp_path):
    trainer.train(make_env(), iterations=1)
    trainer.policy.save_pretrained(tmp_path, {"command": "a test"})
    assert EnhancedTamiyoPolicyGNN.from_pretrained(tmp_path).is_trained


async def test_it_learns_from_a_run_that_it_watches(trainer):
    """The value learns from what happened; the policy, which decided nothing, stays as it was."""
    bus = tamiyo.connect("memory://")
    collector = tamiyo.ProductionHealthCollector(bus, run="live")
    with pytest.raises(RuntimeError, match="collect"):
        await trainer.train_with_experience_collection(collector, ModelGraphBuilder())
    await collector.start_intelligent_collection()
    before = {name: value.clone() for name, value in trainer.policy.state_dict().items()}

    async def be_a_run():
        node = TopologyNode(layer_id=0, name="net", type="Linear", parameters=4, shape=(2,))
        await bus.publish(Topic.TOPOLOGY, ModelTopology(run="live", nodes=(node,)).to_bytes())
        for step in range(0, 100, 10):
            report = PerformanceMetrics(
                run="live", step=step, timestamp=float(step), loss=1.0, validation_accuracy=0.5
            )
            revision = collector.revision
            await bus.publish(Topic.PERFORMANCE_METRICS, report.to_bytes())
            await collector.wait_for_change(revision)
            await asyncio.sleep(0)
        await collector.stop_collection()

    settings = LiveSettings(interval_steps=10, rewards=RewardConfig(episode_length=4))
    training = trainer.train_with_experience_collection(
        collector, ModelGraphBuilder(), num_episodes=1, settings=settings
    )
    summary, _ = await asyncio.gather(training, be_a_run())
    await bus.close()
    assert summary.returns == (0.0,)
    assert summary.decisions == 4
    assert trainer.replay_buffer.transitions == 4
    after = trainer.policy.state_dict()
    value, adapt = (f"heads.graph.{name}.last.bias" for name in ("value", "adapt"))
    assert not torch.equal(after[value], before[value])
    # Nothing but the decay of weights that no gradient holds up.
    torch.testing.assert_close(after[adapt], before[adapt], rtol=1e-4, atol=0)
    assert trainer.get_training_statistics()["latest"]["policy"] == 0.0
