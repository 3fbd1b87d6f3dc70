"""The native endpoints under /api/v1."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import msgspec
from aiohttp import web

from snapllm._readers import fold_chat
from snapllm.errors import SnapLLMError
from snapllm.outputs import ChatResult
from snapllm.params import ChatRequest, CompletionRequest
from snapllm.protocol import native
from snapllm.protocol.vision import parse_vision
from snapllm.server.answers import answering, collect
from snapllm.server.bodies import read_body
from snapllm.server.keys import STATE, engine_of, prepare
from snapllm.server.middleware import json_response, note_answers
from snapllm.server.native_streams import send_answer
from snapllm.server.request_facts import facts_of
from snapllm.server.sse import event_stream, stream_response

_Request: TypeAlias = ChatRequest | CompletionRequest


async def _answer(request: web.Request, wanted: _Request) -> ChatResult:
    answers = await engine_of(request).runner.start(wanted, stream=False)
    with answering(request, wanted.model, answers):
        return fold_chat(await collect(answers[0]))


async def _name_model(request: web.Request, wanted: list[_Request]) -> list[_Request]:
    """The requests with their model's id, the active one where they name none."""
    prepared = [await prepare(request, each) for each in wanted]
    model_id = engine_of(request).model(prepared[0].model).id
    return [msgspec.structs.replace(each, model=model_id) for each in prepared]


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /api/v1/generate"""
    return await _generate(request, *await read_body(request, native.parse_generate))


async def generate_from_images(request: web.Request) -> web.StreamResponse:
    """POST /api/v1/vision/generate"""
    wanted, is_streamed = await read_body(request, parse_vision)
    if not wanted.model:
        wanted = msgspec.structs.replace(wanted, model=await _seeing_model(request))
    return await _generate(request, wanted, is_streamed)


async def _seeing_model(request: web.Request) -> str:
    """The model that sees where none is named: the active one, or else the first that can."""
    engine = engine_of(request)

    def seeing_models() -> list[str]:
        return [info.id for info in engine.runner.core.models() if info.has_vision]

    await request.app[STATE].first(
        lambda: bool(seeing_models()), lambda coming: coming.type == "vision"
    )
    seeing = seeing_models()
    return "" if not seeing or engine.active_model in seeing else seeing[0]


async def _generate(
    request: web.Request, parsed: _Request, is_streamed: bool
) -> web.StreamResponse:
    [wanted] = await _name_model(request, [parsed])

    async def end(result: ChatResult) -> native.GenerateAnswer:
        note_answers(request, wanted.model, [result])
        return native.generate_object(wanted.model, result)

    if not is_streamed:
        return json_response(native.encode(await end(await _answer(request, wanted))))
    answers = await engine_of(request).runner.start(wanted, stream=True)
    with answering(request, wanted.model, answers):
        async with event_stream(request) as stream:
            await send_answer(stream, answers[0], end)
    return stream_response(request)


async def _answer_one_of(request: web.Request, wanted: _Request, index: int) -> ChatResult:
    """The answer to a prompt of a batch, whose errors say which one it is."""
    try:
        return await _answer(request, wanted)
    except SnapLLMError as error:
        if error.is_of_prompt:
            error.param, error.is_of_prompt = f"prompts[{index}]", False
        raise


async def generate_batch(request: web.Request) -> web.Response:
    """POST /api/v1/generate/batch"""
    wanted = await _name_model(request, await read_body(request, native.parse_batch))
    facts_of(request).num_expected = len(wanted)
    tasks = [
        asyncio.ensure_future(_answer_one_of(request, each, i)) for i, each in enumerate(wanted)
    ]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    model_id = wanted[0].model
    note_answers(request, model_id, results)
    return json_response(native.encode(native.batch_object(model_id, results)))


def add_routes(app: web.Application) -> None:
    """Adds the native endpoints."""
    app.router.add_post("/api/v1/generate", generate)
    app.router.add_post("/api/v1/generate/batch", generate_batch)
    app.router.add_post("/api/v1/vision/generate", generate_from_images)
