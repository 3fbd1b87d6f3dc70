"""A coding agent's session: a long system prompt with tools, turn after turn, growing.

In the middle the agent asks another model the first question, and the server is restarted. Beside
llama.cpp's server in router mode: with both models in memory, as is its default, and with room
for one, where ours gets a budget that holds no second one either.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import snapllm
from benchmarks.agent_script import Script, Turn, make_script
from benchmarks.http_load import Answer, ask
from benchmarks.peers import Settings, free_port, llama_router, ours, running
from benchmarks.report import Row, in_turn, ratio_row, row

NUM_TURNS = 20
SWAP_AT, RESTART_AT = 7, 13
ANSWER_TOKENS = 48
TEMPLATE_TOKENS = 64
"""What the template puts around a turn, at most."""
FIRST, NEXT, ROUTER = "snapllm, first session", "snapllm, next session", "llama-server router"


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
    script: Script,
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
    return list(_rows(found, kind, script))


def _note(
    sessions: _Sessions, command: Callable[[int], list[str]], log: Path, script: Script
) -> None:
    start = time.perf_counter()
    answers = _session(command, log, script)
    sessions.seconds.append(time.perf_counter() - start)
    sessions.ttft_ms += [answer.ttft_ms for answer in answers]
    sessions.texts.append([answer.text for answer in answers])


def _rows(found: dict[str, _Sessions], kind: str, script: Script) -> Iterator[Row]:
    for name, sessions in found.items():
        yield row(f"{name}{kind}, end to end", sessions.seconds, "s")
        yield row(f"{name}{kind}, TTFT of a turn", sessions.ttft_ms, "ms")
    if ROUTER in found:
        for name in (FIRST, NEXT):
            yield ratio_row(f"{name}{kind}", found[name].seconds, found[ROUTER].seconds)
    turns = script.turns
    recorded = [turn.answer for turn in (*turns[:SWAP_AT], turns[0], *turns[SWAP_AT:])]
    for name, sessions in found.items():
        yield _equal(
            f"{name}{kind}, answers as recorded", sessions, [recorded] * len(sessions.texts)
        )
    for name in found:
        if name != FIRST:
            yield _equal(f"{name}{kind}, answers as in our first", found[name], found[FIRST].texts)


def _equal(name: str, sessions: _Sessions, others: list[list[str]]) -> Row:
    """How many answers of each session are the same."""
    counts = [
        sum(one == other for one, other in zip(a, b, strict=True))
        for a, b in zip(sessions.texts, others, strict=True)
    ]
    return row(name, counts, f"of {NUM_TURNS + 1}")


def _session(command: Callable[[int], list[str]], log: Path, script: Script) -> list[Answer]:
    """The answers to all turns, and between them another model's to the first."""

    def answers(url: str, turns: Sequence[Turn], model: str = "main") -> list[Answer]:
        options = {"tools": script.tools, "temperature": 0, "max_tokens": ANSWER_TOKENS}
        return [ask(url, turn.messages, model=model, **options) for turn in turns]

    port = free_port()
    with running("peer", command(port), log, port) as peer:
        found = answers(peer.url, script.turns[:SWAP_AT])
        found += answers(peer.url, script.turns[:1], "side")
        found += answers(peer.url, script.turns[SWAP_AT:RESTART_AT])
    port = free_port()
    with running("peer", command(port), log, port) as peer:
        return found + answers(peer.url, script.turns[RESTART_AT:])


def _script(options: argparse.Namespace) -> Script:
    with snapllm.Engine() as engine:
        model = engine.load(options.model, context_size=2048)

        def count(text: str) -> int:
            return sum(len(model.tokenize(line)) + 1 for line in text.splitlines())

        return make_script(NUM_TURNS, options.prompt_tokens, options.turn_tokens, count)
