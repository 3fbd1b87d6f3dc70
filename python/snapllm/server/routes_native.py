"""The native endpoints under /api/v1."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from snapllm._readers import fold_chat
from snapllm._runner import Answer, Runner
from snapllm.errors import SnapLLMError
from snapllm.outputs import CompletionChunk, Finish, ReasoningDelta, TextDelta
from snapllm.params import ChatRequest, CompletionRequest
from snapllm.protocol import native
from snapllm.protocol.error_codes import api_error, encode_error
from snapllm.server.answers import closing_all, collect
from snapllm.server.keys import engine_of
from snapllm.server.middleware import json_response
from snapllm.server.sse import event_stream, stream_response


async def _start(runner: Runner, request: ChatRequest | CompletionRequest) -> Answer[Any]:
    if isinstance(request, ChatRequest):
        return (await runner.start_chat(request))[0]
    return (await runner.start_completion(request))[0]


def _as_chat_events(event: Any) -> list[Any]:
    """A completion's chunk as the events of a chat, so that both read alike."""
    if not isinstance(event, CompletionChunk):
        return [event]
    text = [TextDelta(event.text)] if event.text else []
    return [*text, *([event.finish] if event.finish else [])]


async def _answer(runner: Runner, request: ChatRequest | CompletionRequest) -> dict[str, Any]:
    answer = await _start(runner, request)
    with closing_all([answer]):
        events = [e for event in await collect(answer) for e in _as_chat_events(event)]
    result = fold_chat(events)
    finish = events[-1]
    return native.generate_object(request.model, result.content, result.reasoning, finish)


def _name_model(request: web.Request, wanted: ChatRequest | CompletionRequest) -> Any:
    """The request with its model's id, which is the active one when it names none."""
    model_id = engine_of(request).model(wanted.model).id
    fields = {name: getattr(wanted, name) for name in wanted.__struct_fields__}
    return type(wanted)(**fields | {"model": model_id})


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /api/v1/generate"""
    parsed, is_streamed = native.parse_generate(await request.read())
    wanted = _name_model(request, parsed)
    runner = engine_of(request).runner
    if not is_streamed:
        return json_response(native.encode(await _answer(runner, wanted)))
    answer = await _start(runner, wanted)
    with closing_all([answer]):
        async with event_stream(request) as stream:
            try:
                while batch := await answer.next():
                    events = [e for event in batch for e in _as_chat_events(event)]
                    await stream.send(_stream_data(wanted.model, event) for event in events)
            except SnapLLMError as error:
                await stream.send([encode_error(api_error(error))])
    return stream_response(request)


def _stream_data(model: str, event: Any) -> bytes:
    if isinstance(event, Finish):
        body = native.generate_object(model, "", "", event) | {"done": True}
        return native.encode(body)
    if isinstance(event, TextDelta | ReasoningDelta):
        return native.encode(native.stream_piece(event))
    return native.encode({"done": False})


async def generate_batch(request: web.Request) -> web.Response:
    """POST /api/v1/generate/batch"""
    wanted = [_name_model(request, r) for r in native.parse_batch(await request.read())]
    runner = engine_of(request).runner
    tasks = [asyncio.ensure_future(_answer(runner, r)) for r in wanted]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return json_response(native.encode({"status": "success", "results": results}))


async def load_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/load"""
    wanted = native.parse_load(await request.read())
    engine = engine_of(request)
    # The weights take a while to read: not on the loop. A client that leaves does
    # not stop a load that others may wait for.
    model = await asyncio.shield(
        asyncio.to_thread(
            engine.load,
            wanted.file_path,
            wanted.model_id,
            gpu_layers=wanted.gpu_layers,
            context_size=wanted.context_size,
        )
    )
    return json_response(native.loaded_object(model.info))


async def switch_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/switch"""
    model_id = native.parse_model_id(await request.read())
    engine = engine_of(request)
    start = time.perf_counter()
    engine.switch(model_id)
    switch_ms = (time.perf_counter() - start) * 1000
    return json_response(native.switched_object(model_id, switch_ms))


async def unload_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/unload"""
    model_id = native.parse_model_id(await request.read())
    await asyncio.shield(asyncio.to_thread(engine_of(request).unload, model_id))
    return json_response(native.unloaded_object(model_id))


async def list_models(request: web.Request) -> web.Response:
    """GET /api/v1/models"""
    infos = [model.info for model in engine_of(request).models()]
    return json_response(native.models_object(infos))


async def cache_stats(request: web.Request) -> web.Response:
    """GET /api/v1/models/cache/stats"""
    engine = engine_of(request)
    infos = [model.info for model in engine.models()]
    return json_response(native.cache_stats_object(infos, engine.stats()))


def add_routes(app: web.Application) -> None:
    """Adds the native endpoints."""
    app.router.add_post("/api/v1/generate", generate)
    app.router.add_post("/api/v1/generate/batch", generate_batch)
    app.router.add_get("/api/v1/models", list_models)
    app.router.add_post("/api/v1/models/load", load_model)
    app.router.add_post("/api/v1/models/switch", switch_model)
    app.router.add_post("/api/v1/models/unload", unload_model)
    app.router.add_get("/api/v1/models/cache/stats", cache_stats)
