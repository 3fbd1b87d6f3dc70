"""Which dialogues are trained on when: copying first, then longer and richer ones."""

from __future__ import annotations

import random

from agent import agent_dialogue, title_dialogue
from arithmetic import arithmetic_dialogue, drill_dialogue
from chatml import Dialogue
from documents import copy_dialogue, document_dialogue, lookup_dialogue
from knowledge import knowledge_dialogue
from pools import Pools
from tool_use import tool_dialogue

# (skill, weight at the start, weight at the end) in dialogues. A word problem is a tenth
# as long as a document with its questions, so it takes many to be a tenth of the tokens;
# an agent's conversation and a long document are 20 times as long, so it takes few.
WEIGHTS = (
    ("copy", 0.30, 0.05),
    ("lookup", 0.30, 0.05),
    ("document", 0.26, 0.34),
    ("long", 0.00, 0.010),
    ("agent", 0.04, 0.05),
    ("title", 0.00, 0.01),
    ("tool", 0.04, 0.30),
    ("arithmetic", 0.02, 0.02),
    ("thinking", 0.03, 0.20),
    ("drill", 0.03, 0.12),
    ("knowledge", 0.02, 0.08),
)
MAX_ROW_TOKENS = 36_864
MAX_FACTS = 1600
MAX_AGENT_CHARS = 120_000


def max_facts(progress: float) -> int:
    """The most facts a document holds at this point of the training."""
    if progress < 0.06:
        return 4
    if progress < 0.12:
        return 8
    if progress < 0.2:
        return 16
    if progress < 0.3:
        return 32
    return 110


def growing(progress: float, least: int, most: int) -> int:
    """The bound of a length that grows by the same factor in equal times, until the middle."""
    return int(least * (most / least) ** min(1.0, max(0.0, progress - 0.1) / 0.4))


def log_uniform(rng: random.Random, low: float, high: float) -> int:
    return int(low * (high / low) ** rng.random())


def make_dialogue(rng: random.Random, progress: float, held_out: bool = False,
                  max_tokens: int = MAX_ROW_TOKENS) -> Dialogue:
    """One dialogue of the mixture at `progress` (0 to 1) of the training, about `max_tokens` long at most."""
    p = Pools(rng, held_out)
    blend = min(1.0, progress / 0.3)
    skills = [name for name, _, _ in WEIGHTS]
    weights = [start + (end - start) * blend for _, start, end in WEIGHTS]
    skill = rng.choices(skills, weights)[0]
    thinking = rng.random() < 0.15
    facts = max_facts(progress)
    if skill == "copy":
        return copy_dialogue(p, rng.randint(2, 10))
    if skill == "lookup":
        count = rng.randint(2, min(facts * 2, 40))
        return lookup_dialogue(p, count, rng.randint(2, 8))
    if skill == "document":
        # Many short documents and a few long ones.
        count = min(facts, max(1, int(facts ** rng.random() * 1.2)))
        return document_dialogue(p, count, rng.randint(2, 7), thinking)
    if skill == "long":
        most = min(growing(progress, facts, MAX_FACTS), max(facts, max_tokens // 20))
        count = log_uniform(rng, facts, most + 1)
        return document_dialogue(p, count, rng.randint(4, 12), thinking)
    if skill == "agent":
        # Agents think when they may.
        most = min(growing(progress, 1500, MAX_AGENT_CHARS), max_tokens * 3)
        return agent_dialogue(p, log_uniform(rng, 150, most), rng.random() < 0.5)
    if skill == "title":
        return title_dialogue(p)
    if skill == "tool":
        return tool_dialogue(p, thinking)
    if skill == "arithmetic":
        return arithmetic_dialogue(p, thinking=False)
    if skill == "drill":
        return drill_dialogue(p)
    if skill == "thinking":
        return arithmetic_dialogue(p, thinking=True)
    return knowledge_dialogue(p, thinking)
