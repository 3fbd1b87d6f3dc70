"""What a model's first request would wait for, done when the model is loaded."""

from __future__ import annotations

import contextlib

from snapllm._lowering import lower_chat
from snapllm.conversation import Message
from snapllm.engine import Engine
from snapllm.errors import SnapLLMError
from snapllm.params import ChatRequest


def warm_up(engine: Engine, model_id: str) -> None:
    """Formats a chat: what the format of the model's template is comes of it, and is kept."""
    request = ChatRequest(model=model_id, messages=[Message(role="user", content="x")])
    # A template may refuse the chat; then there is nothing to be kept.
    with contextlib.suppress(SnapLLMError):
        lower_chat(engine.runner.core, request)
