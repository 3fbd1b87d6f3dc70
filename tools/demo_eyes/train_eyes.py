"""Trains the demo model's eyes: `python train_eyes.py --run DIR --minutes N`.

DIR is a run of the demo model (demo_model/restore.py makes one of the shipped file) with the
tower of train_tower.py. Tower, projector and language model learn together to answer
questions about pictures, beside the dialogues that the language model was trained on, so
that it forgets nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "demo_model"))

import producers
from batches import start_producers as start_text_producers
from mixture import MAX_ROW_TOKENS
from model import Config, DemoModel
from optimizer import lr_scale, make_optimizers, mixed_precision
from picture_rows import PICTURE, Batch, start_producers
from tower import Eyes, TowerConfig

MUON_LR = 0.006
ADAM_LR = 6e-4
TEXT_MUON_LR = 0.01  # of the language model
TEXT_ADAM_LR = 1.5e-3


def answer_logits(eyes: Eyes, model: DemoModel, batch: Batch) -> Tensor:
    """Logits (tokens, vocabulary) at the places before learned tokens."""
    seen = eyes(batch.pictures)
    inputs = batch.tokens[:, :-1]
    x = model.embedding(inputs.clamp(min=0))
    x = x.to(seen.dtype).masked_scatter((inputs == PICTURE)[..., None], seen)
    hidden = model.hidden_of_embeddings(x)
    return model.logits(hidden[batch.learned[:, 1:]])


@torch.no_grad()
def exact_answers(logits: Tensor, batch: Batch) -> tuple[int, int]:
    """Answers of which greedy decoding gets every token right, and all."""
    learned = batch.learned[:, 1:]
    right = torch.ones_like(learned)
    right[learned] = logits.argmax(-1) == batch.tokens[:, 1:][learned]
    starts = learned & ~F.pad(learned[:, :-1], (1, 0))
    answer = starts.flatten().cumsum(0).view_as(learned) - 1
    wrong = torch.zeros(int(starts.sum()), dtype=torch.bool, device=logits.device)
    wrong[answer[learned & ~right]] = True
    return int((~wrong).sum()), len(wrong)


def save(path: Path, state: dict[str, Any]) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def text_loss(model: DemoModel, tokens: Tensor, kinds: Tensor) -> Tensor:
    """Cross-entropy of the answers of dialogues without pictures."""
    chosen = kinds[:, 1:] == 2
    hidden = model.hidden(tokens[:, :-1].long())[chosen]
    return F.cross_entropy(model.logits(hidden).float(), tokens[:, 1:][chosen].long())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rows", type=int, default=48, help="conversations about pictures a step")
    parser.add_argument("--text-tokens", type=int, default=4096, help="of other dialogues a step")
    parser.add_argument("--max-row-tokens", type=int, default=MAX_ROW_TOKENS)
    parser.add_argument("--producers", type=int, default=producers.default_count())
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint, eyes_file = args.run / "checkpoint.pt", args.run / "eyes.pt"
    state = torch.load(checkpoint, map_location=device)
    model = DemoModel(Config()).to(device)
    model.load_state_dict(state["model"])
    eyes = Eyes(TowerConfig()).to(device)
    eyes.load_state_dict(torch.load(eyes_file, map_location=device))
    lrs = (MUON_LR, ADAM_LR, TEXT_MUON_LR, TEXT_ADAM_LR)
    optimizers = make_optimizers(eyes, MUON_LR, ADAM_LR)
    optimizers += make_optimizers(model, TEXT_MUON_LR, TEXT_ADAM_LR)
    print(f"{sum(p.numel() for p in eyes.parameters())} parameters see, on {device}", flush=True)

    tokenizer = str(args.run / "tokenizer.json")
    seed = args.seed + state.get("seed", 0)
    count = max(1, args.producers // 2)
    next_batch, stop_pictures = start_producers(tokenizer, seed, args.rows, count)
    next_text, stop_text = start_text_producers(
        tokenizer, seed, args.text_tokens, args.max_row_tokens, count
    )
    right, asked, average, text_average = 0, 0, 0.0, 0.0
    start = time.monotonic()
    step, progress = 0, 0.0
    while progress < 1.0:
        batch = next_batch().to(device)
        tokens, kinds = next_text(1.0)
        progress = (time.monotonic() - start) / (args.minutes * 60)
        for optimizer, base in zip(optimizers, lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * lr_scale(step, progress)
        with mixed_precision(device):
            logits = answer_logits(eyes, model, batch)
            targets = batch.tokens[:, 1:][batch.learned[:, 1:]]
            answers = F.cross_entropy(logits.float(), targets)
            text = text_loss(model, tokens.to(device), kinds.to(device))
        loss = answers + text
        good, total = exact_answers(logits, batch)
        right, asked = right + good, asked + total
        loss.backward()
        for trained in (eyes, model):
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        average = 0.95 * (average or answers.item()) + 0.05 * answers.item()
        text_average = 0.95 * (text_average or text.item()) + 0.05 * text.item()
        if step % 25 == 0:
            minutes = (time.monotonic() - start) / 60
            print(
                f"step {step} {minutes:.1f} min answers {average:.3f} "
                f"text {text_average:.3f} right {right}/{asked}",
                flush=True,
            )
            right = asked = 0
        if step % 250 == 0 or progress >= 1.0:
            save(eyes_file, eyes.state_dict())
            save(checkpoint, state | {"model": model.state_dict()})
    stop_pictures()
    stop_text()


if __name__ == "__main__":
    main()
