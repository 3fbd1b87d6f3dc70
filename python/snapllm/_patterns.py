"""Regular expressions, of JSON schemas and of answers, rewritten into what grammars are made of.

llama.cpp matches a schema's pattern with the JSON text of a string, from quote to quote, and knows
neither `\\d` nor patterns that may match anywhere. What comes out here is anchored, has sets of
characters only, and says of quotes, backslashes and control characters how JSON writes them.

Reference: ECMA-262, "Patterns" and its Annex B; JSON Schema, "Regular Expressions".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

Ranges: TypeAlias = list[tuple[int, int]]
"""A set of characters: first and last of each range, in order and apart from each other."""
Group: TypeAlias = "list[list[str | Group]]"
"""Alternatives of terms that follow each other. A term is written already, or a group."""

MAX_PATTERN = 4096
"""Characters; those for addresses, the longest that schema libraries write, have some 1,500."""
_MAX_REMEMBERED = 256
_LAST = 0x10FFFF
_START, _END = "^", "$"  # as terms; the characters of that name are written with a backslash
_SPECIAL = frozenset("^$.[](){}|*+?")
_JSON_ESCAPES = {0x22: '"', 0x5C: "\\", 8: "b", 12: "f", 10: "n", 13: "r", 9: "t"}
_CONTROL = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_REPEAT = re.compile(r"\{(\d+)(,(\d*))?\}")
_CODE = re.compile(r"x([\da-fA-F]{2})|u([\da-fA-F]{4})|u\{([\da-fA-F]+)\}|c([A-Za-z])|(0)(?!\d)")
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][\da-fA-F]{2})")
_NAMED_GROUP = re.compile(r"\?(?:P?<[^\W\d]\w*>|:)")


class UnsupportedPatternError(Exception):
    """The pattern is one, and no grammar says it: it looks around or back."""


def anchored(pattern: str) -> str:
    """The pattern in the form that grammars are made of.

    REQUIRES: it has at most `MAX_PATTERN` characters; other requests wait for what this takes.

    Raises:
        ValueError: It is no regular expression.
        UnsupportedPatternError: It cannot be said so.
    """
    return _anchored(pattern) if len(pattern) > _MAX_REMEMBERED else _remembered(pattern)


def _anchored(pattern: str) -> str:
    alternatives = list(_flat(_Parser(pattern, _written).whole()))
    anything = _repeated(_written([(0, _LAST)]), 0, None)
    texts = []
    for terms in alternatives:
        starts, ends = terms[:1] == [_START], terms[-1:] == [_END]
        inner = _sequence(terms[starts : len(terms) - ends])
        texts.append(f"{'' if starts else anything}{inner}{'' if ends else anything}")
    return f"^{texts[0]}$" if len(texts) == 1 else f"^(?:{'|'.join(texts)})$"


# Agents send the same tools with every turn. A character can become 140 (`\S` is 280): only
# short patterns are remembered, so that all of them take 20 MB at most.
_remembered = functools.lru_cache(maxsize=256)(_anchored)


def grammar_of(pattern: str) -> str:
    """A grammar (GBNF) of the texts that the pattern matches from their beginning to their end.

    REQUIRES: as of `anchored`.

    Raises:
        ValueError: It is no regular expression.
        UnsupportedPatternError: It cannot be said so.
    """
    ways = []
    for terms in _flat(_Parser(pattern, _plain_set).whole()):
        starts, ends = terms[:1] == [_START], terms[-1:] == [_END]
        ways.append(_sequence(terms[starts : len(terms) - ends]) or '""')
    # All characters are in sets here, and in none of these a ? comes before a colon.
    return f"root ::= {' | '.join(ways)}".replace("(?:", "(")


def _flat(group: Group) -> Iterator[list[str | Group]]:
    """The alternatives, with those of a group in place of it where it is all of one."""
    for terms in group:
        if len(terms) == 1 and not isinstance(terms[0], str):
            yield from _flat(terms[0])
        else:
            yield terms


def _sequence(terms: Sequence[str | Group]) -> str:
    if _START in terms or _END in terms:
        raise UnsupportedPatternError("an anchor within the pattern")
    return "".join(term if isinstance(term, str) else _grouped(term) for term in terms)


def _grouped(group: Group) -> str:
    return f"(?:{'|'.join(map(_sequence, group))})"


class _Parser:
    """Reads one pattern; sets of characters become what `write` makes of them."""

    def __init__(self, pattern: str, write: Callable[[Ranges], str]) -> None:
        self._text = pattern
        self._write = write
        self._at = 0

    def whole(self) -> Group:
        group = self._alternatives()
        if self._at < len(self._text):
            raise ValueError("a ) without its (")
        return group

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise ValueError("it ends too soon")
        self._at += 1
        return self._text[self._at - 1]

    def _takes(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _alternatives(self) -> Group:
        group: Group = [[]]
        while self._at < len(self._text) and self._text[self._at] != ")":
            if self._takes("|"):
                group.append([])
                continue
            term = self._term()
            low, high = self._repeats()
            if (low, high) != (1, 1):
                term = _repeated(term, low, high)
            group[-1].append(term)
        return group

    def _term(self) -> str | Group:
        char = self._next()
        if char in "*+?":
            raise ValueError(f"nothing to repeat before {char}")
        if char in (_START, _END):
            return char
        if char == "(":
            return self._group()
        if char == "[":
            return self._write(self._set())
        if char == ".":
            return self._write(_without([(10, 10), (13, 13), (0x2028, 0x2029)]))
        if char == "\\":
            return self._write(self._escape(in_set=False))
        return self._write([(ord(char), ord(char))])

    def _group(self) -> Group:
        named = _NAMED_GROUP.match(self._text, self._at)
        if named:
            self._at = named.end()
        elif self._takes("?"):
            self._next()
            raise UnsupportedPatternError("a group that looks around, or sets flags")
        group = self._alternatives()
        if not self._takes(")"):
            raise ValueError("a ( without its )")
        return group

    def _repeats(self) -> tuple[int, int | None]:
        """How often the last term comes; None = without end."""
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        counted = _REPEAT.match(self._text, self._at)
        if counted:
            self._at = counted.end()
            low = int(counted[1])
            high = low if counted[2] is None else int(counted[3]) if counted[3] else None
            if high is not None and high < low:
                raise ValueError(f"{counted[0]} is out of order")
        else:
            char = self._text[self._at : self._at + 1]
            if not char or char not in simple:
                return 1, 1
            self._at += 1
            low, high = simple[char]
        self._takes("?")  # whether it matches as little as it can is no matter to a grammar
        if self._takes("+"):
            raise UnsupportedPatternError("a repetition that gives nothing back")
        return low, high

    def _set(self) -> Ranges:
        is_negated = self._takes("^")
        ranges: Ranges = []
        while not self._takes("]"):
            low = self._member()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._member()
                if _is_one(low) and _is_one(high):
                    if high < low:
                        raise ValueError("a range of characters is out of order")
                    low = [(low[0][0], high[0][0])]
                else:
                    low = [*low, (0x2D, 0x2D), *high]
            ranges += low
        return _without(ranges) if is_negated else _merged(ranges)

    def _member(self) -> Ranges:
        char = self._next()
        return self._escape(in_set=True) if char == "\\" else [(ord(char), ord(char))]

    def _escape(self, *, in_set: bool) -> Ranges:
        char = self._next()
        if char.lower() in _CLASSES:
            ranges = _CLASSES[char.lower()]
            return _without(ranges) if char.isupper() else ranges
        if char in _CONTROL:
            return [(_CONTROL[char], _CONTROL[char])]
        if char == "b" and in_set:
            return [(8, 8)]
        code = _CODE.match(self._text, self._at - 1)
        if code:
            self._at = code.end()
            number = self._code(code)
            return [(number, number)]
        if char.isalnum():
            raise UnsupportedPatternError(f"\\{char}")
        return [(ord(char), ord(char))]

    def _code(self, code: re.Match[str]) -> int:
        """The character that a code stands for; two halves of a pair are one."""
        if code[4]:
            return ord(code[4]) % 32
        number = int(code[1] or code[2] or code[3] or "0", 16)
        low = _LOW_SURROGATE.match(self._text, self._at)
        if 0xD800 <= number < 0xDC00 and low:
            self._at = low.end()
            return 0x10000 + ((number - 0xD800) << 10) + (int(low[1], 16) - 0xDC00)
        if number > _LAST:
            raise ValueError(f"there is no character {number:X}")
        return number


def _repeated(term: str | Group, low: int, high: int | None) -> str:
    if term in (_START, _END):
        raise ValueError("an anchor cannot be repeated")
    text = term if isinstance(term, str) else _grouped(term)
    # llama.cpp repeats all of a literal where its last character is escaped.
    is_one = isinstance(term, str) and text.startswith("[") and text.find("]") == len(text) - 1
    one = text if is_one or text.startswith("(?:") else f"(?:{text})"
    if high is None:
        return f"{one}{'*' if low == 0 else '+'}" if low < 2 else f"{one}{{{low}}}{one}*"
    if high == 0:
        return ""
    if (low, high) == (0, 1):
        return f"{one}?"
    return f"{one}{{{low}}}" if low == high else f"{one}{{{low},{high}}}"


def _is_one(ranges: Ranges) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    merged: Ranges = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def _without(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """All characters but those."""
    rest: Ranges = []
    begin = 0
    for low, high in _merged(ranges):
        if begin < low:
            rest.append((begin, low - 1))
        begin = high + 1
    return [*rest, (begin, _LAST)] if begin <= _LAST else rest


_WORD = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE = [(9, 13), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)]
_SPACE += [(0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)]
_CLASSES: dict[str, Ranges] = {"d": [(0x30, 0x39)], "w": _WORD, "s": _SPACE}
_ESCAPED: Ranges = [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0xD800, 0xDFFF)]
"""What no JSON string holds as it is, nor UTF-8. A set is never written as all but some: to
llama.cpp that has what is no character, too."""
_NOT_IN_TEXT: Ranges = [(0, 0), (0xD800, 0xDFFF)]
"""What no answer holds: a grammar would end at the one, and UTF-8 has no other."""


def _written(ranges: Ranges) -> str:
    """One character of a set, as JSON writes it."""
    return _written_set(tuple(ranges))


@functools.lru_cache(maxsize=64)  # a pattern may have one set thousands of times
def _written_set(ranges: tuple[tuple[int, int], ...]) -> str:
    plain = _without([*_without(ranges), *_ESCAPED])
    has = [code for low, high in ranges for code in range(low, min(high, 0x5C) + 1)]
    letters = [letter for code, letter in _JSON_ESCAPES.items() if code in has]
    texts = [_one_of(plain)] if plain else []
    if letters:
        texts.append(r"\\" + _one_of(_merged((ord(each), ord(each)) for each in letters)))
    if not texts:
        texts = [rf"\\u{code:04x}" for code in has]
    if not texts:
        raise UnsupportedPatternError("a set without characters")
    return texts[0] if len(texts) == 1 else f"(?:{'|'.join(texts)})"


def _plain_set(ranges: Ranges) -> str:
    """One character of a set, as a grammar writes it."""
    plain = _without([*_without(ranges), *_NOT_IN_TEXT])
    if not plain:
        raise UnsupportedPatternError("a set without characters")
    return _set(plain)


def _one_of(ranges: Ranges) -> str:
    return _escaped(ranges[0][0], _SPECIAL.__contains__) if _is_one(ranges) else _set(ranges)


def _set(ranges: Ranges) -> str:
    members = "".join(
        _member(low) if low == high else f"{_member(low)}-{_member(high)}" for low, high in ranges
    )
    return f"[{members}]"


def _member(code: int) -> str:
    # ^ is none of the characters that a grammar knows a backslash before.
    return r"\x5E" if code == 0x5E else _escaped(code, lambda char: char in "[]-")


def _escaped(code: int, needs_backslash: Callable[[str], bool]) -> str:
    char = chr(code)
    if char in '"\\' or needs_backslash(char):
        return f"\\{char}"
    if char.isprintable():
        return char
    return f"\\x{code:02X}" if code < 0x100 else f"\\U{code:08X}"
