"""Trains the demo model: `python train.py --out DIR --minutes N`.

Resumes from DIR/checkpoint.pt (restore.py makes one of a GGUF). The schedule follows the minutes trained so far, so
that a run on a faster machine sees more data and ends at the same time. No two runs are the same for that reason,
whatever their seed.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import producers
import torch
import torch.nn.functional as F
from batches import start_producers, tokenize
from mixture import MAX_ROW_TOKENS, make_dialogue
from model import Config, DemoModel
from optimizer import lr_scale, make_optimizers, mixed_precision
from tokenizer import train_tokenizer
from tokenizers import Tokenizer
from torch import Tensor

MUON_LR = 0.02
ADAM_LR = 4e-3
PROMPT_SHARE = 0.08  # of the prompt tokens that are learned too
PROMPT_WEIGHT = 0.1


def loss_of(model: DemoModel, tokens: Tensor, kinds: Tensor) -> Tensor:
    """Cross-entropy of the answers, and of a few prompt tokens at a small weight."""
    targets, target_kinds = tokens[:, 1:].long(), kinds[:, 1:]
    sampled = (target_kinds == 1) & (torch.rand(target_kinds.shape, device=tokens.device) < PROMPT_SHARE)
    is_answer = target_kinds == 2
    chosen = is_answer | sampled
    with mixed_precision(tokens.device.type):
        hidden = model.hidden(tokens[:, :-1].long())[chosen]
        logits = model.logits(hidden)
    losses = F.cross_entropy(logits.float(), targets[chosen], reduction="none")
    of_answer = is_answer[chosen]
    answers, prompts = losses[of_answer], losses[~of_answer]
    return answers.mean() + PROMPT_WEIGHT * prompts.sum() / max(1, len(prompts))


@torch.no_grad()
def exact_answers(model: DemoModel, tokenizer: Tokenizer, seed: int, progress: float,
                  num_dialogues: int, device: str) -> dict[str, tuple[int, int]]:
    """Held-out answers that greedy decoding gets exactly right, and all, per skill."""
    counts: dict[str, tuple[int, int]] = {}
    rng = random.Random(seed)
    model.eval()
    for _ in range(num_dialogues):
        dialogue = make_dialogue(rng, progress, held_out=True)
        row = tokenize(tokenizer, dialogue)
        tokens = torch.tensor([row.tokens], device=device)
        with mixed_precision(device):
            best = model.logits(model.hidden(tokens[:, :-1])).argmax(-1)[0]
        right = (best == tokens[0, 1:]).tolist()
        skill = dialogue.skill + ("+think" if dialogue.thinking and dialogue.skill != "thinking" else "")
        good, total = counts.get(skill, (0, 0))
        answer_right = True
        for i, is_learned in enumerate(row.learned[1:]):
            if is_learned:
                answer_right &= right[i]
            if is_learned and (i + 2 == len(row.learned) or not row.learned[i + 2]):
                good, total, answer_right = good + answer_right, total + 1, True
        counts[skill] = (good, total)
    model.train()
    return counts


def save(path: Path, state: dict[str, Any]) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--max-row-tokens", type=int, default=MAX_ROW_TOKENS,
                        help="longer dialogues are left out: a CPU takes very long for them")
    parser.add_argument("--producers", type=int, default=producers.default_count(),
                        help="processes that make batches")
    parser.add_argument("--eval-minutes", type=float, default=5.0)
    parser.add_argument("--start-progress", type=float, default=0.0,
                        help="where in the schedule a run from restored weights begins (0 to 1)")
    parser.add_argument("--seed", type=int, default=7, help="of a run from the start; others keep theirs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)

    tokenizer_path = args.out / "tokenizer.json"
    if not tokenizer_path.exists():
        train_tokenizer(tokenizer_path)
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    model = DemoModel(Config()).to(device)
    optimizers = make_optimizers(model, MUON_LR, ADAM_LR)
    base_lrs = [MUON_LR, ADAM_LR]
    seed, step, trained_s, num_tokens = args.seed, 0, 0.0, 0
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state.get("optimizers", ()), strict="optimizers" in state):
            optimizer.load_state_dict(saved)
        step, trained_s, num_tokens = state["step"], state["trained_s"], state["num_tokens"]
        seed = state.get("seed", seed)
    print(f"{sum(p.numel() for p in model.parameters())} parameters on {device}", flush=True)

    next_batch, stop_producers = start_producers(
        str(tokenizer_path), seed + step, args.batch_tokens, args.max_row_tokens, args.producers)
    next_eval_s = trained_s + args.eval_minutes * 60
    average = torch.zeros(())
    while trained_s < args.minutes * 60:
        start = time.monotonic()
        progress = args.start_progress + (1 - args.start_progress) * trained_s / (args.minutes * 60)
        tokens, kinds = next_batch(progress)
        for optimizer, base in zip(optimizers, base_lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * lr_scale(step, progress)
        loss = loss_of(model, tokens.to(device, non_blocking=True), kinds.to(device, non_blocking=True))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        num_tokens += tokens.numel()
        trained_s += time.monotonic() - start
        average = loss.detach() if step == 1 else 0.97 * average + 0.03 * loss.detach()
        if step % 50 == 0:
            print(f"step {step} {trained_s / 60:.1f} min {num_tokens / 1e6:.2f}M tokens "
                  f"loss {average.item():.3f}", flush=True)
        if trained_s >= next_eval_s or trained_s >= args.minutes * 60:
            next_eval_s = trained_s + args.eval_minutes * 60
            counts = exact_answers(model, tokenizer, 1000 + step, max(progress, 0.3), 120, device)
            print("eval " + "  ".join(f"{k} {a}/{b}" for k, (a, b) in sorted(counts.items())), flush=True)
            save(checkpoint, {"model": model.state_dict(), "seed": seed, "step": step, "trained_s": trained_s,
                              "optimizers": [o.state_dict() for o in optimizers],
                              "num_tokens": num_tokens})
    stop_producers()


if __name__ == "__main__":
    main()
