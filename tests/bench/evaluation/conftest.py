"""Small runs that all tests of the evaluation share, and rows made by hand."""

import numpy as np
import pytest
import torch

from tamiyo.bench.evaluation.lineup import COHORTS, Lineup
from tamiyo.bench.evaluation.playing import Job, play
from tamiyo.bench.evaluation.rows import NEVER, Rows
from tamiyo.bench.evaluation.splits import Split
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.learn.graphs import FIELDS, pack
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig
from tamiyo.policy.judgement import thresholds

torch.set_num_threads(1)

SEEDS = (0, 1)


@pytest.fixture(scope="session")
def small_split():
    config = TrainingConfig(decisions=10, interval=5, max_hidden=4, widths=(16,), held_out=64)
    return Split("small", config, 0)


def _noisy_network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2)
        network = EnhancedTamiyoPolicyGNN(shape)
        with torch.no_grad():
            for parameter in network.heads.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="session")
def checkpoint(small_split, tmp_path_factory):
    """An untrained network that prefers layers here and the whole run there.

    Its thresholds are in the middle of what it happens to say, so that all of them matter.
    """
    env = TrainingVectorEnv(12, config=small_split.config)
    begun = [env.reset(seed=small_split.seed(seed))[0] for seed in SEEDS]
    graphs = pack(
        {name: torch.as_tensor(np.concatenate([o[name] for o in begun])) for name in FIELDS}
    )
    for network in map(_noisy_network, range(50)):
        network.trunk.fit_normalization(graphs)
        with torch.no_grad():
            outputs = network(graphs, uncertainty=True)
        limits = {
            "adaptation_confidence_threshold": outputs["epistemic_confidence"].quantile(0.25),
            "safety_margin": 1.0 - outputs["safety_score"].quantile(0.25),
            "uncertainty_threshold": outputs["uncertainty"].quantile(0.7),
        }
        update = {name: limit.item() for name, limit in limits.items()}
        network.config = network.config.model_copy(update=update)
        judged = thresholds(outputs, network.config, network.calibration)
        passed = {one.name: one.passed for one in judged}
        sure = passed["confidence"] & passed["safety"]
        whole = outputs["distribution"].greedy_target()[0] >= len(graphs.x)
        kinds = (whole, sure & passed["uncertainty"], sure & ~passed["uncertainty"])
        # All kinds of answers, in the runs of each seed.
        if all(0 < kind[runs].sum() < 12 for kind in kinds for runs in (slice(12), slice(12, 24))):
            break
    else:
        pytest.fail("no network gives all kinds of answers")
    folder = tmp_path_factory.mktemp("policy")
    network.save_pretrained(folder, {"command": "none: it is not trained"})
    return folder


@pytest.fixture(scope="session")
def played(small_split, checkpoint):
    """All cohorts on two seeds of twelve runs."""
    lineup = Lineup((*COHORTS, "clone"), checkpoint, {"clone": checkpoint})
    return [play(Job(small_split, seed, 12, lineup)) for seed in SEEDS]


@pytest.fixture(scope="session")
def make_rows():
    """Rows of R healthy runs of T decisions to which nothing was done, but for what is given."""

    def make(runs, decisions=4, **columns):
        shape = (runs, decisions)
        blank = {
            "seed": np.zeros(runs, np.int64),
            "host": np.arange(runs),
            "data": np.full(runs, "digits"),
            "fault": np.zeros(runs, np.int64),
            "layer": np.full(runs, -1),
            "struck": np.full(runs, NEVER),
            "curable": np.zeros(runs, bool),
            **{name: np.zeros(runs) for name in ("objective", "accuracy", "twin_accuracy")},
            **{name: np.zeros(shape, bool) for name in ("acted", "proposed", "due")},
            **{name: np.zeros(shape, np.int64) for name in ("target", "type", "step")},
            **{n: np.full(shape, np.nan) for n in ("probability", "confidence", "uncertainty")},
        }
        return Rows(**{**blank, **{name: np.asarray(one) for name, one in columns.items()}})

    return make
