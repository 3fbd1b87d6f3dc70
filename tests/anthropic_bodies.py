"""Requests of Anthropic's Messages API."""

from __future__ import annotations

import json
from typing import Any

from snapllm.protocol import anthropic

HELLO = [{"role": "user", "content": "Hi"}]
LOOK = {"name": "look", "input_schema": {}}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 20, "messages": HELLO} | fields).encode()


def parse(**fields: Any) -> anthropic.Parsed:
    return anthropic.parse_messages(body(**fields))
