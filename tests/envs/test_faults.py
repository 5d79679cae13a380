"""Faults do what they say, and tasks are repeatable."""

import torch

from tamiyo.envs import dead_layer, digits_mlp, learning_rate_raised


def test_a_dead_layer_is_dead_on_real_data():
    task = digits_mlp()
    model = task.make_model()
    dead_layer(0, layer=1).strike(model, task.make_optimizer(model))
    hidden = model[:4](task.train[0])
    assert (hidden == 0).all()
    assert (model[:2](task.train[0]) != 0).any()


def test_the_learning_rate_is_raised_for_good():
    task = digits_mlp()
    optimizer = task.make_optimizer(task.make_model())
    before = optimizer.param_groups[0]["lr"]
    learning_rate_raised(0, factor=100).strike(task.make_model(), optimizer)
    assert optimizer.param_groups[0]["lr"] == 100 * before


def test_the_same_seed_gives_the_same_batches():
    task = digits_mlp()
    one, same, other = (task.batches(seed) for seed in (1, 1, 2))
    first = next(one)
    assert torch.equal(first[0], next(same)[0])
    assert not torch.equal(first[0], next(other)[0])
    assert first[0].shape == (task.batch_size, 64)


def test_training_and_held_out_data_share_no_sample():
    task = digits_mlp()
    train = {tuple(row.tolist()) for row in task.train[0]}
    assert not any(tuple(row.tolist()) in train for row in task.held_out[0])
    assert len(task.train[1]) + len(task.held_out[1]) == 1797
