"""Random but valid experience, for tests and measurements of the replay memory."""

import numpy as np

from tamiyo.graph.schema import ACTIONS, EDGE_DIM, GLOBAL_DIM, LAYER_TYPES, NODE_DIM
from tamiyo.learn.observations import GraphStructure, Observations
from tamiyo.learn.segments import TARGETS, Segment


def random_structure(rng, nodes=3, edges=4):
    return GraphStructure(
        rng.integers(0, nodes, (2, edges)), rng.integers(0, len(LAYER_TYPES), nodes)
    )


def random_observations(rng, structure, moments):
    def features(*shape):
        measured = rng.random((moments, *shape)) < 0.8
        return np.where(measured, rng.normal(size=measured.shape), 0).astype(np.float32), measured

    x, x_measured = features(structure.nodes, NODE_DIM)
    edge_attr, edge_measured = features(structure.edges, EDGE_DIM)
    global_features, global_measured = features(GLOBAL_DIM)
    action_mask = rng.random((moments, structure.nodes, len(ACTIONS))) < 0.5
    action_mask[:, :, 0] = True
    return Observations(
        structure,
        x=x,
        x_measured=x_measured,
        edge_attr=edge_attr,
        edge_measured=edge_measured,
        global_features=global_features,
        global_measured=global_measured,
        action_mask=action_mask,
        model_action_mask=rng.random((moments, len(ACTIONS))) < 0.5,
    )


def random_segment(rng, steps=16, structure=None, *, version=0, successor=None, **columns):
    """Legal actions on layers or none, of which some were sampled.

    Args:
        rng: NumPy's generator.
        steps: Number of decisions.
        structure: By default a small random one.
        version: Of the policy.
        successor: Structure of the last moment, if it is another one.
        columns: What is given instead of being drawn.
    """
    structure = random_structure(rng) if structure is None else structure
    observations = random_observations(rng, structure, steps + (successor is None))
    adapt = rng.random(steps) < 0.5
    target = np.where(adapt, rng.integers(0, structure.nodes, steps), -1)
    targets = rng.random((steps, len(TARGETS)))
    drawn = {
        "adapt": adapt,
        "target": target,
        "type": np.zeros(steps, int),
        "log_prob": -rng.random(steps),
        "reward": rng.normal(size=steps),
        "terminated": np.zeros(steps, bool),
        "truncated": np.zeros(steps, bool),
        "sampled": rng.random(steps) < 0.7,
        "targets": np.where(rng.random(targets.shape) < 0.5, np.nan, targets),
    }
    return Segment(
        observations,
        policy_version=version,
        successor=None if successor is None else random_observations(rng, successor, 1),
        **drawn | columns,
    )


def same_segment(first, second):
    """Whether two segments are equal, number for number."""
    return (
        first.policy_version == second.policy_version
        and len(first.blocks) == len(second.blocks)
        and all(a.equals(b) for a, b in zip(first.blocks, second.blocks, strict=True))
        and all(
            np.array_equal(column, getattr(second, name), equal_nan=column.dtype.kind == "f")
            for name, column in first.columns()
        )
    )
