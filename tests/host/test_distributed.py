"""Two ranks that train the same model adapt it together, bit for bit, or not at all."""

import pytest
import torch
from torch import distributed

import scenarios
from replicas import Pair, Replica
from tamiyo.contracts import AdaptationType, Outcome

APPLIED, KEPT, REFUSED = str(Outcome.APPLIED), str(Outcome.KEPT), str(Outcome.REFUSED)
ROLLED_BACK = str(Outcome.ROLLED_BACK)


@pytest.fixture(scope="module")
def pair():
    pair = Pair()
    yield pair
    pair.close()


def assert_equal(zero, one):
    for part in ("weights", "state", "rates"):
        assert zero[part] == one[part]


ADAPTATIONS = {
    "reinitialize": (AdaptationType.REINITIALIZE, ["mid"], {"scope": "all"}),
    "dormant": (AdaptationType.REINITIALIZE, ["mid"], {"threshold": 1.0}),
    "widen": (AdaptationType.WIDEN, ["stem"], {"units": 3}),
    "net2net": (AdaptationType.WIDEN, ["stem"], {"units": 3, "initialization": "net2net"}),
    "seed": (AdaptationType.ADD_SEED, ["mid"], {"training_steps": 5, "blending_steps": 9}),
    "rate": (AdaptationType.SCALE_LEARNING_RATE, [], {"factor": 0.5}),
    "layer's rate": (AdaptationType.SCALE_LEARNING_RATE, ["mid"], {"factor": 0.5}),
    "clip": (AdaptationType.CLIP_GRADIENTS, [], {"ratio": 0.01}),
    "activation": (AdaptationType.CHANGE_ACTIVATION, ["relu"], {"to": "gelu"}),
    "normalization": (AdaptationType.INSERT_NORMALIZATION, ["mid"], {}),
}


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_both_ranks_adapt_alike(pair, name):
    kind, layers, parameters = ADAPTATIONS[name]
    optimizer = "adamw" if len(name) % 2 else "sgd"
    zero, one = pair.run(scenarios.adapt, kind, layers, parameters, optimizer)
    assert zero["during"]["outcomes"]["d1"] == (APPLIED, "")
    assert zero["outcomes"]["d1"][0] in {KEPT, ROLLED_BACK}
    assert_equal(zero["during"], one["during"])
    assert_equal(zero, one)
    assert zero["errors"] == one["errors"] == {}
    assert zero["during"]["messages"] > 10
    assert one["during"]["messages"] == one["messages"] == 0
    assert one["during"]["losses held"] == one["losses held"] == 0


def test_a_rollback_brings_both_ranks_back(pair):
    kind = AdaptationType.SCALE_LEARNING_RATE
    zero, one = pair.run(scenarios.adapt, kind, [], {"factor": 1e3}, "sgd", 60)
    assert zero["outcomes"]["d1"][0] == ROLLED_BACK
    assert zero["verified"]["d1"] is True
    assert zero["rates"] == [0.02]
    assert_equal(zero, one)
    assert all(torch.isfinite(torch.tensor(w)).all() for w in zero["weights"].values())


def test_a_structural_change_is_taken_back_on_both_ranks(pair):
    zero, one = pair.run(scenarios.hurt_after_widening)
    assert zero["wide"] == one["wide"] == 19
    assert zero["narrow"] == one["narrow"] == 16
    assert zero["outcomes"]["d1"][0] == ROLLED_BACK
    assert zero["verified"]["d1"] is True
    assert_equal(zero, one)


def test_both_ranks_go_back_to_the_same_snapshot(pair):
    zero, one = pair.run(scenarios.restore)
    assert zero["good"]["snapshot"] == one["good"]["snapshot"] is not None
    assert zero["outcomes"]["d1"][0] in {APPLIED, KEPT}
    assert_equal(zero, one)
    assert all(torch.isfinite(torch.tensor(w)).all() for w in zero["weights"].values())


def test_a_seed_leaves_both_ranks_in_mid_run(pair):
    zero, one = pair.run(scenarios.seed_that_is_taken_out)
    assert zero["seeded"] == one["seeded"] == 12
    assert len(zero["weights"]) == 8
    assert zero["outcomes"] == {"d1": (KEPT, ""), "d2": (KEPT, "")}
    assert_equal(zero, one)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("memory", "rank 1: no room"), ("error", "not on this rank"), ("apart", "rank 1 holds other")],
)
def test_where_one_rank_cannot_none_does(pair, how, reason):
    zero, one = pair.run(scenarios.one_refuses, how)
    assert zero["outcomes"]["d1"][0] == REFUSED
    assert reason in zero["outcomes"]["d1"][1]
    assert zero["verified"]["d1"] is True
    assert zero["errors"] == one["errors"] == {}
    if how == "apart":
        # Only what was apart before is apart now.
        del zero["weights"]["head.bias"], one["weights"]["head.bias"]
    assert_equal(zero, one)


def test_nothing_to_decide_changes_nothing(pair):
    assert pair.run(scenarios.undisturbed, True) == pair.run(scenarios.undisturbed, False)


def test_a_rank_without_tamiyo_is_not_waited_for(pair):
    zero, _ = pair.run(scenarios.half_attached)
    outcome, reason = zero["outcomes"]["d1"]
    assert outcome == REFUSED
    assert "not attached on rank 1" in reason


def test_what_is_not_wrapped_is_only_observed(pair):
    zero, one = pair.run(scenarios.without_wrapper)
    assert zero["mode"] == one["mode"] == "observe"
    assert zero["advice"] == 1
    assert zero["outcomes"] == {}


def test_the_wrapper_is_found_from_inside(pair):
    zero, one = pair.run(scenarios.framework)
    assert zero["outcomes"]["d1"] == (APPLIED, "")
    assert_equal(zero, one)


def test_a_reducer_that_cannot_be_rebuilt_stays(pair):
    zero, one = pair.run(scenarios.communication_hook)
    assert zero["outcomes"]["d1"][0] == REFUSED
    assert "communication hook" in zero["outcomes"]["d1"][1]
    assert zero["outcomes"]["d2"] == (APPLIED, "")
    assert_equal(zero, one)


def test_a_compiled_replica_is_seen_and_adapted(pair):
    zero, one = pair.run(scenarios.compiled)
    assert zero["edges"] == one["edges"] == 5
    assert zero["outcomes"]["d1"] == (KEPT, "")
    assert_equal(zero, one)


def test_a_hook_that_fails_on_one_rank_is_taken_off_on_both(pair):
    zero, one = pair.run(scenarios.failing_hook)
    assert zero["outcomes"]["d1"][0] == ROLLED_BACK
    assert "rank 1: adaptation hooks" in zero["outcomes"]["d1"][1]
    assert_equal(zero, one)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["training", "meeting"])
def test_a_rank_that_dies_hurts_no_more_than_without(moment):
    pair = Pair()
    try:
        zero, one = pair.run(scenarios.dies, moment)
    finally:
        pair.close()
    assert one is None
    assert "closed" in zero["raised"].lower() or "reset" in zero["raised"].lower()
    assert zero["width"] == 16
    assert zero["errors"] == {}
    if moment == "meeting":
        assert zero["outcomes"]["d1"][0] == REFUSED
        assert "does not answer" in zero["outcomes"]["d1"][1]


@pytest.mark.parametrize(
    "options",
    [{"find_unused_parameters": True}, {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.0001}],
    ids=str,
)
def test_other_wrappers_with_accumulated_gradients(pair, options):
    zero, one = pair.run(scenarios.variant, options)
    assert zero["during"]["outcomes"]["d1"] == (APPLIED, "")
    assert_equal(zero["during"], one["during"])
    assert zero["outcomes"]["d1"][0] == ROLLED_BACK
    assert_equal(zero, one)


def test_a_sharded_model_is_only_observed(pair):
    zero, one = pair.run(scenarios.sharded)
    assert zero == ("observe", {}, True, 1, 1)
    assert one == ("observe", {}, False, 0, 0)


def test_an_adapted_replica_is_saved_and_loaded(pair):
    zero, one = pair.run(scenarios.saved_and_loaded)
    assert zero["same"]
    assert zero["outcomes"]["d2"] == (APPLIED, "")
    assert_equal(zero, one)


@pytest.fixture
def group_of_one():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("inner", [False, True])
def test_a_wrapper_without_other_ranks_follows_too(group_of_one, inner):
    run = Replica(0, horizon=10, inner=inner)
    run.steps(4)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(40)
    outcome = run.report()["outcomes"]["d1"]
    run.session.remove()
    assert outcome == (KEPT, "")
    assert run.module.stem.out_features == 19
    assert run.module.stem.weight.grad is not None


def test_a_stiff_wrapper_refuses_what_it_could_not_follow(group_of_one):
    run = Replica(0, wrapper={"static_graph": True})
    run.steps(4)
    run.decide(AdaptationType.WIDEN, (run.layer("stem"),), units=3)
    run.steps(2)
    outcome, reason = run.report()["outcomes"]["d1"]
    run.session.remove()
    assert outcome == REFUSED
    assert "static graph" in reason
    assert run.module.stem.out_features == 16


@pytest.mark.slow
def test_one_rank_thinks_for_all(pair, tmp_path):
    zero, one = pair.run(scenarios.attached, str(tmp_path))
    assert zero["thinks"]
    assert zero["journal"]
    assert not one["thinks"]
    assert not one["journal"]
    assert zero["history"][0][0] == "restore"
    assert zero["health"] == one["health"] == 6
    assert zero["weights"] == one["weights"]
    assert all(torch.isfinite(torch.tensor(w)).all() for w in zero["weights"].values())
    assert zero["errors"] == one["errors"] == {}
