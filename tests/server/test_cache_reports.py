"""What a request says of what it reused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from server_process import Server

PROMPTS = {"one": "Say after me: one two three", "two": "Hello"}


def test_a_report_is_for_the_key_that_asked(locked_server: Server) -> None:
    """A client may choose its request's id, and another may choose the same."""
    keys = {key: {"Authorization": f"Bearer {key}"} for key in PROMPTS}
    for key, prompt in PROMPTS.items():
        for request_id in ("same", f"of-{key}"):
            body = {"model": "demo", "prompt": prompt, "max_tokens": 1}
            headers = keys[key] | {"x-request-id": request_id}
            locked_server.request("POST", "/api/v1/generate", body, headers)
    counts = []
    for key, other in (("one", "two"), ("two", "one")):
        path = "/api/v1/requests/{}/cache"
        _, found, _ = locked_server.request("GET", path.format("same"), None, keys[key])
        counts.append(found["answers"][0]["prompt_tokens"])
        status, _, _ = locked_server.request("GET", path.format(f"of-{other}"), None, keys[key])
        assert status == 404
    assert counts[0] > counts[1] > 0


def report_of(server: Server, path: str, body: dict[str, Any], request_id: str) -> Any:
    status, answer, headers = server.request("POST", path, body, {"x-request-id": request_id})
    assert status == 200
    found = server.get(f"/api/v1/requests/{request_id}/cache")
    return answer, headers, found["answers"]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_completions_say_what_each_of_their_prompts_reused(
    demo_server: Server, is_streamed: bool
) -> None:
    prompts = ["a", "a b c d e f g h", "a b c"]
    # The first ends last: reports come in the order of the answers all the same.
    body = {"model": "demo", "prompt": prompts, "n": 2, "max_tokens": 4, "stream": is_streamed}
    request_id = f"completions-{is_streamed}"
    answer, headers, reports = report_of(demo_server, "/v1/completions", body, request_id)
    counts = [report["prompt_tokens"] for report in reports]
    assert counts[0] == counts[1] < counts[4] == counts[5] < counts[2] == counts[3]
    if not is_streamed:
        total = sum(counts)
        assert headers["x-snapllm-cache"].endswith(f"prompt={total}")
        assert answer["usage"]["prompt_tokens"] == total // 2


def chunks_of(stream: str) -> list[Any]:
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]


def test_answers_of_a_stream_are_reported_in_their_order(demo_server: Server) -> None:
    for seed in range(20):
        body = {
            "model": "demo",
            "messages": [{"role": "user", "content": f"{seed} or more words. " * 20}],
            "n": 4,
            "seed": seed,
            "temperature": 2,
            "max_tokens": 60,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        stream, _, reports = report_of(demo_server, "/v1/chat/completions", body, f"chat-{seed}")
        chunks = chunks_of(stream)
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        ended = [choice["index"] for choice in choices if choice["finish_reason"]]
        # The first answer computes the prompt, the others have it from there.
        assert [report["computed_tokens"] for report in reports][1:] == [1] * 3
        assert reports[0]["computed_tokens"] > 1
        details = chunks[-1]["usage"]["prompt_tokens_details"]
        assert details["cached_tokens"] == reports[0]["cached_tokens"]
        if ended[0] != 0:
            break
    else:
        pytest.fail("the first answer ended first each time")
