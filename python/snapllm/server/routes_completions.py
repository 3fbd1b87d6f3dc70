"""OpenAI's /v1/completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from aiohttp import web

from snapllm._readers import fold_completion
from snapllm._runner import Answer, Runner
from snapllm.errors import InvalidRequestError, SnapLLMError
from snapllm.outputs import Completion, CompletionChunk, Finish
from snapllm.params import CompletionRequest
from snapllm.protocol import openai_completions as completions_protocol
from snapllm.protocol.error_codes import api_error
from snapllm.server.answers import (
    answering,
    collect_all,
    merge,
    naming_grammar,
    usage_so_far,
    written,
)
from snapllm.server.bodies import read_body
from snapllm.server.keys import engine_of, prepare
from snapllm.server.middleware import json_response, note_answers
from snapllm.server.request_facts import facts_of
from snapllm.server.sse import DONE, event_stream, stream_response

MAX_PROMPT_LOGPROBS = 1_000_000
"""Of all prompts of a request, with the alternatives."""

_Ended = TypeVar("_Ended", Completion, Finish)


async def completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions"""
    parsed = await read_body(request, completions_protocol.parse)
    runner = engine_of(request).runner
    facts_of(request).num_expected = sum(each.n for each in parsed.requests)
    wanted = [await prepare(request, each) for each in parsed.requests]
    encoder = completions_protocol.Encoder(
        parsed.requests[0].model,
        include_usage=parsed.include_usage,
        has_logprobs=parsed.has_logprobs,
        shown_stops=parsed.shown_stops,
    )
    with ExitStack() as stack:
        groups: list[list[Answer[CompletionChunk]]] = []
        for index, each in enumerate(wanted):
            try:
                with naming_grammar(parsed.grammar_field):
                    groups.append(await runner.start_completion(each, stream=parsed.stream))
            except SnapLLMError as error:
                if error.is_of_prompt and len(wanted) > 1:
                    error.param, error.is_of_prompt = f"prompt[{index}]", False
                raise
            stack.enter_context(answering(request, each.model, groups[-1]))
        answers = [answer for group in groups for answer in group]
        _check_scored(wanted[0], answers)
        texts = [""] * len(wanted)
        if parsed.has_echo:
            texts = [await _prompt_text(runner, each) for each in wanted]
        if not parsed.stream:
            results = [fold_completion(chunks) for chunks in await collect_all(answers)]
            note_answers(request, wanted[0].model, results)
            by_prompt = _by_prompt(groups, results)
            choices = [
                (text, choice)
                for text, ends in zip(texts, by_prompt, strict=True)
                for choice in completions_protocol.choose(ends, parsed)
            ]
            write = partial(encoder.response, choices, completions_protocol.add_usage(by_prompt))
            return json_response(await written(request, results, write))
        echoes = [text for text, group in zip(texts, groups, strict=True) for _ in group]
        async with event_stream(request) as stream:
            if parsed.has_running_usage:
                encoder.count(usage_so_far(groups))
            await stream.send(
                chunk for i, echo in enumerate(echoes) if echo for chunk in encoder.echo(i, echo)
            )
            finishes: dict[int, Finish] = {}
            try:
                async for index, chunks in merge(answers):
                    if (finish := chunks[-1].finish) is not None:
                        finishes[index] = finish
                    if parsed.has_running_usage:
                        encoder.count(usage_so_far(groups))
                    await stream.send(encoder.chunk(index, chunk) for chunk in chunks)
                ordered = [finishes[i] for i in range(len(answers))]
                note_answers(request, wanted[0].model, ordered)
                usage = completions_protocol.add_usage(_by_prompt(groups, ordered))
                last = [encoder.usage_chunk(usage)] if parsed.include_usage else []
                await stream.send([*last, DONE])
            except SnapLLMError as error:
                await stream.fail(api_error(error))
        return stream_response(request)


def _check_scored(wanted: CompletionRequest, answers: Sequence[Answer[CompletionChunk]]) -> None:
    """Refuses more log probabilities of prompts than are held together."""
    num_tokens = sum(answer.num_prompt_tokens for answer in answers)
    if (wanted.num_prompt_logprobs + 1) * num_tokens > MAX_PROMPT_LOGPROBS:
        raise InvalidRequestError(
            "logprobs: the prompts have too many tokens together; send fewer at once",
            param="prompt",
        )


async def _prompt_text(runner: Runner, request: CompletionRequest) -> str:
    """What a completion's prompt says, special tokens in writing."""
    if isinstance(request.prompt, str):
        return request.prompt
    call = partial(runner.core.detokenize, request.model, request.prompt, True)
    return (await runner.threads.formatting.run(call)).decode(errors="replace")


def _by_prompt(
    groups: Sequence[Sequence[Answer[CompletionChunk]]], ends: Iterable[_Ended]
) -> list[list[_Ended]]:
    """The ends of all answers, in groups as the answers are."""
    each = iter(ends)
    return [[next(each) for _ in group] for group in groups]


def add_routes(app: web.Application) -> None:
    """Adds the endpoint."""
    app.router.add_post("/v1/completions", completions)
