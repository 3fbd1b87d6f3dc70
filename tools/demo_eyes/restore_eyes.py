"""Makes a shipped projector file a run again: `python restore_eyes.py --mmproj FILE --run DIR`.

DIR/eyes.pt then holds the weights, from which `train_eyes.py --run DIR` goes on; the tower
keeps what it sees when the language model is another.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from export_eyes import tensor_name
from tower import Eyes, TowerConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mmproj", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    args = parser.parse_args()
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(args.mmproj).tensors}
    weights = {}
    for name, parameter in Eyes(TowerConfig()).state_dict().items():
        data = np.array(tensors[tensor_name(name)].data).astype(np.float32)
        weights[name] = torch.from_numpy(data).reshape(parameter.shape)
    args.run.mkdir(parents=True, exist_ok=True)
    torch.save(weights, args.run / "eyes.pt")


if __name__ == "__main__":
    main()
