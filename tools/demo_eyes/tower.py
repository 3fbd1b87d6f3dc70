"""The vision tower and projector in PyTorch, as llama.cpp's mtmd computes LLaVA's ("mlp")."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

PAD_COLOR = (122, 116, 104)
"""What mtmd fills the rest of the square with when a picture is none (LLaVA's mean colour)."""


@dataclass(frozen=True)
class TowerConfig:
    image_size: int = 60
    patch_size: int = 10
    width: int = 128
    num_layers: int = 3
    num_heads: int = 4
    ffn_width: int = 256
    projector_width: int = 256
    text_width: int = 192
    norm_epsilon: float = 1e-5
    mean: float = 0.5
    deviation: float = 0.25

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


class TowerBlock(nn.Module):
    def __init__(self, c: TowerConfig) -> None:
        super().__init__()
        self.num_heads = c.num_heads
        self.ln1 = nn.LayerNorm(c.width, c.norm_epsilon)
        self.attn_q = nn.Linear(c.width, c.width)
        self.attn_k = nn.Linear(c.width, c.width)
        self.attn_v = nn.Linear(c.width, c.width)
        self.attn_out = nn.Linear(c.width, c.width)
        self.ln2 = nn.LayerNorm(c.width, c.norm_epsilon)
        self.ffn_up = nn.Linear(c.width, c.ffn_width)
        self.ffn_down = nn.Linear(c.ffn_width, c.width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln1(x)
        q, k, v = (self._heads(part(h)) for part in (self.attn_q, self.attn_k, self.attn_v))
        out = F.scaled_dot_product_attention(q, k, v)
        x = x + self.attn_out(out.transpose(1, 2).flatten(2))
        h = F.gelu(self.ffn_up(self.ln2(x)), approximate="tanh")
        return x + self.ffn_down(h)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class Eyes(nn.Module):
    """Pictures (rows, side, side, 3) of bytes to embeddings (rows, patches, text width)."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.patch_embd = nn.Conv2d(3, c.width, c.patch_size, c.patch_size, bias=False)
        self.position_embedding = nn.Parameter(torch.randn(c.num_patches, c.width) * 0.02)
        self.blocks = nn.ModuleList(TowerBlock(c) for _ in range(c.num_layers))
        self.post_ln = nn.LayerNorm(c.width, c.norm_epsilon)
        self.mm_0 = nn.Linear(c.width, c.projector_width)
        self.mm_2 = nn.Linear(c.projector_width, c.text_width)

    def features(self, pictures: Tensor) -> Tensor:
        """What the tower sees, before the projector: (rows, patches, width)."""
        x = (pictures.permute(0, 3, 1, 2).float() / 255 - self.config.mean) / self.config.deviation
        x = self.patch_embd(x).flatten(2).transpose(1, 2) + self.position_embedding
        for block in self.blocks:
            x = block(x)
        return self.post_ln(x)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.mm_2(F.gelu(self.mm_0(self.features(pictures)), approximate="tanh"))


def fit(image: Image.Image, side: int) -> Image.Image:
    """The picture as mtmd hands it to the tower: scaled (bicubic), centred, padded to a square."""
    if image.size == (side, side):
        return image
    scale = min(side / image.width, side / image.height)
    width = min(side, math.ceil(image.width * scale))
    height = min(side, math.ceil(image.height * scale))
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side), PAD_COLOR)
    square.paste(scaled, ((side - width) // 2, (side - height) // 2))
    return square
