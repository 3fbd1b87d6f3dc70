"""The content blocks of Anthropic's Messages API, as text and parts of a message.

Reference: Anthropic API, "Create a Message".
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from snapllm._files import decode_text
from snapllm.conversation import ContentPart, MediaPart
from snapllm.errors import InvalidRequestError
from snapllm.protocol.anthropic_types import Block, Source

# Anthropic's words: upon them Claude Code leaves the image or document out and asks again. Upon
# others it sends it with every later turn, too, and a conversation in which a tool has read one
# would never be answered again.
_NO_IMAGE = "Could not process image"
_NO_PDF = "Could not process PDF"


def blocks_of(content: str | list[Block] | Block | None) -> list[Block]:
    """What a content holds: a text is one block."""
    if isinstance(content, str):
        return [Block("text", text=content)]
    return content if isinstance(content, list) else [content] if content is not None else []


def texts(blocks: Sequence[Block], where: str) -> list[str]:
    """The texts of blocks that have nothing else; see `block_text`."""
    return [block_text(block, f"{where}[{i}]") for i, block in enumerate(blocks)]


def block_text(block: Block, where: str) -> str:
    """The text of a text, document or search result block, or of a reference to a tool.

    Raises:
        InvalidRequestError: It is another block, or does not fit; `param` names the field.
    """
    if block.type == "text":
        if block.text is None:
            raise InvalidRequestError(f"{where}.text is required", param=f"{where}.text")
        return block.text
    if block.type == "document":
        document = _document_text(block.source, f"{where}.source")
        return _lines(block.title, block.context, document)
    if block.type == "tool_reference" and block.tool_name:
        return f"{block.tool_name} can be called"
    if block.type == "search_result":
        found = block.source if isinstance(block.source, str) else None
        return _lines(block.title, found, _content_text(block.content, f"{where}.content"))
    raise InvalidRequestError(
        f"{where}: content of type {block.type!r} is not supported here", param=f"{where}.type"
    )


def said_text(block: Block, where: str) -> str:
    """The text of a block of the assistant's turn, of which a tool that another server ran is
    shown as what was asked for and found; "" = there is nothing to show. See `block_text`."""
    if block.type == "fallback":  # says which model went on
        return ""
    if block.type == "compaction":
        return block.content if isinstance(block.content, str) else ""
    if block.type in ("server_tool_use", "mcp_tool_use"):
        return f"{block.name}: {msgspec.json.encode(block.input or {}).decode()}"
    if block.type.endswith("_tool_result"):
        return _found(block)
    return block_text(block, where)


def _found(block: Block) -> str:
    """What is readable of a result: pages, outputs, texts, names of tools or an error."""
    source = block.source if isinstance(block.source, Source) else None
    return _lines(
        *(block.title, block.url, block.error_code, block.text, block.tool_name),
        *(block.stdout, block.stderr),
        source.data if source is not None and source.type == "text" else None,
        block.content if isinstance(block.content, str) else None,
        *map(_found, [] if isinstance(block.content, str) else blocks_of(block.content)),
        *map(_found, block.tool_references or ()),
    )


def block_parts(block: Block, where: str) -> list[ContentPart]:
    """A block of a user's turn or of a tool's result as parts: one, unless it is a document that
    shows images; see `block_text`."""
    if block.type == "image":
        return [_image_part(block, where)]
    pages = _pages(block)
    if all(page.type != "image" for page in pages):
        return [ContentPart("text", block_text(block, where))]
    about = _lines(block.title, block.context)
    parts = [ContentPart("text", about)] if about else []
    for i, page in enumerate(pages):
        parts += block_parts(page, f"{where}.source.content[{i}]")
    return parts


def _pages(block: Block) -> list[Block]:
    """What a document of type `content` holds."""
    source = block.source
    if block.type != "document" or not isinstance(source, Source) or source.type != "content":
        return []
    return blocks_of(source.content)


def _lines(*lines: str | None) -> str:
    return "\n".join(line for line in lines if line)


def _document_text(source: Source | str | None, where: str) -> str:
    if isinstance(source, Source):
        if source.type == "text" and source.data is not None:
            return source.data
        if source.type == "content" and source.content is not None:
            return _content_text(source.content, f"{where}.content")
        if source.type == "base64" and source.data is not None:
            return _decoded_text(source.data, f"{where}.data")
    raise InvalidRequestError(f"{where}: only documents of text are supported", param=where)


def _decoded_text(data: str, where: str) -> str:
    try:
        return decode_text(data, where)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{_NO_PDF}: {error.message}", param=error.param) from None


def _content_text(content: str | list[Block] | Block | None, where: str) -> str:
    return "\n".join(texts(blocks_of(content), where))


def _image_part(block: Block, where: str) -> ContentPart:
    """An image in the neutral form: a data URL, or the URL it was given by."""
    name = f"{where}.source"
    source = block.source if isinstance(block.source, Source) else Source("")
    if source.type == "base64" and source.data and source.media_type:
        url = f"data:{source.media_type};base64,{source.data}"
    elif source.type == "url" and source.url:
        url = source.url
    elif source.type == "file":
        reason = "a file's id is not supported: give the image itself, as base64"
        raise InvalidRequestError(f"{_NO_IMAGE}: {name}: {reason}", param=name)
    else:
        raise InvalidRequestError(f"{_NO_IMAGE}: {name} is not an image", param=name)
    return MediaPart("image_url", image_url=url, name=name, refusal=_NO_IMAGE)
