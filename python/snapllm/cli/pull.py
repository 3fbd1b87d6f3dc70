"""`snapllm pull`: downloads a model of the hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from snapllm import hub
from snapllm.cli.units import USAGE_ERROR
from snapllm.errors import InvalidRequestError, SnapLLMError


def add_parser(commands: Any) -> None:
    """Adds the command's options."""
    parser = commands.add_parser(
        "pull",
        help="download a model",
        description="Downloads a model of the Hugging Face hub, as far as it is not there yet, "
        "and prints its files: the model's, then its projector's.",
    )
    parser.add_argument(
        "reference", metavar="OWNER/REPO[:TAG]", help="TAG: a quantization as Q4_K_M, or a file"
    )
    parser.set_defaults(handler=handle)


def handle(options: argparse.Namespace) -> int:
    """Prints the files' paths."""
    try:
        found = hub.fetch(options.reference)
    except SnapLLMError as error:
        print(f"snapllm pull: {error}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, InvalidRequestError) else 1
    print(found.path)
    if found.mmproj_path is not None:
        print(found.mmproj_path)
    return 0


def with_files(
    models: list[tuple[str, Path]], projectors: list[tuple[str, Path]]
) -> tuple[list[tuple[str, Path]], list[tuple[str, Path]]]:
    """Models and projectors, by id, with files in the place of references to the hub.

    A model of the hub comes with its projector, where it has one and none is given.

    Raises:
        SnapLLMError: See `hub.fetch`.
    """
    found_models, found_projectors = [], list(projectors)
    for model_id, path in models:
        if hub.is_reference(str(path)):
            found = hub.fetch(str(path), with_projector=model_id not in dict(projectors))
            path = found.path
            if found.mmproj_path is not None:
                found_projectors.append((model_id, found.mmproj_path))
        found_models.append((model_id, path))
    return found_models, found_projectors
