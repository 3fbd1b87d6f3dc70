"""Functions as OpenAI's chat completions had them before there were tools.

Reference: OpenAI API, "Create chat completion", `functions` and `function_call` (deprecated). They
are tools, of which an answer calls one at most. Their calls have no ids: a function's message
answers the last call of its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from snapllm.conversation import (
    FunctionCall,
    Message,
    MessageToolCall,
    Tool,
    ToolFields,
    ToolMode,
    arguments_object,
    offer_tools,
)
from snapllm.errors import InvalidRequestError
from snapllm.outputs import ToolCall, ToolCallDelta, ToolCallStart
from snapllm.protocol.openai_types import ChatCompletionRequest, ChatMessage, NamedTool

if TYPE_CHECKING:
    from snapllm.protocol.openai_answer_types import CalledFunction
    from snapllm.protocol.stream_types import ChatDelta


def refuse_mixed(wire: ChatCompletionRequest) -> None:
    """Refuses what goes with tools beside functions, and the other way round.

    Raises:
        InvalidRequestError: There is both; `param` names what does not fit.
    """
    pairs = (
        ("functions", "tools"),
        ("tool_choice", "functions"),
        ("function_call", "tools"),
        ("function_call", "tool_choice"),
    )
    for field, other in pairs:
        if getattr(wire, field) and getattr(wire, other):
            raise InvalidRequestError(f"{field} cannot be used with {other}", param=field)


def read_functions(wire: ChatCompletionRequest) -> tuple[list[Tool], ToolMode]:
    """The functions as the tools that are offered, and whether one must be called.

    Raises:
        InvalidRequestError: A function is incomplete, or the one to be called is not among them.
    """
    functions, choice = wire.functions or [], wire.function_call
    forms = [f"functions[{i}]" for i in range(len(functions))]
    fields = [ToolFields(f"{form}.name", f"{form}.parameters") for form in forms]
    tools = [Tool(function) for function in functions]
    if not isinstance(choice, NamedTool):
        return offer_tools(tools, choice or "auto", fields=fields)
    if all(function.name != choice.name for function in functions):
        message = f"function_call: no function is named {choice.name!r}"
        raise InvalidRequestError(message, param="function_call.name")
    return offer_tools(tools, "one", [choice.name], fields)


def read_messages(messages: Sequence[ChatMessage]) -> Iterator[Message]:
    """The messages, calls of functions and what these gave as those of tools.

    Raises:
        InvalidRequestError: One of them is incomplete, or has what only others have.
    """
    last_calls: dict[str, str] = {}
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if (call := message.function_call) is not None:
            # Of nine letters and digits, as Mistral's templates want it; the same in every turn.
            call_id = last_calls[call.name] = f"call{i:05}"
            yield _with_call(message, call, call_id, f"{where}.function_call")
        elif message.role == "function":
            if message.name is None:
                field = f"{where}.name"
                raise InvalidRequestError(f"{field} is required", param=field)
            call_id = last_calls.get(message.name, "")
            yield msgspec.structs.replace(message, role="tool", tool_call_id=call_id)
        else:
            yield message


def _with_call(message: ChatMessage, call: FunctionCall, call_id: str, where: str) -> Message:
    if message.role != "assistant":
        raise InvalidRequestError(f"{where}: only assistant messages may have one", param=where)
    if message.tool_calls:
        raise InvalidRequestError(f"{where} cannot be used with tool_calls", param=where)
    # Here already: what is wrong with them has another name once it is a tool's call.
    arguments = arguments_object(call.arguments, f"{where}.arguments")
    tool_call = MessageToolCall(FunctionCall(call.name, arguments), call_id)
    return msgspec.structs.replace(message, function_call=None, tool_calls=[tool_call])


def function_object(calls: Sequence[ToolCall]) -> CalledFunction:
    """The call of a whole answer, which makes one at most."""
    return {"name": calls[0].name, "arguments": calls[0].arguments}


class FunctionStream:
    """Writes the call of one streamed answer, piece by piece; see `CallStream`."""

    def __init__(self) -> None:
        self.has_begun = False

    def deltas(self, event: ToolCallStart | ToolCallDelta) -> list[ChatDelta]:
        """The deltas that an event brings."""
        if event.index > 0:
            return []
        if isinstance(event, ToolCallDelta):
            return [{"function_call": {"arguments": event.arguments}}]
        self.has_begun = True
        return [{"function_call": {"name": event.name, "arguments": ""}}]

    def rest(self) -> list[ChatDelta]:
        """What is left of calls that are over: nothing."""
        return []
