"""The command line: what it refuses when it reads its arguments."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

import pytest

from snapllm.cli import main
from snapllm.cli.output_files import write_whole
from snapllm.server.config import ServerConfig
from snapllm.server.run import StartupError, address_of, default_workspaces, serve


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("serve --workspace=", "--workspace: must not be empty"),
        ("serve --host=", "--host: must not be empty"),
        ("serve --model=x=", "--model: expected ID=PATH"),
        ("serve --workspace x --no-workspace", "--no-workspace: not allowed with"),
        ("serve --kv-type q4_0", "--kv-type: invalid choice: 'q4_0'"),
        ("serve --gpu-layers -2", "--gpu-layers: expected a number"),
        ("serve --kv-ram 99999999999999999999", "--kv-ram: expected a number"),
        ("serve --threads 513", "--threads: expected at most 512"),
        ("serve --draft-tokens 16", "--draft-tokens: expected at most 15"),
        ("serve --drain-timeout inf", "--drain-timeout: expected something like"),
        ("serve --drain-timeout nan", "--drain-timeout: expected something like"),
        ("serve --drain-timeout=-1", "--drain-timeout: expected something like"),
        ("serve --drain-timeout 1000001", "--drain-timeout: expected at most 1000000 seconds"),
        ("serve --keep-alive 99999d", "--keep-alive: expected at most"),
        ("models load m m.gguf --keep-alive 99999d", "--keep-alive: expected at most"),
        ("contexts fork c --ttl 99999d", "--ttl: expected at most 316224000 seconds"),
        ("serve --image-host=", "--image-host: expected a host"),
        ("serve --image-host http://x/", "--image-host: expected a host"),
        ("serve --image-host x:80", "--image-host: expected a host"),
        ("serve --image-host *", "--image-host: expected a host"),
        ("serve --cors-origin=", "--cors-origin: expected * or an origin"),
        ("serve --cors-origin foo", "--cors-origin: expected * or an origin"),
        ("serve --cors-origin http://x/", "--cors-origin: expected * or an origin"),
        ("serve --cors-origin http://X", "--cors-origin: expected * or an origin"),
        ("serve --api-key=", "--api-key: must not be empty"),
        ("serve --api-key-file=/no/keys", "--api-key-file: cannot read '/no/keys': No such file"),
        ("serve --api-key-file=/dev/zero", "'/dev/zero' has more than 1048576 bytes"),
        ("serve --api-key-file=/dev/null", "'/dev/null' holds no key: that would let everybody"),
        ("serve --host []", "--host: must not be empty"),
        ("run x --model=", "--model: must not be empty"),
        ("image x --model=", "--model: must not be empty"),
        ("image x --lora-dir=", "--lora-dir: must not be empty"),
        ("image x --init=", "--init: must not be empty"),
        ("image x --size 64", "--size: expected WIDTHxHEIGHT"),
        ("image x --size 65x64", "--size: expected WIDTHxHEIGHT"),
        ("image x --size 64x4096", "--size: expected WIDTHxHEIGHT"),
        ("image x --steps 0", "--steps: expected a number from 1 to 150, not '0'"),
        ("image x --steps 2.5", "--steps: expected a number from 1 to 150"),
        ("image x --cfg-scale nan", "--cfg-scale: expected a number from 0 to 100"),
        ("image x --strength 2", "--strength: expected a number from 0 to 1"),
        ("image x --seed -2", "--seed: expected a number from -1 to"),
        ("serve --port ²", "--port: expected a port from 0 to 65535"),
        ("run x --max-tokens 0", "--max-tokens: expected a number from 1 to"),
        ("run x --temperature inf", "--temperature: expected a number from 0 to 2"),
        ("image x -o nowhere/a.png", "--output: there is no folder 'nowhere'"),
        ("image x -o a.gif", "--output: expected a name in .png, .jpg, .jpeg, .webp"),
    ],
)
def test_arguments_that_cannot_be_are_named(
    arguments: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--model x=no/such.gguf", "--model x=no/such.gguf: No such file or directory"),
        ("--model x=.", "--model x=.: not a file"),
        ("--model x={file} --mmproj x=no/eyes.gguf", "--mmproj x=no/eyes.gguf: No such file"),
        ("--model x={file} --part x.vae=no.gguf", "--part x.vae=no.gguf: No such file"),
        ("--model x={file} --lora-dir x={file}", "not a folder"),
        ("--model x={file} --model x={file}", "--model x: two models have this id"),
        ("--model .={file}", "--model: model_id must not be '.'"),
        ("--model a\x01={file}", "--model: model_id must not be 'a\\x01'"),
        ("--model x={file} --mmproj y={file}", "--mmproj y: no --model has this id"),
        ("--part y.vae={file}", "--part y: no --model has this id"),
        ("--lora-dir y={file}", "--lora-dir y: no --model has this id"),
        ("--model x={file} --alias a=x --alias a=y", "--alias a: it is given twice"),
        ("--model x={file} --mmproj x={file} --mmproj x={file}", "--mmproj x: it is given twice"),
        ("--model x={file} --part x.vae={file} --part x.vae={file}", "--part x.vae: it is given"),
        ("--model x={file} --lora-dir x=. --lora-dir x=/", "--lora-dir x: it is given twice"),
        ("--model x=m/\udcff", "--model x=m/\\udcff: not UTF-8"),
        ("--model x={file} --lora-dir x=m\udcff", "--lora-dir x=m\\udcff: not UTF-8"),
        ("--model \udcff={file}", "model: '\\udcff' is not UTF-8"),
        ("--alias a=\udcff", "alias: '\\udcff' is not UTF-8"),
        ("--kv-type q8_0 --flash-attention off", "--kv-type q8_0 needs flash attention"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line_before_anything_starts(
    arguments: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_: ServerConfig) -> None:
        raise AssertionError("it was started")

    monkeypatch.setattr("snapllm.server.run.serve", start)
    assert main(["serve", *arguments.format(file=__file__).split()]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("snapllm serve: ") and error.count("\n") == 1


def test_an_image_that_could_not_be_kept_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    locked, folder, kept = tmp_path / "locked", tmp_path / "folder.png", tmp_path / "kept.png"
    locked.mkdir(mode=0o500)
    folder.mkdir()
    kept.write_bytes(b"a picture")
    wrong = {folder: "is a folder"}
    if os.geteuid():  # whom permissions hold back
        wrong[locked / "x.png"] = "cannot write to"
    for path, words in wrong.items():
        with pytest.raises(SystemExit):
            main(["image", "x", "--model", "none.gguf", "-o", str(path)])
        assert words in capsys.readouterr().err
    assert main(["image", "x", "--model", "none.gguf", "-o", str(kept)]) == 1
    assert kept.read_bytes() == b"a picture"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").mkdir()  # where one goes that is told no name
    with pytest.raises(SystemExit):
        main(["image", "x", "--model", "none.gguf"])
    assert "is a folder" in capsys.readouterr().err


def test_a_picture_is_replaced_once_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "a.png", tmp_path / "link.png"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_whole(link, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)
    assert link.is_symlink()
    write_whole(tmp_path / "b.png", b"first")
    os.umask(mask := os.umask(0))
    assert (tmp_path / "b.png").stat().st_mode & 0o777 == 0o666 & ~mask

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"newer")
    assert path.read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 3
    write_whole(Path(os.devnull), b"x")


@pytest.mark.parametrize("path", ["no/such/file", "none.gguf", "none.safetensors"])
def test_an_image_model_that_is_no_file_is_not_looked_for_at_a_server(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "k.png")
    assert main(["image", "x", "--model", path, "-o", output]) == 1
    error = capsys.readouterr().err
    assert path in error and "No such file" in error and "http" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["models", "contexts"])
def test_the_server_is_named_before_or_after_the_action(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = ["--url", "ftp://there"]
    for arguments in ([*url], [*url, "list"], ["list", *url], [*url, "stats"], ["stats", *url]):
        assert main([command, *arguments]) == 1
        assert "not an http address: ftp://there" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["secret key", "secret\nkey", "sécret", "secret\udcff"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(
    key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--api-key", key])
    monkeypatch.setenv("SNAPLLM_API_KEY", key)
    assert main(["models", "--url", "http://127.0.0.1:1"]) == 1
    error = capsys.readouterr().err
    assert "--api-key: expected printable ASCII without blanks" in error
    assert "SNAPLLM_API_KEY: expected printable ASCII without blanks" in error
    assert "cret" not in error


def test_a_key_of_a_file_that_no_header_can_hold_is_refused_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("right\n\nsecret key\n")
    with pytest.raises(SystemExit):
        main(["serve", "--api-key-file", str(path)])
    error = capsys.readouterr().err
    assert "expected printable ASCII without blanks" in error
    assert f"key 2 of '{path}'" in error
    assert "cret" not in error


@pytest.mark.parametrize("port", ["99999", "http"])
def test_a_port_that_there_is_not_is_no_refused_connection(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--url", f"http://127.0.0.1:{port}"]) == 1
    assert f"not an http address: http://127.0.0.1:{port}: Port " in capsys.readouterr().err


def test_paths_behind_an_equals_sign_may_begin_at_home_and_hosts_stand_in_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[ServerConfig] = []

    async def start(config: ServerConfig) -> None:
        configs.append(config)

    monkeypatch.setattr("snapllm.server.run.serve", start)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "a.gguf"
    file.touch()
    options = "--host [::1] --model a=~/a.gguf --mmproj a=~/a.gguf --part a.vae=~/a.gguf"
    assert main(["serve", *options.split(), "--lora-dir=a=~", "--workspace=~/kept"]) == 0
    [config] = configs
    assert config.host == "::1"
    assert config.models == config.projectors == (("a", file),)
    assert config.parts == (("a", "vae", file),)
    assert config.lora_dirs == (("a", tmp_path),)
    assert config.workspace == tmp_path / "kept"


def test_a_name_that_the_terminal_has_no_letters_for_is_shown_escaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    model = {"id": "ü€", "quantization": None, "size_gb": 1.0}
    monkeypatch.setattr("snapllm.cli.models.request", lambda *_: {"models": [model]})
    assert main(["models"]) == 0
    assert b"\\xfc\\u20ac" in written.getvalue()


def test_an_ipv6_address_is_written_as_urls_have_it() -> None:
    assert address_of("::1", 7248) == "[::1]:7248"
    assert address_of("localhost", 80) == "localhost:80"


def test_an_engine_that_cannot_be_made_is_a_reason_not_to_start(tmp_path: Path) -> None:
    for config in (
        ServerConfig(port=0, persist=False, num_threads=100_000),
        ServerConfig(port=0, workspace=tmp_path, num_threads=100_000),
    ):
        with pytest.raises(StartupError, match="num_threads"):
            asyncio.run(serve(config))


def test_loras_of_a_model_that_takes_none_are_refused_before_anything_is_loaded(
    tmp_path: Path, llama_path: Path
) -> None:
    config = ServerConfig(
        port=0, persist=False, models=(("x", llama_path),), lora_dirs=(("x", tmp_path),)
    )
    with pytest.raises(StartupError, match="model x: lora_dir: only an image model has it"):
        asyncio.run(serve(config))


@pytest.mark.parametrize(
    ("data", "home", "expected"),
    [
        ("/data", "/home/me", "/data/snapllm"),
        ("", "/home/me", "/home/me/.local/share/snapllm"),
        ("data", "/home/me", "/home/me/.local/share/snapllm"),
        ("data", "home", None),
    ],
)
def test_nothing_is_kept_in_a_folder_that_depends_on_the_current_one(
    data: str, home: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", data)
    monkeypatch.setenv("HOME", home)
    workspace = next(default_workspaces(), None)
    assert workspace == (None if expected is None else Path(expected))
