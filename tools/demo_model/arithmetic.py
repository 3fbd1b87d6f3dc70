"""Small word problems, thought through step by step or answered at once."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chatml import Dialogue, Turn
from pools import ITEMS, Pools, is_held_out

SPEEDS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)


@dataclass(frozen=True)
class Problem:
    question: str
    steps: str
    answer: str
    result: str


def _sum_steps(a: int, b: int) -> str:
    """a + b by tens and ones: each step is in reach of a small model."""
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    return f"{a // 10 * 10} + {b // 10 * 10} = {tens}, {a % 10} + {b % 10} = {ones}, {tens} + {ones} = {a + b}."


def _product_steps(n: int, price: int) -> str:
    if price < 10 or price % 10 == 0:
        return f"{n} x {price} = {n * price}."
    tens, ones = n * (price // 10 * 10), n * (price % 10)
    return f"{n} x {price // 10 * 10} = {tens}, {n} x {price % 10} = {ones}, {tens} + {ones} = {n * price}."


def _speed(p: Pools) -> Problem:
    hours = p.rng.randint(2, 6)
    speed = p.rng.choice(SPEEDS)
    unit = p.pick(["km", "km", "miles"])
    who = p.pick(["a train", "a car", "a bus", "a cyclist", "a ship", f"{p.name()}"])
    verb = p.pick(["travels", "drives", "goes", "covers"])
    question = p.pick([
        f"If {who} {verb} {hours * speed} {unit} in {hours} hours, what is its average speed?",
        f"{who[0].upper() + who[1:]} {verb} {hours * speed} {unit} in {hours} hours. What is the average speed?",
        f"What is the average speed of {who} that {verb} {hours * speed} {unit} in {hours} hours?",
    ])
    result = f"{speed} {unit}/h"
    return Problem(question, f"Speed is distance / time. {hours * speed} / {hours} = {speed}.",
                   f"The average speed is {result}.", result)


def _sum(p: Pools) -> Problem:
    a, b = p.rng.randint(2, 99), p.rng.randint(2, 99)
    item = p.pick(ITEMS) + "s"
    who = p.name()
    question = p.pick([
        f"{who} has {a} {item} and buys {b} more. How many {item} does {who} have now?",
        f"What is {a} + {b}?", f"What is {a} plus {b}?", f"Add {a} and {b}.",
        f"There are {a} {item} in one box and {b} {item} in another. How many {item} are there in total?",
    ])
    word = f" {item}" if item in question else ""
    return Problem(question, f"{a} + {b}: {_sum_steps(a, b)}", f"The answer is {a + b}{word}.",
                   str(a + b))


def _price(p: Pools) -> Problem:
    n, price = p.rng.randint(2, 9), p.rng.randint(2, 20)
    item = p.pick(ITEMS)
    question = p.pick([
        f"A {item} costs {price} dollars. How much do {n} {item}s cost?",
        f"One {item} costs {price} dollars. What is the price of {n} {item}s?",
        f"{p.name()} buys {n} {item}s for {price} dollars each. How much is that?",
    ])
    return Problem(question, f"{n} x {price}: {_product_steps(n, price)}",
                   f"The total is {n * price} dollars.", f"{n * price} dollars")


def _difference(p: Pools) -> Problem:
    a = p.rng.randint(10, 99)
    b = p.rng.randint(1, a - 1)
    item, who = p.pick(ITEMS) + "s", p.name()
    question = p.pick([
        f"{who} has {a} {item} and gives away {b}. How many {item} are left?",
        f"What is {a} - {b}?", f"What is {a} minus {b}?",
        f"A shop has {a} {item} and sells {b}. How many {item} are left?",
    ])
    word = f" {item}" if item in question else ""
    tens, ones = b // 10 * 10, b % 10
    return Problem(question, f"{a} - {b}: {a} - {tens} = {a - tens}, {a - tens} - {ones} = {a - b}.",
                   f"The answer is {a - b}{word}.", str(a - b))


def _drill_term(rng: random.Random) -> tuple[str, int]:
    """One of the small steps that the problems above are solved by."""
    a, b = rng.randint(1, 9), rng.randint(0, 9)
    kind = rng.randrange(8)
    if kind == 0:
        return f"{a} + {b}", a + b
    if kind == 1:
        b = rng.randint(1, 9)
        return f"{a * 10} + {b * 10}", (a + b) * 10
    if kind == 2:
        tens = rng.randint(1, 18) * 10
        return f"{tens} + {a + b}", tens + a + b
    if kind == 3:
        a = rng.randint(2, 9)
        return f"{a} x {b}", a * b
    if kind == 4:
        a, tens = rng.randint(2, 9), rng.randint(1, 2) * 10
        return f"{a} x {tens}", a * tens
    if kind == 5:
        a = rng.randint(10, 99)
        tens = rng.randint(0, a // 10) * 10
        return f"{a} - {tens}", a - tens
    if kind == 6:
        a = rng.randint(9, 99)
        return f"{a} - {b}", a - b
    hours, speed = rng.randint(2, 6), rng.choice(SPEEDS)
    return f"{hours * speed} / {hours}", speed


def drill_dialogue(p: Pools) -> Dialogue:
    """Many small steps at once: the tables are learned faster than from problems."""
    terms = [_drill_term(p.rng) for _ in range(p.rng.randint(4, 24))]
    question = p.pick(["Work out: {}", "Compute {}", "Calculate: {}"]).format(", ".join(t for t, _ in terms))
    answer = ", ".join(f"{term} = {value}" for term, value in terms) + "."
    return Dialogue((Turn("user", question), Turn("assistant", answer)), skill="drill", expected=(answer,))


def _problem(p: Pools) -> Problem:
    """A problem that only the training draws, or only the evaluation."""
    while True:
        problem = p.rng.choice((_speed, _sum, _price, _difference))(p)
        if is_held_out(problem.question) == p.held_out:
            return problem


def arithmetic_dialogue(p: Pools, thinking: bool) -> Dialogue:
    """One problem; with `thinking` its steps stand in the think block."""
    problem = _problem(p)
    question = p.pick(["{}", "{}", "{}", "Solve this step by step: {}", "Solve this: {}",
                       "Think and answer: {}"]).format(problem.question)
    turns = (Turn("user", question),
             Turn("assistant", problem.answer, reasoning=problem.steps if thinking else ""))
    if p.rng.random() < 0.2:
        turns = (Turn("system", "You are a helpful assistant."), *turns)
    return Dialogue(turns, thinking=thinking, skill="thinking" if thinking else "arithmetic",
                    expected=(problem.result,))
