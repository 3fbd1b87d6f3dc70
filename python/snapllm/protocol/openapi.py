"""The description of the HTTP API, made from the types that read its bodies.

Reference: OpenAPI Specification 3.1.
"""

from __future__ import annotations

import html
import re
from typing import Any, NamedTuple

import msgspec

from snapllm import __version__
from snapllm.protocol import (
    anthropic_types,
    contexts,
    diffusion,
    native,
    native_models,
    openai_completions,
    openai_embeddings,
    openai_images,
    openai_types,
    responses_types,
    vision,
)


class _Endpoint(NamedTuple):
    method: str
    path: str
    summary: str
    body: Any = None
    """The type of a JSON body, or the media type of another."""
    streams: bool = False
    answer: str = "application/json"
    query: tuple[str, ...] = ()


_FILE = "application/octet-stream"
_ENDPOINTS = (
    _Endpoint("get", "/health", "Whether the server answers, and which models it has"),
    _Endpoint("get", "/metrics", "Counters in Prometheus' text format", answer="text/plain"),
    _Endpoint("get", "/v1/models", "The loaded models, in OpenAI's or Anthropic's form"),
    _Endpoint("get", "/v1/models/{model_id}", "One loaded model"),
    _Endpoint(
        "post",
        "/v1/chat/completions",
        "OpenAI: answers a conversation",
        openai_types.ChatCompletionRequest,
        True,
    ),
    _Endpoint(
        "post",
        "/v1/completions",
        "OpenAI: continues a prompt",
        openai_completions.CompletionsRequest,
        True,
    ),
    _Endpoint(
        "post",
        "/v1/embeddings",
        "OpenAI: embeds texts",
        openai_embeddings.EmbeddingsRequest,
    ),
    _Endpoint(
        "post",
        "/v1/responses",
        "OpenAI: answers",
        responses_types.ResponsesRequest,
        True,
    ),
    _Endpoint(
        "post",
        "/v1/responses/input_tokens",
        "OpenAI: counts the tokens of a prompt",
        responses_types.InputTokensRequest,
    ),
    _Endpoint("get", "/v1/responses/{response_id}", "OpenAI: an answer that is kept"),
    _Endpoint("delete", "/v1/responses/{response_id}", "OpenAI: forgets an answer"),
    _Endpoint(
        "get",
        "/v1/responses/{response_id}/input_items",
        "OpenAI: the input of an answer",
        query=("limit", "order", "after"),
    ),
    _Endpoint(
        "post",
        "/v1/messages",
        "Anthropic: answers a conversation",
        anthropic_types.MessagesRequest,
        True,
    ),
    _Endpoint(
        "post",
        "/v1/messages/count_tokens",
        "Anthropic: counts the tokens of a prompt",
        anthropic_types.CountTokensRequest,
    ),
    _Endpoint("post", "/api/v1/generate", "Answers one prompt", native.GenerateRequest, True),
    _Endpoint("post", "/api/v1/generate/batch", "Answers several prompts", native.BatchRequest),
    _Endpoint(
        "post",
        "/api/v1/vision/generate",
        "Answers a question about images",
        vision.VisionRequest,
        True,
    ),
    _Endpoint(
        "post",
        "/api/v1/diffusion/generate",
        "Makes images",
        diffusion.DiffusionRequest,
        True,
    ),
    _Endpoint("get", "/api/v1/diffusion/jobs", "The image jobs that wait or run"),
    _Endpoint("get", "/api/v1/diffusion/jobs/{job_id}", "An image job's state"),
    _Endpoint("delete", "/api/v1/diffusion/jobs/{job_id}", "Cancels an image job"),
    _Endpoint(
        "post",
        "/v1/images/generations",
        "OpenAI: makes images",
        openai_images.ImagesRequest,
        True,
    ),
    _Endpoint("get", "/api/v1/models", "The models and their facts"),
    _Endpoint("post", "/api/v1/models/load", "Loads a model", native_models.LoadRequest),
    _Endpoint(
        "post", "/api/v1/models/switch", "Makes a model active", native_models.ModelIdRequest
    ),
    _Endpoint("post", "/api/v1/models/unload", "Unloads a model", native_models.ModelIdRequest),
    _Endpoint(
        "post", "/api/v1/models/pin", "Exempts a model from eviction", native_models.PinRequest
    ),
    _Endpoint("get", "/api/v1/models/{model_id}", "One model and its facts"),
    _Endpoint("get", "/api/v1/models/cache/stats", "Memory and cache statistics"),
    _Endpoint(
        "post",
        "/api/v1/contexts/ingest",
        "Computes and keeps a document",
        contexts.IngestRequest,
        True,
    ),
    _Endpoint("get", "/api/v1/contexts", "The contexts", query=("tier", "model_id")),
    _Endpoint("get", "/api/v1/contexts/stats", "Counts, memory and hits of the contexts"),
    _Endpoint("get", "/api/v1/contexts/{context_id}", "One context"),
    _Endpoint("delete", "/api/v1/contexts/{context_id}", "Removes a context"),
    _Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/query",
        "Answers a question about a context",
        contexts.QueryRequest,
        True,
    ),
    _Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/promote",
        "Moves a context to a warmer tier",
        contexts.TierRequest,
    ),
    _Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/demote",
        "Moves a context to a colder tier",
        contexts.TierRequest,
    ),
    _Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/append",
        "Adds text to a context",
        contexts.AppendRequest,
    ),
    _Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/fork",
        "A second context of the same document",
        contexts.ForkRequest,
    ),
    _Endpoint("get", "/api/v1/contexts/{context_id}/export", "A context as one file", answer=_FILE),
    _Endpoint(
        "post",
        "/api/v1/contexts/import",
        "Makes a context of such a file",
        _FILE,
        query=("name", "model_id", "ttl_seconds"),
    ),
    _Endpoint(
        "get", "/api/v1/requests/{request_id}/cache", "What a request reused, and what ended it"
    ),
)
_PARAMETER = re.compile(r"\{(\w+)\}")


def openapi_document() -> dict[str, Any]:
    """The API as an OpenAPI 3.1 document."""
    bodies = [e.body for e in _ENDPOINTS if e.body is not None and e.body != _FILE]
    references, components = msgspec.json.schema_components(
        bodies, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(map(id, bodies), references, strict=True))
    for name in {str(reference["$ref"]).rpartition("/")[2] for reference in references}:
        _allow_nulls(components[name])
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in _ENDPOINTS:
        content: dict[str, Any] = {endpoint.answer: {}}
        if endpoint.streams:
            content["text/event-stream"] = {}
        operation: dict[str, Any] = {
            "summary": endpoint.summary,
            "responses": {
                "200": {"description": "The answer", "content": content},
                "default": {"description": "An error, in the shape of the protocol"},
            },
        }
        parameters = [(name, "path") for name in _PARAMETER.findall(endpoint.path)]
        parameters += [(name, "query") for name in endpoint.query]
        if parameters:
            operation["parameters"] = [
                {"name": name, "in": place, "schema": {"type": "string"}}
                | ({"required": True} if place == "path" else {})
                for name, place in parameters
            ]
        if endpoint.body is not None:
            content = (
                {_FILE: {}}
                if endpoint.body == _FILE
                else {"application/json": {"schema": schemas[id(endpoint.body)]}}
            )
            operation["requestBody"] = {"required": True, "content": content}
        paths.setdefault(endpoint.path, {})[endpoint.method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "SnapLLM", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _allow_nulls(body: dict[str, Any]) -> None:
    """Lets a body's own fields be null where they may be left out; see `decode_body`."""
    null = {"type": "null"}
    for name, field in body["properties"].items():
        takes_any = field.keys() <= {"default"}
        if name in body["required"] or takes_any or field.get("type") == "null":
            continue
        default = {"default": field.pop("default")} if "default" in field else {}
        options = field.get("anyOf", [field])
        if null not in options:
            options = [*options, null]
        body["properties"][name] = {"anyOf": options, **default}


def docs_page() -> str:
    """The same as a page to read."""
    document = openapi_document()
    schemas = document["components"]["schemas"]
    rows = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            rows.append(
                f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
                f"<p>{html.escape(operation['summary'])}</p>"
            )
            body = operation.get("requestBody", {"content": {}})["content"]
            if "application/json" in body:
                reference = body["application/json"]["schema"]["$ref"]
                rows.append(_fields_table(schemas[reference.rpartition("/")[2]]))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>SnapLLM API</title>"
        "<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0}"
        "h2{font-size:1rem;margin-top:2rem}</style>"
        f"<h1>SnapLLM {__version__}</h1><p>As <a href=/openapi.json>OpenAPI document</a>.</p>"
        + "".join(rows)
        + "</html>"
    )


def _fields_table(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(_type_of(field))}"
        f"<td>{'required' if name in required else html.escape(repr(field.get('default')))}"
        for name, field in schema.get("properties", {}).items()
    ]
    return f"<table><tr><th>Field<th>Type<th>Default{''.join(rows)}</table>"


def _type_of(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "enum" in field:
        return " | ".join(repr(value) for value in field["enum"])
    if "anyOf" in field:
        return " | ".join(dict.fromkeys(_type_of(option) for option in field["anyOf"]))
    if field.get("type") == "array" and isinstance(field.get("items"), dict):
        return f"array of {_type_of(field['items'])}"
    return str(field.get("type", "any"))
