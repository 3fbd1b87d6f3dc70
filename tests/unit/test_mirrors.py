"""What is written twice, once for C++ and once for Python, says the same."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import snapllm
from snapllm import _core
from snapllm.params import LoadOptions, SamplingOptions
from snapllm.protocol.native_models import LoadRequest, load_options, parse_load

EXAMPLES = {
    "batch_tokens": 128,
    "chat_template": "{{ messages }}",
    "flash_attention": "on",
    "kv_cells": 64,
    "context_size": 64,
    "kv_type": "f32",
    "pinned": True,
    "ubatch_tokens": 64,
}
"""Of load options that take no 1."""


def public_names(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_sampling_options_are_the_cores_with_its_defaults() -> None:
    core = _core.SamplingParams()
    assert set(SamplingOptions.__struct_fields__) == public_names(core)
    for name in SamplingOptions.__struct_fields__:
        ours, theirs = getattr(SamplingOptions(), name), getattr(core, name)
        if isinstance(ours, float):
            assert abs(ours - theirs) < 1e-6, name
        else:
            assert ours == (tuple(theirs) if isinstance(theirs, list) else theirs), name


def test_load_options_are_the_cores() -> None:
    assert set(LoadOptions.__annotations__) == public_names(_core.ModelOptions()) - {"path"}


def test_load_requests_have_every_load_option() -> None:
    fields = set(LoadRequest.__struct_fields__)
    assert fields >= set(LoadOptions.__annotations__)
    for name in set(LoadOptions.__annotations__) - {"mmproj_path", "keep_alive_s"}:
        example = EXAMPLES.get(name, 1)
        body = {"model_id": "m", "file_path": "m.gguf", name: example}
        options = load_options(parse_load(json.dumps(body).encode()), LoadOptions())
        assert options[name] == example, name  # type: ignore[literal-required]


def test_the_stub_describes_the_extension() -> None:
    stub = Path(snapllm.__file__).with_name("_core.pyi")
    classes = {n.name: n for n in ast.parse(stub.read_text()).body if isinstance(n, ast.ClassDef)}
    assert set(classes) == {name for name, value in vars(_core).items() if isinstance(value, type)}
    for name, node in classes.items():
        described = {
            item.name if isinstance(item, ast.FunctionDef) else item.target.id
            for item in node.body
            if isinstance(item, ast.FunctionDef)
            or (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name))
        }
        described = {n for n in described if not n.startswith("_")}
        assert described == public_names(getattr(_core, name)), name


def test_facts_and_counters_say_what_they_are() -> None:
    """To editors: of the stub's classes those that a program gets to see."""
    stub = Path(snapllm.__file__).with_name("_core.pyi")
    classes = {n.name: n for n in ast.parse(stub.read_text()).body if isinstance(n, ast.ClassDef)}
    shown = {"ModelStats", "MemoryStats", "KvStoreStats", "LatencyHistogram"}
    shown |= {name for name in classes if getattr(snapllm, name, None) is getattr(_core, name)}
    assert shown > {"ModelInfo", "EngineStats"}
    for name in shown:
        assert ast.get_docstring(classes[name]), name
    # What a name does not say: of what, since when, in which unit.
    facts = {n.name: n for n in classes["ModelInfo"].body if isinstance(n, ast.FunctionDef)}
    for name in ("context_size", "num_threads", "kv_kind", "loaded_at_ms", "weights_bytes"):
        assert ast.get_docstring(facts[name]), name


def test_the_package_names_what_it_exports() -> None:
    for name in snapllm.__all__:
        assert getattr(snapllm, name) is not None
    assert (Path(snapllm.__file__).parent / "py.typed").exists()
