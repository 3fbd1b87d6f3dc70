"""Streams of chat requests to a server, and what they took.

The clients only note what arrives and when, and it is read after the clock has stopped: they run
on the cores that the server computes with.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Answer:
    """One streamed answer."""

    ttft_ms: float = 0.0
    total_ms: float = 0.0
    num_prompt: int = 0
    num_tokens: int = 0
    num_cached: int = 0
    text: str = ""
    gaps_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """What a number of streams took together."""

    answers: list[Answer]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """All generated tokens over the whole time."""
        return sum(answer.num_tokens for answer in self.answers) / self.seconds

    def ttft_ms(self, share: float) -> float:
        """The time to the first token that this share of the requests stayed under."""
        return percentile([answer.ttft_ms for answer in self.answers], share)

    def itl_ms(self, share: float) -> float:
        """The same of the time from one token to the next."""
        gaps = [gap for answer in self.answers for gap in answer.gaps_ms]
        return percentile(gaps, share)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed; between two, in proportion."""
    return float(np.quantile(values, share)) if len(values) else 0.0


class _Arrivals(asyncio.Protocol):
    """Notes what arrives on a connection and when."""

    def __init__(self) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.is_over.set_exception(exc)
        else:
            self.is_over.set_result(None)


@dataclass(frozen=True)
class _Stream:
    """What came of one request, not yet read."""

    url: str
    sent_at: float
    pieces: list[tuple[float, bytes]]

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """The lines of the body, each with when it was whole.

        Raises:
            RuntimeError: The answer is no stream in chunks.
        """
        rest = b""
        for at, data in _without_chunks(self._body()):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield at, line

    def _body(self) -> Iterator[tuple[float, bytes]]:
        head, is_body = b"", False
        for at, data in self.pieces:
            if not is_body:
                head, end, data = (head + data).partition(b"\r\n\r\n")
                is_body = bool(end)
                if is_body and not _is_stream(head):
                    break
            if is_body:
                yield at, data
        else:
            return
        text = b"".join(data for _, data in self.pieces).decode(errors="replace")
        raise RuntimeError(f"{self.url}: {text}")


def _is_stream(head: bytes) -> bool:
    return b" 200 " in head[:16] and b"\ntransfer-encoding: chunked" in head.lower()


def _without_chunks(pieces: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """A body's bytes without the sizes that its chunks begin with (RFC 9112, section 7.1)."""
    rest, num_left = b"", 0
    for at, data in pieces:
        data, found = rest + data, b""
        while data:
            if num_left:
                found += data[:num_left]
                data, num_left = data[num_left:], max(0, num_left - len(data))
                continue
            size, newline, after = data.partition(b"\r\n")
            if not newline:
                break
            num_left = int(size, 16) if size else 0  # the end of the chunk before
            data = after
        rest = data
        yield at, found


def _text(delta: dict[str, Any]) -> str:
    """What came of an answer, a tool call as its name and arguments."""
    calls = [call.get("function") or {} for call in delta.get("tool_calls") or ()]
    pieces = [delta.get("reasoning_content"), delta.get("content")]
    for call in calls:
        pieces += [call.get("name"), call.get("arguments")]
    return "".join(piece or "" for piece in pieces)


def _read(stream: _Stream) -> Answer:
    """
    Raises:
        RuntimeError: The server refused the request, or its stream failed or did not end.
    """
    answer = Answer()
    is_whole = False
    last = stream.sent_at
    for at, line in stream.lines():
        answer.total_ms = (at - stream.sent_at) * 1000
        is_whole = is_whole or line.startswith(b"data: [DONE]")
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(f"{stream.url}: {event['error']}")
        usage = event.get("usage")
        if usage:
            answer.num_prompt = usage["prompt_tokens"]
            answer.num_tokens = usage["completion_tokens"]
            details = usage.get("prompt_tokens_details") or {}
            answer.num_cached = details.get("cached_tokens", 0)
        for choice in event.get("choices", ()):
            text = _text(choice["delta"])
            if text:
                if answer.text:
                    answer.gaps_ms.append((at - last) * 1000)
                else:
                    answer.ttft_ms = (at - stream.sent_at) * 1000
                last = at
                answer.text += text
    if not is_whole:
        raise RuntimeError(f"{stream.url}: a stream ended without its end")
    if answer.num_tokens == 0:  # llama-cpp-python does not say; it has an event for each token
        answer.num_tokens = len(answer.gaps_ms) + 1
    if not answer.text:  # its tokens are no text: they came with its end
        answer.ttft_ms = answer.total_ms
    return answer


async def _chat(url: str, messages: Sequence[dict[str, Any]], **options: Any) -> _Stream:
    """One streamed chat request, without thinking, which servers have other defaults of.

    It has a connection of its own: llama-server closes those that it has used.
    """
    defaults = {
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    body = json.dumps(defaults | options).encode()
    address = urlsplit(url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    sent_at = time.perf_counter()
    transport, arrivals = await loop.create_connection(
        _Arrivals, address.hostname or "", address.port or 80
    )
    try:
        transport.write(head.encode() + body)
        await arrivals.is_over
    finally:
        transport.abort()
    return _Stream(url, sent_at, arrivals.pieces)


async def closed_loop(
    url: str, num_streams: int, requests: Sequence[Sequence[dict[str, Any]]], **options: Any
) -> Load:
    """Keeps so many streams open until all requests are answered."""
    waiting = list(requests)
    streams: list[_Stream] = []

    async def client() -> None:
        while waiting:
            streams.append(await _chat(url, waiting.pop(0), **options))

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(num_streams)))
    seconds = time.perf_counter() - start
    return Load([_read(stream) for stream in streams], seconds)


def ask(url: str, messages: Sequence[dict[str, Any]], **options: Any) -> Answer:
    """One request, alone."""
    return asyncio.run(closed_loop(url, 1, [messages], **options)).answers[0]
