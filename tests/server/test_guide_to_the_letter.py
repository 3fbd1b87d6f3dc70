"""The developer's guide, field by field, over plain HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_process import Server

HELLO = [{"role": "user", "content": "Hello"}]
CONTEXTS = "/api/v1/contexts"


@pytest.fixture(scope="module")
def empty_server() -> Iterator[Server]:
    """A server without any model."""
    server = Server("--no-demo")
    try:
        yield server.start(0)
        assert server.stop() == 0
    finally:
        server.process.kill()


def test_a_server_without_models_counts_nothing(empty_server: Server) -> None:
    models = empty_server.get("/api/v1/models")
    assert (models["models"], models["active_model"], models["total_loaded"]) == ([], None, 0)
    assert empty_server.get("/v1/models") == {"object": "list", "data": []}
    stats = empty_server.get("/api/v1/models/cache/stats")["stats"]
    assert (stats["total_models_loaded"], stats["cache_hits"], stats["cache_misses"]) == (0, 0, 0)
    for name in ("hit_rate", "gpu_memory_used_mb"):
        assert (stats[name], type(stats[name])) == (0.0, float)
    contexts = empty_server.get(f"{CONTEXTS}/stats")["stats"]
    for name in ("total_contexts", "hot_contexts", "warm_contexts", "cold_contexts"):
        assert (contexts[name], type(contexts[name])) == (0, int)
    for name in ("hit_rate", "avg_query_latency_ms", "total_memory_mb", "total_disk_mb"):
        assert (contexts[name], type(contexts[name])) == (0.0, float)
    assert empty_server.get(CONTEXTS)["contexts"] == []


@pytest.mark.parametrize("model", ["unknown-model", "unknown@context"])
def test_an_unknown_model_is_told_in_the_guides_words(demo_server: Server, model: str) -> None:
    body = {"model": model, "messages": HELLO}
    status, answer, _ = demo_server.request("POST", "/v1/chat/completions", body)
    assert status == 404
    assert answer["error"]["message"] == f"Model not found: {model}"
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["code"] == "model_not_found"
    body = {"prompt": "a cat", "model": model}
    status, answer, _ = demo_server.request("POST", "/api/v1/diffusion/generate", body)
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_the_events_of_a_chat_are_those_of_the_guide(demo_server: Server) -> None:
    body = {"model": "demo", "messages": HELLO, "stream": True, "max_tokens": 20}
    status, text, headers = demo_server.request("POST", "/v1/chat/completions", body)
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    events = [block for block in text.split("\n\n") if block]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event[6:]) for event in events[:-1]]
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant"}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons[-1] in ("stop", "length") and set(reasons[:-1]) == {None}
    assert chunks[-1]["choices"][0]["delta"] == {}


def test_an_answer_has_256_tokens_where_nobody_says_how_many(demo_server: Server) -> None:
    body = {"model": "demo", "messages": HELLO, "ignore_eos": True}
    usage = demo_server.post("/v1/chat/completions", body)["usage"]
    assert usage["completion_tokens"] == 256
    assert usage["total_tokens"] == usage["prompt_tokens"] + 256


def test_results_of_tools_need_no_tools_beside_them(demo_server: Server) -> None:
    call = {"type": "tool_use", "id": "toolu_001", "name": "get_weather", "input": {"a": "Tokyo"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_001", "content": "Currently 22 degrees"}
    said = {"type": "text", "text": "Let me check the weather."}
    body = {
        "model": "demo",
        "max_tokens": 64,
        "messages": [
            {"role": "user", "content": "What's the weather in Tokyo?"},
            {"role": "assistant", "content": [said, call]},
            {"role": "user", "content": [result]},
        ],
    }
    for name in ("x-api-key", "anthropic-api-key", "authorization"):
        status, answer, _ = demo_server.request(
            "POST", "/v1/messages", body, {name: "anything", "anthropic-version": "2023-06-01"}
        )
        assert status == 200
        assert answer["content"][0]["type"] == "text"
        assert answer["stop_reason"] in ("end_turn", "max_tokens")


def test_a_model_says_when_it_was_loaded(demo_server: Server) -> None:
    [demo] = [m for m in demo_server.get("/api/v1/models")["models"] if m["id"] == "demo"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", demo["loaded_at"])


def test_a_context_lives_through_the_guides_steps(demo_server: Server) -> None:
    given = {"content": "The office opens at 9 am. " * 30, "model_id": "demo", "name": "letter"}
    made = demo_server.post(f"{CONTEXTS}/ingest", given)
    context = made["context_id"]
    assert re.fullmatch(r"ctx_[0-9a-f]{12}", context)
    assert type(made["token_count"]) is int and type(made["storage_size_mb"]) is float
    [listed] = [c for c in demo_server.get(CONTEXTS)["contexts"] if c["context_id"] == context]
    assert listed["ttl_seconds"] == 86400
    answer = demo_server.post(f"{CONTEXTS}/{context}/query", {"query": "When?", "max_tokens": 8})
    assert answer["cache_hit"] is True
    before = demo_server.get(f"{CONTEXTS}/stats")["stats"]["cold_contexts"]
    assert demo_server.post(f"{CONTEXTS}/{context}/demote", {"tier": "cold"})["tier"] == "cold"
    assert demo_server.get(f"{CONTEXTS}/stats")["stats"]["cold_contexts"] == before + 1
    status, _, _ = demo_server.request("DELETE", f"{CONTEXTS}/{context}")
    assert status == 200
    for method, path in (("DELETE", ""), ("GET", ""), ("POST", "/query")):
        body = {"query": "When?"} if method == "POST" else None
        status, gone, _ = demo_server.request(method, f"{CONTEXTS}/{context}{path}", body)
        assert (status, gone["error"]["code"]) == (404, "context_not_found")


def test_what_is_given_empty_is_not_given(demo_server: Server) -> None:
    given = {"content": "Nothing in particular. " * 20, "model_id": "demo", "name": ""}
    context = demo_server.post(f"{CONTEXTS}/ingest", given)["context_id"]
    listed = demo_server.get(f"{CONTEXTS}?tier=&model_id=")["contexts"]
    assert [c["name"] for c in listed if c["context_id"] == context] == [context]
    status, _, _ = demo_server.request("DELETE", f"{CONTEXTS}/{context}")
    assert status == 200


def test_contexts_outlive_the_residency_of_their_model(llama_path: Path) -> None:
    server = Server("--model", f"a={llama_path}")
    try:
        server.start(1)
        given: dict[str, Any] = {"content": "One two three. " * 60, "model_id": "a", "name": "n"}
        context = server.post(f"{CONTEXTS}/ingest", given)["context_id"]
        server.post("/api/v1/models/unload", {"model_id": "a"})
        for path, body in (("query", {"query": "x"}), ("promote", {"tier": "hot"})):
            status, answer, _ = server.request("POST", f"{CONTEXTS}/{context}/{path}", body)
            assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert server.post(f"{CONTEXTS}/{context}/demote", {"tier": "cold"})["tier"] == "cold"
        assert [c["context_id"] for c in server.get(CONTEXTS)["contexts"]] == [context]
        server.post("/api/v1/models/load", {"model_id": "a", "file_path": str(llama_path)})
        assert server.post(f"{CONTEXTS}/{context}/query", {"query": "x"})["cache_hit"] is True
        assert server.stop() == 0
    finally:
        server.process.kill()
