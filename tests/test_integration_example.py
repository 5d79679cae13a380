"""The integration example of the specification, line by line, against a live training run."""

import asyncio
import math

import torch
from torch import nn

import tamiyo
from tamiyo import (
    EnhancedTamiyoPolicyGNN,
    ModelGraphBuilder,
    ModelGraphState,
    PolicyConfig,
    ProductionHealthCollector,
    ProductionPolicyTrainer,
    ProductionTrainingConfig,
)
from tamiyo.host import HostSession

LOOPS = 5


def train(client, steps=200):
    """A real run that publishes on the bus, as `tamiyo.attach` would have it do."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = HostSession(model, optimizer, client, run="example", probe_budget=0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        inputs = torch.randn(32, 8, generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long())
        loss.backward()
        optimizer.step()
        session.step(loss)
    session.remove()


async def test_the_example_runs_as_written():
    oona_client = tamiyo.connect("memory://")
    states = []

    async def execute_adaptation(decision):
        raise AssertionError(f"an untrained network decided: {decision}")

    def compute_reward(result):
        raise AssertionError(f"nothing was done, and yet there is a result: {result}")

    health_collector = ProductionHealthCollector(oona_client, buffer_size=50000)
    await health_collector.start_intelligent_collection()
    graph_builder = ModelGraphBuilder(node_feature_dim=16, edge_feature_dim=8)
    policy_config = PolicyConfig(num_attention_heads=4, enable_uncertainty=True, safety_margin=0.1)
    policy = EnhancedTamiyoPolicyGNN(policy_config)
    training_config = ProductionTrainingConfig(batch_size=64, ppo_epochs=4, safety_loss_weight=1.0)
    trainer = ProductionPolicyTrainer(policy, policy_config, training_config)

    async def autonomous_adaptation_loop():
        while True:
            health_signals = await health_collector.get_recent_signals(count=500)
            graph_state = graph_builder.build_model_graph(health_signals)
            states.append(graph_state)
            decision = policy.make_decision(graph_state)
            if decision:
                result = await execute_adaptation(decision)
                reward = compute_reward(result)
                trainer.replay_buffer.add_experience(
                    state=graph_state,
                    action=decision,
                    reward=reward,
                    next_state=None,
                    td_error=abs(reward),
                )
            await asyncio.sleep(0.1 if len(states) < LOOPS else 0)
            if len(states) == LOOPS:
                return

    await asyncio.to_thread(train, oona_client)
    await asyncio.wait_for(autonomous_adaptation_loop(), 60)

    assert all(isinstance(state, ModelGraphState) for state in states)
    assert states[-1].graph_data.x.shape == (3, 16)
    assert states[-1].graph_data.edge_attr.shape[1] == 8
    verdict = policy.decide(states[-1])
    assert verdict.decision is None
    assert "untrained" in verdict.reason

    async def train_on():
        await asyncio.to_thread(train, oona_client, steps=500)
        await health_collector.stop_collection()

    training_summary, _ = await asyncio.gather(
        trainer.train_with_experience_collection(
            health_collector=health_collector, graph_builder=graph_builder, num_episodes=1000
        ),
        train_on(),
    )
    stats = trainer.get_training_statistics()
    # A run that never evaluates itself says nothing about what a decision is worth.
    assert training_summary.episodes >= 1
    assert all(math.isnan(reward) for reward in training_summary.returns)
    assert stats["iterations"] == 0
    await oona_client.close()
