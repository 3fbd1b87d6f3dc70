"""The native API: models, generate, health.

Reference: docs/api.md. The specification fixes the fields of the model endpoints;
`generate` follows the form of its other generation endpoints.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from snapllm._core import EngineStats, ModelInfo, ModelStats
from snapllm.conversation import Message
from snapllm.errors import InvalidRequestError
from snapllm.outputs import (
    ChatEvent,
    Finish,
    ReasoningDelta,
    TextDelta,
    Usage,
    tokens_per_second,
)
from snapllm.params import (
    DEFAULT_MAX_TOKENS,
    ChatRequest,
    CompletionRequest,
    LoadOptions,
    MaxTokens,
    MinP,
    Penalty,
    RepeatPenalty,
    SamplingOptions,
    Seed,
    StopSequence,
    Temperature,
    TopK,
    TopP,
)
from snapllm.protocol.decoding import decode_body

_encode = msgspec.json.encode
MAX_BATCH = 256


class LoadRequest(msgspec.Struct, kw_only=True):
    """The body of POST /api/v1/models/load."""

    model_id: Annotated[str, Meta(min_length=1, max_length=256)]
    file_path: Annotated[str, Meta(min_length=1)]
    model_type: Literal["auto", "llm", "vision", "diffusion"] = "auto"
    gpu_layers: Annotated[int, Meta(ge=-1, le=100_000)] = -1
    context_size: Annotated[int, Meta(ge=0, le=1 << 24)] = 0
    mmproj_path: str | None = None
    num_threads: Annotated[int, Meta(ge=0, le=512)] = 0
    pinned: bool = False
    keep_alive_s: Annotated[float, Meta(ge=0)] | None = None


class PinRequest(msgspec.Struct):
    """The body of POST /api/v1/models/pin."""

    model_id: Annotated[str, Meta(min_length=1)]
    pinned: bool = True


class ModelIdRequest(msgspec.Struct):
    """The body of POST /api/v1/models/switch and /unload."""

    model_id: Annotated[str, Meta(min_length=1)]


class SamplingFields(msgspec.Struct, kw_only=True):
    """What the generating endpoints have in common."""

    model: str | None = None
    model_id: str | None = None
    system: str | None = None
    raw: bool = False
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS
    temperature: Temperature = 0.7
    top_p: TopP = 0.9
    top_k: TopK = 40
    min_p: MinP = 0.05
    repeat_penalty: RepeatPenalty = 1.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    seed: Seed = -1
    stop: StopSequence | list[StopSequence] = []
    thinking: bool = False

    def model_name(self) -> str:
        """The model to use; empty = the active one."""
        return self.model or self.model_id or ""


class GenerateRequest(SamplingFields, kw_only=True):
    """The body of POST /api/v1/generate."""

    prompt: Annotated[str, Meta(min_length=1)]
    stream: bool = False


class BatchRequest(SamplingFields, kw_only=True):
    """The body of POST /api/v1/generate/batch."""

    prompts: Annotated[
        list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=MAX_BATCH)
    ]


_load_decoder = msgspec.json.Decoder(LoadRequest)
_pin_decoder = msgspec.json.Decoder(PinRequest)
_model_id_decoder = msgspec.json.Decoder(ModelIdRequest)
_generate_decoder = msgspec.json.Decoder(GenerateRequest)
_batch_decoder = msgspec.json.Decoder(BatchRequest)


def parse_load(body: bytes) -> LoadRequest:
    """Reads a load request; refuses model types this build cannot load."""
    request = decode_body(body, _load_decoder)
    if request.model_type == "diffusion":
        raise InvalidRequestError(
            "model_type: diffusion models are not supported by this version", param="model_type"
        )
    if request.model_type == "vision" and not request.mmproj_path:
        raise InvalidRequestError(
            "mmproj_path: a vision model needs its projector file", param="mmproj_path"
        )
    if request.model_type == "llm" and request.mmproj_path:
        raise InvalidRequestError(
            "mmproj_path: a model of type llm has no projector; use vision or auto",
            param="mmproj_path",
        )
    return request


def load_options(request: LoadRequest) -> LoadOptions:
    """The keyword arguments of `Engine.load` that a load request asks for."""
    options = LoadOptions(
        gpu_layers=request.gpu_layers,
        context_size=request.context_size,
        num_threads=request.num_threads,
        pinned=request.pinned,
        mmproj_path=request.mmproj_path or "",
    )
    if request.keep_alive_s is not None:
        options["keep_alive_s"] = request.keep_alive_s
    return options


def parse_model_id(body: bytes) -> str:
    """Reads the model id of a switch or unload request."""
    return decode_body(body, _model_id_decoder).model_id


def parse_pin(body: bytes) -> PinRequest:
    """Reads a pin request."""
    return decode_body(body, _pin_decoder)


def parse_generate(body: bytes) -> tuple[ChatRequest | CompletionRequest, bool]:
    """Reads a generate request; returns it and whether its answer is streamed."""
    wire = decode_body(body, _generate_decoder)
    return _request(wire, wire.prompt), wire.stream


def parse_batch(body: bytes) -> list[ChatRequest | CompletionRequest]:
    """Reads a batch: one request for each prompt, in their order."""
    wire = decode_body(body, _batch_decoder)
    return [_request(wire, prompt) for prompt in wire.prompts]


def _request(wire: SamplingFields, prompt: str) -> ChatRequest | CompletionRequest:
    if not wire.raw:
        return chat_of(wire, prompt)
    return CompletionRequest(
        prompt=prompt,
        model=wire.model_name(),
        sampling=_sampling(wire),
        max_tokens=wire.max_tokens,
        stop=_stop(wire),
    )


def chat_of(wire: SamplingFields, prompt: str) -> ChatRequest:
    """The chat of one user message that a request asks for."""
    messages = [Message(role="user", content=prompt)]
    if wire.system is not None:
        messages.insert(0, Message(role="system", content=wire.system))
    return ChatRequest(
        messages=messages,
        model=wire.model_name(),
        thinking=wire.thinking,
        sampling=_sampling(wire),
        max_tokens=wire.max_tokens,
        stop=_stop(wire),
    )


def _sampling(wire: SamplingFields) -> SamplingOptions:
    return SamplingOptions(
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        min_p=wire.min_p,
        repeat_penalty=wire.repeat_penalty,
        frequency_penalty=wire.frequency_penalty,
        presence_penalty=wire.presence_penalty,
        seed=wire.seed,
    )


def _stop(wire: SamplingFields) -> tuple[str, ...]:
    return (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop)


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.num_prompt_tokens,
        "cached_tokens": usage.num_cached_tokens,
        "generated_tokens": usage.num_generated_tokens,
    }


def generate_object(model: str, text: str, reasoning: str, finish: Finish) -> dict[str, Any]:
    """The answer to a generate request, and one entry of a batch's."""
    timings = finish.timings
    body: dict[str, Any] = {
        "status": "success",
        "response": text,
        "model": model,
        "finish_reason": finish.finish_reason,
        "usage": _usage(finish.usage),
        "generation_time_s": round(
            (timings.queue_ms + timings.prefill_ms + timings.decode_ms) / 1000, 6
        ),
        "tokens_per_second": round(tokens_per_second(finish.usage, timings), 2),
    }
    if reasoning:
        body["reasoning"] = reasoning
    return body


def encode(body: dict[str, Any]) -> bytes:
    """A body as JSON."""
    return _encode(body)


def stream_piece(model: str, event: ChatEvent) -> bytes:
    """A streamed piece of a generate answer; the last is the answer without its text."""
    if isinstance(event, Finish):
        return _encode(generate_object(model, "", "", event) | {"done": True})
    if isinstance(event, ReasoningDelta):
        return _encode({"reasoning": event.text, "done": False})
    text = event.text if isinstance(event, TextDelta) else ""
    return _encode({"response": text, "done": False})


def _megabytes(num_bytes: int) -> float:
    return round(num_bytes / 1e6, 3)


def _num_resident(models: list[ModelInfo]) -> int:
    return sum(info.state in ("resident", "evicting") for info in models)


def _iso_time(unix_ms: int) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


_TYPE_NAMES = {"llm": "Text LLM", "vision": "Vision LLM", "embedding": "Embedding"}


def _type_of(info: ModelInfo) -> str:
    if not info.supports_generation:
        return "embedding"
    return "vision" if info.mmproj_path else "llm"


def model_entry(info: ModelInfo) -> dict[str, Any]:
    """One model of the list."""
    return {
        "id": info.id,
        "name": info.name,
        "type": _type_of(info),
        "quantization": info.quantization,
        "size_gb": round(info.file_bytes / 1e9, 3),
        "active": info.active,
        "loaded_at": _iso_time(info.loaded_at_ms),
        "state": info.state,
        "pinned": info.pinned,
        "architecture": info.architecture,
        "context_size": info.context_size,
        "train_context_size": info.train_context_size,
        "kv_cells": info.kv_cells,
        "max_sequences": info.max_sequences,
        "gpu_layers": info.gpu_layers,
        "num_threads": info.num_threads,
        "num_parameters": info.num_parameters,
        "weights_mb": _megabytes(info.weights_bytes),
        "kv_mb": _megabytes(info.kv_bytes),
        "projector_mb": _megabytes(info.projector_bytes),
        "compute_mb": _megabytes(info.compute_bytes),
        "load_time_ms": round(info.load_ms, 3),
        "file_path": info.path,
    }


def model_object(info: ModelInfo) -> bytes:
    """The body of GET /api/v1/models/{id}."""
    return _encode({"model": model_entry(info)})


def models_object(models: list[ModelInfo]) -> bytes:
    """The body of GET /api/v1/models; evicted models are in the list, but not loaded."""
    active = next((info.id for info in models if info.active), None)
    return _encode(
        {
            "models": [model_entry(info) for info in models],
            "active_model": active,
            "total_loaded": _num_resident(models),
        }
    )


def loaded_object(info: ModelInfo) -> bytes:
    """The body of POST /api/v1/models/load."""
    return _encode(
        {
            "status": "success",
            "message": f"Model loaded: {info.id}",
            "model": info.id,
            "model_type": _TYPE_NAMES[_type_of(info)],
            "load_time_ms": round(info.load_ms, 3),
            "active": info.active,
            "context_size": info.context_size,
        }
    )


def switched_object(info: ModelInfo, switch_ms: float) -> bytes:
    """The body of POST /api/v1/models/switch; an evicted model loads with its next request."""
    return _encode(
        {
            "status": "success",
            "message": f"Switched to model: {info.id}",
            "model": info.id,
            "switch_time_ms": round(switch_ms, 6),
            "state": info.state,
        }
    )


def pinned_object(wanted: PinRequest) -> bytes:
    """The body of POST /api/v1/models/pin."""
    done = "Pinned" if wanted.pinned else "Unpinned"
    return _encode(
        {
            "status": "success",
            "message": f"{done} model: {wanted.model_id}",
            "model": wanted.model_id,
            "pinned": wanted.pinned,
        }
    )


def unloaded_object(model_id: str) -> bytes:
    """The body of POST /api/v1/models/unload."""
    return _encode({"status": "success", "message": f"Model unloaded: {model_id}"})


def cache_stats_object(models: list[ModelInfo], stats: EngineStats) -> bytes:
    """The body of GET /api/v1/models/cache/stats.

    Hits and misses count prompt tokens: restored, and computed. The specification shows
    its six fields inside of `stats`, and reads them beside it: they are in both places.
    """
    hits = sum(m.num_cached_tokens for m in stats.models)
    misses = sum(m.num_prompt_tokens for m in stats.models) - hits
    memory = stats.memory
    gpu_bytes = sum(info.gpu_bytes for info in models if info.state == "resident")
    body: dict[str, Any] = {
        "total_models_loaded": _num_resident(models),
        "gpu_memory_used_mb": _megabytes(gpu_bytes),
        "cpu_memory_used_mb": _megabytes(max(0, memory.used_bytes - gpu_bytes)),
        "cache_hits": hits,
        "cache_misses": misses,
        "hit_rate": round(hits / (hits + misses), 4) if hits + misses else 0.0,
    }
    more = {
        "memory_budget_mb": _megabytes(memory.budget_bytes),
        "snapshot_memory_mb": _megabytes(memory.snapshot_bytes),
        "external_memory_mb": _megabytes(memory.external_bytes),
        "evictions": memory.num_evictions,
        "reloads": memory.num_reloads,
        "switches": stats.num_switches,
        "models": [_model_stats(m) for m in stats.models],
    }
    return _encode({"stats": body | more, **body})


def _model_stats(stats: ModelStats) -> dict[str, Any]:
    return {
        "id": stats.id,
        "resident": stats.resident,
        "loads": stats.num_loads,
        "evictions": stats.num_evictions,
        "requests": stats.num_requests,
        "requests_running": stats.num_running,
        "requests_waiting": stats.num_waiting,
        "requests_cancelled": stats.num_cancelled,
        "requests_failed": stats.num_failed,
        "prompt_tokens": stats.num_prompt_tokens,
        "cached_tokens": stats.num_cached_tokens,
        "generated_tokens": stats.num_generated_tokens,
        "kv_cells_used": stats.num_kv_cells_used,
        "mean_batch_tokens": _mean(stats.num_batch_tokens, stats.num_steps),
        "mean_batch_sequences": _mean(stats.num_batch_sequences, stats.num_steps),
        "mean_queue_ms": _mean(stats.queue_time.sum_ms, stats.queue_time.count),
        "mean_ttft_ms": _mean(stats.time_to_first_token.sum_ms, stats.time_to_first_token.count),
        "mean_itl_ms": _mean(stats.inter_token_latency.sum_ms, stats.inter_token_latency.count),
    }


def _mean(total: float, count: int) -> float:
    return round(total / count, 3) if count else 0.0
