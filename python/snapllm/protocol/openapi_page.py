"""The description of the HTTP API as a page to read, which needs nothing from elsewhere.

Each type is defined once on it, and is a link wherever it is named.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

Schema = dict[str, Any]

_JSON = "application/json"
_REFERENCE = "#/components/schemas/"
_CODE = re.compile("`+([^`]+)`+")
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0}"
    "td{vertical-align:top}h2{font-size:1rem;margin-top:2rem}h3{font-size:.8rem;margin-bottom:0}"
)


class _Types(NamedTuple):
    """The types of a document."""

    schemas: dict[str, Schema]
    taken: set[str]
    """Those that clients send."""
    homes: dict[str, str]
    """Where on the page those are that are a whole body or answer: with the first that has it."""


def page_of(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document: its endpoints with the types of their bodies and answers,
    then the types that these are made of."""
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    schemas = document["components"]["schemas"]
    types = _Types(schemas, _taken(operations.values(), schemas), _homes(operations))
    parts = [part for title, one in operations.items() for part in _endpoint(title, one, types)]
    parts.append("<h1>Types</h1>")
    parts += [_type(name, types) for name in sorted(schemas.keys() - types.homes.keys())]
    title = f"{document['info']['title']} {document['info']['version']}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title} API</title>"
        f"<style>{_STYLE}</style>"
        f"<h1>{title}</h1><p>As <a href=/openapi.json>OpenAPI document</a>.</p>"
        f"{''.join(parts)}</html>"
    )


def _body(operation: dict[str, Any]) -> dict[str, Any]:
    """What it takes, by media type."""
    content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    return content


def _answer(operation: dict[str, Any], status: str = "200") -> dict[str, Any]:
    """What it gives, by media type."""
    content: dict[str, Any] = operation["responses"][status]["content"]
    return content


def _taken(operations: Iterable[dict[str, Any]], schemas: dict[str, Schema]) -> set[str]:
    """The types of bodies, and those that these are made of."""
    found: set[str] = set()
    left = [name for each in operations for name in _names_in(_body(each))]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _names_in(schemas[name])
    return found


def _homes(operations: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {
        name: title
        for title, operation in reversed(operations.items())
        for content in (_body(operation), _answer(operation))
        for name in _names_in(content.get(_JSON))
    }


def _names_in(described: Any) -> Iterator[str]:
    """The types that a part of the document refers to."""
    if isinstance(described, list):
        for each in described:
            yield from _names_in(each)
    elif isinstance(described, dict):
        if isinstance(reference := described.get("$ref"), str):
            yield reference.removeprefix(_REFERENCE)
        for each in described.values():
            yield from _names_in(each)


def _endpoint(title: str, operation: dict[str, Any], types: _Types) -> Iterator[str]:
    yield f"<h2><code>{html.escape(title)}</code></h2><p>{_prose(operation['summary'])}</p>"
    query = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
    if query:
        rows = [_row(each["name"], each["schema"], _default(_told(each))) for each in query]
        yield f"<h3>Query</h3>{_table('Parameter', 'Default', rows)}"
    sent = [("Body", _body(operation)), ("Answer", _answer(operation))]
    sent.append(("Error", _answer(operation, "default")))
    lines = [_line(name, *each) for name, content in sent for each in content.items()]
    yield f"<p>{'<br>'.join(lines)}</p>"
    yield from (_type(name, types) for name, home in types.homes.items() if home == title)


def _line(name: str, media_type: str, media: dict[str, Any]) -> str:
    """What is sent; that it is JSON goes without saying."""
    said = "" if media_type == _JSON else f" <code>{html.escape(media_type)}</code>"
    schema = media.get("schema", {})
    kind = f" {_kind(schema)}" if schema else ""
    about = f". {_prose(schema['description'])}" if "description" in schema else ""
    return f"{name}:{said}{kind}{about}"


def _type(name: str, types: _Types) -> str:
    """A type's fields: with their defaults where clients send it, else with when they are there."""
    schema, is_taken = types.schemas[name], name in types.taken
    required = set(schema.get("required", ()))

    def use_of(field: str, kind: Schema) -> str:
        if is_taken:
            return "required" if field in required else _default(kind)
        return "always" if field in required else "where it applies"

    rows = [_row(each, kind, use_of(each, kind)) for each, kind in schema["properties"].items()]
    return (
        f"<h3 id={name}>{name}</h3>{_prose(schema.get('description', ''))}"
        f"{_table('Field', 'Default' if is_taken else 'Present', rows)}"
    )


def _told(parameter: dict[str, Any]) -> Schema:
    """A parameter's schema with what is said about it, as a field has that."""
    about = {"description": parameter["description"]} if "description" in parameter else {}
    return {**parameter["schema"], **about}


def _default(schema: Schema) -> str:
    """What holds where it is not given, and what is said about it."""
    value, about = schema.get("default"), schema.get("description")
    parts = [] if value is None else [f"<code>{html.escape(json.dumps(value))}</code>"]
    if about is not None:
        parts.append(_prose(about))
    return "<br>".join(parts) or "none"


def _prose(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", html.escape(text))


def _table(first: str, last: str, rows: Iterable[str]) -> str:
    return f"<table><tr><th>{first}<th>Type<th>{last}{''.join(rows)}</table>"


def _row(name: str, schema: Schema, use: str) -> str:
    return f"<tr><td><code>{html.escape(name)}</code><td>{_kind(schema)}<td>{use}"


def _kind(schema: Schema) -> str:
    """A type as it is written."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REFERENCE)
        return f"<a href=#{name}>{name}</a>"
    if "enum" in schema:
        return " | ".join(html.escape(json.dumps(value)) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    kind = str(schema.get("type", "any"))
    inner = schema.get("items" if kind == "array" else "additionalProperties")
    if not isinstance(inner, dict):
        return kind
    of = _kind(inner)
    return f"{kind} of ({of})" if " | " in of else f"{kind} of {of}"
