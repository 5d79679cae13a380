"""Runs that are left alone from the first step to the last, beside which twins are judged."""

from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.course import Course


def train_twins(plan, config, device="cpu"):
    """Quality of the runs if nothing is done to them, at each of the T + 1 moments of an episode.

    All of them train in one program, in the order of the hosts.
    """
    specs = [scenario.spec for scenario in plan.scenarios]
    steps = plan.sensing.steps(config.decisions)
    cohort = Cohort(specs, steps=steps, width=plan.width, device=device)
    course = Course(cohort, plan.scenarios, config.held_out)
    if plan.sensing.lead:
        course.train(plan.sensing.lead)
    moments = []
    for moment in range(config.decisions + 1):
        course.train(plan.sensing.interval_before(moment))
        moments.append(course.quality())
    return moments
