"""What a caller may ask for: sampling options and the neutral requests.

Every protocol and the Python API end in a `ChatRequest` or a `CompletionRequest`.
The types carry their own limits; `msgspec` checks them and names the field at fault.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Annotated, Any, Literal, TypeAlias, TypedDict, TypeVar, cast

import msgspec
from msgspec import Meta

from snapllm.conversation import MediaPart, Message, Tool, ToolMode, add_media, offer_tools
from snapllm.errors import InvalidRequestError

INT32_MAX = 2**31 - 1
MAX_KEEP_ALIVE_S = 1_000_000_000

Temperature: TypeAlias = Annotated[float, Meta(ge=0, le=2)]
TopP: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
TopK: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)]
MinP: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
TypicalP: TypeAlias = Annotated[float, Meta(gt=0, le=1)]
RepeatPenalty: TypeAlias = Annotated[float, Meta(gt=0, le=10)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
PenaltyWindow: TypeAlias = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
Seed: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
MaxTokens: TypeAlias = Annotated[int, Meta(ge=1, le=INT32_MAX)]
TokenId: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)]
NumLogprobs: TypeAlias = Annotated[int, Meta(ge=-1, le=20)]
ThinkingBudget: TypeAlias = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
StopSequence: TypeAlias = Annotated[str, Meta(min_length=1)]
StopSequences: TypeAlias = Annotated[tuple[StopSequence, ...], Meta(max_length=64)]

DEFAULT_MAX_TOKENS = 256
UNLIMITED = -1


class SamplingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the next token is chosen. Mirrors the core's `SamplingParams`."""

    temperature: Temperature = 0.7
    top_p: TopP = 0.9
    top_k: TopK = 40
    min_p: MinP = 0.05
    typical_p: TypicalP = 1.0
    repeat_penalty: RepeatPenalty = 1.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    penalty_last_n: PenaltyWindow = 64
    seed: Seed = -1
    ignore_eos: bool = False
    num_logprobs: NumLogprobs = -1
    logit_bias: tuple[tuple[TokenId, float], ...] = ()
    grammar: str = ""


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt to be continued as it is."""

    prompt: str | list[TokenId]
    model: str = ""
    sampling: SamplingOptions = SamplingOptions()
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: StopSequences = ()
    n: int = 1
    reuse_prefix: bool = True
    cache_namespace: str = ""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation to be answered, independent of any protocol."""

    messages: list[Message]
    model: str = ""
    tools: list[Tool] = []
    tool_choice: ToolMode = "auto"
    parallel_tool_calls: bool = True
    thinking: bool = False
    thinking_budget_tokens: ThinkingBudget = UNLIMITED
    json_schema: str = ""
    """JSON text of the schema that the answer must match; empty = free text."""
    template_kwargs: dict[str, Any] = {}
    sampling: SamplingOptions = SamplingOptions()
    max_tokens: int = DEFAULT_MAX_TOKENS
    """0 = the prompt is computed and kept, and nothing is generated."""
    stop: StopSequences = ()
    n: int = 1
    reuse_prefix: bool = True
    """Whether the KV of an earlier prompt may be used and this one's kept."""
    cache_namespace: str = ""
    """Prompts of different namespaces share nothing."""


Pooling: TypeAlias = Literal["auto", "mean", "last"]
_Dimensions: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)]
MAX_EMBEDDING_INPUTS = 2048


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts, or token ids of texts, to be turned into vectors."""

    inputs: list[str | list[TokenId]]
    """All of one kind."""
    model: str = ""
    pooling: Pooling = "auto"
    dimensions: _Dimensions = 0
    """The vectors' first components only, scaled to length 1 again; 0 = all."""


class GenerateOptions(TypedDict, total=False):
    """Keyword arguments of `Model.generate` and of `Model.chat`.

    Attributes:
        max_tokens: Tokens to generate at most; None = as many as the context holds.
            Default 256.
        temperature: Randomness from 0 (always the likeliest token) to 2. Default 0.7.
        top_p: Sample from the likeliest tokens that together reach this probability;
            1 = off. Default 0.9.
        top_k: Sample from this many likeliest tokens; 0 = off. Default 40.
        min_p: Drop tokens less likely than this share of the likeliest one; 0 = off.
            Default 0.05.
        typical_p: Locally typical sampling; 1 = off. Default 1.
        repeat_penalty: Divides the odds of tokens already seen; 1 = off. Default 1.
        frequency_penalty: Lowers tokens by how often they came, -2 to 2. Default 0.
        presence_penalty: Lowers tokens that came at all, -2 to 2. Default 0.
        penalty_last_n: Tokens the penalties look back on; -1 = all. Default 64.
        seed: Makes sampling repeatable; below 0 = random. Default -1.
        stop: A string or several; the answer ends before the first that comes up.
        ignore_eos: Go on when the model says it is done. Default False.
        num_logprobs: Alternatives returned with each token's log probability, 0 to
            20; -1 = no log probabilities. Default -1.
        logit_bias: Added to the logits of tokens: token id to bias.
        grammar: A GBNF grammar that the whole answer must match.
        reuse_prefix: Whether the KV of earlier prompts with the same beginning is used,
            and this one's kept; the answer is the same either way. Default True.
    """

    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    typical_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    penalty_last_n: int
    seed: int
    stop: str | Sequence[str]
    ignore_eos: bool
    num_logprobs: int
    logit_bias: Mapping[int, float]
    grammar: str
    reuse_prefix: bool


class ChatOptions(GenerateOptions, total=False):
    """Keyword arguments of `Model.chat`: those of `Model.generate` and these.

    Attributes:
        images: Images for the last user message, shown before its text: each a path, the
            bytes of an image file, a Pillow image, or an array of uint8 with the shape
            (height, width, 3). They need a model that was loaded with its projector.
        tools: Tools the model may call, in the OpenAI form.
        tool_choice: ``"auto"``, ``"required"``, ``"none"`` or a tool's name.
        parallel_tool_calls: Whether one answer may call several tools. Default True.
        thinking: Whether the model reasons first; a number is the most tokens it may
            reason for. Models whose template has no such switch ignore it.
            Default False.
        json_schema: A JSON schema (an object, or JSON text) the answer must match.
        template_kwargs: Further variables for the chat template.
    """

    images: Sequence[Any]
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str
    parallel_tool_calls: bool
    thinking: bool | int
    json_schema: Mapping[str, Any] | str
    template_kwargs: Mapping[str, Any]


_T = TypeVar("_T")


def convert(value: object, type_: type[_T], field: str = "") -> _T:
    """Checks a Python value against a type and its limits.

    Raises:
        InvalidRequestError: The value does not fit; `param` names the field at fault.
    """
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise invalid_field(str(error), field) from None


def plain_number(value: object) -> object:
    """A number of another library's, as NumPy's, as one of Python's; all else as it is."""
    if isinstance(value, int):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def check_text(text: object, field: str) -> str:
    """The text, where it is one that can be encoded.

    Raises:
        InvalidRequestError: It is no text, or holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"{field}: expected text, not {type(text).__name__}", param=field)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{field}: half of a surrogate pair", param=field) from None
    return text


def _items(value: object, field: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidRequestError(
            f"{field}: expected a sequence, not {type(value).__name__}", param=field
        )
    return list(value)


def _mapping(value: object, field: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequestError(
            f"{field}: expected a mapping, not {type(value).__name__}", param=field
        )
    return dict(value)


_PATH = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>\$[^`]*)`)?$", re.DOTALL)
_NAMED = re.compile(r"(?:field|argument) `(?P<name>[^`]*)`")


def invalid_field(problem: str, field: str = "") -> InvalidRequestError:
    """Turns a `msgspec` message into an error that names the field at fault."""
    match = _PATH.match(problem)
    what, path = (match["what"], match["path"] or "") if match else (problem, "")
    param = field + path.removeprefix("$")
    named = _NAMED.search(what)
    if named:
        param = f"{param}.{named['name']}"
    param = param.removeprefix(".")
    what = what.replace("`", "'")
    return InvalidRequestError(f"{param}: {what}" if param else what, param=param or None)


def completion_request(
    model: str, prompt: str | Sequence[int], options: Mapping[str, Any]
) -> CompletionRequest:
    """Builds the request of `Model.generate` from its keyword arguments."""
    rest = dict(options)
    common = _common(rest)
    return CompletionRequest(
        model=model,
        prompt=check_text(prompt, "prompt")
        if isinstance(prompt, str)
        else token_ids(prompt, "prompt", "text or token ids"),
        sampling=_sampling(rest),
        **common,
    )


def token_ids(tokens: Sequence[int], field: str, expected: str = "token ids") -> list[int]:
    """The token ids as Python's integers.

    Raises:
        InvalidRequestError: They are none; `param` is the field, or the place in it.
    """
    try:
        if isinstance(tokens, bytes | bytearray):
            raise TypeError
        plain = [operator.index(token) for token in tokens]  # NumPy's integers too
    except TypeError:
        raise InvalidRequestError(f"{field}: expected {expected}", param=field) from None
    return convert(plain, list[TokenId], field)


def chat_request(
    model: str, messages: str | Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> ChatRequest:
    """Builds the request of `Model.chat` from its keyword arguments."""
    rest = dict(options)
    common = _common(rest)
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    parsed = convert(_items(messages, "messages"), list[Message], "messages")
    images = [
        MediaPart("image", name=f"images[{i}]", source=source)
        for i, source in enumerate(_items(rest.pop("images", ()), "images"))
    ]
    add_media(parsed, images)
    tools = convert(_items(rest.pop("tools", ()), "tools"), list[Tool], "tools")
    offered, mode = _tool_choice(tools, rest.pop("tool_choice", "auto"))
    thinking, budget = _thinking(rest.pop("thinking", False))
    return ChatRequest(
        model=model,
        messages=parsed,
        tools=offered,
        tool_choice=mode,
        parallel_tool_calls=convert(
            rest.pop("parallel_tool_calls", True), bool, "parallel_tool_calls"
        ),
        thinking=thinking,
        thinking_budget_tokens=budget,
        json_schema=_json_schema(rest.pop("json_schema", "")),
        template_kwargs=convert(
            _mapping(rest.pop("template_kwargs", {}), "template_kwargs"),
            dict[str, Any],
            "template_kwargs",
        ),
        sampling=_sampling(rest),
        **common,
    )


EmbeddingInput: TypeAlias = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


def embedding_request(
    model: str,
    inputs: EmbeddingInput,
    *,
    pooling: str = "auto",
    dimensions: int | None = None,
) -> EmbeddingRequest:
    """Builds an embedding request; `inputs` is one text or several, or tokens of them.

    Raises:
        InvalidRequestError: An argument does not fit; `param` names it.
    """
    dimensions = cast("int | None", plain_number(dimensions))
    if dimensions == 0:
        raise InvalidRequestError("dimensions must be positive", param="dimensions")
    fields = {
        "model": model,
        "inputs": _embedding_inputs(inputs),
        "pooling": pooling,
        "dimensions": dimensions or 0,
    }
    return convert(fields, EmbeddingRequest)


def _embedding_inputs(inputs: EmbeddingInput) -> list[Any]:
    items = [inputs] if isinstance(inputs, str) else list(map(_plain, _items(inputs, "input")))
    if items and all(isinstance(item, int) for item in items):
        items = [items]
    if not 1 <= len(items) <= MAX_EMBEDDING_INPUTS:
        raise InvalidRequestError(
            f"input must hold 1 to {MAX_EMBEDDING_INPUTS} texts", param="input"
        )
    for i, item in enumerate(items):
        if not isinstance(item, str):
            continue
        if not item:
            raise InvalidRequestError(f"input[{i}] is empty", param=f"input[{i}]")
        check_text(item, f"input[{i}]")
    if len({isinstance(item, str) for item in items}) > 1:
        raise InvalidRequestError("input mixes texts and tokens", param="input")
    tokens: list[str | list[TokenId]] = convert(items, list[str | list[TokenId]], "input")
    for i, item in enumerate(tokens):
        if not item:
            raise InvalidRequestError(f"input[{i}] is empty", param=f"input[{i}]")
    return list(tokens)


def _plain(item: Any) -> Any:
    """One of several inputs with Python's numbers: a text, a token, or the tokens of a text."""
    if isinstance(item, str):
        return str(item)  # of a subclass, as NumPy's, too
    if isinstance(item, bytes | bytearray | memoryview | Mapping):
        return item  # no tokens, though they would read as such
    return list(map(plain_number, item)) if isinstance(item, Iterable) else plain_number(item)


def _common(rest: dict[str, Any]) -> dict[str, Any]:
    max_tokens = plain_number(rest.pop("max_tokens", DEFAULT_MAX_TOKENS))
    given = rest.pop("stop", ())
    stop = tuple([given] if isinstance(given, str) else _items(given, "stop"))
    for text in stop:
        if isinstance(text, str):
            check_text(text, "stop")
    return {
        "max_tokens": UNLIMITED
        if max_tokens is None
        else convert(max_tokens, MaxTokens, "max_tokens"),
        "reuse_prefix": convert(rest.pop("reuse_prefix", True), bool, "reuse_prefix"),
        "stop": convert(stop, StopSequences, "stop"),
    }


def _sampling(rest: dict[str, Any]) -> SamplingOptions:
    if "logit_bias" in rest:
        rest["logit_bias"] = tuple(_mapping(rest["logit_bias"], "logit_bias").items())
    unknown = rest.keys() - set(SamplingOptions.__struct_fields__)
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    options = convert({name: plain_number(value) for name, value in rest.items()}, SamplingOptions)
    check_text(options.grammar, "grammar")
    return options


def _tool_choice(tools: list[Tool], choice: object) -> tuple[list[Tool], ToolMode]:
    modes: dict[str, ToolMode] = {"auto": "auto", "required": "required", "none": "none"}
    if not isinstance(choice, str):
        raise InvalidRequestError(
            "tool_choice: expected 'auto', 'required', 'none' or a tool's name", param="tool_choice"
        )
    if choice in modes:
        return offer_tools(tools, modes[choice])
    return offer_tools(tools, "required", [choice])


def _thinking(value: bool | int) -> tuple[bool, int]:
    if isinstance(value, bool):
        return value, UNLIMITED
    budget = convert(value, int, "thinking")
    if not 0 <= budget <= INT32_MAX:
        raise InvalidRequestError("thinking: expected 0 or more tokens", param="thinking")
    return budget > 0, budget or UNLIMITED


# What an empty schema allows. llama.cpp takes that one for no schema at all.
_ANY_JSON = {"type": ["object", "array", "string", "number", "boolean", "null"]}


def schema_text(schema: Mapping[str, Any]) -> str:
    """A schema that an answer must match, as JSON text; an empty one is met by any JSON."""
    return msgspec.json.encode(dict(schema) or _ANY_JSON).decode()


def _json_schema(schema: object) -> str:
    """The schema as JSON text; "" = none."""
    if schema == "":
        return ""
    try:
        decoded = msgspec.json.decode(schema) if isinstance(schema, str) else schema
        if isinstance(decoded, Mapping):
            return schema_text(decoded)
    except (msgspec.DecodeError, UnicodeEncodeError, TypeError) as error:
        raise InvalidRequestError(f"json_schema: {error}", param="json_schema") from None
    raise InvalidRequestError("json_schema: expected an object", param="json_schema")


FlashAttention: TypeAlias = Literal["auto", "on", "off"]
KvType: TypeAlias = Literal["f16", "q8_0", "f32"]


class LoadOptions(TypedDict, total=False):
    """Keyword arguments of `Engine.load`.

    Attributes:
        mmproj_path: The projector file of a model that takes images or audio; "" = the
            model takes text only.
        gpu_layers: Layers on the GPU; -1 = all. Ignored by a build without one.
        context_size: Longest prompt plus answer of a request in tokens; 0 = what the
            model was trained for, as far as memory allows.
        kv_cells: KV cells shared by all sequences; 0 = chosen.
        max_sequences: Sequences decoded together at most, 1 to 64.
        batch_tokens: Tokens of one decode call.
        ubatch_tokens: Tokens of one physical batch.
        num_threads: Threads for this model; 0 = calibrated when it is loaded.
        draft_tokens: Tokens guessed ahead from the text so far (prompt lookup) and checked in
            one batch, at most 15; 0 = none. Answers that quote get faster, none gets another.
        flash_attention: ``"auto"`` (on wherever answers do not come to depend on their batch by
            it), ``"on"`` or ``"off"``.
        kv_type: Type of the KV cache: ``"f16"``, ``"q8_0"`` or ``"f32"``.
        chat_template: A Jinja chat template in place of the file's own.
        pinned: Never evicted, whoever else wants the memory. Default False.
        keep_alive_s: Seconds after which the unused model is evicted, to come back when
            it is asked for; 0 = never for that reason. Default: the engine's.
    """

    mmproj_path: str | PathLike[str]
    gpu_layers: int
    context_size: int
    kv_cells: int
    max_sequences: int
    batch_tokens: int
    ubatch_tokens: int
    num_threads: int
    draft_tokens: int
    flash_attention: FlashAttention
    kv_type: KvType
    chat_template: str
    pinned: bool
    keep_alive_s: float
