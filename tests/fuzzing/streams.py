"""What streams of each protocol must be like, and the answers that they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fuzzing.client import Event
from fuzzing.shapes import LAST, PIECES

Texts = dict[str, str]
"""What an answer says, by where: the same whether it is streamed or not."""


def check_stream(endpoint: str, events: Sequence[Event]) -> str | None:
    """Checks that a stream is whole and of its protocol's form.

    Returns:
        The code of the error that it ends with; None where it ends well.
    """
    assert events, "no event at all"
    is_openai = endpoint in ("/v1/chat/completions", "/v1/completions")
    has_done = is_openai or endpoint.startswith("/api/")
    ends = [event.data == "[DONE]" for event in events]
    assert not any(ends[:-1]), "[DONE] is not the last event"
    pieces = [json.loads(event.data) for event in events if event.data != "[DONE]"]
    for event, piece in zip(events, pieces, strict=False):
        assert event.name in ("", piece.get("type")), f"{event.name} is a {piece.get('type')}"
    failure = pieces[-1].get("error") if pieces else None
    if failure is not None:
        assert not ends[-1], "[DONE] after an error"
        _check_pieces(endpoint, pieces[:-1])
        return str(failure["code"])
    assert ends[-1] == has_done, "the stream does not end as it should"
    _check_pieces(endpoint, pieces)
    _check_end(endpoint, pieces)
    return None


def _check_pieces(endpoint: str, pieces: Sequence[dict[str, Any]]) -> None:
    for piece in pieces:
        assert "error" not in piece or piece["error"] is None, "an error is not the last event"
        if piece.get("type") != "ping":
            PIECES[endpoint](piece)


def _check_end(endpoint: str, pieces: Sequence[dict[str, Any]]) -> None:
    types = [piece.get("type") for piece in pieces]
    if endpoint == "/v1/responses":
        assert types[0] == "response.created"
        assert types[-1] in ("response.completed", "response.incomplete", "response.failed")
        assert [piece["sequence_number"] for piece in pieces] == list(range(len(pieces)))
    elif endpoint == "/v1/messages":
        assert types[0] == "message_start"
        assert types[-2:] == ["message_delta", "message_stop"]
        assert types.count("content_block_start") == types.count("content_block_stop")
    elif endpoint == "/v1/images/generations":
        assert types[-1] == "image_generation.completed"
    elif endpoint.startswith("/api/"):
        assert [piece["done"] for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        LAST[endpoint](pieces[-1])
    else:
        choices = [choice for piece in pieces for choice in piece["choices"]]
        ended = [choice["index"] for choice in choices if choice["finish_reason"]]
        assert sorted(ended) == sorted({choice["index"] for choice in choices})


def whole_texts(endpoint: str, body: dict[str, Any]) -> Texts:
    """What an answer says that was not streamed."""
    texts: Texts = {}
    if endpoint == "/v1/chat/completions":
        for choice in body["choices"]:
            _add_message(texts, choice["index"], choice["message"])
            texts[f"{choice['index']} end"] = choice["finish_reason"]
    elif endpoint == "/v1/completions":
        for choice in body["choices"]:
            texts[f"{choice['index']}"] = choice["text"]
            texts[f"{choice['index']} end"] = choice["finish_reason"]
    elif endpoint == "/v1/responses":
        texts["end"] = body["status"]
        for i, item in enumerate(body["output"]):
            kept = {name: value for name, value in item.items() if name not in ("id", "call_id")}
            texts[f"{i}"] = json.dumps(kept, sort_keys=True)
    elif endpoint == "/v1/messages":
        texts["end"] = body["stop_reason"]
        for i, block in enumerate(body["content"]):
            if block["type"] != "tool_use":
                texts[f"{i} {block['type']}"] = block[block["type"]]
    else:
        texts = {name: body.get(name, "") for name in ("response", "reasoning", "finish_reason")}
    return texts


def _add_message(texts: Texts, index: int, message: dict[str, Any]) -> None:
    for name in ("content", "reasoning_content"):
        if message.get(name):
            key = f"{index} {name}"
            texts[key] = texts.get(key, "") + message[name]
    for i, call in enumerate(message.get("tool_calls") or ()):
        key = f"{index} call {call.get('index', i)}"
        called = call["function"]
        texts[key] = texts.get(key, "") + (called.get("name") or "") + called["arguments"]


def streamed_texts(endpoint: str, events: Sequence[Event]) -> Texts:
    """What a streamed answer says, put together of its pieces."""
    pieces = [json.loads(event.data) for event in events if event.data != "[DONE]"]
    if endpoint == "/v1/responses":
        return whole_texts(endpoint, pieces[-1]["response"])
    if endpoint == "/v1/messages":
        return _blocks(pieces)
    texts: Texts = {}
    if endpoint.startswith("/api/"):
        texts = whole_texts(endpoint, pieces[-1])
        told = "".join(piece["token"] for piece in pieces)
        assert told == texts["response"], "the tokens are not the response"
        return texts
    for choice in (choice for piece in pieces for choice in piece["choices"]):
        index = choice["index"]
        if "delta" in choice:
            _add_message(texts, index, choice["delta"])
        else:
            texts[f"{index}"] = texts.get(f"{index}", "") + choice["text"]
        if choice["finish_reason"]:
            texts[f"{index} end"] = choice["finish_reason"]
    return texts


def _blocks(pieces: Sequence[dict[str, Any]]) -> Texts:
    texts: Texts = {}
    kinds: dict[int, str] = {}
    for piece in pieces:
        if piece["type"] == "content_block_start":
            kinds[piece["index"]] = kind = piece["content_block"]["type"]
            if kind != "tool_use":
                texts[f"{piece['index']} {kind}"] = ""
        elif piece["type"] == "content_block_delta":
            key = f"{piece['index']} {kinds[piece['index']]}"
            if key in texts:
                texts[key] += piece["delta"].get(kinds[piece["index"]], "")
        elif piece["type"] == "message_delta":
            texts["end"] = piece["delta"]["stop_reason"]
    return texts
