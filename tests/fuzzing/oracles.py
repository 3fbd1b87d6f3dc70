"""What must be true of every answer, whatever was asked."""

from __future__ import annotations

import json
from typing import Any

from described_answers import check_described, check_described_stream

from fuzzing.client import TIME_LIMIT_S, Answer
from fuzzing.requests import STREAMED, Request
from fuzzing.shapes import EMBEDDED, WHOLE
from fuzzing.streams import check_stream, streamed_texts, whole_texts

_STATUSES = {
    "invalid_request": (400, 413, 415, 417),
    "context_length_exceeded": (400,),
    "previous_response_not_found": (400,),
    "thread_unsupported_request": (400,),
    "file_not_found": (400,),
    "invalid_model": (400,),
    "model_not_found": (404,),
    "context_not_found": (404,),
    "not_found": (404,),
    "method_not_allowed": (405,),
    "no_workspace": (409,),
    "generation_cancelled": (409,),
    "context_too_large": (413,),
    "request_too_large": (413,),
    "unsupported_encoding": (415,),
    "queue_full": (429,),
    "out_of_memory": (500,),
    "closed": (503,),
}
"""The codes that a client may cause, with their statuses. Others are faults."""

_DEPENDS_ON = {"tool_choice": "tools", "function_call.name": "functions"}
"""Fields that name what another field holds: they are at fault where that is gone."""

MAX_JSON_DEPTH = 100


def fault_of(request: Request, answer: Answer) -> str:
    """What is wrong with an answer; empty = nothing."""
    if answer.problem:
        return answer.problem
    if answer.seconds > TIME_LIMIT_S:
        return f"took {answer.seconds:.0f} s"
    if request.leaves:
        # What it says is not read; of its statuses one may be a client's doing.
        return "" if answer.status < 500 or answer.status == 503 else f"status {answer.status}"
    try:
        _check(request, answer)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _check(request: Request, answer: Answer) -> None:
    if request.method == "HEAD" or answer.status in (204, 304):
        assert answer.body == b"", "a body where there is none"
        assert answer.status < 500
    elif answer.status >= 400:
        _check_refusal(request, answer)
    elif request.endpoint:
        assert answer.status == 200, f"status {answer.status}"
        _check_success(request, answer)


def _check_success(request: Request, answer: Answer) -> None:
    if answer.media_type == "text/event-stream":
        assert request.endpoint in STREAMED, "a stream"
        code = check_stream(request.endpoint, answer.events())
        assert code is None or code in _STATUSES, f"the stream ends with {code}"
        check_described_stream(request.method, request.endpoint, answer.body.decode())
        return
    check = WHOLE.get(f"{request.method} {request.endpoint}")
    if check is None:
        known = ("text/plain", "application/octet-stream")
        assert answer.media_type in known, answer.media_type
        return
    assert answer.media_type == "application/json", answer.media_type
    body = answer.json()
    check(body)
    check_described(request.method, request.endpoint, body, is_anthropics=_is_anthropics(request))
    if request.endpoint == "/v1/embeddings" and isinstance(body["data"][0]["embedding"], list):
        EMBEDDED(body)


def _check_refusal(request: Request, answer: Answer) -> None:
    if _is_unread(answer):
        # It is no HTTP, or of an encoding that is not read.
        assert request.headers or not request.endpoint, answer.body
        return
    assert answer.media_type == "application/json", f"{answer.status} {answer.body[:200]!r}"
    error = _error_of(request, answer)
    code, message, param = error["code"], error["message"], error["param"]
    assert isinstance(message, str) and message, "no message"
    allowed = _STATUSES.get(code, ())
    assert answer.status in allowed, f"{answer.status} {code}: {message}"
    assert (answer.status in (429, 503)) == ("retry-after" in answer.headers)
    if answer.status == 400:
        _check_named(request, message, param)


def _is_unread(answer: Answer) -> bool:
    """Whether not even the path was known, and which API the answer is of."""
    if answer.status not in (400, 415) or answer.media_type != "application/json":
        return False
    body = answer.json()
    message = body["error"]["message"]
    if not message.startswith("the request cannot be read: "):
        return False
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"]
    return True


def _error_of(request: Request, answer: Answer) -> dict[str, Any]:
    body = answer.json()
    path = request.path.removeprefix("http://x")
    if path.startswith("/v1/messages") or _is_anthropics(request):
        assert body["type"] == "error"
        assert body["request_id"] == answer.headers["request-id"]
    else:
        assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert {"type", "message", "code", "param"} <= error.keys()
    return error


def _is_anthropics(request: Request) -> bool:
    path = request.path.removeprefix("http://x")
    has_header = "anthropic-version" in {name.lower() for name in request.headers}
    return path.startswith("/v1/") and has_header


def _check_named(request: Request, message: str, param: str | None) -> None:
    """Checks that a refusal says which field is at fault."""
    if request.method != "POST" or not request.body or not _is_readable(request.body):
        return
    if request.endpoint == "/api/v1/contexts/import":
        return  # its body has no fields
    if request.headers:
        return  # what they make of the body is another matter
    assert param, f"no field is named: {message}"
    if message.startswith("prompt is too long"):
        return  # all that is in it makes it so: tools, for example
    # Which models and answers there are is a matter of other requests.
    if request.changed and param not in ("previous_response_id", "model_id", "model"):
        told = f"{param} {message} {_DEPENDS_ON.get(param, '')}"
        assert any(name.removesuffix("_path") in told for name in request.changed), (
            f"{'.'.join(request.changed)} was changed, but {param} is refused: {message}"
        )


def _is_readable(body: bytes) -> bool:
    """Whether a body is a JSON object, of texts that are Unicode and not too deep."""

    def refuse(_: str) -> None:
        raise ValueError

    try:
        value = json.loads(body, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and _depth(value) <= MAX_JSON_DEPTH


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for one in inner for each in one if isinstance(each, dict | list)]
    return depth


def twin_fault(request: Request, whole: Answer, streamed: Answer) -> str:
    """How a streamed answer differs from the whole one to the same request."""
    if whole.problem or streamed.problem or (whole.status, streamed.status) != (200, 200):
        return ""
    try:
        events = streamed.events()
        if check_stream(request.endpoint, events) is not None:
            return ""
        expected = whole_texts(request.endpoint, whole.json())
        found = streamed_texts(request.endpoint, events)
        assert found == expected, f"streamed {found} but whole {expected}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
