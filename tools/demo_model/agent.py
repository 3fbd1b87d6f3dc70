"""Conversations as a coding agent sends them: long instructions, many tools, then a request."""

from __future__ import annotations

import prose
from agent_tasks import make_task, path
from agent_tools import KINDS, define, define_other, pick_tools
from chatml import Dialogue, Turn
from pools import Pools

_IDENTITIES = ("You are an agent.", "You are Claude Code.", "You are a coding assistant.",
               "You are an interactive agent that helps users with software engineering tasks.",
               "You are a helpful assistant.", "You are an AI assistant that can use tools.")


def _environment(p: Pools) -> str:
    folder = "/".join(["", *(p.word() for _ in range(p.rng.randint(1, 4)))])
    return (f"# Environment\n - Primary working directory: {folder}\n - Is a git repository: "
            f"{p.pick(['true', 'false'])}\n - Platform: linux\n - Today's date is {p.date()}")


def _decoy(p: Pools) -> str:
    """Something that reads like a request, in a place where it is none."""
    return p.pick([f'For example, when the user says "Read the file {path(p)}", call the tool.',
                   f"- Read {path(p)}", f"user: run {p.word()}", f"Example: Create {path(p)} with {p.word()}",
                   f"Never run rm {path(p)}.", f"- {p.word()}: {prose.sentence(p.rng)}"])


def _text(p: Pools, num_chars: int) -> str:
    if num_chars < 40:
        return ""
    text = prose.block(p.rng, num_chars)
    parts = text.split("\n\n")
    for _ in range(min(6, num_chars // 1500)):
        parts.insert(p.rng.randint(0, len(parts)), _decoy(p))
    return "\n\n".join(parts)


def _system(p: Pools, num_chars: int) -> str:
    text = f"{p.pick(list(_IDENTITIES))}\n{_text(p, num_chars)}"
    return f"{text}\n\n{_environment(p)}" if p.rng.random() < 0.6 else text


def _user(p: Pools, ask: str, num_chars: int) -> str:
    """The request, sometimes after what agents put before it."""
    if p.rng.random() < 0.1:
        ask = f"{p.pick(['Please', 'Hi!', 'OK.', 'Now', 'Thanks.'])} {ask}"
    if p.rng.random() < 0.4 and not ask.endswith((".", "?", "!", "'", '"', "`")):
        ask += "."
    if num_chars < 60:
        return ask
    reminder = f"<system-reminder>\n{_text(p, num_chars)}\n</system-reminder>\n"
    return reminder + p.pick(["", "\n", "\n\n"]) + ask


def agent_dialogue(p: Pools, num_chars: int, thinking: bool) -> Dialogue:
    """One to five requests after about `num_chars` characters of instructions and tools."""
    rng = p.rng
    kinds = list(KINDS)
    if rng.random() < 0.4:
        kinds = rng.sample(kinds, rng.randint(1, len(kinds)))
        if "edit" in kinds and "read" not in kinds:
            kinds.remove("edit")
    elif rng.random() < 0.5:
        kinds = [kind for kind in kinds if kind not in ("glob", "grep")]
    tools = pick_tools(p, kinds)
    # Where the characters go: tools, the system prompt, a reminder, a later system message.
    shares = [rng.random() ** 2 * weight for weight in (3.0, 1.0, 0.3, 0.7)]
    in_tools, in_system, in_reminder, in_later = (int(num_chars * s / sum(shares)) for s in shares)
    if rng.random() < 0.3:  # much stands between the request and its answer
        in_later = rng.randint(1000, 9000)
    num_others = min(30, in_tools // 900) if rng.random() < 0.8 else 0
    each = in_tools // max(1, len(tools) + num_others)
    definitions = [define(p, tool, int(each * rng.uniform(0.1, 1.2)) if each > 150 else 0)
                   for tool in tools.values()]
    definitions += [define_other(p, int(each * rng.uniform(0.1, 1.2))) for _ in range(num_others)]
    unique = {definition["name"]: definition for definition in reversed(definitions)}
    definitions = list(unique.values())
    if rng.random() < 0.5:
        definitions.sort(key=lambda definition: definition["name"])
    else:
        rng.shuffle(definitions)
    turns = [Turn("system", _system(p, in_system))] if rng.random() < 0.85 else []
    expected: list[str] = []
    for number in range(rng.choice((1, 1, 2, 3, 4, 5))):
        task = make_task(p, tools)
        turns.append(Turn("user", _user(p, task.ask, in_reminder if number == 0 else 0)))
        if number == 0 and in_later > 200:
            turns.append(Turn("system", _text(p, in_later)))
        answers = task.turns(p, thinking)
        expected += ["\n".join(call.text() for call in turn.calls) or turn.content
                     for turn in answers if turn.role == "assistant"]
        turns += answers
    return Dialogue(tuple(turns), tuple(definitions), thinking, "agent", tuple(expected))


def title_dialogue(p: Pools) -> Dialogue:
    """The title of a session, as agents ask for one in JSON."""
    task = make_task(p, pick_tools(p, list(KINDS)))
    words = task.ask.replace('"', "").replace("\\", "").split()
    title = " ".join(words[:6]).rstrip(".?!,:")
    system = (f"{prose.block(p.rng, p.rng.randint(0, 1500))}\n\nGenerate a concise title for this session. "
              'Return JSON with a single "title" field.')
    asked = p.pick(["<session>\n{}\n</session>", "{}", "<session>{}</session>"]).format(task.ask)
    asked += p.pick(["", "\n\nWrite the title in the language the user wrote in.", "\n\nWrite a short title."])
    answer = f'{{"title": "{title}"}}' if p.rng.random() < 0.5 else f'{{"title":"{title}"}}'
    return Dialogue((Turn("system", system), Turn("user", asked), Turn("assistant", answer)),
                    skill="title", expected=(answer,))
