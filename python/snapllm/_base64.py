"""Base64 in requests: of images, sounds and files."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote

from snapllm.errors import InvalidRequestError

MAX_WAV_BYTES = 32 << 20
"""Nothing else in base64 may be larger."""


def decode_base64(text: str, where: str) -> bytes:
    """Decodes base64, with or without line breaks and padding.

    Raises:
        InvalidRequestError: It is something else, or longer than any limit.
    """
    if len(text) > MAX_WAV_BYTES * 3 // 2:
        raise InvalidRequestError(f"{where}: too large", param=where)
    compact = "".join(text.split())
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestError(f"{where} is not valid base64", param=where) from None


def is_data_url(text: str) -> bool:
    """Whether the text is, or means to be, a data URL."""
    return text[:5].lower() == "data:"


def decode_data_url(url: str, where: str) -> bytes:
    """The bytes in a data URL, whose base64 may be percent-encoded like the rest of a URL.

    Raises:
        InvalidRequestError: It holds no base64, or more than any limit.
    """
    header, comma, data = url.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise InvalidRequestError(f"{where}: a data URL must be base64", param=where)
    return decode_base64(unquote(data), where)
