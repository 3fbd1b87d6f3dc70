"""What a good answer of each endpoint looks like: its vendor's own types, or its fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, get_args

from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from openai.types import (
    Completion,
    CreateEmbeddingResponse,
    ImageGenStreamEvent,
    ImagesResponse,
)
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import TypeAdapter, ValidationError

Check: TypeAlias = Callable[[Any], object]
"""Raises an exception where a decoded body is not as it should be."""


def _of(type_: Any) -> Check:
    adapter = TypeAdapter(type_)

    def check(body: Any) -> None:
        try:
            adapter.validate_python(body)
        except ValidationError as error:
            wrong = [each for each in error.errors() if each["type"] != "missing"]
            # What is missing may be required by newer clients only.
            assert not wrong, wrong

    return check


def _of_any(union: Any) -> Check:
    """Of types that each name theirs in a field."""
    types = get_args(get_args(union)[0])
    checks = {get_args(each.model_fields["type"].annotation)[0]: _of(each) for each in types}
    return lambda body: checks[body["type"]](body)


def _with(fields: str) -> Check:
    names = frozenset(fields.split())

    def check(body: Any) -> None:
        assert isinstance(body, dict), "expected an object"
        assert names <= body.keys(), f"{sorted(names - body.keys())} missing"

    return check


_GENERATED = "status response model finish_reason usage generation_time_s tokens_per_second"
_CONTEXT = "status context_id token_count storage_size_mb tier ingest_time_ms"
_QUERIED = "status context_id response cache_hit usage latency_ms finish_reason"
_MOVED = "status context_id tier previous_tier memory_mb disk_mb"
_DRAWN = "status image seed generation_time_s images seeds job_id model"
_CACHE = "total_models_loaded gpu_memory_used_mb cpu_memory_used_mb cache_hits cache_misses"

WHOLE: dict[str, Check] = {
    "GET /health": _with("status version models_loaded models_loading active_model uptime_s"),
    "GET /api/hello": _with("message"),
    "GET /v1/models": _with("data"),
    "GET /v1/models/{model_id}": _with("id"),
    "POST /v1/chat/completions": _of(ChatCompletion),
    "POST /v1/completions": _of(Completion),
    "POST /v1/embeddings": _with("object data model usage"),
    "POST /v1/responses": _of(Response),
    "POST /v1/responses/input_tokens": _with("object input_tokens"),
    "GET /v1/responses/{response_id}": _of(Response),
    "DELETE /v1/responses/{response_id}": _with("id object deleted"),
    "GET /v1/responses/{response_id}/input_items": _of(ResponseItemList),
    "POST /v1/messages": _of(Message),
    "POST /v1/messages/count_tokens": _of(MessageTokensCount),
    "POST /api/v1/generate": _with(_GENERATED),
    "POST /api/v1/generate/batch": _with("status results"),
    "POST /api/v1/vision/generate": _with(_GENERATED),
    "POST /api/v1/diffusion/generate": _with(_DRAWN),
    "GET /api/v1/diffusion/jobs": _with("jobs"),
    "GET /api/v1/diffusion/jobs/{job_id}": _with("job"),
    "DELETE /api/v1/diffusion/jobs/{job_id}": _with("status"),
    "POST /v1/images/generations": _of(ImagesResponse),
    "GET /api/v1/models": _with("models active_model active_image_model total_loaded"),
    "POST /api/v1/models/load": _with("status message model model_type load_time_ms active"),
    "POST /api/v1/models/switch": _with("status message model switch_time_ms"),
    "POST /api/v1/models/unload": _with("status message"),
    "POST /api/v1/models/pin": _with("status message model pinned"),
    "GET /api/v1/models/{model_id}": _with("model"),
    "GET /api/v1/models/cache/stats": _with(f"stats {_CACHE} hit_rate"),
    "POST /api/v1/contexts/ingest": _with(_CONTEXT),
    "GET /api/v1/contexts": _with("status contexts count"),
    "GET /api/v1/contexts/stats": _with("status stats"),
    "GET /api/v1/contexts/{context_id}": _with("status context_id name model_id tier"),
    "DELETE /api/v1/contexts/{context_id}": _with("status context_id deleted"),
    "POST /api/v1/contexts/{context_id}/query": _with(_QUERIED),
    "POST /api/v1/contexts/{context_id}/promote": _with(_MOVED),
    "POST /api/v1/contexts/{context_id}/demote": _with(_MOVED),
    "POST /api/v1/contexts/{context_id}/append": _with(_CONTEXT),
    "POST /api/v1/contexts/{context_id}/fork": _with(_CONTEXT),
    "POST /api/v1/contexts/import": _with(_CONTEXT),
    "GET /api/v1/requests/{request_id}/cache": _with("status request_id answers"),
}
"""Of answers in JSON, by method and endpoint."""

PIECES: dict[str, Check] = {
    "/v1/chat/completions": _of(ChatCompletionChunk),
    "/v1/completions": _with("id object created model choices"),
    "/v1/responses": _of_any(ResponseStreamEvent),
    "/v1/messages": _of_any(RawMessageStreamEvent),
    "/v1/images/generations": _of_any(ImageGenStreamEvent),
    "/api/v1/generate": _with("done"),
    "/api/v1/vision/generate": _with("done"),
    "/api/v1/diffusion/generate": _with("type done"),
    "/api/v1/contexts/ingest": _with("type done"),
    "/api/v1/contexts/{context_id}/query": _with("done"),
}
"""Of the events of a stream, by endpoint."""

LAST: dict[str, Check] = {
    endpoint: WHOLE[f"POST {endpoint}"] for endpoint in PIECES if endpoint.startswith("/api/")
}
"""Of the last piece of a native stream, which is a whole answer."""

EMBEDDED = _of(CreateEmbeddingResponse)
"""Of embeddings whose vectors are lists."""
