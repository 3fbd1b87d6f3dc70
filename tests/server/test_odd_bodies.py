"""No body, whatever it holds, gives a 500 or ends the server."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import socket
import time
import urllib.parse
from typing import Any

import pytest
from server_process import Server

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/api/v1/generate",
    "/api/v1/generate/batch",
    "/api/v1/models/load",
    "/api/v1/models/switch",
    "/api/v1/contexts/ingest",
    "/api/v1/contexts/ctx_0/query",
    "/api/v1/contexts/ctx_0/promote",
)
FIELDS = (
    *("model", "model_id", "messages", "prompt", "prompts", "input", "system", "tools", "stream"),
    *("max_tokens", "temperature", "top_p", "stop", "n", "seed", "logprobs", "tool_choice"),
    *("thinking", "response_format", "content", "query", "tier", "file_path", "stop_sequences"),
    *("logit_bias", "max_output_tokens", "instructions", "text", "reasoning", "echo"),
)
SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**70), 0.5, 1e300, "", "x", "llama"),
    *("\x00", "\ud800", "user", "assistant", "<|im_end|>", "auto", "{}", "../../etc/passwd"),
)
MESSAGES: tuple[Any, ...] = (
    [{"role": "user", "content": "Hi"}],
    [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    [{"role": "tool", "tool_call_id": "1", "content": "x"}],
    [{"role": "assistant", "content": None}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}],
    [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
)


def value(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(8 if depth < 3 else 3)
    if kind < 3:
        return rng.choice(SCALARS)
    if kind == 3:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 4:
        return rng.choice(MESSAGES)
    return {rng.choice(FIELDS): value(rng, depth + 1) for _ in range(rng.randrange(5))}


def body(rng: random.Random) -> bytes:
    fields: dict[str, Any] = {"model": "llama", "max_tokens": 2, "messages": MESSAGES[0]}
    fields |= {"prompt": "x", "input": "x"} if rng.random() < 0.5 else {}
    for _ in range(rng.randrange(5)):
        fields[rng.choice(FIELDS)] = value(rng, 0)
    data = json.dumps(fields).encode()
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data))]
    if rng.random() < 0.05:
        data = bytes(rng.randrange(256) for _ in range(40))
    return data


def test_no_body_gives_a_500_or_ends_the_server(server: Server) -> None:
    rng = random.Random(4)
    statuses: dict[int, int] = {}
    for i in range(900):
        path = PATHS[i % len(PATHS)]
        data = body(rng)
        status, answer, _ = server.request("POST", path, data)
        assert status < 500, (path, data, answer)
        if status >= 400 and isinstance(answer, dict):
            assert answer["error"]["message"], (path, data)
        statuses[status] = statuses.get(status, 0) + 1
    assert statuses[200] > 30 and statuses[400] > 200, statuses
    assert server.get("/health")["status"] == "ok"


def test_deep_and_large_bodies_are_refused(server: Server) -> None:
    for data in (
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"model":"llama","messages":' + b"[" * 500 + b"]" * 500 + b"}",
    ):
        for path in PATHS:
            status, _, _ = server.request("POST", path, data)
            assert status in (400, 404)
    status, answer, _ = server.request("POST", "/v1/messages", b'"' + b"x" * (65 << 20) + b'"')
    assert (status, answer["error"]["type"]) == (413, "request_too_large")


@pytest.mark.parametrize("path", ["/v1/messages", "/api/v1/contexts/import?model_id=llama"])
def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(
    server: Server, path: str
) -> None:
    address = urllib.parse.urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n"
        client.sendall(head.encode() + b"{")
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert b'"request_too_large"' in answer


def test_a_body_that_is_not_what_its_encoding_says_is_refused(server: Server) -> None:
    body = json.dumps({"model": "llama", "prompt": "x", "max_tokens": 1}).encode()
    headers = {"Content-Encoding": "gzip"}
    status, answer, _ = server.request("POST", "/v1/completions", body, headers)
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    packed, headers["x-request-id"] = gzip.compress(body), "packed-1"
    assert server.request("POST", "/v1/completions", packed, headers)[0] == 200
    server.line_with("packed-1")
    assert not any("exception" in line.lower() for line in server.lines)


@pytest.mark.parametrize("encoding", ["x-gzip", "gzip, gzip", "compress"])
def test_a_body_in_an_unknown_encoding_is_refused_as_that(server: Server, encoding: str) -> None:
    body = gzip.compress(b'{"model": "llama", "prompt": "x", "max_tokens": 1}')
    headers = {"Content-Encoding": encoding}
    status, answer, _ = server.request("POST", "/v1/completions", body, headers)
    assert (status, answer["error"]["code"]) == (415, "unsupported_encoding")
    assert "neither gzip nor deflate" in answer["error"]["message"]
    status, answer, _ = server.request("POST", "/v1/messages", body, headers)
    assert (status, answer["type"]) == (415, "error")


@pytest.mark.parametrize("path", ["/nope", "/v1/chat/completions/"])
def test_a_body_that_nobody_reads_and_nobody_could_leaves_no_traceback(
    server: Server, path: str
) -> None:
    address = urllib.parse.urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
        client.sendall(head.encode() + b"Content-Length: 20\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 404 ")
        client.sendall(b"x" * 20)
        while client.recv(4096):
            pass
    status, _, _ = server.request("GET", "/health", headers={"x-request-id": "after-it"})
    assert status == 200
    server.line_with("after-it")
    assert not any("Traceback" in line or "Unhandled" in line for line in server.lines)


@pytest.mark.parametrize(("path", "status"), [("/nope", 404), ("/v1/completions", 413)])
def test_a_small_body_that_becomes_a_huge_one_keeps_nobody_else_waiting(
    server: Server, path: str, status: int
) -> None:
    bomb = gzip.compress(b" " * (20 << 20), 9) * 200
    address = urllib.parse.urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
        client.sendall(f"{head}Content-Length: {len(bomb)}\r\n\r\n".encode() + bomb)
        answer = client.recv(4096)
        begun_at = time.monotonic()
        assert server.get("/health")["status"] == "ok"
        # To decompress it all takes more than ten seconds.
        assert time.monotonic() - begun_at < 3
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
        assert b"\r\nConnection: close\r\n" in answer
        assert client.recv(4096) == b""


def test_a_body_that_cannot_be_read_and_comes_late_is_refused(server: Server) -> None:
    address = urllib.parse.urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Encoding: deflate\r\n"
        client.sendall(head.encode() + b"Content-Length: 2\r\n\r\n")
        time.sleep(0.1)  # the request is waiting for it
        client.sendall(b"{}")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_a_connection_ends_with_a_body_that_cannot_be_read(server: Server) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    for _ in range(2):  # a client goes on, on another connection where it has to
        headers = {"Content-Encoding": "deflate"}
        connection.request("POST", "/v1/completions", b'{"model": "llama"}', headers)
        refusal = connection.getresponse()
        assert (refusal.status, refusal.headers["Connection"]) == (400, "close")
        assert b"cannot be read" in refusal.read()
        connection.request("GET", "/health")
        assert json.load(connection.getresponse())["status"] == "ok"


def answer_to(server: Server, data: bytes) -> tuple[int, dict[str, str], Any]:
    """The answer to what is sent as it is, and the end of its connection."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        response = http.client.HTTPResponse(connection)
        response.begin()
        answer = json.load(response)
        assert connection.recv(1) == b""
    return response.status, dict(response.headers), answer


POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01 no request\r\n\r\n", 400),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 400),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nContent-Encoding: br\r\n\r\n{}", 415),
        (POST + b"Content-Length: 2\r\nContent-Encoding: zstd\r\n\r\n{}", 415),
        # It ends too early.
        (POST + b"Content-Length: 2\r\nContent-Encoding: deflate\r\n\r\n\x78\x9c", 400),
    ],
    ids=("no-http", "long-line", "bad-length", "br", "zstd", "cut-deflate"),
)
def test_what_is_no_request_is_refused_in_json_without_a_traceback(
    server: Server, data: bytes, status: int
) -> None:
    found, headers, answer = answer_to(server, data)
    assert (found, headers["Content-Type"]) == (status, "application/json")
    assert answer["error"]["type"] == "invalid_request_error"
    assert "cannot be read" in answer["error"]["message"]
    line = server.line_with("snapllm.server", headers["x-request-id"])
    assert " INFO " in line
    assert not any("Traceback" in line or "aiohttp" in line for line in server.lines)


LONG = "many words " * 10_000


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "messages"),
        ("/v1/completions", {"prompt": LONG}, "prompt"),
        ("/v1/completions", {"prompt": ["x", LONG]}, "prompt[1]"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": [[]]}, "prompt"),
        ("/v1/completions", {"prompt": [1_000_000]}, "prompt"),
        ("/v1/responses", {"input": LONG}, "input"),
        ("/v1/embeddings", {"input": LONG}, "input"),
        ("/v1/embeddings", {"input": [1_000_000]}, "input"),
        ("/v1/messages", {"messages": [{"role": "user", "content": LONG}]}, "messages"),
        ("/api/v1/generate", {"prompt": LONG}, "prompt"),
        ("/api/v1/generate/batch", {"prompts": ["x", LONG]}, "prompts[1]"),
        ("/api/v1/contexts/ingest", {"content": LONG}, "content"),
    ],
)
def test_a_prompt_that_cannot_be_is_named_as_the_endpoint_names_it(
    server: Server, path: str, body: dict[str, Any], param: str
) -> None:
    named = {"model": "llama", "model_id": "llama", "max_tokens": 1} | body
    status, answer, _ = server.request("POST", path, named)
    assert (status, answer["error"]["param"]) == (400, param), answer


def test_null_is_as_good_as_nothing_where_a_field_may_be_left_out(server: Server) -> None:
    whole = server.post("/api/v1/generate", {"prompt": "x", "max_tokens": 2, "seed": None})
    assert whole["status"] == "success"
    status, answer, _ = server.request("POST", "/api/v1/generate", {"prompt": None})
    assert (status, answer["error"]["param"]) == (400, "prompt")


def test_paths_that_take_no_get_say_so(server: Server) -> None:
    for path in ("models/load", "models/pin", "contexts/ingest", "contexts/import"):
        status, answer, headers = server.request("GET", f"/api/v1/{path}")
        assert (status, answer["error"]["code"]) == (405, "method_not_allowed"), path
        assert headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/messages", "/v1/messages"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1//responses", "/v1/responses"),
        ("/api/v1/generate/", "/api/v1/generate"),
        ("/v1/api/v1/generate", "/api/v1/generate"),
        ("/v1/health", "/health"),
        ("//api/v1/contexts/ingest", "/api/v1/contexts/ingest"),
    ],
)
def test_a_path_under_another_base_url_is_told_where_it_is(
    server: Server, path: str, meant: str
) -> None:
    status, answer, _ = server.request("POST", path, {})
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert f"Unknown path: {path}; there is {meant}:" in answer["error"]["message"]


def test_a_path_that_nothing_is_like_has_no_such_hint(server: Server) -> None:
    for path in ("/v1/moderations", "/v1", "/v1/v1"):
        _, answer, _ = server.request("POST", path, {})
        assert answer["error"]["message"] == f"Unknown path: {path}"
