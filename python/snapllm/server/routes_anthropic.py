"""Anthropic's endpoints."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from snapllm._readers import fold_chat
from snapllm._runner import Answer as EngineAnswer
from snapllm.errors import SnapLLMError
from snapllm.outputs import ChatEvent, Finish
from snapllm.protocol import anthropic
from snapllm.protocol.anthropic_answers import (
    PING,
    Answer,
    BlockStream,
    count_object,
    encode_event,
    error_object,
)
from snapllm.protocol.error_codes import api_error
from snapllm.server.answers import answering, collect
from snapllm.server.bodies import read_body
from snapllm.server.keys import OPTIONS, engine_of, prepare
from snapllm.server.log_lines import note_prompt
from snapllm.server.middleware import json_response, note_answers
from snapllm.server.request_facts import facts_of
from snapllm.server.sse import EventStream, event_stream, stream_response


async def messages(request: web.Request) -> web.StreamResponse:
    """POST /v1/messages"""
    options = request.app[OPTIONS]
    strip_billing = options.strip_billing_header
    parsed = await read_body(
        request, partial(anthropic.parse_messages, strip_billing=strip_billing)
    )
    runner = engine_of(request).runner
    chat = await prepare(request, parsed.request)
    mark = parsed.breakpoint
    if mark is None:
        answer = Answer(parsed, 0)
        answers = await runner.start_chat(chat, stream=parsed.stream)
    else:
        beginnings = [mark.messages]
        if mark.for_an_hour is not None:
            beginnings.append(mark.for_an_hour)
        lowered, counts = await runner.lower_marked(chat, beginnings)
        is_any_for_an_hour = mark.ttl == "1h" or mark.for_an_hour is not None
        answer = Answer(parsed, counts[0], counts[-1] if is_any_for_an_hour else 0)
        answers = await runner.start_lowered(lowered, stream=parsed.stream)
    with answering(request, chat.model, answers):
        if not parsed.stream:
            result = fold_chat(await collect(answers[0]))
            note_answers(request, chat.model, [result])
            return json_response(answer.message(result))
        async with event_stream(request, keep_alive=PING) as stream:
            is_answered = parsed.request.max_tokens > 0
            blocks = BlockStream(omits_thinking=parsed.omits_thinking, is_answered=is_answered)
            finish = await _send(request, stream, answer, blocks, answers[0])
            if finish is not None:
                note_answers(request, chat.model, [finish])
        return stream_response(request)


async def _send(
    request: web.Request,
    stream: EventStream,
    answer: Answer,
    blocks: BlockStream,
    events: EngineAnswer[ChatEvent],
) -> Finish | None:
    finish: Finish | None = None
    start: bytes | None = None
    try:
        while batch := await events.next():
            data = b"".join(blocks.events(event) for event in batch)
            if start is None:
                start = answer.start(events.num_prompt_tokens, events.num_cached_tokens)
                data = start + data
            if isinstance(batch[-1], Finish):
                finish = batch[-1]
                data += answer.end(finish)
            if data:
                await stream.send_raw(data)
    except SnapLLMError as error:
        explained = api_error(error)
        body = error_object(explained, facts_of(request).request_id)
        await stream.fail(explained, encode_event("error", body))
    return finish


async def count_tokens(request: web.Request) -> web.Response:
    """POST /v1/messages/count_tokens"""
    options = request.app[OPTIONS]
    strip_billing = options.strip_billing_header
    parsed = await read_body(request, partial(anthropic.parse_count, strip_billing=strip_billing))
    lowered = await engine_of(request).runner.lower(await prepare(request, parsed.request))
    note_prompt(request, lowered.model, len(lowered.tokens))
    return json_response(count_object(parsed, len(lowered.tokens)))


def add_routes(app: web.Application) -> None:
    """Adds Anthropic's endpoints; its form of /v1/models is in `routes_openai`."""
    app.router.add_post("/v1/messages", messages)
    app.router.add_post("/v1/messages/count_tokens", count_tokens)
