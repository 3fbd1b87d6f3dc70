"""Which dialogues are trained on when: copying first, then longer and richer ones."""

from __future__ import annotations

import random

from arithmetic import arithmetic_dialogue, drill_dialogue
from chatml import Dialogue
from documents import copy_dialogue, document_dialogue, lookup_dialogue
from knowledge import knowledge_dialogue
from pools import Pools
from tool_use import tool_dialogue

# (skill, weight at the start, weight at the end) in dialogues. A word problem is a tenth
# as long as a document with its questions, so it takes many to be a tenth of the tokens.
WEIGHTS = (
    ("copy", 0.30, 0.02),
    ("lookup", 0.30, 0.02),
    ("document", 0.26, 0.22),
    ("tool", 0.04, 0.22),
    ("arithmetic", 0.02, 0.02),
    ("thinking", 0.03, 0.24),
    ("drill", 0.03, 0.18),
    ("knowledge", 0.02, 0.08),
)


def max_facts(progress: float) -> int:
    """The most facts a document holds at this point of the training."""
    if progress < 0.06:
        return 4
    if progress < 0.15:
        return 8
    if progress < 0.3:
        return 16
    if progress < 0.5:
        return 32
    return 110


def make_dialogue(rng: random.Random, progress: float, held_out: bool = False) -> Dialogue:
    """One dialogue of the mixture at `progress` (0 to 1) of the training."""
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
    if skill == "tool":
        return tool_dialogue(p, thinking)
    if skill == "arithmetic":
        return arithmetic_dialogue(p, thinking=False)
    if skill == "drill":
        return drill_dialogue(p)
    if skill == "thinking":
        return arithmetic_dialogue(p, thinking=True)
    return knowledge_dialogue(p, thinking)
