"""OpenAI's /v1/responses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from aiohttp import web

from snapllm.errors import NotFoundError, SnapLLMError
from snapllm.outputs import ChatEvent, Finish
from snapllm.protocol.error_codes import ApiError, api_error
from snapllm.protocol.responses import Parsed, count_object, parse, parse_count
from snapllm.protocol.responses_answers import ResponseStream, encode_event, encode_response
from snapllm.protocol.responses_items import (
    deleted_object,
    input_to_keep,
    list_object,
    output_to_keep,
    read_list_query,
    read_retrieve_query,
)
from snapllm.server.answers import answering, collect
from snapllm.server.bodies import read_body
from snapllm.server.kept_responses import OwnResponses
from snapllm.server.keys import OPTIONS, STATE, cache_namespace_of, engine_of, prepare
from snapllm.server.log_lines import note_prompt
from snapllm.server.middleware import json_response, note_answers
from snapllm.server.sse import event_stream, stream_response


def _kept(request: web.Request) -> OwnResponses:
    return request.app[STATE].responses.of(cache_namespace_of(request))


class _Answer:
    """The answer to one request; kept, if it is to be, before its end is told."""

    def __init__(self, request: web.Request, parsed: Parsed, model_id: str) -> None:
        self._request = request
        self._parsed = parsed
        self._model_id = model_id
        self._stream = ResponseStream(parsed.wire, parsed.tools)

    def start(self) -> bytes:
        """The events that open its stream."""
        return _encoded(self._stream.start())

    def write(self, events: list[ChatEvent]) -> bytes:
        """Its next events, as they are streamed."""
        return _encoded(self._read(events))

    def failed(self, error: ApiError) -> bytes:
        """The events that end its stream when it fails."""
        return _encoded(self._stream.failed(error))

    def whole(self, events: list[ChatEvent]) -> bytes:
        """All of it, of all its events."""
        for _ in self._read(events):
            pass
        return encode_response(self._stream.response)

    def _read(self, events: list[ChatEvent]) -> Iterator[dict[str, Any]]:
        for event in events:
            yield from self._stream.events(event)
        if events and isinstance(events[-1], Finish):
            note_answers(self._request, self._model_id, [events[-1]])
            self._keep()

    def _keep(self) -> None:
        response = self._stream.response
        if response["store"]:
            given = input_to_keep(self._parsed.conversation)
            output = output_to_keep(response["output"])
            body = encode_response(response)
            _kept(self._request).keep(response["id"], body, given, output)


def _encoded(events: Iterator[dict[str, Any]]) -> bytes:
    # One by one: the next event changes what this one holds.
    return b"".join(map(encode_event, events))


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses"""
    default = request.app[OPTIONS].default_max_tokens
    parsed = await read_body(
        request, partial(parse, kept=_kept(request), default_max_tokens=default)
    )
    chat = await prepare(request, parsed.request)
    is_streamed = bool(parsed.wire.stream)
    answer = _Answer(request, parsed, chat.model)
    answers = await engine_of(request).runner.start_chat(chat, stream=is_streamed)
    with answering(request, chat.model, answers):
        if not is_streamed:
            return json_response(answer.whole(await collect(answers[0])))
        async with event_stream(request) as stream:
            await stream.send_raw(answer.start())
            try:
                while events := await answers[0].next():
                    await stream.send_raw(answer.write(events))
            except SnapLLMError as error:
                explained = api_error(error)
                await stream.fail(explained, answer.failed(explained))
        return stream_response(request)


async def count_input_tokens(request: web.Request) -> web.Response:
    """POST /v1/responses/input_tokens"""
    parsed = await read_body(request, partial(parse_count, kept=_kept(request)))
    chat = await prepare(request, parsed)
    lowered = await engine_of(request).runner.lower(chat)
    note_prompt(request, lowered.model, len(lowered.tokens))
    return json_response(count_object(len(lowered.tokens)))


def _not_found(response_id: str) -> NotFoundError:
    return NotFoundError(f"Response with id {response_id!r} not found", param="response_id")


async def retrieve(request: web.Request) -> web.Response:
    """GET /v1/responses/{response_id}"""
    read_retrieve_query(request.query)
    response_id = request.match_info["response_id"]
    body = _kept(request).body(response_id)
    if body is None:
        raise _not_found(response_id)
    return json_response(body)


async def delete(request: web.Request) -> web.Response:
    """DELETE /v1/responses/{response_id}"""
    response_id = request.match_info["response_id"]
    if not _kept(request).remove(response_id):
        raise _not_found(response_id)
    return json_response(deleted_object(response_id))


async def input_items(request: web.Request) -> web.Response:
    """GET /v1/responses/{response_id}/input_items"""
    query = read_list_query(request.query)
    response_id = request.match_info["response_id"]
    items = _kept(request).input_items(response_id)
    if items is None:
        raise _not_found(response_id)
    return json_response(list_object(items, query))


def add_routes(app: web.Application) -> None:
    """Adds the endpoints."""
    app.router.add_post("/v1/responses", create)
    app.router.add_post("/v1/responses/input_tokens", count_input_tokens)
    # OpenAI's other paths beside it must not be taken for responses.
    one = "/v1/responses/{response_id:(?!(?:compact|input_tokens)$)[^{}/]+}"
    app.router.add_get(one, retrieve)
    app.router.add_delete(one, delete)
    app.router.add_get("/v1/responses/{response_id}/input_items", input_items)
