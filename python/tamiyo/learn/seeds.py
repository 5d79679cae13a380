"""One seed per purpose and iteration, so that nothing random has a state that must be saved."""

import numpy as np

__all__ = ["derive"]


def derive(seed: int, purpose: str, *indices: int) -> int:
    """A seed below 2^31 that depends on all the arguments and on nothing else."""
    words = [seed, *purpose.encode(), *indices]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)
