"""Contexts as files: shipped with their KV, and refused when anything of them is wrong."""

from __future__ import annotations

import contextlib
import math
import os
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest
from nano_models import Architecture, make_nano_model

import snapllm
from snapllm.contexts import archive as archive_module
from snapllm.contexts.archive import Archive, read_archive, write_archive

DOCUMENT = "The vacation policy is 20 days of paid vacation. " * 40
QUESTION = "What is the vacation policy?"


def open_engine(path: Path, workspace: Path | None = None) -> snapllm.Engine:
    engine = snapllm.Engine(num_threads=1, workspace=workspace)
    engine.load(path, "m", context_size=2048)
    return engine


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, llama_path: Path) -> Path:
    path = tmp_path_factory.mktemp("exported") / "handbook.snapctx"
    with open_engine(llama_path) as engine:
        view = engine.contexts.ingest(DOCUMENT, "m", name="handbook")
        assert engine.contexts.export_file(view.record.id, path) == path.stat().st_size
    return path


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_a_document_of_one_letter_is_kept_in_every_tier(
    tmp_path: Path, architecture: Architecture
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", architecture)
    with open_engine(path, tmp_path / "w") as engine:
        engine.contexts.ingest("x", "m", name="letter")
        for tier in ("hot", "warm", "cold"):
            assert engine.contexts.move("letter", tier).tier == tier
            assert engine.contexts.query("letter", QUESTION, max_tokens=4).cache_hit
    with open_engine(path, tmp_path / "w") as engine:
        assert engine.contexts.query("letter", QUESTION, max_tokens=4).cache_hit


@pytest.mark.parametrize("architecture", get_args(Architecture))
@pytest.mark.parametrize("has_workspace", [True, False])
def test_a_shipped_context_answers_as_the_first(
    tmp_path: Path, architecture: Architecture, has_workspace: bool
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", architecture)
    file = tmp_path / "c.snapctx"
    options = {"temperature": 0, "max_tokens": 8}
    with open_engine(path) as engine:
        first = engine.contexts.ingest(DOCUMENT, "m", name="handbook")
        answer = engine.contexts.query("handbook", QUESTION, **options).answer
        engine.contexts.export_file("handbook", file)
    with open_engine(path, tmp_path / "w" if has_workspace else None) as engine:
        view = engine.contexts.import_file(file, name="copy")
        assert view.num_cached_tokens >= len(first.record.tokens) - 1
        assert view.tier is not None
        result = engine.contexts.query("copy", QUESTION, **options)
        assert result.cache_hit
        assert result.answer.content == answer.content
        engine.contexts.delete("copy")
        assert engine.contexts.stats().num_contexts == 0


def test_an_exported_context_tells_nothing_of_its_namespace(
    tmp_path: Path, llama_path: Path
) -> None:
    file = tmp_path / "c.snapctx"
    with open_engine(llama_path) as engine:
        engine.contexts.ingest(DOCUMENT, "m", name="handbook", cache_namespace="of-a-key")
        engine.contexts.export_file("handbook", file, cache_namespace="of-a-key")
        assert b"of-a-key" not in file.read_bytes()
    with open_engine(llama_path) as engine:
        view = engine.contexts.import_file(file, cache_namespace="another")
        assert view.num_cached_tokens >= len(view.record.tokens) - 1
        answer = engine.contexts.query("handbook", "x", max_tokens=2, cache_namespace="another")
        assert answer.cache_hit


def test_another_model_computes_the_document_anew_and_reads_no_state(
    exported: Path, tmp_path: Path, llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Archive, "read_states")
    other = make_nano_model(tmp_path / "other.gguf", "llama", seed=9)
    with open_engine(other) as engine:
        view = engine.contexts.import_file(exported)
        assert view.num_cached_tokens == 0
        assert view.record.name == "handbook"
        assert engine.contexts.query("handbook", QUESTION, max_tokens=2).cache_hit
        with pytest.raises(snapllm.ModelNotFoundError):
            engine.contexts.import_file(exported, model_id="none")


def test_states_larger_than_the_models_kv_are_not_read(
    exported: Path, llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a header says of them is no more than a claim: the document is computed."""
    monkeypatch.setattr(archive_module, "_SLACK_BYTES", -(1 << 40))
    monkeypatch.delattr(Archive, "read_states")
    with open_engine(llama_path) as engine:
        assert engine.contexts.import_file(exported).num_cached_tokens == 0


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_a_state_with_an_impossible_position_harms_no_other_request(
    tmp_path: Path, architecture: Architecture
) -> None:
    """A cell of the largest position cannot be removed again, and would be in all others' way."""
    path, file = make_nano_model(tmp_path / "m.gguf", architecture), tmp_path / "c.snapctx"
    others = ["The badge color is green. " * 20, DOCUMENT[:1000]]
    options = {"temperature": 0, "max_tokens": 8}
    with open_engine(path) as engine:
        first = engine.contexts.ingest(DOCUMENT[:50], "m")
        engine.contexts.export_file(first.record.id, file)
        expected = [engine.model().generate(other, **options).text for other in others]
    archive = read_archive(file)
    states = [bytearray(state) for state in archive.read_states()]
    states[-1][16:20] = (2**31 - 1).to_bytes(4, "little")  # of its first cell
    write_archive(file, archive.record, [bytes(state) for state in states])
    with open_engine(path) as engine:
        context = engine.contexts.import_file(file).record.id
        engine.contexts.query(context, QUESTION, max_tokens=4)
        engine.contexts.delete(context)
        assert [engine.model().generate(other, **options).text for other in others] == expected


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_a_state_with_numbers_that_are_none_harms_no_other_request(
    tmp_path: Path, architecture: Architecture
) -> None:
    """A recurrent state is cleared by a product with 0, which leaves them."""
    path, file = make_nano_model(tmp_path / "m.gguf", architecture), tmp_path / "c.snapctx"
    others = [f"The badge color {i} is green. " * 4 for i in range(3)]
    options = {"temperature": 0, "max_tokens": 8}
    with open_engine(path) as engine:
        first = engine.contexts.ingest(DOCUMENT[:50], "m")
        engine.contexts.export_file(first.record.id, file)
        expected = [engine.model().generate(other, **options).text for other in others]
    archive = read_archive(file)
    states = [bytearray(state) for state in archive.read_states()]
    for place in range(64, len(states[-1]) - 4, 4):
        (number,) = struct.unpack_from("<f", states[-1], place)
        if 1e-6 < abs(number) < 100:  # no size, or position
            struct.pack_into("<f", states[-1], place, math.nan)
    write_archive(file, archive.record, [bytes(state) for state in states])
    with open_engine(path) as engine:
        context = engine.contexts.import_file(file).record.id
        with contextlib.suppress(snapllm.SnapLLMError):
            engine.contexts.query(context, QUESTION, max_tokens=4)
        engine.contexts.delete(context)
        assert [engine.model().generate(other, **options).text for other in others] == expected


def test_a_file_that_changed_since_its_check_gives_no_state(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    path = tmp_path / "c.snapctx"
    for changed in (whole[:-5000], whole[:-5000] + bytes(5000)):
        path.write_bytes(whole)
        archive = read_archive(path)
        assert archive.read_states()
        path.write_bytes(changed)
        with pytest.raises(snapllm.InvalidRequestError, match="damaged"):
            archive.read_states()


def test_what_is_damaged_is_refused(exported: Path, tmp_path: Path, llama_path: Path) -> None:
    whole = exported.read_bytes()
    rng = random.Random(1)
    path = tmp_path / "damaged"
    with open_engine(llama_path) as engine:
        places = [*range(20), *(rng.randrange(len(whole)) for _ in range(60)), len(whole) - 1]
        for place in places:
            data = bytearray(whole)
            data[place] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            with pytest.raises(snapllm.InvalidRequestError):
                engine.contexts.import_file(path)
        for end in (0, 7, 16, 1000, len(whole) - 1):
            path.write_bytes(whole[:end])
            with pytest.raises(snapllm.InvalidRequestError):
                engine.contexts.import_file(path)
        path.write_bytes(whole + b"x")
        with pytest.raises(snapllm.InvalidRequestError):
            engine.contexts.import_file(path)
        with pytest.raises(snapllm.StorageError):
            engine.contexts.import_file(tmp_path / "none")
        with pytest.raises(snapllm.StorageError):
            engine.contexts.import_file(exported)
            engine.contexts.export_file("handbook", tmp_path / "none" / "c")
        assert not list(tmp_path.glob("**/*.tmp"))


def test_an_export_goes_into_a_pipe_and_leaves_links(
    exported: Path, tmp_path: Path, llama_path: Path
) -> None:
    """A device, too, is written into: the superuser's would be replaced otherwise."""
    pipe, link, longest = tmp_path / "pipe", tmp_path / "link", tmp_path / ("é" * 127)
    os.mkfifo(pipe)
    (tmp_path / "target").write_bytes(b"before")
    link.symlink_to(tmp_path / "target")
    with open_engine(llama_path) as engine, ThreadPoolExecutor(1) as reader:
        engine.contexts.import_file(exported)
        # As a shell's >(command) has it: the pipe has no name but this.
        read_end, write_end = os.pipe()
        unnamed = reader.submit(lambda: os.fdopen(read_end, "rb").read())
        try:
            size = engine.contexts.export_file("handbook", f"/dev/fd/{write_end}")
        finally:
            os.close(write_end)
        assert size == len(unnamed.result())
        piped = reader.submit(pipe.read_bytes)
        sizes = [engine.contexts.export_file("handbook", path) for path in (pipe, link, longest)]
        assert sizes == [len(piped.result())] * 3
        assert pipe.is_fifo() and link.is_symlink()
        assert engine.contexts.import_file(tmp_path / "target").num_cached_tokens
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*"))


def test_an_exported_context_is_all_in_its_file(exported: Path) -> None:
    archive = read_archive(exported)
    assert archive.record.content == DOCUMENT
    states = archive.read_states()
    assert len(states) > 1  # blocks of 256 tokens
    assert sum(map(len, states)) < exported.stat().st_size
