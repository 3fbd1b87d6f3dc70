"""The pieces of the native API's streams."""

from __future__ import annotations

import json

from snapllm._readers import fold_chat
from snapllm.outputs import ChatEvent, Finish, ReasoningDelta, TextDelta, ToolCallStart
from snapllm.protocol.native import generate_object
from snapllm.protocol.native_stream import last_piece, text_pieces


def test_the_last_piece_is_the_answer_and_the_others_add_up_to_it() -> None:
    events: list[ChatEvent] = [
        ReasoningDelta("Let me "),
        ReasoningDelta("see."),
        TextDelta("Twenty"),
        ToolCallStart(0, "call_1", "look"),
        TextDelta(" days."),
        Finish(finish_reason="stop"),
    ]
    answer = generate_object("m", fold_chat(events))
    pieces = [json.loads(piece) for piece in [*text_pieces(events), last_piece(answer)]]
    assert [piece["done"] for piece in pieces] == [False] * 4 + [True]
    assert "".join(piece["token"] for piece in pieces) == "Twenty days."
    assert "".join(piece.get("reasoning_token", "") for piece in pieces) == "Let me see."
    assert pieces[-1] == answer | {"token": "", "done": True}
    assert (answer["response"], answer["reasoning"]) == ("Twenty days.", "Let me see.")
