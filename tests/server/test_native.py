"""The native API: generation and models, as the specification has them."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from nano_models import make_nano_model
from server_process import Server

PROMPT = {"prompt": "Hello", "model": "llama", "temperature": 0, "max_tokens": 20}


def stream(server: Server, path: str, body: dict[str, Any]) -> list[str]:
    """The data of all events of a streamed answer."""
    request = urllib.request.Request(
        server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        events = response.read().decode().split("\n\n")
    return [event.removeprefix("data: ") for event in events if event.startswith("data: ")]


def test_generate_answers_streamed_and_whole(server: Server) -> None:
    whole = server.post("/api/v1/generate", PROMPT)
    assert whole["status"] == "success"
    assert whole["model"] == "llama"
    assert whole["usage"]["generated_tokens"] == 20
    *pieces, end = stream(server, "/api/v1/generate", PROMPT | {"stream": True})
    assert end == "[DONE]"
    decoded = [json.loads(piece) for piece in pieces]
    assert "".join(piece["token"] for piece in decoded) == whole["response"]
    assert len(decoded) > 2
    assert [piece["done"] for piece in decoded] == [False] * (len(decoded) - 1) + [True]
    # Whoever reads the last event only has the same as without a stream.
    assert decoded[-1].keys() == whole.keys() | {"token", "done"}
    assert decoded[-1]["response"] == whole["response"]
    # The second finds what the first has computed.
    reused = {"cached_tokens": decoded[-1]["usage"]["cached_tokens"]}
    assert decoded[-1]["usage"] == whole["usage"] | reused


def test_a_raw_prompt_is_continued_without_the_template(server: Server) -> None:
    raw = server.post("/api/v1/generate", PROMPT | {"raw": True})
    assert (
        raw["usage"]["prompt_tokens"]
        < server.post("/api/v1/generate", PROMPT)["usage"]["prompt_tokens"]
    )


@pytest.mark.parametrize("given", [{"system": "Be brief."}, {"thinking": True}])
def test_a_raw_prompt_has_no_place_for_a_system_prompt_or_thoughts(
    server: Server, given: dict[str, object]
) -> None:
    raw = {"raw": True, "max_tokens": 2}
    for path, prompt in (("", {"prompt": "x"}), ("/batch", {"prompts": ["x"]})):
        status, answer, _ = server.request("POST", f"/api/v1/generate{path}", prompt | raw | given)
        assert (status, answer["error"]["param"]) == (400, *given)
        none = {"system": "", "thinking": False}
        assert server.post(f"/api/v1/generate{path}", prompt | raw | none)["status"] == "success"


def test_a_request_without_a_model_goes_to_the_active_one(server: Server) -> None:
    body = {"prompt": "Hello", "max_tokens": 2}
    assert server.post("/api/v1/generate", body)["model"] == "llama"
    server.post("/api/v1/models/switch", {"model_id": "qwen"})
    try:
        assert server.post("/api/v1/generate", body)["model"] == "qwen"
    finally:
        server.post("/api/v1/models/switch", {"model_id": "llama"})


def test_a_batch_answers_in_order(server: Server) -> None:
    prompts = ["two", "three", "four"]
    # Few enough tokens that none of them is a tie of two.
    common = {"model": "llama", "temperature": 0, "max_tokens": 8}
    batch = server.post("/api/v1/generate/batch", common | {"prompts": prompts})
    alone = [server.post("/api/v1/generate", common | {"prompt": p})["response"] for p in prompts]
    assert len(set(alone)) == len(alone)
    assert [result["response"] for result in batch["results"]] == alone


def test_a_batch_with_a_bad_option_is_refused_and_leaves_nothing_behind(server: Server) -> None:
    body = {"prompts": ["a", "b", "c"], "model": "llama", "repeat_penalty": 1e9}
    for _ in range(5):
        status, answer, _ = server.request("POST", "/api/v1/generate/batch", body)
        assert status == 400
        assert "repeat_penalty" in answer["error"]["message"]
    server.post("/api/v1/generate", PROMPT)
    assert not [line for line in server.lines if "never retrieved" in line]


def test_a_batch_is_not_streamed_and_says_so(server: Server) -> None:
    body = {"prompts": ["a"], "model": "llama", "max_tokens": 1}
    status, answer, _ = server.request("POST", "/api/v1/generate/batch", body | {"stream": True})
    assert (status, answer["error"]["param"]) == (400, "stream")
    for no in (False, None):
        assert server.post("/api/v1/generate/batch", body | {"stream": no})["results"]


@pytest.mark.parametrize("raw", [False, True])
def test_a_prompt_of_a_batch_that_is_too_long_is_named(server: Server, raw: bool) -> None:
    body = {"prompts": ["a", "b " * 5000, "c"], "model": "llama", "raw": raw}
    status, answer, _ = server.request("POST", "/api/v1/generate/batch", body)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert answer["error"]["param"] == "prompts[1]"


def test_models_are_loaded_listed_switched_and_unloaded(server: Server, tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "extra.gguf", seed=9)
    loaded = server.post("/api/v1/models/load", {"model_id": "extra", "file_path": str(path)})
    assert loaded["message"] == "Model loaded: extra"
    assert (loaded["status"], loaded["model"], loaded["model_type"], loaded["active"]) == (
        "success",
        "extra",
        "Text LLM",
        False,
    )
    assert loaded["load_time_ms"] > 0
    listing = server.get("/api/v1/models")
    assert (listing["total_loaded"], listing["active_model"]) == (3, "llama")
    entry = next(model for model in listing["models"] if model["id"] == "extra")
    assert {"id", "name", "type", "quantization", "size_gb", "active", "loaded_at"} <= set(entry)
    switched = server.post("/api/v1/models/switch", {"model_id": "extra"})
    assert switched["message"] == "Switched to model: extra"
    assert 0 <= switched["switch_time_ms"] < 50
    assert switched["state"] == "resident"
    server.post("/api/v1/models/switch", {"model_id": "llama"})
    unloaded = server.post("/api/v1/models/unload", {"model_id": "extra"})
    assert unloaded == {"status": "success", "message": "Model unloaded: extra"}
    assert server.get("/api/v1/models")["total_loaded"] == 2
    assert server.get("/api/v1/models/cache/stats")["stats"]["total_models_loaded"] == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/api/v1/generate", {"prompt": "x", "model": "nobody"}, 404, "model_not_found"),
        ("/api/v1/generate", {"prompt": ""}, 400, "invalid_request"),
        ("/api/v1/generate", {}, 400, "invalid_request"),
        ("/api/v1/generate", b"{", 400, "invalid_request"),
        ("/api/v1/generate", b"", 400, "invalid_request"),
        ("/api/v1/generate", {"prompt": "a" * 90_000}, 400, "context_length_exceeded"),
        ("/api/v1/models/switch", {"model_id": "nobody"}, 404, "model_not_found"),
        ("/api/v1/models/unload", {"model_id": "nobody"}, 404, "model_not_found"),
        ("/api/v1/models/load", {"model_id": "m", "file_path": "/no"}, 400, "file_not_found"),
        ("/api/v1/models/load", {"model_id": "m", "file_path": __file__}, 400, "invalid_model"),
        ("/api/v1/nothing", {}, 404, "not_found"),
        ("/v1/models", {}, 405, "method_not_allowed"),
    ],
)
def test_errors_have_the_specifications_shape(
    server: Server, path: str, body: Any, status: int, code: str
) -> None:
    found, answer, headers = server.request("POST", path, body)
    assert (found, answer["error"]["code"]) == (status, code)
    assert set(answer["error"]) >= {"type", "message", "code"}
    assert answer["error"]["message"]
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, "model"),
        ("/v1/completions", {"prompt": "x"}, "model"),
        ("/v1/responses", {"input": "x"}, "model"),
        ("/v1/embeddings", {"input": "x"}, "model"),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
            "model",
        ),
        ("/api/v1/generate", {"prompt": "x"}, "model"),
        ("/api/v1/generate", {"prompt": "x"}, "model_id"),
        ("/api/v1/generate/batch", {"prompts": ["x"], "raw": True}, "model_id"),
        ("/api/v1/contexts/ingest", {"content": "x"}, "model_id"),
        ("/api/v1/models/switch", {}, "model_id"),
    ],
)
def test_the_field_is_named_whose_model_is_not_there(
    server: Server, path: str, body: dict[str, Any], field: str
) -> None:
    status, answer, _ = server.request("POST", path, body | {field: "nobody"})
    assert (status, answer["error"]["param"]) == (404, field), answer


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/models/nobody", "model_id"),
        ("/api/v1/models/nobody", "model_id"),
        ("/api/v1/contexts/ctx_0", "context_id"),
        ("/api/v1/diffusion/jobs/img_0", "job_id"),
        ("/api/v1/requests/req_0/cache", "request_id"),
    ],
)
def test_a_part_of_a_path_that_names_nothing_is_named(
    server: Server, path: str, param: str
) -> None:
    status, answer, _ = server.request("GET", path)
    assert (status, answer["error"]["param"]) == (404, param), answer


def test_a_body_over_the_limit_is_refused(server: Server) -> None:
    status, answer, _ = server.request("POST", "/api/v1/generate", b" " * (65 << 20))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")
