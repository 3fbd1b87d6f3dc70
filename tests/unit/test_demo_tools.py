"""The demo model's generator and its chat template agree."""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path

import jinja2
import pytest

TOOLS = Path(__file__).parents[2] / "tools" / "demo_model"
sys.path.insert(0, str(TOOLS))

from chatml import Dialogue, render, to_messages, to_openai_tools  # noqa: E402
from mixture import make_dialogue  # noqa: E402
from pools import Pools, is_held_out  # noqa: E402


def template() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((TOOLS / "template.jinja").read_text().rstrip("\n"))


@pytest.mark.parametrize("seed", range(60))
def test_the_template_renders_what_was_trained_on(seed: int) -> None:
    dialogue = make_dialogue(random.Random(seed), 0.4)
    text = template().render(
        messages=to_messages(dialogue.turns),
        tools=to_openai_tools(dialogue.tools) or None,
        enable_thinking=dialogue.thinking,
    )
    assert text == "".join(piece for piece, _ in render(dialogue))


def test_a_turn_is_a_prefix_of_the_next() -> None:
    """The template never rewrites history, so that nothing is prefilled twice."""
    dialogue: Dialogue = next(
        d
        for d in (make_dialogue(random.Random(seed), 0.4) for seed in range(1000))
        if d.skill == "document" and len(d.turns) > 5
    )
    messages = to_messages(dialogue.turns)
    asked = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    texts = [
        template().render(
            messages=messages[:i], add_generation_prompt=True, enable_thinking=dialogue.thinking
        )
        for i in asked
    ]
    assert len(texts) > 1
    for earlier, later in itertools.pairwise(texts):
        assert later.startswith(earlier)


def test_held_out_words_are_never_trained_on() -> None:
    train, held = Pools(random.Random(1)), Pools(random.Random(1), held_out=True)
    assert not any(is_held_out(train.word()) for _ in range(500))
    assert all(is_held_out(held.word()) for _ in range(500))
