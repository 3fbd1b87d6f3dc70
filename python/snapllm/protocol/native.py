"""The native API: generation from prompts.

It follows the form of the specification's other generation endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from typing_extensions import NotRequired, TypedDict

from snapllm.conversation import Message
from snapllm.errors import InvalidRequestError
from snapllm.outputs import ChatResult, Usage, tokens_per_second
from snapllm.params import (
    DEFAULT_MAX_TOKENS,
    ChatRequest,
    CompletionRequest,
    MaxTokens,
    MinP,
    MinTokens,
    ModelNameOrNone,
    Penalty,
    RepeatPenalty,
    SamplingOptions,
    Seed,
    StopList,
    StopSequence,
    Temperature,
    TopK,
    TopP,
)
from snapllm.protocol.decoding import decode_body

_encode = msgspec.json.encode
MAX_BATCH = 256
MAX_BATCH_CHARS = 1 << 26
"""Of the system prompt, which each prompt of a batch comes with."""


class SamplingFields(msgspec.Struct, kw_only=True):
    """What the generating endpoints have in common."""

    model: ModelNameOrNone | None = None
    model_id: ModelNameOrNone | None = None
    system: str | None = None
    raw: bool = False
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS
    temperature: Temperature = 0.7
    top_p: TopP = 0.9
    top_k: TopK = 40
    min_p: MinP = 0.05
    repeat_penalty: RepeatPenalty = 1.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    seed: Seed = -1
    ignore_eos: bool = False
    min_tokens: MinTokens = 0
    stop: StopSequence | StopList = []
    thinking: bool = False

    def model_name(self) -> str:
        """The model to use; empty = the active one."""
        return self.model or self.model_id or ""

    def model_field(self) -> str:
        """Where it is named."""
        return "model" if self.model or not self.model_id else "model_id"


class GenerateRequest(SamplingFields, kw_only=True):
    """The body of POST /api/v1/generate."""

    prompt: Annotated[str, Meta(min_length=1)]
    stream: bool = False


class BatchRequest(SamplingFields, kw_only=True):
    """The body of POST /api/v1/generate/batch."""

    prompts: Annotated[
        list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=MAX_BATCH)
    ]
    stream: bool = False
    """True is refused: the answers come together."""


class GenerateUsage(TypedDict):
    """The token counts of an answer."""

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int


class GenerateAnswer(TypedDict):
    """The answer to one prompt."""

    status: Literal["success"]
    response: str
    model: str
    finish_reason: str
    usage: GenerateUsage
    generation_time_s: float
    tokens_per_second: float
    reasoning: NotRequired[str]


class BatchAnswer(TypedDict):
    """The body of POST /api/v1/generate/batch."""

    status: Literal["success"]
    results: list[GenerateAnswer]
    """In the order of their prompts."""


_generate_decoder = msgspec.json.Decoder(GenerateRequest)
_batch_decoder = msgspec.json.Decoder(BatchRequest)


def parse_generate(body: bytes) -> tuple[ChatRequest | CompletionRequest, bool]:
    """Reads a generate request; returns it and whether its answer is streamed."""
    wire = decode_body(body, _generate_decoder)
    return _request(wire, wire.prompt), wire.stream


def parse_batch(body: bytes) -> list[ChatRequest | CompletionRequest]:
    """Reads a batch: one request for each prompt, in their order."""
    wire = decode_body(body, _batch_decoder)
    if wire.stream:
        # Its client would wait for events.
        raise InvalidRequestError("stream: the answers of a batch come together", param="stream")
    if len(wire.system or "") * len(wire.prompts) > MAX_BATCH_CHARS:
        raise InvalidRequestError("system: with each of the prompts it is too long", param="system")
    return [_request(wire, prompt) for prompt in wire.prompts]


def _request(wire: SamplingFields, prompt: str) -> ChatRequest | CompletionRequest:
    if not wire.raw:
        return chat_of(wire, prompt)
    # Without the template there is no place for either, and nobody would see it missing.
    for field in ("system", "thinking"):
        if getattr(wire, field):
            raise InvalidRequestError(f"{field}: a raw prompt is all the model sees", param=field)
    return CompletionRequest(
        prompt=prompt,
        model=wire.model_name(),
        model_field=wire.model_field(),
        sampling=_sampling(wire),
        max_tokens=wire.max_tokens,
        stop=_stop(wire),
    )


def chat_of(wire: SamplingFields, prompt: str) -> ChatRequest:
    """The chat of one user message that a request asks for."""
    messages = [Message(role="user", content=prompt)]
    if wire.system is not None:
        messages.insert(0, Message(role="system", content=wire.system))
    return ChatRequest(
        messages=messages,
        model=wire.model_name(),
        model_field=wire.model_field(),
        thinking=wire.thinking,
        sampling=_sampling(wire),
        max_tokens=wire.max_tokens,
        stop=_stop(wire),
    )


def _sampling(wire: SamplingFields) -> SamplingOptions:
    return SamplingOptions(
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        min_p=wire.min_p,
        repeat_penalty=wire.repeat_penalty,
        frequency_penalty=wire.frequency_penalty,
        presence_penalty=wire.presence_penalty,
        seed=wire.seed,
        ignore_eos=wire.ignore_eos,
        min_tokens=wire.min_tokens,
    )


def _stop(wire: SamplingFields) -> tuple[str, ...]:
    return (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop)


def _usage(usage: Usage) -> GenerateUsage:
    return {
        "prompt_tokens": usage.num_prompt_tokens,
        "cached_tokens": usage.num_cached_tokens,
        "generated_tokens": usage.num_generated_tokens,
    }


def generate_object(model: str, answer: ChatResult) -> GenerateAnswer:
    """The answer to a generate request, and one entry of a batch's."""
    timings = answer.timings
    body: GenerateAnswer = {
        "status": "success",
        "response": answer.content,
        "model": model,
        "finish_reason": answer.finish_reason,
        "usage": _usage(answer.usage),
        "generation_time_s": round(
            (timings.queue_ms + timings.prefill_ms + timings.decode_ms) / 1000, 6
        ),
        "tokens_per_second": round(tokens_per_second(answer.usage, timings), 2),
    }
    if answer.reasoning:
        body["reasoning"] = answer.reasoning
    return body


def batch_object(model: str, answers: Sequence[ChatResult]) -> BatchAnswer:
    """The answer to a batch."""
    return {"status": "success", "results": [generate_object(model, each) for each in answers]}


def encode(body: GenerateAnswer | BatchAnswer) -> bytes:
    """A body as JSON."""
    return _encode(body)
