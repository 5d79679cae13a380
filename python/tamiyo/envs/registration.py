"""The environments by their gymnasium ids; importing `tamiyo.envs` makes them known."""

import gymnasium

__all__ = ["register_environments"]


def register_environments() -> None:
    """Register every environment that is not registered yet."""
    if "tamiyo/Sandbox-v0" not in gymnasium.registry:
        gymnasium.register(
            "tamiyo/Sandbox-v0",
            entry_point="tamiyo.envs.sandbox_env:SandboxEnv",
            vector_entry_point="tamiyo.envs.sandbox_env:SandboxVectorEnv",
        )
    if "tamiyo/Training-v0" not in gymnasium.registry:
        gymnasium.register(
            "tamiyo/Training-v0",
            entry_point="tamiyo.envs.training.vector_env:TrainingEnv",
            vector_entry_point="tamiyo.envs.training.vector_env:TrainingVectorEnv",
        )
