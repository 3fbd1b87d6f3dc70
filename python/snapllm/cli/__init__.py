"""The `snapllm` command."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from snapllm import __version__
from snapllm.cli import contexts, image, models, pull, run, serve
from snapllm.cli.streams import open_streams
from snapllm.cli.units import USAGE_ERROR

PIPE_CLOSED = 141
"""The exit status of programs that SIGPIPE ends, as shells report it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    open_streams()
    parser = argparse.ArgumentParser(prog="snapllm", description="Local inference for many models")
    parser.add_argument("--version", action="version", version=f"snapllm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve.add_parser(commands)
    run.add_parser(commands)
    image.add_parser(commands)
    pull.add_parser(commands)
    models.add_parser(commands)
    contexts.add_parser(commands)
    options = parser.parse_args(arguments)
    if problem := _not_utf8(options):
        print(f"snapllm {options.command}: {problem}", file=sys.stderr)
        return USAGE_ERROR
    try:
        status: int = options.handler(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has had enough, as `head` does
        _discard_output()
        return PIPE_CLOSED
    except (OSError, UnicodeError) as error:  # what is read or written, as a full disk
        with contextlib.suppress(OSError):
            print(f"snapllm {options.command}: {error}", file=sys.stderr)
        _discard_output()
        return 1
    return status


def _discard_output() -> None:
    """Whatever is left to write would fail again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _not_utf8(options: argparse.Namespace) -> str:
    """What of the options is no text; empty = nothing. Files may be named as they like."""
    for name, value in vars(options).items():
        for text in _texts(value):
            try:
                text.encode()
            except UnicodeEncodeError:
                return f"{name.replace('_', '-')}: {text!r} is not UTF-8"
    return ""


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
