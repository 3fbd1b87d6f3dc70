"""The server describes itself as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_process import Server

FUNCTION = {"name": "note", "parameters": {"type": "object", "properties": {}}}
MESSAGES = [{"role": "user", "content": "What is 27 + 45?"}]
CHAT = {"model": "demo", "messages": MESSAGES, "max_tokens": 40, "stream": True}
NATIVE = {"model": "demo", "prompt": "What is 27 + 45?", "max_tokens": 40, "stream": True}


def test_every_described_endpoint_is_there_and_every_endpoint_described(server: Server) -> None:
    document = server.get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    described = {re.sub(r"\{\w+\}", "{}", path) for path in document["paths"]}
    routed = {
        re.sub(r"\{[^}]+\}", "{}", path)
        for path in server.get("/")["endpoints"]
        if path not in ("/", "/openapi.json", "/docs")
    }
    assert described == routed
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            body = operation.get("requestBody", {"content": {}})["content"]
            if "application/json" in body:
                schema = body["application/json"]["schema"]
                name = schema["$ref"].rpartition("/")[2]
                assert document["components"]["schemas"][name]["properties"]


def test_answers_and_errors_are_described_by_their_fields(server: Server) -> None:
    document = server.get("/openapi.json")
    schemas = document["components"]["schemas"]

    def fields_of(content: dict[str, Any]) -> list[set[str]]:
        schema = content["application/json"]["schema"]
        names = [each["$ref"].rpartition("/")[2] for each in schema.get("anyOf", [schema])]
        return [set(schemas[name]["properties"]) for name in names]

    for path, methods in document["paths"].items():
        for operation in methods.values():
            answers = operation["responses"]["200"]["content"]
            if "application/json" in answers:
                assert all(fields_of(answers)), path
            [error] = fields_of(operation["responses"]["default"]["content"])
            assert "error" in error, path
    listed = document["paths"]["/v1/models"]["get"]["responses"]["200"]["content"]
    assert fields_of(listed) == [{"object", "data"}, {"data", "has_more", "first_id", "last_id"}]


def test_what_is_not_json_is_described_as_what_it_is(server: Server) -> None:
    paths = server.get("/openapi.json")["paths"]
    assert list(paths["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
    assert (
        "application/octet-stream"
        in paths["/api/v1/contexts/import"]["post"]["requestBody"]["content"]
    )
    filters = {(p["name"], p["in"]) for p in paths["/api/v1/contexts"]["get"]["parameters"]}
    assert filters == {("tier", "query"), ("model_id", "query")}


def test_generators_of_clients_can_read_all_of_the_description(server: Server) -> None:
    """What openapi-python-client leaves out whole endpoints for: found by running it."""
    document = server.get("/openapi.json")

    def parts_of(described: Any) -> Iterator[dict[str, Any]]:
        if isinstance(described, dict):
            yield described
        if isinstance(described, dict | list):
            for each in described.values() if isinstance(described, dict) else described:
                yield from parts_of(each)

    for part in parts_of(document):
        assert part.get("type") != "array" or "items" in part, part
        assert not any(isinstance(value, bool) for value in part.get("enum", ())), part
        assert part.get("default") != {}, part
        if "description" in part or "required" in part:
            assert all(media["schema"] for media in part.get("content", {}).values()), part
    deleted = document["components"]["schemas"]["DeletedContext"]["properties"]["deleted"]
    assert deleted == {"type": "boolean", "const": True}


def test_the_sizes_of_a_context_are_described_as_they_are_taken(
    server: Server, qwen_path: Path
) -> None:
    schema = server.get("/openapi.json")["components"]["schemas"]["LoadRequest"]
    size = schema["properties"]["context_size"]["anyOf"][0]
    assert size["not"] == {"minimum": 1, "maximum": 15}
    body = {"model_id": "sized", "file_path": str(qwen_path)}
    for refused in (1, 15, size["maximum"] + 1):
        status, answer, _ = server.request(
            "POST", "/api/v1/models/load", body | {"context_size": refused}
        )
        assert (status, answer["error"]["param"]) == (400, "context_size")
    server.post("/api/v1/models/load", body | {"context_size": 16})
    server.post("/api/v1/models/unload", {"model_id": "sized"})


def test_streams_are_described_by_the_data_of_their_events(server: Server) -> None:
    document = server.get("/openapi.json")
    contents = {
        path: operation["responses"]["200"]["content"]
        for path, methods in document["paths"].items()
        for operation in methods.values()
    }
    streams = {path: each for path, each in contents.items() if "text/event-stream" in each}
    assert len(streams) == 11
    for path, content in streams.items():
        schema = content["text/event-stream"]["schema"]
        assert schema["description"]
        for name in (each["$ref"].rpartition("/")[2] for each in schema.get("anyOf", [schema])):
            assert document["components"]["schemas"][name]["properties"], (path, name)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            CHAT
            | {"n": 2, "logprobs": True, "top_logprobs": 1}
            | {"stream_options": {"include_usage": True}, "reasoning_effort": "low"},
        ),
        (
            "/v1/chat/completions",
            CHAT
            | {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"},
        ),
        (
            "/v1/chat/completions",
            CHAT
            | {"tools": [{"type": "custom", "custom": {"name": "say"}}], "tool_choice": "required"},
        ),
        (
            "/v1/completions",
            NATIVE | {"echo": True, "logprobs": 1, "stream_options": {"include_usage": True}},
        ),
        (
            "/v1/responses",
            {"model": "demo", "input": "What is 27 + 45?", "stream": True}
            | {"max_output_tokens": 200, "reasoning": {"effort": "low"}}
            | {"include": ["message.output_text.logprobs", "reasoning.encrypted_content"]},
        ),
        (
            "/v1/responses",
            {"model": "demo", "input": "What is 27 + 45?", "stream": True}
            | {"max_output_tokens": 200, "reasoning": {"effort": "low", "summary": "auto"}}
            | {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "required"},
        ),
        (
            "/v1/responses",
            {"model": "demo", "input": "What is 27 + 45?", "stream": True}
            | {"tools": [{"type": "custom", "name": "say"}], "tool_choice": "required"},
        ),
        (
            "/v1/messages",
            CHAT | {"thinking": {"type": "enabled"}, "context_management": {"edits": []}},
        ),
        (
            "/v1/messages",
            CHAT
            | {"tools": [{"name": "note", "input_schema": {"type": "object"}}]}
            | {"tool_choice": {"type": "any"}},
        ),
        ("/api/v1/generate", NATIVE | {"thinking": True}),
        ("/api/v1/contexts/ingest", {"model_id": "demo", "content": "A" * 400, "stream": True}),
    ],
)
def test_the_events_of_streams_are_as_described(
    demo_server: Server, path: str, body: dict[str, Any]
) -> None:
    status, stream, headers = demo_server.request("POST", path, body)  # which checks them
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/event-stream"), stream


def test_the_docs_page_lists_the_endpoints(server: Server) -> None:
    status, page, headers = server.request("GET", "/docs")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/html")
    assert "/v1/chat/completions" in page
    assert "max_tokens" in page
    assert "://" not in page, "the page must not load anything from elsewhere"
