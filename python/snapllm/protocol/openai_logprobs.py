"""Log probabilities in the form that OpenAI's chat and Responses APIs share."""

from __future__ import annotations

from collections.abc import Iterable

from typing_extensions import TypedDict

from snapllm.outputs import TokenLogprob


class LikelyToken(TypedDict):
    """A token with its log probability."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    """A token of an answer with its likeliest alternatives."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(TypedDict):
    """The log probabilities of an answer's tokens."""

    content: list[ChosenToken]
    refusal: None


def logprob_objects(entries: Iterable[TokenLogprob]) -> list[ChosenToken]:
    """The tokens with their likeliest alternatives."""
    return [
        {
            **_object(entry.bytes, entry.logprob),
            "top_logprobs": [_object(other.bytes, other.logprob) for other in entry.top],
        }
        for entry in entries
    ]


def _object(token: bytes, logprob: float) -> LikelyToken:
    return {"token": token.decode(errors="replace"), "logprob": logprob, "bytes": list(token)}
