"""The engine's counters as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from snapllm.engine import Engine

# Metric name, field of `ModelStats`, help.
_COUNTERS = (
    ("snapllm_requests", "num_requests", "Requests accepted"),
    ("snapllm_requests_finished", "num_finished", "Requests that ended, however"),
    ("snapllm_requests_cancelled", "num_cancelled", "Requests that were cancelled"),
    ("snapllm_requests_failed", "num_failed", "Requests that ended in an error"),
    ("snapllm_prompt_tokens", "num_prompt_tokens", "Prompt tokens of finished requests"),
    ("snapllm_cached_tokens", "num_cached_tokens", "Prompt tokens restored, not computed"),
    ("snapllm_generated_tokens", "num_generated_tokens", "Tokens generated"),
    ("snapllm_steps", "num_steps", "Batches computed"),
)
_GAUGES = (
    ("snapllm_requests_waiting", "num_waiting", "Requests waiting for admission"),
    ("snapllm_requests_running", "num_running", "Requests being computed"),
    ("snapllm_kv_cells_used", "num_kv_cells_used", "KV cells reserved by running requests"),
)


class EngineCollector(Collector):
    """Reads an engine's counters whenever it is scraped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yields every metric, labelled by model."""
        stats = self._engine.stats()
        for name, field, text in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=["model"])
            for model in stats.models:
                counter.add_metric([model.id], getattr(model, field))
            yield counter
        for name, field, text in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            for model in stats.models:
                gauge.add_metric([model.id], getattr(model, field))
            yield gauge
        yield CounterMetricFamily(
            "snapllm_model_switches", "Switches of the active model", value=stats.num_switches
        )
