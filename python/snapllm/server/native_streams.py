"""Sending the native API's answers in words as they come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from snapllm._readers import fold_chat
from snapllm._runner import Answer
from snapllm.errors import SnapLLMError
from snapllm.outputs import ChatEvent, ChatResult, Finish
from snapllm.protocol.error_codes import api_error
from snapllm.protocol.native_stream import last_piece, text_pieces
from snapllm.server.sse import DONE, EventStream


async def send_answer(
    stream: EventStream,
    answer: Answer[ChatEvent],
    end: Callable[[ChatResult], Awaitable[Mapping[str, Any]]],
) -> None:
    """Sends an answer piece by piece, and whole in the last; an error where it fails.

    Args:
        stream: Where to.
        answer: What is sent.
        end: Makes the body that the whole answer has without `stream`.
    """
    events: list[ChatEvent] = []
    try:
        while batch := await answer.next():
            events += batch
            pieces = text_pieces(batch)
            if isinstance(batch[-1], Finish):
                pieces += [last_piece(await end(fold_chat(events))), DONE]
            await stream.send(pieces)
    except SnapLLMError as error:
        await stream.fail(api_error(error))
