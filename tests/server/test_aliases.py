"""Other names for models, with and without a context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from server_process import Server

HANDBOOK = "The vacation policy is 20 days of paid vacation. The office opens at 8:30."
QUESTION = "What is the vacation policy?"
MESSAGES = [{"role": "user", "content": QUESTION}]
ALIASES = ("claude-*=demo", "gpt=demo", "doc=demo@handbook")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server whose demo model has other names; its context came by one of them."""
    options = [option for alias in ALIASES for option in ("--alias", alias)]
    server = Server(*options).start(1)
    body = {"model_id": "gpt", "name": "handbook", "content": HANDBOOK}
    try:
        assert server.post("/api/v1/contexts/ingest", body)["model_id"] == "demo"
        yield server
        assert server.stop() == 0
    finally:
        server.process.kill()


@pytest.mark.parametrize("name", ["demo@handbook", "gpt@handbook", "claude-x@handbook", "doc"])
def test_every_chat_reads_the_document_under_every_name(server: Server, name: str) -> None:
    chat = {"model": name, "messages": MESSAGES, "max_tokens": 40, "temperature": 0}
    answer = server.post("/v1/chat/completions", chat)
    assert "20 days" in answer["choices"][0]["message"]["content"]
    assert "20 days" in server.post("/v1/messages", chat)["content"][0]["text"]
    asked = {"model": name, "input": QUESTION, "temperature": 0}
    assert "20 days" in server.post("/v1/responses", asked)["output"][0]["content"][0]["text"]
    generate = {"model": name, "prompt": QUESTION, "temperature": 0}
    assert "20 days" in server.post("/api/v1/generate", generate)["response"]
    counted = server.post("/v1/messages/count_tokens", chat)["input_tokens"]
    assert counted == answer["usage"]["prompt_tokens"]


def test_what_chat_serves_is_found_as_a_model(server: Server) -> None:
    for name in ("demo", "gpt", "claude-x", "demo@handbook", "gpt@handbook", "doc"):
        found = server.get(f"/v1/models/{name}")
        assert (found["id"], found["object"]) == (name, "model")
    for name, code in (
        ("other", "model_not_found"),
        ("other@handbook", "model_not_found"),
        ("gpt@other", "context_not_found"),
    ):
        status, answer, _ = server.request("GET", f"/v1/models/{name}")
        assert (status, answer["error"]["code"]) == (404, code)
        chat = {"model": name, "messages": MESSAGES}
        status, answer, _ = server.request("POST", "/v1/chat/completions", chat)
        assert (status, answer["error"]["code"]) == (404, code)


def test_models_and_contexts_are_managed_by_an_alias(server: Server) -> None:
    assert server.post("/api/v1/models/switch", {"model_id": "gpt"})["model"] == "demo"
    assert server.get("/api/v1/models/gpt")["model"]["id"] == "demo"
    pin = {"model_id": "gpt", "pinned": False}
    assert server.post("/api/v1/models/pin", pin)["model"] == "demo"
    contexts: list[Any] = server.get("/api/v1/contexts?model_id=gpt")["contexts"]
    assert [context["name"] for context in contexts] == ["handbook"]


def test_a_model_is_not_unloaded_by_an_alias(server: Server) -> None:
    for name in ("gpt", "claude-x"):
        status, answer, _ = server.request("POST", "/api/v1/models/unload", {"model_id": name})
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
