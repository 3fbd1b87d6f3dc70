"""`python -m benchmarks {switch,context,decode,turns}`: prints a table, writes JSON.

Run it from a checkout with the package installed, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

import snapllm
from benchmarks import context, decode, switch, turns
from benchmarks.report import Row, table

_BENCHMARKS = {
    "switch": switch.run,
    "context": context.run,
    "decode": decode.run,
    "turns": turns.run,
}


def main() -> None:
    """Runs one benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("benchmark", choices=_BENCHMARKS)
    parser.add_argument("--model", type=Path, help="a GGUF file (default: the demo model)")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="0 = calibrated")
    parser.add_argument(
        "--upstream", type=Path, metavar="DIR", help="folder with upstream's llama-bench"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    options.model = options.model or snapllm.engine.demo_model_path()
    with tempfile.TemporaryDirectory() as scratch:
        options.scratch = Path(scratch)
        rows: list[Row] = _BENCHMARKS[options.benchmark](options)
    print(table(rows))
    if options.json is not None:
        facts = {
            "benchmark": options.benchmark,
            "model": options.model.name,
            "version": snapllm.__version__,
            "system": snapllm._core.system_info(),
            "machine": f"{platform.machine()} {platform.processor()}".strip(),
        }
        options.json.write_text(json.dumps({**facts, "rows": [row.as_dict() for row in rows]}))


if __name__ == "__main__":
    main()
