"""OpenAI's Responses API: answers and events out.

Reference: OpenAI API, "Create a model response" and "Streaming responses".
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from snapllm.outputs import (
    ChatEvent,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from snapllm.protocol.carried_reasoning import encode_reasoning
from snapllm.protocol.custom_tools import TextReader
from snapllm.protocol.error_codes import ApiError
from snapllm.protocol.openai_logprobs import logprob_objects
from snapllm.protocol.openai_sampling import sampling_options
from snapllm.protocol.responses_items import ID_PREFIXES
from snapllm.protocol.responses_tools import ClientTool, echo
from snapllm.protocol.responses_types import (
    Reasoning,
    ResponsesRequest,
    ResponsesToolChoice,
    TextFormat,
    TextOptions,
)

if TYPE_CHECKING:
    from snapllm.protocol.responses_answer_types import (
        ResponseAnswer,
        ResponseItem,
        ResponseUsage,
    )

_encode = msgspec.json.encode


def _usage_object(usage: Usage) -> ResponseUsage:
    return {
        "input_tokens": usage.num_prompt_tokens,
        # What is written to a cache costs nothing here.
        "input_tokens_details": {"cached_tokens": usage.num_cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.num_generated_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.num_reasoning_tokens},
        "total_tokens": usage.num_prompt_tokens + usage.num_generated_tokens,
    }


def _given(value: Any) -> Any:
    """Of a request's field, what the client gave."""
    if isinstance(value, list):
        return [_given(each) for each in value]
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.asdict(value).items()
        return {name: _given(each) for name, each in fields if each is not None}
    return value


def _text_options(given: TextOptions | None) -> dict[str, Any]:
    """The options of the text, with a form in any case."""
    options = given or TextOptions()
    told: dict[str, Any] = _given(options)
    return {"format": _given(options.format or TextFormat())} | told


def _tool_choice(given: str | ResponsesToolChoice | None) -> str | dict[str, Any]:
    """Which tools may be called; where these are several, with a mode in any case."""
    if not isinstance(given, ResponsesToolChoice):
        return given or "auto"
    choice: dict[str, Any] = _given(given)
    return {"mode": "auto"} | choice if given.type == "allowed_tools" else choice


class _Place(NamedTuple):
    """Where an item's text stands, and what the events call it."""

    field: str
    part: str
    index_name: str
    part_event: str
    text_event: str


_CONTENT = _Place(
    "content", "reasoning_text", "content_index", "response.content_part", "response.reasoning_text"
)
_SUMMARY = _Place(
    "summary",
    "summary_text",
    "summary_index",
    "response.reasoning_summary_part",
    "response.reasoning_summary_text",
)


class ResponseStream:
    """Builds a response event by event; the whole response is what its end holds."""

    def __init__(self, wire: ResponsesRequest, tools: Sequence[ClientTool] = ()) -> None:
        self._tools = {tool.shown_name: tool for tool in tools}
        wished = wire.reasoning or Reasoning()
        has_summary = wished.summary or wished.generate_summary
        self._reasoning_at = _SUMMARY if has_summary else _CONTENT
        self._carries_reasoning = wire.includes("reasoning.encrypted_content")
        self._sequence = -1
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._text_reader = TextReader()
        sampling = sampling_options(wire, None)
        self._response: ResponseAnswer = {
            "id": f"resp_{secrets.token_hex(24)}",
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": _given(wire.instructions),
            "max_output_tokens": wire.max_output_tokens,
            "max_tool_calls": wire.max_tool_calls,
            "metadata": wire.metadata or {},
            "model": wire.model,
            "output": cast("list[ResponseItem]", self._output),
            "parallel_tool_calls": wire.parallel_tool_calls is not False,
            "previous_response_id": wire.previous_response_id or None,
            "prompt_cache_key": wire.prompt_cache_key,
            "reasoning": msgspec.structs.asdict(wire.reasoning or Reasoning()),
            "safety_identifier": wire.safety_identifier,
            "service_tier": "default",  # whatever was asked for
            "store": wire.store is not False,
            "temperature": sampling.temperature,
            "text": _text_options(wire.text),
            "tool_choice": _tool_choice(wire.tool_choice),
            "tools": echo(wire.tools or ()),
            "top_logprobs": wire.top_logprobs or 0,
            "top_p": sampling.top_p,
            "truncation": wire.truncation or "disabled",
            "usage": None,
            "user": wire.user,
        }

    @property
    def response(self) -> ResponseAnswer:
        """The response as it stands."""
        return self._response

    def start(self) -> Iterator[dict[str, Any]]:
        """The events that open the stream."""
        yield self._event("response.created", response=self._snapshot())
        yield self._event("response.in_progress", response=self._snapshot())

    def events(self, event: ChatEvent) -> Iterator[dict[str, Any]]:
        """The events of a chat event; the last ones for a `Finish`."""
        if isinstance(event, Finish):
            is_cut = event.finish_reason == "length"
            yield from self._close("incomplete" if is_cut else "completed")
            yield from self._finish(event)
        elif isinstance(event, TextDelta):
            yield from self._open_item("message")
            yield from self._text(event)
        elif isinstance(event, ReasoningDelta):
            yield from self._open_item("reasoning")
            yield from self._reasoning(event.text)
        elif isinstance(event, ToolCallStart):
            yield from self._close()
            yield from self._open_call(event)
        elif self._open is not None and self._open["type"] == "custom_tool_call":
            yield from self._input(self._text_reader.read(event.arguments))
        else:
            yield from self._arguments(event)

    def failed(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """The last events of a response that could not be finished. The code is in the first; the
        response's own can only be one that OpenAI has."""
        yield self._event("error", code=error.code, message=error.message, param=error.param)
        self._response["status"] = "failed"
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        self._response["error"] = {"code": code, "message": error.message}
        if self._open is not None:
            self._open["status"] = "incomplete"
        yield self._event("response.failed", response=self._snapshot())

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence, **fields}

    def _snapshot(self) -> dict[str, Any]:
        return {**self._response, "output": [dict(item) for item in self._output]}

    def _at(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": len(self._output) - 1}

    def _at_reasoning(self) -> dict[str, Any]:
        return self._at() | {self._reasoning_at.index_name: 0}

    def _open_item(self, kind: str, **fields: Any) -> Iterator[dict[str, Any]]:
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self._close()
        item: dict[str, Any] = {"id": f"{ID_PREFIXES[kind]}_{secrets.token_hex(24)}", "type": kind}
        item["status"] = "in_progress"
        if kind == "message":
            item |= {"role": "assistant", "content": []}
        elif kind == "reasoning":
            item |= {"summary": [], "content": []}
            if self._carries_reasoning:  # some clients keep it only where it is there from here on
                item["encrypted_content"] = encode_reasoning("")
        else:
            item |= fields
        self._open = item
        self._output.append(item)
        index = len(self._output) - 1
        yield self._event("response.output_item.added", output_index=index, item=dict(item))
        if kind == "message":
            item["content"] = [
                {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            ]
            part = dict(item["content"][0])
            yield self._event(
                "response.content_part.added", **self._at(), content_index=0, part=part
            )
        elif kind == "reasoning":
            place = self._reasoning_at
            item[place.field] = [{"type": place.part, "text": ""}]
            yield self._event(
                f"{place.part_event}.added", **self._at_reasoning(), part=dict(item[place.field][0])
            )

    def _open_call(self, start: ToolCallStart) -> Iterator[dict[str, Any]]:
        """Opens a call of what the client defined, whatever the model sees of it."""
        tool = self._tools.get(start.name)
        fields: dict[str, Any] = {"call_id": start.id, "name": tool.name if tool else start.name}
        if tool is not None and tool.namespace is not None:
            fields["namespace"] = tool.namespace
        if tool is not None and tool.type == "custom":
            self._text_reader = TextReader()
            yield from self._open_item("custom_tool_call", **fields, input="")
        else:
            yield from self._open_item("function_call", **fields, arguments="")

    def _text(self, delta: TextDelta) -> Iterator[dict[str, Any]]:
        assert self._open is not None
        part = self._open["content"][0]
        logprobs = logprob_objects(delta.logprobs)
        part["text"] += delta.text
        part["logprobs"] += logprobs
        yield self._event(
            "response.output_text.delta",
            **self._at(),
            content_index=0,
            delta=delta.text,
            logprobs=logprobs,
        )

    def _reasoning(self, text: str) -> Iterator[dict[str, Any]]:
        assert self._open is not None
        place = self._reasoning_at
        self._open[place.field][0]["text"] += text
        yield self._event(f"{place.text_event}.delta", **self._at_reasoning(), delta=text)

    def _arguments(self, event: ToolCallDelta) -> Iterator[dict[str, Any]]:
        assert self._open is not None
        self._open["arguments"] += event.arguments
        yield self._event(
            "response.function_call_arguments.delta", **self._at(), delta=event.arguments
        )

    def _input(self, text: str) -> Iterator[dict[str, Any]]:
        assert self._open is not None
        if text:
            self._open["input"] += text
            yield self._event("response.custom_tool_call_input.delta", **self._at(), delta=text)

    def _close(self, status: str = "completed") -> Iterator[dict[str, Any]]:
        item = self._open
        if item is None:
            return
        at = self._at()
        if item["type"] == "message":
            part = item["content"][0]
            yield self._event(
                "response.output_text.done",
                **at,
                content_index=0,
                text=part["text"],
                logprobs=part["logprobs"],
            )
            yield self._event("response.content_part.done", **at, content_index=0, part=dict(part))
        elif item["type"] == "reasoning":
            place, at_text = self._reasoning_at, self._at_reasoning()
            part = item[place.field][0]
            if self._carries_reasoning:
                item["encrypted_content"] = encode_reasoning(part["text"])
            yield self._event(f"{place.text_event}.done", **at_text, text=part["text"])
            yield self._event(f"{place.part_event}.done", **at_text, part=dict(part))
        elif item["type"] == "custom_tool_call":
            yield from self._input(self._text_reader.rest())
            yield self._event("response.custom_tool_call_input.done", **at, input=item["input"])
        else:
            yield self._event(
                "response.function_call_arguments.done",
                **at,
                name=item["name"],
                arguments=item["arguments"],
            )
        item["status"] = status
        yield self._event(
            "response.output_item.done", output_index=at["output_index"], item=dict(item)
        )
        self._open = None

    def _finish(self, finish: Finish) -> Iterator[dict[str, Any]]:
        is_cut = finish.finish_reason == "length"
        self._response["status"] = "incomplete" if is_cut else "completed"
        if is_cut:
            self._response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self._response["completed_at"] = int(time.time())
        self._response["usage"] = _usage_object(finish.usage)
        kind = "response.incomplete" if is_cut else "response.completed"
        yield self._event(kind, response=self._snapshot())


def encode_event(event: dict[str, Any]) -> bytes:
    """An event as it goes over the wire."""
    kind: str = event["type"]
    return b"event: " + kind.encode() + b"\ndata: " + _encode(event) + b"\n\n"


def encode_response(response: ResponseAnswer) -> bytes:
    """The body of an answer that is not streamed."""
    return _encode(response)
