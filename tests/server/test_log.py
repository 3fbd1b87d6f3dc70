"""What the log says: a line for each request and each change of a model."""

from __future__ import annotations

import http.client
import json
import logging
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from nano_models import make_nano_model
from server_process import Server
from waiting import wait_until

import snapllm
from snapllm.server.model_events import ResidencyLog

LONG = {
    "model": "llama",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 30000,
    "stream": True,
    "logit_bias": {str(number): -100 for number in range(262, 265)},
}


@pytest.fixture
def log_of(server: Server) -> Callable[..., str]:
    """Asks the shared server, and returns the request's line."""
    numbers = iter(range(1_000_000))

    def ask(method: str, path: str, body: Any = None) -> str:
        request_id = f"log-{next(numbers)}-{time.monotonic_ns()}"
        server.request(method, path, body, {"x-request-id": request_id})
        return server.line_with("snapllm.access", request_id)

    return ask


def test_an_answer_is_counted(log_of: Callable[..., str]) -> None:
    for stream in (False, True):
        line = log_of("POST", "/v1/chat/completions", LONG | {"max_tokens": 4, "stream": stream})
        assert "status=200" in line and " model=llama " in line
        assert " generated_tokens=4 finish=length" in line and "prompt_tokens=0" not in line
        assert "error=" not in line


def test_what_is_computed_without_an_answer_is_counted(log_of: Callable[..., str]) -> None:
    document = {"model_id": "llama", "content": "one two three"}
    for stream in (False, True):
        line = log_of("POST", "/api/v1/contexts/ingest", document | {"stream": stream})
        assert " model=llama prompt_tokens=" in line and "prompt_tokens=0" not in line
    body = {"model": "llama", "messages": LONG["messages"]}
    assert " model=llama prompt_tokens=" in log_of("POST", "/v1/messages/count_tokens", body)
    body = {"model": "llama", "input": "Hello"}
    assert " model=llama prompt_tokens=" in log_of("POST", "/v1/responses/input_tokens", body)


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("GET", "/nowhere", None, "status=404 error=not_found"),
        ("GET", "/v1/chat/completions", None, "status=405 error=method_not_allowed"),
        ("POST", "/v1/messages", {"model": "x"}, "status=400 error=invalid_request param="),
        ("POST", "/api/v1/generate", {"prompt": "x", "model": "no"}, "error=model_not_found"),
        ("POST", "/v1/chat/completions", b"{", "status=400 error=invalid_request"),
    ],
)
def test_a_refusal_says_why(
    log_of: Callable[..., str], method: str, path: str, body: Any, words: str
) -> None:
    line = log_of(method, path, body)
    for word in words.split():
        assert word in line


def test_a_stream_whose_client_leaves_is_counted_so_far(tmp_path: Path) -> None:
    model = make_nano_model(tmp_path / "llama.gguf", context_size=32768)
    server = Server("--model", f"llama={model}").start(1)
    address = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.request("POST", "/v1/chat/completions", json.dumps(LONG))
    assert connection.sock is not None
    connection.sock.recv(10)
    connection.close()
    line = server.line_with("status=499", "model=llama", "finish=cancelled")
    assert "prompt_tokens=0 " not in line
    assert server.stop() == 0


def test_a_client_that_leaves_with_the_whole_answer_has_not_left(demo_server: Server) -> None:
    """It closes the connection as soon as it has read the end."""
    chat = {"model": "demo", "messages": LONG["messages"], "max_tokens": 2, "stream": True}
    document = {"content": "The sky is green. " * 100, "model_id": "demo", "name": "taken"}
    context_id = demo_server.post("/api/v1/contexts/ingest", document)["context_id"]
    request_ids = []
    for number in range(30):
        request_ids += [f"left-{number}-chat", f"left-{number}-export"]
        for request_id, method, path, body in (
            (request_ids[-2], "POST", "/v1/chat/completions", json.dumps(chat)),
            (request_ids[-1], "GET", f"/api/v1/contexts/{context_id}/export", None),
        ):
            address = urllib.parse.urlsplit(demo_server.url)
            connection = http.client.HTTPConnection(address.hostname or "", address.port)
            connection.request(method, path, body, {"x-request-id": request_id})
            response = connection.getresponse()
            if body is None:
                response.read()
            else:
                while b"[DONE]" not in response.readline():
                    pass
            connection.close()
            response.close()
    for request_id in request_ids:
        assert "status=200" in demo_server.line_with("snapllm.access", request_id)
    demo_server.request("DELETE", f"/api/v1/contexts/{context_id}")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_stream_that_a_shutdown_cuts_off_is_no_success(tmp_path: Path, path: str) -> None:
    model = make_nano_model(tmp_path / "llama.gguf", context_size=32768)
    server = Server("--model", f"llama={model}", "--drain-timeout", "0").start(1)
    first_token = 'snapllm_time_to_first_token_seconds_count{model="llama"} 1'
    body = dict(LONG)
    if path != "/v1/chat/completions":
        del body["messages"]
        body["prompt"] = "Hello"
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(server.request, "POST", path, body)
        wait_until(lambda: first_token in server.get("/metrics"))
        assert server.stop() == 0
        asked.result(10)
    line = server.line_with(f"path={path}")
    facts = dict(each.split("=", 1) for each in line.split() if "=" in each)
    assert (facts["finish"], facts["error"]) == ("error", "closed")
    assert int(facts["prompt_tokens"]) > 0 and int(facts["generated_tokens"]) > 0


@pytest.fixture
def empty_server() -> Iterator[Server]:
    server = Server("--no-demo", "--no-workspace").start(0)
    try:
        yield server
        assert server.stop() == 0
    finally:
        server.process.kill()


def test_a_name_cannot_end_its_line_or_make_up_facts(
    empty_server: Server, llama_path: Path
) -> None:
    name = 'a b 2026 ERROR status=500 "x"'
    empty_server.post("/api/v1/models/load", {"model_id": name, "file_path": str(llama_path)})
    body = {"model": name, "prompt": "x", "max_tokens": 2}
    empty_server.post("/v1/completions", body)
    assert json.dumps(name) in empty_server.line_with("snapllm.models", "loaded ")
    assert f"model={json.dumps(name)} " in empty_server.line_with("path=/v1/completions")
    unknown = {"model": "a b\n2026 ERROR x", "prompt": "x"}
    status, _, _ = empty_server.request("POST", "/v1/completions", unknown)
    assert status == 404
    empty_server.line_with("status=404")
    assert not any(line.startswith("2026 ERROR") for line in empty_server.lines)


def test_each_change_of_a_model_has_a_line(empty_server: Server, llama_path: Path) -> None:
    post = empty_server.post
    for model_id in ("one", "two"):
        body = {"model_id": model_id, "file_path": str(llama_path)}
        for seconds in (1000, 1000, 0.2):  # the first loads it, the last lets it expire
            post("/api/v1/models/load", body | {"keep_alive_s": seconds})
    empty_server.line_with("INFO snapllm.models: evicted two from memory")
    post("/api/v1/models/switch", {"model_id": "two"})
    post("/api/v1/generate", {"model": "two", "prompt": "x", "max_tokens": 1})
    empty_server.line_with("INFO snapllm.models: two is back in memory")
    post("/api/v1/models/unload", {"model_id": "two"})
    time.sleep(1.2)
    events = [line.partition("snapllm.models: ")[2] for line in empty_server.lines]
    of_two = [event for event in events if "two" in event.split()]
    assert [event.split()[0] for event in of_two if event.split()[0] != "evicted"] == [
        *("loaded", "switched", "two", "unloaded")
    ]


def test_evictions_and_returns_are_said_in_their_order_and_to_the_last(
    llama_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "snapllm.models")
    with snapllm.Engine(num_threads=1) as engine:
        log = ResidencyLog(engine)
        models = [engine.load(llama_path, name) for name in ("a", "b")]
        log.look()
        assert not caplog.messages
        for model in models:
            engine.load(llama_path, model.id, keep_alive_s=0.05)
        expected = []
        for model in [*models, *models]:
            wait_until(lambda: all(each.info.state == "evicted" for each in models))
            model.generate("x", max_tokens=1)
            expected.append(f"{model.id} is back in memory")
        log.look()
    back = [message for message in caplog.messages if "is back" in message]
    assert back == expected
    assert len(caplog.messages) in (9, 10)  # the last one may have gone again
    log.look()  # of an engine that is closed


def test_damaged_files_are_counted_and_said(tmp_path: Path, llama_path: Path) -> None:
    arguments = ("--model", f"llama={llama_path}", "--workspace", str(tmp_path))
    server = Server(*arguments).start(1)
    for name in ("one", "two"):
        body = {"content": f"{name}: the badge color is green.", "model_id": "llama"}
        server.post("/api/v1/contexts/ingest", body)
    assert server.stop() == 0
    assert not any("WARNING" in line for line in server.lines)
    damaged = sorted((tmp_path / "contexts").glob("*.json"))[0]
    damaged.write_text("{}")
    for path in (tmp_path / "kv").rglob("*.kv"):
        path.write_bytes(b"nothing")
    server = Server(*arguments).start(1)
    try:
        server.line_with("WARNING", str(damaged.with_suffix(".damaged")))
        line = server.line_with("WARNING", "damaged files of KV were removed")
        count = int(line.partition("workspace: ")[2].split()[0])
        stats = server.get("/api/v1/models/cache/stats")["stats"]
        assert count == stats["kv_files_damaged"] > 0
        assert stats["kv_read_failures"] == 0
        metrics = server.get("/metrics")
        assert f"snapllm_kv_files_damaged_total {count:.1f}" in metrics
        assert "snapllm_kv_read_failures_total 0.0" in metrics
        assert "snapllm_context_files_damaged_total 1.0" in metrics
    finally:
        assert server.stop() == 0


def test_files_that_cannot_be_written_are_said(tmp_path: Path, llama_path: Path) -> None:
    server = Server("--model", f"llama={llama_path}", "--workspace", str(tmp_path)).start(1)
    try:
        shutil.rmtree(tmp_path / "kv")
        (tmp_path / "kv").touch()
        body = {"content": "The badge color is green.", "model_id": "llama"}
        status, answer, _ = server.request("POST", "/api/v1/contexts/ingest", body)
        assert (status, answer["error"]["code"]) == (500, "storage_failed")
        server.line_with("WARNING snapllm.store: files of KV could not be written")
        assert server.get("/api/v1/models/cache/stats")["stats"]["kv_write_failures"] > 0
    finally:
        assert server.stop() == 0
