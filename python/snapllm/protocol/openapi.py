"""The description of the HTTP API, made from the types that read its bodies and that its answers
are of.

Reference: OpenAPI Specification 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from snapllm import __version__
from snapllm.protocol.openapi_defaults import APPLIED, NOTES
from snapllm.protocol.openapi_endpoints import ENDPOINTS, Endpoint, Stream
from snapllm.protocol.openapi_page import page_of

_PARAMETER = re.compile(r"\{(\w+)\}")
_JSON = "application/json"
_TEMPLATE = "#/components/schemas/{name}"
_BINARY = {"format": "binary"}


def openapi_document() -> dict[str, Any]:
    """The API as an OpenAPI 3.1 document."""
    bodies = [each.body for each in ENDPOINTS if isinstance(each.body, type)]
    answers = [
        answer
        for each in ENDPOINTS
        for answer in (
            *(each.answer, each.answer_to_anthropic, each.error),
            *(each.stream.kinds if each.stream else ()),
        )
        if isinstance(answer, type)
    ]
    types = list(dict.fromkeys(bodies + answers))
    references, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    schemas = dict(zip(types, references, strict=True))
    for body in set(bodies):
        _allow_nulls(components[_name_in(schemas[body])])
    _tell("default", APPLIED, components)
    _tell("description", NOTES, components)
    _suit_generators(components)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        operation = _operation(endpoint, schemas.__getitem__)
        paths.setdefault(endpoint.path, {})[endpoint.method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "SnapLLM", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(endpoint: Endpoint, schema_of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    answers = _content(endpoint.answer, schema_of)
    if endpoint.answer_to_anthropic is not None:
        of_anthropic = schema_of(endpoint.answer_to_anthropic)
        answers = {_JSON: {"schema": {"anyOf": [schema_of(endpoint.answer), of_anthropic]}}}
    if endpoint.stream is not None:
        answers["text/event-stream"] = {"schema": _event_schema(endpoint.stream, schema_of)}
    errors = _content(endpoint.error, schema_of)
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "responses": {
            "200": {"description": "The answer", "content": answers},
            "default": {"description": "An error", "content": errors},
        },
    }
    parameters = _path_parameters(endpoint.path) + _query_parameters(endpoint.query)
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = _content(endpoint.body, schema_of, endpoint.body_media)
        operation["requestBody"] = {"required": endpoint.needs_body, "content": content}
    return operation


def _event_schema(stream: Stream, schema_of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """What the data of each event is: there is no other place for it before OpenAPI 3.2."""
    about, kinds = {"description": stream.about}, list(map(schema_of, stream.kinds))
    return about | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]


def _query_parameters(query: Any) -> list[dict[str, Any]]:
    """Those that the fields of a type are read from."""
    if query is None:
        return []
    [fields] = msgspec.json.schema_components([query])[1].values()
    return [_query_parameter(name, field) for name, field in fields["properties"].items()]


def _query_parameter(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """A parameter, which cannot be null: it is left out instead."""
    about = {"description": field.pop("description")} if "description" in field else {}
    if field["default"] is None:
        del field["default"]
    [kind] = [each for each in field.pop("anyOf", [{}]) if each.get("type") != "null"]
    return {"name": name, "in": "query", **about, "schema": kind | field}


def _content(
    kind: Any, schema_of: Callable[[Any], dict[str, Any]], media_type: str = _JSON
) -> dict[str, Any]:
    """What is sent, of a type or of a media type."""
    if not isinstance(kind, str):
        return {media_type: {"schema": schema_of(kind)}}
    # 3.1 needs no schema of what is not JSON, but generators of clients leave out such endpoints.
    schema = {"type": "string"} if kind.startswith("text/") else {"type": "string"} | _BINARY
    return {kind: {"schema": schema}}


def _name_in(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


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


def _tell(
    what: str, told: Mapping[type, Mapping[str, Any]], components: dict[str, dict[str, Any]]
) -> None:
    """Says more of fields, by the types that have them."""
    for kind, fields in told.items():
        properties = components[kind.__name__]["properties"]
        for name, value in fields.items():
            properties[name][what] = value


def _suit_generators(described: Any) -> None:
    """Says otherwise what generators of clients do not read, and leave out whole endpoints for: one
    truth value as an `enum`, a list of anything without `items`, an object's empty default."""
    for part in described if isinstance(described, list) else list(described.values()):
        if isinstance(part, dict | list):
            _suit_generators(part)
    if not isinstance(described, dict):
        return
    if described.get("enum") in ([True], [False]) and isinstance(described["enum"][0], bool):
        described |= {"type": "boolean", "const": described.pop("enum")[0]}
    elif described.get("type") == "array":
        described.setdefault("items", {})
    if described.get("default") == {}:
        del described["default"]


def docs_page() -> str:
    """The same as a page to read."""
    return page_of(openapi_document())
