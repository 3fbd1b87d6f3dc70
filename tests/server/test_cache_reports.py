"""What a request says of what it reused."""

from __future__ import annotations

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
