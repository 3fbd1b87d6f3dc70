"""Chat templates that would end or hang the process are refused; good ones are tried out once."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from nano_models import make_nano_model

import snapllm
from snapllm import InvalidModelError, InvalidRequestError, _templates, _trial

GOOD = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"

# Each of them ended the process.
DEADLY = {
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "sum": "{{ 1 " + "+ 1" * 50_000 + " }}",
    "brackets": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "arrays": "{{ " + "[" * 5_000 + "]" * 5_000 + " }}",
    "filters": '{{ "x"' + "|upper" * 20_000 + " }}",
    "array in itself": (
        "{% set x = [] %}{% for i in range(10) %}{{ x.append(x) }}{% endfor %}{{ x }}"
    ),
    "namespace in itself": "{% set x = namespace() %}{% set x.y = x %}{{ x|tojson }}",
    "with tools": "{% macro f() %}{{ f() }}{% endmacro %}{% if tools %}{{ f() }}{% endif %}",
    "with a result": (
        "{% macro f() %}{{ f() }}{% endmacro %}"
        "{% for m in messages if m.role == 'tool' %}{{ f() }}{% endfor %}"
    ),
}
# Each of them took minutes, or all memory.
ENDLESS = {
    "text": '{{ "a" * 100000000 }}',
    "indent": '{{ "x"|indent(1000000000) }}',
    "loops": ("{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}"),
    "range": "{{ range(2000000000) }}",
    "json": "{{ messages|tojson(indent=1000000000) }}",
}


class Trials:
    """The trials that are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_made = 0
        self._run = subprocess.run
        monkeypatch.setattr(_trial.subprocess, "run", self._count)

    def _count(self, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        self.num_made += 1
        return self._run(*arguments, **options)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    """In a process that knows no template yet."""
    monkeypatch.setattr(_templates, "_passed", set())
    return Trials(monkeypatch)


def test_a_template_that_would_end_the_process_is_refused(llama_path: Path) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(llama_path, "good")
        for name, template in DEADLY.items():
            begin = time.monotonic()
            with pytest.raises(InvalidRequestError, match="it ends the process that") as error:
                engine.load(llama_path, "bad", chat_template=template)
            assert error.value.param == "chat_template", name
            assert time.monotonic() - begin < _templates.TIMEOUT_S, name
        assert [each.id for each in engine.models()] == ["good"]
        assert model.chat("Hello", max_tokens=2).usage.num_generated_tokens


def test_a_template_that_never_ends_or_takes_all_memory_is_refused(
    llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_templates, "TIMEOUT_S", 1.5)
    refused = pytest.raises(InvalidRequestError, match=r"too much memory|not end within 1\.5 sec")
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(llama_path, "good", chat_template=GOOD)
        for template in ENDLESS.values():
            with refused as error:
                engine.load(llama_path, "bad", chat_template=template)
            assert error.value.param == "chat_template"
        assert model.chat("Hello", max_tokens=2).usage.num_generated_tokens


def test_a_files_own_template_is_tried_out_too(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "bad.gguf", template=DEADLY["macro"])
    with snapllm.Engine(num_threads=1) as engine:
        refused = pytest.raises(InvalidModelError, match=r"bad\.gguf: its chat template cannot be")
        with refused:
            engine.load(path)
        # What a call of its own would be refused for is no reason to refuse the file.
        assert engine.load(path, chat_template=GOOD).chat("Hello", max_tokens=2)


def test_a_good_template_is_tried_out_once(
    tmp_path: Path, llama_path: Path, trials: Trials
) -> None:
    path = make_nano_model(tmp_path / "other.gguf", seed=7, template=GOOD)
    for _ in range(2):
        with snapllm.Engine(num_threads=1) as engine:
            engine.load(path, "a")
            engine.load(path, "b")
            engine.load(llama_path, "c", chat_template=GOOD)
    assert trials.num_made == 1


def test_a_workspace_remembers_what_passed(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", template=GOOD)
    workspace = tmp_path / "ws"
    for _ in range(2):
        monkeypatch.setattr(_templates, "_passed", set())  # as in another process
        with snapllm.Engine(num_threads=1, workspace=workspace) as engine:
            engine.load(path, "a")
    assert trials.num_made == 1
    kept = workspace / "chat_templates.txt"
    assert kept.stat().st_mode & 0o777 == 0o600
    # What another version, or nobody, wrote is no reason to fail.
    kept.write_bytes(b"\xff\n")
    monkeypatch.setattr(_templates, "_passed", set())
    with snapllm.Engine(num_threads=1, workspace=workspace) as engine:
        engine.load(path, "a")
    assert trials.num_made == 2


def test_a_file_that_was_replaced_is_tried_out_anew(tmp_path: Path, trials: Trials) -> None:
    path = make_nano_model(tmp_path / "m.gguf", template=GOOD)
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(path)
        engine.unload("m")
        make_nano_model(tmp_path / "bad.gguf", template=DEADLY["macro"]).replace(path)
        with pytest.raises(InvalidModelError, match="its chat template cannot be"):
            engine.load(path)
    assert trials.num_made == 2


def test_without_a_template_that_is_unknown_nothing_is_tried_out(
    tmp_path: Path, trials: Trials
) -> None:
    path = make_nano_model(tmp_path / "bare.gguf", template=None)
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(path)
        engine.load_demo()
        with pytest.raises(snapllm.ModelFileNotFoundError):
            engine.load(tmp_path / "missing.gguf")
    assert trials.num_made == 0


def test_what_a_template_refuses_by_itself_is_no_failure(llama_path: Path, trials: Trials) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        picky = "{% if tools %}{{ raise_exception('no tools') }}{% endif %}" + GOOD
        engine.load(llama_path, chat_template=picky)
        with pytest.raises(InvalidRequestError, match="chat_template is no Jinja template"):
            engine.load(llama_path, "bad", chat_template="{% if %}")
    assert trials.num_made == 2


def test_a_template_that_cannot_be_tried_out_is_used_with_a_warning(
    llama_path: Path,
    trials: Trials,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        for number, program in enumerate(("/bin/false", "/nowhere/python", "")):
            caplog.clear()
            monkeypatch.setattr("sys.executable", program)
            engine.load(llama_path, str(number), chat_template=GOOD)
            [line] = caplog.records
            assert line.levelname == "WARNING"
            assert "without having been tried out" in line.getMessage()
