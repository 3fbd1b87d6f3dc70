"""OpenAI's Responses API, stateless: requests in, answers and events out.

Reference: OpenAI API, "Create a model response" and "Streaming responses". Nothing is
kept: `previous_response_id` and `conversation` are refused.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from snapllm.conversation import (
    ContentPart,
    FunctionCall,
    FunctionDefinition,
    Message,
    MessageToolCall,
    Tool,
    ToolMode,
    offer_tools,
)
from snapllm.errors import InvalidRequestError
from snapllm.outputs import (
    ChatEvent,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from snapllm.params import UNLIMITED, ChatRequest, MaxTokens, Temperature, TopP
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.openai_sampling import sampling_options
from snapllm.protocol.openai_types import ModelName

_encode = msgspec.json.encode


class Reasoning(msgspec.Struct):
    """Whether the model thinks first."""

    effort: str | None = None


class TextFormat(msgspec.Struct):
    """The form the text must have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    schema: dict[str, Any] | None = None


class TextOptions(msgspec.Struct):
    """Options of the text."""

    format: TextFormat | None = None


class ToolDefinition(msgspec.Struct):
    """A tool; only functions are supported."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class NamedTool(msgspec.Struct):
    """A `tool_choice` of one tool."""

    name: str
    type: str = "function"


class InputItem(msgspec.Struct):
    """An item of the conversation so far; the fields of other types stay unset."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[dict[str, Any]] | None = None
    summary: list[dict[str, Any]] | None = None


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """The body of POST /v1/responses."""

    model: ModelName
    input: str | list[InputItem]
    instructions: str | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    stream: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    metadata: dict[str, str] | None = None
    logit_bias: None = None


_decoder = msgspec.json.Decoder(ResponsesRequest)


def parse(body: bytes) -> tuple[ChatRequest, ResponsesRequest]:
    """Reads the body of POST /v1/responses.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
    """
    wire = decode_body(body, _decoder)
    for name in ("previous_response_id", "conversation", "background"):
        if getattr(wire, name):
            raise InvalidRequestError(
                f"{name} is not supported: responses are not stored", param=name
            )
    tools, mode = _tools(wire)
    effort = wire.reasoning.effort if wire.reasoning else None
    request = ChatRequest(
        model=wire.model,
        messages=_messages(wire),
        tools=tools,
        tool_choice=mode,
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        thinking=effort is not None and effort not in ("none", "minimal"),
        json_schema=_json_schema(wire.text),
        sampling=sampling_options(wire, None),
        max_tokens=wire.max_output_tokens or UNLIMITED,
    )
    return request, wire


def _messages(wire: ResponsesRequest) -> list[Message]:
    messages: list[Message] = []
    if wire.instructions:
        messages.append(Message("system", wire.instructions))
    if isinstance(wire.input, str):
        return [*messages, Message("user", wire.input)]
    if not wire.input:
        raise InvalidRequestError("input must not be empty", param="input")
    for i, item in enumerate(wire.input):
        _add_item(messages, item, f"input[{i}]")
    return messages


def _add_item(messages: list[Message], item: InputItem, where: str) -> None:
    if item.type == "message":
        if item.role is None or item.content is None:
            raise InvalidRequestError(f"{where} needs a role and a content", param=where)
        messages.append(Message(item.role, _content(item.content, f"{where}.content")))
    elif item.type == "function_call":
        call = MessageToolCall(
            FunctionCall(item.name or "", item.arguments or ""), item.call_id or ""
        )
        last = messages[-1] if messages else None
        if last is not None and last.role == "assistant" and last.tool_calls:
            last.tool_calls.append(call)
        else:
            messages.append(Message("assistant", "", tool_calls=[call]))
    elif item.type == "function_call_output":
        output = item.output if item.output is not None else ""
        messages.append(
            Message("tool", _content(output, f"{where}.output"), tool_call_id=item.call_id or "")
        )
    elif item.type != "reasoning":
        raise InvalidRequestError(
            f"{where}: items of type {item.type!r} are not supported", param=f"{where}.type"
        )


def _content(content: str | list[dict[str, Any]], where: str) -> str | list[ContentPart]:
    if isinstance(content, str):
        return content
    parts: list[ContentPart] = []
    for i, part in enumerate(content):
        form: dict[str, Any] = dict(part)
        if form.get("type") == "input_image":
            form = {"type": "image_url", "image_url": {"url": form.get("image_url")}}
        try:
            parts.append(msgspec.convert(form, ContentPart))
        except msgspec.ValidationError as error:
            raise InvalidRequestError(f"{where}[{i}]: {error}", param=f"{where}[{i}]") from None
    return parts


def _tools(wire: ResponsesRequest) -> tuple[list[Tool], ToolMode]:
    tools = []
    for i, tool in enumerate(wire.tools or ()):
        if tool.type != "function":
            raise InvalidRequestError(
                f"tools[{i}]: tools of type {tool.type!r} are not supported",
                param=f"tools[{i}].type",
            )
        tools.append(Tool(FunctionDefinition(tool.name or "", tool.description, tool.parameters)))
    if isinstance(wire.tool_choice, NamedTool):
        return offer_tools(tools, "required", [wire.tool_choice.name])
    return offer_tools(tools, wire.tool_choice or "auto")


def _json_schema(text: TextOptions | None) -> str:
    form = text.format if text else None
    if form is None or form.type == "text":
        return ""
    if form.type == "json_schema" and form.schema is None:
        raise InvalidRequestError("text.format.schema is required", param="text.format.schema")
    return _encode(form.schema or {"type": "object"}).decode()


def _usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.num_prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.num_cached_tokens},
        "output_tokens": usage.num_generated_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.num_prompt_tokens + usage.num_generated_tokens,
    }


class ResponseStream:
    """Builds a response event by event; the whole response is what its end holds."""

    def __init__(self, wire: ResponsesRequest) -> None:
        self._sequence = -1
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._response: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(24)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": wire.instructions,
            "max_output_tokens": wire.max_output_tokens,
            "metadata": wire.metadata or {},
            "model": wire.model,
            "output": self._output,
            "parallel_tool_calls": wire.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": wire.reasoning.effort if wire.reasoning else None},
            "store": False,
            "temperature": wire.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": msgspec.to_builtins(wire.tool_choice or "auto"),
            "tools": [msgspec.to_builtins(tool) for tool in wire.tools or ()],
            "top_p": wire.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    @property
    def response(self) -> dict[str, Any]:
        """The response as it stands."""
        return self._response

    def start(self) -> Iterator[dict[str, Any]]:
        """The events that open the stream."""
        yield self._event("response.created", response=self._snapshot())
        yield self._event("response.in_progress", response=self._snapshot())

    def events(self, event: ChatEvent) -> Iterator[dict[str, Any]]:
        """The events of a chat event; the last ones for a `Finish`."""
        if isinstance(event, Finish):
            yield from self._close()
            yield from self._finish(event)
        elif isinstance(event, TextDelta):
            yield from self._open_item("message")
            yield from self._text(event.text)
        elif isinstance(event, ReasoningDelta):
            yield from self._open_item("reasoning")
            yield from self._reasoning(event.text)
        elif isinstance(event, ToolCallStart):
            yield from self._close()
            yield from self._open_item("function_call", call_id=event.id, name=event.name)
        else:
            yield from self._arguments(event)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence, **fields}

    def _snapshot(self) -> dict[str, Any]:
        return self._response | {"output": [dict(item) for item in self._output]}

    def _at(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": len(self._output) - 1}

    def _open_item(self, kind: str, **fields: Any) -> Iterator[dict[str, Any]]:
        if self._open is not None and self._open["type"] == kind and kind != "function_call":
            return
        yield from self._close()
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[kind]
        item: dict[str, Any] = {"id": f"{prefix}_{secrets.token_hex(24)}", "type": kind}
        if kind == "message":
            item |= {"status": "in_progress", "role": "assistant", "content": []}
        elif kind == "reasoning":
            item |= {"summary": [], "content": []}
        else:
            item |= {"status": "in_progress", "arguments": "", **fields}
        self._open = item
        self._output.append(item)
        index = len(self._output) - 1
        yield self._event("response.output_item.added", output_index=index, item=dict(item))
        if kind == "message":
            item["content"] = [
                {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            ]
            yield self._event(
                "response.content_part.added",
                **self._at(),
                content_index=0,
                part=dict(item["content"][0]),
            )
        elif kind == "reasoning":
            item["content"] = [{"type": "reasoning_text", "text": ""}]

    def _text(self, text: str) -> Iterator[dict[str, Any]]:
        assert self._open is not None
        self._open["content"][0]["text"] += text
        yield self._event(
            "response.output_text.delta", **self._at(), content_index=0, delta=text, logprobs=[]
        )

    def _reasoning(self, text: str) -> Iterator[dict[str, Any]]:
        assert self._open is not None
        self._open["content"][0]["text"] += text
        yield self._event(
            "response.reasoning_text.delta", **self._at(), content_index=0, delta=text
        )

    def _arguments(self, event: ToolCallDelta) -> Iterator[dict[str, Any]]:
        assert self._open is not None
        self._open["arguments"] += event.arguments
        yield self._event(
            "response.function_call_arguments.delta", **self._at(), delta=event.arguments
        )

    def _close(self) -> Iterator[dict[str, Any]]:
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
                logprobs=[],
            )
            yield self._event("response.content_part.done", **at, content_index=0, part=dict(part))
        elif item["type"] == "reasoning":
            text = item["content"][0]["text"]
            yield self._event("response.reasoning_text.done", **at, content_index=0, text=text)
        else:
            yield self._event(
                "response.function_call_arguments.done",
                **at,
                name=item["name"],
                arguments=item["arguments"],
            )
        if "status" in item:
            item["status"] = "completed"
        yield self._event(
            "response.output_item.done", output_index=at["output_index"], item=dict(item)
        )
        self._open = None

    def _finish(self, finish: Finish) -> Iterator[dict[str, Any]]:
        is_cut = finish.finish_reason == "length"
        self._response["status"] = "incomplete" if is_cut else "completed"
        if is_cut:
            self._response["incomplete_details"] = {"reason": "max_output_tokens"}
        self._response["usage"] = _usage_object(finish.usage)
        kind = "response.incomplete" if is_cut else "response.completed"
        yield self._event(kind, response=self._snapshot())


def encode_event(event: dict[str, Any]) -> bytes:
    """An event as it goes over the wire."""
    kind: str = event["type"]
    return b"event: " + kind.encode() + b"\ndata: " + _encode(event) + b"\n\n"


def encode_response(response: dict[str, Any]) -> bytes:
    """The body of an answer that is not streamed."""
    return _encode(response)
