"""Anthropic's Messages API: answers, events and errors out.

Reference: Anthropic API, "Create a Message", "Streaming Messages", "Errors".
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from snapllm.outputs import (
    ChatEvent,
    ChatResult,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolCallStart,
    Usage,
)
from snapllm.params import ChatRequest
from snapllm.protocol.anthropic import Parsed
from snapllm.protocol.anthropic_conversation import TOOL_ID_PREFIX
from snapllm.protocol.anthropic_refusals import ThreadsUnsupportedError
from snapllm.protocol.carried_reasoning import encode_reasoning
from snapllm.protocol.error_codes import ApiError

if TYPE_CHECKING:
    from snapllm.protocol.anthropic_answer_types import (
        AnthropicError,
        AnthropicErrorObject,
        AppliedEdits,
        MessageAnswer,
        MessageBlock,
        MessageUsage,
        TokenCountAnswer,
    )

_encode = msgspec.json.encode
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
# What is cut from a conversation, where the client allows that.
_NO_EDITS: AppliedEdits = {"applied_edits": []}
# Anthropic's own codes, on which its clients act.
_DETAILED = (ThreadsUnsupportedError.code,)


def encode_event(name: str, data: Mapping[str, Any]) -> bytes:
    """An event of a stream as it goes over the wire."""
    return b"event: " + name.encode() + b"\ndata: " + _encode(data) + b"\n\n"


PING = encode_event("ping", {"type": "ping"})


def error_object(error: ApiError, request_id: str) -> AnthropicError:
    """An error in Anthropic's shape, with the API's own code and the field at fault."""
    body: AnthropicErrorObject = {
        "type": _ERROR_TYPES.get(error.status, "api_error"),
        "message": error.message,
        "code": error.code,
        "param": error.param,
    }
    if error.code in _DETAILED:
        body["details"] = {"error_code": error.code}
    return {"type": "error", "error": body, "request_id": request_id}


def _stop(finish: Finish | ChatResult, request: ChatRequest) -> tuple[str, str | None]:
    """Stop reason and stop sequence; the template's own stop strings are no news."""
    if finish.finish_reason == "tool_calls":
        return "tool_use", None
    if finish.finish_reason == "length":
        is_whole = finish.usage.num_generated_tokens >= request.max_tokens
        return "max_tokens" if is_whole else "model_context_window_exceeded", None
    if finish.stop_sequence is not None and finish.stop_sequence in request.stop:
        return "stop_sequence", finish.stop_sequence
    return "end_turn", None


def signature(thinking: str, *, is_omitted: bool = False) -> str:
    """What a thinking block is signed with: where its text is omitted that text, so that the model
    has it again in the client's next request."""
    if is_omitted:
        return encode_reasoning(thinking)
    return base64.b64encode(hashlib.sha256(thinking.encode()).digest()).decode()


def _tool_input(arguments: str) -> dict[str, Any]:
    """The arguments as an object; an empty one where an answer that was cut off has none.

    They are written as they are: a stream has the same, and not all that JSON may hold (half of a
    surrogate pair, numbers of any size) can be decoded and encoded again.
    """
    try:
        is_object = isinstance(json.loads(arguments, parse_int=float), dict)
    except (ValueError, RecursionError):
        is_object = False
    return cast(dict[str, Any], msgspec.Raw(arguments.encode())) if is_object else {}


class Answer:
    """Writes the answer to one request.

    Args:
        parsed: The request as it was read.
        num_marked_tokens: Tokens of the prompt up to the last cache_control; 0 = none.
        num_hour_tokens: Those of them up to the last one of an hour; 0 = none.
    """

    def __init__(
        self, parsed: Parsed, num_marked_tokens: int = 0, num_hour_tokens: int = 0
    ) -> None:
        self.id = f"msg_{secrets.token_hex(12)}"
        self._parsed = parsed
        self._num_marked_tokens = num_marked_tokens
        self._num_hour_tokens = num_hour_tokens

    def usage(self, usage: Usage) -> MessageUsage:
        """Token counts; those of the prompt are disjoint, as Anthropic has them."""
        created = max(0, self._num_marked_tokens - usage.num_cached_tokens)
        for_an_hour = max(0, self._num_hour_tokens - usage.num_cached_tokens)
        return {
            "input_tokens": usage.num_prompt_tokens - usage.num_cached_tokens - created,
            "cache_creation_input_tokens": created,
            "cache_read_input_tokens": usage.num_cached_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": created - for_an_hour,
                "ephemeral_1h_input_tokens": for_an_hour,
            },
            "output_tokens": usage.num_generated_tokens,
            "output_tokens_details": {"thinking_tokens": usage.num_reasoning_tokens},
            "service_tier": "standard",
        }

    def message(self, result: ChatResult) -> bytes:
        """The body of an answer that is not streamed."""
        content: list[MessageBlock] = []
        if result.reasoning:
            content.append(
                {
                    "type": "thinking",
                    "thinking": "" if self._parsed.omits_thinking else result.reasoning,
                    "signature": signature(
                        result.reasoning, is_omitted=self._parsed.omits_thinking
                    ),
                }
            )
        if result.content:
            content.append({"type": "text", "text": result.content})
        content += [
            {
                "type": "tool_use",
                "id": TOOL_ID_PREFIX + call.id,
                "name": call.name,
                "input": _tool_input(call.arguments),
            }
            for call in result.tool_calls
        ]
        if not content and self._parsed.request.max_tokens > 0:
            content.append({"type": "text", "text": ""})  # clients read the first
        reason, sequence = _stop(result, self._parsed.request)
        body: MessageAnswer = {
            **self._head(content, self.usage(result.usage)),
            "stop_reason": reason,
            "stop_sequence": sequence,
        }
        if self._parsed.may_edit:
            body["context_management"] = _NO_EDITS
        return _encode(body)

    def _head(self, content: list[MessageBlock], usage: MessageUsage) -> MessageAnswer:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self._parsed.request.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def start(self, num_prompt_tokens: int, num_cached_tokens: int) -> bytes:
        """The events that open a stream.

        They tell what was cached, since clients keep these counts beside those of the end.
        """
        usage = Usage(num_prompt_tokens=num_prompt_tokens, num_cached_tokens=num_cached_tokens)
        message = self._head([], self.usage(usage))
        return encode_event("message_start", {"type": "message_start", "message": message}) + PING

    def end(self, finish: Finish) -> bytes:
        """The events that close a stream."""
        reason, sequence = _stop(finish, self._parsed.request)
        delta: dict[str, Any] = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": self.usage(finish.usage),
        }
        if self._parsed.may_edit:
            delta["context_management"] = _NO_EDITS
        return encode_event("message_delta", delta) + encode_event(
            "message_stop", {"type": "message_stop"}
        )


def count_object(parsed: Parsed, num_tokens: int) -> bytes:
    """The body of an answer of POST /v1/messages/count_tokens."""
    count: TokenCountAnswer = {"input_tokens": num_tokens}
    if parsed.may_edit:
        count["context_management"] = {"original_input_tokens": num_tokens}
    return _encode(count)


class BlockStream:
    """Turns the events of a chat into the events of content blocks.

    Args:
        omits_thinking: Leave the text of thinking blocks empty.
        is_answered: Whether there is a block at least, as clients read the first.
    """

    def __init__(self, *, omits_thinking: bool = False, is_answered: bool = True) -> None:
        self._omits_thinking = omits_thinking
        self._is_answered = is_answered
        self._index = -1
        self._type: str | None = None
        self._thinking: list[str] = []

    def events(self, event: ChatEvent) -> bytes:
        """The block events of a chat event, if any; those that close the last for a `Finish`."""
        if isinstance(event, Finish):
            is_empty = self._is_answered and self._index < 0
            opened = self._open("text", {"type": "text", "text": ""}) if is_empty else b""
            return opened + self._close()
        if isinstance(event, TextDelta):
            opened = self._open("text", {"type": "text", "text": ""})
            return opened + self._delta({"type": "text_delta", "text": event.text})
        if isinstance(event, ReasoningDelta):
            opened = self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._thinking.append(event.text)
            if self._omits_thinking:
                return opened
            return opened + self._delta({"type": "thinking_delta", "thinking": event.text})
        if isinstance(event, ToolCallStart):
            block = {
                "type": "tool_use",
                "id": TOOL_ID_PREFIX + event.id,
                "name": event.name,
                "input": {},
            }
            opened = self._close() + self._open("tool_use", block)
            return opened + self._delta({"type": "input_json_delta", "partial_json": ""})
        return self._delta({"type": "input_json_delta", "partial_json": event.arguments})

    def _open(self, kind: str, block: dict[str, Any]) -> bytes:
        if self._type == kind:
            return b""
        closed = self._close()
        self._index += 1
        self._type = kind
        return closed + encode_event(
            "content_block_start",
            {"type": "content_block_start", "index": self._index, "content_block": block},
        )

    def _delta(self, delta: dict[str, Any]) -> bytes:
        data = {"type": "content_block_delta", "index": self._index, "delta": delta}
        return encode_event("content_block_delta", data)

    def _close(self) -> bytes:
        if self._type is None:
            return b""
        signed = b""
        if self._type == "thinking":
            text = "".join(self._thinking)
            self._thinking.clear()
            sign = signature(text, is_omitted=self._omits_thinking)
            signed = self._delta({"type": "signature_delta", "signature": sign})
        self._type = None
        return signed + encode_event(
            "content_block_stop", {"type": "content_block_stop", "index": self._index}
        )
