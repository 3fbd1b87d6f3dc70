"""The form that an answer must have: OpenAI's `response_format`, and what other servers call it.

References: OpenAI API, "Create chat completion" (`response_format`); llama-server, "POST
/v1/chat/completions" (`json_schema`, `grammar`); vLLM, "Structured Outputs" (`structured_outputs`,
and before it `guided_json`, `guided_choice`, `guided_regex` and `guided_grammar`); SGLang,
"Structured Outputs" (`regex`, `ebnf`).
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from snapllm._patterns import MAX_PATTERN, UnsupportedPatternError, grammar_of
from snapllm._schemas import schema_text
from snapllm.errors import InvalidRequestError
from snapllm.protocol.openai_types import Choices, ResponseFormat

MAX_LETTERS = 65_536
"""Of all texts that an answer may be one of."""
_MAX_LEVELS = 50
"""Of the expressions in each other that these become."""
_PLAIN = " _-.,"


class AnswerForm(NamedTuple):
    """What an answer must match; empty texts = anything."""

    field: str = ""
    """Where it stands."""
    json_schema: str = ""
    grammar: str = ""
    """In GBNF."""


def answer_form(wire: Any) -> AnswerForm:
    """The form that a request asks for.

    Args:
        wire: The request; it has the fields of `ChatCompletionRequest` that ask for one.

    Raises:
        InvalidRequestError: It asks for several, or for one that cannot be held to.
    """
    asked = _asked(wire)
    if len(asked) > 1:
        first, second = list(asked)[:2]
        raise InvalidRequestError(f"{second} cannot be used with {first}", param=second)
    return next(iter(asked.values()), AnswerForm())


def _unsupported(field: str) -> InvalidRequestError:
    message = f"{field} is not supported here; grammar (GBNF) is"
    return InvalidRequestError(message, param=field)


def _asked(wire: Any) -> dict[str, AnswerForm]:
    asked: dict[str, AnswerForm] = {}
    if wire.response_format is not None and wire.response_format.type != "text":
        asked["response_format"] = _openai_form(wire.response_format)
    schemas = {"json_schema": wire.json_schema, "guided_json": wire.guided_json}
    choices = {"guided_choice": wire.guided_choice}
    patterns = {name: getattr(wire, name) or None for name in ("guided_regex", "regex")}
    grammars = {name: getattr(wire, name) or None for name in ("grammar", "guided_grammar", "ebnf")}
    if (of_vllm := wire.structured_outputs) is not None:
        schemas["structured_outputs.json"] = of_vllm.json
        if of_vllm.structural_tag is not None:
            raise _unsupported("structured_outputs.structural_tag")
        choices["structured_outputs.choice"] = of_vllm.choice
        patterns["structured_outputs.regex"] = of_vllm.regex
        grammars["structured_outputs.grammar"] = of_vllm.grammar
        if of_vllm.json_object:
            schemas["structured_outputs.json_object"] = {"type": "object"}
    asked |= {
        field: AnswerForm(field, schema_text(_schema(schema, field), field))
        for field, schema in schemas.items()
        if schema is not None
    }
    asked |= {
        field: AnswerForm(field, grammar=_grammar_of(texts, field))
        for field, texts in choices.items()
        if texts is not None
    }
    asked |= {
        field: AnswerForm(field, grammar=_grammar_of_pattern(pattern, field))
        for field, pattern in patterns.items()
        if pattern is not None
    }
    asked |= {
        field: AnswerForm(field, grammar=_gbnf(grammar, field))
        for field, grammar in grammars.items()
        if grammar is not None
    }
    return asked


def _openai_form(form: ResponseFormat) -> AnswerForm:
    if form.type == "json_object":
        field = "response_format.value" if form.value else "response_format.schema"
        schema = form.value or form.schema or {"type": "object"}
        return AnswerForm(field, schema_text(schema, field))
    if (named := form.json_schema) is not None:
        field = "response_format.json_schema.schema"
        return AnswerForm(field, schema_text(named.schema or {}, field))
    if form.schema is not None:
        field = "response_format.schema"
        return AnswerForm(field, schema_text(form.schema, field))
    param = "response_format.json_schema"
    raise InvalidRequestError(f"{param} is required", param=param)


def _schema(given: dict[str, Any] | str, field: str) -> dict[str, Any]:
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequestError(f"{field} is no JSON schema: {error}", param=field) from None


def _gbnf(grammar: str, field: str) -> str:
    """The grammar, where it is in GBNF, which vLLM takes beside forms of its own."""
    if field != "grammar" and "::=" not in grammar:
        raise _unsupported(field)
    return grammar


def _grammar_of_pattern(pattern: str, field: str) -> str:
    if len(pattern) > MAX_PATTERN:
        message = f"{field} has {len(pattern)} characters, at most {MAX_PATTERN} are allowed"
        raise InvalidRequestError(message, param=field)
    try:
        return grammar_of(pattern)
    except UnsupportedPatternError as error:
        fault = f"no grammar can be made of {error}"
    except (ValueError, RecursionError) as error:
        fault = f"{pattern!r} is no regular expression: {error}"
    raise InvalidRequestError(f"{field}: {fault}", param=field)


def _grammar_of(texts: Choices, field: str) -> str:
    """A grammar of just these texts.

    What they begin with alike is written once: each way in which an answer may go on is followed
    token by token.
    """
    if sum(map(len, texts)) > MAX_LETTERS:
        message = f"{field}: its texts have more than {MAX_LETTERS} letters in all"
        raise InvalidRequestError(message, param=field)
    for i, text in enumerate(texts):
        if "\0" in text:
            param = f"{field}[{i}]"
            raise InvalidRequestError(f"{param}: it holds a NUL", param=param)
    return f"root ::= {_one_of(sorted(set(texts)), 0)}"


def _one_of(texts: list[str], level: int) -> str:
    """An expression for one of several texts, which are in order."""
    ways = []
    for first, group in groupby(texts, lambda text: text[:1] if level < _MAX_LEVELS else text):
        alike = list(group)
        start = _common_start(alike[0], alike[-1])
        rest = [text[len(start) :] for text in alike]
        if first:
            ways.append(_quoted(start) + (f" {_one_of(rest, level + 1)}" if len(rest) > 1 else ""))
    return f"({' | '.join(ways)}){'' if texts[0] else '?'}"


def _common_start(first: str, last: str) -> str:
    """What all texts begin with that are in order between two."""
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))]


def _quoted(text: str) -> str:
    return (
        '"' + "".join(c if c.isalnum() or c in _PLAIN else f"\\U{ord(c):08X}" for c in text) + '"'
    )
