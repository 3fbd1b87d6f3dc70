"""Contexts as bodies of answers and requests, which lie on disk on their way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from aiohttp import web

from snapllm.contexts.transfer import append_to
from snapllm.errors import InvalidRequestError
from snapllm.server.keys import STATE, engine_of, threads_of
from snapllm.server.request_facts import facts_of

CHUNK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
MAX_IMPORT_BYTES = 64 << 30
SILENCE_S = 60.0
"""In which something of a file must come, or be taken, or its place is another's."""


@contextlib.asynccontextmanager
async def transfer_path(request: web.Request) -> AsyncIterator[Path]:
    """A path for one file, which is removed after the block.

    Raises:
        StorageError: The disk cannot be written.
    """
    files = threads_of(request).files
    folder = await files.run(engine_of(request).contexts.transfers.make)
    try:
        yield Path(folder.name) / "context"
    finally:
        await files.run(folder.cleanup)


async def receive_file(request: web.Request, path: Path) -> None:
    """Writes a request's body to a file; it may be longer than other bodies. Waits while as many as
    may be are being received.

    Raises:
        InvalidRequestError: It is compressed: what a little of that becomes can be anything. Or
            nothing of it comes for a minute.
        QueueFullError: As many as may wait do.
        HTTPRequestEntityTooLarge: It is longer than any context.
        StorageError: The disk cannot be written.
    """
    if "Content-Encoding" in request.headers:
        raise InvalidRequestError("an exported context is sent as it is, without Content-Encoding")
    async with request.app[STATE].receiving.place(threads_of(request).max_waiting):
        await _receive(request, path)


async def _receive(request: web.Request, path: Path) -> None:
    files, num_bytes = threads_of(request).files, 0
    await files.run(append_to, path, b"")
    while chunk := await _next_chunk(request):
        num_bytes += len(chunk)
        if num_bytes > MAX_IMPORT_BYTES:
            raise web.HTTPRequestEntityTooLarge(
                MAX_IMPORT_BYTES, num_bytes, text="the file is too large"
            )
        await files.run(append_to, path, chunk)


async def _next_chunk(request: web.Request) -> bytes:
    try:
        return await asyncio.wait_for(request.content.read(CHUNK_BYTES), SILENCE_S)
    except (asyncio.TimeoutError, TimeoutError):
        raise InvalidRequestError(f"nothing of the file came for {SILENCE_S:g} s") from None


def sending(request: web.Request) -> AbstractAsyncContextManager[None]:
    """A place among the files that are being sent, while the block runs; waits for it.

    Raises:
        QueueFullError: As many as may wait do.
    """
    return request.app[STATE].sending.place(threads_of(request).max_waiting)


async def _write(request: web.Request, response: web.StreamResponse, chunk: bytes) -> None:
    """Sends a piece of a file, or leaves a client that takes nothing for a minute."""
    try:
        for begin in range(0, len(chunk), _PIECE_BYTES):
            piece = chunk[begin : begin + _PIECE_BYTES]
            await asyncio.wait_for(response.write(piece), SILENCE_S)
    except (asyncio.TimeoutError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(f"nothing of the file was taken for {SILENCE_S:g} s") from None


async def send_file(request: web.Request, path: Path, num_bytes: int) -> web.StreamResponse:
    """Answers with a context's file."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": 'attachment; filename="context.snapctx"',
        }
    )
    response.content_length = num_bytes
    num_left = 0 if request.method == "HEAD" else num_bytes
    facts = facts_of(request)
    facts.begun = response
    await response.prepare(request)
    with path.open("rb") as file:
        # No look for more at the end: a client that has all of it leaves.
        while num_left > 0:
            chunk = await threads_of(request).files.run(file.read, CHUNK_BYTES)
            if not chunk:
                break
            await _write(request, response, chunk)
            num_left -= len(chunk)
    facts.is_sent = num_left == 0
    await response.write_eof()
    return response
