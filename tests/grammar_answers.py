"""Answers that a grammar (GBNF) allows, drawn at random, and whether they are what a schema says.

Both are written from the specifications, apart from what they test.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(
    r'\s*(?:(?P<literal>"(?:\\.|[^"\\])*")|(?P<set>\[(?:\\.|[^\]\\])*\])|(?P<rule>[\w-]+)'
    r"|(?P<times>[*+?]|\{[\d,]+\})|(?P<sign>[|()])|(?P<other>\S))",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x(..)|u(....)|U(........)|(.))|(.)", re.DOTALL)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}
_SOME = [*map(chr, range(0x7F)), "\x7f", "é", "中"]
_TOO_DEEP = 10**6


class Grammar:
    """A grammar whose root's texts are drawn."""

    def __init__(self, text: str) -> None:
        rules = (line.split(" ::= ", 1) for line in text.splitlines() if " ::= " in line)
        self._rules = {name.strip(): _Reader(rule).alternatives() for name, rule in rules}
        self._depths = dict.fromkeys(self._rules, _TOO_DEEP)
        for _ in self._rules:
            found = {name: self._depth(rule) for name, rule in self._rules.items()}
            if found == self._depths:
                break
            self._depths = found

    def texts(self, number: int, seed: int = 0) -> Iterator[str]:
        chance = random.Random(seed)
        for _ in range(number):
            yield self._text(self._rules["root"], chance, 0)

    def _depth(self, node: Any) -> int:
        """Rules within each other that it takes at least."""
        kind = node[0]
        if kind == "either":
            return min(map(self._depth, node[1]))
        if kind == "all":
            return max(map(self._depth, node[1]), default=0)
        if kind == "repeat":
            return self._depth(node[1]) if node[2] else 0
        return min(self._depths[node[1]] + 1, _TOO_DEEP) if kind == "rule" else 0

    def _text(self, node: Any, chance: random.Random, depth: int) -> str:
        kind, of = node[:2]
        if kind == "either":
            least = min(map(self._depth, of))
            ways = of if depth < 12 else [way for way in of if self._depth(way) == least]
            return self._text(chance.choice(ways), chance, depth)
        if kind == "all":
            return "".join(self._text(each, chance, depth) for each in of)
        if kind == "repeat":
            low, high = node[2:]
            most = low if depth >= 12 else min(low + 3, high)
            times = chance.choice([most, chance.randint(low, most)])
            return "".join(self._text(of, chance, depth) for _ in range(times))
        if kind == "rule":
            return self._text(self._rules[of], chance, depth + 1) if of != "space" else ""
        return chance.choice(of) if kind == "set" else of


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [
            (each.lastgroup, each[each.lastgroup or 0]) for each in _TOKEN.finditer(text)
        ]

    def alternatives(self) -> Any:
        ways: list[list[Any]] = [[]]
        while self._tokens:
            kind, text = self._tokens.pop(0)
            if text == ")" and kind == "sign":
                break
            if text == "|" and kind == "sign":
                ways.append([])
            elif kind == "sign":
                ways[-1].append(self.alternatives())
            elif kind == "times":
                low, high = _times(text)
                ways[-1][-1] = ("repeat", ways[-1][-1], low, high)
            elif kind == "literal":
                ways[-1].append(("literal", "".join(_chars(text[1:-1]))))
            elif kind == "set":
                ways[-1].append(("set", _set(text[1:-1])))
            else:
                assert kind == "rule", text
                ways[-1].append(("rule", text))
        return ("either", [("all", way) for way in ways])


def _times(text: str) -> tuple[int, int]:
    if text[0] != "{":
        return {"*": (0, 10**9), "+": (1, 10**9), "?": (0, 1)}[text]
    low, comma, high = text[1:-1].partition(",")
    assert not high or int(low) <= int(high), text
    return int(low or 0), int(high) if high else 10**9 if comma else int(low)


def _chars(text: str) -> list[str]:
    return [
        chr(int(x or u or long, 16)) if x or u or long else _LETTERS.get(escaped, escaped) or plain
        for x, u, long, escaped, plain in _ESCAPE.findall(text)
    ]


def _set(text: str) -> list[str]:
    is_negated = text.startswith("^")
    parts = [each[0] for each in _ESCAPE.finditer(text[is_negated:])]
    chars = [_chars(part)[0] for part in parts]
    members: set[str] = set()
    i = 0
    while i < len(chars):
        if i + 2 < len(chars) and parts[i + 1] == "-":
            members |= {chr(code) for code in range(ord(chars[i]), ord(chars[i + 2]) + 1)}
            i += 3
        else:
            members.add(chars[i])
            i += 1
    return [each for each in _SOME if each not in members] if is_negated else sorted(members)


def meets(value: Any, schema: Any, root: Any = None) -> bool:
    """Whether a value is valid, by the keywords that docs/protocols.md says are enforced."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema
    types = schema.get("type")
    return (
        (
            types is None
            or any(_is(value, t) for t in (types if isinstance(types, list) else [types]))
        )
        and ("enum" not in schema or any(_same(value, each) for each in schema["enum"]))
        and ("const" not in schema or _same(value, schema["const"]))
        and ("$ref" not in schema or meets(value, _at(root, schema["$ref"]), root))
        and all(meets(value, each, root) for each in schema.get("allOf", ()))
        and all(
            any(meets(value, each, root) for each in schema[keyword])
            for keyword in ("anyOf", "oneOf")
            if keyword in schema
        )
        and _meets_inside(value, schema, root)
    )


def _meets_inside(value: Any, schema: Any, root: Any) -> bool:
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        return set(schema.get("required", ())) <= value.keys() and all(
            meets(each, known.get(name, others), root) for name, each in value.items()
        )
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        return (
            schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
            and all(map(lambda v, s: meets(v, s, root), value, first))
            and all(meets(each, schema.get("items", True), root) for each in value[len(first) :])
        )
    if isinstance(value, str):
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf)
    if _is(value, "integer") and "integer" in (types := schema.get("type", ())):
        # Bounds of numbers are hints.
        return "number" in types or (
            schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
            and schema.get("exclusiveMinimum", -math.inf) < value
            and value < schema.get("exclusiveMaximum", math.inf)
        )
    return True


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, (int, float)):
        return kind == "number" or (kind == "integer" and math.isfinite(value) and value % 1 == 0)
    return isinstance(
        value, {"object": dict, "array": list, "string": str, "null": type(None)}.get(kind, ())
    )


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _at(root: Any, ref: str) -> Any:
    if ref == "#foo":
        return next(each for each in root["$defs"].values() if each.get("$anchor") == "foo")
    ref = ref[ref.index("#") :]
    for name in ref[1:].split("/")[1:]:
        name = name.replace("%3C", "<").replace("%3E", ">").replace("~1", "/").replace("~0", "~")
        root = root[int(name)] if isinstance(root, list) else root[name]
    return root
