"""Log probabilities in the form that OpenAI's chat and Responses APIs share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from snapllm.outputs import TokenLogprob


def logprob_objects(entries: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """The tokens with their likeliest alternatives."""
    return [
        _object(entry.bytes, entry.logprob)
        | {"top_logprobs": [_object(other.bytes, other.logprob) for other in entry.top]}
        for entry in entries
    ]


def _object(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token.decode(errors="replace"), "logprob": logprob, "bytes": list(token)}
