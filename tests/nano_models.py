"""Makes tiny GGUF models with random weights: real files, answered in microseconds.

Their vocabulary is byte-level (every text can be tokenised, every byte generated) with
the special tokens of a ChatML template, so that chats, tools and thinking all run. The
text they generate means nothing; with temperature 0 it is always the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import gguf
import numpy as np

Architecture = Literal["llama", "qwen3"]

CHATML_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\nFor each call return <tool_call>{"name": ..., "arguments": ...}</tool_call>' }}
{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content }}
{{- '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- (call.function.arguments if call.function.arguments is string
     else call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""

_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>")


def _byte_characters() -> list[str]:
    """The printable stand-ins of the 256 bytes that byte-level BPE uses (GPT-2's)."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(0xAE, 0x100)]
    characters = {byte: chr(byte) for byte in kept}
    others = (byte for byte in range(256) if byte not in characters)
    characters |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


def _add_tokenizer(writer: gguf.GGUFWriter, template: str | None) -> int:
    merges = ["t h", "th e", "i n", "a n", "Ġ the", "Ġ a"]
    tokens = [*_byte_characters(), *(merge.replace(" ", "") for merge in merges)]
    types = [gguf.TokenType.NORMAL] * len(tokens)
    tokens += [*_CONTROL, *_MARKUP]
    types += [gguf.TokenType.CONTROL] * len(_CONTROL)
    types += [gguf.TokenType.USER_DEFINED] * len(_MARKUP)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    return len(tokens)


def make_nano_model(
    path: Path,
    architecture: Architecture = "llama",
    *,
    context_size: int = 2048,
    seed: int = 1,
    template: str | None = CHATML_TEMPLATE,
) -> Path:
    """Writes a model of about 0.2 MB; the same arguments give the same file."""
    width, heads, head_size, ffn, layers = 64, 4, 16, 128, 2
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"nano {architecture}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(context_size)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads // 2)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    vocab_size = _add_tokenizer(writer, template)
    writer.add_vocab_size(vocab_size)

    random = np.random.default_rng(seed)

    def add(name: str, *shape: int) -> None:
        weights = random.normal(0, 1.5 / np.sqrt(shape[-1]), shape)
        writer.add_tensor(f"{name}.weight", weights.astype(np.float16))

    def add_ones(name: str, size: int) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(size, np.float32))

    add("token_embd", vocab_size, width)
    add("output", vocab_size, width)
    add_ones("output_norm", width)
    for i in range(layers):
        add_ones(f"blk.{i}.attn_norm", width)
        add_ones(f"blk.{i}.ffn_norm", width)
        if architecture == "qwen3":
            add_ones(f"blk.{i}.attn_q_norm", head_size)
            add_ones(f"blk.{i}.attn_k_norm", head_size)
        add(f"blk.{i}.attn_q", heads * head_size, width)
        add(f"blk.{i}.attn_k", heads * head_size // 2, width)
        add(f"blk.{i}.attn_v", heads * head_size // 2, width)
        add(f"blk.{i}.attn_output", width, heads * head_size)
        add(f"blk.{i}.ffn_gate", ffn, width)
        add(f"blk.{i}.ffn_up", ffn, width)
        add(f"blk.{i}.ffn_down", width, ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
