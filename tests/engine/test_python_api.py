"""What makes the Python API pleasant to use."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snapllm
from snapllm import ImageResult
from snapllm.diffusion.params import Picture, image_request
from snapllm.params import ChatOptions, CompletionOptions


def test_none_is_not_given(model: Any) -> None:
    """As clients of other servers pass it."""
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 4}
    for call, known in ((model.chat, ChatOptions), (model.generate, CompletionOptions)):
        wanted = call("Hello", **options)
        names = known.__annotations__.keys() - options.keys()
        answer = call("Hello", **options, **dict.fromkeys(names))
        assert answer.usage == wanted.usage or answer.usage.num_cached_tokens > 0
        assert answer.finish_reason == wanted.finish_reason
        with pytest.raises(TypeError, match="unexpected keyword argument 'best_of'"):
            call("Hello", best_of=None)
    assert model.embed("Hello", pooling=None) == model.embed("Hello")


def test_the_calls_of_an_answer_go_back_as_they_came(demo: snapllm.Model) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    question = {"role": "user", "content": "Look."}
    answer = demo.chat([question], tools=[tool], tool_choice="required", max_tokens=64)
    calls = answer.tool_calls or [snapllm.ToolCall("call_1", "look", '{"a": 1}')]
    written = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in calls
    ]
    counts = {
        demo.chat(
            [
                question,
                {"role": "assistant", "content": "", "tool_calls": each},
                *({"role": "tool", "tool_call_id": c.id, "content": "Green."} for c in calls),
            ],
            tools=[tool],
            max_tokens=1,
        ).usage.num_prompt_tokens
        for each in (calls, written, tuple(calls))
    }
    assert len(counts) == 1


def test_models_of_one_engine_and_id_are_equal(engine: snapllm.Engine) -> None:
    one, *others = engine.models()
    assert one == engine.model(one.id)
    assert len({one, engine.model(one.id)}) == 1
    assert one not in others
    assert one != one.id
    with snapllm.Engine(num_threads=1) as other:
        assert other.load(one.info.path, one.id) != one


def test_what_is_shown_says_something(engine: snapllm.Engine) -> None:
    model = engine.models()[0]
    assert f"ModelInfo(id={model.id!r}, path={model.info.path!r}" in repr(model.info)
    shown = repr(engine.stats())
    assert shown.startswith("EngineStats(models=[ModelStats(id=")
    assert "MemoryStats(budget_bytes=" in shown
    assert f"{model.id!r} (resident)" in repr(engine)
    with snapllm.Engine(num_threads=1) as other:
        assert repr(other) == "<snapllm.Engine of no model>"
    assert repr(other) == "<snapllm.Engine, closed>"


def test_what_is_shown_of_documents_and_pictures_is_short(engine: snapllm.Engine) -> None:
    view = engine.contexts.ingest("A document. " * 100, "llama", name="doc")
    try:
        shown = repr(view)
        assert "'doc' of 'llama', " in shown and "tier='hot'" in shown
        assert len(shown) < 300
    finally:
        engine.contexts.delete(view.record.id)
    picture = Picture(64, 64, 3, bytes(64 * 64 * 3))
    request = image_request(prompt="x", width=64, height=64)
    result = ImageResult(
        model="pix", request=request, pictures=(picture,), seconds=1, queue_seconds=0
    )
    assert "64x64" in repr(result) and len(repr(result)) < 600


def test_an_engine_ends_with_an_asynchronous_block() -> None:
    async def ask() -> snapllm.Engine:
        async with snapllm.Engine(num_threads=1) as engine:
            model = engine.load_demo(mmproj_path="")
            assert (await model.achat("Hello", max_tokens=2)).content
        return engine

    engine = asyncio.run(ask())
    with pytest.raises(snapllm.EngineClosedError):
        engine.load_demo()


def test_the_demo_alone_takes_the_options_of_a_load() -> None:
    with snapllm.load_demo(context_size=512, mmproj_path="") as demo:
        assert (demo.info.context_size, demo.info.has_vision) == (512, False)


def test_texts_of_other_types_are_texts(demo: Any) -> None:
    class Text(str):
        def __str__(self) -> str:
            return "other"

    wanted = demo.chat([{"role": "user", "content": "Hello"}], temperature=0, max_tokens=4)
    for kind in (Text, np.str_):
        messages = [{"role": kind("user"), "content": kind("Hello")}]
        assert demo.chat(messages, temperature=0, max_tokens=4).content == wanted.content
        parts = [{"type": kind("text"), "text": kind("Hello")}]
        messages = [{"role": "user", "content": parts}]
        assert demo.chat(messages, temperature=0, max_tokens=4).content == wanted.content
        function = {
            "name": kind("f"),
            "description": kind("d"),
            "parameters": {"type": kind("object")},
        }
        call = {"id": kind("1"), "function": {"name": kind("f"), "arguments": kind("{}")}}
        told = [
            {"role": "user", "content": kind("Go")},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": kind("1"), "content": kind("Done")},
        ]
        tools = [{"type": "function", "function": function}]
        assert demo.chat(told, tools=tools, max_tokens=1).usage.num_prompt_tokens > 0
        assert demo.chat("Go", json_schema=kind('{"type": "integer"}'), max_tokens=8).content


def test_a_context_is_kept_by_what_other_types_of_text_and_number_say(tmp_path: Path) -> None:
    class Text(str):
        def __str__(self) -> str:
            return "other"

    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        engine.load_demo(mmproj_path="", context_size=512)
        untyped: Any = engine.contexts
        for kind in (Text, np.str_):
            options = {"cache_namespace": kind("n"), "ttl_seconds": np.int64(60)}
            untyped.ingest(kind("A document."), kind("demo"), name=kind("a"), **options)
            untyped.fork(kind("a"), name=kind("b"), cache_namespace=kind("n"))
            untyped.append(kind("b"), kind("More."), cache_namespace=kind("n"))
        kept = [view.record for view in engine.contexts.list(cache_namespace="n")]
    assert [record.name for record in kept] == ["a", "b"] * 2
    assert {type(text) for each in kept for text in (each.name, each.model_id)} == {str}
    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        assert [view.record for view in engine.contexts.list(cache_namespace="n")] == kept


def test_what_is_in_a_history_is_json(demo: Any) -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    for arguments in (endless, {"a": object()}, {"\ud800": 1}, {"a": 10**400}, '{"a": "\ud800"}'):
        call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
        with pytest.raises(snapllm.InvalidRequestError) as error:
            demo.chat([{"role": "assistant", "tool_calls": [call]}])
        assert error.value.param == "messages[0].tool_calls[0].function.arguments"
        with pytest.raises(snapllm.InvalidRequestError) as error:
            demo.chat("Hello", template_kwargs={"x": arguments})
        assert error.value.param == "template_kwargs.x"
    for name in ("name", "description"):
        function = {"name": "f", name: "\ud800"}
        with pytest.raises(snapllm.InvalidRequestError) as error:
            demo.chat("Hello", tools=[{"type": "function", "function": function}])
        assert error.value.param == f"tools[0].function.{name}"


def test_truth_values_of_numpy_are_pythons(demo: snapllm.Model) -> None:
    for flag in (True, False):
        assert demo.tokenize("<s>", parse_special=np.bool_(flag)) == demo.tokenize(
            "<s>", parse_special=flag
        )
    answer = demo.generate("Hello", max_tokens=2, ignore_eos=np.bool_(True))
    assert len(answer.tokens) == 2
    untyped: Any = demo
    options = dict.fromkeys(("reuse_prefix", "parallel_tool_calls", "thinking"), np.bool_(True))
    options["continue_final_message"] = np.bool_(False)
    [*_, finish] = untyped.chat("Hello", stream=np.bool_(True), max_tokens=9, **options)
    assert finish.usage.num_reasoning_tokens > 0
    answer = untyped.chat("What is 2+2?", thinking=np.int64(3), temperature=0)
    assert answer.usage.num_reasoning_tokens == 3
