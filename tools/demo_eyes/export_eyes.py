"""Writes trained eyes as a projector file: `python export_eyes.py --run DIR --out mmproj.gguf`."""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from tower import TowerConfig


def add_metadata(writer: gguf.GGUFWriter, c: TowerConfig) -> None:
    writer.add_name("SnapLLM demo eyes")
    writer.add_description("Sees coloured shapes; for the SnapLLM demo model")
    writer.add_license("MIT")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_bool("clip.use_gelu", True)
    writer.add_vision_image_size(c.image_size)
    writer.add_vision_patch_size(c.patch_size)
    writer.add_vision_embedding_length(c.width)
    writer.add_vision_feed_forward_length(c.ffn_width)
    writer.add_vision_block_count(c.num_layers)
    writer.add_vision_head_count(c.num_heads)
    writer.add_vision_projection_dim(c.text_width)
    writer.add_vision_attention_layernorm_eps(c.norm_epsilon)
    writer.add_vision_image_mean([c.mean] * 3)
    writer.add_vision_image_std([c.deviation] * 3)
    # LLaVA takes the last layer but one unless it is told which.
    writer.add_array("clip.vision.feature_layer", [c.num_layers])


def tensor_name(name: str) -> str:
    """The GGUF's name of a parameter of `tower.Eyes`."""
    if name == "position_embedding":
        return "v.position_embd.weight"
    if name.startswith("mm_"):
        return name.replace("mm_", "mm.", 1)
    return "v." + name.replace("blocks.", "blk.", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder train_eyes.py wrote to")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    weights = torch.load(args.run / "eyes.pt", map_location="cpu")
    writer = gguf.GGUFWriter(args.out, "clip")
    add_metadata(writer, TowerConfig())
    for name, tensor in weights.items():
        data = tensor.float().numpy()
        is_matrix = data.ndim > 1 and name != "position_embedding"
        writer.add_tensor(tensor_name(name), data.astype(np.float16) if is_matrix else data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
