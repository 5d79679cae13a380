import numpy as np
import pytest

from tamiyo import _core


def test_ordinary_signals_are_thinned_per_key():
    engine = _core.Filter()
    for position in range(1000):
        kept = [engine.should_process(layer, seed, 0.5) for layer, seed in [(0, 0), (0, 1), (9, 0)]]
        assert kept == [position % 10 == 0] * 3


def test_errors_transitions_and_anomalies_always_pass():
    engine = _core.Filter()
    rng = np.random.default_rng(0)
    for health in rng.normal(0.8, 0.01, 50).clip(0, 1):
        engine.should_process(0, 0, health)
    assert engine.should_process(0, 0, 0.8, error_count=1)
    assert engine.should_process(0, 0, 0.8, is_ready_for_transition=True)
    assert engine.should_process(0, 0, 0.7)
    assert engine.should_process(0, 0, 0.9)


def test_too_little_history_judges_nothing():
    engine = _core.Filter(keep_every=1000)
    assert [engine.should_process(0, 0, 0.5) for _ in range(9)] == [True] + [False] * 8
    assert not engine.should_process(0, 0, 0.9)
    assert engine.should_process(0, 0, 0.1)


def test_missing_health_is_not_anomalous():
    engine = _core.Filter(keep_every=1000)
    for _ in range(20):
        engine.should_process(0, 0, 0.5)
    assert not engine.should_process(0, 0, np.nan)
    assert engine.should_process(0, 0, np.nan, error_count=2)
    assert engine.should_process(0, 0, 0.500_01), "NaN did not enter the history"


def test_a_batch_is_judged_like_its_signals(signals):
    rng = np.random.default_rng(1)
    n = 3000
    columns = signals(
        n,
        layer_id=rng.integers(0, 5, n),
        seed_id=rng.integers(0, 2, n),
        health_score=np.where(rng.random(n) < 0.1, np.nan, rng.normal(0.7, 0.05, n).clip(0, 1)),
        error_count=rng.random(n) < 0.02,
        flags=rng.random(n) < 0.02,
    )
    batch, single = _core.Filter(), _core.Filter()
    kept = np.concatenate(
        [batch.apply({k: v[at : at + 70] for k, v in columns.items()}) for at in range(0, n, 70)]
    )
    assert kept.dtype == bool
    names = ("layer_id", "seed_id", "health_score", "error_count", "flags")
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    assert kept.tolist() == [
        single.should_process(layer, seed, health, errors, bool(flags))
        for layer, seed, health, errors, flags in rows
    ]


def test_keys_are_bounded(signals):
    engine = _core.Filter(max_keys=3)
    assert all(engine.should_process(layer, 0, 0.5) for layer in range(3))
    with pytest.raises(ValueError, match="too many keys"):
        engine.should_process(3, 0, 0.5)
    with pytest.raises(ValueError, match="too many keys"):
        engine.apply(signals(2, layer_id=[0, 4_000_000_000]))
    assert not engine.should_process(2, 0, 0.5)


@pytest.mark.parametrize("score", [-0.1, 1.1, np.inf, -np.inf])
def test_scores_out_of_range_do_not_spoil_the_history(score, signals):
    engine = _core.Filter()
    with pytest.raises(ValueError, match="out of range: health_score"):
        engine.should_process(0, 0, score)
    with pytest.raises(ValueError, match="out of range: health_score, 1"):
        engine.apply(signals(2, health_score=[0.5, score]))
    assert engine.should_process(0, 0, 0.5)


@pytest.mark.parametrize(
    "setting",
    [
        {"anomaly_threshold": 0.0},
        {"anomaly_threshold": np.nan},
        {"history": 5},
        {"minimum_history": 0},
        {"keep_every": 0},
        {"max_keys": 0},
    ],
)
def test_senseless_settings_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        _core.Filter(**setting)
