"""The demo model in PyTorch: the Qwen3 architecture at a small size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT_ROW = 448


@dataclass(frozen=True)
class Config:
    vocab_size: int = 4096
    width: int = 192
    num_layers: int = 6
    num_heads: int = 3
    head_size: int = 64
    ffn_width: int = 512
    rope_base: float = 500000.0
    context_size: int = 40960
    norm_epsilon: float = 1e-6


class Norm(nn.Module):
    """RMS norm that keeps its input's type, with half of float32's memory traffic."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":  # one kernel
            return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.epsilon)
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.epsilon)
        return (x * scale.to(x.dtype)) * self.weight.to(x.dtype)


class Block(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.config = c
        self.attn_norm = Norm(c.width, c.norm_epsilon)
        self.q = nn.Linear(c.width, c.num_heads * c.head_size, bias=False)
        self.k = nn.Linear(c.width, c.num_heads * c.head_size, bias=False)
        self.v = nn.Linear(c.width, c.num_heads * c.head_size, bias=False)
        self.o = nn.Linear(c.num_heads * c.head_size, c.width, bias=False)
        self.q_norm = Norm(c.head_size, c.norm_epsilon)
        self.k_norm = Norm(c.head_size, c.norm_epsilon)
        self.ffn_norm = Norm(c.width, c.norm_epsilon)
        self.gate = nn.Linear(c.width, c.ffn_width, bias=False)
        self.up = nn.Linear(c.width, c.ffn_width, bias=False)
        self.down = nn.Linear(c.ffn_width, c.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        c = self.config
        rows, length, _ = x.shape
        h = self.attn_norm(x)
        q = self.q_norm(self.q(h).view(rows, length, c.num_heads, c.head_size))
        k = self.k_norm(self.k(h).view(rows, length, c.num_heads, c.head_size))
        v = self.v(h).view(rows, length, c.num_heads, c.head_size)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        out = _attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        x = x + self.o(out.transpose(1, 2).reshape(rows, length, -1))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def _run(block: Block, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return block(x, cos, sin)


# One compiled form for all blocks, batches and lengths (but a batch of one row, which would be another).
_run_compiled = torch.compile(_run, dynamic=True)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention; plain products are faster than the fused kernel on a CPU for short rows."""
    length, size = q.shape[2:]
    if length > SHORT_ROW or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q * size**-0.5) @ k.transpose(-1, -2)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    return F.softmax(scores.masked_fill(future, -1e4), dim=-1) @ v


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of halves (the NEOX form that llama.cpp uses for Qwen3)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class DemoModel(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = Norm(config.width, config.norm_epsilon)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for block in self.blocks:
            for name in ("o", "down"):
                nn.init.normal_(getattr(block, name).weight, std=0.02 / config.num_layers**0.5)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Final hidden states, shape (rows, length, width)."""
        return self.hidden_of_embeddings(self.embedding(tokens))

    def hidden_of_embeddings(self, x: Tensor) -> Tensor:
        """The same for embeddings (rows, length, width) in the tokens' place."""
        c = self.config
        is_mixed = torch.is_autocast_enabled(x.device.type)
        dtype = torch.bfloat16 if is_mixed else torch.float32
        positions = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        exponents = torch.arange(0, c.head_size, 2, device=x.device) / c.head_size
        angles = positions[:, None] / c.rope_base ** exponents[None, :]
        cos = angles.cos()[None, :, None, :].to(dtype)
        sin = angles.sin()[None, :, None, :].to(dtype)
        x = x.to(dtype)
        run = _run_compiled if x.device.type == "cuda" and self.training and x.shape[0] > 1 else _run
        for block in self.blocks:
            x = run(block, x, cos, sin)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.embedding.weight.t().to(hidden.dtype)
