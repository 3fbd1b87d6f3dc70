"""The fields of Anthropic's Messages API that SnapLLM reads.

Reference: Anthropic API, "Create a Message". Fields not listed are ignored, so that
clients with newer betas are served.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from snapllm._numbers import INT32_MAX
from snapllm.params import ModelName, StopList, TopK, TopP

Temperature = Annotated[float, Meta(ge=0, le=2)]
MaxTokens = Annotated[int, Meta(ge=0, le=INT32_MAX)]


class CacheControl(msgspec.Struct):
    """Marks the end of a prefix worth caching; every prefix is cached here anyway."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class Source(msgspec.Struct):
    """Where the data of an image or document comes from."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[Block] | None = None


class Block(msgspec.Struct):
    """A content block of any type; the fields of the others stay unset."""

    type: str
    text: str | None = None
    source: Source | str | None = None
    """Of a search result, the name of where it was found."""
    title: str | None = None
    context: str | None = None
    """What is to be known of a document."""
    # tool_use
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    # tool_result; content is a search_result's too, and that of results of other servers' tools
    tool_use_id: str | None = None
    content: str | list[Block] | Block | None = None
    is_error: bool | None = None
    # what the results of such tools hold: pages, or an error
    url: str | None = None
    error_code: str | None = None
    # tool_reference
    tool_name: str | None = None
    # thinking
    thinking: str | None = None
    signature: str | None = None
    # what tools left behind that another server ran
    stdout: str | None = None
    stderr: str | None = None
    tool_references: list[Block] | None = None
    cache_control: CacheControl | None = None


class InputMessage(msgspec.Struct):
    """One message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block] | None = None
    """None: of a system message that says nothing, and is there for its other fields."""
    clear_at: str | None = None
    """Until when a system message is shown: "next_user_message"; None = always."""
    output_config: dict[str, Any] | None = None


class MessagesTool(msgspec.Struct):
    """A tool; `input_schema` is a JSON schema.

    Those with a type of Anthropic's own have no schema, and some no name.
    """

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    cache_control: CacheControl | None = None
    # computer
    display_width_px: Annotated[int, Meta(ge=1)] | None = None
    display_height_px: Annotated[int, Meta(ge=1)] | None = None
    enable_zoom: bool | None = None


class MessagesToolChoice(msgspec.Struct):
    """Whether and which tool is to be called."""

    type: Literal["auto", "any", "tool", "none"] = "auto"
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct):
    """Whether the model thinks first, and for how many tokens at most."""

    type: str
    """All but "disabled" let it think: types of newer betas count as "adaptive"."""
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    display: str | None = None
    """Whether the thoughts are returned: "omitted" leaves their text empty."""


class OutputFormat(msgspec.Struct):
    """The form the answer must have."""

    type: str
    schema: dict[str, Any] | None = None


class OutputConfig(msgspec.Struct):
    """How the answer is to be given."""

    format: OutputFormat | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    """Checked only: how long a model thinks is bounded by `thinking`."""


class MessagesRequest(msgspec.Struct, kw_only=True):
    """The body of POST /v1/messages."""

    model: ModelName
    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    max_tokens: MaxTokens
    """0 = the prompt is computed and kept for later requests."""
    system: str | list[Block] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: MessagesToolChoice | None = None
    thinking: Thinking | None = None
    stop_sequences: StopList | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    stream: bool | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    cache_control: CacheControl | None = None
    context_management: dict[str, Any] | None = None
    """What may be cut from a long conversation; nothing is, as what is kept costs no time."""
    # Read to be refused.
    mcp_servers: list[Any] | None = None
    container: Any = None
    compaction: Any = None
    thread: Any = None


class CountTokensRequest(MessagesRequest, kw_only=True):
    """The body of POST /v1/messages/count_tokens."""

    max_tokens: MaxTokens = INT32_MAX
    """Nothing is generated."""
