"""Schemas in forms of which llama.cpp makes the grammars that they mean.

It reads one keyword of a schema and forgets those beside it: `anyOf` before `properties`, a `$ref`
before anything; of `allOf` it knows objects only, and true and false are no schemas to it. What
several such keywords say is put together here, so that one is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from snapllm._schema_faults import UnusableSchemaError, no_schema
from snapllm._schema_parts import (
    MAX_READ,
    includes_itself,
    too_many_schemas,
)
from snapllm._schema_refs import CONTAINERS, References, rule_name
from snapllm._schema_words import (
    BINDING,
    COMBINING,
    LEAST,
    MOST,
    Schema,
    held_integer,
    may_be,
    merged,
    possible,
    types_of,
    with_types,
)

_REF = re.compile("#/[^%~]*")
"""A reference that llama.cpp can follow as it is."""
_OF_DEFS = re.compile(r"#/(\$defs|definitions)/[^/]+")
_SUSPECT = frozenset(("enum", "const", "required", "additionalProperties", *LEAST, *MOST))
"""Without these, what combines no others is in its form."""
_MERGED = BINDING | {*COMBINING, "nullable"}
"""Of a schema, what is put together with others."""
_MAX_REFS = 500
"""That lead to each other where they stand."""
_MIN_NAMED = 8
"""Schemas within one that is referred to where it comes again. Smaller ones are written again."""
_MAX_OPENED = 40
"""Schemas around one that is put together and written there; within more it gets a name."""
_MAX_ROUNDS = 4
"""In which definitions that nothing meets fall away; each may take others with it."""
_UNSAYABLE = frozenset('"\\[]^') | {chr(code) for code in range(32)}
"""What a property's name must not have where others are allowed: llama.cpp says which are the
others by sets of letters, in which these mean something else."""
_LISTS = ("anyOf", "oneOf", "prefixItems")


def in_forms(schema: Schema) -> Schema:
    """The schema, in forms that llama.cpp holds; itself where it is in those.

    Raises:
        UnusableSchemaError: Nothing meets it, or a reference leads nowhere, to itself or too deep,
            or it becomes too large.
    """
    if not _needs_rewriting(schema):
        return schema
    empty: dict[int, Schema] = {}
    for _ in range(_MAX_ROUNDS):
        forms = _Forms(schema, empty)
        told = forms.whole()
        if told is not None:
            return told
        if not forms.found_empty:
            break
        # What refers to these does so in vain, and falls away in turn.
        empty |= forms.found_empty
    raise UnusableSchemaError("nothing meets all that it says")


def _needs_rewriting(schema: Schema) -> bool:
    refs: set[str] = set()
    rules: set[str] = set()
    references: References | None = None
    looked_at: set[int] = set()
    waiting: list[Any] = [schema]
    while waiting:
        at = waiting.pop()
        if not isinstance(at, dict):
            if isinstance(at, bool):
                return True
            continue
        ref = at.get("$ref")
        if isinstance(ref, str):
            if ref not in refs:
                if not _REF.fullmatch(ref) or rule_name(ref) in rules:
                    return True
                refs.add(ref)
                rules.add(rule_name(ref))
                if not _OF_DEFS.fullmatch(ref):
                    # It may lead to where no schemas are looked for.
                    references = references or References(schema)
                    waiting.append(references.target(ref))
            if len(at) == 1:
                continue
        if id(at) in looked_at:
            continue
        looked_at.add(id(at))
        if _is_combined(at):
            return True
        if not _SUSPECT.isdisjoint(at) and not _is_choice(at) and _as_it_is(at) is not at:
            return True
        for container in CONTAINERS:
            waiting += _values(at.get(container))
        waiting += _inner(at)
    return False


def _inner(schema: Schema) -> Iterator[Any]:
    yield from _values(schema.get("properties"))
    for keyword in _LISTS:
        each = schema.get(keyword)
        yield from each if isinstance(each, list) else ()
    items = schema.get("items")
    yield from items if isinstance(items, list) else (items,)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        yield others


def _values(of: Any) -> Iterator[Any]:
    return iter(of.values() if isinstance(of, dict) else ())


def _is_combined(schema: Mapping[str, Any]) -> bool:
    """Whether llama.cpp would forget something that stands beside what it reads."""
    if "allOf" in schema:
        return True
    combining = [keyword for keyword in COMBINING if keyword in schema]
    return bool(combining) and (len(combining) > 1 or not BINDING.isdisjoint(schema))


def _is_choice(schema: Mapping[str, Any]) -> bool:
    return "$ref" in schema or "anyOf" in schema or "oneOf" in schema


def _as_it_is(schema: Schema, *, is_merged: bool = False) -> Schema | None:
    """A schema that combines no others, as llama.cpp holds it; None where nothing meets it.

    Args:
        is_merged: It is what several say together. What its author wrote in one place is a slip
            where nothing meets it, as values of another type, and held as it stands: a client's
            tools come all or not at all.
    """
    told = possible(schema)
    if "enum" in schema or "const" in schema:
        return told if told or is_merged else schema
    told = told and _with_required(told, is_merged=is_merged)
    return told and _with_sayable_names(held_integer(told))


def _with_required(schema: Schema, *, is_merged: bool) -> Schema | None:
    """With all names that are required among the properties; llama.cpp ignores them elsewhere."""
    required = schema.get("required")
    if not isinstance(required, list) or not may_be(schema, "object"):
        return schema
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        return schema
    missing = [
        name
        for name in dict.fromkeys(each for each in required if isinstance(each, str))
        if name not in properties
    ]
    if not missing:
        return schema
    others = schema.get("additionalProperties", True)
    if others is False:
        if not is_merged:
            return schema
        types = types_of(schema)
        return with_types(schema, [each for each in types or () if each != "object"])
    each = others if isinstance(others, dict) else {}
    told = {**schema, "properties": {**properties, **dict.fromkeys(missing, each)}}
    if not properties:
        told["additionalProperties"] = others
    return told


def _with_sayable_names(schema: Schema) -> Schema:
    others, properties = schema.get("additionalProperties"), schema.get("properties")
    if others in (None, False) or not isinstance(properties, dict):
        return schema
    if all(_UNSAYABLE.isdisjoint(name) for name in properties):
        return schema
    return {**schema, "additionalProperties": False}


class _Way(NamedTuple):
    """One of several schemas that may be met."""

    schema: Schema
    """It combines no others."""
    target: Schema | None = None
    """What a reference leads to and that is no more than this, if there is one."""


class _Forms:
    """One schema on its way."""

    def __init__(self, schema: Schema, empty: Mapping[int, Schema]) -> None:
        self._schema = schema
        self._empty = empty
        self.found_empty: dict[int, Schema] = {}
        """What is referred to, and nothing meets; by its identity."""
        self._refs = References(schema)
        self._made: dict[int, tuple[Schema, Schema | None, int]] = {}
        self._opened: set[int] = set()
        self._both: dict[tuple[int, int], Schema] = {}
        self._waiting: list[Schema] = []
        self._referred: dict[int, Schema] = {}
        self._num_made = 0

    def whole(self) -> Schema | None:
        """The schema in its form; None where nothing meets it or what is in `found_empty`."""
        told = self._made_of(self._schema)
        defs: dict[str, dict[str, Any]] = {}
        while self._waiting:
            target = self._waiting.pop()
            made = self._made_of(target, is_named=True)
            if made is None:
                self.found_empty[id(target)] = target
                continue
            _, container, name = self._refs.named(target).split("/")
            if target is self._schema:
                made = {key: made[key] for key in made if key not in CONTAINERS}
            defs.setdefault(container, {})[name] = made
        if told is None or self.found_empty:
            return None
        for container, made_defs in defs.items():
            own = self._schema.get(container)
            told = {**told, container: {**(own if isinstance(own, dict) else {}), **made_defs}}
        return told

    def _made_of(self, schema: Any, is_named: bool = False) -> Schema | None:
        """The schema in its form, or a reference to it; None where nothing meets it.

        Args:
            is_named: It is what its name stands for, thus no reference.
        """
        if isinstance(schema, bool):
            return {} if schema else None
        if not isinstance(schema, dict):
            raise no_schema(schema)
        key = id(schema)
        if key in self._empty:
            return None
        if key in self._opened:
            return self._reference_to(schema)
        if key in self._made:
            _, made, size = self._made[key]
            is_worth_a_name = size >= _MIN_NAMED or key in self._referred
            if made is not None and not is_named and is_worth_a_name:
                return self._reference_to(schema)
            self._spend(size)
            return made
        if len(self._opened) >= _MAX_OPENED and not is_named and _is_combined(schema):
            return self._reference_to(schema)
        self._opened.add(key)
        before = self._num_made
        self._spend(1)
        made = self._rewritten(schema)
        self._opened.discard(key)
        # The schema is kept with it, so that no other one takes its place in memory.
        self._made[key] = schema, made, self._num_made - before
        return made

    def _spend(self, number: int) -> None:
        self._num_made += number
        if self._num_made > MAX_READ:
            raise too_many_schemas()

    def _reference_to(self, target: Schema) -> Schema:
        if id(target) not in self._referred:
            self._referred[id(target)] = target
            self._waiting.append(target)
        return {"$ref": self._refs.named(target)}

    def _rewritten(self, schema: Schema) -> Schema | None:
        if _is_combined(schema):
            return self._combined(schema)
        ref = schema.get("$ref")
        if isinstance(ref, str):
            target = self._refs.target(ref)
            if isinstance(target, bool) or id(target) in self._empty:
                return {} if target is True else None
            return {**schema, **self._reference_to(target)}
        if not _is_choice(schema):
            return self._plain(schema)
        keyword = "oneOf" if "oneOf" in schema else "anyOf"
        alternatives = schema.get(keyword)
        if not isinstance(alternatives, list):
            return schema
        made = [self._made_of(each) for each in alternatives]
        left = [each for each in made if each is not None]
        return {**schema, keyword: left} if left or not made else None

    def _plain(self, schema: Schema, *, is_merged: bool = False) -> Schema | None:
        """What combines no others, with the schemas within it in their forms."""
        told = _as_it_is(schema, is_merged=is_merged)
        if told is None or "enum" in told or "const" in told:
            return told
        told = self._object(dict(told))
        return told and self._array(told)

    def _object(self, told: Schema) -> Schema | None:
        properties = told.get("properties")
        if isinstance(properties, dict):
            made = {name: self._made_of(each) for name, each in properties.items()}
            gone = {name for name, each in made.items() if each is None}
            told["properties"] = {name: each for name, each in made.items() if name not in gone}
            if gone:
                # Others could have those names.
                told["additionalProperties"] = False
            required = told.get("required")
            if isinstance(required, list) and any(
                name in gone for name in required if isinstance(name, str)
            ):
                return self._of_no_object(told)
        others = told.get("additionalProperties")
        if isinstance(others, dict):
            form = self._made_of(others)
            told["additionalProperties"] = False if form is None else form
        return told

    def _of_no_object(self, told: Schema) -> Schema | None:
        types = types_of(told)
        return with_types(told, [each for each in types or () if each != "object"])

    def _array(self, told: Schema) -> Schema | None:
        for keyword in ("prefixItems", "items"):
            items = told.get(keyword)
            if isinstance(items, list):
                told[keyword] = []
                for each in items:
                    made = self._made_of(each)
                    if made is None:
                        break  # there are no items from here on
                    told[keyword].append(made)
            elif isinstance(items, dict):
                made = self._made_of(items)
                told |= {keyword: {}, "maxItems": 0} if made is None else {keyword: made}
        return possible(told)

    def _combined(self, schema: Schema) -> Schema | None:
        made: list[Schema] = []
        # The rest is said once, beside them, and not instead of what they say of themselves.
        ways = self._ways({key: each for key, each in schema.items() if key in _MERGED}, ())
        # A tool's schema, above all, is to say itself that it is of an object.
        is_whole = schema is self._schema and len(ways) == 1
        for way in ways:
            is_named = way.target is not None and not is_whole
            form = self._named(way) if is_named else self._plain(way.schema, is_merged=True)
            if form is not None:
                made.append(form)
        if not made:
            return None
        notes = {
            key: each for key, each in schema.items() if key not in BINDING and key not in COMBINING
        }
        if len(made) == 1:
            return notes | {key: each for key, each in made[0].items() if key not in notes}
        if schema is self._schema:
            # Of these a tool is described to the model; the grammar is made of the alternatives.
            shown = ("type", "properties", "required")
            notes |= {key: schema[key] for key in shown if key in schema}
        return {**notes, "anyOf": made}

    def _named(self, way: _Way) -> Schema | None:
        made = self._made_of(way.target)
        if made is None or way.target is None or self._refs.name(way.target) is None:
            return made
        return self._reference_to(way.target)

    def _ways(self, schema: Any, refs: tuple[str, ...]) -> list[_Way]:
        """Schemas that combine no others, of which one must be met; none where nothing meets it.

        Args:
            refs: That led here.
        """
        if isinstance(schema, bool):
            return [_Way({})] if schema else []
        if not isinstance(schema, dict):
            raise no_schema(schema)
        self._spend(1)
        own = {key: each for key, each in schema.items() if key not in COMBINING}
        ways = [_Way(own)]
        for part in self._parts(schema, refs):
            self._spend(sum(_size(way.schema) for way in part) * len(ways))
            self._spend(sum(_size(way.schema) for way in ways) * len(part))
            both = [self._merged(way, other) for way in ways for other in part]
            ways = [way for way in both if way is not None]
        return ways

    def _parts(self, schema: Schema, refs: tuple[str, ...]) -> Iterator[list[_Way]]:
        ref = schema.get("$ref")
        if isinstance(ref, str):
            if ref in refs:
                raise includes_itself()
            if len(refs) >= _MAX_REFS:
                raise UnusableSchemaError("its references lead too deep")
            target = self._refs.target(ref)
            ways = self._ways(target, (*refs, ref))
            if len(ways) == 1 and isinstance(target, dict) and ways[0].target is None:
                ways = [_Way(ways[0].schema, target)]
            yield ways
        for keyword in COMBINING[1:]:
            listed = schema.get(keyword)
            if not isinstance(listed, list):
                continue
            found = [self._ways(each, refs) for each in listed]
            if keyword == "allOf":
                yield from found
            elif found:
                yield [way for ways in found for way in ways]

    def _merged(self, way: _Way, other: _Way) -> _Way | None:
        told = merged(way.schema, other.schema, self._meet)
        if told is None:
            return None
        for each in (other, way):
            if _binding(told) == _binding(each.schema):
                # It says no more than one of them, which may lead back to what it stands in.
                return _Way(told, each.target)
        return _Way(told)

    def _meet(self, one: Any, other: Any) -> Any:
        """The schema of what must meet both; the same for the same two."""
        if one is other or other is True:
            return one
        if one is True or one is False or other is False:
            return other if one is True else False
        key = (id(one), id(other))
        if key not in self._both:
            self._both[key] = {"allOf": [one, other]}
        return self._both[key]


def _size(schema: Mapping[str, Any]) -> int:
    """What it takes to put it together with another, in about the time of a small schema."""
    listed = (schema.get(keyword) for keyword in ("properties", "required"))
    num_listed = sum(len(each) for each in listed if isinstance(each, (dict, list)))
    num_values = sum(_num_values(schema.get(keyword)) for keyword in ("enum", "const"))
    return 2 + (len(schema) + num_listed + num_values) // 2


def _num_values(value: Any) -> int:
    number, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        number += 1
        if isinstance(each, (dict, list)):
            waiting += each.values() if isinstance(each, dict) else each
    return number


def _binding(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in schema.items() if key in BINDING}
