"""Names of the streams on the bus, and which of them may lose messages."""

from enum import StrEnum

__all__ = ["CONTROL_TOPICS", "TELEMETRY_TOPICS", "Topic"]


class Topic(StrEnum):
    """A stream on the bus.

    Telemetry is delivered at most once and sheds its oldest messages under load, counted.
    Control is never shed: a full control queue refuses the sender.
    """

    KERNEL_PERFORMANCE = "telemetry.execution.kernel_performance"
    CACHE_HIT_RATES = "telemetry.cache.hit_rates"
    ERROR_RECOVERY = "telemetry.error_recovery.events"
    HEALTH_SIGNALS = "telemetry.layer.health_signals"
    PERFORMANCE_METRICS = "telemetry.model.performance_metrics"
    TOPOLOGY = "control.model.topology"
    DECISIONS = "control.adaptation.decisions"
    RESULTS = "control.adaptation.results"

    @property
    def is_control(self) -> bool:
        """Whether messages of this stream must not be shed."""
        return self.value.startswith("control.")


TELEMETRY_TOPICS = tuple(topic for topic in Topic if not topic.is_control)
CONTROL_TOPICS = tuple(topic for topic in Topic if topic.is_control)
