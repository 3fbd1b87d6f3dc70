"""`python -m benchmarks NAME...`: measures, prints tables, writes JSON.

Run it from a checkout with the package and its test extra installed, on a machine that does
nothing else. `--upstream DIR` names the `bin` folder of a build with SNAPLLM_UPSTREAM_TOOLS;
then llama.cpp's and stable-diffusion.cpp's own programs are measured beside ours, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import snapllm
from benchmarks import (
    agent,
    context,
    decode,
    documents,
    draft,
    images,
    long_prompt,
    memory,
    overhead,
    serve,
    startup,
    switch,
    turns,
    vision,
)
from benchmarks.compare import compare
from benchmarks.page import write_page
from benchmarks.plot import plot
from benchmarks.report import Row, table
from benchmarks.shapes import SHAPES, make_model

_BENCHMARKS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "startup": startup.run,
    "switch": switch.run,
    "decode": decode.run,
    "draft": draft.run,
    "context": context.run,
    "documents": documents.run,
    "turns": turns.run,
    "serve": serve.run,
    "agent": agent.run,
    "memory": memory.run,
    "images": images.run,
    "vision": vision.run,
    "overhead": overhead.run,
    "long_prompt": long_prompt.run,
}


_OF_RESULTS = {"compare": "baseline", "plot": "svg", "page": "page"}
"""What is done with results, and the option that it needs beside them."""


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=[*_BENCHMARKS, "all", *_OF_RESULTS])
    parser.add_argument("--model", type=Path, help="a GGUF file (default: the demo model)")
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        help="a model as large as Llama 3.2 1B or 3.1 8B, of random weights; 1b-demo: one that "
        "answers as the demo model",
    )
    parser.add_argument("--quant", default="q4_0", help="of --shape (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="0 = as many as there are cores")
    parser.add_argument("--tokens", type=int, default=64, help="of a served answer (%(default)s)")
    parser.add_argument(
        "--prompt-tokens", type=int, default=1800, help="of the agent's prompt (%(default)s)"
    )
    parser.add_argument(
        "--turn-tokens", type=int, default=150, help="of the agent's tool results (%(default)s)"
    )
    parser.add_argument(
        "--one-room",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the agent's session also with room for one model",
    )
    parser.add_argument(
        "--lengths", type=_numbers, default=[512, 2048, 6000], help="tokens of the contexts"
    )
    parser.add_argument(
        "--streams", type=_numbers, default=[1, 8, 16, 32], help="of serve: open at once"
    )
    parser.add_argument(
        "--switches", type=int, default=300, help="of switch: so many (%(default)s)"
    )
    parser.add_argument("--upstream", type=Path, metavar="DIR", help="upstream's programs")
    parser.add_argument(
        "--llama-cpp-python",
        type=Path,
        metavar="PYTHON",
        help="of serve: the interpreter of an environment with llama-cpp-python's server",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument(
        "--baseline", type=Path, metavar="FILE", help="of compare: earlier results; --json: new"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="of plot: the picture; --json: of")
    parser.add_argument("--page", type=Path, metavar="FILE", help="of page: its file; --json: of")
    return parser


def _show(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Compares, plots or writes what earlier runs found."""
    [name] = options.names if len(options.names) == 1 else [""]
    needed = _OF_RESULTS.get(name)
    if needed is None:
        parser.error(f"{', '.join(_OF_RESULTS)} stand alone")
    if options.json is None or getattr(options, needed) is None:
        parser.error(f"{name} needs --json and --{needed}")
    if name == "compare":
        print(compare(options.baseline, options.json))
    elif name == "plot":
        plot(options.json, options.svg)
    else:
        write_page(options.json, options.page)


def _machine() -> dict[str, Any]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "snapllm": snapllm.__version__,
        "commit": _commit(),
        "features": snapllm._core.system_info(),
    }


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    with suppress(OSError):
        found = subprocess.run(command, capture_output=True, text=True)
        return found.stdout.strip() or "unknown"
    return "unknown"


def _described(options: argparse.Namespace) -> str:
    threads = options.threads or "as many threads as cores"
    return f"{options.rounds} rounds, {threads}, {options.tokens} tokens an answer"


def main() -> None:
    """Runs the benchmarks that the command line names."""
    parser = _parser()
    options = parser.parse_args()
    if _OF_RESULTS.keys() & options.names:
        _show(parser, options)
        return
    names = list(_BENCHMARKS) if "all" in options.names else options.names
    options.cores = len(os.sched_getaffinity(0))
    results: dict[str, Any] = {"machine": _machine(), "options": _described(options)}
    results["benchmarks"] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.shape:
            path = Path(folder) / f"{options.shape}-{options.quant}.gguf"
            options.model = make_model(path, options.shape, options.quant)
        options.model = options.model or snapllm.engine.demo_model_path()
        results["model"] = options.model.name
        for name in names:
            with tempfile.TemporaryDirectory() as scratch:
                options.scratch = Path(scratch)
                options.log = lambda log: options.scratch / f"{log}.log"
                rows = _BENCHMARKS[name](options)
            print(f"\n## {name}, {options.model.name}\n\n{table(rows)}", flush=True)
            results["benchmarks"][name] = [row.as_dict() for row in rows]
            if options.json is not None:
                options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
