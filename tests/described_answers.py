"""Answers are what the API's description says of them."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from snapllm.protocol.openapi_endpoints import ENDPOINTS, Endpoint

_BY_PATH = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", each.path)), each) for each in ENDPOINTS]


def _endpoint(method: str, path: str) -> Endpoint | None:
    path = path.partition("?")[0]
    # A path without a parameter goes before one with.
    found = (
        each
        for pattern, each in sorted(_BY_PATH, key=lambda pair: "{" in pair[1].path)
        if each.method == method.lower() and pattern.fullmatch(path)
    )
    return next(found, None)


def check_described(method: str, path: str, body: Any, *, is_anthropics: bool) -> None:
    """Checks that a good answer in JSON has the fields that it is described with, and no others.

    Args:
        method: Of the request.
        path: Of the request, or as the description has it.
        body: The answer.
        is_anthropics: Whether a client of Anthropic's asked.
    """
    described = _endpoint(method, path)
    if described is None:
        return
    kind = (is_anthropics and described.answer_to_anthropic) or described.answer
    assert _is_one(body, kind), f"{method} {path} is not described like this: {body}"


def check_described_stream(method: str, path: str, stream: str) -> None:
    """Checks that the data of each event of a stream is of a type that it is described with."""
    described = _endpoint(method, path)
    assert described is not None and described.stream is not None, f"{method} {path} is no stream"
    for data in re.findall(r"^data: (.*)$", stream, re.MULTILINE):
        if data != "[DONE]":
            event = json.loads(data)
            is_known = any(_is_one(event, kind) for kind in described.stream.kinds)
            assert is_known, f"{method} {path} is not described like this: {event}"


def _is_one(body: Any, kind: Any) -> bool:
    """Whether a value has the fields of a type, and no others."""
    try:
        return bool(msgspec.to_builtins(msgspec.convert(body, kind)) == body)
    except msgspec.ValidationError:
        return False
