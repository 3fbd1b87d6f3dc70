"""Conversations, and how the chat template renders them.

`render` says the same as `template.jinja`, and also which parts the model is to
learn. A test holds the two together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKUP_TOKENS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]


@dataclass(frozen=True)
class Call:
    """A call of a tool: its name and arguments."""

    name: str
    arguments: dict[str, Any]

    def text(self) -> str:
        return (
            f'<tool_call>\n{{"name": "{self.name}", '
            f'"arguments": {json.dumps(self.arguments, ensure_ascii=False)}}}\n</tool_call>'
        )


@dataclass(frozen=True)
class Turn:
    """One message; `role` is system, user, assistant or tool."""

    role: str
    content: str = ""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True)
class Dialogue:
    """A conversation; `expected` holds the span an answer must contain, per answer."""

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()
    thinking: bool = False
    skill: str = ""
    expected: tuple[str, ...] = field(default=())


def answer_text(turn: Turn) -> str:
    """What the model writes after the think block, without the end of turn."""
    return "\n".join(filter(None, [turn.content, *(call.text() for call in turn.calls)]))


def render(dialogue: Dialogue) -> list[tuple[str, bool]]:
    """Splits the rendered dialogue into pieces of text; True marks what is learned."""
    pieces: list[tuple[str, bool]] = []
    turns = list(dialogue.turns)
    if dialogue.tools:
        system = ""
        if turns and turns[0].role == "system":
            system = turns.pop(0).content + "\n\n"
        listing = "".join(
            "\n" + json.dumps(tool, ensure_ascii=False) for tool in dialogue.tools
        )
        pieces.append(
            (
                f"<|im_start|>system\n{system}# Tools\n<tools>{listing}\n</tools>\n"
                'To call a function, answer with <tool_call>\n{"name": <function-name>, '
                '"arguments": <args-json-object>}\n</tool_call><|im_end|>\n',
                False,
            )
        )
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            pieces.extend(_render_answer(turn, dialogue.thinking))
        elif turn.role == "tool":
            first = index == 0 or turns[index - 1].role != "tool"
            last = index + 1 == len(turns) or turns[index + 1].role != "tool"
            text = "<|im_start|>user" if first else ""
            text += f"\n<tool_response>\n{turn.content}\n</tool_response>"
            pieces.append((text + ("<|im_end|>\n" if last else ""), False))
        else:
            pieces.append((f"<|im_start|>{turn.role}\n{turn.content}<|im_end|>\n", False))
    return pieces


def _render_answer(turn: Turn, thinking: bool) -> list[tuple[str, bool]]:
    answer = answer_text(turn) + "<|im_end|>"
    if thinking:
        return [
            ("<|im_start|>assistant\n", False),
            (f"<think>\n{turn.reasoning}\n</think>\n\n{answer}", True),
            ("\n", False),
        ]
    return [
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        (answer, True),
        ("\n", False),
    ]


def to_messages(turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
    """The turns as messages of the OpenAI chat form."""
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.calls:
            message["tool_calls"] = [
                {
                    "id": f"call_{number}_{index}",
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": json.dumps(call.arguments, ensure_ascii=False),
                    },
                }
                for index, call in enumerate(turn.calls)
            ]
        if turn.role == "tool":
            message["tool_call_id"] = f"call_{number - 1}_0"
        if turn.reasoning:
            message["reasoning_content"] = turn.reasoning
        messages.append(message)
    return messages


def to_openai_tools(tools: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """The tools as the OpenAI chat form has them."""
    return [{"type": "function", "function": tool} for tool in tools]
