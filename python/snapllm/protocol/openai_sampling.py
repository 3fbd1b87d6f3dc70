"""The sampling fields that OpenAI's endpoints share."""

from __future__ import annotations

from typing import Any

from snapllm._checks import check_grammar, member
from snapllm.errors import InvalidRequestError
from snapllm.params import SamplingOptions

SAMPLING_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "ignore_eos",
    "min_tokens",
)


def sampling_options(
    wire: Any, num_logprobs: int | None, grammar: str | None = None
) -> SamplingOptions:
    """Those of a request's sampling fields that it sets.

    Args:
        wire: The request; fields of its kind that it lacks are left alone.
        num_logprobs: Alternatives to return with each token; None = no log probabilities.
        grammar: What the answer must match, in GBNF; None or empty = anything.
    """
    chosen = {
        name: value for name in SAMPLING_FIELDS if (value := getattr(wire, name, None)) is not None
    }
    penalty = getattr(wire, "repetition_penalty", None)
    if penalty is not None and chosen.setdefault("repeat_penalty", penalty) != penalty:
        message = "repetition_penalty is another name of repeat_penalty, which differs"
        raise InvalidRequestError(message, param="repetition_penalty")
    if grammar:
        chosen["grammar"] = check_grammar(grammar)
    if chosen.get("top_k") == -1:
        chosen["top_k"] = 0
    if num_logprobs is not None:
        chosen["num_logprobs"] = num_logprobs
    if wire.logit_bias:
        chosen["logit_bias"] = tuple(
            (_token_id(token), bias) for token, bias in wire.logit_bias.items()
        )
    return SamplingOptions(**chosen)


def token_limit(wire: Any, default: int) -> int:
    """How long an answer gets at most: what a request says by the first name that it has for it,
    of OpenAI's and llama-server's.

    Args:
        wire: The request.
        default: What it gets where the request does not say.
    """
    names = ("max_completion_tokens", "max_tokens", "n_predict")
    given = (getattr(wire, name, None) for name in names)
    return next((limit for limit in given if limit is not None), default)


def _token_id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    param = member("logit_bias", text)
    raise InvalidRequestError(f"{param} is not a token id", param=param)
