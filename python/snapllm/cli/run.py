"""`snapllm run`: one answer on the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from snapllm import hub
from snapllm.cli.units import USAGE_ERROR, parse_path, parse_within
from snapllm.engine import Engine
from snapllm.errors import SnapLLMError
from snapllm.model import Model
from snapllm.outputs import Finish, ReasoningDelta, TextDelta, tokens_per_second
from snapllm.params import MaxTokens, Temperature


def add_parser(commands: Any) -> None:
    """Adds the command's options."""
    parser = commands.add_parser(
        "run",
        help="answer one prompt",
        description="Answers one prompt with the demo model, or with a GGUF file of yours.",
    )
    parser.add_argument("prompt", help="what to ask; - reads it from standard input")
    parser.add_argument(
        "--model",
        type=parse_path,
        metavar="PATH",
        help="a GGUF file; hf:OWNER/REPO:TAG downloads one first",
    )
    parser.add_argument("--system", help="system prompt")
    parser.add_argument("--thinking", action="store_true", help="let the model reason first")
    parser.add_argument("--max-tokens", type=parse_within(MaxTokens), default=512)
    parser.add_argument(
        "--temperature",
        type=parse_within(Temperature),
        default=0.0,
        help="0 = always the likeliest token",
    )
    parser.set_defaults(handler=handle)


def handle(options: argparse.Namespace) -> int:
    """Prints the answer as it comes, and a line about it on standard error."""
    try:
        prompt = sys.stdin.buffer.read().decode() if options.prompt == "-" else options.prompt
    except UnicodeDecodeError:
        print("snapllm run: what is piped in is not UTF-8 text", file=sys.stderr)
        return 1
    if not prompt.strip():
        print("snapllm run: the prompt is empty", file=sys.stderr)
        return USAGE_ERROR
    messages = [{"role": "user", "content": prompt}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    try:
        with Engine() as engine:
            _print_answer(_load(engine, options.model), messages, options)
    except SnapLLMError as error:
        print(f"snapllm run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _load(engine: Engine, path: Path | None) -> Model:
    if path is None:
        return engine.load_demo()
    if hub.is_reference(str(path)):
        found = hub.fetch(str(path))
        return engine.load(found.path, mmproj_path=found.mmproj_path)
    return engine.load(path)


def _print_answer(
    model: Model, messages: list[dict[str, str]], options: argparse.Namespace
) -> None:
    events = model.chat(
        messages,
        stream=True,
        thinking=options.thinking,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
    )
    for event in events:
        if isinstance(event, TextDelta):
            print(event.text, end="", flush=True)
        elif isinstance(event, ReasoningDelta):
            print(event.text, end="", flush=True, file=sys.stderr)
        elif isinstance(event, Finish):
            speed = tokens_per_second(event.usage, event.timings)
            count = event.usage.num_generated_tokens
            print(flush=True)
            print(f"[{model.id}: {count} tokens, {speed:.0f} tokens/s]", file=sys.stderr)
