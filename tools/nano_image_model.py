"""Makes a small image model with random weights: for tests and for trying things out.

It has the shape of Ovis-Image, the smallest family that stable-diffusion.cpp runs: a
diffusion transformer of one double and one single block, a Qwen3 text encoder of one
layer, and the tiny autoencoder (TAESD) with 16 latent channels. Its pictures are noise
that depends on the prompt and the seed.

    python tools/nano_image_model.py FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

HIDDEN = 128
HEAD_DIM = 128
TEXT_HIDDEN = 32
TEXT_FEED_FORWARD = 64
# The text encoder's head counts and vocabulary are fixed by its family.
NUM_HEADS, NUM_KV_HEADS, VOCAB = 32, 8, 151936
LATENT_CHANNELS = 16
TAE_CHANNELS = 64

Tensors = dict[str, np.ndarray]


class _Weights:
    """Random tensors of a module tree."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.tensors: Tensors = {}

    def add(self, name: str, *shape: int, scale: float | None = None) -> None:
        fan_in = int(np.prod(shape[1:])) or 1
        deviation = fan_in**-0.5 if scale is None else scale
        values = self._rng.standard_normal(shape, np.float32) * np.float32(deviation)
        self.tensors[name] = values.astype(np.float16)

    def ones(self, name: str, *shape: int) -> None:
        self.tensors[name] = np.ones(shape, np.float32)

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        self.add(f"{name}.weight", outputs, inputs)
        if bias:
            self.tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def conv(self, name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        self.add(f"{name}.weight", outputs, inputs, 3, 3)
        if bias:
            self.tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)


def diffusion_transformer(seed: int) -> Tensors:
    """A Flux transformer as Ovis-Image has it."""
    w = _Weights(seed)
    feed_forward = 4 * HIDDEN
    w.linear("img_in", 64, HIDDEN)
    w.linear("time_in.in_layer", 256, HIDDEN)
    w.linear("time_in.out_layer", HIDDEN, HIDDEN)
    w.ones("txt_norm.scale", TEXT_HIDDEN)
    w.linear("txt_in", TEXT_HIDDEN, HIDDEN)
    for stream in ("img", "txt"):
        block = f"double_blocks.0.{stream}"
        w.linear(f"{block}_mod.lin", HIDDEN, 6 * HIDDEN)
        w.linear(f"{block}_attn.qkv", HIDDEN, 3 * HIDDEN)
        w.ones(f"{block}_attn.norm.query_norm.scale", HEAD_DIM)
        w.ones(f"{block}_attn.norm.key_norm.scale", HEAD_DIM)
        w.linear(f"{block}_attn.proj", HIDDEN, HIDDEN)
        w.linear(f"{block}_mlp.gate_proj", HIDDEN, feed_forward)
        w.linear(f"{block}_mlp.up_proj", HIDDEN, feed_forward)
        w.linear(f"{block}_mlp.down_proj", feed_forward, HIDDEN)
    w.linear("single_blocks.0.linear1", HIDDEN, 3 * HIDDEN + 2 * feed_forward)
    w.linear("single_blocks.0.linear2", HIDDEN + feed_forward, HIDDEN)
    w.ones("single_blocks.0.norm.query_norm.scale", HEAD_DIM)
    w.ones("single_blocks.0.norm.key_norm.scale", HEAD_DIM)
    w.linear("single_blocks.0.modulation.lin", HIDDEN, 3 * HIDDEN)
    w.linear("final_layer.linear", HIDDEN, 64)
    w.linear("final_layer.adaLN_modulation.1", HIDDEN, 2 * HIDDEN)
    return w.tensors


def text_encoder(seed: int) -> Tensors:
    """A Qwen3 of one layer."""
    w = _Weights(seed)
    w.add("model.embed_tokens.weight", VOCAB, TEXT_HIDDEN, scale=1.0)
    layer = "model.layers.0"
    w.linear(f"{layer}.self_attn.q_proj", TEXT_HIDDEN, NUM_HEADS * HEAD_DIM, bias=False)
    w.linear(f"{layer}.self_attn.k_proj", TEXT_HIDDEN, NUM_KV_HEADS * HEAD_DIM, bias=False)
    w.linear(f"{layer}.self_attn.v_proj", TEXT_HIDDEN, NUM_KV_HEADS * HEAD_DIM, bias=False)
    w.linear(f"{layer}.self_attn.o_proj", NUM_HEADS * HEAD_DIM, TEXT_HIDDEN, bias=False)
    w.ones(f"{layer}.self_attn.q_norm.weight", HEAD_DIM)
    w.ones(f"{layer}.self_attn.k_norm.weight", HEAD_DIM)
    w.linear(f"{layer}.mlp.gate_proj", TEXT_HIDDEN, TEXT_FEED_FORWARD, bias=False)
    w.linear(f"{layer}.mlp.up_proj", TEXT_HIDDEN, TEXT_FEED_FORWARD, bias=False)
    w.linear(f"{layer}.mlp.down_proj", TEXT_FEED_FORWARD, TEXT_HIDDEN, bias=False)
    w.ones(f"{layer}.input_layernorm.weight", TEXT_HIDDEN)
    w.ones(f"{layer}.post_attention_layernorm.weight", TEXT_HIDDEN)
    w.ones("model.norm.weight", TEXT_HIDDEN)
    return w.tensors


def tiny_autoencoder(seed: int) -> Tensors:
    """TAESD with 16 latent channels."""
    w = _Weights(seed)
    wide = TAE_CHANNELS

    def block(name: str) -> None:
        for conv in (0, 2, 4):
            w.conv(f"{name}.conv.{conv}", wide, wide)

    w.conv("encoder.layers.0", 3, wide)
    block("encoder.layers.1")
    for first in (2, 6, 10):
        w.conv(f"encoder.layers.{first}", wide, wide, bias=False)
        for i in range(1, 4):
            block(f"encoder.layers.{first + i}")
    w.conv("encoder.layers.14", wide, LATENT_CHANNELS)

    w.conv("decoder.layers.0", LATENT_CHANNELS, wide)
    for first in (2, 7, 12):
        for i in range(3):
            block(f"decoder.layers.{first + i}")
        # Then comes the upsampling, which has no weights.
        w.conv(f"decoder.layers.{first + 4}", wide, wide, bias=False)
    block("decoder.layers.17")
    w.conv("decoder.layers.18", wide, 3)
    w.tensors["decoder.layers.18.bias"] += np.float32(0.5)  # grey, not black, in the middle
    return w.tensors


def doubling_upscaler() -> Tensors:
    """An ESRGAN of one block that shows each pixel four times: the weights are not random."""
    features, growth = 64, 32

    def conv(inputs: int, outputs: int, num_passed: int = 0) -> np.ndarray:
        weight = np.zeros((outputs, inputs, 3, 3), np.float16)
        for i in range(num_passed):
            weight[i, i, 1, 1] = 1
        return weight

    weights = {"conv_first": conv(3, features, 3)}
    for dense in (1, 2, 3):
        for i in range(1, 6):
            outputs = growth if i < 5 else features
            weights[f"body.0.rdb{dense}.conv{i}"] = conv(features + (i - 1) * growth, outputs)
    weights["conv_body"] = conv(features, features)
    weights["conv_up1"] = conv(features, features, 3)
    weights["conv_hr"] = conv(features, features, 3)
    weights["conv_last"] = conv(features, 3, 3)
    tensors: Tensors = {}
    for name, weight in weights.items():
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = np.zeros(weight.shape[0], np.float32)
    return tensors


def save_safetensors(path: Path, tensors: Tensors) -> Path:
    """Writes tensors in the safetensors format: a length, a JSON header, the data."""
    header: dict[str, object] = {}
    end = 0
    for name, values in tensors.items():
        kind = {"float16": "F16", "float32": "F32"}[values.dtype.name]
        start, end = end, end + values.nbytes
        header[name] = {"dtype": kind, "shape": values.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for values in tensors.values():
            file.write(values.tobytes())
    return path


def make_nano_image_model(folder: Path, seed: int = 1) -> dict[str, Path]:
    """Writes the model's three files.

    Args:
        folder: Where to; made when missing.
        seed: Of the weights.

    Returns:
        The files by what they are: ``diffusion_model``, ``llm`` and ``taesd``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "diffusion_model": diffusion_transformer(seed),
        "llm": text_encoder(seed + 1),
        "taesd": tiny_autoencoder(seed + 2),
    }
    return {
        part: save_safetensors(folder / f"{part}.safetensors", tensors)
        for part, tensors in parts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for part, path in make_nano_image_model(options.folder, options.seed).items():
        print(f"{part}: {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
