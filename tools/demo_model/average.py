"""Averages two runs: `python average.py --runs DIR DIR --out DIR`.

The second must have gone on from the first. Between the weights of a model and of the same model
trained further on part of the data lies one that does what both do, better than either
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from torch import Tensor


def average(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (first[name].float() + second[name].float()) / 2 for name in first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs=2, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(args.runs[0] / "tokenizer.json", args.out)
    states = [torch.load(run / "checkpoint.pt", map_location="cpu") for run in args.runs]
    merged = average(*(state["model"] for state in states))
    # Where the second run ended, so that no dialogue of its is drawn again.
    seed = states[1].get("seed", 0) + states[1]["step"]
    torch.save({"model": merged, "seed": seed, "step": 0, "trained_s": 0.0, "num_tokens": 0},
               args.out / "checkpoint.pt")
    if all((run / "eyes.pt").exists() for run in args.runs):
        eyes = [torch.load(run / "eyes.pt", map_location="cpu") for run in args.runs]
        torch.save(average(*eyes), args.out / "eyes.pt")


if __name__ == "__main__":
    main()
