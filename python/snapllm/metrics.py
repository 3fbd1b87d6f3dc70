"""The engine's counters as Prometheus metrics."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from snapllm import _core
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
    ("snapllm_embedded_tokens", "num_embedded_tokens", "Tokens of inputs that were embedded"),
    ("snapllm_steps", "num_steps", "Batches computed"),
    ("snapllm_batch_tokens", "num_batch_tokens", "Tokens computed in batches"),
    ("snapllm_batch_sequences", "num_batch_sequences", "Sequences in batches"),
    ("snapllm_model_loads", "num_loads", "Loads of the model, returns from eviction included"),
    ("snapllm_model_evictions", "num_evictions", "Evictions of the model"),
    ("snapllm_draft_tokens", "num_draft_tokens", "Tokens guessed ahead"),
    ("snapllm_accepted_draft_tokens", "num_accepted_draft_tokens", "Of these, what was right"),
    ("snapllm_stopped_steps", "num_stopped_steps", "Steps that gave way to something new"),
    ("snapllm_preemptions", "num_preemptions", "Requests that gave their KV cells to another"),
    ("snapllm_failed_restores", "num_failed_restores", "Stored prefixes that were of no use"),
)
_GAUGES = (
    ("snapllm_requests_waiting", "num_waiting", "Requests waiting for admission"),
    ("snapllm_requests_running", "num_running", "Requests being computed"),
    ("snapllm_kv_cells_used", "num_kv_cells_used", "KV cells of running requests and hot prefixes"),
    ("snapllm_model_resident", "resident", "1 while the model is in memory, else 0"),
)
_HISTOGRAMS = (
    ("snapllm_queue_time_seconds", "queue_time", "From submission to admission"),
    (
        "snapllm_time_to_first_token_seconds",
        "time_to_first_token",
        "From submission to the first token",
    ),
    (
        "snapllm_inter_token_latency_seconds",
        "inter_token_latency",
        "From one token of a request to the next",
    ),
)
# Metric name, field of `ImageCounts`, help.
_IMAGE_COUNTERS = (
    ("snapllm_image_requests", "num_requests", "Image requests accepted"),
    ("snapllm_image_requests_finished", "num_finished", "Image requests that ended, however"),
    ("snapllm_image_requests_cancelled", "num_cancelled", "Image requests that were cancelled"),
    ("snapllm_image_requests_failed", "num_failed", "Image requests that ended in an error"),
    ("snapllm_images", "num_images", "Images made"),
)
# Metric name, field of `MemoryStats`, help.
_MEMORY = (
    ("snapllm_memory_budget_bytes", "budget_bytes", "Memory that may be taken"),
    ("snapllm_memory_used_bytes", "used_bytes", "Memory taken, of all kinds"),
    ("snapllm_memory_models_bytes", "models_bytes", "Weights, KV memory and buffers"),
    ("snapllm_memory_snapshots_bytes", "snapshot_bytes", "KV of prompts kept in RAM"),
    ("snapllm_memory_external_bytes", "external_bytes", "Image models"),
)
# Metric name, field of `KvStoreStats`, help.
_KV_STORE = (
    ("snapllm_kv_files_written", "num_written", "Files of KV written to the workspace"),
    ("snapllm_kv_files_damaged", "num_damaged", "Files of KV that were damaged, and removed"),
    ("snapllm_kv_read_failures", "num_read_failures", "Files of KV that could not be read"),
    ("snapllm_kv_write_failures", "num_write_failures", "Files of KV that could not be written"),
)

_BOUNDS = [str(ms / 1000) for ms in _core.LatencyHistogram.bounds_ms] + ["+Inf"]


def _buckets(counts: Sequence[float]) -> list[tuple[str, float]]:
    return list(zip(_BOUNDS, itertools.accumulate(map(float, counts)), strict=True))


class EngineCollector(Collector):
    """Reads an engine's counters whenever it is scraped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yields every metric, labelled by model; counters also of models that were unloaded."""
        stats, totals = self._engine.totals.read()
        for name, field, text in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=["model"])
            for model_id, counts in totals.items():
                counter.add_metric([model_id], counts[field][0])
            yield counter
        for name, field, text in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            for model in stats.models:
                gauge.add_metric([model.id], getattr(model, field))
            yield gauge
        for name, field, text in _HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=["model"])
            for model_id, counts in totals.items():
                *in_bucket, sum_ms = counts[field]
                family.add_metric([model_id], _buckets(in_bucket), sum_ms / 1000)
            yield family
        yield from self._of_images()
        for name, field, text in _MEMORY:
            yield GaugeMetricFamily(name, text, value=getattr(stats.memory, field))
        for name, field, text in _KV_STORE:
            yield CounterMetricFamily(name, text, value=getattr(stats.kv_store, field))
        yield CounterMetricFamily(
            "snapllm_context_files_damaged",
            "Contexts of earlier runs whose files were damaged",
            value=self._engine.contexts.num_damaged,
        )
        yield CounterMetricFamily(
            "snapllm_model_reloads",
            "Models that came back from eviction for a request",
            value=stats.memory.num_reloads,
        )
        yield CounterMetricFamily(
            "snapllm_model_switches", "Switches of the active model", value=stats.num_switches
        )

    def _of_images(self) -> Iterator[Metric]:
        infos = [model.info for model in self._engine.image_models()]
        for name, field, text in _IMAGE_COUNTERS:
            counter = CounterMetricFamily(name, text, labels=["model"])
            for info in infos:
                counter.add_metric([info.id], getattr(info.counts, field))
            yield counter
        values = (
            ("waiting", "Image requests that wait", [info.num_waiting for info in infos]),
            ("running", "Image requests being computed", [info.num_running for info in infos]),
        )
        for name, text, numbers in values:
            gauge = GaugeMetricFamily(f"snapllm_image_requests_{name}", text, labels=["model"])
            for info, number in zip(infos, numbers, strict=True):
                gauge.add_metric([info.id], number)
            yield gauge
