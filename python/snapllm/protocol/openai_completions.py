"""OpenAI's legacy completions: a prompt is continued as it is.

Reference: OpenAI API, "Create completion".
"""

from __future__ import annotations

import codecs
import math
import secrets
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta
from typing_extensions import TypedDict

from snapllm._numbers import INT32_MAX, TokenId
from snapllm.errors import InvalidRequestError
from snapllm.outputs import (
    Completion,
    CompletionChunk,
    Finish,
    TokenAlternative,
    TokenLogprob,
    Usage,
    tokens_per_second,
)
from snapllm.params import (
    CompletionRequest,
    MinP,
    MinTokens,
    ModelName,
    Penalty,
    RepeatPenalty,
    Seed,
    StopList,
    StopSequence,
    Temperature,
    TopP,
)
from snapllm.protocol.answer_forms import answer_form
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.openai import stop_text, usage_object
from snapllm.protocol.openai_sampling import sampling_options, token_limit
from snapllm.protocol.openai_types import (
    Choices,
    LogitBias,
    NumChoices,
    NumPredicted,
    ResponseFormat,
    StreamOptions,
    StructuredOutputs,
    TopKOrAll,
)

if TYPE_CHECKING:
    from snapllm.protocol.openai_answer_types import (
        CompletionAnswer,
        CompletionChoice,
        CompletionLogprobs,
        CompletionUsage,
    )
    from snapllm.protocol.stream_types import CompletionPiece, PieceUsage

_encode = msgspec.json.encode
_new_decoder = partial(codecs.getincrementaldecoder("utf-8"), "replace")
_MAX_LEAD = 8  # tokens in which a prompt's first character is whole, whatever comes before it
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's own."""
MAX_CHOICES = 256


class CompletionsRequest(msgspec.Struct, kw_only=True):
    """The body of POST /v1/completions."""

    model: ModelName
    prompt: str | list[str | TokenId | list[TokenId]]
    max_tokens: Annotated[int, Meta(ge=0, le=INT32_MAX)] | None = None
    """0 = nothing is generated: for the log probabilities of the prompt, with `echo`."""
    n_predict: NumPredicted | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopKOrAll | None = None
    min_p: MinP | None = None
    repeat_penalty: RepeatPenalty | None = None
    repetition_penalty: RepeatPenalty | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    ignore_eos: bool | None = None
    min_tokens: MinTokens | None = None
    stop: StopSequence | StopList | None = None
    include_stop_str_in_output: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: NumChoices | None = None
    best_of: NumChoices | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, LogitBias] | None = None
    echo: bool | None = None
    suffix: str | None = None
    grammar: str | None = None
    response_format: ResponseFormat | None = None
    json_schema: dict[str, Any] | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_choice: Choices | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    regex: str | None = None
    ebnf: str | None = None


_decoder = msgspec.json.Decoder(CompletionsRequest)


class Parsed(msgspec.Struct, frozen=True):
    """A request, one for each prompt, and how its answer is to be written."""

    requests: list[CompletionRequest]
    has_echo: bool
    """Whether the prompt goes before each answer to it."""
    stream: bool
    include_usage: bool
    num_choices: int = 1
    """Answers to each prompt that are returned, the best of all that there are."""
    has_logprobs: bool = False
    has_running_usage: bool = False
    """Whether each chunk brings the usage so far."""
    shown_stops: tuple[str, ...] = ()
    """The stop strings that belong to the answer that they end."""
    grammar_field: str = ""
    """Where the grammar stands that it must match."""


def parse(body: bytes) -> Parsed:
    """Reads the body of POST /v1/completions.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
    """
    wire = decode_body(body, _decoder)
    num_choices = wire.n or 1
    num_answers = _num_answers(wire, num_choices)
    prompts = _prompts(wire.prompt)
    if len(prompts) * num_answers > MAX_CHOICES:
        raise InvalidRequestError(f"more than {MAX_CHOICES} choices", param="prompt")
    if wire.echo and wire.suffix:
        raise InvalidRequestError("echo does not go with a suffix", param="echo")
    has_prompt_logprobs = wire.echo and wire.logprobs is not None
    stop = (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ())
    form = answer_form(wire)
    is_compared = num_answers > num_choices
    num_logprobs = 0 if wire.logprobs is None and is_compared else wire.logprobs
    sampling = sampling_options(wire, num_logprobs, form.grammar)
    requests = [
        CompletionRequest(
            model=wire.model,
            prompt=prompt,
            suffix=wire.suffix or "",
            sampling=sampling,
            max_tokens=token_limit(wire, DEFAULT_COMPLETION_TOKENS),
            stop=stop,
            n=num_answers,
            num_prompt_logprobs=wire.logprobs or 0 if has_prompt_logprobs else -1,
            json_schema=form.json_schema,
            json_schema_field=form.field,
        )
        for prompt in prompts
    ]
    options = wire.stream_options or StreamOptions()
    return Parsed(
        requests,
        bool(wire.echo),
        bool(wire.stream),
        bool(options.include_usage),
        num_choices,
        wire.logprobs is not None,
        bool(options.include_usage and options.continuous_usage_stats),
        stop if wire.include_stop_str_in_output else (),
        form.field,
    )


def _num_answers(wire: CompletionsRequest, num_choices: int) -> int:
    """How many answers to each prompt are generated.

    Raises:
        InvalidRequestError: Fewer than are returned, or not all of them and streamed.
    """
    num_answers = num_choices if wire.best_of is None else wire.best_of
    fault = ""
    if num_answers < num_choices:
        fault = "best_of must not be less than n"
    elif num_answers > num_choices and wire.stream:
        fault = "best_of: which answers are the best is known at their end; they cannot be streamed"
    if fault:
        raise InvalidRequestError(fault, param="best_of")
    return num_answers


def _prompts(prompt: str | list[str | int | list[int]]) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise InvalidRequestError("prompt must not be empty", param="prompt")
    tokens = [part for part in prompt if isinstance(part, int)]
    if len(tokens) == len(prompt):
        return [tokens]
    if tokens:
        raise InvalidRequestError("prompt mixes tokens and texts", param="prompt")
    return [part for part in prompt if not isinstance(part, int)]


def choose(answers: Sequence[Completion], parsed: Parsed) -> list[Completion]:
    """Those of the answers to a prompt that are returned: where not all are, the ones with the
    highest log probability per token, the best first."""
    if len(answers) <= parsed.num_choices:
        return list(answers)
    best = sorted(answers, key=_mean_logprob, reverse=True)[: parsed.num_choices]
    if parsed.has_logprobs:
        return best
    return [msgspec.structs.replace(each, logprobs=[]) for each in best]


def _mean_logprob(answer: Completion) -> float:
    """The log probability per token; an answer without any is the worst."""
    logprobs = [entry.logprob for entry in answer.logprobs]
    return math.fsum(logprobs) / len(logprobs) if logprobs else -math.inf


def _token_text(entry: TokenLogprob | TokenAlternative) -> str:
    """A token's text; of one that is no whole characters its bytes, as OpenAI writes them."""
    try:
        return entry.bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry.bytes)


def _lead(tokens: Sequence[bytes], echo: str) -> int:
    """Characters that a tokenizer has put before a prompt: a token, a blank or both."""
    begin = _new_decoder().decode(b"".join(tokens))  # without the beginning of a character
    ends = range(len(begin) if echo else 0)
    return next((i for i in ends if _begin_alike(begin[i:], echo)), 0)


def _begin_alike(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


class _Place:
    """Where in a choice's text its tokens begin, in characters: first the prompt's, in its echo."""

    def __init__(self, echo: str = "") -> None:
        self._echo = echo
        self._decoder = _new_decoder()
        self._num_characters = 0
        self._lead: int | None = None  # as soon as the prompt has begun
        self._is_answer = False

    def of_prompt(self, tokens: Sequence[bytes]) -> list[int]:
        """Where the prompt's next tokens begin."""
        if self._lead is None and tokens:
            self._lead = _lead(tokens[:_MAX_LEAD], self._echo)
        lead = self._lead or 0
        return [max(0, begin - lead) for begin in map(self._take, tokens)]

    def of_answer(self, tokens: Sequence[bytes]) -> list[int]:
        """Where the answer's next tokens begin, which follows the echo."""
        if tokens and not self._is_answer:
            self._is_answer = True
            self._num_characters, self._decoder = len(self._echo), _new_decoder()
        return [self._take(token) for token in tokens]

    def _take(self, token: bytes) -> int:
        begin = self._num_characters
        self._num_characters += len(self._decoder.decode(token))
        return begin


def _top_logprobs(entry: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens by their texts, and the token itself; of two that read alike the
    likelier."""
    found: dict[str, float] = {}
    for each in entry.top:
        found.setdefault(_token_text(each), each.logprob)
    found.setdefault(_token_text(entry), entry.logprob)
    return found


def _logprobs_object(
    prompt: Sequence[TokenLogprob], answer: Sequence[TokenLogprob], place: _Place
) -> CompletionLogprobs:
    entries = [*prompt, *answer]
    follow = [not math.isnan(entry.logprob) for entry in entries]
    return {
        "tokens": [_token_text(entry) for entry in entries],
        "token_logprobs": [
            entry.logprob if follows else None
            for entry, follows in zip(entries, follow, strict=True)
        ],
        "top_logprobs": [
            _top_logprobs(entry) if follows else None
            for entry, follows in zip(entries, follow, strict=True)
        ],
        "text_offset": [
            *place.of_prompt([entry.bytes for entry in prompt]),
            *place.of_answer([entry.bytes for entry in answer]),
        ],
    }


class _Head(TypedDict):
    """What an answer and its chunks begin with."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: None


class Encoder:
    """Writes the answer to one request, whole or as chunks.

    Where the last chunk brings the usage, all others say that they do not, or what it is so far.
    """

    def __init__(
        self,
        model: str,
        *,
        include_usage: bool = False,
        has_logprobs: bool = False,
        shown_stops: Collection[str] = (),
    ) -> None:
        self._has_logprobs = has_logprobs
        self._shown_stops = shown_stops
        self._usage: PieceUsage = {"usage": None} if include_usage else {}
        self._id = f"cmpl-{secrets.token_hex(12)}"
        self._model = model
        self._created = int(time.time())
        self._places: defaultdict[int, _Place] = defaultdict(_Place)  # of the choices
        self._owed: dict[int, str] = {}  # what of a choice's prompt is yet to be repeated

    def response(self, results: Sequence[tuple[str, Completion]], usage: CompletionUsage) -> bytes:
        """The body of an answer that is not streamed; each result with its echo."""
        choices: list[CompletionChoice] = [
            {
                "index": index,
                "text": echo + result.text + stop_text(result, self._shown_stops),
                # An answer that is over at once has them, too: none.
                "logprobs": _logprobs_object(result.prompt_logprobs, result.logprobs, _Place(echo))
                if self._has_logprobs
                else None,
                "finish_reason": result.finish_reason,
            }
            for index, (echo, result) in enumerate(results)
        ]
        body: CompletionAnswer = {**self._head(), "choices": choices, "usage": usage}
        return _encode(body)

    def count(self, usage: Usage) -> None:
        """Makes the next chunks say how many tokens there are so far."""
        self._usage = {"usage": usage_object(usage)}

    def echo(self, index: int, text: str) -> Iterator[bytes]:
        """The chunk that repeats the prompt, the first of its choice: none of its own where the
        next one has the log probabilities that belong to it."""
        self._places[index] = _Place(text)
        if self._has_logprobs:
            self._owed[index] = text
        else:
            yield self._chunk(index, text, None, None)

    def chunk(self, index: int, chunk: CompletionChunk) -> bytes:
        """A chunk of one choice."""
        # The tokens' own texts: a stop string may begin within the last.
        logprobs: CompletionLogprobs | None = None
        if chunk.prompt_logprobs or chunk.logprobs:
            logprobs = _logprobs_object(chunk.prompt_logprobs, chunk.logprobs, self._places[index])
        text = self._owed.pop(index, "") + chunk.text
        if chunk.finish is not None:
            text += stop_text(chunk.finish, self._shown_stops)
        return self._chunk(index, text, logprobs, chunk.finish_reason)

    def usage_chunk(self, usage: CompletionUsage) -> bytes:
        """The last chunk of a stream whose client asked for usage."""
        chunk: CompletionPiece = {**self._head(), "choices": [], "usage": usage}
        return _encode(chunk)

    def _head(self) -> _Head:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
        }

    def _chunk(
        self, index: int, text: str, logprobs: CompletionLogprobs | None, reason: str | None
    ) -> bytes:
        choice: CompletionChoice = {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": reason,
        }
        piece: CompletionPiece = {**self._head(), "choices": [choice], **self._usage}
        return _encode(piece)


def add_usage(groups: Sequence[Sequence[Finish | Completion]]) -> CompletionUsage:
    """The usage of all answers; each prompt counts once."""
    answers = [answer for group in groups for answer in group]
    usage = Usage(
        num_prompt_tokens=sum(group[0].usage.num_prompt_tokens for group in groups),
        num_cached_tokens=sum(group[0].usage.num_cached_tokens for group in groups),
        num_generated_tokens=sum(answer.usage.num_generated_tokens for answer in answers),
    )
    return usage_object(usage, sum(tokens_per_second(a.usage, a.timings) for a in answers))
