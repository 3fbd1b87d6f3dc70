"""From the core's outputs to events and results."""

from __future__ import annotations

import codecs
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from snapllm import _core
from snapllm.outputs import (
    CacheUse,
    ChatEvent,
    ChatResult,
    Completion,
    CompletionChunk,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenAlternative,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)


def _logprobs(entries: list[_core.TokenLogprobs]) -> tuple[TokenLogprob, ...]:
    if not entries:  # as a rule
        return ()
    return tuple(
        TokenLogprob(
            entry.token,
            entry.bytes,
            entry.logprob,
            tuple(TokenAlternative(a.token, a.bytes, a.logprob) for a in entry.top),
        )
        for entry in entries
    )


def _finish(
    output: _core.RequestOutput, *, has_tool_calls: bool = False, num_reasoning_tokens: int = 0
) -> Finish:
    """The end of an answer.

    Raises:
        SnapLLMError: The request failed.
    """
    if output.error is not None:
        raise output.error
    core_reason = output.finish_reason
    reason: FinishReason
    if core_reason == "stop" and has_tool_calls:
        reason = "tool_calls"
    elif core_reason == "length" or (core_reason == "stop" and output.num_generated_tokens == 0):
        # Whatever stops an answer is a token: without one, none was allowed.
        reason = "length"
    else:
        reason = "stop"
    timings, cache = output.timings, output.cache
    return Finish(
        finish_reason=reason,
        stop_sequence=output.stop_sequence or None,
        seed=output.seed,
        usage=Usage(
            num_prompt_tokens=output.num_prompt_tokens,
            num_cached_tokens=output.num_cached_tokens,
            num_generated_tokens=output.num_generated_tokens,
            num_reasoning_tokens=num_reasoning_tokens,
        ),
        cache=CacheUse(
            num_hot_tokens=cache.num_hot_tokens,
            num_warm_tokens=cache.num_warm_tokens,
            num_cold_tokens=cache.num_cold_tokens,
            restore_ms=cache.restore_ms,
            differs_at=cache.differs_at if cache.differs_at >= 0 else None,
            cached_token=cache.cached_token if cache.cached_token >= 0 else None,
        ),
        timings=Timings(
            queue_ms=timings.queue_ms,
            prefill_ms=timings.prefill_ms,
            decode_ms=timings.decode_ms,
        ),
    )


def _mended_place(text: str, data: bytes) -> tuple[int, int]:
    """Where in the data a text begins and ends that has U+FFFD for what is no UTF-8 there."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    characters: list[str] = []
    ends: list[int] = []  # of each, in the data
    for i in range(len(data) + 1):
        mended = decoder.decode(data[i : i + 1], final=i == len(data))
        end = min(i + 1, len(data)) - len(decoder.getstate()[0])
        # Before a last one of a single byte may come what that byte put an end to.
        ends += range(end - len(mended) + 1, end + 1)
        characters += mended
    start = "".join(characters).find(text)
    if start < 0:
        return 0, len(data)
    return ends[start - 1] if start > 0 else 0, ends[start + len(text) - 1]


def _meet(some: bytes, others: bytes) -> bool:
    """Whether both begin alike, as far as the shorter one goes, and neither is empty."""
    length = min(len(some), len(others))
    return length > 0 and some[:length] == others[:length]


def _follow(text: bytes, pieces: Sequence[bytes], start: int) -> list[int] | None:
    """The pieces from `start` on that the text is made of, others between them left out."""
    found: list[int] = []
    place = 0
    for i in range(start, len(pieces)):
        if place == len(text):
            break
        if _meet(pieces[i], text[place : place + len(pieces[i])]):
            found.append(i)
            place = min(place + len(pieces[i]), len(text))
    return found if place == len(text) else None


def _pieces_of(text: bytes, pieces: Sequence[bytes]) -> list[int] | None:
    """The pieces that a text is made of, where others lie between them; the last of them may be
    more than the text's end."""
    max_starts = 16
    starts = [i for i, piece in enumerate(pieces) if _meet(piece, text)]
    followed = (_follow(text, pieces, start) for start in starts[:max_starts])
    return next((found for found in followed if found is not None), None)


class _LogprobMatcher:
    """Finds the tokens that a piece of content was made of, by their bytes.

    The parser holds text back and takes markup and reasoning out, so tokens arrive
    before, and are more than, the content they belong to.
    """

    def __init__(self) -> None:
        self._entries: list[TokenLogprob] = []
        self._rest = b""  # of the last taken token, for the next piece

    def add(self, entries: tuple[TokenLogprob, ...]) -> None:
        """Adds tokens that were generated."""
        self._entries.extend(entries)

    def take(self, text: str, *, with_skipped: bool = False) -> tuple[TokenLogprob, ...]:
        """The tokens of the next piece of text; those before it are dropped, or taken too."""
        if not self._entries:
            return ()
        wanted = text.encode()
        pieces = [self._rest, *(entry.bytes for entry in self._entries)]
        data = b"".join(pieces)
        start = self._find(wanted, data)
        if start < 0 and not with_skipped:
            found = _pieces_of(wanted, pieces)  # control tokens among them are no text
            if found is not None:
                return self._take_pieces(found, len(wanted) - sum(len(pieces[i]) for i in found))
        first, last = (start, start + len(wanted)) if start >= 0 else _mended_place(text, data)
        self._rest = b""
        taken: list[TokenLogprob] = []
        left: list[TokenLogprob] = []
        offset = len(data) - sum(len(entry.bytes) for entry in self._entries)
        for entry in self._entries:
            begin, offset = offset, offset + len(entry.bytes)
            if begin >= last:
                left.append(entry)
            elif with_skipped or offset > first:
                taken.append(entry)
                self._rest = data[last:offset]
        self._entries = left
        return tuple(taken)

    def _take_pieces(self, found: list[int], overhang: int) -> tuple[TokenLogprob, ...]:
        """Takes these pieces, the rest of the token before being number 0; the last of them is
        more than what was wanted by -overhang."""
        taken = tuple(self._entries[i - 1] for i in found if i > 0)
        last = taken[-1].bytes if taken else self._rest
        self._rest = last[len(last) + overhang :]
        self._entries = self._entries[found[-1] :]
        return taken

    def take_all(self) -> tuple[TokenLogprob, ...]:
        """The tokens that are left."""
        taken, self._entries = tuple(self._entries), []
        return taken

    def _find(self, text: bytes, data: bytes) -> int:
        """Where the text is in the data. Markup may hold it too: it is preferably where a token
        begins, or where the blank that begins one ends."""
        sizes = (len(entry.bytes) for entry in self._entries)
        begins = [0, *accumulate(sizes, initial=len(self._rest))]
        first = start = data.find(text)
        while start >= 0:
            begin = begins[bisect_right(begins, start) - 1]
            if not data[begin:start].strip():
                return start
            start = data.find(text, start + 1)
        return first


class ChatReader:
    """Reads the outputs of one answer to a chat."""

    def __init__(self, prompt: _core.ChatPrompt, *, is_plain: bool = False) -> None:
        """
        Args:
            prompt: What the answer is to.
            is_plain: Whether all of it is said, whatever the format would read in it.
        """
        self._parser = prompt.create_parser()
        self._is_plain = is_plain
        self._has_tool_calls = False
        self._logprobs = _LogprobMatcher()

    def read(self, output: _core.RequestOutput) -> list[ChatEvent]:
        """The events of the next output; raises its error, if it has one."""
        self._logprobs.add(_logprobs(output.logprobs))
        events: list[ChatEvent] = []
        if self._is_plain and output.text:
            events.append(TextDelta(output.text, self._logprobs.take(output.text)))
        for delta in () if self._is_plain else self._parser.push(output):
            kind, text = delta.kind, delta.text
            if kind == "content":
                events.append(TextDelta(text, self._logprobs.take(text)))
            elif kind == "reasoning":
                self._logprobs.take(text)
                events.append(ReasoningDelta(text))
            else:
                events.extend(self._tool_events(delta))
        if output.finish_reason is not None:
            events.append(
                _finish(
                    output,
                    has_tool_calls=self._has_tool_calls,
                    num_reasoning_tokens=self._parser.num_reasoning_tokens,
                )
            )
        return events

    def _tool_events(self, delta: _core.ChatDelta) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        if delta.tool_name:
            self._has_tool_calls = True
            events.append(ToolCallStart(delta.tool_index, delta.tool_id, delta.tool_name))
        if delta.text:
            events.append(ToolCallDelta(delta.tool_index, delta.text))
        return events


class CompletionReader:
    """Reads the outputs of one completion."""

    def __init__(self) -> None:
        self._logprobs = _LogprobMatcher()

    def read(self, output: _core.RequestOutput) -> list[CompletionChunk]:
        """The next output as a chunk; raises its error, if it has one."""
        finish = _finish(output) if output.finish_reason is not None else None
        self._logprobs.add(_logprobs(output.logprobs))
        # Tokens without a text are the answer's too, but not those of what ended it.
        entries = self._logprobs.take(output.text, with_skipped=True) if output.text else ()
        if finish is not None and finish.stop_sequence is None:
            entries += self._logprobs.take_all()
        return [
            CompletionChunk(
                text=output.text,
                tokens=output.tokens,
                logprobs=entries,
                prompt_logprobs=_logprobs(output.prompt_logprobs),
                finish=finish,
            )
        ]


def read_text(output: _core.RequestOutput) -> list[ChatEvent]:
    """The next output of a completion as the events of a chat without a format."""
    events: list[ChatEvent] = []
    logprobs = _logprobs(output.logprobs)
    if output.text or logprobs:
        events.append(TextDelta(output.text, logprobs))
    if output.finish_reason is not None:
        events.append(_finish(output))
    return events


def fold_chat(events: Iterable[ChatEvent]) -> ChatResult:
    """Adds the events of a whole answer up.

    REQUIRES: the last event is a `Finish`.
    """
    content: list[str] = []
    reasoning: list[str] = []
    logprobs: list[TokenLogprob] = []
    starts: list[ToolCallStart] = []
    arguments: list[list[str]] = []
    finish: Finish | None = None
    for event in events:
        if isinstance(event, TextDelta):
            content.append(event.text)
            logprobs.extend(event.logprobs)
        elif isinstance(event, ReasoningDelta):
            reasoning.append(event.text)
        elif isinstance(event, ToolCallStart):
            starts.append(event)
            arguments.append([])
        elif isinstance(event, ToolCallDelta):
            arguments[event.index].append(event.arguments)
        else:
            finish = event
    assert finish is not None
    return ChatResult(
        content="".join(content),
        reasoning="".join(reasoning),
        tool_calls=[
            ToolCall(start.id, start.name, "".join(pieces))
            for start, pieces in zip(starts, arguments, strict=True)
        ],
        finish_reason=finish.finish_reason,
        stop_sequence=finish.stop_sequence,
        logprobs=logprobs,
        seed=finish.seed,
        usage=finish.usage,
        cache=finish.cache,
        timings=finish.timings,
    )


def fold_completion(chunks: Iterable[CompletionChunk]) -> Completion:
    """Adds the chunks of a whole answer up.

    REQUIRES: the last chunk has a `finish`.
    """
    text: list[str] = []
    tokens: list[int] = []
    logprobs: list[TokenLogprob] = []
    prompt_logprobs: list[TokenLogprob] = []
    finish: Finish | None = None
    for chunk in chunks:
        text.append(chunk.text)
        tokens.extend(chunk.tokens)
        logprobs.extend(chunk.logprobs)
        prompt_logprobs.extend(chunk.prompt_logprobs)
        finish = chunk.finish or finish
    assert finish is not None
    return Completion(
        text="".join(text),
        tokens=tokens,
        finish_reason=finish.finish_reason,
        stop_sequence=finish.stop_sequence,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        seed=finish.seed,
        usage=finish.usage,
        cache=finish.cache,
        timings=finish.timings,
    )
