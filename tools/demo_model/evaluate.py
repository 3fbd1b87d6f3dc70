"""Measures the shipped file through the shipped engine.

`python evaluate.py [--model demo.gguf] [--num 300]` prints a Markdown table. What a pool
draws at random (pools.py) and word problems (arithmetic.py) are ones that training never
draws; listed names, plain numbers and the fixed questions of knowledge.py are the same in
both. Every answer is asked for with the right answers to the earlier questions as its
history.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from agent import agent_dialogue
from arithmetic import arithmetic_dialogue
from chatml import Dialogue, Turn, to_messages, to_openai_tools
from documents import document_dialogue
from knowledge import ENTRIES, knowledge_pair
from pools import Pools
from tool_use import tool_dialogue

import snapllm

MAX_ANSWER_TOKENS = 400
SEED = 20_000_003


@dataclass(frozen=True)
class Case:
    """One answer to be judged: the conversation before it, and what it must be."""

    row: str
    dialogue: Dialogue
    turn: int
    span: str

    @property
    def wanted(self) -> Turn:
        return self.dialogue.turns[self.turn]


def cases_of(row: str, dialogue: Dialogue) -> Iterator[Case]:
    """Every answer of a dialogue."""
    spans = iter(dialogue.expected)
    for number, turn in enumerate(dialogue.turns):
        if turn.role == "assistant":
            yield Case(row, dialogue, number, next(spans))


def holds(text: str, span: str) -> bool:
    """Whether the text has the span, and not as part of a longer word, number or code."""
    before = r"(?<![\w@$-])(?<!\w[.,:/@])"
    after = r"(?![\w@%-]|[.,:/]\w)"
    return re.search(before + re.escape(span) + after, text) is not None


def is_right(case: Case, result: snapllm.ChatResult) -> bool:
    """Calls must be exactly right; other answers must hold the right span."""
    wanted = case.wanted
    try:
        calls = [(call.name, json.loads(call.arguments)) for call in result.tool_calls]
    except json.JSONDecodeError:
        return False  # the answer was cut off within its arguments
    if calls != [(call.name, call.arguments) for call in wanted.calls]:
        return False
    if wanted.calls:
        return True
    if case.row.startswith(("Knowledge", "Tool result", "No tool")):
        return result.content.strip() == wanted.content
    return holds(result.content, case.span)


def ask(model: snapllm.Model, case: Case) -> tuple[bool, int, str]:
    """Whether the model's answer is right, the prompt's length and the answer."""
    dialogue = case.dialogue
    result = model.chat(
        to_messages(dialogue.turns[: case.turn]),
        tools=to_openai_tools(dialogue.tools),
        thinking=dialogue.thinking,
        temperature=0.0,
        max_tokens=MAX_ANSWER_TOKENS,
    )
    answer = f"{result.reasoning!r} {result.content!r} {result.tool_calls!r}"
    return is_right(case, result), result.usage.num_prompt_tokens, answer


def _document_cases(pools: Pools, num: int, num_facts: int) -> Iterator[Case]:
    """Questions on documents of about `num_facts` facts (some 15 tokens each)."""
    row = f"Questions on a document of {num_facts} facts"
    count = 0
    while count < num:
        for case in cases_of(row, document_dialogue(pools, num_facts, 4)):
            count += 1
            yield case


def _tool_cases(pools: Pools, num: int) -> Iterator[Case]:
    """Requests with 1 to 4 offered tools."""
    for _ in range(num):
        dialogue = tool_dialogue(pools, thinking=pools.rng.random() < 0.2)
        for case in cases_of("", dialogue):
            if len(case.wanted.calls) > 1:
                row = "Tool calls, two asked for"
            elif case.wanted.calls:
                row = "Tool calls, one asked for"
            elif dialogue.turns[case.turn - 1].role == "tool":
                row = "Tool result used (answer exactly right)"
            else:
                row = "No tool needed, none called"
            yield Case(row, dialogue, case.turn, case.span)


def _agent_cases(pools: Pools, num: int, num_chars: int) -> Iterator[Case]:
    """A coding agent's requests after about `num_chars` characters of tools and instructions."""
    count = 0
    while count < num:
        dialogue = agent_dialogue(pools, num_chars, thinking=True)
        for case in cases_of("", dialogue):
            what = "calls" if case.wanted.calls else "answers"
            yield Case(f"Agent's {what}, {num_chars:,} characters before", dialogue, case.turn, case.span)
            count += 1


def _arithmetic_cases(pools: Pools, num: int) -> Iterator[Case]:
    for thinking in (True, False):
        row = f"Word problems, {'thought through' if thinking else 'answered at once'}"
        for _ in range(num):
            yield from cases_of(row, arithmetic_dialogue(pools, thinking))


def _knowledge_cases(pools: Pools, num: int) -> Iterator[Case]:
    pairs = [(question, answer) for forms, answer in ENTRIES for question in forms.split("|")]
    pairs += [knowledge_pair(pools) for _ in range(num)]
    for question, answer in pairs:
        turns = (Turn("user", question), Turn("assistant", answer))
        dialogue = Dialogue(turns, skill="knowledge", expected=(answer,))
        yield from cases_of("Knowledge (fixed questions, counting, repeating)", dialogue)


def all_cases(num: int) -> list[Case]:
    """The evaluation set: the same for the same `num` and the same Python, whose own documentation
    is around the agent's requests (prose.py)."""
    pools = Pools(random.Random(SEED), held_out=True)
    makers: list[Callable[[], Iterator[Case]]] = [
        *(lambda n=n: _document_cases(pools, num, n) for n in (4, 16, 64, 128)),
        lambda: _document_cases(pools, max(num // 6, 4), 400),
        lambda: _tool_cases(pools, num),
        *(lambda n=n, size=size: _agent_cases(pools, max(num // n, 4), size)
          for n, size in ((1, 3000), (3, 20_000), (10, 90_000))),
        lambda: _arithmetic_cases(pools, num),
        lambda: _knowledge_cases(pools, num // 2),
    ]
    return [case for make in makers for case in make()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: the demo model in the package")
    parser.add_argument("--num", type=int, default=300, help="cases per row, about")
    parser.add_argument("--show-wrong", type=int, default=0, metavar="N", help="wrong answers")
    args = parser.parse_args()
    cases = all_cases(args.num)
    with snapllm.Engine() as engine, ThreadPoolExecutor(8) as threads:
        model = engine.load(args.model) if args.model else engine.load_demo()
        results = list(threads.map(lambda case: ask(model, case), cases))
    print("| Skill | Right | Of | % | Prompt tokens (mean) |\n|---|---|---|---|---|")
    wrong: dict[str, list[str]] = {}
    for row in dict.fromkeys(case.row for case in cases):
        marks = [result for case, result in zip(cases, results, strict=True) if case.row == row]
        right = sum(mark[0] for mark in marks)
        mean = sum(mark[1] for mark in marks) / len(marks)
        print(f"| {row} | {right} | {len(marks)} | {100 * right / len(marks):.1f} | {mean:.0f} |")
    for case, (good, _, answer) in zip(cases, results, strict=True):
        shown = wrong.setdefault(case.row, [])
        if not good and len(shown) < args.show_wrong:
            shown.append(answer)
            turn = case.dialogue.turns[case.turn - 1]
            print(f"\n{case.row}\n  asked:  {turn.content[-200:]!r}\n  wanted: {case.wanted!r}")
            print(f"  got:    {answer}")


if __name__ == "__main__":
    main()
