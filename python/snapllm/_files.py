"""Text files in messages: what a client attaches is shown to the model as its text."""

from __future__ import annotations

import msgspec

from snapllm._base64 import decode_base64, is_data_url
from snapllm.errors import InvalidRequestError


class InputFile(msgspec.Struct):
    """A file in a message, as OpenAI's clients send it."""

    file_data: str | None = None
    """Base64, or a data URL of it."""
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None


def file_text(file: InputFile, where: str) -> str:
    """The file's name and its text.

    Args:
        file: The file.
        where: The place of its fields in the request.

    Raises:
        InvalidRequestError: It is not here but elsewhere, or is no text.
    """
    for name in ("file_id", "file_url"):
        if getattr(file, name):
            raise InvalidRequestError(
                f"{where}.{name} is not supported: give the file itself, as file_data",
                param=f"{where}.{name}",
            )
    field = f"{where}.file_data"
    if not file.file_data:
        raise InvalidRequestError(f"{field} is required", param=field)
    data = file.file_data
    if is_data_url(data):
        _, mark, data = data.partition(";base64,")
        if not mark:
            raise InvalidRequestError(f"{field}: a data URL must be base64", param=field)
    text = decode_text(data, field)
    return f"{file.filename}\n{text}" if file.filename else text


def decode_text(data: str, where: str) -> str:
    """The text of a file in base64.

    Raises:
        InvalidRequestError: It is no text, or no base64.
    """
    try:
        text = decode_base64(data, where).decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or text.startswith("%PDF-"):
        raise InvalidRequestError(f"{where}: only files of text (UTF-8) are supported", param=where)
    return text
