"""From neutral requests to what the C++ core takes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import msgspec

from snapllm import _core
from snapllm._json import encode_json, plain_json
from snapllm._media import MediaLoader, MediaPolicy
from snapllm._numbers import INT64_MAX
from snapllm._schema_types import with_types
from snapllm.conversation import (
    ContentPart,
    Message,
    Tool,
    has_media,
    render_messages,
    render_tools,
)
from snapllm.errors import InvalidRequestError, SnapLLMError
from snapllm.params import UNLIMITED, ChatRequest, CompletionRequest, SamplingOptions

QUICK_CHARS = 4096
MESSAGE_CHARS = 100  # what a message costs beside its text
_TEMPLATE_FAULT = re.compile(
    r"\n-+\nWhile executing (\w+ at line \d+, column \d+) in source:\n.*\nError: (.*)", re.DOTALL
)


class Lowered(msgspec.Struct, frozen=True):
    """A request that is ready for submission: formatted, tokenised and checked."""

    model: str
    tokens: list[int]
    sampling: SamplingOptions
    max_tokens: int
    stop: tuple[str, ...]
    n: int
    chat: _core.ChatPrompt | None = None
    is_plain: bool = False
    """Whether all of a chat's answer is said, whatever the format would read in it."""
    num_prompt_logprobs: int = -1
    reuse_prefix: bool = True
    cache_namespace: str = ""

    def core_requests(self, *, stream: bool) -> Iterator[_core.GenerateRequest]:
        """One request for each of the `n` answers; with a seed, each its own.

        Without `stream` each has a single output, at its end.
        """
        for index in range(self.n):
            options = msgspec.structs.asdict(self.sampling)
            options["logit_bias"] = list(self.sampling.logit_bias)
            if self.sampling.seed >= 0:
                options["seed"] = (self.sampling.seed + index) % (INT64_MAX + 1)
            request = _core.GenerateRequest(
                model_id=self.model,
                prompt=self.tokens,
                sampling=_core.SamplingParams(**options),
                # The core has a way of its own to generate nothing.
                max_tokens=self.max_tokens or UNLIMITED,
                prefill_only=self.max_tokens == 0,
                stop=list(self.stop),
                is_plain=self.is_plain,
                num_prompt_logprobs=self.num_prompt_logprobs,
                reuse_prefix=self.reuse_prefix,
                cache_namespace=self.cache_namespace,
                stream=stream,
            )
            if self.chat is not None:
                request.chat = self.chat
            yield request


def lower_chat(
    core: _core.Engine,
    request: ChatRequest,
    policy: MediaPolicy | None = None,
    *,
    may_wait: bool = True,
) -> Lowered:
    """Formats and tokenises a chat. May take milliseconds, with images longer, and seconds
    where the policy lets it fetch them; releases the GIL.

    Args:
        core: The engine's core.
        request: The chat.
        policy: What media it may bring.
        may_wait: Wait where the model has to come back; else `ModelNotFoundError` is raised then.
    """
    media = _media_loader(core, request, policy or MediaPolicy())
    messages_json = render_messages(request.messages, media.place)
    return _format(core, request, messages_json, media.inputs, media.marker, may_wait=may_wait)


def lower_marked(
    core: _core.Engine, request: ChatRequest, beginnings: list[list[Message]], policy: MediaPolicy
) -> tuple[Lowered, list[int]]:
    """`lower_chat`, and how many of the prompt's tokens each beginning of the chat makes up.

    Args:
        core: The engine's core.
        request: The chat.
        beginnings: Each the chat's first messages; the last of them may be cut short.
        policy: See `lower_chat`.
    """
    media = _media_loader(core, request, policy)
    messages_json = render_messages(request.messages, media.place)
    lowered = _format(core, request, messages_json, media.inputs, media.marker)

    def num_tokens_of(beginning: list[Message]) -> int:
        # What the beginning shows is what all of it shows first: read already.
        shown = iter(media.inputs)
        inputs: list[_core.MediaInput] = []

        def place(_part: ContentPart, _where: str) -> str:
            inputs.append(next(shown))
            return media.marker

        try:
            beginning_json = render_messages(beginning, place)
            begun = msgspec.structs.replace(request, continue_final_message=False)
            part = _format(core, begun, beginning_json, inputs, media.marker)
        except SnapLLMError:
            return len(lowered.tokens)  # the template takes no such conversation
        return _num_common(lowered.tokens, part.tokens)

    return lowered, [num_tokens_of(beginning) for beginning in beginnings]


def _num_common(some: list[int], others: list[int]) -> int:
    pairs = zip(some, others, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(some), len(others)))


def _format(
    core: _core.Engine,
    request: ChatRequest,
    messages_json: str,
    media: list[_core.MediaInput],
    marker: str,
    *,
    may_wait: bool = True,
) -> Lowered:
    format_request = _core.ChatFormatRequest(
        messages_json=messages_json,
        tools_json=render_tools(request.tools) if request.tool_choice != "none" else "",
        tool_choice="required" if request.tool_choice == "one" else request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls and request.tool_choice != "one",
        continue_final_message=request.continue_final_message,
        enable_thinking=request.thinking,
        thinking_budget_tokens=request.thinking_budget_tokens,
        json_schema=request.json_schema,
        # Of a chat's rules, only those of tools know a grammar, and refuse it.
        grammar=request.sampling.grammar if request.tools else "",
        media=media,
        media_marker=marker,
        template_kwargs=[
            (name, _template_value(value, f"template_kwargs.{name}"))
            for name, value in request.template_kwargs.items()
        ],
        cache_namespace=request.cache_namespace,
    )
    if request.sampling.grammar and request.json_schema:
        raise InvalidRequestError("grammar cannot be used with a json_schema", param="grammar")
    with _naming_schema(request.json_schema_field), _naming_template():
        prompt = _format_chat(core, request, format_request, may_wait)
    return Lowered(
        model=request.model,
        tokens=prompt.tokens,
        sampling=request.sampling,
        max_tokens=request.max_tokens,
        stop=request.stop,
        n=request.n,
        reuse_prefix=request.reuse_prefix,
        cache_namespace=request.cache_namespace,
        chat=prompt,
        # Some templates begin every answer with reasoning: what the grammar holds would be that.
        is_plain=bool(request.sampling.grammar) and not request.thinking,
    )


def _format_chat(
    core: _core.Engine,
    request: ChatRequest,
    format_request: _core.ChatFormatRequest,
    may_wait: bool,
) -> _core.ChatPrompt:
    """As the core formats it; where the template can show no tools as they are, with a plain type
    for each of their properties."""
    try:
        return core.format_chat(request.model, format_request, may_wait)
    except InvalidRequestError as error:
        if not format_request.tools_json or _TEMPLATE_FAULT.search(error.message) is None:
            raise
        refused = error
    typed = render_tools([_with_types(tool) for tool in request.tools])
    if typed == format_request.tools_json:
        raise refused
    format_request.tools_json = typed
    try:
        return core.format_chat(request.model, format_request, may_wait)
    except InvalidRequestError:
        raise refused from None


def _with_types(tool: Tool) -> Tool:
    function = tool.function
    if not function.parameters:
        return tool
    return Tool(msgspec.structs.replace(function, parameters=with_types(function.parameters)))


def _template_value(value: object, field: str) -> str:
    return encode_json(plain_json(value, field), field)


def is_quick(request: ChatRequest | CompletionRequest) -> bool:
    """Whether lowering takes so little of a thread's time (half a millisecond or so) that an
    event loop may do it itself: a short text, and nothing to compile."""
    if request.sampling.grammar or request.n > 1:
        return False
    if request.json_schema:
        return False
    if isinstance(request, CompletionRequest):
        return len(request.prompt) + len(request.suffix) <= QUICK_CHARS
    if request.tools or request.template_kwargs:
        return False
    if MESSAGE_CHARS * len(request.messages) > QUICK_CHARS or has_media(request.messages):
        return False
    if any(message.tool_calls for message in request.messages):
        return False
    return sum(map(_num_chars, request.messages)) <= QUICK_CHARS


def _num_chars(message: Message) -> int:
    content = message.content or ""
    texts = [message.name, message.reasoning_content, message.refusal]
    if isinstance(content, str):
        texts.append(content)
    else:
        texts += [text for part in content for text in (part.text, part.refusal)]
        texts += [part.file.file_data for part in content if part.file is not None]
    return MESSAGE_CHARS + sum(len(text) for text in texts if text)


def _media_loader(core: _core.Engine, request: ChatRequest, policy: MediaPolicy) -> MediaLoader:
    """Refuses, with their names, the media that the model does not take."""
    if not has_media(request.messages):
        return MediaLoader(policy)
    info = core.model_info(request.model)
    return MediaLoader(policy, takes_images=info.has_vision, takes_audio=info.has_audio)


def lower_completion(
    core: _core.Engine, request: CompletionRequest, *, may_wait: bool = True
) -> Lowered:
    """Tokenises a plain prompt. May take milliseconds; releases the GIL. See `lower_chat`."""
    return Lowered(
        model=request.model,
        tokens=_completion_tokens(core, request, may_wait),
        sampling=_held_to_schema(request),
        max_tokens=request.max_tokens,
        stop=request.stop,
        n=request.n,
        num_prompt_logprobs=request.num_prompt_logprobs,
        reuse_prefix=request.reuse_prefix,
        cache_namespace=request.cache_namespace,
    )


def _held_to_schema(request: CompletionRequest) -> SamplingOptions:
    if not request.json_schema:
        return request.sampling
    if request.sampling.grammar:
        raise InvalidRequestError("grammar cannot be used with a json_schema", param="grammar")
    with _naming_schema(request.json_schema_field):
        grammar = _core.schema_grammar(request.json_schema)
    return msgspec.structs.replace(request.sampling, grammar=grammar)


@contextlib.contextmanager
def _naming_schema(field: str) -> Iterator[None]:
    """Names the field of the request that a refused schema stands in."""
    try:
        yield
    except InvalidRequestError as error:
        if error.param != "json_schema":
            raise
        message = error.message.replace("json_schema", field, 1)
        raise InvalidRequestError(message, param=field) from None


@contextlib.contextmanager
def _naming_template() -> Iterator[None]:
    """Says that it is the chat template that takes no such chat, where llama.cpp tells nothing but
    which of its lines failed."""
    try:
        yield
    except InvalidRequestError as error:
        fault = _TEMPLATE_FAULT.search(error.message)
        if fault is None:
            raise
        place, reason = fault.groups()
        # What a template refuses by itself is said for people to read.
        said = reason.removeprefix("Jinja Exception: ")
        where = f" ({place})" if said == reason else ""
        message = f"the model's chat template does not take this chat: {said}{where}"
        raise InvalidRequestError(message, param=error.param) from None


def _completion_tokens(core: _core.Engine, request: CompletionRequest, may_wait: bool) -> list[int]:
    prompt = request.prompt
    if not request.suffix:
        if not isinstance(prompt, str):
            return prompt
        return core.tokenize(request.model, prompt, may_wait=may_wait)
    if not isinstance(prompt, str):
        raise InvalidRequestError("a suffix goes with a prompt of text only", param="suffix")
    try:
        return core.tokenize_infill(request.model, prompt, request.suffix, may_wait)
    except InvalidRequestError as error:
        error.param = "suffix"
        raise
