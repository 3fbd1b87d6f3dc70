"""Guessing ahead (prompt lookup) on an answer that quotes its prompt, beside plain decoding.

A grammar makes the model quote, so that random weights do too; it costs both alike.
"""

from __future__ import annotations

import argparse
import json
import random

import snapllm
from benchmarks.report import Row, interleaved, ratio_row, row

DRAFT_TOKENS = 8


def run(options: argparse.Namespace) -> list[Row]:
    """Decoding time of the same answer with and without, in turn."""
    rng = random.Random(3)
    words = [f"{rng.choice(('red', 'blue', 'old', 'new'))}{rng.randrange(100)}" for _ in range(60)]
    text = " ".join(words)
    prompt = f"{text}\nOnce more: "
    quote = text[: 4 * options.tokens]
    settings = {"num_threads": options.threads or options.cores, "context_size": 2048}
    answers: dict[str, str] = {}
    with snapllm.Engine() as engine:
        models = {
            "plain": engine.load(options.model, "plain", **settings),
            "guessing": engine.load(
                options.model, "guessing", draft_tokens=DRAFT_TOKENS, **settings
            ),
        }

        def decode_ms(name: str) -> float:
            answer = models[name].generate(
                prompt,
                temperature=0,
                max_tokens=2 * options.tokens,
                grammar=f"root ::= {json.dumps(quote)}",
            )
            answers[name] = answer.text
            return answer.timings.decode_ms

        interleaved(1, {name: lambda name=name: decode_ms(name) for name in models})
        cases = {name: lambda name=name: decode_ms(name) for name in models}
        values = interleaved(options.rounds, cases)
        stats = next(s for s in engine.stats().models if s.id == "guessing")
    share = stats.num_accepted_draft_tokens / max(stats.num_draft_tokens, 1)
    rows = [row(f"decoding a quote, {name}", found, "ms") for name, found in values.items()]
    rows.append(ratio_row("plain over guessing", values["plain"], values["guessing"], "more"))
    rows.append(row("guesses that were right", [100 * share], "%"))
    rows.append(row("same answer", [float(answers["plain"] == answers["guessing"])], "1 = yes"))
    return rows
