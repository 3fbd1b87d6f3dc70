"""What would take all of a server's time, memory or stack as a grammar."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import snapllm
from snapllm.errors import InvalidRequestError
from tests.unit.test_schema_limits import syntax

NESTED = "^((a?){60}){60}$"
OPTIONAL = "^(a?b?c?d?e?f?g?){200}$"
UPSTREAM = sorted(
    (Path(__file__).parents[2] / "third_party" / "llama.cpp" / "upstream" / "grammars").glob(
        "*.gbnf"
    )
)


@pytest.fixture(scope="module")
def model() -> Any:
    with snapllm.Engine(num_threads=1) as engine:
        yield engine.load_demo()


def refused(call: Callable[[], object]) -> InvalidRequestError:
    began = time.monotonic()
    with pytest.raises(InvalidRequestError) as error:
        call()
    assert time.monotonic() - began < 5
    return error.value


@pytest.mark.parametrize("pattern", [NESTED, OPTIONAL, "^(((a?){10}){10}){10}$"])
def test_an_ambiguous_pattern_is_refused(model: snapllm.Model, pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}
    error = refused(lambda: model.chat("Go", json_schema=schema, max_tokens=4))
    assert error.param == "json_schema"
    assert "too many ways" in error.message
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    error = refused(lambda: model.chat("Go", tools=[tool], max_tokens=4))
    assert error.param == "tools"
    error = refused(lambda: model.chat("Go", tools=[tool], tool_choice="required", max_tokens=4))
    assert error.param == "tools"
    with pytest.raises(InvalidRequestError, match="more than 2000 times"):
        model.chat("Go", json_schema={"type": "string", "minLength": 50_000})


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ('root ::= x{60}\nx ::= ("a"?){60}', "too many ways"),
        ('root ::= "a"{5,2}', "out of order"),
        ("root ::= " + "(" * 300, "nested too deeply"),
        (
            "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(50_000)),
            "no rule r50000",
        ),
        (
            "root ::= r0\n"
            + "".join(f"r{i} ::= r{i + 1}\n" for i in range(50_000))
            + 'r50000 ::= "a"',
            "too deeply",
        ),
        ('root ::= "a" root | root "b" | "c"', "left recursion"),
        ("root ::= foo", "foo"),
        ('root ::= "a', "unexpected end"),
    ],
)
def test_a_grammar_is_refused_with_its_reason(
    model: snapllm.Model, grammar: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    generated = refused(lambda: model.generate("Go", grammar=grammar, max_tokens=4))
    chatted = refused(lambda: model.chat("Go", grammar=grammar, max_tokens=4))
    for error in (generated, chatted):
        assert error.param == "grammar"
        assert reason in error.message
        assert len(error.message) < 300
    out, err = capfd.readouterr()
    assert not out
    assert not err, "a client's text is not for the log"


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[\w.+-]+@[\w-]+(\.[\w-]+)+$",
        r"^https?://[^\s/$.?#].[^\s]*$",
        r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
        r"(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?$",
        r"^#([0-9a-fA-F]{3}){1,2}$",
        r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$",
        r"\w+\s+\w+",
        r"^(\s*\w*)*$",
        r"^[A-Za-z0-9+/]{0,1000}={0,2}$",
        r"^(\d{1,3}\.){3}\d{1,3}$",
        r"^([ぁ-ん]|[ァ-ヴ]|[一-龠]|ー)+$",
        r"^([а-я]|[А-Я]|ё|Ё|-)+$",
    ],
)
def test_patterns_that_people_write_are_held(model: snapllm.Model, pattern: str) -> None:
    model.chat("Go", json_schema={"type": "string", "pattern": pattern}, max_tokens=3)


@pytest.mark.skipif(not UPSTREAM, reason="this checkout has no upstream sources")
@pytest.mark.parametrize("path", UPSTREAM, ids=lambda path: path.stem)
def test_upstreams_own_grammars_are_held(model: snapllm.Model, path: Path) -> None:
    model.generate("Go", grammar=path.read_text(encoding="utf-8"), max_tokens=3)


def test_an_answer_is_held_to_scripts_outside_ascii(model: snapllm.Model) -> None:
    grammar = 'root ::= ([ぁ-ん] | [ァ-ヴ] | [一-龠] | "ー"){2}'
    answer = model.generate("Go", grammar=grammar, max_tokens=32)
    assert re.fullmatch("[ぁ-んァ-ヴ一-龠ー]{2}", answer.text), answer.text


def test_large_schemas_that_people_write_are_held(model: snapllm.Model) -> None:
    names = {f"field_{i}": {"type": "integer"} for i in range(300)}
    texts = {f"s{i}": {"type": "string", "maxLength": 500} for i in range(20)}
    words = {"enum": [f"value {i}" for i in range(1000)]}
    hanzi = [chr(0x4E00 + 37 * i % 20_000) + chr(0x4E00 + 53 * i % 20_000) for i in range(1000)]
    choice = {"type": "object", "properties": {"kind": words, "of": {"$ref": "#/$defs/choice"}}}
    for schema in (
        {"type": "object", "properties": names},
        {"type": "object", "properties": names, "required": list(names)},
        {"type": "object", "properties": {"a": words, "c": {"type": "array", "items": words}}},
        {"anyOf": [{"type": "object", "properties": {"t": {"const": i}}} for i in range(50)]},
        {"$ref": "#/$defs/choice", "$defs": {"choice": choice}},
        {"type": "string", "maxLength": 2000},
        {"type": "string", "maxLength": 100_000},
        *(
            {"type": "array", "items": {"type": "integer"}, "maxItems": n}
            for n in range(1998, 2004)
        ),
        {"type": "object", "properties": texts},
        {"type": "array", "items": {"enum": hanzi}},
    ):
        model.chat("Go", json_schema=schema, max_tokens=2)


def test_a_syntax_tree_of_many_kinds_of_nodes_is_a_schema(model: snapllm.Model) -> None:
    answer = model.chat("Go", json_schema=syntax(200), seed=1, max_tokens=100).content
    assert re.match(r'\{\s*"type"\s*:', answer)


def test_a_prompt_that_is_too_long_is_refused_before_a_grammar_is_made_of_its_tools(
    model: snapllm.Model,
) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string", "pattern": NESTED}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    assert refused(lambda: model.chat("Go", tools=[tool], max_tokens=4)).param == "tools"
    with pytest.raises(snapllm.ContextLengthExceededError):
        model.chat("x" * 2_000_000, tools=[tool], max_tokens=4)
