"""What is wrong with the options of `snapllm serve`, before anything of it starts."""

from __future__ import annotations

import argparse
from pathlib import Path

from snapllm._checks import check_model_id, check_path
from snapllm.errors import InvalidRequestError
from snapllm.hub import is_reference


def problem_of(options: argparse.Namespace) -> str:
    """What is wrong with options that are fine each by itself; empty = nothing."""
    problem = _of_ids(options) or _of_values(options) or _of_files(options)
    return problem.encode(errors="backslashreplace").decode()


def _of_ids(options: argparse.Namespace) -> str:
    names = [model_id for model_id, _ in options.model]
    for model_id in names:
        if names.count(model_id) > 1:
            return f"--model {model_id}: two models have this id"
        try:
            check_model_id(model_id)
        except InvalidRequestError as error:
            return f"--model: {error}"
    for option, ids in (
        ("--mmproj", [model_id for model_id, _ in options.mmproj]),
        ("--part", [model_id for model_id, _, _ in options.part]),
        ("--lora-dir", [model_id for model_id, _ in options.lora_dir]),
    ):
        for model_id in ids:
            if model_id not in names:
                return f"{option} {model_id}: no --model has this id"
    return _of_repetitions(options)


def _of_repetitions(options: argparse.Namespace) -> str:
    # Only one of two could be meant, and nobody would see which.
    for option, given in (
        ("--mmproj", [model_id for model_id, _ in options.mmproj]),
        ("--part", [f"{model_id}.{part}" for model_id, part, _ in options.part]),
        ("--lora-dir", [model_id for model_id, _ in options.lora_dir]),
        ("--alias", [name for name, _ in options.alias]),
    ):
        for name in given:
            if given.count(name) > 1:
                return f"{option} {name}: it is given twice"
    return ""


def _of_values(options: argparse.Namespace) -> str:
    if options.kv_type == "q8_0" and options.flash_attention == "off":
        return "--kv-type q8_0 needs flash attention"
    return ""


def _of_files(options: argparse.Namespace) -> str:
    here = [(model_id, path) for model_id, path in options.model if not is_reference(str(path))]
    files = [
        *((f"--model {model_id}={path}", path) for model_id, path in here),
        *((f"--mmproj {model_id}={path}", path) for model_id, path in options.mmproj),
        *((f"--part {model_id}.{part}={path}", path) for model_id, part, path in options.part),
    ]
    for option, path in files:
        if why := _why_unusable(path) or _why_unreadable(path):
            return f"{option}: {why}"
    for model_id, folder in options.lora_dir:
        if why := _why_unusable(folder) or ("" if folder.is_dir() else "not a folder"):
            return f"--lora-dir {model_id}={folder}: {why}"
    return ""


def _why_unusable(path: Path) -> str:
    """Why no model may have the path; empty = one may."""
    try:
        check_path(path, "")
    except InvalidRequestError:
        return "not UTF-8"
    return ""


def _why_unreadable(path: Path) -> str:
    """Why there is no file to read; empty = there is one."""
    try:
        if path.exists() and not path.is_file():
            return "not a file"
        with path.open("rb"):
            return ""
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return getattr(error, "strerror", None) or str(error)
