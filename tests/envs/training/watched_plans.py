"""Chosen runs as the plan of a cohort."""

import numpy as np

from tamiyo.envs.training.sampling import CohortPlan
from tamiyo.envs.training.sensing import Sensing


def watched(scenarios, width, config):
    """Runs, deepest first, that are watched as the configuration says."""
    sensing = Sensing.draw(
        np.random.default_rng(0), config.sensing, config.interval, len(scenarios)
    )
    return CohortPlan(scenarios, width, sensing)
