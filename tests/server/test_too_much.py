"""Requests that ask for too much of one thing: they are refused, or cost nobody else anything."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from server_process import Server
from waiting import wait_until

import snapllm
from snapllm.conversation import ContentPart, MessageToolCall
from snapllm.outputs import ChatResult, Completion, TokenAlternative, TokenLogprob
from snapllm.protocol import native
from snapllm.protocol.responses import parse
from snapllm.server import context_files, routes_admin, watch
from snapllm.server.answers import QUICK_LOGPROBS, collect_all, written
from snapllm.server.app import create_app
from snapllm.server.bodies import QUICK_BYTES, read_body
from snapllm.server.keys import STATE
from snapllm.server.log_lines import quoted
from snapllm.server.model_events import RESIDENCY_LOG
from snapllm.server.places import Places

CHAT = {"model": "llama", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
PROMPT = {"model": "llama", "prompt": "x", "max_tokens": 1}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", CHAT, "stop"),
        ("/v1/completions", PROMPT, "stop"),
        ("/api/v1/generate", PROMPT, "stop"),
        ("/v1/messages", CHAT, "stop_sequences"),
    ],
)
def test_what_is_searched_for_after_each_token_is_bounded(
    server: Server, path: str, body: dict[str, Any], field: str
) -> None:
    for stops in ([f"<{i}>" for i in range(65)], ["x" * 5000]):
        status, answer, _ = server.request("POST", path, body | {field: stops})
        assert status == 400
        assert field in json.dumps(answer)
    status, answer, _ = server.request("POST", path, body | {field: [f"<{i}>" for i in range(64)]})
    assert status == 200, answer


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", CHAT, "model"),
        ("/v1/completions", PROMPT, "model"),
        ("/v1/messages", CHAT, "model"),
        ("/v1/responses", {"input": "x"}, "model"),
        ("/v1/embeddings", {"input": "x"}, "model"),
        ("/api/v1/generate", PROMPT, "model"),
        ("/api/v1/diffusion/generate", {"prompt": "x"}, "model"),
        ("/api/v1/contexts/ingest", {"content": "x"}, "model_id"),
        ("/api/v1/models/switch", {}, "model_id"),
        ("/api/v1/models/unload", {}, "model_id"),
    ],
)
def test_the_name_of_a_model_is_bounded(
    server: Server, path: str, body: dict[str, Any], field: str
) -> None:
    status, answer, _ = server.request("POST", path, body | {field: "@" * 1025})
    assert status == 400, answer
    assert field in json.dumps(answer)
    assert len(json.dumps(answer)) < 1000


def test_a_value_takes_no_more_of_a_log_line_than_it_should() -> None:
    assert len(quoted("x" * 10_000)) < 600
    assert quoted("short") == "short"


def test_what_a_turn_consists_of_is_put_together_whatever_it_takes() -> None:
    num = 3000
    items: list[dict[str, Any]] = [{"role": "user", "content": "x"}]
    for i in range(num):
        items.append({"type": "reasoning", "summary": [], "content": text_of(f"thought {i}")})
        items.append(
            {"type": "function_call", "name": "f", "arguments": "{}", "call_id": f"call_{i}"}
        )
        items.append({"role": "assistant", "content": f"said {i}"})
    parsed = parse(json.dumps({"model": "m", "input": items}).encode())
    _, turn = parsed.request.messages
    assert turn.reasoning_content == "\n".join(f"thought {i}" for i in range(num))
    assert isinstance(turn.tool_calls, list) and isinstance(turn.content, list)
    assert [call.id for call in turn.tool_calls] == [f"call_{i}" for i in range(num)]
    assert all(isinstance(call, MessageToolCall) for call in turn.tool_calls)
    assert turn.content == [ContentPart("text", f"said {i}") for i in range(num)]


def text_of(text: str) -> list[dict[str, str]]:
    return [{"type": "reasoning_text", "text": text}]


def test_turns_keep_their_own_thoughts() -> None:
    items = [
        {"type": "reasoning", "summary": [], "content": text_of("one")},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "and"},
        {"type": "reasoning", "summary": [], "content": text_of("two")},
        {"type": "reasoning", "summary": [], "content": text_of("three")},
    ]
    parsed = parse(json.dumps({"model": "m", "input": items}).encode())
    assert [(turn.role, turn.reasoning_content) for turn in parsed.request.messages] == [
        ("assistant", "one"),
        ("user", None),
        ("assistant", "two\nthree"),
    ]


def test_a_large_body_is_refused_as_any_other(
    server: Server,
) -> None:
    large = "x" * (QUICK_BYTES + 1)
    status, answer, _ = server.request("POST", "/v1/chat/completions", CHAT | {"top_p": large})
    assert (status, answer["error"]["param"]) == (400, "top_p")
    body = CHAT | {"messages": [{"role": "user", "content": large}]}
    status, answer, _ = server.request("POST", "/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def test_only_large_bodies_are_read_on_another_thread(engine: snapllm.Engine) -> None:
    async def run() -> None:
        app = create_app(engine)
        here = threading.current_thread()
        for num_bytes, is_here in ((QUICK_BYTES, True), (QUICK_BYTES + 1, False)):
            request = make_mocked_request("POST", "/", app=app)
            request._read_bytes = bytes(num_bytes)
            thread = await read_body(request, lambda _: threading.current_thread())
            assert (thread is here) == is_here

    asyncio.run(run())


def test_only_many_log_probabilities_are_written_on_another_thread(
    engine: snapllm.Engine,
) -> None:
    def results(num_tokens: int) -> list[tuple[ChatResult | Completion, ...]]:
        entry = TokenLogprob(1, b"x", -1.0, (TokenAlternative(2, b"y", -2.0),))
        tokens, told = [1] * num_tokens, [entry] * num_tokens
        usual = Completion(text="x", tokens=tokens, finish_reason="stop", logprobs=told)
        scored = Completion(text="", tokens=[], finish_reason="length", prompt_logprobs=told)
        return [(ChatResult(content="x", logprobs=told),), (usual,), (scored,)]

    async def run() -> None:
        request = make_mocked_request("POST", "/", app=create_app(engine))
        here = threading.current_thread()
        for num_tokens, is_here in ((QUICK_LOGPROBS // 2, True), (QUICK_LOGPROBS, False)):
            for each in results(num_tokens):
                threads: list[threading.Thread] = []

                def write(threads: list[threading.Thread] = threads) -> bytes:
                    threads.append(threading.current_thread())
                    return b"{}"

                assert await written(request, each, write) == b"{}"
                assert (threads == [here]) == is_here

    asyncio.run(run())


def test_the_description_is_made_once_and_keeps_nobody_waiting(
    engine: snapllm.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def page() -> str:
        threads.append(threading.current_thread())
        return "the page"

    monkeypatch.setattr("snapllm.protocol.openapi.docs_page", page)
    routes_admin._page.cache_clear()

    async def run() -> None:
        async with TestClient(TestServer(create_app(engine))) as client:
            for _ in range(2):
                assert await (await client.get("/docs")).text() == "the page"

    asyncio.run(run())
    routes_admin._page.cache_clear()
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_of_several_answers_none_is_waited_for_once_one_has_failed() -> None:
    class Failing:
        async def next(self) -> list[str]:
            raise snapllm.GenerationFailedError("it failed")

    class Endless:
        async def next(self) -> list[str]:
            await asyncio.Event().wait()
            return []

    async def run() -> None:
        with pytest.raises(snapllm.GenerationFailedError):
            await collect_all([Endless(), Failing(), Endless()])  # type: ignore[list-item]
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_a_file_of_which_nothing_more_comes_gives_its_place_to_another(
    engine: snapllm.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_files, "SILENCE_S", 0.5)

    async def run() -> None:
        app = create_app(engine)
        receiving = app[STATE].receiving = Places(1)
        monkeypatch.setattr(engine.runner.threads, "max_waiting", 1)
        async with TestClient(TestServer(app)) as client:

            async def slow() -> AsyncIterator[bytes]:
                yield b"SNAPCTX"
                await asyncio.sleep(5)

            path = "/api/v1/contexts/import"
            stuck = asyncio.ensure_future(client.post(path, data=slow()))
            while receiving.num_in == 0:
                await asyncio.sleep(0.01)
            waiting = asyncio.ensure_future(client.post(path, data=b"x"))
            while receiving.num_waiting == 0:
                await asyncio.sleep(0.01)
            refused = await client.post(path, data=b"x")
            assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
            answer = await (await stuck).json()
            assert "nothing of the file came" in answer["error"]["message"]
            read = await waiting
            assert read.status == 400
            assert "not an exported context" in (await read.json())["error"]["message"]

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_file_that_nobody_takes_gives_its_place_to_another(
    engine: snapllm.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_files, "SILENCE_S", 0.5)
    large = 64 << 20  # more than a connection's buffers hold

    def export(_context: str, path: Path, **_options: Any) -> int:
        path.write_bytes(bytes(large))
        return large

    monkeypatch.setattr(engine.contexts, "export_file", export)
    view = engine.contexts.ingest("x " * 20, "llama", name="untaken")

    async def run() -> None:
        app = create_app(engine)
        sending = app[STATE].sending = Places(1)
        monkeypatch.setattr(engine.runner.threads, "max_waiting", 1)
        async with TestClient(TestServer(app)) as client:
            path = f"/api/v1/contexts/{view.record.id}/export"
            untaken = await client.get(path)  # its head; nothing more is read
            waiting = asyncio.ensure_future(client.get(path))
            while sending.num_waiting == 0:
                await asyncio.sleep(0.01)
            refused = await client.get(path)
            assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
            taken = await waiting
            assert taken.status == 200 and len(await taken.read()) == large
            with pytest.raises(ClientError):
                await untaken.read()

    try:
        asyncio.run(asyncio.wait_for(run(), 30))
    finally:
        engine.contexts.delete("untaken")


def test_patterns_are_rewritten_on_another_thread(engine: snapllm.Engine) -> None:
    async def run() -> None:
        request = make_mocked_request("POST", "/", app=create_app(engine))
        request._read_bytes = b'{"pattern": "a"}'
        thread = await read_body(request, lambda _: threading.current_thread())
        assert thread is not threading.current_thread()

    asyncio.run(run())


def test_the_system_prompt_of_a_batch_is_bounded_with_its_prompts(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "MAX_BATCH_CHARS", 1000)
    for num_prompts, is_refused in ((10, False), (11, True)):
        body = json.dumps({"system": "x" * 100, "prompts": ["y"] * num_prompts}).encode()
        if is_refused:
            with pytest.raises(snapllm.InvalidRequestError) as caught:
                native.parse_batch(body)
            assert caught.value.param == "system"
        else:
            assert len(native.parse_batch(body)) == num_prompts


def test_a_context_that_comes_compressed_is_refused(server: Server) -> None:
    status, answer, _ = server.request(
        "POST",
        "/api/v1/contexts/import",
        gzip.compress(bytes(1 << 20)),
        {"Content-Encoding": "gzip"},
    )
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert "Content-Encoding" in answer["error"]["message"]


def test_what_a_request_found_cached_brings_no_model_back(llama_path: Path) -> None:
    server = Server("--model", f"llama={llama_path}", "--keep-alive", "2").start(1)
    for question in ("The cat sat on the mat today.", "The cat sat on the hat today."):
        body = CHAT | {"messages": [{"role": "user", "content": question}]}
        status, _, headers = server.request("POST", "/v1/chat/completions", body)
        assert status == 200
    path = f"/api/v1/requests/{headers['x-request-id']}/cache"
    assert server.get(path)["answers"][0]["cached_text"]
    wait_until(lambda: server.get("/api/v1/models/llama")["model"]["state"] == "evicted")
    assert server.get(path)["answers"][0]["cached_text"] is None
    assert server.get("/api/v1/models/llama")["model"]["state"] == "evicted"


def test_a_look_at_the_engine_that_fails_is_not_the_last(
    engine: snapllm.Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(watch, "INTERVAL_S", 0.01)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OSError("no more files")

    async def run() -> None:
        app = create_app(engine)
        monkeypatch.setattr(app[RESIDENCY_LOG], "look", look)
        runner = web.AppRunner(app)
        await runner.setup()
        while looks < 3:
            await asyncio.sleep(0.01)
        await runner.cleanup()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert "a look at the engine failed" in caplog.text
