"""Where a document stands in the prompt, and what all questions to it share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from snapllm import _core
from snapllm._checks import as_images, check_text, convert
from snapllm._lowering import lower_chat
from snapllm._media import image_data_url
from snapllm._system_turn import content_parts, join_system, split_system, with_text_before
from snapllm.conversation import (
    MEDIA_TYPES,
    ContentPart,
    ImageUrl,
    MediaPart,
    Message,
    has_media,
)
from snapllm.errors import ContextLengthExceededError, InvalidRequestError
from snapllm.params import ChatRequest

Document: TypeAlias = str | list[ContentPart]
"""A text, or texts and pictures in their order; the pictures as data URLs."""

# Questions that begin in as many ways as tokenizers tell apart. Where pictures have to be
# decoded for each, the first of them must do.
_PROBES = ("A", "\n", " x", "b", "7", "(", "é")
_NUM_PROBES_WITH_MEDIA = 3


class DocumentPrompt(msgspec.Struct, frozen=True):
    """What the prompts of all questions to a document begin with."""

    tokens: list[int]
    chat: _core.ChatPrompt
    """A chat that begins so; knows the pictures that the tokens stand for."""


def make_document(content: str | Sequence[Any], images: Any = ()) -> Document:
    """Checks a document's content; pictures come before the text.

    Args:
        content: A text, or content parts in OpenAI's form.
        images: Paths, bytes, Pillow images or arrays, or one of these.

    Raises:
        InvalidRequestError: The content is empty or incomplete, or a picture cannot be read.
    """
    images = as_images(images, "images")
    if isinstance(content, str):
        check_text(content, "content")
        parts = [ContentPart("text", content)] if content else []
    else:
        if not isinstance(content, Sequence):
            kind = type(content).__name__
            raise InvalidRequestError(
                f"content: expected text or a sequence of parts, not {kind}", param="content"
            )
        parts = convert(content, list[ContentPart], "content")
        for i, part in enumerate(parts):
            _check(part, f"content[{i}]")
    if not images and not any(part.text or part.type in MEDIA_TYPES for part in parts):
        raise InvalidRequestError("content must not be empty", param="content")
    if not images and all(part.type == "text" for part in parts):
        return "\n".join(part.text or "" for part in parts)
    shown = [
        ContentPart("image_url", image_url=ImageUrl(image_data_url(source, f"images[{i}]")))
        for i, source in enumerate(images)
    ]
    return [*shown, *parts]


def _check(part: ContentPart, where: str) -> None:
    """Raises `InvalidRequestError` for a part that lacks what its type says it is."""
    if part.type not in ("text", *MEDIA_TYPES):
        raise InvalidRequestError(
            f"{where}.type: expected 'text', 'image_url' or 'input_audio', not {part.type!r}",
            param=f"{where}.type",
        )
    if getattr(part, part.type) is None:
        raise InvalidRequestError(f"{where}.{part.type} is required", param=f"{where}.{part.type}")


def appended(document: Document, content: str) -> Document:
    """The document with text after it."""
    if isinstance(document, str):
        return f"{document}\n{content}"
    return [*document, ContentPart("text", content)]


def document_messages(document: Document, messages: list[Message]) -> list[Message]:
    """The messages with the document before all else.

    A text is the system turn. A document with pictures begins the user's turn, where every
    template can show them. What the first messages of the system, or a developer, said follows
    the document in the same turn.

    Raises:
        InvalidRequestError: One of those has a part that is not supported.
    """
    first, rest = split_system(messages)
    own = join_system(first)
    if isinstance(document, str):
        return [Message("system", with_text_before(document, own)), *rest]
    parts = [*_named(document), *content_parts(own)]
    if rest and rest[0].role == "user":
        asked = rest.pop(0).content or ""
        parts += [ContentPart("text", asked)] if isinstance(asked, str) else asked
    return [Message("user", parts), *rest]


def document_prompt(core: _core.Engine, model_id: str, document: Document) -> DocumentPrompt:
    """What the prompts of all questions to the document begin with.

    Raises:
        InvalidRequestError: The model's template does not put the document first, or the
            model does not take its pictures.
        ContextLengthExceededError: It leaves no room in the model's context for a question.
    """
    questions = [[Message("user", probe)] for probe in _PROBES]
    chats = [document_messages(document, question) for question in questions]
    if has_media(chats[0]):
        chats = chats[:_NUM_PROBES_WITH_MEDIA]
    prompts = [lower_chat(core, ChatRequest(model=model_id, messages=chat)) for chat in chats]
    first = prompts[0]
    shortest = min(len(prompt.tokens) for prompt in prompts)
    context_size = core.model_info(model_id).context_size
    if shortest >= context_size:
        error = ContextLengthExceededError(
            f"the document is too long: with a question it is at least {shortest} tokens, and the "
            f"model's context has {context_size}",
            param="content",
        )
        error.is_of_prompt = True
        raise error
    length = 0
    while length < shortest and len({prompt.tokens[length] for prompt in prompts}) == 1:
        length += 1
    if length == 0 or first.chat is None:
        raise InvalidRequestError("the model's chat template does not put the document first")
    return DocumentPrompt(first.tokens[:length], first.chat)


def _named(document: list[ContentPart]) -> list[ContentPart]:
    """The parts, so that an error names them as the caller wrote them."""
    return [
        MediaPart(
            part.type,
            image_url=part.image_url,
            input_audio=part.input_audio,
            name=f"content[{i}].{part.type}",
        )
        if part.type in ("image_url", "input_audio")
        else part
        for i, part in enumerate(document)
    ]
