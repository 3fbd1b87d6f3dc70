"""Where the references of a schema lead, and names for it that llama.cpp can follow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from snapllm._schema_parts import leads_nowhere, place_in_list

CONTAINERS = ("$defs", "definitions")
_OF_NO_RULE = re.compile("[^a-zA-Z0-9-]+")


def rule_name(name: str) -> str:
    """What llama.cpp names a rule after; two references with one name lead to one rule there."""
    return _OF_NO_RULE.sub("-", name)


class References:
    """The references of one schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._names: dict[int, str] = {}
        self._anchors: dict[str, Any] | None = None
        self._rules: set[str] = set()
        self._num_named = 0
        for container in CONTAINERS:
            defs = schema.get(container)
            for name, each in defs.items() if isinstance(defs, dict) else ():
                ref = f"#/{container}/{name}"
                is_fit = isinstance(each, dict) and name and "/" not in name
                if is_fit and rule_name(ref) not in self._rules:
                    self._rules.add(rule_name(ref))
                    self._names.setdefault(id(each), ref)

    def name(self, target: Any) -> str | None:
        """The reference to a schema that has a name; REQUIRES: the schema is alive."""
        return self._names.get(id(target))

    def named(self, target: Any) -> str:
        """The reference to a schema, which gets a name if it has none."""
        if id(target) not in self._names:
            # With a number in front: llama.cpp names the rules within one with numbers behind it.
            ref = "#/$defs/root" if target is self._schema else "#/$defs/1-part"
            while rule_name(ref) in self._rules:
                self._num_named += 1
                ref = f"#/$defs/{self._num_named}-part"
            self._rules.add(rule_name(ref))
            self._names[id(target)] = ref
        return self._names[id(target)]

    def target(self, ref: str) -> Any:
        """What a reference leads to.

        Raises:
            UnusableSchemaError: Nothing is there.
        """
        base = self._schema.get("$id")
        if isinstance(base, str) and base and ref.startswith(base.rstrip("#")):
            ref = ref[len(base.rstrip("#")) :] or "#"
        if not ref.startswith("#"):
            raise leads_nowhere(ref)
        for pointer in dict.fromkeys((unquote(ref[1:]), ref[1:])):
            if pointer and not pointer.startswith("/"):
                found = self._anchor(pointer)
            else:
                found = self._at(pointer)
            if isinstance(found, (dict, bool)):
                return found
        raise leads_nowhere(ref)

    def _at(self, pointer: str) -> Any:
        at: Any = self._schema
        for written in pointer.split("/")[1:]:
            name = written.replace("~1", "/").replace("~0", "~")
            if isinstance(at, dict):
                at = at.get(name, at.get(written))
            elif isinstance(at, list):
                index = place_in_list(name)
                at = at[index] if index < len(at) else None
            else:
                return None
        return at

    def _anchor(self, name: str) -> Any:
        if self._anchors is None:
            self._anchors = dict(_anchors(self._schema))
        return self._anchors.get(name)


def _anchors(schema: Any) -> Iterator[tuple[str, Any]]:
    waiting = [schema]
    while waiting:
        at = waiting.pop()
        if isinstance(at, dict):
            for keyword in ("$anchor", "$dynamicAnchor", "$id", "id"):
                name = at.get(keyword)
                if isinstance(name, str) and ("nchor" in keyword or name.startswith("#")):
                    yield name.removeprefix("#"), at
            waiting += at.values()
        elif isinstance(at, list):
            waiting += at
