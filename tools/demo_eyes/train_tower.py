"""Trains the tower to see: `python train_tower.py --run DIR --steps N`.

It learns to say which shape of which colour is at each place, by a head that is not kept;
`train_eyes.py` goes on from DIR/eyes.pt.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "demo_model"))

import producers
from optimizer import lr_scale, make_optimizers, mixed_precision
from scenes import COLORS, PLACES, SHAPES, Scene, draw, make_scene
from tower import Eyes, TowerConfig, fit

MUON_LR = 0.02
ADAM_LR = 2e-3
PRESENT_WEIGHT = 4.0
"""Of a place where something is, against one where nothing is."""


def scene_labels(scene: Scene) -> np.ndarray:
    """Shape (0 none) and colour at each place, and the background's colour, as numbers."""
    colors = list(COLORS)
    labels = np.zeros((len(PLACES) + 1, 2), np.int64)
    labels[-1, 1] = colors.index(scene.background)
    for thing in scene.things:
        labels[thing.place] = (SHAPES.index(thing.shape) + 1, colors.index(thing.color))
    return labels


class Namer(nn.Module):
    """Looks at the features with one query for each place, and one for the background."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place_embedding = nn.Parameter(torch.randn(len(PLACES) + 1, width) * 0.1)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.shape = nn.Linear(width, len(SHAPES) + 1)
        self.color = nn.Linear(width, len(COLORS))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of shapes and colours, (pictures, places + 1, choices)."""
        looks = (self.place_embedding @ self.key(features).transpose(1, 2)).softmax(-1)
        seen = looks @ self.value(features)
        return self.shape(seen).float(), self.color(seen).float()


def naming_loss(shapes: Tensor, colors: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the shapes, and of the colours where something is."""
    places = labels[:, :-1]
    present = places[..., 0] > 0
    weight = torch.where(present, PRESENT_WEIGHT, 1.0)
    losses = F.cross_entropy(
        shapes[:, :-1].flatten(0, 1), places[..., 0].flatten(), reduction="none"
    )
    shape_loss = (losses * weight.flatten()).sum() / weight.sum()
    color_loss = F.cross_entropy(colors[:, :-1][present], places[present][:, 1])
    return shape_loss + color_loss + F.cross_entropy(colors[:, -1], labels[:, -1, 1])


def whole_scenes_right(shapes: Tensor, colors: Tensor, labels: Tensor) -> int:
    """Pictures of which everything is named right."""
    found, hue = shapes.argmax(-1), colors.argmax(-1)
    present = labels[..., 0] > 0
    right = (found == labels[..., 0]) & ((hue == labels[..., 1]) | ~present)
    background = hue[:, -1] == labels[:, -1, 1]
    return int((right[:, :-1].all(-1) & background).sum())


def _produce(seed: int, num_pictures: int, queue: Any) -> None:
    torch.set_num_threads(1)
    rng, side = random.Random(seed), TowerConfig().image_size
    while True:
        scenes = [make_scene(rng) for _ in range(num_pictures)]
        pictures = np.stack([np.asarray(fit(draw(rng, scene), side)) for scene in scenes])
        queue.put((pictures, np.stack([scene_labels(scene) for scene in scenes])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--pictures", type=int, default=128, help="a step")
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    config = TowerConfig()
    eyes, namer = Eyes(config), Namer(config.width)
    eyes_file = args.run / "eyes.pt"
    if eyes_file.exists():
        eyes.load_state_dict(torch.load(eyes_file, map_location="cpu"))
    trained = nn.ModuleList([eyes, namer])
    trained.requires_grad_(True)
    for projector in (eyes.mm_0, eyes.mm_2):
        projector.requires_grad_(False)
    optimizers = make_optimizers(trained, MUON_LR, ADAM_LR)
    take, stop = producers.start(_produce, args.seed, args.pictures, count=1, queue_size=16)
    right, average, start = 0, 0.0, time.monotonic()
    for step in range(args.steps):
        pictures, labels = (torch.from_numpy(part) for part in take())
        for optimizer, base in zip(optimizers, (MUON_LR, ADAM_LR), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * lr_scale(step, step / args.steps)
        with mixed_precision("cpu"):
            shapes, colors = namer(eyes.features(pictures))
        loss = naming_loss(shapes, colors, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        right += whole_scenes_right(shapes, colors, labels)
        average = 0.95 * (average or loss.item()) + 0.05 * loss.item()
        if step % 100 == 99:
            print(
                f"step {step + 1} {(time.monotonic() - start) / 60:.1f} min loss {average:.3f} "
                f"right {right / args.pictures:.1f} %",
                flush=True,
            )
            right = 0
        if step % 500 == 499 or step + 1 == args.steps:
            torch.save(eyes.state_dict(), eyes_file.with_suffix(".tmp"))
            eyes_file.with_suffix(".tmp").rename(eyes_file)
    stop()


if __name__ == "__main__":
    main()
