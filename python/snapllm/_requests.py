"""Builds the neutral requests from the keyword arguments of `Model`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias, cast

from msgspec import Meta

from snapllm._checks import (
    as_dict,
    as_images,
    as_list,
    check_grammar,
    check_text,
    convert,
    plain_number,
    token_ids,
)
from snapllm._json import read_json
from snapllm._numbers import INT32_MAX, TokenId
from snapllm._schemas import schema_text
from snapllm.conversation import (
    MediaPart,
    Message,
    Tool,
    ToolMode,
    add_media,
    continues,
    offer_tools,
)
from snapllm.errors import InvalidRequestError
from snapllm.outputs import ToolCall
from snapllm.params import (
    DEFAULT_MAX_TOKENS,
    MAX_EMBEDDING_INPUTS,
    UNLIMITED,
    ChatOptions,
    ChatRequest,
    CompletionOptions,
    CompletionRequest,
    EmbeddingInput,
    EmbeddingRequest,
    LogitBiases,
    MaxTokens,
    NumLogprobs,
    Prompt,
    SamplingOptions,
    StopSequences,
)

_MaxTokensOrNone: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)]


def completion_request(model: str, prompt: Prompt, options: Mapping[str, Any]) -> CompletionRequest:
    """Builds the request of `Model.generate` from its keyword arguments."""
    rest = _given(options)
    common = _common(rest, may_be_none=True)
    return CompletionRequest(
        model=model,
        prompt=check_text(prompt, "prompt")
        if isinstance(prompt, str)
        else token_ids(prompt, "prompt", "text or token ids"),
        suffix=check_text(rest.pop("suffix", ""), "suffix"),
        num_prompt_logprobs=convert(
            plain_number(rest.pop("num_prompt_logprobs", -1)), NumLogprobs, "num_prompt_logprobs"
        ),
        json_schema=_json_schema(rest.pop("json_schema", "")),
        sampling=_sampling(rest),
        **common,
    )


def chat_request(
    model: str, messages: str | Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> ChatRequest:
    """Builds the request of `Model.chat` from its keyword arguments."""
    rest = _given(options)
    common = _common(rest)
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    plain = [_plain_message(message) for message in as_list(messages, "messages")]
    parsed = convert(plain, list[Message], "messages")
    images = [
        MediaPart("image", name=f"images[{i}]", source=source)
        for i, source in enumerate(as_images(rest.pop("images", ()), "images"))
    ]
    add_media(parsed, images)
    tools = convert(as_list(rest.pop("tools", ()), "tools"), list[Tool], "tools")
    offered, mode = _tool_choice(tools, rest.pop("tool_choice", "auto"))
    thinking, budget = _thinking(rest.pop("thinking", False))
    json_schema = _json_schema(rest.pop("json_schema", ""))
    wanted = rest.pop("continue_final_message", None)
    if wanted is not None:
        wanted = convert(plain_number(wanted), bool, "continue_final_message")
    return ChatRequest(
        model=model,
        messages=parsed,
        tools=offered,
        tool_choice=mode,
        parallel_tool_calls=convert(
            plain_number(rest.pop("parallel_tool_calls", True)), bool, "parallel_tool_calls"
        ),
        continue_final_message=continues(parsed, wanted, mode, json_schema),
        thinking=thinking,
        thinking_budget_tokens=budget,
        json_schema=json_schema,
        template_kwargs=_template_kwargs(rest.pop("template_kwargs", {})),
        sampling=_sampling(rest),
        **common,
    )


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those that are None, which stands for the default; of `max_tokens` it
    is a value."""
    known = ChatOptions.__annotations__.keys() | CompletionOptions.__annotations__.keys()
    known -= {"max_tokens"}
    return {
        name: value for name, value in options.items() if value is not None or name not in known
    }


def _plain_message(message: object) -> object:
    """A message whose tool calls are in OpenAI's form, where they are an answer's."""
    calls = message.get("tool_calls") if isinstance(message, Mapping) else None
    if not isinstance(calls, list | tuple):
        return message
    return {**cast("Mapping[str, Any]", message), "tool_calls": list(map(_plain_call, calls))}


def _plain_call(call: object) -> object:
    if not isinstance(call, ToolCall):
        return call
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def embedding_request(
    model: str,
    inputs: EmbeddingInput,
    *,
    pooling: str | None = "auto",
    dimensions: int | None = None,
    field: str = "inputs",
) -> EmbeddingRequest:
    """Builds an embedding request; `inputs` is one text or several, or tokens of them.

    Raises:
        InvalidRequestError: An argument does not fit; `param` names it, the inputs by `field`.
    """
    dimensions = cast("int | None", plain_number(dimensions))
    if dimensions == 0:
        raise InvalidRequestError("dimensions must be positive", param="dimensions")
    fields = {
        "model": model,
        "inputs": _embedding_inputs(inputs, field),
        "inputs_field": field,
        "pooling": "auto" if pooling is None else pooling,
        "dimensions": dimensions or 0,
    }
    return convert(fields, EmbeddingRequest)


def _embedding_inputs(inputs: EmbeddingInput, field: str) -> list[Any]:
    items = [inputs] if isinstance(inputs, str) else list(map(_plain, as_list(inputs, field)))
    if items and all(isinstance(item, int) for item in items):
        items = [items]
    if not 1 <= len(items) <= MAX_EMBEDDING_INPUTS:
        raise InvalidRequestError(
            f"{field} must hold 1 to {MAX_EMBEDDING_INPUTS} texts", param=field
        )
    for i, item in enumerate(items):
        if not isinstance(item, str):
            continue
        if not item:
            raise InvalidRequestError(f"{field}[{i}] is empty", param=f"{field}[{i}]")
        check_text(item, f"{field}[{i}]")
    if len({isinstance(item, str) for item in items}) > 1:
        raise InvalidRequestError(f"{field} mixes texts and tokens", param=field)
    tokens: list[str | list[TokenId]] = convert(items, list[str | list[TokenId]], field)
    for i, item in enumerate(tokens):
        if not item:
            raise InvalidRequestError(f"{field}[{i}] is empty", param=f"{field}[{i}]")
    return list(tokens)


def _plain(item: Any) -> Any:
    """One of several inputs with Python's numbers: a text, a token, or the tokens of a text."""
    if isinstance(item, str):
        return str(item)  # of a subclass, as NumPy's, too
    if isinstance(item, bytes | bytearray | memoryview | Mapping):
        return item  # no tokens, though they would read as such
    return list(map(plain_number, item)) if isinstance(item, Iterable) else plain_number(item)


def _common(rest: dict[str, Any], *, may_be_none: bool = False) -> dict[str, Any]:
    max_tokens = plain_number(rest.pop("max_tokens", DEFAULT_MAX_TOKENS))
    given = rest.pop("stop", ())
    stop = tuple([given] if isinstance(given, str) else as_list(given, "stop"))
    for text in stop:
        if isinstance(text, str):
            check_text(text, "stop")
    return {
        "max_tokens": UNLIMITED
        if max_tokens is None
        else convert(max_tokens, _MaxTokensOrNone if may_be_none else MaxTokens, "max_tokens"),
        "reuse_prefix": convert(plain_number(rest.pop("reuse_prefix", True)), bool, "reuse_prefix"),
        "stop": convert(stop, StopSequences, "stop"),
    }


def _sampling(rest: dict[str, Any]) -> SamplingOptions:
    if "logit_bias" in rest:
        rest["logit_bias"] = _logit_bias(rest["logit_bias"])
    unknown = rest.keys() - set(SamplingOptions.__struct_fields__)
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    options = convert({name: plain_number(value) for name, value in rest.items()}, SamplingOptions)
    check_grammar(options.grammar)
    return options


def _logit_bias(given: object) -> LogitBiases:
    field = "logit_bias"
    pairs = [tuple(map(plain_number, pair)) for pair in as_dict(given, field).items()]
    return convert(pairs, LogitBiases, field)


def _tool_choice(tools: list[Tool], choice: object) -> tuple[list[Tool], ToolMode]:
    modes: dict[str, ToolMode] = {"auto": "auto", "required": "required", "none": "none"}
    if not isinstance(choice, str):
        raise InvalidRequestError(
            "tool_choice: expected 'auto', 'required', 'none' or a tool's name", param="tool_choice"
        )
    if choice in modes:
        return offer_tools(tools, modes[choice])
    return offer_tools(tools, "one", [choice])


def _thinking(given: object) -> tuple[bool, int]:
    value = plain_number(given)
    if isinstance(value, bool):
        return value, UNLIMITED
    budget = convert(value, int, "thinking")
    if not 0 <= budget <= INT32_MAX:
        raise InvalidRequestError("thinking: expected 0 or more tokens", param="thinking")
    return budget > 0, budget or UNLIMITED


def _template_kwargs(given: object) -> dict[str, Any]:
    field = "template_kwargs"
    variables = convert(as_dict(given, field), dict[str, Any], field)
    return {check_text(name, field): value for name, value in variables.items()}


def _json_schema(schema: object) -> str:
    """The schema as JSON text; "" = none."""
    if schema == "":
        return ""
    if isinstance(schema, str):
        schema = read_json(schema, "json_schema")
    if isinstance(schema, Mapping):
        return schema_text(schema, "json_schema")
    raise InvalidRequestError("json_schema: expected an object", param="json_schema")
