"""Makes GGUF models with random weights: tiny ones for tests, one of real shape for benchmarks.

The tiny models are real files, answered in microseconds. Their vocabulary is byte-level
(every text can be tokenised, every byte generated) with the special tokens of a ChatML
template, so that chats, tools and thinking all run. The text they generate means
nothing; with temperature 0 it is always the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from model_files import CHATML_TEMPLATE, ModelFile

Architecture = Literal[
    "llama",
    "qwen3",
    "qwen2vl",
    "gemma3",
    "gemma4",
    "gpt-oss",
    "deepseek2",
    "mamba2",
    "lfm2",
    "qwen35",
]
Quant = Literal["f16", "q8_0", "q4_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs", "iq4_nl"]

Shape = Literal["1b", "8b"]

GEMMA3_WINDOW = 64
"""How many tokens the window layers of the gemma models see."""


@dataclass(frozen=True)
class ModelShape:
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 16
    ffn: int = 128
    layers: int = 2
    experts: int = 0
    """Feed-forward networks of a layer, of which a token takes two; 0 = one for all."""


_WIDE_SHAPE = ModelShape(width=256, heads=4, kv_heads=2, head_size=64, ffn=512)
_MIXED_SHAPE = replace(_WIDE_SHAPE, ffn=256, experts=8)
_LATENT_SHAPE = replace(_WIDE_SHAPE, kv_heads=4, head_size=128)
SHAPES = {
    "1b": ModelShape(width=2048, heads=32, kv_heads=8, head_size=64, ffn=8192, layers=16),
    "8b": ModelShape(width=4096, heads=32, kv_heads=8, head_size=128, ffn=14336, layers=32),
}


def make_nano_model(
    path: Path,
    architecture: Architecture = "llama",
    *,
    context_size: int = 2048,
    seed: int = 1,
    template: str | None = CHATML_TEMPLATE,
    long_rope_from: int = 0,
    head_size: int = 16,
    is_causal: bool = True,
    fills_in: bool = False,
) -> Path:
    """Writes a model of 0.2 to 0.6 MB; the same arguments give the same file.

    KV of type q8_0 takes heads of 32 numbers. Contexts longer than `long_rope_from`, where it
    is given, have RoPE factors of their own. Of a model that is not causal, a token sees those
    after it too. One that fills in has the tokens that ask for what is missing between two texts.
    """
    kind = gguf.GGMLQuantizationType.F16
    model = ModelFile(path, architecture, kind=kind, seed=seed, fills_in=fills_in)
    model.metadata.add_name(f"nano {architecture}")
    model.metadata.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    model.metadata.add_context_length(context_size)
    if not is_causal:
        model.metadata.add_causal_attention(False)
    shape = ModelShape()
    heads = shape.width // head_size
    shape = replace(shape, heads=heads, kv_heads=heads // 2, head_size=head_size)
    model.add_matrix("token_embd", model.vocab_size, shape.width)
    model.add_matrix("output", model.vocab_size, shape.width)
    {
        "llama": _add_llama,
        "qwen3": _add_qwen3,
        "qwen2vl": _add_qwen2vl,
        "gemma3": _add_gemma3,
        "gemma4": _add_gemma4,
        "gpt-oss": _add_gpt_oss,
        "deepseek2": _add_deepseek2,
        "mamba2": _add_mamba2,
        "lfm2": _add_lfm2,
        "qwen35": _add_qwen35,
    }[architecture](model, shape)
    if long_rope_from:
        model.metadata.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        model.metadata.add_rope_scaling_orig_ctx_len(long_rope_from)
        model.metadata.add_rope_scaling_attn_factors(1.0)
        factors = np.arange(1, shape.head_size // 2 + 1, dtype=np.float32)
        model.add_values("rope_factors_long.weight", factors)
        model.add_values("rope_factors_short.weight", np.sqrt(factors))
    model.add_tokenizer(template)
    model.write()
    return path


def make_embedding_model(
    path: Path,
    *,
    pooling: gguf.PoolingType | None = gguf.PoolingType.MEAN,
    context_size: int = 128,
    seed: int = 1,
) -> Path:
    """Writes a BERT of 0.2 MB, which only computes embeddings."""
    model = ModelFile(path, "bert", kind=gguf.GGMLQuantizationType.F16, seed=seed)
    model.metadata.add_name("nano bert")
    model.metadata.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    model.metadata.add_context_length(context_size)
    shape = ModelShape(kv_heads=4)
    model.metadata.add_embedding_length(shape.width)
    model.metadata.add_block_count(shape.layers)
    model.metadata.add_feed_forward_length(shape.ffn)
    model.metadata.add_head_count(shape.heads)
    model.metadata.add_layer_norm_eps(1e-12)
    model.metadata.add_causal_attention(False)
    model.metadata.add_token_type_count(2)
    if pooling is not None:
        model.metadata.add_pooling_type(pooling)
    model.add_matrix("token_embd", model.vocab_size, shape.width)
    # Positions and types weigh little, or texts of the same length would be alike.
    model.add_values("position_embd.weight", np.zeros((context_size, shape.width)))
    model.add_values("token_types.weight", np.zeros((2, shape.width)))
    _add_layer_norm(model, "token_embd_norm", shape.width)
    for i in range(shape.layers):
        _add_attention(model, i, shape)
        _add_layer_norm(model, f"blk.{i}.attn_output_norm", shape.width)
        model.add_matrix(f"blk.{i}.ffn_up", shape.ffn, shape.width)
        model.add_matrix(f"blk.{i}.ffn_down", shape.width, shape.ffn)
        _add_layer_norm(model, f"blk.{i}.layer_output_norm", shape.width)
    model.add_tokenizer(None)
    model.write()
    return path


def make_quantized_model(
    path: Path,
    kind: Quant,
    output_kind: Quant | None = None,
    architecture: Literal["llama", "qwen3moe", "deepseek2"] = "llama",
) -> Path:
    """Writes a model of about 1 MB whose matrices are of that type, but for the output's."""
    model = ModelFile(path, architecture, kind=gguf.GGMLQuantizationType[kind.upper()], seed=1)
    model.metadata.add_name(f"nano {architecture} {kind}")
    model.metadata.add_context_length(2048)
    model.add_matrix("token_embd", model.vocab_size, _WIDE_SHAPE.width)
    output = gguf.GGMLQuantizationType[(output_kind or kind).upper()]
    model.add_matrix("output", model.vocab_size, _WIDE_SHAPE.width, kind=output)
    if architecture == "qwen3moe":
        _add_qwen3(model, _MIXED_SHAPE)
    elif architecture == "deepseek2":
        _add_deepseek2(model, _LATENT_SHAPE)
    else:
        _add_llama(model, _WIDE_SHAPE)
    model.add_tokenizer(CHATML_TEMPLATE)
    model.write()
    return path


def make_shape_model(path: Path, shape: Shape = "1b", quant: Quant = "q4_0") -> Path:
    """Writes a llama model as large as Llama 3.2 1B (0.7 GB at q4_0, in some seconds) or as
    Llama 3.1 8B (4.5 GB)."""
    kind = gguf.GGMLQuantizationType[quant.upper()]
    model = ModelFile(path, "llama", kind=kind, seed=1, vocab_size=128256)
    model.metadata.add_name(f"random llama {shape} {quant}")
    suffix = "_S" if quant in ("q3_k", "q4_k", "q5_k") else ""
    model.metadata.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quant.upper()}{suffix}"])
    model.metadata.add_context_length(131072)
    model.add_matrix("token_embd", model.vocab_size, SHAPES[shape].width)
    _add_llama(model, SHAPES[shape])
    model.add_tokenizer(CHATML_TEMPLATE)
    model.write()
    return path


def _add_llama(model: ModelFile, shape: ModelShape) -> None:
    _add_sizes(model, shape)
    model.add_norm("output_norm", shape.width)
    for i in range(shape.layers):
        model.add_norm(f"blk.{i}.attn_norm", shape.width)
        model.add_norm(f"blk.{i}.ffn_norm", shape.width)
        _add_attention(model, i, shape)
        _add_feed_forward(model, i, shape)


def _add_qwen3(model: ModelFile, shape: ModelShape) -> None:
    _add_sizes(model, shape)
    model.add_norm("output_norm", shape.width)
    for i in range(shape.layers):
        model.add_norm(f"blk.{i}.attn_norm", shape.width)
        model.add_norm(f"blk.{i}.ffn_norm", shape.width)
        _add_query_key_norms(model, i, shape)
        _add_attention(model, i, shape)
        _add_feed_forward(model, i, shape)


def _add_qwen2vl(model: ModelFile, shape: ModelShape) -> None:
    """Tokens have a place in two dimensions, which those of a text do not use."""
    part = shape.head_size // 16
    model.metadata.add_rope_dimension_sections([2 * part, 3 * part, 3 * part, 0])
    _add_llama(model, shape)


def _add_gemma3(model: ModelFile, shape: ModelShape) -> None:
    """Window layers and global layers in turn."""
    is_window = [True, False, True, False]
    shape = replace(shape, layers=len(is_window))
    _add_sizes(model, shape)
    model.metadata.add_sliding_window(GEMMA3_WINDOW)
    model.metadata.add_sliding_window_pattern(is_window)
    model.add_norm("output_norm", shape.width)
    for i in range(shape.layers):
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            model.add_norm(f"blk.{i}.{norm}", shape.width)
        # Sharp attention: tokens that look everywhere alike soon repeat one another.
        _add_query_key_norms(model, i, shape, weight=2)
        _add_attention(model, i, shape)
        _add_feed_forward(model, i, shape)


def _add_gemma4(model: ModelFile, shape: ModelShape) -> None:
    """Global layers have larger heads; the second layer of each kind has the KV of the first.

    Each layer adds an embedding of its own.
    """
    is_window = [True, False, True, False]
    sizes = [shape.head_size * (1 if window else 2) for window in is_window]
    part = 32  # of the embedding, for a layer
    shape = replace(shape, layers=len(is_window))
    _add_sizes(model, replace(shape, head_size=max(sizes)))
    model.metadata.add_key_length_swa(shape.head_size)
    model.metadata.add_value_length_swa(shape.head_size)
    model.metadata.add_rope_dimension_count_swa(shape.head_size)
    model.metadata.add_sliding_window(GEMMA3_WINDOW)
    model.metadata.add_sliding_window_pattern(is_window)
    model.metadata.add_shared_kv_layers(2)
    model.metadata.add_embedding_length_per_layer_input(part)
    model.add_matrix("per_layer_token_embd", model.vocab_size, shape.layers * part)
    model.add_matrix("per_layer_model_proj", shape.layers * part, shape.width)
    model.add_norm("per_layer_proj_norm", part)
    model.add_norm("output_norm", shape.width)
    model.add_values("rope_freqs.weight", np.ones(max(sizes) // 2))
    for i, size in enumerate(sizes):
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm"):
            model.add_norm(f"blk.{i}.{norm}", shape.width)
        layer = replace(shape, head_size=size)
        # Less than 1, since scores are not scaled down.
        _add_query_key_norms(model, i, layer, weight=0.7)
        _add_attention(model, i, layer)
        _add_feed_forward(model, i, shape)
        model.add_matrix(f"blk.{i}.inp_gate", part, shape.width)
        model.add_matrix(f"blk.{i}.proj", shape.width, part)


def _add_gpt_oss(model: ModelFile, shape: ModelShape) -> None:
    """Window layers and global layers in turn, attention with sinks, experts with biases."""
    shape = replace(shape, experts=4, kv_heads=shape.heads // 2)
    _add_sizes(model, shape)
    model.metadata.add_sliding_window(GEMMA3_WINDOW)
    model.add_norm("output_norm", shape.width, weight=3)  # or many tokens are about as likely
    for i in range(shape.layers):
        model.add_norm(f"blk.{i}.attn_norm", shape.width)
        model.add_norm(f"blk.{i}.post_attention_norm", shape.width)
        _add_attention(model, i, shape)
        model.add_values(f"blk.{i}.attn_output.bias", np.full(shape.width, 0.1))
        model.add_values(f"blk.{i}.attn_sinks.weight", np.linspace(-1, 1, shape.heads))
        _add_experts(model, i, shape)
        model.add_values(f"blk.{i}.ffn_gate_inp.bias", np.linspace(0, 0.1, shape.experts))
        for name, size in (("gate", shape.ffn), ("up", shape.ffn), ("down", shape.width)):
            bias = np.full((shape.experts, size), 0.1)
            model.add_values(f"blk.{i}.ffn_{name}_exps.bias", bias)


def _add_deepseek2(model: ModelFile, shape: ModelShape) -> None:
    """All heads share one key and value of few numbers (multi-head latent attention)."""
    rank, rope_size = 2 * shape.head_size, shape.head_size
    shared = replace(shape, kv_heads=1, head_size=rank + rope_size)
    _add_sizes(model, shared, value_size=rank, rope_size=rope_size)
    model.metadata.add_key_length_mla(shape.head_size + rope_size)
    model.metadata.add_value_length_mla(shape.head_size)
    model.metadata.add_q_lora_rank(rank)
    model.metadata.add_kv_lora_rank(rank)
    model.metadata.add_leading_dense_block_count(shape.layers)
    model.metadata.add_expert_count(0)
    model.metadata.add_expert_shared_count(0)
    model.metadata.add_expert_feed_forward_length(shape.ffn)
    model.add_norm("output_norm", shape.width)
    for i in range(shape.layers):
        model.add_norm(f"blk.{i}.attn_norm", shape.width)
        model.add_norm(f"blk.{i}.attn_q_a_norm", rank)
        model.add_norm(f"blk.{i}.attn_kv_a_norm", rank)
        model.add_norm(f"blk.{i}.ffn_norm", shape.width)
        model.add_matrix(f"blk.{i}.attn_q_a", rank, shape.width)
        model.add_matrix(f"blk.{i}.attn_q_b", shape.heads * (shape.head_size + rope_size), rank)
        model.add_matrix(f"blk.{i}.attn_kv_a_mqa", rank + rope_size, shape.width)
        model.add_matrix(f"blk.{i}.attn_k_b", shape.heads, rank, shape.head_size)
        model.add_matrix(f"blk.{i}.attn_v_b", shape.heads, shape.head_size, rank)
        model.add_matrix(f"blk.{i}.attn_output", shape.width, shape.heads * shape.head_size)
        _add_feed_forward(model, i, shape)


def _add_mamba2(model: ModelFile, shape: ModelShape) -> None:
    """Recurrent layers only; heads and states are of a size that GPU kernels take."""
    inner, state, heads, kernel = 2 * shape.width, 128, 2, 4
    channels = inner + 2 * state
    model.metadata.add_embedding_length(shape.width)
    model.metadata.add_block_count(shape.layers)
    model.metadata.add_layer_norm_rms_eps(1e-6)
    model.metadata.add_ssm_conv_kernel(kernel)
    model.metadata.add_ssm_inner_size(inner)
    model.metadata.add_ssm_state_size(state)
    model.metadata.add_ssm_time_step_rank(heads)
    model.metadata.add_ssm_group_count(1)
    model.add_norm("output_norm", shape.width)
    for i in range(shape.layers):
        model.add_norm(f"blk.{i}.attn_norm", shape.width)
        model.add_norm(f"blk.{i}.ssm_norm", 1, inner)
        model.add_matrix(f"blk.{i}.ssm_in", inner + channels + heads, shape.width)
        model.add_matrix(f"blk.{i}.ssm_out", shape.width, inner)
        _add_convolution(model, f"blk.{i}.ssm_conv1d", channels, kernel)
        model.add_values(f"blk.{i}.ssm_conv1d.bias", np.zeros(channels))
        # Of the two heads, the first forgets slowly and the second fast.
        model.add_values(f"blk.{i}.ssm_dt.bias", np.linspace(-4, -2, heads))
        model.add_values(f"blk.{i}.ssm_a", -np.linspace(1, 4, heads).reshape(heads, 1))
        model.add_values(f"blk.{i}.ssm_d", np.ones((heads, 1)))


def _add_lfm2(model: ModelFile, shape: ModelShape) -> None:
    """Short convolutions, with an attention layer after every two."""
    kv_heads, kernel = [0, 0, shape.kv_heads, 0, 0, shape.kv_heads], 3
    shape = replace(shape, layers=len(kv_heads))
    _add_sizes(model, shape, kv_heads)
    model.metadata.add_shortconv_l_cache(kernel)
    model.add_norm("token_embd_norm", shape.width)
    for i, has_attention in enumerate(kv_heads):
        model.add_norm(f"blk.{i}.attn_norm", shape.width)
        model.add_norm(f"blk.{i}.ffn_norm", shape.width)
        if has_attention:
            _add_query_key_norms(model, i, shape)
            _add_attention(model, i, shape)
        else:
            _add_convolution(model, f"blk.{i}.shortconv.conv", shape.width, kernel)
            model.add_matrix(f"blk.{i}.shortconv.in_proj", 3 * shape.width, shape.width)
            model.add_matrix(f"blk.{i}.shortconv.out_proj", shape.width, shape.width)
        _add_feed_forward(model, i, shape)


def _add_qwen35(model: ModelFile, shape: ModelShape) -> None:
    """A layer of gated delta nets, then one of attention whose answer has a gate."""
    heads, groups, state, kernel = 4, 2, shape.head_size, 4
    key_size, value_size = groups * state, heads * state
    _add_sizes(model, shape)
    part = shape.head_size // 16
    model.metadata.add_rope_dimension_sections([2 * part, 3 * part, 3 * part, 0])
    model.metadata.add_ssm_conv_kernel(kernel)
    model.metadata.add_ssm_inner_size(value_size)
    model.metadata.add_ssm_state_size(state)
    model.metadata.add_ssm_time_step_rank(heads)
    model.metadata.add_ssm_group_count(groups)
    model.metadata.add_full_attention_interval(2)
    model.add_norm("output_norm", shape.width)
    for i in range(shape.layers):
        model.add_norm(f"blk.{i}.attn_norm", shape.width)
        model.add_norm(f"blk.{i}.post_attention_norm", shape.width)
        if i % 2 == 0:
            model.add_matrix(f"blk.{i}.attn_qkv", 2 * key_size + value_size, shape.width)
            model.add_matrix(f"blk.{i}.attn_gate", value_size, shape.width)
            _add_convolution(model, f"blk.{i}.ssm_conv1d", 2 * key_size + value_size, kernel)
            model.add_values(f"blk.{i}.ssm_dt.bias", np.zeros(heads))
            model.add_values(f"blk.{i}.ssm_a", np.full(heads, -1.0))
            model.add_matrix(f"blk.{i}.ssm_beta", heads, shape.width)
            model.add_matrix(f"blk.{i}.ssm_alpha", heads, shape.width)
            model.add_norm(f"blk.{i}.ssm_norm", state)
            model.add_matrix(f"blk.{i}.ssm_out", shape.width, value_size)
        else:
            _add_query_key_norms(model, i, shape)
            _add_attention(model, i, shape, gated=True)
        _add_feed_forward(model, i, shape)


def _add_sizes(
    model: ModelFile,
    shape: ModelShape,
    kv_heads: list[int] | None = None,
    value_size: int = 0,
    rope_size: int = 0,
) -> None:
    """Adds the metadata of a model with attention.

    kv_heads are each layer's, if they differ; the sizes those of a head's value and of what is
    rotated of it, if they are not the head's.
    """
    model.metadata.add_embedding_length(shape.width)
    model.metadata.add_block_count(shape.layers)
    model.metadata.add_feed_forward_length(shape.ffn)
    model.metadata.add_head_count(shape.heads)
    model.metadata.add_head_count_kv(kv_heads or shape.kv_heads)
    model.metadata.add_key_length(shape.head_size)
    model.metadata.add_value_length(value_size or shape.head_size)
    model.metadata.add_rope_dimension_count(rope_size or shape.head_size)
    model.metadata.add_layer_norm_rms_eps(1e-6)
    model.metadata.add_rope_freq_base(10000.0)
    if shape.experts:
        model.metadata.add_expert_count(shape.experts)
        model.metadata.add_expert_used_count(2)
        model.metadata.add_expert_feed_forward_length(shape.ffn)


def _add_layer_norm(model: ModelFile, name: str, width: int) -> None:
    model.add_norm(name, width)
    model.add_values(f"{name}.bias", np.zeros(width))


def _add_query_key_norms(model: ModelFile, i: int, shape: ModelShape, weight: float = 1) -> None:
    model.add_norm(f"blk.{i}.attn_q_norm", shape.head_size, weight=weight)
    model.add_norm(f"blk.{i}.attn_k_norm", shape.head_size, weight=weight)


def _add_attention(model: ModelFile, i: int, shape: ModelShape, *, gated: bool = False) -> None:
    num_queries = shape.heads * (2 if gated else 1)
    model.add_matrix(f"blk.{i}.attn_q", num_queries * shape.head_size, shape.width)
    model.add_matrix(f"blk.{i}.attn_k", shape.kv_heads * shape.head_size, shape.width)
    model.add_matrix(f"blk.{i}.attn_v", shape.kv_heads * shape.head_size, shape.width)
    model.add_matrix(f"blk.{i}.attn_output", shape.width, shape.heads * shape.head_size)


def _add_feed_forward(model: ModelFile, i: int, shape: ModelShape) -> None:
    if shape.experts:
        _add_experts(model, i, shape)
        return
    model.add_matrix(f"blk.{i}.ffn_gate", shape.ffn, shape.width)
    model.add_matrix(f"blk.{i}.ffn_up", shape.ffn, shape.width)
    model.add_matrix(f"blk.{i}.ffn_down", shape.width, shape.ffn)


def _add_experts(model: ModelFile, i: int, shape: ModelShape) -> None:
    router = gguf.GGMLQuantizationType.F32
    model.add_matrix(f"blk.{i}.ffn_gate_inp", shape.experts, shape.width, kind=router)
    model.add_matrix(f"blk.{i}.ffn_gate_exps", shape.experts, shape.ffn, shape.width)
    model.add_matrix(f"blk.{i}.ffn_up_exps", shape.experts, shape.ffn, shape.width)
    model.add_matrix(f"blk.{i}.ffn_down_exps", shape.experts, shape.width, shape.ffn)


def _add_convolution(model: ModelFile, name: str, channels: int, kernel: int) -> None:
    model.add_matrix(name, channels, kernel, kind=gguf.GGMLQuantizationType.F32)
