import numpy as np
import pytest

from tamiyo import _core


def noisy(signals, n, layers, seed=0):
    rng = np.random.default_rng(seed)
    columns = signals(
        n, layer_id=rng.integers(0, layers, n), timestamp=1.7e9 + np.sort(rng.random(n)) * 60
    )
    for row in _core.signal_fields():
        if row.presence == "not_measured":
            column = rng.random(n).astype("f4")
            columns[row.name] = np.where(rng.random(n) < 0.2, np.nan, column).astype("f4")
    columns["error_count"] = rng.integers(0, 3, n).astype("u4")
    columns["flags"] = rng.integers(0, 16, n).astype("u4")
    columns["active_seeds"] = rng.integers(0, 5, n).astype("u2")
    return columns


def test_columns_are_those_of_the_table(signals):
    features = _core.window_features(signals(5, layer_id=[3, 1, 3, 1, 2]))
    assert list(features) == [row.name for row in _core.layer_fields()]
    assert all(features[row.name].dtype == row.dtype for row in _core.layer_fields())
    assert features["layer_id"].tolist() == [1, 2, 3]
    assert features["count"].tolist() == [2, 1, 2]
    assert _core.window_features(signals(0))["layer_id"].shape == (0,)


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_aggregates_agree_with_numpy(signals, window):
    columns = noisy(signals, 400, 6)
    features = _core.window_features(columns, window=window)
    for position, layer in enumerate(features["layer_id"]):
        rows = np.flatnonzero(columns["layer_id"] == layer)[-window:]
        row = {name: column[position] for name, column in features.items()}
        of_layer = {name: column[rows] for name, column in columns.items()}
        assert row["count"] == len(rows)
        assert row["step"] == of_layer["step"][-1]
        assert row["span_seconds"] == pytest.approx(np.ptp(of_layer["timestamp"]), rel=1e-6)
        measured = []
        for field in _core.signal_fields():
            if field.presence != "not_measured":
                continue
            values = of_layer[field.name]
            values = values[~np.isnan(values)].astype(float)
            measured.append(len(values))
            mean, last = (values.mean(), values[-1]) if len(values) else (np.nan, np.nan)
            assert row[f"{field.name}_mean"] == pytest.approx(mean, rel=1e-6, nan_ok=True)
            assert row[f"{field.name}_last"] == pytest.approx(last, rel=1e-6, nan_ok=True)
        assert row["measured_share"] == pytest.approx(sum(measured) / (10 * len(rows)))
        assert row["error_rate"] == pytest.approx(of_layer["error_count"].mean())
        assert row["ready_share"] == pytest.approx((of_layer["flags"] & 1).mean())
        assert row["active_seeds_mean"] == pytest.approx(of_layer["active_seeds"].mean())
        assert row["nonfinite_gradient"] == np.count_nonzero(of_layer["flags"] & 4)
        assert row["nonfinite_last"] == of_layer["flags"][-1] & 14
        health, times = of_layer["health_score"], of_layer["timestamp"]
        times, health = times[~np.isnan(health)] - 1.7e9, health[~np.isnan(health)].astype(float)
        if len(health) > 1:
            slope = np.polyfit(times, health, 1)[0]
            assert row["health_trend"] == pytest.approx(slope, rel=1e-4, abs=1e-7)
            stability = np.clip(1 - 2 * health.std(), 0, 1)
            assert row["stability"] == pytest.approx(stability, rel=1e-5)
        else:
            assert np.isnan(row["health_trend"])
            assert np.isnan(row["stability"])


def test_layers_of_a_collector_are_those_of_every_signal(signals, message):
    columns = noisy(signals, 900, 4)
    ingest = _core.Ingest(window=50)
    ingest.ingest(
        [
            message({name: column[at : at + 60] for name, column in columns.items()}, seq=at)
            for at in range(0, 900, 60)
        ]
    )
    layers, expected = ingest.layers(), _core.window_features(columns, window=50)
    # The start of a layer is since ingest began, not of the window.
    for position, layer in enumerate(layers["layer_id"]):
        variances = columns["activation_variance"][columns["layer_id"] == layer]
        first = variances[~np.isnan(variances)][:10]
        start = layers["activation_variance_start"][position]
        assert start == pytest.approx(first.mean(dtype=float), rel=1e-6)
    for name, column in expected.items():
        if name != "activation_variance_start":
            np.testing.assert_array_equal(layers[name], column)


def test_a_window_has_to_hold_something(signals):
    with pytest.raises(ValueError, match="window"):
        _core.window_features(signals(1), window=0)
