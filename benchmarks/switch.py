"""What it takes to switch between resident models, and to answer right after.

Three models, each of whose answers is known: a switch that did not happen would show.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import urllib.request
from collections.abc import Sequence

import snapllm
from benchmarks.peers import Settings, free_port, ours, running
from benchmarks.report import Row, row
from benchmarks.shapes import make_nano_model

PROMPTS = [f"Tell me of the number {i}." for i in range(4)]


def run(options: argparse.Namespace) -> list[Row]:
    """In process, with an answer after each switch, and over HTTP."""
    paths = {
        "a": options.model,
        "b": make_nano_model(options.scratch / "b.gguf", "qwen3", seed=2),
        "c": make_nano_model(options.scratch / "c.gguf", "llama", seed=3),
    }
    with snapllm.Engine(num_threads=options.threads) as engine:
        for name, path in paths.items():
            engine.load(path, name, context_size=2048)
        rows = [*_switches(engine, options.switches), *_first_tokens(engine, options.rounds * 20)]
    settings = Settings(tuple(paths.items()), options.threads or options.cores, 1, 2048)
    port = free_port()
    command = ours(settings, port, options.scratch / "workspace")
    with running("snapllm", command, options.log("ours"), port) as peer:
        times = [_switch_over_http(peer.url, "abc"[i % 3]) for i in range(options.rounds * 20)]
    return [*rows, row("switch_time_ms over HTTP", times, "ms")]


def _switches(engine: snapllm.Engine, count: int) -> list[Row]:
    """Switches to random models; who answers then is the model that is active."""
    alone = {(name, text): _token(engine.model(name), text) for name in "abc" for text in PROMPTS}
    rng = random.Random(1)
    times: list[float] = []
    num_right = 0
    for _ in range(count):
        name, text = rng.choice("abc"), rng.choice(PROMPTS)
        start = time.perf_counter()
        engine.switch(name)
        times.append((time.perf_counter() - start) * 1e6)
        num_right += _token(engine.model(), text) == alone[name, text]
    return [
        row("switch", times, "us", f"{count} switches among three models"),
        row("answers of the right model", [100 * num_right / count], "%"),
    ]


def _token(model: snapllm.Model, text: str) -> Sequence[int]:
    return model.generate(text, max_tokens=1, temperature=0, ignore_eos=True).tokens


def _first_tokens(engine: snapllm.Engine, count: int) -> list[Row]:
    """First tokens of the first model, after an answer of its own and after another's."""
    model, other = engine.model("a"), engine.model("b")
    times: dict[str, list[float]] = {"same model again": [], "other model than before": []}
    for _ in range(count):
        for name, before in zip(times, (model, other), strict=True):
            _token(before, PROMPTS[0])
            start = time.perf_counter()
            _token(model, PROMPTS[0])
            times[name].append((time.perf_counter() - start) * 1000)
    return [row(f"first token, {name}", found, "ms") for name, found in times.items()]


def _switch_over_http(url: str, model_id: str) -> float:
    body = json.dumps({"model_id": model_id}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/api/v1/models/switch", body, headers)
    with urllib.request.urlopen(request) as response:
        return float(json.load(response)["switch_time_ms"])
