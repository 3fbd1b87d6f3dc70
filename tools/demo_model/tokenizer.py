"""The demo model's vocabulary: byte-level BPE with Qwen2's pre-tokenizer.

That pre-tokenizer (llama.cpp's `qwen2`) takes digits one by one, so that numbers
are copied and added digit by digit.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import prose
from agent import agent_dialogue
from chatml import MARKUP_TOKENS, SPECIAL_TOKENS, render
from mixture import make_dialogue
from pools import Pools
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 4096
NUM_AGENTS = 250
NUM_PARAGRAPHS = 12000  # of English beside the dialogues
_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _with_pre_tokenizer(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_tokens(tokenizer: Tokenizer) -> None:
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in MARKUP_TOKENS])


def make_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """The tokenizer with a known vocabulary (without the added tokens)."""
    tokenizer = _with_pre_tokenizer(models.BPE(vocab=vocab, merges=merges))
    _add_tokens(tokenizer)
    return tokenizer


def train_tokenizer(path: Path, seed: int = 1, num_dialogues: int = 12000) -> Tokenizer:
    """Trains on generated dialogues and writes `path` (JSON)."""
    tokenizer = _with_pre_tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS) - len(MARKUP_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(seed)
    texts = []
    for _ in range(num_dialogues):
        texts.append("".join(piece for piece, _ in render(make_dialogue(rng, 0.45))))
    pools = Pools(rng)
    for _ in range(NUM_AGENTS):
        dialogue = agent_dialogue(pools, 30_000, thinking=False)
        texts += [piece for piece, _ in render(dialogue)]
    texts += prose.paragraphs()[:NUM_PARAGRAPHS]
    markup = re.compile("|".join(map(re.escape, SPECIAL_TOKENS + MARKUP_TOKENS)))
    texts = [markup.sub("\n", text) for text in texts]
    tokenizer.train_from_iterator(texts, trainer)
    _add_tokens(tokenizer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise RuntimeError(f"vocabulary has {tokenizer.get_vocab_size()} tokens")
    tokenizer.save(str(path))
    return tokenizer
