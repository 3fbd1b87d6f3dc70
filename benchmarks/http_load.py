"""Streams of chat requests to a server, and what they took."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
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


async def chat(
    session: aiohttp.ClientSession, url: str, messages: Sequence[dict[str, Any]], **options: Any
) -> Answer:
    """One streamed chat request, without thinking, which servers have other defaults of.

    Raises:
        RuntimeError: The server refused it, or its stream failed or did not end.
    """
    body = {
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    answer = Answer()
    is_whole = False
    start = last = time.perf_counter()
    async with session.post(url + "/v1/chat/completions", json=body | options) as response:
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {await response.text()}")
        async for line in response.content:
            is_whole = is_whole or line.startswith(b"data: [DONE]")
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(f"{url}: {event['error']}")
            usage = event.get("usage")
            if usage:
                answer.num_prompt = usage["prompt_tokens"]
                answer.num_tokens = usage["completion_tokens"]
                details = usage.get("prompt_tokens_details") or {}
                answer.num_cached = details.get("cached_tokens", 0)
            for choice in event.get("choices", ()):
                delta = choice["delta"]
                text = (delta.get("content") or "") + (delta.get("reasoning_content") or "")
                if text:
                    now = time.perf_counter()
                    if answer.text:
                        answer.gaps_ms.append((now - last) * 1000)
                    else:
                        answer.ttft_ms = (now - start) * 1000
                    last = now
                    answer.text += text
    answer.total_ms = (time.perf_counter() - start) * 1000
    if not is_whole:
        raise RuntimeError(f"{url}: a stream ended without its end")
    if answer.num_tokens == 0:  # llama-cpp-python does not say; it has an event for each token
        answer.num_tokens = len(answer.gaps_ms) + 1
    if not answer.text:  # its tokens are no text: they came with its end
        answer.ttft_ms = answer.total_ms
    return answer


async def closed_loop(
    url: str, num_streams: int, requests: Sequence[Sequence[dict[str, Any]]], **options: Any
) -> Load:
    """Keeps so many streams open until all requests are answered."""
    waiting = list(requests)
    answers: list[Answer] = []
    timeout = aiohttp.ClientTimeout(total=None)
    # A connection for each request: llama-server closes those that it has used.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def client() -> None:
            while waiting:
                answers.append(await chat(session, url, waiting.pop(0), **options))

        start = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(num_streams)))
        seconds = time.perf_counter() - start
    return Load(answers, seconds)


def ask(url: str, messages: Sequence[dict[str, Any]], **options: Any) -> Answer:
    """One request, alone."""
    return asyncio.run(closed_loop(url, 1, [messages], **options)).answers[0]
