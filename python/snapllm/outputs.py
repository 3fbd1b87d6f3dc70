"""What the engine answers: results, the pieces of streamed answers, and counts.

Plain values without behaviour that the engine, the protocols and the server share.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]
"""Why an answer ended: the model was done or a stop string came up, the token limit
was reached, or the model called tools."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of one request."""

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    """Tokens of the prompt that were restored, not computed."""
    num_generated_tokens: int = 0
    num_reasoning_tokens: int = 0
    """Those of them that the text of the reasoning is made of."""


class CacheUse(msgspec.Struct, frozen=True, kw_only=True):
    """Where a prompt's reused tokens came from, and what ended the reuse."""

    num_hot_tokens: int = 0
    """Forked within the model's KV memory."""
    num_warm_tokens: int = 0
    """Restored from RAM."""
    num_cold_tokens: int = 0
    """Restored from disk."""
    restore_ms: float = 0.0
    """What that took of the prefill, in milliseconds; files are mostly read before it begins."""
    differs_at: int | None = None
    """The prompt's first position at which something else was cached; None when there was none."""
    cached_token: int | None = None
    """What was cached there."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one request went, in milliseconds."""

    queue_ms: float = 0.0
    """From submission to admission."""
    prefill_ms: float = 0.0
    """From admission to the first token."""
    decode_ms: float = 0.0
    """From the first token to the last."""


class TokenAlternative(msgspec.Struct, frozen=True):
    """A token that could have been chosen, with its log probability."""

    token: int
    bytes: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token with its log probability and the likeliest alternatives."""

    token: int
    bytes: bytes
    """The token's own bytes, not always valid UTF-8."""
    logprob: float
    """NaN for a prompt's first token, which follows nothing."""
    top: tuple[TokenAlternative, ...] = ()


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool that the model asks for."""

    id: str
    name: str
    arguments: str
    """The arguments as JSON text, as the model wrote them."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer to `Model.generate`."""

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    stop_sequence: str | None = None
    """The stop string that ended the answer; None otherwise."""
    logprobs: list[TokenLogprob] = []
    """Of the tokens but those of the stop string."""
    prompt_logprobs: list[TokenLogprob] = []
    """Of the prompt's tokens, where they were asked for."""
    seed: int = 0
    """The seed that was used; giving it again repeats the answer."""
    usage: Usage = Usage()
    cache: CacheUse = CacheUse()
    timings: Timings = Timings()


class CompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed `Model.generate`. The last one has a finish reason."""

    text: str = ""
    tokens: list[int] = []
    logprobs: tuple[TokenLogprob, ...] = ()
    """They come with the text, which a stop string may hold back."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """Of the prompt's next tokens, where they were asked for."""
    finish: Finish | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None in all chunks but the last."""
        return self.finish.finish_reason if self.finish else None


class ChatResult(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer to `Model.chat`."""

    content: str
    reasoning: str = ""
    tool_calls: list[ToolCall] = []
    finish_reason: FinishReason = "stop"
    stop_sequence: str | None = None
    logprobs: list[TokenLogprob] = []
    """Of the tokens that make up `content`."""
    seed: int = 0
    usage: Usage = Usage()
    cache: CacheUse = CacheUse()
    timings: Timings = Timings()


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `Model.embed`."""

    vectors: list[list[float]]
    """One of length 1 for each input, in their order."""
    num_tokens: int
    """Tokens of all inputs together."""


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of the answer's content."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True):
    """The next piece of the model's reasoning."""

    text: str


class ToolCallStart(msgspec.Struct, frozen=True):
    """A tool call begins; its arguments follow as `ToolCallDelta`."""

    index: int
    id: str
    name: str


class ToolCallDelta(msgspec.Struct, frozen=True):
    """The next piece of a tool call's arguments (JSON text)."""

    index: int
    arguments: str


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an answer; always the last event."""

    finish_reason: FinishReason
    stop_sequence: str | None = None
    seed: int = 0
    usage: Usage = Usage()
    cache: CacheUse = CacheUse()
    timings: Timings = Timings()


ChatEvent: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | Finish
"""One step of a streamed chat answer."""


def tokens_per_second(usage: Usage, timings: Timings) -> float:
    """Speed of decoding: tokens after the first over the time they took.

    An answer of one token has no decoding time, so its prefill counts instead.
    """
    if usage.num_generated_tokens > 1 and timings.decode_ms > 0:
        return (usage.num_generated_tokens - 1) * 1000.0 / timings.decode_ms
    total_ms = timings.prefill_ms + timings.decode_ms
    return usage.num_generated_tokens * 1000.0 / total_ms if total_ms > 0 else 0.0
