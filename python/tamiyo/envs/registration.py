"""The environments by their gymnasium ids; importing `tamiyo.envs` makes them known."""

import gymnasium

__all__ = ["MOST_HIDDEN", "register_environments"]

MOST_HIDDEN = {"TrainingSmall": 3, "TrainingMedium": 6, "Training": None}
"""Hidden layers up to which `tamiyo/NAME-v0` has room, so that small networks need not be padded to
the size of large ones; none for as many as the configuration says."""


def register_environments() -> None:
    """Register every environment that is not registered yet."""
    if "tamiyo/Sandbox-v0" not in gymnasium.registry:
        gymnasium.register(
            "tamiyo/Sandbox-v0",
            entry_point="tamiyo.envs.sandbox_env:SandboxEnv",
            vector_entry_point="tamiyo.envs.sandbox_env:SandboxVectorEnv",
        )
    for name, hidden in MOST_HIDDEN.items():
        if f"tamiyo/{name}-v0" not in gymnasium.registry:
            gymnasium.register(
                f"tamiyo/{name}-v0",
                entry_point="tamiyo.envs.training.vector_env:TrainingEnv",
                vector_entry_point="tamiyo.envs.training.vector_env:TrainingVectorEnv",
                kwargs={"max_hidden": hidden},
            )
