"""A coding agent's session: a long system prompt with tools, turn after turn, growing.

In the middle the agent asks another model once, and the server is restarted. llama.cpp's
server runs in router mode with one model in memory, as where two do not fit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.http_load import Answer, ask
from benchmarks.peers import Settings, free_port, llama_router, ours, running
from benchmarks.report import Row, ratio_row, row

NUM_TURNS = 20
SWAP_AT, RESTART_AT = 7, 13
ANSWER_TOKENS = 24


def run(options: argparse.Namespace) -> list[Row]:
    """The same session with both; ours a second time, as on the next day."""
    settings = Settings(
        models=(("main", options.model), ("side", options.second or options.model)),
        num_threads=options.threads or options.cores,
        num_slots=1,
        context_size=options.prompt_tokens * 3 + 8192,
        flash_attention=options.flash_attention,
    )
    workspace = options.scratch / "workspace"
    system = _system_prompt(options.prompt_tokens)
    num_lines = min(20, options.prompt_tokens // 150)
    runs = {"snapllm, first session": lambda port: ours(settings, port, workspace)}
    runs["snapllm, next session"] = runs["snapllm, first session"]
    if options.upstream is not None:
        binary, preset = options.upstream / "llama-server", options.scratch / "preset.ini"
        runs["llama-server router"] = lambda port: llama_router(settings, port, binary, preset)
    seconds: dict[str, float] = {}
    texts: dict[str, list[str]] = {}
    rows = []
    for name, command in runs.items():
        start = time.perf_counter()
        answers = _session(command, options.log(name.replace(" ", "-")), system, num_lines)
        seconds[name] = time.perf_counter() - start
        texts[name] = [answer.text for answer in answers]
        ttft = [answer.ttft_ms for answer in answers]
        rows.append(row(f"{name}, end to end", [seconds[name]], "s"))
        rows.append(row(f"{name}, TTFT of a turn", ttft, "ms"))
    if options.upstream is not None:
        base = [seconds["llama-server router"]]
        for name in ("snapllm, first session", "snapllm, next session"):
            rows.append(ratio_row(name, [seconds[name]], base))
        rows.append(_equal("llama-server's", texts, "llama-server router"))
    rows.append(_equal("our next session's", texts, "snapllm, next session"))
    return rows


def _equal(whose: str, texts: dict[str, list[str]], other: str) -> Row:
    """Answers up to the first that differs: from there on the sessions are different ones.

    Two tokens as likely as each other to within rounding can make that so.
    """
    pairs = zip(texts["snapllm, first session"], texts[other], strict=True)
    num_equal = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return row(f"first answers equal to {whose}", [num_equal], f"of {NUM_TURNS + 1}")


def _session(
    command: Callable[[int], list[str]], log: Path, system: str, num_lines: int
) -> list[Answer]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    answers: list[Answer] = []

    def turns(first: int, last: int, url: str) -> None:
        for turn in range(first, last):
            messages.append({"role": "user", "content": _tool_result(turn, num_lines)})
            answers.append(_ask(url, "main", messages))
            messages.append({"role": "assistant", "content": answers[-1].text})

    port = free_port()
    with running("peer", command(port), log, port) as peer:
        turns(0, SWAP_AT, peer.url)
        answers.append(_ask(peer.url, "side", [messages[0], {"role": "user", "content": "Plan."}]))
        turns(SWAP_AT, RESTART_AT, peer.url)
    port = free_port()
    with running("peer", command(port), log, port) as peer:
        turns(RESTART_AT, NUM_TURNS, peer.url)
    return answers


def _ask(url: str, model: str, messages: list[dict[str, Any]]) -> Answer:
    return ask(url, messages, model=model, temperature=0, max_tokens=ANSWER_TOKENS)


def _system_prompt(num_tokens: int) -> str:
    """Tools with their schemas, as agents send them; about four characters a token."""
    rng = random.Random(5)
    parts = ["You are a coding agent. Use the tools below."]
    while sum(map(len, parts)) < 4 * num_tokens:
        number = len(parts)
        schema = {
            "name": f"tool_{number}",
            "description": f"Does step {rng.randrange(10**6)} on files of kind {number}.",
            "parameters": {
                "type": "object",
                "properties": {
                    key: {"type": "string", "description": f"The {key} of call {number}"}
                    for key in ("path", "pattern", "text")
                },
            },
        }
        parts.append(json.dumps(schema))
    return "\n".join(parts)


def _tool_result(turn: int, num_lines: int) -> str:
    rng = random.Random(turn)
    lines = [f"{i}: value_{rng.randrange(1000)} = {rng.randrange(1000)}" for i in range(num_lines)]
    return f"Result of step {turn}:\n" + "\n".join(lines) + "\nGo on."
