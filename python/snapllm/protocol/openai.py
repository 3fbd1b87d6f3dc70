"""OpenAI's chat completions: requests in, answers and chunks out.

Reference: OpenAI API, "Chat" and "Chat streaming". `reasoning_content` and
`tokens_per_second` are extensions.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from typing_extensions import TypedDict

from snapllm.conversation import continues
from snapllm.errors import InvalidRequestError
from snapllm.outputs import (
    ChatEvent,
    ChatResult,
    Completion,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    Usage,
    tokens_per_second,
)
from snapllm.params import DEFAULT_MAX_TOKENS, ChatRequest
from snapllm.protocol.answer_forms import answer_form
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.listed_models import ListedModel
from snapllm.protocol.openai_functions import (
    FunctionStream,
    function_object,
    read_functions,
    read_messages,
    refuse_mixed,
)
from snapllm.protocol.openai_logprobs import ChatLogprobs, logprob_objects
from snapllm.protocol.openai_sampling import sampling_options, token_limit
from snapllm.protocol.openai_tools import CallStream, call_object, custom_names, read_tools
from snapllm.protocol.openai_types import (
    ChatCompletionRequest,
    ReasoningEffort,
    StreamOptions,
)

if TYPE_CHECKING:
    from snapllm.protocol.openai_answer_types import (
        AnswerMessage,
        ChatChoice,
        ChatCompletionAnswer,
        CompletionUsage,
        OpenAiModel,
        OpenAiModelList,
    )
    from snapllm.protocol.stream_types import ChatChunk, ChatChunkChoice, ChatDelta, PieceUsage

_decoder = msgspec.json.Decoder(ChatCompletionRequest)
_encode = msgspec.json.encode


class Parsed(msgspec.Struct, frozen=True):
    """A request and how its answer is to be written."""

    request: ChatRequest
    stream: bool
    include_usage: bool
    custom_tools: frozenset[str] = frozenset()
    """The names of those of its tools that are no functions."""
    has_functions: bool = False
    """Whether its tools are `functions`, and a call is a `function_call`."""
    has_running_usage: bool = False
    """Whether each chunk brings the usage so far."""
    shown_stops: tuple[str, ...] = ()
    """The stop strings that belong to the answer that they end."""
    grammar_field: str = ""
    """Where the grammar stands that it must match."""


def parse_chat(body: bytes, *, default_max_tokens: int = DEFAULT_MAX_TOKENS) -> Parsed:
    """Reads the body of POST /v1/chat/completions.

    Args:
        body: The body.
        default_max_tokens: How long an answer gets at most where the request does not say.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
    """
    wire = decode_body(body, _decoder)
    _refuse_unsupported(wire)
    messages = list(read_messages(wire.messages))
    has_functions = bool(wire.functions) or wire.function_call is not None
    tools, mode = read_functions(wire) if has_functions else read_tools(wire)
    thinking, template_kwargs = thinking_options(wire.reasoning_effort, wire.chat_template_kwargs)
    form = answer_form(wire)
    if form.grammar and tools and mode != "none":
        message = f"{form.field} cannot be used with tools"
        raise InvalidRequestError(message, param=form.field)
    num_logprobs = (wire.top_logprobs or 0) if wire.logprobs else None
    request = ChatRequest(
        model=wire.model,
        messages=messages,
        tools=tools,
        tool_choice=mode,
        parallel_tool_calls=wire.parallel_tool_calls is not False and not has_functions,
        continue_final_message=continues(
            messages, wire.continue_final_message, mode, form.json_schema
        ),
        # A grammar is of all that is said.
        thinking=thinking and not form.grammar,
        json_schema=form.json_schema,
        json_schema_field=form.field if form.json_schema else "",
        template_kwargs=template_kwargs,
        sampling=sampling_options(wire, num_logprobs, form.grammar),
        max_tokens=token_limit(wire, default_max_tokens),
        stop=_stop(wire),
        n=wire.n or 1,
    )
    options = wire.stream_options or StreamOptions()
    return Parsed(
        request,
        bool(wire.stream),
        bool(options.include_usage),
        custom_names(wire),
        has_functions,
        bool(options.include_usage and options.continuous_usage_stats),
        request.stop if wire.include_stop_str_in_output else (),
        form.field,
    )


def _refuse_unsupported(wire: ChatCompletionRequest) -> None:
    refuse_mixed(wire)
    if wire.modalities and set(wire.modalities) != {"text"}:
        raise InvalidRequestError("only text answers are supported", param="modalities")
    if wire.audio is not None:
        raise InvalidRequestError("only text answers are supported", param="audio")
    if wire.web_search_options is not None:
        param = "web_search_options"
        raise InvalidRequestError(f"{param}: the server cannot search the web", param=param)
    if wire.moderation is not None:
        param = "moderation"
        raise InvalidRequestError(f"{param}: the server judges no texts", param=param)
    if wire.top_logprobs and not wire.logprobs:
        raise InvalidRequestError("top_logprobs requires logprobs", param="top_logprobs")


def thinking_options(
    effort: ReasoningEffort | None, template_kwargs: Mapping[str, Any] | None = None
) -> tuple[bool, dict[str, Any]]:
    """Whether the model thinks first, and the template's variables, among them the effort.

    Args:
        effort: What is asked for; None = nothing, and no thinking.
        template_kwargs: The variables that the client gives; `enable_thinking` decides.

    Raises:
        InvalidRequestError: `enable_thinking` is no boolean.
    """
    kwargs = dict(template_kwargs or {})
    thinking = kwargs.pop("enable_thinking", None)
    if thinking is not None and not isinstance(thinking, bool):
        param = "chat_template_kwargs.enable_thinking"
        raise InvalidRequestError(f"{param} must be a boolean", param=param)
    if effort is not None and thinking is not False:
        kwargs["reasoning_effort"] = effort
    return effort not in (None, "none", "minimal") if thinking is None else thinking, kwargs


def _stop(wire: ChatCompletionRequest) -> tuple[str, ...]:
    if wire.stop is None:
        return ()
    return (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop)


def stop_text(end: Finish | ChatResult | Completion, shown_stops: Collection[str]) -> str:
    """What follows an answer's text: the stop string that ended it, where it is one to show."""
    stop = end.stop_sequence
    return stop if stop is not None and stop in shown_stops else ""


def usage_object(usage: Usage, speed: float | None = None) -> CompletionUsage:
    """The `usage` of an answer; without a speed, of an answer so far."""
    counts: CompletionUsage = {
        "prompt_tokens": usage.num_prompt_tokens,
        "completion_tokens": usage.num_generated_tokens,
        "total_tokens": usage.num_prompt_tokens + usage.num_generated_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.num_cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.num_reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    if speed is not None:
        counts["tokens_per_second"] = round(speed, 2)
    return counts


def add_usage(answers: Sequence[Finish | ChatResult]) -> tuple[Usage, float]:
    """Usage and speed of a request with several answers: the prompt counts once."""
    usage = Usage(
        num_prompt_tokens=answers[0].usage.num_prompt_tokens,
        num_cached_tokens=answers[0].usage.num_cached_tokens,
        num_generated_tokens=sum(a.usage.num_generated_tokens for a in answers),
        num_reasoning_tokens=sum(a.usage.num_reasoning_tokens for a in answers),
    )
    return usage, sum(tokens_per_second(a.usage, a.timings) for a in answers)


def _logprobs_object(entries: list[TokenLogprob]) -> ChatLogprobs:
    return {"content": logprob_objects(entries), "refusal": None}


def _message(
    result: ChatResult,
    custom_tools: Collection[str],
    shown_stops: Collection[str],
    *,
    has_functions: bool,
) -> AnswerMessage:
    content = result.content + stop_text(result, shown_stops)
    message: AnswerMessage = {
        "role": "assistant",
        "content": None if result.tool_calls and not content else content,
        "refusal": None,
    }
    if result.reasoning:
        message["reasoning_content"] = result.reasoning
    if result.tool_calls and has_functions:
        message["function_call"] = function_object(result.tool_calls)
    elif result.tool_calls:
        message["tool_calls"] = [call_object(call, custom_tools) for call in result.tool_calls]
    return message


class _Head(TypedDict):
    """What chunks begin with."""

    id: str
    object: Literal["chat.completion.chunk"]
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
        custom_tools: Collection[str] = (),
        *,
        has_functions: bool = False,
        include_usage: bool = False,
        has_logprobs: bool = False,
        shown_stops: Collection[str] = (),
    ) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self._model = model
        self._usage: PieceUsage = {"usage": None} if include_usage else {}
        self._custom_tools = custom_tools
        self._has_functions = has_functions
        self._has_logprobs = has_logprobs
        self._shown_stops = shown_stops
        self._calls: dict[int, CallStream | FunctionStream] = {}
        self._around_content: dict[int, tuple[bytes, bytes]] = {}
        self._have_content: set[int] = set()
        self._created = int(time.time())

    def response(self, results: list[ChatResult]) -> bytes:
        """The body of an answer that is not streamed, one choice per result."""
        choices: list[ChatChoice] = [
            {
                "index": index,
                "message": _message(
                    result,
                    self._custom_tools,
                    self._shown_stops,
                    has_functions=self._has_functions,
                ),
                "logprobs": _logprobs_object(result.logprobs) if self._has_logprobs else None,
                "finish_reason": self._reason(result.finish_reason),
            }
            for index, result in enumerate(results)
        ]
        body: ChatCompletionAnswer = {
            "id": self.id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
            "choices": choices,
            "usage": usage_object(*add_usage(results)),
        }
        return _encode(body)

    def count(self, usage: Usage) -> None:
        """Makes the next chunks say how many tokens there are so far."""
        self._usage = {"usage": usage_object(usage)}
        self._around_content.clear()

    def first_chunk(self, index: int) -> bytes:
        """The chunk that opens a choice: without a content, which calls leave empty."""
        return self._chunk(index, {"role": "assistant"})

    def chunks(self, index: int, event: ChatEvent) -> list[bytes]:
        """The chunks of an event; an event may bring nothing that can be written yet."""
        if isinstance(event, TextDelta):
            return [self._text_chunk(index, event)]
        if isinstance(event, ReasoningDelta):
            return [self._chunk(index, {"reasoning_content": event.text})]
        calls = self._calls.get(index)
        if calls is None:
            is_old = self._has_functions
            calls = FunctionStream() if is_old else CallStream(self._custom_tools)
            self._calls[index] = calls
        deltas = calls.rest() if isinstance(event, Finish) else calls.deltas(event)
        chunks = [self._chunk(index, delta) for delta in deltas]
        if isinstance(event, Finish):
            if stop := stop_text(event, self._shown_stops):
                chunks.append(self._text_chunk(index, TextDelta(stop)))
            is_empty = index not in self._have_content and not calls.has_begun
            delta: ChatDelta = {"content": ""} if is_empty else {}
            chunks.append(self._chunk(index, delta, reason=self._reason(event.finish_reason)))
        return chunks

    def usage_chunk(self, finishes: list[Finish]) -> bytes:
        """The last chunk of a stream whose client asked for usage."""
        usage = usage_object(*add_usage(finishes))
        chunk: ChatChunk = {**self._head(), "choices": [], "usage": usage}
        return _encode(chunk)

    def _reason(self, reason: FinishReason) -> str:
        return "function_call" if reason == "tool_calls" and self._has_functions else reason

    def _head(self) -> _Head:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
        }

    def _text_chunk(self, index: int, event: TextDelta) -> bytes:
        """The chunk of a piece of content. Those of one choice differ in nothing else: most are
        not encoded anew."""
        self._have_content.add(index)
        around = self._around_content.get(index)
        if around is None:
            mark = b'"content":""'  # not in a string, whose quotes are escaped
            before, _, after = self._chunk(index, {"content": ""}).partition(mark)
            around = self._around_content[index] = (before + b'"content":', after)
        if event.logprobs:
            return self._chunk(index, {"content": event.text}, list(event.logprobs))
        return around[0] + _encode(event.text) + around[1]

    def _chunk(
        self,
        index: int,
        delta: ChatDelta,
        logprobs: list[TokenLogprob] | None = None,
        reason: str | None = None,
    ) -> bytes:
        choice: ChatChunkChoice = {"index": index, "delta": delta, "finish_reason": reason}
        if logprobs:
            choice["logprobs"] = _logprobs_object(logprobs)
        chunk: ChatChunk = {**self._head(), "choices": [choice], **self._usage}
        return _encode(chunk)


def models_object(models: Sequence[ListedModel]) -> bytes:
    """The body of GET /v1/models."""
    body: OpenAiModelList = {"object": "list", "data": [_model(model) for model in models]}
    return _encode(body)


def model_object(model: ListedModel) -> bytes:
    """The body of GET /v1/models/{id}."""
    return _encode(_model(model))


def _model(model: ListedModel) -> OpenAiModel:
    told: OpenAiModel = {
        "id": model.id,
        "object": "model",
        "created": model.loaded_at,
        "owned_by": "local",
    }
    if model.context_size is not None:
        told["max_model_len"] = model.context_size
    return told
