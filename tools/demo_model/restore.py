"""Makes a shipped demo.gguf a run again: `python restore.py --gguf demo.gguf --out DIR`.

DIR then holds the tokenizer and a checkpoint with the weights (no optimizer state),
from which `train.py --out DIR --start-progress 0.5` goes on.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import gguf
import numpy as np
import torch
from chatml import MARKUP_TOKENS, SPECIAL_TOKENS
from export import BLOCK_TENSORS
from tokenizer import make_tokenizer
from torch import Tensor


def read_weights(reader: gguf.GGUFReader) -> dict[str, Tensor]:
    """The tensors under PyTorch's names, as float32."""
    parts = {theirs: ours for ours, theirs in BLOCK_TENSORS.items()}
    outer = {"token_embd.weight": "embedding.weight", "output_norm.weight": "norm.weight"}
    weights: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name = outer.get(tensor.name)
        if name is None:
            _, index, part, _ = tensor.name.split(".")
            name = f"blocks.{index}.{parts[part]}.weight"
        weights[name] = torch.from_numpy(values)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(args.gguf)
    tokens: list[str] = reader.fields["tokenizer.ggml.tokens"].contents()
    merges: list[str] = reader.fields["tokenizer.ggml.merges"].contents()
    num_added = len(SPECIAL_TOKENS) + len(MARKUP_TOKENS)
    vocab = {token: i for i, token in enumerate(tokens[:-num_added])}
    tokenizer = make_tokenizer(vocab, [tuple(m.split(" ")) for m in merges])
    assert [tokenizer.id_to_token(i) for i in range(len(tokens))] == tokens, "the vocabulary's order differs"
    tokenizer.save(str(args.out / "tokenizer.json"))
    # Of the weights: a run that goes on from a file draws other dialogues than the one that made it.
    seed = zlib.crc32(args.gguf.read_bytes())
    torch.save({"model": read_weights(reader), "seed": seed, "step": 0, "trained_s": 0.0, "num_tokens": 0},
               args.out / "checkpoint.pt")


if __name__ == "__main__":
    main()
