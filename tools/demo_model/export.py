"""Writes a trained checkpoint as GGUF: `python export.py --run DIR --out demo.gguf`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from chatml import MARKUP_TOKENS, SPECIAL_TOKENS
from model import Config

TEMPLATE = Path(__file__).with_name("template.jinja")
TYPES = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
# PyTorch's names of a block's parts and GGUF's.
BLOCK_TENSORS = {
    "attn_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def add_metadata(writer: gguf.GGUFWriter, config: Config, file_type: gguf.LlamaFileType) -> None:
    writer.add_name("SnapLLM demo")
    writer.add_description("A very small instruct model for trying out SnapLLM")
    writer.add_license("MIT")
    writer.add_file_type(file_type)
    writer.add_context_length(config.context_size)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.ffn_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_vocab_size(config.vocab_size)


def add_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    """Vocabulary, merges, special tokens and chat template."""
    saved = json.loads(path.read_text())
    tokens: dict[int, str] = {i: t for t, i in saved["model"]["vocab"].items()}
    tokens |= {added["id"]: added["content"] for added in saved["added_tokens"]}
    types = []
    for i in range(len(tokens)):
        if tokens[i] in SPECIAL_TOKENS:
            types.append(gguf.TokenType.CONTROL)
        elif tokens[i] in MARKUP_TOKENS:
            types.append(gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    ids = {token: i for i, token in tokens.items()}
    merges = [m if isinstance(m, str) else " ".join(m) for m in saved["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokens[i] for i in range(len(tokens))])
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_bos_token_id(ids["<|endoftext|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE.read_text().rstrip("\n"))


def add_weights(writer: gguf.GGUFWriter, weights: dict[str, torch.Tensor],
                quantization: gguf.GGMLQuantizationType) -> None:
    def add(name: str, tensor: torch.Tensor) -> None:
        data = tensor.float().numpy()
        if data.ndim == 1:
            writer.add_tensor(name, data)
        elif quantization == gguf.GGMLQuantizationType.F16:
            writer.add_tensor(name, data.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quantize(data, quantization), raw_dtype=quantization)

    add("token_embd.weight", weights["embedding.weight"])
    add("output_norm.weight", weights["norm.weight"])
    for key, tensor in weights.items():
        if key.startswith("blocks."):
            _, number, part, _ = key.split(".")
            add(f"blk.{number}.{BLOCK_TENSORS[part]}.weight", tensor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder train.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--type", choices=TYPES, default="f16")
    args = parser.parse_args()
    state = torch.load(args.run / "checkpoint.pt", map_location="cpu")
    quantization, file_type = TYPES[args.type]
    writer = gguf.GGUFWriter(args.out, "qwen3")
    add_metadata(writer, Config(), file_type)
    add_tokenizer(writer, args.run / "tokenizer.json")
    add_weights(writer, state["model"], quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, step {state['step']}")


if __name__ == "__main__":
    main()
