"""Makes projectors (mmproj) with random weights for the models of `nano_models`.

They see: other pictures give the model other embeddings. What it then says means nothing,
but with temperature 0 it is always the same for the same picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from model_files import ModelFile

Projector = Literal["mlp", "gemma3", "qwen2vl_merger"]

_WIDTH, _FFN, _HEADS, _LAYERS = 32, 64, 2, 3
_PATCH = {"mlp": 8, "gemma3": 4, "qwen2vl_merger": 4}
IMAGE_SIZE = 32
"""Sides of the square that mlp and gemma3 scale every picture to."""
NUM_TOKENS = {"mlp": 16, "gemma3": 4}
"""Tokens of a picture; of qwen2vl_merger they depend on its size: one for each 8 x 8 pixels."""


def make_nano_projector(
    path: Path,
    kind: Projector = "mlp",
    *,
    text_width: int = 64,
    seed: int = 1,
    position_kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
) -> Path:
    """Writes a projector of about 0.1 MB; the same arguments give the same file.

    Args:
        path: The file to write.
        kind: LLaVA's plain kind; gemma3's, whose pictures are not causal; or qwen2-vl's,
            which is for models with M-RoPE.
        text_width: Embedding length of the language model it is for.
        seed: The same seed gives the same weights.
        position_kind: Type of the position embeddings; gemma3's cannot be computed with
            another than the default.
    """
    file = ModelFile(path, "clip", kind=gguf.GGMLQuantizationType.F16, seed=seed)
    meta, patch = file.metadata, _PATCH[kind]
    meta.add_name(f"nano {kind} projector")
    meta.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    meta.add_clip_has_vision_encoder(True)
    meta.add_clip_projector_type(kind)
    meta.add_bool("clip.use_gelu", True)
    meta.add_vision_image_size(IMAGE_SIZE)
    meta.add_vision_patch_size(patch)
    meta.add_vision_embedding_length(_WIDTH)
    meta.add_vision_feed_forward_length(_FFN)
    meta.add_vision_block_count(_LAYERS)
    meta.add_vision_head_count(_HEADS)
    meta.add_vision_projection_dim(text_width)
    meta.add_vision_attention_layernorm_eps(1e-5)
    meta.add_vision_image_mean([0.5, 0.5, 0.5])
    meta.add_vision_image_std([0.25, 0.25, 0.25])
    file.add_matrix("v.patch_embd", _WIDTH, 3, patch, patch)
    if kind == "qwen2vl_merger":
        file.add_matrix_named("v.patch_embd.weight.1", _WIDTH, 3, patch, patch)
    else:
        file.add_matrix("v.position_embd", (IMAGE_SIZE // patch) ** 2, _WIDTH, kind=position_kind)
    for i in range(_LAYERS):
        _add_block(file, f"v.blk.{i}")
    _add_norm(file, "v.post_ln")
    if kind == "gemma3":
        meta.add_uint32("clip.vision.projector.scale_factor", 4)
        file.add_matrix("mm.input_projection", _WIDTH, text_width)
        file.add_norm("mm.soft_emb_norm", _WIDTH)
    else:
        inputs = 4 * _WIDTH if kind == "qwen2vl_merger" else _WIDTH
        _add_linear(file, "mm.0", text_width, inputs)
        _add_linear(file, "mm.2", text_width, text_width)
    file.write()
    return path


def _add_block(file: ModelFile, name: str) -> None:
    _add_norm(file, f"{name}.ln1")
    _add_norm(file, f"{name}.ln2")
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        _add_linear(file, f"{name}.{part}", _WIDTH, _WIDTH)
    _add_linear(file, f"{name}.ffn_up", _FFN, _WIDTH)
    _add_linear(file, f"{name}.ffn_down", _WIDTH, _FFN)


def _add_linear(file: ModelFile, name: str, outputs: int, inputs: int) -> None:
    file.add_matrix(name, outputs, inputs)
    file.add_values(f"{name}.bias", np.zeros(outputs))


def _add_norm(file: ModelFile, name: str) -> None:
    file.add_norm(name, _WIDTH)
    file.add_values(f"{name}.bias", np.zeros(_WIDTH))
