"""Which requests the event loop prepares itself, and which a thread does."""

from __future__ import annotations

from typing import Any

import pytest

from snapllm._files import InputFile
from snapllm._lowering import QUICK_CHARS, Lowered, is_quick
from snapllm.conversation import (
    ContentPart,
    FunctionDefinition,
    Message,
    MessageToolCall,
    Tool,
)
from snapllm.params import ChatRequest, CompletionRequest, SamplingOptions

LONG = "x" * (QUICK_CHARS + 1)
TOOL = Tool(FunctionDefinition("look_up", parameters={"type": "object"}))
PICTURE = ContentPart("image_url", image_url="data:image/png;base64,AA==")


def _chat(*contents: str | list[ContentPart], **options: Any) -> ChatRequest:
    messages = [Message("user", content) for content in contents]
    return ChatRequest(model="m", messages=messages, **options)


@pytest.mark.parametrize(
    "request_",
    [
        _chat("What comes next?"),
        _chat([ContentPart("text", text="What "), ContentPart("text", text="comes next?")]),
        CompletionRequest(model="m", prompt="one two"),
        CompletionRequest(model="m", prompt=[1, 2, 3]),
    ],
)
def test_a_short_text_is_prepared_at_once(request_: ChatRequest | CompletionRequest) -> None:
    assert is_quick(request_)


@pytest.mark.parametrize(
    "request_",
    [
        _chat(LONG),
        _chat([ContentPart("text", text=LONG)]),
        _chat(*["word"] * QUICK_CHARS),
        _chat("Look.", [PICTURE]),
        _chat("Look it up.", tools=[TOOL]),
        _chat("Answer.", json_schema='{"type": "object"}'),
        _chat("Answer.", sampling=SamplingOptions(grammar='root ::= "yes"')),
        _chat("Answer.", n=2),
        ChatRequest(
            model="m", messages=[Message("assistant", None, tool_calls=[MessageToolCall()])]
        ),
        ChatRequest(model="m", messages=[Message("assistant", "so", reasoning_content=LONG)]),
        ChatRequest(
            model="m",
            messages=[
                Message("assistant", [ContentPart("text", text="so")], reasoning_content=LONG)
            ],
        ),
        ChatRequest(model="m", messages=[Message("user", "word", name=LONG)]),
        ChatRequest(
            model="m",
            messages=[Message("user", [ContentPart("file", file=InputFile(file_data=LONG))])],
        ),
        _chat("Answer.", template_kwargs={"facts": LONG}),
        CompletionRequest(model="m", prompt=LONG),
    ],
)
def test_what_may_take_milliseconds_is_left_to_a_thread(
    request_: ChatRequest | CompletionRequest,
) -> None:
    assert not is_quick(request_)


def test_each_answer_has_a_seed_of_64_bits() -> None:
    lowered = Lowered(
        model="m",
        tokens=[1],
        sampling=SamplingOptions(seed=2**63 - 1),
        max_tokens=1,
        stop=(),
        n=2,
    )
    seeds = [request.sampling.seed for request in lowered.core_requests(stream=False)]
    assert seeds == [2**63 - 1, 0]
