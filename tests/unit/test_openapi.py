"""Bodies are described as they are read."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

import snapllm
from snapllm.errors import InvalidRequestError
from snapllm.params import DEFAULT_MAX_TOKENS
from snapllm.protocol import anthropic, openai, openai_completions, responses
from snapllm.protocol.anthropic_types import MessagesRequest
from snapllm.protocol.contexts import parse_filters, parse_import
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.openai_completions import CompletionsRequest
from snapllm.protocol.openai_embeddings import EmbeddingsRequest, parse_embeddings
from snapllm.protocol.openai_images import ImagesRequest, parse_images
from snapllm.protocol.openai_types import ChatCompletionRequest
from snapllm.protocol.openapi import openapi_document
from snapllm.protocol.openapi_endpoints import ENDPOINTS
from snapllm.protocol.responses_answers import ResponseStream
from snapllm.protocol.responses_types import InputTokensRequest, ResponsesRequest

BODIES = sorted({e.body for e in ENDPOINTS if isinstance(e.body, type)}, key=str)
DOCUMENT = openapi_document()
SCHEMAS = DOCUMENT["components"]["schemas"]
# What fits the fields that a body requires; of the others "x".
EXAMPLES: dict[str, Any] = {
    "messages": [{"role": "user", "content": "x"}],
    "max_tokens": 1,
    "prompts": ["x"],
    "images": ["x"],
    "image": "eA==",
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


def written(parsed: responses.Parsed) -> list[Any]:
    """What a response request means, to the engine and in the answer."""
    answer: dict[str, Any] = {**ResponseStream(parsed.wire).response}
    # What differs every time, and what is repeated as it was given.
    for name in ("id", "created_at", "max_output_tokens"):
        del answer[name]
    return [parsed.request, bool(parsed.wire.stream), answer]


@pytest.mark.parametrize(
    ("body", "parse"),
    [
        (ChatCompletionRequest, openai.parse_chat),
        (CompletionsRequest, openai_completions.parse),
        (ResponsesRequest, lambda body: written(responses.parse(body))),
        (InputTokensRequest, responses.parse_count),
        (MessagesRequest, anthropic.parse_messages),
        (EmbeddingsRequest, parse_embeddings),
        (ImagesRequest, lambda body: parse_images(body)[1]),
    ],
)
def test_a_default_means_what_leaving_the_field_out_does(
    body: type[msgspec.Struct], parse: Callable[[bytes], Any]
) -> None:
    schema = SCHEMAS[body.__name__]
    least = {name: EXAMPLES.get(name, "x") for name in schema["required"]} | {"input": "x"}
    left_out = parse(msgspec.json.encode(least))
    for name, field in schema["properties"].items():
        if field.get("default") is not None:
            given = parse(msgspec.json.encode(least | {name: field["default"]}))
            assert given == left_out, name


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_no_default_breaks_the_bounds_of_its_field(body: type[msgspec.Struct]) -> None:
    decoder = msgspec.json.Decoder(body)
    schema = SCHEMAS[body.__name__]
    least = {name: EXAMPLES.get(name, "x") for name in schema["required"]}
    for name, field in schema["properties"].items():
        if field.get("default") is not None:
            decode_body(msgspec.json.encode(least | {name: field["default"]}), decoder)


def test_the_sampling_of_each_api_has_its_defaults() -> None:
    documented = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05}
    for name in ("ChatCompletionRequest", "CompletionsRequest", "GenerateRequest"):
        found = {field: SCHEMAS[name]["properties"][field]["default"] for field in documented}
        assert found == documented
    messages = SCHEMAS["MessagesRequest"]["properties"]
    assert {field: messages[field]["default"] for field in ("temperature", "top_p", "top_k")} == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
    }


def test_how_long_an_answer_gets_by_default_is_said() -> None:
    def limit(kind: str, name: str = "max_tokens") -> dict[str, Any]:
        found: dict[str, Any] = SCHEMAS[kind]["properties"][name]
        return found

    chat = limit("ChatCompletionRequest")
    assert chat["default"] is None
    assert "--default-max-tokens" in chat["description"]
    assert str(DEFAULT_MAX_TOKENS) in chat["description"]
    assert limit("CompletionsRequest")["default"] == 16
    assert limit("ResponsesRequest", "max_output_tokens")["default"] == 4096
    assert limit("GenerateRequest")["default"] == DEFAULT_MAX_TOKENS
    assert limit("CountTokensRequest")["default"] is None, "nothing is generated"


def test_a_models_states_are_those_that_the_documentation_explains() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    table = text.partition("| state | meaning |")[2].partition("\n\n")[0]
    explained = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert {"resident", "evicted"} <= set(explained)
    for name in ("ModelEntry", "SwitchedModel"):
        assert sorted(SCHEMAS[name]["properties"]["state"]["enum"]) == sorted(explained)
