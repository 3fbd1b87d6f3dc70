"""The native endpoints under /api/v1."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Any, TypeAlias

import msgspec
from aiohttp import web

from snapllm._readers import fold_chat
from snapllm._runner import Answer
from snapllm.errors import SnapLLMError
from snapllm.outputs import ChatEvent, Finish
from snapllm.params import ChatRequest, CompletionRequest
from snapllm.protocol import native
from snapllm.protocol.error_codes import api_error, encode_error
from snapllm.protocol.vision import parse_vision
from snapllm.server.answers import closing_all, collect
from snapllm.server.keys import STATE, engine_of, prepare
from snapllm.server.middleware import json_response, note_answers
from snapllm.server.sse import DONE, EventStream, event_stream, stream_response

_Request: TypeAlias = ChatRequest | CompletionRequest


def _finish_of(events: list[ChatEvent]) -> Finish:
    finish = events[-1]
    assert isinstance(finish, Finish)
    return finish


async def _answer(request: web.Request, wanted: _Request) -> tuple[dict[str, Any], Finish]:
    answers = await engine_of(request).runner.start(wanted)
    with closing_all(answers):
        events = await collect(answers[0])
    result, finish = fold_chat(events), _finish_of(events)
    body = native.generate_object(wanted.model, result.content, result.reasoning, finish)
    return body, finish


async def _name_model(request: web.Request, wanted: list[_Request]) -> list[_Request]:
    """The requests with their model's id, the active one where they name none."""
    prepared = [await prepare(request, each) for each in wanted]
    model_id = engine_of(request).model(prepared[0].model).id
    return [msgspec.structs.replace(each, model=model_id) for each in prepared]


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /api/v1/generate"""
    return await _generate(request, *native.parse_generate(await request.read()))


async def generate_from_images(request: web.Request) -> web.StreamResponse:
    """POST /api/v1/vision/generate"""
    return await _generate(request, *parse_vision(await request.read()))


async def _generate(
    request: web.Request, parsed: _Request, is_streamed: bool
) -> web.StreamResponse:
    [wanted] = await _name_model(request, [parsed])
    if not is_streamed:
        body, finish = await _answer(request, wanted)
        note_answers(request, wanted.model, [finish])
        return json_response(native.encode(body))
    answers = await engine_of(request).runner.start(wanted)
    with closing_all(answers):
        async with event_stream(request) as stream:
            await _send_answer(request, stream, wanted.model, answers[0])
    return stream_response(request)


async def _send_answer(
    request: web.Request, stream: EventStream, model_id: str, answer: Answer[ChatEvent]
) -> None:
    try:
        while events := await answer.next():
            data = [native.stream_piece(model_id, event) for event in events]
            if isinstance(events[-1], Finish):
                note_answers(request, model_id, [events[-1]])
                data.append(DONE)
            await stream.send(data)
    except SnapLLMError as error:
        await stream.send([encode_error(api_error(error))])


async def generate_batch(request: web.Request) -> web.Response:
    """POST /api/v1/generate/batch"""
    wanted = await _name_model(request, native.parse_batch(await request.read()))
    tasks = [asyncio.ensure_future(_answer(request, each)) for each in wanted]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    note_answers(request, wanted[0].model, [finish for _, finish in results])
    body = {"status": "success", "results": [body for body, _ in results]}
    return json_response(native.encode(body))


async def load_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/load"""
    wanted = native.parse_load(await request.read())
    engine = engine_of(request)
    # The weights take a while to read: not on the loop. A client that leaves does
    # not stop a load that others may wait for.
    load = functools.partial(
        engine.load, wanted.file_path, wanted.model_id, **native.load_options(wanted)
    )
    loop = asyncio.get_running_loop()
    model = await asyncio.shield(loop.run_in_executor(request.app[STATE].loader, load))
    return json_response(native.loaded_object(model.info))


async def switch_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/switch"""
    model_id = native.parse_model_id(await request.read())
    engine = engine_of(request)
    start = time.perf_counter()
    engine.switch(model_id)
    switch_ms = (time.perf_counter() - start) * 1000
    return json_response(native.switched_object(engine.model(model_id).info, switch_ms))


async def unload_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/unload"""
    model_id = native.parse_model_id(await request.read())
    await asyncio.shield(asyncio.to_thread(engine_of(request).unload, model_id))
    return json_response(native.unloaded_object(model_id))


async def list_models(request: web.Request) -> web.Response:
    """GET /api/v1/models"""
    infos = [model.info for model in engine_of(request).models()]
    return json_response(native.models_object(infos))


async def get_model(request: web.Request) -> web.Response:
    """GET /api/v1/models/{id}"""
    info = engine_of(request).model(request.match_info["model_id"]).info
    return json_response(native.model_object(info))


async def pin_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/pin"""
    wanted = native.parse_pin(await request.read())
    engine = engine_of(request)
    (engine.pin if wanted.pinned else engine.unpin)(wanted.model_id)
    return json_response(native.pinned_object(wanted))


async def cache_stats(request: web.Request) -> web.Response:
    """GET /api/v1/models/cache/stats"""
    engine = engine_of(request)
    infos = [model.info for model in engine.models()]
    return json_response(native.cache_stats_object(infos, engine.stats()))


def add_routes(app: web.Application) -> None:
    """Adds the native endpoints."""
    app.router.add_post("/api/v1/generate", generate)
    app.router.add_post("/api/v1/generate/batch", generate_batch)
    app.router.add_post("/api/v1/vision/generate", generate_from_images)
    app.router.add_get("/api/v1/models", list_models)
    app.router.add_post("/api/v1/models/load", load_model)
    app.router.add_post("/api/v1/models/switch", switch_model)
    app.router.add_post("/api/v1/models/unload", unload_model)
    app.router.add_post("/api/v1/models/pin", pin_model)
    app.router.add_get("/api/v1/models/cache/stats", cache_stats)
    app.router.add_get("/api/v1/models/{model_id:.+}", get_model)
