"""A coding agent's session: a long system prompt with tools, turn after turn, growing.

In the middle the agent asks another model once, and the server is restarted. Beside
llama.cpp's server in router mode: with both models in memory, as is its default, and with room
for one, where ours gets a budget that holds no second one either.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import snapllm
from benchmarks.http_load import Answer, ask
from benchmarks.peers import Settings, free_port, llama_router, ours, running
from benchmarks.report import Row, in_turn, ratio_row, row

NUM_TURNS = 20
SWAP_AT, RESTART_AT = 7, 13
ANSWER_TOKENS = 24
TEMPLATE_TOKENS = 64
"""What the template puts around a turn, at most."""
FIRST, NEXT, ROUTER = "snapllm, first session", "snapllm, next session", "llama-server router"


@dataclass(frozen=True)
class _Script:
    """What the agent says."""

    system: str
    results: list[str]
    """Of its tools, one for each turn."""
    num_tokens: int
    """Of all of it."""


@dataclass
class _Sessions:
    """What the sessions of one kind took, by round."""

    seconds: list[float] = field(default_factory=list)
    ttft_ms: list[float] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)


def run(options: argparse.Namespace) -> list[Row]:
    """The same session with both; ours a second time, as on the next day."""
    side = options.scratch / "side.gguf"
    shutil.copyfile(options.model, side)
    script = _script(options)
    settings = Settings(
        models=(("main", options.model), ("side", side)),
        num_threads=options.threads or options.cores,
        num_slots=1,
        context_size=script.num_tokens + NUM_TURNS * (ANSWER_TOKENS + TEMPLATE_TOKENS) + 1024,
    )
    rows = _side_by_side(settings, options, script, "", 0, 4)
    if not options.one_room:
        return rows
    budget = _bytes_of_one(settings) * 7 // 4  # a load asks for more beforehand than it takes
    return rows + _side_by_side(settings, options, script, ", room for one", budget, 1)


def _bytes_of_one(settings: Settings) -> int:
    """What one of the models takes of the budget."""
    with snapllm.Engine() as engine:
        engine.load(settings.models[0][1], context_size=settings.context_size)
        return engine.stats().memory.used_bytes


def _side_by_side(
    settings: Settings,
    options: argparse.Namespace,
    script: _Script,
    kind: str,
    budget_bytes: int,
    max_models: int,
) -> list[Row]:
    binary = options.upstream and options.upstream / "llama-server"
    preset = options.scratch / "preset.ini"
    found = {name: _Sessions() for name in (FIRST, NEXT, *([ROUTER] if binary else []))}
    for number in range(options.rounds):
        workspace = options.scratch / f"workspace-{max_models}-{number}"
        commands: dict[str, Callable[[int], list[str]]] = {
            name: lambda port, at=workspace: ours(settings, port, at, budget_bytes)  # type: ignore[misc]
            for name in (FIRST, NEXT)
        }
        if binary:
            commands[ROUTER] = lambda port: llama_router(settings, port, binary, preset, max_models)
        for names in in_turn([(FIRST, NEXT), (ROUTER,)], number):
            for name in names:
                if name in commands:
                    log = options.log(f"{name.replace(' ', '-')}-{max_models}")
                    _note(found[name], commands[name], log, script)
    return list(_rows(found, kind))


def _note(
    sessions: _Sessions, command: Callable[[int], list[str]], log: Path, script: _Script
) -> None:
    start = time.perf_counter()
    answers = _session(command, log, script)
    sessions.seconds.append(time.perf_counter() - start)
    sessions.ttft_ms += [answer.ttft_ms for answer in answers]
    sessions.texts.append([answer.text for answer in answers])


def _rows(found: dict[str, _Sessions], kind: str) -> Iterator[Row]:
    for name, sessions in found.items():
        yield row(f"{name}{kind}, end to end", sessions.seconds, "s")
        yield row(f"{name}{kind}, TTFT of a turn", sessions.ttft_ms, "ms")
    if ROUTER in found:
        for name in (FIRST, NEXT):
            yield ratio_row(f"{name}{kind}", found[name].seconds, found[ROUTER].seconds)
        yield _equal("llama-server's", kind, found[FIRST], found[ROUTER])
    yield _equal("our next session's", kind, found[FIRST], found[NEXT])


def _equal(whose: str, kind: str, first: _Sessions, other: _Sessions) -> Row:
    """Answers up to the first that differs: from there on the sessions are different ones.

    Two tokens as likely as each other to within rounding can make that so.
    """
    counts = [
        sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=True)))
        for a, b in zip(first.texts, other.texts, strict=True)
    ]
    return row(f"first answers equal to {whose}{kind}", counts, f"of {NUM_TURNS + 1}")


def _session(command: Callable[[int], list[str]], log: Path, script: _Script) -> list[Answer]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": script.system}]
    answers: list[Answer] = []

    def turns(first: int, last: int, url: str) -> None:
        for turn in range(first, last):
            messages.append({"role": "user", "content": script.results[turn]})
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


def _script(options: argparse.Namespace) -> _Script:
    with snapllm.Engine() as engine:
        model = engine.load(options.model, context_size=2048)

        def count(text: str) -> int:
            return sum(len(model.tokenize(line)) + 1 for line in text.splitlines())

        system = _system_prompt(options.prompt_tokens, count)
        results = [_tool_result(turn, options.turn_tokens, count) for turn in range(NUM_TURNS)]
        return _Script(system, results, count(system) + sum(map(count, results)))


def _system_prompt(num_tokens: int, count: Callable[[str], int]) -> str:
    """Tools with their schemas, as agents send them."""
    rng = random.Random(5)
    parts = ["You are a coding agent. Use the tools below."]
    found = 0
    while found < num_tokens:
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
        found += count(parts[-1])
    return "\n".join(parts)


def _tool_result(turn: int, num_tokens: int, count: Callable[[str], int]) -> str:
    rng = random.Random(turn)
    lines = [f"Result of step {turn}:"]
    while count("\n".join(lines)) < num_tokens:
        lines.append(f"{len(lines)}: value_{rng.randrange(1000)} = {rng.randrange(1000)}")
    return "\n".join(lines) + "\nGo on."
