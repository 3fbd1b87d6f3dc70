"""Tools as coding agents offer them: known names, long descriptions, many beside each other."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import prose
from pools import NOUNS, Pools

# What a tool does, the names that agents have for it, and for each of those its parameters.
# The first of each are Claude Code's.
KINDS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "read": (("Read", ("file_path",)), ("read_file", ("path",)), ("view", ("path",)),
             ("open_file", ("filename",)), ("cat_file", ("file",)), ("ReadFile", ("target_file",))),
    "shell": (("Bash", ("command",)), ("execute_command", ("command",)), ("shell", ("command",)),
              ("run_terminal_cmd", ("command",)), ("run", ("cmd",)), ("Terminal", ("input",))),
    "write": (("Write", ("file_path", "content")), ("write_file", ("path", "content")),
              ("create_file", ("path", "file_text")), ("save", ("filename", "text"))),
    "edit": (("Edit", ("file_path", "old_string", "new_string")),
             ("replace_in_file", ("path", "old", "new")),
             ("str_replace", ("path", "old_str", "new_str"))),
    "glob": (("Glob", ("pattern",)), ("find_files", ("pattern",)), ("file_search", ("glob",))),
    "grep": (("Grep", ("pattern",)), ("search_files", ("regex",)), ("grep_search", ("query",))),
    "web": (("WebSearch", ("query",)), ("web_search", ("query",)), ("search", ("q",))),
}
DESCRIPTIONS = {
    "read": ("Reads a file from the local filesystem.", "Read the contents of a file.",
             "Read a file", "Shows a file's text."),
    "shell": ("Executes a bash command and returns its output.", "Run a shell command.",
              "Runs a command in the terminal", "Execute a command on the system."),
    "write": ("Writes a file to the local filesystem, overwriting if one exists.",
              "Write text to a file.", "Creates a file with the given content"),
    "edit": ("Performs exact string replacement in a file.", "Replace text in a file.",
             "Edits a file by replacing a string"),
    "glob": ("Finds files by a glob pattern.", "Find files whose names match a pattern."),
    "grep": ("Searches the contents of files.", "Search for a pattern in files."),
    "web": ("Search the web.", "Searches the web and returns results."),
}
_EXTRAS = """offset limit pages timeout description run_in_background replace_all path head_limit
output_mode glob type multiline encoding max_results recursive format mode depth reason""".split()
_WORDS = """Task Agent Notebook Cron Worktree Skill Message Workflow Plan Report List Memory Review Session
Branch Deploy Event Issue Metric Log Todo User Team Page Sheet Graph Job Queue Trigger Schedule""".split()
_VERBS = "Create Update Get List Stop Delete Send Start Enter Exit Edit Watch Sync Open Close".split()


@dataclass(frozen=True)
class AgentTool:
    """A tool of a known kind, and its names for the parameters that matter."""

    kind: str
    name: str
    parameters: tuple[str, ...]

    def arguments(self, *values: str) -> dict[str, Any]:
        return dict(zip(self.parameters, values, strict=True))


def pick_tools(p: Pools, kinds: list[str]) -> dict[str, AgentTool]:
    """A tool for each kind, as one agent would name them: mostly all from Claude Code."""
    style = p.rng.random()
    tools: dict[str, AgentTool] = {}
    for kind in kinds:
        names = KINDS[kind]
        name, parameters = names[0] if style < 0.6 else p.rng.choice(names)
        if style > 0.9:  # only the description tells what it does
            name = p.pick([p.word(), f"{p.word()}_{p.word()}", p.word().capitalize()])
            parameters = tuple(dict.fromkeys(p.word() for _ in parameters)) \
                if p.rng.random() < 0.3 else parameters
            if len(parameters) != len(names[0][1]):
                parameters = names[0][1]
        tools[kind] = AgentTool(kind, name, parameters)
    return tools


def _schema_of(rng: random.Random, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if rng.random() < 0.6:
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema |= {"type": "object", "properties": properties, "required": required}
    if rng.random() < 0.6:
        schema["additionalProperties"] = False
    return schema


def _property(rng: random.Random, text: str, kind: str = "string") -> dict[str, Any]:
    if rng.random() < 0.5:
        return {"type": kind, "description": text}
    return {"description": text, "type": kind}


def _extras(rng: random.Random, count: int, num_chars: int) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name in rng.sample(_EXTRAS, count):
        kind = rng.choice(("string", "string", "number", "integer", "boolean", "array", "object"))
        text = prose.sentence(rng) if num_chars < 600 or rng.random() < 0.7 else prose.block(rng, num_chars // 4)
        schema = _property(rng, text, kind)
        if kind == "array":
            schema["items"] = {"type": rng.choice(("string", "number"))}
        elif kind == "object":
            schema["properties"] = {w.lower(): {"type": "string"} for w in rng.sample(_WORDS, 3)}
        elif kind == "integer" and rng.random() < 0.5:
            schema |= {"minimum": 0, "maximum": 9007199254740991}
        elif kind == "string" and rng.random() < 0.2:
            schema["enum"] = [w.lower() for w in rng.sample(_WORDS, 3)]
        properties[name] = schema
    return properties


def define(p: Pools, tool: AgentTool, num_chars: int) -> dict[str, Any]:
    """The tool's definition, with about `num_chars` characters of other description."""
    rng = p.rng
    description = p.pick(list(DESCRIPTIONS[tool.kind]))
    if num_chars > 60:
        description += p.pick(["\n\n", " ", "\n"]) + prose.block(rng, num_chars)
    properties: dict[str, Any] = {}
    for name in tool.parameters:
        text = p.pick([f"The {name.replace('_', ' ')}", prose.sentence(rng),
                       f"The {name.replace('_', ' ')} of the {tool.kind}"])
        properties[name] = _property(rng, text) if rng.random() < 0.9 else {"type": "string"}
    if num_chars > 0:
        properties |= {k: v for k, v in _extras(rng, rng.randint(0, 4), num_chars).items() if k not in properties}
    return {"name": tool.name, "description": description,
            "parameters": _schema_of(rng, properties, list(tool.parameters))}


def define_other(p: Pools, num_chars: int) -> dict[str, Any]:
    """A tool that nobody asks for."""
    rng = p.rng
    name = rng.choice(_VERBS) + rng.choice(_WORDS) if rng.random() < 0.4 else \
        rng.choice(_WORDS) + rng.choice(_VERBS) if rng.random() < 0.5 else \
        f"{p.word()}_{p.pick(NOUNS)}"
    properties = _extras(rng, rng.randint(0, 6), num_chars)
    required = [key for key in properties if rng.random() < 0.4]
    return {"name": name, "description": prose.block(rng, max(num_chars, 40)),
            "parameters": _schema_of(rng, properties, required)}
