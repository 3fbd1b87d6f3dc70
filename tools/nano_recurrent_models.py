"""Makes tiny models of rare recurrent architectures, each with errors of its own in llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from model_files import ModelFile

RecurrentArchitecture = Literal["plamo2", "rwkv6qwen2"]

_WIDTH = 64
_FFN = 128
_LAYERS = 2
_HEADS = 2
_HEAD_SIZE = _WIDTH // _HEADS
_KERNEL = 4
_RANK = 32
"""Of the matrices that a token's mixing and decay come from."""


def make_recurrent_model(path: Path, architecture: RecurrentArchitecture) -> Path:
    """Writes a model of 0.3 to 0.6 MB; the same architecture gives the same file."""
    model = ModelFile(path, architecture, kind=gguf.GGMLQuantizationType.F16, seed=1)
    model.metadata.add_name("nano")
    model.metadata.add_context_length(2048)
    model.metadata.add_embedding_length(_WIDTH)
    model.metadata.add_block_count(_LAYERS)
    model.metadata.add_feed_forward_length(_FFN)
    model.metadata.add_layer_norm_rms_eps(1e-6)
    model.add_matrix("token_embd", model.vocab_size, _WIDTH)
    model.add_matrix("output", model.vocab_size, _WIDTH)
    model.add_norm("output_norm", _WIDTH)
    for i in range(_LAYERS):
        model.add_norm(f"blk.{i}.attn_norm", _WIDTH)
        model.add_norm(f"blk.{i}.ffn_norm", _WIDTH)
    if architecture == "plamo2":
        _add_plamo2(model)
    else:
        _add_rwkv6qwen2(model)
    model.add_tokenizer(None)
    model.write()
    return path


def _add_plamo2(model: ModelFile) -> None:
    """A Mamba layer whose steps have norms, then one with attention."""
    inner, state, rank = 2 * _WIDTH, 64, 64
    model.metadata.add_head_count(_HEADS)
    model.metadata.add_head_count_kv([0] * (_LAYERS - 1) + [_HEADS])
    model.metadata.add_ssm_conv_kernel(_KERNEL)
    model.metadata.add_ssm_inner_size(inner)
    model.metadata.add_ssm_state_size(state)
    model.metadata.add_ssm_time_step_rank(_HEADS)
    model.metadata.add_ssm_group_count(0)
    for i in range(_LAYERS):
        block = f"blk.{i}"
        model.add_values(f"{block}.post_attention_norm", np.ones(_WIDTH))
        model.add_values(f"{block}.post_ffw_norm", np.ones(_WIDTH))
        model.add_matrix(f"{block}.ffn_up", 2 * _FFN, _WIDTH)
        model.add_matrix(f"{block}.ffn_down", _WIDTH, _FFN)
        if i == _LAYERS - 1:
            model.add_matrix(f"{block}.attn_qkv", 3 * _WIDTH, _WIDTH)
            model.add_norm(f"{block}.attn_q_norm", _HEADS, _HEAD_SIZE)
            model.add_norm(f"{block}.attn_k_norm", _HEADS, _HEAD_SIZE)
            model.add_matrix(f"{block}.attn_output", _WIDTH, _WIDTH)
            continue
        model.add_matrix(f"{block}.ssm_in", 2 * inner, _WIDTH)
        model.add_matrix(f"{block}.ssm_conv1d", inner, _KERNEL, kind=gguf.GGMLQuantizationType.F32)
        model.add_matrix(f"{block}.ssm_x", rank + 2 * state, inner)
        model.add_matrix(f"{block}.ssm_dt", _HEADS, rank)
        model.add_values(f"{block}.ssm_dt.bias", np.linspace(-4, -2, _HEADS))
        model.add_values(f"{block}.ssm_a", -np.linspace(1, 4, _HEADS))
        model.add_values(f"{block}.ssm_d", np.ones(_HEADS))
        model.add_matrix(f"{block}.ssm_out", _WIDTH, inner)
        model.add_values(f"{block}.ssm_dt_norm", np.ones(rank))
        model.add_values(f"{block}.ssm_b_norm", np.ones(state))
        model.add_values(f"{block}.ssm_c_norm", np.ones(state))


def _add_feed_forward(model: ModelFile, block: str) -> None:
    model.add_matrix(f"{block}.ffn_gate", _FFN, _WIDTH)
    model.add_matrix(f"{block}.ffn_up", _FFN, _WIDTH)
    model.add_matrix(f"{block}.ffn_down", _WIDTH, _FFN)


def _add_rwkv6qwen2(model: ModelFile) -> None:
    """A Qwen2 whose attention is RWKV 6's."""
    model.metadata.add_head_count(0)
    model.metadata.add_wkv_head_size(_HEAD_SIZE)
    model.metadata.add_time_mix_extra_dim(_RANK)
    model.metadata.add_time_decay_extra_dim(_RANK)
    model.metadata.add_token_shift_count(1)
    for i in range(_LAYERS):
        block = f"blk.{i}"
        model.add_matrix(f"{block}.time_mix_w1", 5 * _RANK, _WIDTH)
        model.add_matrix(f"{block}.time_mix_w2", 5, _WIDTH, _RANK)
        model.add_values(f"{block}.time_mix_lerp_x.weight", np.full(_WIDTH, 0.5))
        model.add_values(f"{block}.time_mix_lerp_fused.weight", np.full((5, 1, 1, _WIDTH), 0.5))
        model.add_values(f"{block}.time_mix_decay.weight", np.linspace(-4, 1, _WIDTH))
        model.add_matrix(f"{block}.time_mix_decay_w1", _RANK, _WIDTH)
        model.add_matrix(f"{block}.time_mix_decay_w2", _WIDTH, _RANK)
        for part in ("key", "value", "receptance", "gate", "output"):
            model.add_matrix(f"{block}.time_mix_{part}", _WIDTH, _WIDTH)
        _add_feed_forward(model, block)
