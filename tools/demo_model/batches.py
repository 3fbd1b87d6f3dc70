"""Token batches from generated dialogues, made in processes of their own."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import producers
import torch
from chatml import Dialogue, render
from mixture import make_dialogue
from tokenizers import Tokenizer
from torch import Tensor

LENGTH_STEP = 16
POOL_BATCHES = 12  # batches in a pool of rows that are sorted by length


@dataclass(frozen=True)
class Row:
    """A tokenised dialogue; `learned[i]` says that token i is an answer's."""

    tokens: list[int]
    learned: list[bool]


def tokenize(tokenizer: Tokenizer, dialogue: Dialogue) -> Row:
    tokens: list[int] = []
    learned: list[bool] = []
    for text, is_learned in render(dialogue):
        ids = tokenizer.encode(text).ids
        tokens += ids
        learned += [is_learned] * len(ids)
    return Row(tokens, learned)


def _to_batch(rows: list[Row]) -> tuple[Tensor, Tensor]:
    # One more than a multiple of LENGTH_STEP, for the last token is only learned: kernels like such lengths.
    length = -(-max(len(row.tokens) - 1 for row in rows) // LENGTH_STEP) * LENGTH_STEP + 1
    tokens = torch.zeros(len(rows), length, dtype=torch.int32)
    weights = torch.zeros(len(rows), length, dtype=torch.int8)  # 0 padding, 1 prompt, 2 answer
    for i, row in enumerate(rows):
        size = len(row.tokens)
        tokens[i, :size] = torch.tensor(row.tokens, dtype=torch.int32)
        weights[i, :size] = torch.tensor(row.learned, dtype=torch.int8) + 1
    return tokens, weights


def make_batches(tokenizer: Tokenizer, rng: random.Random, progress: float, batch_tokens: int,
                 max_row_tokens: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of rows of similar length from a pool of dialogues, in random order."""
    rows: list[Row] = []
    left = POOL_BATCHES * batch_tokens
    while left > 0:
        row = tokenize(tokenizer, make_dialogue(rng, progress, max_tokens=max_row_tokens))
        if len(row.tokens) <= max_row_tokens:
            rows.append(row)
            left -= len(row.tokens)
    rows.sort(key=lambda row: len(row.tokens))
    batches: list[tuple[Tensor, Tensor]] = []
    current: list[Row] = []
    for row in rows:
        if current and (len(current) + 1) * len(row.tokens) > batch_tokens:
            batches.append(_to_batch(current))
            current = []
        current.append(row)
    if current:
        batches.append(_to_batch(current))
    rng.shuffle(batches)
    return batches


def _produce(seed: int, path: str, batch_tokens: int, max_row_tokens: int, progress: Any, queue: Any) -> None:
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(path)
    rng = random.Random(seed)
    while True:
        for batch in make_batches(tokenizer, rng, progress.value, batch_tokens, max_row_tokens):
            queue.put((batch[0].numpy(), batch[1].numpy()))


def start_producers(path: str, seed: int, batch_tokens: int, max_row_tokens: int,
                    count: int) -> tuple[Callable[[float], tuple[Tensor, Tensor]], Callable[[], None]]:
    """Starts `count` processes; returns a function from the progress to the next batch, and one that ends them."""
    progress = producers.shared_number(0.0)
    take, stop = producers.start(_produce, seed, path, batch_tokens, max_row_tokens, progress, count=count, queue_size=40)

    def next_batch(current: float) -> tuple[Tensor, Tensor]:
        progress.value = current
        tokens, weights = take()
        return torch.from_numpy(tokens), torch.from_numpy(weights)

    return next_batch, stop
