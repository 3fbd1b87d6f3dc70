"""What serving costs beside the engine: to submit, to the socket, and in tokens a second."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias
from unittest import mock

from aiohttp import web

import snapllm
from benchmarks.http_load import closed_loop
from benchmarks.peers import Settings, free_port, ours, running
from benchmarks.report import Row, in_turn, ratio_row, row
from snapllm import _core
from snapllm._pump import AsyncPump, Subscription
from snapllm.server.app import create_app

REQUESTS = 40  # a round
REQUEST_CHARS = 1000
STREAMS = 32

Chats: TypeAlias = "list[list[dict[str, str]]]"


class _Watch:
    """When the server, in this very process, submitted its last request and had a token."""

    submitted = 0.0
    first_token = 0.0

    def __init__(self) -> None:
        self._submit, self._put = AsyncPump.try_submit, Subscription.put

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes the times of what is submitted meanwhile."""
        watch = self

        def submit(pump: AsyncPump, request: _core.GenerateRequest) -> Subscription | None:
            watch.submitted = time.perf_counter()
            return watch._submit(pump, request)

        def put(subscription: Subscription, output: _core.RequestOutput) -> None:
            if output.finish_reason is not None:
                timings = output.timings
                until_token = timings.queue_ms + timings.prefill_ms
                watch.first_token = watch.submitted + until_token / 1000
            watch._put(subscription, output)

        with (
            mock.patch.object(AsyncPump, "try_submit", submit),
            mock.patch.object(Subscription, "put", put),
        ):
            yield


@contextmanager
def _serving(engine: snapllm.Engine) -> Iterator[int]:
    """Our server on a thread of this process; yields its port."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(create_app(engine), access_log=None)
    port = free_port()

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def run(options: argparse.Namespace) -> list[Row]:
    """One request at a time within one process, then many streams over HTTP and without."""
    return [*_latencies(options), *_rates(options)]


def _latencies(options: argparse.Namespace) -> list[Row]:
    watch = _Watch()
    to_submit: list[list[float]] = []
    to_socket: list[list[float]] = []
    with snapllm.Engine(num_threads=options.threads, workspace=options.scratch / "a") as engine:
        engine.load(options.model, "m", context_size=2048)
        with _serving(engine) as port, socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range((options.rounds + 1) * REQUESTS):
                if number % REQUESTS == 0:
                    to_submit.append([])
                    to_socket.append([])
                watch.submitted = math.nan
                with watch.watching():
                    sent, seen = _request(client, number)
                to_submit[-1].append((watch.submitted - sent) * 1000)
                to_socket[-1].append((seen - watch.first_token) * 1000)
    found = {"request line to submit, 1 KB": to_submit, "first token to its bytes": to_socket}
    return [  # the first round warms up
        row(f"{name}, p50", [statistics.median(of_round) for of_round in rounds[1:]], "ms")
        for name, rounds in found.items()
    ]


def _request(client: socket.socket, number: int) -> tuple[float, float]:
    """Sends a streamed chat; returns when, and when the first token's bytes were here."""
    text = f"{number} " + "one two three " * 100
    body = json.dumps(
        {
            "model": "m",
            "messages": [{"role": "user", "content": text[:REQUEST_CHARS]}],
            "max_tokens": 2,
            "stream": True,
        }
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    sent = time.perf_counter()
    client.sendall(head.encode() + body)
    received = b""
    seen = 0.0
    while b"data: [DONE]" not in received:
        received += client.recv(1 << 16)
        if not seen and b'"content":"' in received.replace(b'"content":""', b""):
            seen = time.perf_counter()
    return sent, seen or time.perf_counter()


def _messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{number}: one two three. What comes next?"}]


def _rates(options: argparse.Namespace) -> list[Row]:
    settings = Settings(
        models=(("m", options.model),),
        num_threads=options.threads or options.cores,
        num_slots=STREAMS,
        context_size=2048,
    )
    port = free_port()
    over_http: list[float] = []
    in_process: list[float] = []
    command = ours(settings, port, options.scratch / "b")
    with (
        running("snapllm", command, options.log("ours"), port) as peer,
        snapllm.Engine(num_threads=settings.num_threads, workspace=options.scratch / "c") as engine,
    ):
        model = engine.load(options.model, "m", context_size=2048)

        async def over_http_rate(chats: Chats) -> float:
            greedy = {"model": "m", "temperature": 0, "max_tokens": options.tokens}
            return (await closed_loop(peer.url, STREAMS, chats, **greedy)).tokens_per_second

        async def in_process_rate(chats: Chats) -> float:
            return await _in_process(model, chats, options.tokens)

        for number in range(options.rounds + 1):
            chats = [_messages(number * STREAMS + i) for i in range(STREAMS)]
            rates = {over_http_rate: over_http, in_process_rate: in_process}
            for measure, found in in_turn(list(rates.items()), number):
                rate = asyncio.run(measure(chats))
                if number > 0:  # the first warms up
                    found.append(rate)
    return [
        row(f"{STREAMS} streams over HTTP", over_http, "tokens/s"),
        row(f"{STREAMS} streams in process", in_process, "tokens/s"),
        ratio_row(f"{STREAMS} streams over HTTP and in process", over_http, in_process, "more"),
    ]


async def _in_process(model: snapllm.Model, chats: Chats, max_tokens: int) -> float:
    async def stream(chat: list[dict[str, str]]) -> int:
        num_tokens = 0
        async for event in model.achat_stream(chat, temperature=0, max_tokens=max_tokens):
            if isinstance(event, snapllm.Finish):
                num_tokens = event.usage.num_generated_tokens
        return num_tokens

    start = time.perf_counter()
    counts = await asyncio.gather(*(stream(chat) for chat in chats))
    return sum(counts) / (time.perf_counter() - start)
