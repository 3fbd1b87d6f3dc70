"""The weights in a prompt, as ``(word:1.2)``, ``(word)`` and ``[word]``, and their bounds.

Upstream's parser multiplies the weights of all brackets around a word without a bound: beyond
a float the conditioning is no number, and the picture one flat colour.
"""

from __future__ import annotations

import re

from snapllm.errors import InvalidRequestError

MAX_WEIGHT = 1000.0
"""The largest magnitude of a weight, and of the product of those around a word."""

# A weight as upstream's prompt parser reads it: it takes any run of digits and points
# and throws where they are no number, or none that a normal float holds. Digits are ASCII's.
_WEIGHT = re.compile(r":([+-]?[.\d]+)\)", re.ASCII)
_MIN_WEIGHT = 1.2e-38
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)

# The parser's tokens. Whatever is neither bracket nor weight is a piece that has a weight; where
# upstream makes several pieces of one, they get the same.
_TOKEN = re.compile(r"\\[()\[\]\\]?|[()\[\]]|:([+-]?[.\d]+)\)|[^\\()\[\]:]+|:", re.ASCII)
_ROUND, _SQUARE = 1.1, 1 / 1.1


def plain_decimal(text: str) -> float | None:
    """The number that the text is in plain decimal notation; None where it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def check_weights(name: str, prompt: str) -> None:
    """Checks the weights of a prompt.

    Args:
        name: The prompt's field, for errors.
        prompt: The prompt.

    Raises:
        InvalidRequestError: One is no number, or too large or too small, by itself or with those
            around it.
    """
    for found in _WEIGHT.finditer(prompt):
        text = found[1]
        if not abs(_read(text)) <= MAX_WEIGHT:
            raise _refusal(name, f"the weight {text!r} is not a number between -1000 and 1000")
        if abs(_read(text)) < _MIN_WEIGHT and _digits(text).strip("+-.0"):
            raise _refusal(name, f"the weight {text!r} is too close to 0")
    if heaviest(prompt) > MAX_WEIGHT:
        raise _refusal(name, f"the brackets in each other weigh more than {MAX_WEIGHT:,.0f}")


def heaviest(prompt: str) -> float:
    """The largest magnitude that the weight of a word has at any time while upstream's parser
    closes the brackets around it: what is infinite once stays so."""
    import numpy as np  # with the first image, as the extension needs it then

    # As many as there could be words. Brackets of the two kinds need not be in each other, so
    # each word has its own; an array, since a client may nest thousands of them.
    weights, num_words, largest = np.ones(len(prompt) + 1), 0, 1.0
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(kind: str, weight: float) -> float:
        inside = weights[opened[kind].pop() : num_words]
        inside *= weight
        return float(inside.max(initial=0.0))

    for found in _TOKEN.finditer(prompt):
        token = found[0]
        if token in opened:
            opened[token].append(num_words)
        elif found[1] is not None or token == ")":
            if opened["("]:
                largest = max(largest, close("(", abs(_read(found[1])) if found[1] else _ROUND))
        elif token == "]" and opened["["]:
            largest = max(largest, close("[", _SQUARE))
        else:
            num_words += 1
        if largest > MAX_WEIGHT:
            return largest
    for kind, weight in (("(", _ROUND), ("[", _SQUARE)):  # what is never closed, too
        while opened[kind]:
            largest = max(largest, close(kind, weight))
    return largest


def _read(text: str) -> float:
    """The number that a weight begins with, which is what upstream reads of it."""
    return float(_digits(text))


def _digits(text: str) -> str:
    number = _NUMBER.match(text)
    return "nan" if number is None else number[0]


def _refusal(name: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name}: {message}", param=name)
