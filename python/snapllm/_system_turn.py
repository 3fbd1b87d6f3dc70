"""What a conversation begins with of the system: one turn, since many templates take no second."""

from __future__ import annotations

from collections.abc import Sequence

from snapllm.conversation import ContentPart, Message, has_media, part_text

_SEPARATOR = "\n\n"


def split_system(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """The messages of the system that come first, and all others. A developer's are the system's,
    as everywhere."""
    number = 0
    while number < len(messages) and messages[number].role in ("system", "developer"):
        number += 1
    return list(messages[:number]), list(messages[number:])


def join_system(messages: Sequence[Message]) -> str | list[ContentPart]:
    """What the system's first messages say, as the content of one; parts only where they hold
    media, which stand for themselves.

    Raises:
        InvalidRequestError: A part is of an unknown type, or has no text.
    """
    if has_media(messages):
        return [part for message in messages for part in content_parts(message.content)]
    said = [_text(message, f"messages[{i}].content") for i, message in enumerate(messages)]
    return _SEPARATOR.join(text for text in said if text)


def with_text_before(text: str, content: str | list[ContentPart]) -> str | list[ContentPart]:
    """A system's content with a text before it."""
    if isinstance(content, str):
        return f"{text}{_SEPARATOR}{content}" if content else text
    return [ContentPart("text", f"{text}{_SEPARATOR}"), *content]


def content_parts(content: str | list[ContentPart] | None) -> list[ContentPart]:
    """A content as parts; none where it says nothing."""
    if isinstance(content, list):
        return content
    return [ContentPart("text", content)] if content else []


def _text(message: Message, where: str) -> str:
    content = message.content
    if not isinstance(content, list):
        return content or ""
    # As in any other message, see `render_messages`.
    return "\n".join(part_text(part, f"{where}[{i}]") for i, part in enumerate(content))
