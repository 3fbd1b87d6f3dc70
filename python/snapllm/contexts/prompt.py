"""Where a document stands in the prompt, and what all questions to it share."""

from __future__ import annotations

from typing import Any

import msgspec

from snapllm import _core
from snapllm._lowering import lower_chat
from snapllm.conversation import Message
from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest, convert

# Questions that begin in as many ways as tokenizers tell apart.
_PROBES = ("A", "b", "7", "(", " x", "\n", "é")


def document_messages(content: str, messages: list[Message]) -> list[Message]:
    """The document as the system turn before the messages.

    A system message that is there already follows the document in the same turn.
    """
    rest = list(messages)
    text: Any = content
    if rest and rest[0].role == "system":
        first = msgspec.to_builtins(rest.pop(0))["content"]
        own = first if isinstance(first, str) else "".join(p.get("text", "") for p in first or ())
        text = f"{content}\n\n{own}"
    return [convert({"role": "system", "content": text}, Message), *rest]


def context_tokens(core: _core.Engine, model_id: str, content: str) -> list[int]:
    """The tokens that the prompts of all questions to the document begin with.

    Raises:
        InvalidRequestError: The model's template does not put the document first.
    """
    prompts = []
    for probe in _PROBES:
        question = convert([{"role": "user", "content": probe}], list[Message])
        request = ChatRequest(model=model_id, messages=document_messages(content, question))
        prompts.append(lower_chat(core, request).tokens)
    shortest = min(len(prompt) for prompt in prompts)
    length = 0
    while length < shortest and len({prompt[length] for prompt in prompts}) == 1:
        length += 1
    if length == 0:
        raise InvalidRequestError("the model's chat template does not put the document first")
    return prompts[0][:length]
