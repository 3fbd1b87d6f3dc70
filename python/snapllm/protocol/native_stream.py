"""The native API: a streamed answer in words, piece by piece.

Pieces have `done: false` and the text that is new. The last one has `done: true` and every field
of the answer that comes without `stream`, the whole text among them: whoever reads only that one
misses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from snapllm.outputs import ChatEvent, ReasoningDelta, TextDelta

if TYPE_CHECKING:
    from snapllm.protocol.stream_types import TextPiece

_encode = msgspec.json.encode


def text_piece(event: ChatEvent) -> bytes | None:
    """A piece of the answer, or of the reasoning before it; None for what has no text."""
    piece: TextPiece
    if isinstance(event, TextDelta):
        piece = {"token": event.text, "done": False}
    elif isinstance(event, ReasoningDelta):
        piece = {"token": "", "reasoning_token": event.text, "done": False}
    else:
        return None
    return _encode(piece)


def text_pieces(events: list[ChatEvent]) -> list[bytes]:
    """The pieces of several events that came together."""
    return [piece for event in events if (piece := text_piece(event)) is not None]


def last_piece(answer: Mapping[str, Any]) -> bytes:
    """The last piece, of the body that is the answer without `stream`."""
    return _encode({"token": "", "done": True, **answer})
