"""Bodies are described as they are read."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

import snapllm
from snapllm.errors import InvalidRequestError
from snapllm.protocol.contexts import parse_filters, parse_import
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.openapi import openapi_document
from snapllm.protocol.openapi_endpoints import ENDPOINTS

BODIES = sorted({e.body for e in ENDPOINTS if isinstance(e.body, type)}, key=str)
DOCUMENT = openapi_document()
SCHEMAS = DOCUMENT["components"]["schemas"]
# What fits the fields that a body requires; of the others "x".
EXAMPLES: dict[str, Any] = {
    "messages": [{"role": "user", "content": "x"}],
    "max_tokens": 1,
    "prompts": ["x"],
    "images": ["x"],
}


def takes_null(field: dict[str, Any]) -> bool:
    null = {"type": "null"}
    takes_any = field.keys() <= {"default"}
    return takes_any or field.get("type") == "null" or null in field.get("anyOf", [])


def test_each_type_has_a_plain_name_of_its_own() -> None:
    assert [name for name in SCHEMAS if not name.isalnum()] == []


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_null_is_allowed_where_it_is_taken(body: type[msgspec.Struct]) -> None:
    schema, decoder = SCHEMAS[body.__name__], msgspec.json.Decoder(body)
    least = {name: EXAMPLES.get(name, "x") for name in schema["required"]}
    decode_body(msgspec.json.encode(least), decoder)
    for name, field in schema["properties"].items():
        try:
            decode_body(msgspec.json.encode(least | {name: None}), decoder)
            is_taken = True
        except InvalidRequestError:
            is_taken = False
        assert takes_null(field) == is_taken, name


def parameters(method: str, path: str) -> dict[str, Any]:
    listed = DOCUMENT["paths"][path][method]["parameters"]
    return {each["name"]: each["schema"] for each in listed if each["in"] == "query"}


def test_parameters_are_described_as_they_are_read() -> None:
    assert parameters("get", "/api/v1/contexts") == {
        "tier": {"enum": ["cold", "hot", "warm"]},
        "model_id": {"type": "string"},
    }
    limit = parameters("get", "/v1/responses/{response_id}/input_items")["limit"]
    assert limit == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    ttl = parameters("post", "/api/v1/contexts/import")["ttl_seconds"]
    assert parse_import({}).ttl_seconds == ttl["default"]
    assert parse_import({"ttl_seconds": str(ttl["minimum"])}).ttl_seconds is None
    with pytest.raises(InvalidRequestError) as failure:
        parse_import({"ttl_seconds": str(ttl["maximum"] + 1)})
    assert failure.value.param == "ttl_seconds"


def test_an_empty_filter_of_contexts_is_none() -> None:
    assert parse_filters({"tier": "", "model_id": ""}) == parse_filters({})
    with pytest.raises(InvalidRequestError) as failure:
        parse_filters({"tier": "lukewarm"})
    assert failure.value.param == "tier"


def test_routes_read_queries_as_the_types_that_describe_them() -> None:
    kinds = set()
    for path in (Path(snapllm.__file__).parent / "server").glob("*.py"):
        code = path.read_text()
        readers = re.findall(r"([\w.]+)\(request\.query\)", code)
        assert len(readers) == code.count("request.query"), f"{path.name} reads a parameter itself"
        module = importlib.import_module(f"snapllm.server.{path.stem}")
        kinds |= {get_type_hints(eval(reader, vars(module)))["return"] for reader in readers}
    assert kinds == {each.query for each in ENDPOINTS if each.query is not None}
