"""What a coding agent says in a session: long instructions, many tools, files read one by one.

It is a record: each answer stands in the conversation as it should have been, whatever a server
made of it. So every server gets the same tokens, and each of its answers can be held beside the
record and beside another server's. The demo model was trained on conversations of this kind and
is sure of its answers; what random weights answer, a rounding can turn.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

_TOOLS = {
    "Read": ("Reads a file from the local filesystem.", ("file_path",)),
    "Write": ("Writes a file to the local filesystem.", ("file_path", "content")),
    "Edit": (
        "Performs exact string replacement in a file.",
        ("file_path", "old_string", "new_string"),
    ),
    "Bash": ("Executes a bash command and returns its output.", ("command",)),
    "Glob": ("Finds files by a glob pattern.", ("pattern",)),
    "Grep": ("Searches the contents of files.", ("pattern",)),
}
_VERBS = ("Create", "Update", "List", "Stop", "Delete", "Send", "Start", "Open", "Close", "Watch")
_THINGS = ("Task", "Issue", "Branch", "Report", "Session", "Message", "Event", "Job", "Page")
_COLORS = ("red", "blue", "green", "black", "white", "yellow", "gray", "brown")
_WHATS = ("code", "size", "status", "budget", "owner", "date", "level", "speed", "target")
_NOUNS = ("project", "server", "bridge", "robot", "garden", "account", "engine", "contract")
_RULES = (
    "Before a {a} is changed, read the {b} that it belongs to.",
    "A {a} without a {b} is reported and left as it is.",
    "Keep the answer about a {a} short, and name the {b} in it.",
    "When the {a} and the {b} say different things, the {a} is right.",
    "Never guess what the {a} of a {b} may be: look it up.",
    "The {a} is written in small letters, the {b} as it was found.",
)


@dataclass(frozen=True)
class Turn:
    """A request of the session: the conversation so far, and what the answer to it should be."""

    messages: tuple[Message, ...]
    answer: str
    """Its text, or the name and the arguments of the tool that it calls."""


@dataclass(frozen=True)
class Script:
    """A session."""

    tools: tuple[Message, ...]
    turns: tuple[Turn, ...]
    num_tokens: int
    """Of all of it, without what a template puts around."""


def make_script(
    num_turns: int, prompt_tokens: int, turn_tokens: int, count: Callable[[str], int]
) -> Script:
    """A session whose instructions and tools have about `prompt_tokens` tokens, half of them
    each, and each file about `turn_tokens`; `count` tells how many a text has.
    """
    rng = random.Random(2)
    tools = [_tool(name, text, keys) for name, (text, keys) in _TOOLS.items()]
    names = [verb + thing for verb in _VERBS for thing in _THINGS]
    rng.shuffle(names)
    parts = [json.dumps(tool["function"]) for tool in tools]
    found = sum(map(count, parts))
    for name in names:
        if found >= prompt_tokens // 2:
            break
        tools.append(_other_tool(rng, name))
        found += count(json.dumps(tools[-1]["function"]))
    lines = ["You are an interactive agent that helps users with software engineering tasks."]
    while found < prompt_tokens:
        lines.append("- " + _rule(rng))
        found += count(lines[-1])
    kinds = list(itertools.product(_COLORS, _WHATS, _NOUNS))
    rng.shuffle(kinds)
    facts = itertools.cycle(kinds)
    messages: list[Message] = [{"role": "system", "content": "\n".join(lines)}]
    turns: list[Turn] = []
    for number in range(-(-num_turns // 2)):
        for says, answer in _task(number, facts, turn_tokens, count):
            turns.append(Turn((*messages, says), _text(answer)))
            messages += says, answer
            found += count(json.dumps([says, answer]))
    return Script(tuple(tools), tuple(turns[:num_turns]), found)


def _text(answer: Message) -> str:
    calls = [call["function"] for call in answer.get("tool_calls", ())]
    return "".join([answer["content"], *(call["name"] + call["arguments"] for call in calls)])


def _rule(rng: random.Random) -> str:
    return rng.choice(_RULES).format(a=rng.choice(_WHATS), b=rng.choice(_NOUNS))


def _tool(name: str, description: str, keys: tuple[str, ...]) -> Message:
    schema = {
        "type": "object",
        "properties": {
            key: {"type": "string", "description": f"The {key.replace('_', ' ')}"} for key in keys
        },
        "required": list(keys),
    }
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


def _other_tool(rng: random.Random, name: str) -> Message:
    """One of those that an agent has and seldom needs."""
    keys = rng.sample(("timeout", "reason", "mode", "depth", "format", "limit", "kind"), 3)
    text = " ".join([f"For work with a {name}.", *(_rule(rng) for _ in range(rng.randint(2, 6)))])
    return _tool(name, text, tuple(keys))


def _task(
    number: int,
    facts: Iterator[tuple[str, str, str]],
    turn_tokens: int,
    count: Callable[[str], int],
) -> tuple[tuple[Message, Message], tuple[Message, Message]]:
    """A file is read, and a question answered from it: what is said, and the answer to that."""
    rng = random.Random(number)
    path = f"notes_{number}.txt"
    known: list[tuple[str, str]] = []
    lines: list[str] = []
    while not lines or count("\n".join(lines)) < turn_tokens:
        color, what, noun = next(facts)
        name = f"the {what} of the {color} {noun}"
        known.append((name, f"{rng.choice('ABCDEFGH')}{rng.randrange(1000, 10000)}"))
        lines.append(f"{len(lines) + 1}\tT{name[1:]} is {known[-1][1]}.")
    name, value = rng.choice(known)
    call = {"name": "Read", "arguments": json.dumps({"file_path": path})}
    call_id = f"call_{number}"
    asks = {"role": "user", "content": f"Read {path}. What is {name}?"}
    calls = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": call_id, "type": "function", "function": call}],
    }
    result = {"role": "tool", "tool_call_id": call_id, "content": "\n".join(lines)}
    answer = {"role": "assistant", "content": f"T{name[1:]} is {value}."}
    return (asks, calls), (result, answer)
