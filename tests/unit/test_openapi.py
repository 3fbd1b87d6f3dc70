"""Bodies are described as they are read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from snapllm.errors import InvalidRequestError
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.openapi import openapi_document
from snapllm.protocol.openapi_endpoints import ENDPOINTS

BODIES = sorted({e.body for e in ENDPOINTS if isinstance(e.body, type)}, key=str)
SCHEMAS = openapi_document()["components"]["schemas"]
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
