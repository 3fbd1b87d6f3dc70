"""Muon for weight matrices (Jordan et al. 2024), AdamW for the rest; schedule and precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WARMUP_STEPS = 60
DECAY_FROM = 0.65  # of the training time


def orthogonalize(gradients: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices (count, rows, columns), by the quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradients.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return (x.mT if is_tall else x).to(gradients.dtype)


class Muon(torch.optim.Optimizer):
    """One group of parameters for each shape, so that all of a shape are computed at once."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in params:
            shapes.setdefault(parameter.shape, []).append(parameter)
        groups = [{"params": group} for group in shapes.values()]
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            for parameter in parameters:
                if "momentum" not in self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            momenta = [self.state[p]["momentum"] for p in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            updates = torch._foreach_lerp(gradients, momenta, group["momentum"])
            rows, columns = parameters[0].shape
            scale = max(1.0, rows / columns) ** 0.5
            torch._foreach_mul_(parameters, 1 - group["lr"] * 0.01)
            steps = list(orthogonalize(torch.stack(updates)).unbind())
            torch._foreach_add_(parameters, steps, alpha=-group["lr"] * scale)


def make_optimizers(model: nn.Module, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Both optimizers over the model's parameters."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embedding" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embedding" in n]
    return [
        Muon(matrices, muon_lr),
        torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def lr_scale(step: int, progress: float) -> float:
    """Warm-up, constant, then linear decay to a fiftieth."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    decay = 1.0 if progress < DECAY_FROM else max(0.02, (1 - progress) / (1 - DECAY_FROM))
    return warmup * decay


def mixed_precision(device: str) -> torch.autocast:
    """bfloat16 where the machine computes it; a CPU without it is ten times slower emulating."""
    has_bf16 = device != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device, dtype=torch.bfloat16, enabled=has_bf16)
