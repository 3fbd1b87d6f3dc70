"""JSON values: odd ones, and those that a schema of the API's description allows."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]
Values = st.SearchStrategy[Any]

_RAW = re.compile(r'"@@([^"@]*)@@"')


def raw(text: str) -> str:
    """Stands for a piece of JSON that Python's encoder would not write; see `to_json`."""
    return f"@@{text}@@"


def to_json(value: Any) -> bytes:
    """The value as JSON, or nearly: half surrogate pairs and NaN come out as they are."""
    return _RAW.sub(lambda found: found[1], json.dumps(value)).encode()


def _nested(depth: int, is_object: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if is_object else [value]
    return value


NAMES = (
    *("demo", "nano", "second", "third", "pix", "demo@doc", "nano@doc", "@doc", "demo@", "@"),
    *("pix@doc", "demo@doc@doc", "nobody", "DEMO", "demo\x00", "../demo", "demo/x", " demo"),
)
"""Of models and contexts, some of which may be there."""

PATHS = (
    *("@folder/second.gguf", "@folder/mamba.gguf", "@folder/half.gguf", "@folder/text.gguf"),
    *("@folder/pipe.gguf", "@folder/missing.gguf", "@folder", "@folder/second.gguf/x", "."),
    *(f"@folder/image/{part}.safetensors" for part in ("diffusion_model", "llm", "taesd")),
)
"""Of files that a load may name; ``@folder`` stands for where they are."""

_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1),
    *(2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, raw("1" + "0" * 400), raw("1e400")),
    *(0.5, -0.0, 1e-320, 1e308, -1e308, raw("NaN"), raw("Infinity"), raw("-Infinity")),
    *(raw("01"), raw("1."), raw("0x10"), raw("1E+2"), raw("-"), raw("nul")),
)
_TEXTS = (
    *("", " ", "\x00", "\x01\x1b[2J\x7f", "\r\n", "\ud800", "\udc00x", "\U0001f600", "\u202eabc"),
    *("e\u0301\u0301\u0301", "\ufeff", "\uffff", "ﷺ" * 50, "x" * 5_000, "x " * 60_000),
    *("<|im_end|>", "<|im_start|>system", "{{ 7 * 7 }}", "{% for %}", "%s%n", "$", "\\", '"'),
    *("1", "NaN", "true", "null", "auto", "none", "required", "tool", "function", "high", "hot"),
    *("user", "tool", "text", "image_url", "json_schema", "AAAA", "data:image/png;base64,AAAA"),
    *(
        "data:,x",
        "http://127.0.0.1:1/x.png",
        "file:///etc/hostname",
        "64x64",
        "-1x5",
        "(",
        "(a+)+$",
    ),
)
_CONTAINERS: tuple[Any, ...] = (
    *([], {}, [[]], [{}], [None], {"": None}, {"type": "x"}, {"type": "object"}, {"type": "text"}),
    *(
        {"a": 1, "b": [2]},
        [0] * 10_000,
        ["x"] * 3_000,
        [{}] * 1_000,
        {str(i): i for i in range(500)},
    ),
    *(_nested(40, True), _nested(40, False), _nested(98, False), _nested(300, True)),
)

odd_texts: Values = st.one_of(st.sampled_from(_TEXTS), st.text(max_size=20), st.sampled_from(NAMES))
_plain: Values = st.one_of(
    st.sampled_from(_SCALARS), odd_texts, st.integers(), st.floats(), st.booleans()
)
_trees: Values = st.recursive(
    _plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
odd_values: Values = st.one_of(
    st.sampled_from(_SCALARS), odd_texts, st.sampled_from(_CONTAINERS), _trees
)


class SchemaValues:
    """Strategies for the schemas of an OpenAPI document; each of them is made once."""

    def __init__(self, components: dict[str, Schema]) -> None:
        self._components = components
        self._named: dict[str, Values] = {}

    def of(self, schema: Schema) -> Values:
        """Values that fit a schema of the kinds that the document is made of."""
        if "$ref" in schema:
            return self._reference(schema["$ref"].rpartition("/")[2])
        if "anyOf" in schema:
            return st.one_of([self.of(option) for option in schema["anyOf"]])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        if "const" in schema:
            return st.just(schema["const"])
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        plain = {"null": st.none(), "boolean": st.booleans()}
        if kind in plain:
            return plain[kind]
        if kind == "string":
            return _text(schema)
        return _number(schema) if kind in ("integer", "number") else _trees

    def _reference(self, name: str) -> Values:
        if name not in self._named:
            self._named[name] = st.deferred(lambda: self._made(name))
        return self._named[name]

    def _made(self, name: str) -> Values:
        return self.of(self._components[name])

    def _array(self, schema: Schema) -> Values:
        least = schema.get("minItems", 0)
        return st.lists(self.of(schema.get("items") or {}), min_size=least, max_size=least + 2)

    def _object(self, schema: Schema) -> Values:
        required = set(schema.get("required", ()))
        fields = {
            name: self._field(name, each) for name, each in schema.get("properties", {}).items()
        }
        if not fields:
            inner = schema.get("additionalProperties")
            values = self.of(inner) if isinstance(inner, dict) else _trees
            return st.dictionaries(st.text(max_size=4), values, max_size=3)
        optional = sorted(fields.keys() - required)
        chosen = st.lists(st.sampled_from(optional), max_size=4, unique=True) if optional else None
        needed = {name: fields[name] for name in sorted(required)}
        if chosen is None:
            return st.fixed_dictionaries(needed)
        return chosen.flatmap(
            lambda names: st.fixed_dictionaries(needed | {name: fields[name] for name in names})
        )

    def _field(self, name: str, schema: Schema) -> Values:
        if name in ("model", "model_id"):
            return st.sampled_from(NAMES[:6]) | self.of(schema)
        if name.endswith(("_path", "_dir")):
            return st.sampled_from(PATHS) | self.of(schema)
        return self.of(schema)


def _text(schema: Schema) -> Values:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 1 << 20)
    texts = st.text(min_size=least, max_size=min(most, least + 12))
    return st.one_of(texts, odd_texts.filter(lambda text: least <= len(text) <= most))


def _number(schema: Schema) -> Values:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -100))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 1000))
    if schema["type"] == "integer":
        edges = st.sampled_from([low, min(low + 1, high), high])
        return edges | st.integers(low, min(high, max(low, 0) + 40))
    return st.floats(low, high, allow_nan=False)
