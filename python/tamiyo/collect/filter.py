"""The anomaly filter for one signal at a time; batches go through the same code in Rust."""

from tamiyo import _core
from tamiyo.contracts import HealthSignal

__all__ = ["SignalFilterEngine"]


class SignalFilterEngine:
    """Keeps what is urgent or unusual, and every tenth of the rest.

    A signal passes when it reports errors or asks for a transition, when its health lies more than
    `anomaly_threshold` standard deviations from the mean of the up to 100 previous values of the
    same layer and seed (at least ten), or when it is the first, the eleventh, … of the others.

    Args:
        anomaly_threshold: Standard deviations beyond which a health score is unusual.
        max_keys: Most (layer, seed) pairs that are told apart.
    """

    def __init__(self, anomaly_threshold: float = 2.0, *, max_keys: int = 65_536) -> None:
        if not anomaly_threshold > 0:
            raise ValueError(f"anomaly_threshold must be positive, got {anomaly_threshold}")
        self.anomaly_threshold = anomaly_threshold
        self._filter = _core.Filter(anomaly_threshold, max_keys=max_keys)

    def should_process(self, signal: HealthSignal) -> bool:
        """Whether to keep `signal`. Every call counts as one signal of its layer's history.

        Raises:
            ValueError: a pair beyond `max_keys`.
        """
        return self._filter.should_process(
            signal.layer_id,
            signal.seed_id,
            signal.health_score,
            signal.error_count,
            signal.is_ready_for_transition,
        )
