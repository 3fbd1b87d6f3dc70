"""Messages and tools of a conversation, in the OpenAI chat form.

The one definition of what a message may look like, shared by `Model.chat` and the
protocols, and the one place that turns messages and tools into what the chat
template gets to see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from snapllm._checks import check_text
from snapllm._files import InputFile, file_text
from snapllm._json import check_sizes, encode_json, plain_json
from snapllm._schemas import enforceable
from snapllm.errors import InvalidRequestError

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
ToolMode: TypeAlias = Literal["auto", "required", "one", "none"]
"""Whether tools are called; "one" = exactly one call, as where a tool is chosen by its name."""
ImageDetail: TypeAlias = Literal["auto", "low", "high", "original"]
"""A hint of OpenAI's, which changes nothing: the model's projector decides."""


class ImageUrl(msgspec.Struct, omit_defaults=True):
    """Where an image is: a data URL, or an http(s) URL."""

    url: str
    detail: ImageDetail | None = None


class InputAudio(msgspec.Struct):
    """A sound file in base64."""

    data: str
    format: Literal["wav", "mp3"]


class ContentPart(msgspec.Struct, omit_defaults=True):
    """A part of a message's content: a text, a refusal, a text file, an image or a sound."""

    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None
    input_audio: InputAudio | None = None
    refusal: str | None = None
    file: InputFile | None = None


class MediaPart(ContentPart):
    """An image that is not part of a message as the caller wrote it. Never read from a
    request's body."""

    name: str = ""
    """What to call it in an error."""
    source: Any = None
    """A path, bytes, an array or a Pillow image; None = see `image_url`."""
    refusal: str = ""
    """What an error about it begins with, where its API's clients look for certain words."""


class FunctionCall(msgspec.Struct):
    """The function of a tool call and its arguments (JSON text, or an object)."""

    name: str
    arguments: str | dict[str, Any] | None = ""


class TextCall(msgspec.Struct):
    """The custom tool of a call and the text that it was given."""

    name: str
    input: str


class MessageToolCall(msgspec.Struct):
    """A tool call that an earlier answer made: of a function, or of a custom tool."""

    function: FunctionCall | None = None
    id: str = ""
    type: Literal["function", "custom"] = "function"
    custom: TextCall | None = None


class Message(msgspec.Struct, omit_defaults=True):
    """One message of a conversation."""

    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    """What an answer said in place of a content."""
    prefix: bool | None = None
    """Whether the answer goes on from it; as DeepSeek's and Mistral's APIs have it."""


class FunctionDefinition(msgspec.Struct, omit_defaults=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    """A tool that the model may call."""

    function: FunctionDefinition
    type: Literal["function"] = "function"


TEXT_PARAMETER = "input"


def text_tool(name: str, description: str | None = None) -> Tool:
    """A custom tool, which takes any text: to the model, a function of one parameter."""
    parameters = {
        "type": "object",
        "properties": {TEXT_PARAMETER: {"type": "string"}},
        "required": [TEXT_PARAMETER],
    }
    return Tool(FunctionDefinition(name, description, parameters))


PlaceMedia: TypeAlias = Callable[[ContentPart, str], str]
"""Loads the image or sound of a part and returns the marker that stands for it; is given
what to call the part in an error, too."""


def render_messages(messages: Sequence[Message], place: PlaceMedia, field: str = "messages") -> str:
    """Returns the messages as the JSON array that the chat template is given.

    Raises:
        InvalidRequestError: A message is incomplete or holds what is not supported.
    """
    if not messages:
        raise InvalidRequestError(f"{field} must not be empty", param=field)
    ordered = _results_by_call(enumerate(messages))
    rendered = [_render(message, place, f"{field}[{i}]") for i, message in ordered]
    return encode_json(rendered, field)


def _results_by_call(messages: Iterable[tuple[int, Message]]) -> Iterator[tuple[int, Message]]:
    """The messages with their numbers, the results of an answer's calls in the order of these: not
    every template shows which call a result is of."""
    order: dict[str | None, int] = {}
    for is_result, run in groupby(messages, lambda each: each[1].role == "tool"):
        if is_result:
            yield from sorted(run, key=lambda each: order.get(each[1].tool_call_id, len(order)))
            continue
        for number, message in run:
            yield number, message
            order = {call.id: i for i, call in enumerate(message.tool_calls or ())}


def _render(message: Message, place: PlaceMedia, where: str) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    content = _content(message, place, f"{where}.content") or message.refusal or ""
    result: dict[str, Any] = {"role": role, "content": content}
    if message.reasoning_content:
        result["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        if role != "assistant":
            raise InvalidRequestError(
                f"{where}.tool_calls: only assistant messages may have tool calls",
                param=f"{where}.tool_calls",
            )
        result["tool_calls"] = [
            _render_call(call, f"{where}.tool_calls[{i}]")
            for i, call in enumerate(message.tool_calls)
        ]
    if role == "tool":
        if message.tool_call_id is None:
            raise InvalidRequestError(
                f"{where}.tool_call_id is required in a tool message",
                param=f"{where}.tool_call_id",
            )
        result["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        result["name"] = message.name
    return result


MEDIA_TYPES = ("image_url", "input_audio")
"""The parts of a request's body that are no text."""


def is_media(part: ContentPart) -> bool:
    """Whether a part shows an image or holds a sound."""
    return part.type in (*MEDIA_TYPES, "image")


def is_begun(messages: Sequence[Message]) -> bool:
    """Whether the last message is a text of the assistant's, which an answer can go on from."""
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or last.tool_calls:
        return False
    if isinstance(last.content, list):
        return bool(last.content) and all(part.text for part in last.content)
    return bool(last.content)


def continues(
    messages: Sequence[Message], wanted: bool | None, mode: ToolMode, json_schema: str
) -> bool:
    """Whether an answer is the rest of the last message.

    Args:
        messages: The conversation.
        wanted: Whether the caller says so; None = where the last message does.
        mode: Whether tools are called.
        json_schema: What the answer must match, or "".

    Raises:
        InvalidRequestError: It is wanted, and cannot be.
    """
    field = "continue_final_message"
    if wanted is None:
        wanted = bool(messages and messages[-1].prefix)
        field = f"messages[{len(messages) - 1}].prefix"
    if not wanted:
        return False
    fault = ""
    if not is_begun(messages):
        fault = "the last message must be a text of the assistant's"
    elif json_schema or mode in ("required", "one"):
        fault = "an answer that must be a call, or match a schema, has its own beginning"
    if fault:
        raise InvalidRequestError(f"{field}: {fault}", param=field)
    return True


def add_media(messages: Sequence[Message], media: Sequence[ContentPart]) -> None:
    """Shows media at the beginning of the last user message.

    Raises:
        InvalidRequestError: There is no user message.
    """
    if not media:
        return
    last = next((message for message in reversed(messages) if message.role == "user"), None)
    if last is None:
        raise InvalidRequestError("images: there is no user message to show them", param="images")
    own = last.content
    parts = own if isinstance(own, list) else [ContentPart("text", own or "")]
    last.content = [*media, *parts]


def has_media(messages: Sequence[Message]) -> bool:
    """Whether any message shows an image or holds a sound."""
    return any(
        is_media(part)
        for message in messages
        if isinstance(message.content, list)
        for part in message.content
    )


def _content(message: Message, place: PlaceMedia, where: str) -> str | list[dict[str, str]]:
    """The content as text, or as a list of parts where some of them are media."""
    parts = message.content
    if not isinstance(parts, list) or not any(map(is_media, parts)):
        return _text(message, where)
    rendered = []
    for i, part in enumerate(parts):
        if is_media(part):
            marker = place(part, f"{where}[{i}]")
            rendered.append({"type": "media_marker", "text": marker})
        else:
            rendered.append({"type": "text", "text": part_text(part, f"{where}[{i}]")})
    return rendered


def _text(message: Message, where: str) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if content is None:
        # An assistant's answer may be nothing but tool calls or reasoning, a tool's result nothing.
        if message.role in ("assistant", "tool"):
            return ""
        raise InvalidRequestError(f"{where} is required", param=where)
    return "\n".join(part_text(part, f"{where}[{i}]") for i, part in enumerate(content))


def part_text(part: ContentPart, where: str) -> str:
    """The text of a part that is no media.

    Raises:
        InvalidRequestError: It is of an unknown type, or has no text.
    """
    if part.type == "file":
        if part.file is None:
            raise InvalidRequestError(f"{where}.file is required", param=f"{where}.file")
        return file_text(part.file, f"{where}.file")
    if part.type not in ("text", "input_text", "output_text", "refusal"):
        raise InvalidRequestError(
            f"{where}: content of type {part.type!r} is not supported by this model",
            param=f"{where}.type",
        )
    field = "refusal" if part.type == "refusal" else "text"
    text = part.refusal if part.type == "refusal" else part.text
    if text is None:
        raise InvalidRequestError(f"{where}.{field} is required", param=f"{where}.{field}")
    return text


def _render_call(call: MessageToolCall, where: str) -> dict[str, Any]:
    called = call.function
    if call.type == "custom" and call.custom is not None:
        called = FunctionCall(call.custom.name, {TEXT_PARAMETER: call.custom.input})
    elif call.type == "custom" or called is None:
        raise InvalidRequestError(f"{where}.{call.type} is required", param=f"{where}.{call.type}")
    arguments = arguments_object(called.arguments, f"{where}.{call.type}.arguments")
    function = {"name": called.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def arguments_object(arguments: str | dict[str, Any] | None, where: str) -> str:
    """The arguments as the JSON object that every template can read.

    What is none, such as the half that an answer leaves that was cut off, is wrapped, so
    that the model still gets to see it.

    Raises:
        InvalidRequestError: An object is too large to be shown.
    """
    if isinstance(arguments, dict):
        return encode_json(plain_json(arguments, where), where)
    if arguments is None or not arguments.strip():
        return "{}"
    decoded = None
    with contextlib.suppress(ValueError, RecursionError):
        decoded = msgspec.json.decode(arguments.encode())
    if not isinstance(decoded, dict):
        return encode_json({"arguments": arguments}, where)
    check_sizes(decoded, where)
    return arguments


def render_tools(tools: Sequence[Tool]) -> str:
    """Returns the tools as the JSON array that the chat template is given.

    Raises:
        InvalidRequestError: A description cannot be encoded.
    """
    if not tools:
        return ""
    rendered = []
    for i, tool in enumerate(tools):
        function: dict[str, Any] = {"name": tool.function.name}
        if tool.function.description is not None:
            where = f"tools[{i}].function.description"
            function["description"] = check_text(tool.function.description, where)
        function["parameters"] = tool.function.parameters or {"type": "object", "properties": {}}
        rendered.append({"type": "function", "function": function})
    return encode_json(rendered, "tools")


class ToolFields(NamedTuple):
    """Where a caller gave a tool's name and the schema of its parameters, for errors."""

    name: str
    schema: str


def _check_names(tools: Sequence[Tool], fields: Sequence[ToolFields]) -> None:
    """Raises `InvalidRequestError` for tools without a name or with the same one."""
    seen: set[str] = set()
    for tool, (where, _) in zip(tools, fields, strict=True):
        name = check_text(tool.function.name, where)
        if not name or len(name) > 256:
            raise InvalidRequestError(f"{where} must have 1 to 256 characters", param=where)
        if name in seen:
            raise InvalidRequestError(f"{where}: {name!r} is defined twice", param=where)
        seen.add(name)


def offer_tools(
    tools: Sequence[Tool],
    mode: ToolMode,
    names: Sequence[str] | None = None,
    fields: Sequence[ToolFields] | None = None,
) -> tuple[list[Tool], ToolMode]:
    """Decides which tools are offered and whether one must be called.

    Args:
        tools: All tools of the request.
        mode: Whether calling is left to the model, required or forbidden.
        names: The only tools that may be called; None = all of them.
        fields: Where the caller gave each tool; None = in the OpenAI chat form.

    Raises:
        InvalidRequestError: A tool has no name or another's, or a schema of no object or with
            a pattern that is none; a named tool is not among `tools`, or a call is
            required and there is nothing to call.
    """
    if fields is None:
        forms = [f"tools[{i}].function" for i in range(len(tools))]
        fields = [ToolFields(f"{form}.name", f"{form}.parameters") for form in forms]
    _check_names(tools, fields)
    offered = [_enforceable(tool, each.schema) for tool, each in zip(tools, fields, strict=True)]
    if names is not None:
        known = {tool.function.name for tool in tools}
        for name in names:
            if name not in known:
                raise InvalidRequestError(
                    f"tool_choice: no tool is named {name!r}", param="tool_choice"
                )
        allowed = set(names)
        offered = [tool for tool in offered if tool.function.name in allowed]
    if mode in ("required", "one") and not offered:
        raise InvalidRequestError(
            "tool_choice: a call is required but there are no tools", param="tool_choice"
        )
    return offered, mode


def _enforceable(tool: Tool, field: str) -> Tool:
    function = tool.function
    if not function.parameters:
        return tool
    if function.parameters.get("type", "object") != "object":
        raise InvalidRequestError(
            f"{field}: a tool takes an object: its schema's type must be 'object'",
            param=f"{field}.type",
        )
    parameters = enforceable(function.parameters, field)
    return Tool(FunctionDefinition(function.name, function.description, parameters))
