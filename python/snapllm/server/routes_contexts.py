"""The Context API under /api/v1/contexts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
from aiohttp import web

from snapllm._readers import fold_chat
from snapllm._threads import see_failure
from snapllm.contexts import Cancellation, ContextManager, ContextView
from snapllm.contexts.views import Tier
from snapllm.errors import QueueFullError, SnapLLMError
from snapllm.outputs import ChatResult
from snapllm.protocol import context_answers
from snapllm.protocol import contexts as wire
from snapllm.protocol.error_codes import api_error
from snapllm.server.answers import answering, collect
from snapllm.server.bodies import read_body, read_whole
from snapllm.server.context_files import receive_file, send_file, sending, transfer_path
from snapllm.server.keys import (
    cache_namespace_of,
    engine_of,
    model_ready,
    resolve_model,
    threads_of,
)
from snapllm.server.log_lines import note_prompt
from snapllm.server.middleware import json_response, note_answers
from snapllm.server.native_streams import send_answer
from snapllm.server.sse import DONE, event_stream, stream_response

_T = TypeVar("_T")

REFUSAL_WAIT_S = 0.5
"""Before a stream begins."""


def _manager(request: web.Request) -> ContextManager:
    return engine_of(request).contexts


async def _computing(request: web.Request, call: Callable[[Cancellation], _T]) -> _T:
    """Runs what computes a context; a client that leaves ends it, and nothing of it is kept.

    Raises:
        QueueFullError: Too much of this is under way.
    """
    cancellation = Cancellation()

    def work() -> _T:
        cancellation.check()  # it may have waited for a thread for longer than its client
        return call(cancellation)

    try:
        return await threads_of(request).contexts.run(work)
    except asyncio.CancelledError:
        cancellation.cancel()
        raise


async def _view_of(request: web.Request) -> ContextView:
    """The context that the path names."""
    return await threads_of(request).files.run(
        _manager(request).get,
        request.match_info["context_id"],
        cache_namespace=cache_namespace_of(request),
    )


async def _context_of(request: web.Request) -> tuple[str, str]:
    """Id and namespace of the context that the path names, once its model was loaded, if the
    server is still starting up with it.

    Raises:
        ContextNotFoundError: There is no such context.
    """
    view = await _view_of(request)
    note_prompt(request, view.record.model_id)
    await model_ready(request, view.record.model_id)
    return view.record.id, cache_namespace_of(request)


def _json(body: Mapping[str, object]) -> web.Response:
    return json_response(msgspec.json.encode(body))


def _ingested(request: web.Request, view: ContextView) -> web.Response:
    note_prompt(request, view.record.model_id, len(view.record.tokens))
    return _json(context_answers.ingested_object(view))


async def ingest(request: web.Request) -> web.StreamResponse:
    """POST /api/v1/contexts/ingest"""
    wanted = await read_body(request, wire.parse_ingest)
    model_id = resolve_model(request, wanted.model_id)
    await model_ready(request, model_id, "model_id")
    note_prompt(request, model_id)
    loop = asyncio.get_running_loop()
    steps: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()

    def note(num_computed: int, num_tokens: int) -> None:
        loop.call_soon_threadsafe(steps.put_nowait, (num_computed, num_tokens))

    def work(cancellation: Cancellation) -> ContextView:
        return _manager(request).ingest(
            wanted.content,
            model_id,
            name=wanted.name,
            ttl_seconds=wanted.ttl_seconds,
            cache_namespace=cache_namespace_of(request),
            progress=note if wanted.stream else None,
            cancellation=cancellation,
        )

    if not wanted.stream:
        return _ingested(request, await _computing(request, work))
    task = asyncio.ensure_future(_computing(request, work))

    task.add_done_callback(see_failure)
    task.add_done_callback(lambda _: steps.put_nowait(None))
    try:
        return await _send_ingest(request, task, steps)
    finally:
        task.cancel()


async def _send_ingest(
    request: web.Request,
    task: asyncio.Future[ContextView],
    steps: asyncio.Queue[tuple[int, int] | None],
) -> web.StreamResponse:
    # What is refused is refused at once: with a status of its own.
    await asyncio.wait({task}, timeout=REFUSAL_WAIT_S)
    if task.done():
        await task
    async with event_stream(request) as stream:
        while (step := await steps.get()) is not None:
            await stream.send([context_answers.progress_object(*step)])
        try:
            view = await task
            note_prompt(request, view.record.model_id, len(view.record.tokens))
            await stream.send([context_answers.ingested_piece(view), DONE])
        except SnapLLMError as error:
            await stream.fail(api_error(error))
    return stream_response(request)


async def query(request: web.Request) -> web.StreamResponse:
    """POST /api/v1/contexts/{context_id}/query"""
    wanted = await read_body(request, wire.parse_query)
    start = time.perf_counter()
    questions = _manager(request).questions
    record, chat = questions.request(
        request.match_info["context_id"],
        wanted.query,
        cache_namespace_of(request),
        wanted.options(),
    )
    await model_ready(request, record.model_id)
    answers = await engine_of(request).runner.start_chat(chat, stream=wanted.stream)

    async def end(result: ChatResult) -> context_answers.QueryAnswer:
        latency_ms = (time.perf_counter() - start) * 1000
        hit, kept = questions.note(record, result.usage, latency_ms), record
        if not hit:
            with contextlib.suppress(QueueFullError):  # the next question's miss keeps it
                kept = await threads_of(request).contexts.run(questions.keep_again, record)
        note_answers(request, record.model_id, [result])
        return context_answers.query_object(kept, result, hit, latency_ms)

    with answering(request, record.model_id, answers):
        if not wanted.stream:
            return _json(await end(fold_chat(await collect(answers[0]))))
        async with event_stream(request) as stream:
            await send_answer(stream, answers[0], end)
        return stream_response(request)


async def list_contexts(request: web.Request) -> web.Response:
    """GET /api/v1/contexts"""
    wanted = wire.parse_filters(request.query)
    model_id = wanted.model_id and resolve_model(request, wanted.model_id)
    views = await threads_of(request).files.run(
        _manager(request).list,
        tier=wanted.tier,
        model_id=model_id,
        cache_namespace=cache_namespace_of(request),
    )
    return _json(context_answers.list_object(views))


async def get_context(request: web.Request) -> web.Response:
    """GET /api/v1/contexts/{context_id}"""
    return _json(context_answers.one_object(await _view_of(request)))


async def _move(request: web.Request, *, promote: bool) -> web.Response:
    body = await read_whole(request)
    context_id, namespace = await _context_of(request)
    manager = _manager(request)

    def work() -> tuple[ContextView, Tier | None]:
        before = manager.get(context_id, cache_namespace=namespace).tier
        tier = wire.parse_tier(body, before, promote=promote)
        return manager.move(context_id, tier, cache_namespace=namespace), before

    view, before = await threads_of(request).contexts.run(work)
    return _json(context_answers.moved_object(view, before))


async def promote(request: web.Request) -> web.Response:
    """POST /api/v1/contexts/{context_id}/promote"""
    return await _move(request, promote=True)


async def demote(request: web.Request) -> web.Response:
    """POST /api/v1/contexts/{context_id}/demote"""
    return await _move(request, promote=False)


async def append(request: web.Request) -> web.Response:
    """POST /api/v1/contexts/{context_id}/append"""
    wanted = await read_body(request, wire.parse_append)
    context_id, namespace = await _context_of(request)
    view = await _computing(
        request,
        lambda cancellation: _manager(request).append(
            context_id, wanted.content, cache_namespace=namespace, cancellation=cancellation
        ),
    )
    return _ingested(request, view)


async def fork(request: web.Request) -> web.Response:
    """POST /api/v1/contexts/{context_id}/fork"""
    wanted = await read_body(request, wire.parse_fork)
    context_id, namespace = await _context_of(request)
    view = await _computing(
        request,
        lambda cancellation: _manager(request).fork(
            context_id,
            name=wanted.name,
            ttl_seconds=wanted.ttl_seconds,
            cache_namespace=namespace,
            cancellation=cancellation,
        ),
    )
    return _ingested(request, view)


async def export(request: web.Request) -> web.StreamResponse:
    """GET /api/v1/contexts/{context_id}/export"""
    context_id, namespace = await _context_of(request)
    async with sending(request), transfer_path(request) as path:
        num_bytes = await threads_of(request).contexts.run(
            _manager(request).export_file, context_id, path, cache_namespace=namespace
        )
        return await send_file(request, path, num_bytes)


async def import_(request: web.Request) -> web.Response:
    """POST /api/v1/contexts/import"""
    wanted = wire.parse_import(request.query)
    namespace = cache_namespace_of(request)
    model_id = wanted.model_id and resolve_model(request, wanted.model_id)
    await model_ready(request, model_id, "model_id")
    async with transfer_path(request) as path:
        await receive_file(request, path)
        view = await _computing(
            request,
            lambda cancellation: _manager(request).import_file(
                path,
                model_id=model_id,
                name=wanted.name,
                ttl_seconds=wanted.ttl_seconds,
                cache_namespace=namespace,
                cancellation=cancellation,
            ),
        )
    return _ingested(request, view)


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/v1/contexts/{context_id}"""
    record = await threads_of(request).files.run(
        _manager(request).delete,
        request.match_info["context_id"],
        cache_namespace=cache_namespace_of(request),
    )
    return _json(context_answers.deleted_object(record))


async def stats(request: web.Request) -> web.Response:
    """GET /api/v1/contexts/stats"""
    found = await threads_of(request).files.run(
        _manager(request).stats, cache_namespace=cache_namespace_of(request)
    )
    return _json(context_answers.stats_object(found))


def add_routes(app: web.Application) -> None:
    """Adds the Context API."""
    prefix = "/api/v1/contexts"
    app.router.add_post(f"{prefix}/ingest", ingest)
    app.router.add_get(prefix, list_contexts)
    app.router.add_get(f"{prefix}/stats", stats)
    # "ingest" and "import" must not be taken for contexts.
    one = f"{prefix}/{{context_id:(?!(?:ingest|import)$)[^/]+}}"
    app.router.add_get(one, get_context)
    app.router.add_delete(one, delete)
    app.router.add_post(f"{prefix}/{{context_id}}/query", query)
    app.router.add_post(f"{prefix}/{{context_id}}/promote", promote)
    app.router.add_post(f"{prefix}/{{context_id}}/demote", demote)
    app.router.add_post(f"{prefix}/{{context_id}}/append", append)
    app.router.add_post(f"{prefix}/{{context_id}}/fork", fork)
    app.router.add_get(f"{prefix}/{{context_id}}/export", export)
    app.router.add_post(f"{prefix}/import", import_)
