"""What a caller may ask for: sampling options, the neutral requests and the keyword arguments.

Every protocol and the Python API end in a `ChatRequest` or a `CompletionRequest`.
The types carry their own limits: `msgspec` checks them where it reads or converts something, a
request's body or the keyword arguments, and names the field at fault; a struct that code makes it
does not look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

import msgspec
from msgspec import Meta

from snapllm._numbers import FLOAT32_MAX, INT32_MAX, INT64_MAX, TokenId, Tokens
from snapllm.conversation import Message, Tool, ToolMode

MAX_KEEP_ALIVE_S = 1_000_000_000

Temperature: TypeAlias = Annotated[float, Meta(ge=0, le=2)]
TopP: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
MinTokens: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)]
TopK: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)]
MinP: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
TypicalP: TypeAlias = Annotated[float, Meta(gt=0, le=1)]
RepeatPenalty: TypeAlias = Annotated[float, Meta(gt=0, le=10)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
PenaltyWindow: TypeAlias = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
Seed: TypeAlias = Annotated[int, Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
MaxTokens: TypeAlias = Annotated[int, Meta(ge=1, le=INT32_MAX)]
LogitBiases: TypeAlias = tuple[tuple[TokenId, Annotated[float, Meta(le=FLOAT32_MAX)]], ...]
"""-inf is a bias: the token never comes. With inf there would be no other."""
NumLogprobs: TypeAlias = Annotated[int, Meta(ge=-1, le=20)]
ThinkingBudget: TypeAlias = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
ModelName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]
"""A model, ``model@context``, or an alias."""
ModelNameOrNone: TypeAlias = Annotated[str, Meta(max_length=1024)]
"""The same; empty = the active model."""
StopSequence: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4096)]
_MAX_STOPS = Meta(max_length=64)
StopSequences: TypeAlias = Annotated[tuple[StopSequence, ...], _MAX_STOPS]
StopList: TypeAlias = Annotated[list[StopSequence], _MAX_STOPS]
"""The same in a request's body: what is searched for after each token."""

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
    min_tokens: MinTokens = 0
    num_logprobs: NumLogprobs = -1
    logit_bias: LogitBiases = ()
    grammar: str = ""


Prompt: TypeAlias = str | Tokens
"""Of `Model.generate`: a text, or its tokens."""


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt to be continued as it is."""

    prompt: str | list[TokenId]
    suffix: str = ""
    """Text that the answer leads to; empty = nothing, the prompt is just continued."""
    model: str = ""
    model_field: str = "model"
    """Where the caller named it."""
    sampling: SamplingOptions = SamplingOptions()
    max_tokens: int = DEFAULT_MAX_TOKENS
    """0 = nothing is generated."""
    stop: StopSequences = ()
    n: int = 1
    num_prompt_logprobs: NumLogprobs = -1
    json_schema: str = ""
    """JSON text of a schema that the answer must match; empty = any text."""
    json_schema_field: str = "json_schema"
    """Where the caller gave it."""
    reuse_prefix: bool = True
    cache_namespace: str = ""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation to be answered, independent of any protocol."""

    messages: list[Message]
    model: str = ""
    model_field: str = "model"
    """Where the caller named it."""
    tools: list[Tool] = []
    tool_choice: ToolMode = "auto"
    parallel_tool_calls: bool = True
    continue_final_message: bool = False
    """Whether the answer is the rest of the last message; see `is_begun`."""
    thinking: bool = False
    thinking_budget_tokens: ThinkingBudget = UNLIMITED
    json_schema: str = ""
    """JSON text of the schema that the answer must match; empty = free text."""
    json_schema_field: str = "json_schema"
    """Where the caller gave it."""
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
EmbeddingInput: TypeAlias = str | Iterable[str] | Tokens | Iterable[Tokens]


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts, or token ids of texts, to be turned into vectors."""

    inputs: list[str | list[TokenId]]
    """All of one kind."""
    inputs_field: str = "inputs"
    """Where the caller gave them."""
    model: str = ""
    pooling: Pooling = "auto"
    dimensions: _Dimensions = 0
    """The vectors' first components only, scaled to length 1 again; 0 = all."""


class GenerateOptions(TypedDict, total=False):
    """Keyword arguments of `Model.generate` and of `Model.chat`; None = the default, except for
    `max_tokens`.

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
        ignore_eos: Go on when the model says it is done, up to where a grammar or schema
            allows nothing more. Default False.
        min_tokens: As `ignore_eos`, for so many tokens from the beginning on, `max_tokens` at
            most. Default 0.
        num_logprobs: Alternatives returned with each token's log probability, 0 to
            20; -1 = no log probabilities. Default -1.
        logit_bias: Added to the logits of tokens: token id to bias; -inf = never.
        grammar: A GBNF grammar that the whole answer must match.
        json_schema: A JSON schema (an object, or JSON text) that the answer must match.
        reuse_prefix: Whether the KV of earlier prompts with the same beginning is used,
            and this one's kept; the answer is the same either way. Default True.
    """

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    typical_p: float | None
    repeat_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    penalty_last_n: int | None
    seed: int | None
    stop: str | Sequence[str] | None
    ignore_eos: bool | None
    min_tokens: int | None
    num_logprobs: int | None
    logit_bias: Mapping[int, float] | None
    grammar: str | None
    json_schema: Mapping[str, Any] | str | None
    reuse_prefix: bool | None


class CompletionOptions(GenerateOptions, total=False):
    """Keyword arguments of `Model.generate`: those it shares with `Model.chat`, and these.

    Attributes:
        suffix: Text that comes after the answer: what is missing between the prompt and it
            is filled in (FIM), by a model that was trained to do so.
        num_prompt_logprobs: Alternatives returned with the log probability of each token of the
            prompt, 0 to 20; the whole prompt is computed for that, and nothing of it reused or
            kept. -1 = no log probabilities of the prompt. Default -1. `max_tokens` may be 0 here,
            for these alone.
    """

    suffix: str | None
    num_prompt_logprobs: int | None


class ChatOptions(GenerateOptions, total=False):
    """Keyword arguments of `Model.chat`: those it shares with `Model.generate`, and these;
    None = the default, except for `max_tokens`.

    Attributes:
        images: Images for the last user message, shown before its text: each a path, the
            bytes of an image file, a Pillow image, or an array of uint8 with the shape
            (height, width, 3); or one of these. They need a model that was loaded with its
            projector.
        tools: Tools the model may call, in the OpenAI form.
        tool_choice: ``"auto"``, ``"required"``, ``"none"`` or a tool's name, which
            asks for one call of it.
        parallel_tool_calls: Whether one answer may call several tools. Default True.
        continue_final_message: Whether the answer goes on from the last message, which must be
            the assistant's text; what is returned is the rest of it. Neither a schema nor a
            forced call can give such an answer another beginning. Default False, or what the
            last message has as ``prefix``.
        thinking: Whether the model reasons first; a number is the most tokens it may
            reason for. Models whose template has no such switch ignore it.
            Default False.
        template_kwargs: Further variables for the chat template.
    """

    images: Any
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | None
    parallel_tool_calls: bool | None
    continue_final_message: bool | None
    thinking: bool | int | None
    template_kwargs: Mapping[str, Any] | None


FlashAttention: TypeAlias = Literal["auto", "on", "off"]
KvType: TypeAlias = Literal["f16", "q8_0", "f32"]


class LoadOptions(TypedDict, total=False):
    """Keyword arguments of `Engine.load`.

    Attributes:
        mmproj_path: The projector file of a model that takes images or audio; "" or None = the
            model takes text only.
        gpu_layers: Layers on the GPU; -1 = all. Ignored by a build without one.
        context_size: Longest prompt plus answer of a request in tokens; 0 = what the
            model was trained for, as far as memory allows.
        kv_cells: KV cells shared by all sequences; 0 = chosen.
        max_sequences: Sequences decoded together at most, 1 to 64.
        batch_tokens: Tokens of one decode call.
        ubatch_tokens: Tokens of one physical batch; by default no more than `batch_tokens`.
        num_threads: Threads for this model; 0 = for each step as many as compute it fastest, at
            most the engine's.
        draft_tokens: Tokens guessed ahead from the text so far (prompt lookup) and checked in
            one batch, at most 15; 0 = none. Answers that quote get faster, none gets another.
        flash_attention: ``"auto"`` (on wherever answers do not come to depend on their batch by
            it), ``"on"`` or ``"off"``.
        kv_type: Type of the KV cache: ``"f16"``, ``"q8_0"`` or ``"f32"``.
        chat_template: A Jinja chat template in place of the file's own.
        pinned: Never evicted, whoever else wants the memory. Default False.
        keep_alive_s: Seconds after which the unused model is evicted, to come back when
            it is asked for; 0 = never for that reason, -1 = as the engine says. Default -1.
    """

    mmproj_path: str | PathLike[str] | None
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
