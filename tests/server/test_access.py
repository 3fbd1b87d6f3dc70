"""Who may ask: API keys, and pages of other origins."""

from __future__ import annotations

import socket
import urllib.parse
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from server_process import Server

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_bytes(b"second\r\n\n  fourth")
    server = Server(
        *("--api-key", "first", "--api-key-file", str(keys), "--alias", "claude-*=demo"),
        *("--cors-origin", "https://page.example"),
    ).start(1)
    try:
        yield server
        assert server.stop() == 0
    finally:
        server.kill()


def test_keys_are_required_where_there_are_keys(guarded: Server) -> None:
    assert guarded.get("/health")["status"] == "ok"
    assert guarded.get("/api/hello") == {"message": "hello"}
    assert b" 200 " in _sent_as_it_is(guarded, b"HEAD /api/hello").splitlines()[0]
    status, _, headers = guarded.request("GET", "/v1/models")
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    options: dict[str, Any] = {"model": "claude-x", "max_tokens": 3, "messages": HELLO}
    for wrong in ("", "firs", "third"):
        claude = anthropic.Anthropic(base_url=guarded.url, api_key=wrong or "-", max_retries=0)
        with pytest.raises(anthropic.AuthenticationError):
            claude.messages.create(**options)
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(
                base_url=guarded.url + "/v1", api_key=wrong or "-", max_retries=0
            ).chat.completions.create(model="demo", messages=HELLO)
    long: list[Any] = [{"role": "user", "content": "Tell me about rivers. " * 20}]
    options["messages"] = long
    for key in ("first", "second", "fourth"):
        claude = anthropic.Anthropic(base_url=guarded.url, api_key=key, max_retries=0)
        first = claude.messages.create(**options)
        assert first.model == "claude-x"
        # What another key has asked is not shared.
        assert first.usage.cache_read_input_tokens == 0
        assert claude.messages.create(**options).usage.cache_read_input_tokens


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer snapllm", "x-api-key": "second"},
        {"Authorization": "Bearer second", "x-api-key": "snapllm"},
        {"x-api-key": "", "api-key": "second"},
    ],
)
def test_a_key_is_found_beside_others_that_are_none(
    guarded: Server, headers: dict[str, str]
) -> None:
    assert guarded.request("GET", "/v1/models", headers=headers)[0] == 200
    wrong = dict.fromkeys(headers, "Bearer snapllm")
    assert guarded.request("GET", "/v1/models", headers=wrong)[0] == 401


@pytest.mark.parametrize(
    "header", [b"Authorization: Bearer \xf6", b"x-api-key: \xf6", b"Authorization: Bearer \xc3\xb6"]
)
def test_a_key_that_is_no_text_is_a_wrong_key(guarded: Server, header: bytes) -> None:
    assert b" 401 " in _sent_as_it_is(guarded, b"GET /v1/models", header)


@pytest.mark.parametrize("header", [b"Origin: http://\xf6.com", b"Host: \xf6.com"])
def test_a_header_that_is_no_text_is_refused_and_not_failed_on(
    server: Server, header: bytes
) -> None:
    answer = _sent_as_it_is(server, b"POST /v1/chat/completions", header, b"Content-Length: 0")
    assert b" 403 " in answer.splitlines()[0]
    assert b"_not_allowed" in answer and "?.com" in answer.decode()


def _sent_as_it_is(server: Server, request: bytes, *headers: bytes) -> bytes:
    host = [] if any(header.startswith(b"Host:") for header in headers) else [b"Host: localhost"]
    address = urllib.parse.urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        lines = [request + b" HTTP/1.1", *host, *headers, b"Connection: close", b"", b""]
        connection.sendall(b"\r\n".join(lines))
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_other_origins_are_answered_only_when_allowed(guarded: Server) -> None:
    preflight = {"Access-Control-Request-Method": "POST"}
    allowed = guarded.request(
        "OPTIONS", "/v1/messages", headers=preflight | {"Origin": "https://page.example"}
    )
    assert allowed[0] == 204
    # Whatever headers a browser's client sends of its own.
    asked = "authorization,content-type,x-stainless-lang,anthropic-dangerous-direct-browser-access"
    headers = preflight | {"Origin": "https://page.example"}
    headers["Access-Control-Request-Headers"] = asked
    assert (
        guarded.request("OPTIONS", "/v1/messages", headers=headers)[2][
            "Access-Control-Allow-Headers"
        ]
        == asked
    )
    assert allowed[2]["Access-Control-Allow-Origin"] == "https://page.example"
    other = guarded.request(
        "OPTIONS", "/v1/messages", headers=preflight | {"Origin": "https://other.example"}
    )
    assert "Access-Control-Allow-Origin" not in other[2]
    got = guarded.request("GET", "/health", headers={"Origin": "https://page.example"})
    assert got[2]["Access-Control-Allow-Origin"] == "https://page.example"
    assert "x-should-retry" not in got[2]
    refused = guarded.request("GET", "/v1/models", headers={"Authorization": "Bearer wrong"})
    # Claude Code tries a key that is refused again for minutes otherwise.
    assert (refused[0], refused[2]["x-should-retry"]) == (401, "false")
    exposed = got[2]["Access-Control-Expose-Headers"].split(", ")
    # What the SDKs of browsers read: the id for reports, and when to try again.
    assert {"request-id", "x-request-id", "retry-after", "x-should-retry"} <= set(exposed)


@pytest.mark.parametrize("content_type", ["text/plain;charset=UTF-8", "multipart/form-data", ""])
def test_what_pages_elsewhere_send_unasked_is_not_done(guarded: Server, content_type: str) -> None:
    """Their browsers send such requests without a preflight."""
    headers = {"Authorization": "Bearer first", "Origin": "https://other.example"}
    headers["Content-Type"] = content_type
    body = b'{"model_id": "demo"}'

    def switch(headers: dict[str, str]) -> tuple[int, Any]:
        status, data, _ = guarded.request("POST", "/api/v1/models/switch", body, headers)
        return status, data

    status, data = switch(headers)
    assert (status, data["error"]["code"]) == (403, "origin_not_allowed")
    assert "https://other.example" in data["error"]["message"]
    for origin in ("https://page.example", guarded.url):
        assert switch(headers | {"Origin": origin})[0] == 200
    assert switch(headers | {"Content-Type": "application/json"})[0] == 200
    del headers["Origin"]
    assert switch(headers)[0] == 200


def test_a_page_that_has_its_own_name_lead_here_gets_nothing(server: Server) -> None:
    def get(host: str) -> tuple[int, Any]:
        status, data, _ = server.request("GET", "/api/v1/contexts", headers={"Host": host})
        return status, data

    status, data = get("evil.example:8000")
    assert (status, data["error"]["code"]) == (403, "host_not_allowed")
    assert "evil.example" in data["error"]["message"]
    names = (
        "localhost",
        "x",
        "LOCALHOST:1",
        "a.localhost",
        "host.docker.internal:8000",
        "127.0.0.1:80",
        "[::1]:80",
        "10.0.0.2",
    )
    for name in (*names, socket.gethostname()):
        assert get(name)[0] == 200, name
    address = server.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=60) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 200")


def test_other_names_are_answered_where_they_are_allowed_or_a_key_is_asked_for(
    guarded: Server,
) -> None:
    headers = {"Host": "gateway.example", "Authorization": "Bearer first"}
    assert guarded.request("GET", "/api/v1/models", headers=headers)[0] == 200
    server = Server("--cors-origin", "https://page.example").start(1)
    try:
        for host, expected in (("page.example", 200), ("other.example", 403)):
            status, _, _ = server.request("GET", "/api/v1/models", headers={"Host": host})
            assert status == expected
    finally:
        server.kill()
