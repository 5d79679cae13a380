"""Runs that are left alone from the first step to the last, beside which twins are judged."""

from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.course import Course


def train_twins(scenarios, width, config, device="cpu"):
    """Quality of the runs if nothing is done to them, at each of the T + 1 moments of an episode.

    All of them train in one program, in the order of the hosts.
    """
    specs = [scenario.spec for scenario in scenarios]
    cohort = Cohort(specs, steps=config.steps, width=width, device=device)
    course = Course(cohort, scenarios, config.held_out)
    moments = []
    for _ in range(config.decisions + 1):
        course.train(config.interval)
        moments.append(course.quality())
    return moments
