"""The `snapllm` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from snapllm import __version__
from snapllm.cli import contexts, image, models, run, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="snapllm", description="Local inference for many models")
    parser.add_argument("--version", action="version", version=f"snapllm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve.add_parser(commands)
    run.add_parser(commands)
    image.add_parser(commands)
    models.add_parser(commands)
    contexts.add_parser(commands)
    options = parser.parse_args(arguments)
    status: int = options.handler(options)
    return status
