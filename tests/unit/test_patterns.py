"""Regular expressions as grammars know them: what they match is what they matched before."""

from __future__ import annotations

import json
import re

import pytest

from snapllm import _patterns
from snapllm._patterns import UnsupportedPatternError, anchored, grammar_of

TEXTS = [
    *("", "a", "b", "ab", "aab", "abb", "x1", "12", "2024-05-01", "12-34", "a.b", "a..", "^", "]"),
    *(
        "a b",
        "a\tb",
        "\n",
        'say "hi"',
        "back\\slash",
        "\x01",
        "é",
        "éé",
        "😀",
        "\xa0",
        "a-z",
        "{,2}",
    ),
    *("x@y.com", "_", "\x08", "/a", "aa", "aaaa", "a^b", "\u2028", "-", "\x7f"),
]

ANYTHING = r"(?:[ -!#-\[\]-\U0000D7FF\U0000E000-\U0010FFFF]|\\[\"\\bfnrt])*"


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            r"^\d{4}-\d{2}-\d{2}$",
            r"\d",
            r"\D",
            r"^\D+$",
            r"\w+",
            r"^\W$",
            r"^\s$",
            r"^\S+$",
            r"\s",
        ),
        *("b", "^a", "b$", "^a|b$", "(^a$)|(^b+$)", "^(a|b)+$", "^(?:ab?)*$", "^$", "^", "a|"),
        *(r"^a\.+$", r"^é+$", "^a{2}$", "^a{2,}$", "^a{1,3}b*?$", "^x{0}1?2?$", r"^\{,2}$", "]"),
        *("^.*$", ".", '"', r"^\\$", r"\\", r'^[^"]+$', r"^[^\\]*$", "^[a-]+$", r"^[\w.-]+$"),
        *(r"^[\^\]a]+$", "^[^^]$", r"[\d-]", r"\n", r"\t", r"^[\b]$", r"\x01", r"^\u00e9$", "😀"),
        *(
            r"^\w+@\w+\.com$",
            r"^\/a$",
            r"^(?P<one>a)(b)$",
            "^[é-😀]+$",
            r"^[^\s\d]+$",
            "^-?[0-9]+$",
        ),
    ],
)
def test_a_rewritten_pattern_matches_the_json_of_the_same_texts(pattern: str) -> None:
    rewritten = re.compile(anchored(pattern))
    original = re.compile(
        pattern.replace("$", r"\Z"), re.ASCII if r"\s" not in pattern.lower() else 0
    )
    for text in TEXTS:
        if pattern in (".", "^.*$") and text in ("\n", "\u2028"):
            continue  # ECMAScript's dot is not Python's
        if text == "\x01" and pattern != r"\x01":
            continue  # to be written as a code, it must be asked for
        written = json.dumps(text, ensure_ascii=False)[1:-1]
        assert bool(rewritten.fullmatch(written)) == bool(original.search(text)), text


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^\d{3}-\d{4}$", "^[0-9]{3}-[0-9]{4}$"),
        ("^[A-Z]{2,5}$", "^[A-Z]{2,5}$"),
        (r"^(?<year>\d+)\.$", r"^(?:[0-9]+)\.$"),
        (
            "^a|b$",
            rf"^(?:a{ANYTHING}|{ANYTHING}b)$",
        ),
    ],
)
def test_what_is_written_for_the_grammar(pattern: str, text: str) -> None:
    assert anchored(pattern) == text


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "[a", "*a", "a**", "a|*", "(?", "[z-a]", "a{3,1}", "^*", "\\", "(+)"],
)
def test_what_is_no_regular_expression_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError):
        anchored(pattern)


@pytest.mark.parametrize("pattern", ["^(?!a)b$", "(?<=a)b", r"(a)\1", r"\bword\b", r"\p{L}", "a^b"])
def test_what_looks_around_or_back_cannot_be_said(pattern: str) -> None:
    with pytest.raises(UnsupportedPatternError):
        anchored(pattern)


def test_what_is_remembered_is_bounded_in_characters() -> None:
    """A cache of a thousand long patterns was one of half a gigabyte."""
    longest = 0
    for num_sets in (10, 100, 1000):
        before = _patterns._remembered.cache_info().misses
        written = anchored("^" + r"\S" * num_sets + "bounded$")
        if _patterns._remembered.cache_info().misses > before:
            longest = max(longest, len(written))
    assert longest > 0
    assert longest * (_patterns._remembered.cache_info().maxsize or 1 << 30) < 20 << 20


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"\d{4}-\d{2}-\d{2}", r"^a+b?$", r"(?:a|b)*", r"(a|)b", r"", r"a|", r"^", r"\W", r"[^a]"),
        *(
            r"\S+",
            r".{2,3}",
            r"a{2}",
            r"[\]^-]",
            r"(?P<user>\w+)@(\w+)\.com",
            r"say \"\w+\"",
            r"[(?:]",
        ),
        *(r"\n", r"\x41|\u00e9", r"(?:a(?:b|bb)){1,}", r"back\\slash", r"\/a", r"a*?"),
    ],
)
def test_a_grammar_of_a_pattern_has_the_texts_that_it_matches_as_a_whole(pattern: str) -> None:
    root, expression = grammar_of(pattern).split(" ::= ", 1)
    assert root == "root"
    read = re.compile(expression.replace(" | ", "|").replace('""', ""))
    # Of those two, Python and ECMAScript think differently.
    for text in set(TEXTS) - {"\xa0", "\u2028"}:
        expected = re.fullmatch(pattern, text, re.ASCII) is not None
        assert (read.fullmatch(text) is not None) is expected, text
