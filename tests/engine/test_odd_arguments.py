"""Arguments that no type checker would let through: each a clear error, none a crash."""

from __future__ import annotations

import asyncio
import pickle
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from nano_models import make_nano_model

import snapllm
from snapllm import errors
from snapllm.diffusion.params import image_request
from snapllm.diffusion.progress import progress_listener


@pytest.mark.parametrize("thinking", [False, True])
def test_a_grammar_holds_in_a_chat(demo: snapllm.Model, thinking: bool) -> None:
    answer = demo.chat("Hello", grammar='root ::= "yes" | "no"', thinking=thinking)
    assert answer.content in ("yes", "no")
    with pytest.raises(snapllm.InvalidRequestError, match="grammar"):
        demo.chat("Hello", grammar="root ::= (")
    with pytest.raises(snapllm.InvalidRequestError, match="json_schema"):
        demo.chat("Hello", grammar='root ::= "yes"', json_schema={"type": "object"})


def test_an_empty_schema_allows_any_json_and_nothing_else(model: snapllm.Model) -> None:
    import json

    answer = model.chat("x", json_schema={}, max_tokens=200, seed=3, temperature=1.5)
    if answer.finish_reason == "stop":
        json.loads(answer.content)


@pytest.mark.parametrize("schema", [5, True, [1], "5", "null", "[]", "{"])
def test_what_is_no_schema_is_refused(model: snapllm.Model, schema: Any) -> None:
    with pytest.raises(snapllm.InvalidRequestError) as error:
        model.chat("x", json_schema=schema)
    assert error.value.param == "json_schema"


@pytest.mark.parametrize(
    "options",
    [
        {"stop": 5},
        {"stop": "\ud800"},
        {"logit_bias": 5},
        {"tools": 5},
        {"images": 5},
        {"template_kwargs": 5},
        {"tool_choice": {}},
        {"grammar": "\ud800"},
        {"grammar": 'root ::= "a"\0 "b"'},
        {"logit_bias": {"\ud800": 1}},
        {"template_kwargs": {"\ud800": 1}},
        {"temperature": Fraction(10**400)},
    ],
    ids=repr,
)
def test_options_of_another_type_are_named(model: snapllm.Model, options: dict[str, Any]) -> None:
    with pytest.raises(snapllm.InvalidRequestError) as error:
        model.chat("x", **options)
    assert error.value.param == next(iter(options))


@pytest.mark.parametrize("bias", [float("inf"), 1e39, float("nan"), "1"])
def test_a_bias_is_a_number_that_a_logit_may_be(model: snapllm.Model, bias: Any) -> None:
    with pytest.raises(snapllm.InvalidRequestError) as error:
        model.generate("x", logit_bias={5: bias})
    assert error.value.param == "logit_bias[0][1]"


def test_a_bias_of_minus_infinity_forbids_a_token(model: Any) -> None:
    [first, *_] = model.generate("x", temperature=0, max_tokens=1).tokens
    for bias in ({first: float("-inf")}, {np.int64(first): np.float32(-1e9)}):
        assert model.generate("x", temperature=0, max_tokens=1, logit_bias=bias).tokens != [first]


def test_texts_that_cannot_be_encoded_are_refused(model: snapllm.Model) -> None:
    broken: Any = "\ud800"
    for call in (model.generate, model.chat, model.embed):
        with pytest.raises(snapllm.InvalidRequestError, match="surrogate"):
            call(broken)
    with pytest.raises(snapllm.InvalidRequestError, match="surrogate"):
        image_request(prompt=broken)
    for wrong in (None, 5, b"abc"):
        with pytest.raises(snapllm.InvalidRequestError):
            model.generate(wrong)  # type: ignore[call-overload]


def test_arguments_of_another_type_are_named(engine: snapllm.Engine, model: Any) -> None:
    untyped: Any = engine
    for name, call in (
        ("stream", lambda: model.chat("x", stream="no")),
        ("stream", lambda: model.generate("x", stream=None)),
        ("text", lambda: model.tokenize(None)),
        ("add_special", lambda: model.tokenize("x", add_special="yes")),
        ("parse_special", lambda: model.tokenize("x", parse_special=None)),
        ("special", lambda: model.detokenize([1], special="yes")),
        ("path", lambda: untyped.contexts.import_file(None)),
        ("path", lambda: untyped.contexts.export_file("x", 5)),
        ("path", lambda: untyped.load("m\0.gguf")),
        ("model_id", lambda: untyped.contexts.ingest("x", 5)),
        ("model_id", lambda: untyped.contexts.ingest("x", "\ud800")),
        ("cache_namespace", lambda: untyped.contexts.ingest("x", cache_namespace=5)),
        ("cache_namespace", lambda: untyped.contexts.ingest("x", cache_namespace="\ud800")),
        ("images", lambda: untyped.contexts.ingest("x", images=5)),
        ("tokens", lambda: model.detokenize("abc")),
        ("tokens", lambda: model.detokenize(None)),
        ("tokens", lambda: model.detokenize([True])),
        ("prompt", lambda: model.generate([5, True])),
        ("reference", lambda: untyped.contexts.query(None, "x")),
        ("reference", lambda: untyped.contexts.get(5)),
        ("question", lambda: untyped.contexts.query("n", 5)),
        ("content", lambda: engine.contexts.ingest(None, "llama")),  # type: ignore[arg-type]
        ("content", lambda: engine.contexts.ingest(5, "llama")),  # type: ignore[arg-type]
        ("path", lambda: untyped.load(5)),
        ("path", lambda: untyped.load(b"model.gguf")),
        ("path", lambda: untyped.load_diffusion(None)),
        ("mmproj_path", lambda: untyped.load_demo(mmproj_path=5)),
        ("workspace", lambda: snapllm.Engine(workspace=5)),  # type: ignore[arg-type]
        ("name", lambda: untyped.set_external_memory(5, 1)),
        ("num_bytes", lambda: untyped.set_external_memory("x", "a")),
        ("num_bytes", lambda: untyped.set_external_memory("x", -1)),
        ("drain_timeout_s", lambda: untyped.close("x")),
        ("drain_timeout_s", lambda: untyped.close(None)),
        ("model_id", lambda: untyped.model(5)),
        ("model_id", lambda: untyped.unload([])),
        ("model_id", lambda: untyped.pin(5)),
        ("model_id", lambda: untyped.switch(5)),
    ):
        with pytest.raises(snapllm.InvalidRequestError, match=f"^{name}: ") as error:
            call()
        assert error.value.param == name
        assert "array" not in str(error.value)


def test_a_template_that_cannot_be_read_is_the_arguments_fault() -> None:
    with snapllm.Engine(num_threads=1) as engine:
        for template in ("{{", "{{ bad", "{% if %}", "{% for x in y %}"):
            with pytest.raises(snapllm.InvalidRequestError, match="chat_template is no") as error:
                engine.load_demo(chat_template=template)
            assert error.value.param == "chat_template"
            reason = str(error.value).partition(": ")[2]
            assert reason and "exception" not in reason


def test_without_descriptors_a_request_is_refused_by_an_error_of_our_own(
    model: snapllm.Model,
) -> None:
    @contextmanager
    def with_none_left() -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    async def ask() -> None:
        with with_none_left():
            await model.agenerate("x", max_tokens=1)

    with pytest.raises(snapllm.GenerationFailedError, match="Too many open files"):
        asyncio.run(ask())
    with (
        with_none_left(),
        pytest.raises(snapllm.GenerationFailedError, match="Too many open files"),
    ):
        model.generate("x", max_tokens=1)


def test_the_physical_batch_follows_the_batch_down() -> None:
    with snapllm.Engine(num_threads=1) as engine:
        assert engine.load_demo("a", batch_tokens=64).chat("Hello", max_tokens=2).content
        for wrong in ({"batch_tokens": 10}, {"ubatch_tokens": 128, "batch_tokens": 64}):
            with pytest.raises(snapllm.InvalidRequestError) as error:
                engine.load_demo("b", **wrong)  # type: ignore[arg-type]
            assert error.value.param == next(iter(wrong))


def test_an_empty_path_is_the_fault_of_the_path(engine: snapllm.Engine) -> None:
    for load in (engine.load, engine.load_diffusion):
        for arguments in ([""], ["", "m"]):
            with pytest.raises(snapllm.InvalidRequestError, match="must not be empty") as error:
                load(*arguments)
            assert error.value.param == "path"
    engine.contexts.ingest("A document.", "llama", name="no-path")
    for call in (
        lambda: engine.contexts.export_file("no-path", ""),
        lambda: engine.contexts.import_file(""),
    ):
        with pytest.raises(snapllm.InvalidRequestError, match="must not be empty") as error:
            call()
        assert error.value.param == "path"
    engine.contexts.delete("no-path")


def test_progress_is_a_function_or_whether_to_show_it() -> None:
    for progress in ("x", 5):
        with (
            pytest.raises(snapllm.InvalidRequestError, match=r"^progress: "),
            progress_listener(progress),  # type: ignore[arg-type]
        ):
            pass
    for quiet in (None, False, np.False_):
        with progress_listener(quiet) as listener:  # type: ignore[arg-type]
            assert listener is None


def test_every_exception_can_be_sent_to_another_process() -> None:
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    for kind in found:
        if not issubclass(kind, snapllm.SnapLLMError):
            continue
        error = kind("why")
        error.param = "field"
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert (again.message, again.param, str(again)) == ("why", "field", "why")
    assert str(pickle.loads(pickle.dumps(snapllm.JobCancelled()))) == "the image was cancelled"


def test_what_is_wrong_about_tokens_is_named(model: Any) -> None:
    for param, call in (
        ("prompt", lambda: model.generate([])),
        ("prompt", lambda: model.generate([5, 10**6])),
        ("tokens", lambda: model.detokenize([10**6])),
        ("inputs", lambda: model.embed(5)),
        ("inputs", lambda: model.embed([])),
        ("inputs[1]", lambda: model.embed(["a", ""])),
        ("inputs", lambda: model.embed("x " * 100_000)),
    ):
        with pytest.raises(snapllm.InvalidRequestError) as error:
            call()
        assert error.value.param == param
    with pytest.raises(snapllm.InvalidRequestError, match=r"^inputs\[17\]: token") as error:
        model.embed([[5]] * 17 + [[5, 10**6]])
    assert error.value.param == "inputs"


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_the_command_takes_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m snapllm run hi --max-tokens 2 {closed}; echo $? >{tmp_path}/rc"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert (tmp_path / "rc").read_text() == "0\n"
    assert "Traceback" not in run.stderr


def test_every_exception_is_of_one_tree() -> None:
    found = [getattr(snapllm, name) for name in snapllm.__all__]
    raised = [each for each in found if isinstance(each, type) and issubclass(each, Exception)]
    assert snapllm.JobCancelled in raised
    assert all(issubclass(each, snapllm.SnapLLMError) for each in raised)


def test_numbers_of_numpy_are_numbers(model: Any) -> None:
    tokens = np.array([72, 101, 108])
    assert model.detokenize(tokens) == model.detokenize([72, 101, 108])
    answer = model.generate(
        tokens, max_tokens=np.int64(3), temperature=np.float32(0), seed=np.int32(7)
    )
    assert answer.usage.num_generated_tokens <= 3
    expected = model.embed([72, 101, 108], dimensions=4)
    assert model.embed(tokens, dimensions=np.int64(4)) == expected
    for inputs in (tokens[None], [tokens], [list(tokens)]):
        assert model.embed(inputs, dimensions=4) == expected
    assert model.embed(np.array(["a"])) == model.embed("a")


def test_an_image_of_numpys_numbers_is_the_same_image() -> None:
    wanted = image_request(prompt="x", width=64, seed=7, num_steps=3, cfg_scale=0.5)
    numbers: dict[str, Any] = {"width": np.int64(64), "seed": np.int32(7)}
    numbers |= {"num_steps": np.uint8(3), "cfg_scale": np.float32(0.5)}
    assert image_request(prompt="x", **numbers) == wanted


def test_a_penalty_looks_back_no_further_than_the_context(model: snapllm.Model) -> None:
    """Upstream reserves memory for as many tokens as are asked for."""
    answer = model.generate("x", penalty_last_n=2**31 - 1, repeat_penalty=1.1, max_tokens=4)
    assert answer.usage.num_generated_tokens <= 4


def test_engines_refuse_what_would_end_the_process(tmp_path: Path) -> None:
    for name, value in (
        ("num_threads", 100_000),
        ("num_threads", "x"),
        ("num_threads", -1),
        ("image_hosts", "x.org"),
        ("image_hosts", [5]),
        ("image_hosts", ["http://x.org/"]),
        ("image_hosts", 5),
        ("workspace", ""),
        ("kv_ram_bytes", 2**70),
        ("memory_budget_bytes", None),
        ("keep_alive_s", float("nan")),
        ("max_queued_requests", 0),
    ):
        with pytest.raises(snapllm.InvalidRequestError, match=name):
            snapllm.Engine(**{name: value})


@pytest.mark.parametrize(
    "options",
    [{"context_size": "big"}, {"gpu_layers": 2**70}, {"kv_type": 5}, {"pinned": "yes"}],
    ids=repr,
)
def test_load_options_of_another_type_are_named(
    engine: snapllm.Engine, llama_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(snapllm.InvalidRequestError) as error:
        engine.load(llama_path, "odd", **options)
    assert error.value.param == next(iter(options))


def test_contexts_take_only_what_their_record_can_hold(llama_path: Path, tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [{"name": 5}, {"ttl_seconds": 1.5}, {"ttl_seconds": 0}]
    wrong += [{"ttl_seconds": float("nan")}, {"name": "x" * 257}]
    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        engine.load(llama_path, "m", context_size=512)
        engine.contexts.ingest("A document.", "m", name="a@b")
        for options in wrong:
            for call in (
                lambda options=options: engine.contexts.ingest("x", "m", **options),
                lambda options=options: engine.contexts.fork("a@b", **options),
            ):
                with pytest.raises(snapllm.InvalidRequestError):
                    call()
        for name in ("m@a@b", "@a@b"):  # the second is of the active model
            assert engine.model(name).chat("x", max_tokens=2).usage.num_cached_tokens > 0
    with pytest.raises(snapllm.EngineClosedError):
        engine.contexts.list()
    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        assert [view.record.name for view in engine.contexts.list()] == ["a@b"]


_AT_THE_END = """
import asyncio, snapllm, sys, threading, time
from pathlib import Path
engine = snapllm.Engine(num_threads=1)
model = engine.load_demo(mmproj_path="")
def images():
    folder = Path(sys.argv[1])
    painter = engine.load_diffusion(
        folder / "diffusion_model.safetensors", llm=folder / "llm.safetensors",
        taesd=folder / "taesd.safetensors", isolated=False,
    )
    return painter.generate_image("x", width=128, height=128, num_steps=150)
def tokens():
    while True:
        model.tokenize("hello " * 1000)
threading.excepthook = lambda arguments: None
endless = {"max_tokens": 20_000, "ignore_eos": True}
threading.Thread(target=lambda: %s, daemon=True).start()
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("model_id", "message"),
    [
        *((model_id, "no URL") for model_id in (".", "..", "a\nb", "\0", "a\x7f", "\x85")),
        *((model_id, "something else") for model_id in ("load", "unload", "switch", "pin")),
    ],
)
def test_ids_that_no_url_can_hold_are_refused(
    model_id: str, message: str, llama_path: Path
) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        for load in (engine.load, engine.load_diffusion):
            with pytest.raises(snapllm.InvalidRequestError, match=message) as caught:
                load(llama_path, model_id)
            assert caught.value.param == "model_id"
        assert engine.load(llama_path, "org/model ...: é").info.id in str(engine.models())


@pytest.mark.parametrize(
    ("call", "after_s"),
    [
        ("list(model.generate('x', stream=True, **endless))", 0.5),
        ("model.chat('x', **endless)", 0.5),
        ("model.embed([[5] * 1000] * 2000)", 0.5),
        ("asyncio.run(model.aembed([[5] * 1000] * 2000))", 0.5),
        ("asyncio.run(model.achat('x', **endless))", 0.5),
        ("tokens()", 0.5),
        ("images()", 0.5),
        ("images()", 0.2),  # while it imports
    ],
)
def test_the_interpreter_ends_while_a_thread_computes(
    call: str, after_s: float, image_files: dict[str, Path]
) -> None:
    folder = image_files["diffusion_model"].parent
    command = [sys.executable, "-c", _AT_THE_END % call, str(folder), str(after_s)]
    run = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"keep_alive_s": float("nan")}, "keep_alive_s"),
        ({"keep_alive_s": -0.5}, "keep_alive_s"),
        ({"keep_alive_s": float("inf")}, "keep_alive_s"),
        ({"context_size": 1}, "context_size"),
        ({"batch_tokens": 1}, "batch_tokens"),
        ({"kv_type": "q8_0"}, "kv_type"),  # with heads of 16 elements
    ],
    ids=repr,
)
def test_load_options_out_of_range_are_named(
    engine: snapllm.Engine, options: dict[str, Any], param: str
) -> None:
    path = engine.model("qwen").info.path
    with pytest.raises(snapllm.InvalidRequestError) as error:
        engine.load(path, "odd", **options)
    assert error.value.param == param


def test_heads_of_window_layers_too_are_whole_blocks_of_q8_0(
    engine: snapllm.Engine, tmp_path: Path
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", "gemma4")  # of 16 elements; the others of 32
    with pytest.raises(snapllm.InvalidRequestError, match="multiple of 32") as error:
        engine.load(path, "odd", kv_type="q8_0")
    assert error.value.param == "kv_type"


def test_a_file_that_gets_no_context_is_invalid_however_much_memory_there_is(
    engine: snapllm.Engine, tmp_path: Path
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", "gemma3")
    head = struct.pack("<IIQ", gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.BOOL, 4)
    pattern, no_windows = head + b"\1\0\1\0", head + b"\0\0\0\0"
    content = path.read_bytes()
    assert content.count(pattern) == 1
    path.write_bytes(content.replace(pattern, no_windows))
    with pytest.raises(snapllm.InvalidModelError, match="is_swa_any"):
        engine.load(path, "odd")


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_an_engine_cannot_be_given_no_time_to_close(seconds: float) -> None:
    with snapllm.Engine() as engine, pytest.raises(snapllm.InvalidRequestError):
        engine.close(seconds)
