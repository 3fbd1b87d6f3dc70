"""Reasoning that clients carry from one request to the next, as `encrypted_content`.

It is encoded, not encrypted: who may read the answer may read what led to it. The encoding
is opaque so that clients pass it back as it came, and checked so that only our own is read.
"""

from __future__ import annotations

import base64
import hashlib

_VERSION = "snapllm-reasoning-1."
_DIGEST_BYTES = 8


def encode_reasoning(text: str) -> str:
    """The text in the form that clients carry."""
    data = text.encode()
    return _VERSION + base64.urlsafe_b64encode(_digest(data) + data).decode()


def decode_reasoning(carried: str) -> str:
    """The text again; "" = it is not ours, or not as it was."""
    if not carried.startswith(_VERSION):
        return ""
    try:
        decoded = base64.b64decode(carried.removeprefix(_VERSION), b"-_", validate=True)
        digest, data = decoded[:_DIGEST_BYTES], decoded[_DIGEST_BYTES:]
        return data.decode() if digest == _digest(data) else ""
    except ValueError:
        return ""


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]
