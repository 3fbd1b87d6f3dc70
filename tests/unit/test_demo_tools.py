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

from arithmetic import arithmetic_dialogue  # noqa: E402
from chatml import Dialogue, render, to_messages, to_openai_tools  # noqa: E402
from demo_eyes import scenes  # noqa: E402
from evaluate import all_cases, holds  # noqa: E402
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


@pytest.mark.parametrize("draw", ["word", "code", "phone", "price", "date"])
def test_what_is_held_out_is_never_trained_on(draw: str) -> None:
    train, held = Pools(random.Random(1)), Pools(random.Random(1), held_out=True)
    assert not any(is_held_out(getattr(train, draw)()) for _ in range(200))
    assert all(is_held_out(getattr(held, draw)()) for _ in range(200))


def test_a_word_problem_is_either_trained_on_or_asked() -> None:
    train, held = (
        {
            turn.content.partition(": ")[2] or turn.content
            for _ in range(500)
            for turn in arithmetic_dialogue(pools, thinking=True).turns
            if turn.role == "user"
        }
        for pools in (Pools(random.Random(1)), Pools(random.Random(2), held_out=True))
    )
    assert len(train) > 400 and len(held) > 300
    assert not train & held


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("12", True),
        ("The answer is 12.", True),
        ("12, I think", True),
        ("12: that is all", True),
        ("112", False),
        ("120", False),
        ("It is 12.5.", False),
        ("It is 3.12.", False),
        ("It costs $12.", False),
        ("-12", False),
        ("B-12", False),
        ("12%", False),
        ("at 12:30", False),
        ("1,200", False),
        ("3,12", False),
    ],
)
def test_an_answer_must_hold_the_span_as_a_whole(answer: str, is_right: bool) -> None:
    assert holds(answer, "12") is is_right


def test_every_wanted_answer_would_be_marked_right() -> None:
    cases = [case for case in all_cases(4) if not case.wanted.calls]
    assert len(cases) > 100
    assert [c for c in cases if not holds(c.wanted.content, c.span)] == []


def test_both_of_two_pictures_are_judged() -> None:
    rng = random.Random(1)
    question = scenes.ask_both(rng, scenes.make_scene(rng, 1), scenes.make_scene(rng, 1))
    first, second = question.answer.split(". ")
    assert question.is_right(question.answer)
    assert not question.is_right(f"The first image shows a plain white background. {second}")
    assert not question.is_right(f"{first}. The second image shows a plain white background.")


def test_a_shape_that_is_not_there_makes_an_answer_wrong() -> None:
    thing = scenes.Thing("circle", "red", 3, 0.26, 0.5, 0.18)
    question = scenes.what_question(random.Random(1), scenes.Scene("white", (thing,)))
    assert question.is_right("A red circle on the left.")
    assert not question.is_right("A red circle on the left and a blue star on the right.")
    assert not question.is_right("A blue star at the top and a red circle on the left.")
