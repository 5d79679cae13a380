"""What a policy can be tried on: tasks to train for, and faults to inject into their training."""

from tamiyo.envs.faults import Fault, dead_layer, learning_rate_raised
from tamiyo.envs.registration import register_environments
from tamiyo.envs.tasks import Task, digits_mlp

register_environments()

__all__ = ["Fault", "Task", "dead_layer", "digits_mlp", "learning_rate_raised"]
