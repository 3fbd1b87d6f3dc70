"""An image, beside stable-diffusion.cpp's own command-line tool on the same files."""

from __future__ import annotations

import argparse
import re
import subprocess
import time
from pathlib import Path

import snapllm
from benchmarks.report import Row, interleaved, ratio_row, row
from benchmarks.shapes import make_nano_image_model

NUM_STEPS = 20
SIDE = 256


def run(options: argparse.Namespace) -> list[Row]:
    """Time in the sampler and decoder alone: the tool loads the model anew each time."""
    files = make_nano_image_model(options.scratch / "image")
    threads = options.threads or options.cores
    with snapllm.Engine(num_threads=threads) as engine:
        model = engine.load_diffusion(
            files["diffusion_model"], llm=files["llm"], taesd=files["taesd"]
        )

        def here() -> float:
            start = time.perf_counter()
            model.generate_image("a cat", width=SIDE, height=SIDE, num_steps=NUM_STEPS, seed=1)
            return time.perf_counter() - start

        here()
        cases = {"snapllm": here}
        if options.upstream is not None:
            tool = options.upstream.parent / "diffusion" / "bin" / "sd-cli"
            output = options.scratch / "image.png"
            cases["sd-cli"] = lambda: _upstream_seconds(tool, files, threads, output)
        values = interleaved(options.rounds, cases)
    rows = [row(f"{NUM_STEPS} steps at {SIDE}x{SIDE}, {n}", v, "s") for n, v in values.items()]
    if len(values) == 2:
        rows.append(ratio_row("image", values["snapllm"], values["sd-cli"]))
    return rows


def _upstream_seconds(tool: Path, files: dict[str, Path], threads: int, output: Path) -> float:
    command = [str(tool), "-v", "-p", "a cat", "-W", str(SIDE), "-H", str(SIDE), "-s", "1"]
    command += ["--steps", str(NUM_STEPS), "-t", str(threads), "-o", str(output)]
    command += ["--diffusion-model", str(files["diffusion_model"])]
    command += ["--llm", str(files["llm"]), "--taesd", str(files["taesd"])]
    text = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"generate_image completed in ([\d.]+)s", text.stdout + text.stderr)
    if found is None:
        raise RuntimeError("sd-cli did not say how long it took")
    return float(found[1])
