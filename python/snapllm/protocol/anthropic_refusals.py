"""What of Anthropic's Messages API is refused, because an answer that ignored it would be wrong.

Reference: Anthropic API, "Create a Message", "Errors".
"""

from __future__ import annotations

from typing import ClassVar

from snapllm.errors import InvalidRequestError
from snapllm.protocol.anthropic_types import MessagesRequest

_NOT_HERE = {
    "mcp_servers": "no servers of tools are called here",
    "container": "there are no containers here",
    "compaction": "conversations are not summarised here",
}


class ThreadsUnsupportedError(InvalidRequestError):
    """The request wants its conversation held. Anthropic's clients know the code, and those that
    may send the whole conversation instead."""

    code: ClassVar[str] = "thread_unsupported_request"


def refuse_what_is_not_here(wire: MessagesRequest, *, is_answered: bool = True) -> None:
    """Refuses the fields that ask for what this server does not have.

    Args:
        wire: The request.
        is_answered: Whether it is to be answered, not only counted: a count is that of the
            conversation as it was sent, at Anthropic as well, so `compaction` changes none.

    Raises:
        ThreadsUnsupportedError: `thread` is given.
        InvalidRequestError: Another such field is; `param` names it.
    """
    if wire.thread is not None:
        raise ThreadsUnsupportedError(
            "thread: conversations are not held here; send all messages, the system prompt and "
            "the tools with every request, without thread",
            param="thread",
        )
    for param, reason in _NOT_HERE.items():
        if getattr(wire, param) and (is_answered or param != "compaction"):
            raise InvalidRequestError(f"{param} is not supported: {reason}", param=param)


def refuse_forms_of_no_answer(wire: MessagesRequest) -> None:
    """Refuses, as Anthropic does, what says how an answer is to be where none is wanted.

    Raises:
        InvalidRequestError: Such a field is given; `param` names it.
    """
    param = "tool_choice.type" if must_call(wire) else _form_of_text(wire)
    if param:
        raise InvalidRequestError(
            f"{param} cannot be given with max_tokens 0: nothing is generated", param=param
        )


def refuse_forms_of_begun_answer(wire: MessagesRequest, where: str) -> None:
    """Refuses, as Anthropic does, what says how an answer is to begin where it has begun.

    Args:
        wire: The request.
        where: What its answer goes on from.

    Raises:
        InvalidRequestError: Such a field is given; `param` names it.
    """
    param = form_beside_begun_answer(wire)
    if param:
        raise InvalidRequestError(
            f"{param} cannot be given where the answer goes on from {where}", param=param
        )


def form_beside_begun_answer(wire: MessagesRequest) -> str:
    """The field that says how an answer is to begin, other than with a call; "" = none."""
    param = _form_of_text(wire)
    if not param and wire.thinking is not None and wire.thinking.type != "disabled":
        param = "thinking.type"
    return param


def must_call(wire: MessagesRequest) -> bool:
    """Whether the answer must be a call."""
    return wire.tool_choice is not None and wire.tool_choice.type in ("any", "tool")


def _form_of_text(wire: MessagesRequest) -> str:
    """The field that gives an answer of text another form; "" = none."""
    given = {
        "thinking.type": wire.thinking is not None and wire.thinking.type == "enabled",
        "output_config.format": wire.output_config is not None and wire.output_config.format,
        "output_format": wire.output_format,
    }
    return next((param for param, is_given in given.items() if is_given), "")
