"""What people ask a coding agent for: the calls it makes, their results, and the answer."""

from __future__ import annotations

from dataclasses import dataclass

import prose
from agent_tools import AgentTool
from chatml import Call, Turn
from documents import _document, _facts
from knowledge import knowledge_pair
from pools import NOUNS, Pools

FILE_NAMES = """notes.txt README.md hello.txt main.py data.txt secret.txt test.txt hello.py todo.md config.json
package.json info.txt message.txt word.txt report.md a.txt b.txt file.txt settings.yaml app.js index.html""".split()
EXTENSIONS = "txt txt md py json yaml js ts csv log toml html sh c h rs".split()
FOLDERS = "src docs tests lib data app bin home tmp var work project build config public".split()
PROGRAMS = "git npm make cargo pip docker node go pytest ruff curl systemctl".split()
MAX_QUOTED_LINES = 8


@dataclass(frozen=True)
class Step:
    """Calls made at once, and what each of them gives back."""

    calls: tuple[Call, ...]
    results: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A request, the steps that fulfil it, and the last answer."""

    ask: str
    steps: tuple[Step, ...]
    answer: str

    def turns(self, p: Pools, thinking: bool) -> list[Turn]:
        """The conversation after the user's message."""
        short = self.ask if len(self.ask) < 160 else self.ask[:100]
        turns: list[Turn] = []
        for number, step in enumerate(self.steps):
            names = " and ".join(call.name for call in step.calls)
            reasoning = f"The user asks: {short}\nI call {names}." if number == 0 else f"Now I call {names}."
            turns.append(Turn("assistant", calls=step.calls, reasoning=reasoning if thinking else ""))
            turns += [Turn("tool", result) for result in step.results]
        last = "I use the result." if self.steps else f"The user asks: {short}\nNo tool is needed."
        turns.append(Turn("assistant", self.answer, reasoning=last if thinking else ""))
        return turns


def path(p: Pools) -> str:
    """A file's name, sometimes with its folders."""
    rng = p.rng
    stem = rng.choice((p.word(), p.word(), p.pick(NOUNS), f"{p.pick(NOUNS)}_{p.number()}", f"{p.word()}-{p.word()}",
                       p.code(), p.word().capitalize(), prose.words(rng, 1), prose.words(rng, 2).replace(" ", "_").lower()))
    name = p.pick(FILE_NAMES) if rng.random() < 0.4 else f"{stem}.{p.pick(EXTENSIONS)}"
    form = rng.random()
    if form < 0.6:
        return name
    folders = [rng.choice((p.pick(FOLDERS), p.word(), _random_part(p))) for _ in range(rng.randint(1, 4))]
    if form < 0.75:
        return "/".join([*folders, name])
    if form < 0.8:
        return f"./{name}"
    if form < 0.9:
        return "/".join(["", "tmp", *folders, name])
    return "/".join(["", *folders, name])


def _random_part(p: Pools) -> str:
    """A folder as programs name them: tmpx3f_a91b, pytest-0, test_read0."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789_"
    return p.pick(["tmp" + "".join(p.rng.choices(letters, k=8)), f"pytest-{p.number(0, 40)}",
                   f"test_{p.word()}{p.number(0, 9)}", "".join(p.rng.choices(letters, k=6)),
                   f"pytest-of-{p.word()}", f"{p.word()}-{p.number()}"])


def _quoted(p: Pools, text: str) -> str:
    mark = p.pick(["", "", "", "`", "`", "'", '"'])
    return f"{mark}{text}{mark}"


def _phrase(p: Pools) -> str:
    """A short text to write, print or find."""
    form = p.rng.random()
    if form < 0.3:
        text = prose.words(p.rng, p.rng.randint(1, 7))
        return p.pick([text, text, text.lower(), text.capitalize() + ".", text.upper()])
    if form < 0.35:
        return f"{prose.words(p.rng, 2)} is {p.rng.choice((p.word().upper(), p.code(), prose.words(p.rng, 1)))}"
    words = [p.rng.choice((p.word, p.code, p.proper, p.number, p.name))() for _ in range(p.rng.randint(1, 4))]
    return p.pick([" ".join(words), " ".join(words), p.word().upper(), f"{p.word().upper()}-{p.number()}",
                   p.rng.choice(_facts(p, 1)[0].statements), f"hello {p.word()}", "Hello, world!"])


def _numbered(p: Pools, text: str) -> str:
    """A file as a tool shows it: with line numbers, or bare."""
    form = p.rng.random()
    lines = text.split("\n")
    if form < 0.6:
        if p.rng.random() < 0.5:
            lines.append("")
        return "\n".join(f"{i}\t{line}" for i, line in enumerate(lines, 1))
    if form < 0.75:
        return "\n".join(f"{i:6d}→{line}" for i, line in enumerate(lines, 1))
    return text + ("\n" if p.rng.random() < 0.5 else "")


def _says(subject: str, text: str) -> str:
    lines = text.split("\n")
    if len(lines) == 1:
        return f"{subject}: {text}"
    if len(lines) <= MAX_QUOTED_LINES:
        return f"{subject}:\n{text}"
    return f"{subject} {len(lines)} lines. The first is: {lines[0]}"


def _failure(p: Pools, name: str) -> str:
    return p.pick(["File does not exist.", f"Error: {name} not found", "Permission denied",
                   f"No such file or directory: {name}", f"Exit code {p.number(1, 9)}",
                   f"{p.word()}: command not found", "The operation timed out"])


def _failed(p: Pools, ask: str, call: Call, name: str) -> Task:
    text = _failure(p, name)
    shown = p.pick([text, f"<tool_use_error>{text}</tool_use_error>", text])
    return Task(ask, (Step((call,), (shown,)),), f"It failed: {text}")


def read_task(p: Pools, tools: dict[str, AgentTool]) -> Task:
    tool, name = tools["read"], path(p)
    facts = _facts(p, p.rng.choice((1, 1, 1, 2, 3, 6, 14)))
    text = p.rng.choice((_phrase(p), p.rng.choice(facts[0].statements))) if len(facts) == 1 else _document(p, facts)
    call = Call(tool.name, tool.arguments(name))
    shown = _quoted(p, name)
    asks_fact = len(facts) > 1 and p.rng.random() < 0.7
    if asks_fact:
        fact = p.rng.choice(facts)
        question = p.rng.choice(fact.questions)
        ask = p.pick(["Read {} and answer: {}", "Read the file {}. {}", "Look at {}. {}", "Use {} to answer: {}",
                      "Read {}. {}", "Open {} and tell me: {}"]).format(shown, question)
        answer = fact.answer
    else:
        ask = p.pick(["Read the file {}", "Read {}", "Read {} and tell me what it says", "What does {} say?",
                      "What is in {}?", "What does the file {} contain?", "Show me the contents of {}", "Open {}",
                      "Read the file {} and tell me what it says.", "Show me {}", "Print the contents of {}",
                      f"Use the {tool.name} tool to read {{}}", "Can you read {}?", "Tell me what is in {}",
                      f"Use {tool.name} to read {{}} and tell me what it says."]).format(shown)
        count = len(text.split("\n"))
        answer = _says("The file has" if count > MAX_QUOTED_LINES else "The file says", text)
    if p.rng.random() < 0.06:
        return _failed(p, ask, call, name)
    return Task(ask, (Step((call,), (_numbered(p, text),)),), answer)


def _command(p: Pools) -> tuple[str, str | None, list[str]]:
    """A command, its output where that is known, and ways to ask for it without naming it."""
    name, phrase = path(p), _phrase(p).replace('"', "")
    word = p.rng.choice((p.word(), prose.words(p.rng, 1).lower()))
    return p.rng.choice((
        ("ls", None, ["List the files", "List the files in this directory", "Which files are here?", "List files"]),
        ("ls -la", None, ["List all files with details"]),
        ("pwd", f"/{p.pick(FOLDERS)}/{word}", ["Which directory are we in?", "What is the current directory?",
                                               "Print the working directory"]),
        (f"echo {phrase}", phrase, [f"Print {phrase} with echo", f"Echo {phrase}"]),
        (f'echo "{phrase}"', phrase, []),
        (f"cat {name}", _phrase(p), []),
        ("git status", None, ["What is the git status?", "Show the git status"]),
        ("git log --oneline", None, ["Show the commits"]),
        (f"python3 {word}.py", None, [f"Run the script {word}.py", f"Execute {word}.py with Python"]),
        (f"python3 -c 'print({p.number()} + {p.number()})'", p.number(), []),
        (f"wc -l {name}", f"{p.number()} {name}", [f"How many lines does {name} have?", f"Count the lines of {name}"]),
        ("date", f"{p.date()}, {p.time()}", ["What is the date?"]),
        ("whoami", word, ["Which user am I?"]),
        (f"mkdir {word}", "", [f"Make a directory {word}", f"Create the folder {word}"]),
        (f"rm {name}", "", [f"Delete {name}", f"Remove the file {name}"]),
        (f"mv {name} {word}", "", [f"Move {name} to {word}", f"Rename {name} to {word}"]),
        (f"{p.pick(PROGRAMS)} {word}", None, []),
        (f"{p.pick(PROGRAMS)} {p.word()} --{word} {p.number()}", None, []),
        (f"cat {name} | grep {word}", None, []),
        (f"{word} -{p.pick(list('abcdefghv'))} {name}", None, []),
        (f"cd {word} && {p.pick(PROGRAMS)} {p.word()}", None, []),
    ))


def _output(p: Pools) -> str:
    lines = [p.rng.choice((lambda: path(p), lambda: _phrase(p), p.value, p.word))()
             for _ in range(p.rng.choice((1, 1, 2, 3, 4, 6, 11)))]
    return "\n".join(lines)


def shell_task(p: Pools, tools: dict[str, AgentTool]) -> Task:
    tool = tools["shell"]
    command, output, indirect = _command(p)
    if output is None:
        output = _output(p)
    if indirect and p.rng.random() < 0.4:
        ask = p.pick(indirect)
    else:
        ask = p.pick(["Run {}", "Run {}", "Run the command {}", "Execute {}", "Execute the command {}", "Please run {}",
                      "Run: {}", "Run {} and tell me the output", "Run {} and tell me what it prints.",
                      f"Use the {tool.name} tool to run {{}}", f"Use {tool.name} to run {{}} and tell me the output.",
                      "What does {} print?", "Run {} in the shell", "Can you run {}?"]).format(_quoted(p, command))
    call = Call(tool.name, tool.arguments(command))
    if p.rng.random() < 0.06:
        return _failed(p, ask, call, command.split()[-1])
    shown = output or p.pick(["", "(Bash completed with no output)", "(no output)"])
    count = len(output.split("\n"))
    answer = _says("The output has" if count > MAX_QUOTED_LINES else "The output is", output) if output else "Done."
    return Task(ask, (Step((call,), (shown,)),), answer)


def write_task(p: Pools, tools: dict[str, AgentTool]) -> Task:
    tool, name, content = tools["write"], path(p), _phrase(p)
    quoted = p.pick(['"{}"', "'{}'", "`{}`", "{}", "{}"]).format(content)
    ask = p.pick(["Create a file {f} with the content {c}", "Create {f} containing {c}", "Write {c} to {f}",
                  "Create a file named {f} with the text {c}", "Write the text {c} to the file {f}",
                  "Save {c} in {f}", "Make a file {f} that contains {c}",
                  f"Use the {tool.name} tool to create {{f}} with the content {{c}}"]).format(f=name, c=quoted)
    call = Call(tool.name, tool.arguments(name, content))
    result = p.pick([f"File created successfully at: {name}", "ok", f"Wrote {len(content)} bytes", "",
                     f"The file {name} has been written."])
    steps = [Step((call,), (result,))]
    answer = f"I wrote {name}."
    if "read" in tools and p.rng.random() < 0.2:
        ask += p.pick([" and then read it", ". Then read it back", " and read it"])
        reader = tools["read"]
        steps.append(Step((Call(reader.name, reader.arguments(name)),), (_numbered(p, content),)))
        answer = _says("The file says", content)
    return Task(ask, tuple(steps), answer)


def edit_task(p: Pools, tools: dict[str, AgentTool]) -> Task:
    """Reads, then replaces: agents refuse to edit what was not read."""
    tool, reader, name = tools["edit"], tools["read"], path(p)
    old, new = p.word(), p.rng.choice((p.word, p.code, p.proper))()
    text = p.pick([f"The {p.pick(NOUNS)} is {old}", f"{p.word()} = {old}", f"{p.word()}\n{old}\n{p.word()}", old])
    ask = p.pick(["Replace {a} with {b} in {f}", "In {f}, replace {a} with {b}", "Change {a} to {b} in {f}",
                  "Edit {f}: replace {a} by {b}", "In the file {f} change {a} to {b}"])
    mark = p.pick(["", "", '"', "'", "`"])
    ask = ask.format(a=f"{mark}{old}{mark}", b=f"{mark}{new}{mark}", f=name)
    steps = (Step((Call(reader.name, reader.arguments(name)),), (_numbered(p, text),)),
             Step((Call(tool.name, tool.arguments(name, old, new)),),
                  (p.pick([f"The file {name} has been updated.", "ok", f"The file {name} has been updated successfully."]),)))
    return Task(ask, steps, f"I replaced {old} with {new} in {name}.")


def find_task(p: Pools, tools: dict[str, AgentTool]) -> Task:
    """Files by name or content, by a tool of its own or in the shell."""
    word, extension = p.rng.choice((p.word(), p.code(), "TODO")), p.pick(EXTENSIONS)
    by_name = p.rng.random() < 0.5
    if by_name:
        ask = p.pick(["Find all {} files", "Find the {} files", "Which {} files are there?"]).format(f".{extension}")
        kind, argument, command = "glob", f"**/*.{extension}", f"find . -name '*.{extension}'"
    else:
        ask = p.pick(["Search for {} in the code", "Find {} in the files", "Grep for {}",
                      "Where is {} used?"]).format(_quoted(p, word))
        kind, argument, command = "grep", word, f"grep -rn {word} ."
    tool = tools.get(kind)
    call = Call(tool.name, tool.arguments(argument)) if tool else \
        Call(tools["shell"].name, tools["shell"].arguments(command))
    found = "\n".join(path(p) for _ in range(p.rng.randint(1, 5)))
    return Task(ask, (Step((call,), (found,)),), _says("I found", found))


def web_task(p: Pools, tools: dict[str, AgentTool]) -> Task:
    tool, query = tools["web"], f"{p.word()} {p.pick(NOUNS)}"
    ask = p.pick(["Search the web for {}", "Search for {} on the web", "Look up {} on the internet"]).format(query)
    result = p.rng.choice(_facts(p, 1)[0].statements)
    return Task(ask, (Step((Call(tool.name, tool.arguments(query)),), (result,)),), f"I found: {result}")


def pair_task(p: Pools, tools: dict[str, AgentTool]) -> Task:
    """Two things at once."""
    tool = tools["read"]
    names = [path(p), path(p)]
    texts = [_phrase(p), _phrase(p)]
    calls = tuple(Call(tool.name, tool.arguments(name)) for name in names)
    ask = p.pick(["Read {} and {}", "Read the files {} and {}", "What do {} and {} say?"]).format(*names)
    answer = " ".join(f"{name} says: {text}" for name, text in zip(names, texts, strict=True))
    return Task(ask, (Step(calls, tuple(_numbered(p, text) for text in texts)),), answer)


def plain_task(p: Pools) -> Task:
    """Something no tool is needed for."""
    if p.rng.random() < 0.5:
        question, answer = knowledge_pair(p)
        return Task(question, (), answer)
    text = _phrase(p)
    ask = p.pick(["Say {}", "Say: {}", "Reply with exactly: {}", "Reply with only {}", "Reply with the word {}",
                  "Answer with just {}", "Repeat: {}", "Reply with exactly {} and nothing else.", "Respond with {}",
                  "Just say {}", "Repeat after me: {}", "Reply with this text: {}"]).format(_quoted(p, text))
    return Task(ask, (), text)


_MAKERS = {"read": (read_task, 0.3), "shell": (shell_task, 0.3), "write": (write_task, 0.12),
           "web": (web_task, 0.03)}


def make_task(p: Pools, tools: dict[str, AgentTool]) -> Task:
    """A task that these tools can do."""
    makers = [_MAKERS[kind] for kind in tools if kind in _MAKERS]
    if {"edit", "read"} <= tools.keys():
        makers.append((edit_task, 0.08))
    if "read" in tools:
        makers.append((pair_task, 0.04))
    if "shell" in tools:
        makers.append((find_task, 0.06))
    if not makers or p.rng.random() < 0.22:
        return plain_task(p)
    maker = p.rng.choices([maker for maker, _ in makers], [weight for _, weight in makers])[0]
    return maker(p, tools)
