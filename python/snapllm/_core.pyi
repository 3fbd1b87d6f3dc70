"""Stubs of the C++ core. The contract is in cpp/include/snapllm."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

__version__: str

def system_info() -> str: ...
def json_depth(json: bytes) -> int: ...
def probe_projector(model_path: str, mmproj_path: str) -> None: ...
def chat_templates(model_path: str) -> list[bytes]: ...
def probe_chat_template(text: bytes) -> None: ...

class EngineOptions:
    num_threads: int
    memory_budget_bytes: int
    keep_alive_s: float
    max_queued_requests: int
    workspace: str
    kv_ram_bytes: int
    kv_disk_bytes: int
    def __init__(self, **attributes: Any) -> None: ...

class ModelOptions:
    path: str
    mmproj_path: str
    gpu_layers: int
    context_size: int
    kv_cells: int
    max_sequences: int
    batch_tokens: int
    ubatch_tokens: int
    num_threads: int
    draft_tokens: int
    flash_attention: Literal["auto", "on", "off"]
    kv_type: str
    chat_template: str
    pinned: bool
    keep_alive_s: float
    def __init__(self, **attributes: Any) -> None: ...

class SamplingParams:
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    typical_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    penalty_last_n: int
    seed: int
    ignore_eos: bool
    min_tokens: int
    num_logprobs: int
    logit_bias: list[tuple[int, float]]
    grammar: str
    def __init__(self, **attributes: Any) -> None: ...

def schema_grammar(json_schema: str) -> str: ...
def available_cpus() -> int: ...

class MediaInput:
    kind: Literal["image", "audio"]
    width: int
    height: int
    data: bytes
    id: str
    def __init__(self, **attributes: Any) -> None: ...

class ChatFormatRequest:
    messages_json: str
    tools_json: str
    tool_choice: Literal["auto", "required", "none"]
    parallel_tool_calls: bool
    enable_thinking: bool
    continue_final_message: bool
    json_schema: str
    grammar: str
    thinking_budget_tokens: int
    media: list[MediaInput]
    media_marker: str
    template_kwargs: list[tuple[str, str]]
    cache_namespace: str
    def __init__(self, **attributes: Any) -> None: ...

class GenerateRequest:
    model_id: str
    prompt: list[int]
    chat: ChatPrompt | None
    sampling: SamplingParams
    max_tokens: int
    stop: list[str]
    is_plain: bool
    reuse_prefix: bool
    cache_namespace: str
    num_prompt_logprobs: int
    prefill_only: bool
    report_progress: bool
    stream: bool
    def __init__(self, **attributes: Any) -> None: ...

class EmbedRequest:
    model_id: str
    inputs: list[list[int]]
    pooling: Literal["auto", "mean", "last"]
    dimensions: int
    def __init__(self, **attributes: Any) -> None: ...

class ChatDelta:
    @property
    def kind(self) -> Literal["content", "reasoning", "tool_call"]: ...
    @property
    def text(self) -> str: ...
    @property
    def tool_index(self) -> int: ...
    @property
    def tool_id(self) -> str: ...
    @property
    def tool_name(self) -> str: ...

class ChatStreamParser:
    def push(self, output: RequestOutput) -> list[ChatDelta]: ...
    @property
    def num_reasoning_tokens(self) -> int: ...

class MediaSpan:
    @property
    def begin(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def num_positions(self) -> int: ...

class ChatPrompt:
    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def media(self) -> list[MediaSpan]: ...
    @property
    def stop(self) -> list[str]: ...
    @property
    def supports_thinking(self) -> bool: ...
    def create_parser(self) -> ChatStreamParser: ...

class RequestTimings:
    @property
    def queue_ms(self) -> float: ...
    @property
    def prefill_ms(self) -> float: ...
    @property
    def decode_ms(self) -> float: ...

class TokenAlternative:
    @property
    def token(self) -> int: ...
    @property
    def bytes(self) -> bytes: ...
    @property
    def logprob(self) -> float: ...

class TokenLogprobs:
    @property
    def token(self) -> int: ...
    @property
    def bytes(self) -> bytes: ...
    @property
    def logprob(self) -> float: ...
    @property
    def top(self) -> list[TokenAlternative]: ...

class CacheReport:
    @property
    def num_hot_tokens(self) -> int: ...
    @property
    def num_warm_tokens(self) -> int: ...
    @property
    def num_cold_tokens(self) -> int: ...
    @property
    def restore_ms(self) -> float: ...
    @property
    def differs_at(self) -> int: ...
    @property
    def cached_token(self) -> int: ...

class RequestOutput:
    @property
    def request_id(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def logprobs(self) -> list[TokenLogprobs]: ...
    @property
    def prompt_logprobs(self) -> list[TokenLogprobs]: ...
    @property
    def finish_reason(self) -> Literal["stop", "length", "cancelled", "error"] | None: ...
    @property
    def stop_sequence(self) -> str: ...
    @property
    def error(self) -> Exception | None: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_cached_tokens(self) -> int: ...
    @property
    def cache(self) -> CacheReport: ...
    @property
    def num_computed_prompt_tokens(self) -> int: ...
    @property
    def num_generated_tokens(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def timings(self) -> RequestTimings: ...

class OutputQueue:
    def __init__(self) -> None: ...
    @property
    def fd(self) -> int: ...
    def drain(self) -> list[RequestOutput]: ...
    def rest(self) -> None: ...
    def resume(self) -> None: ...
    def wait(self) -> None: ...

class ModelInfo:
    """Facts about a model."""

    @property
    def id(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str:
        """`general.name` of the file, or the id."""
    @property
    def architecture(self) -> str:
        """As `qwen3`."""
    @property
    def quantization(self) -> str:
        """As `Q8_0`."""
    @property
    def description(self) -> str:
        """llama.cpp's one line."""
    @property
    def file_bytes(self) -> int: ...
    @property
    def num_parameters(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def train_context_size(self) -> int: ...
    @property
    def context_size(self) -> int:
        """Longest prompt plus answer of one request."""
    @property
    def kv_cells(self) -> int: ...
    @property
    def max_sequences(self) -> int:
        """Sequences decoded together at most."""
    @property
    def num_hot_sequences(self) -> int:
        """Hot prefixes that can be kept beside the running."""
    @property
    def max_hot_tokens(self) -> int:
        """KV cells that those made hot on purpose may take."""
    @property
    def max_foreign_tokens(self) -> int:
        """KV cells that may hold what a running request does not use."""
    @property
    def num_kv_sequences(self) -> int:
        """Sequence ids of the KV memory, scratch included."""
    @property
    def fingerprint(self) -> str:
        """What its KV is stored under."""
    @property
    def kv_kind(self) -> Literal["blocks", "checkpoints"]:
        """How its KV is kept: as checkpoints where it cannot be cut."""
    @property
    def num_threads(self) -> int:
        """Threads that decode one token fastest, as measured when it was loaded."""
    @property
    def gpu_layers(self) -> int:
        """As asked for; -1 = all."""
    @property
    def flash_attention(self) -> bool: ...
    @property
    def draft_tokens(self) -> int:
        """Guessed ahead at most."""
    @property
    def embedding_size(self) -> int:
        """Components of an embedding."""
    @property
    def supports_generation(self) -> bool:
        """False: the model only computes embeddings."""
    @property
    def mmproj_path(self) -> str:
        """Of the projector; empty = text only."""
    @property
    def has_vision(self) -> bool:
        """It takes images."""
    @property
    def has_audio(self) -> bool:
        """It takes sounds."""
    @property
    def projector_bytes(self) -> int:
        """Weights and buffers of the projector."""
    @property
    def has_chat_template(self) -> bool: ...
    @property
    def supports_thinking(self) -> bool: ...
    @property
    def supports_tools(self) -> bool: ...
    @property
    def active(self) -> bool: ...
    @property
    def state(self) -> Literal["resident", "loading", "evicting", "evicted"]: ...
    @property
    def pinned(self) -> bool: ...
    @property
    def keep_alive_s(self) -> float:
        """As asked for; -1 = as the engine says."""
    @property
    def load_ms(self) -> float:
        """Of the last load."""
    @property
    def loaded_at_ms(self) -> int:
        """Unix time."""
    @property
    def weights_bytes(self) -> int:
        """Perhaps shared with other ids of the same file."""
    @property
    def kv_bytes(self) -> int: ...
    @property
    def compute_bytes(self) -> int: ...
    @property
    def gpu_bytes(self) -> int:
        """Of weights, KV and buffers, what is on GPUs."""

class LatencyHistogram:
    """How long something took, counted in buckets."""

    bounds_ms: ClassVar[list[float]]
    @property
    def counts(self) -> list[int]:
        """Of each bound, those at most as long and longer than the bound before; then the rest."""
    @property
    def sum_ms(self) -> float: ...
    @property
    def count(self) -> int: ...

class ModelStats:
    """Counters of a model. A request is one prompt on its way to one answer, or one input on its
    way to its vector."""

    @property
    def id(self) -> str: ...
    @property
    def num_requests(self) -> int: ...
    @property
    def num_finished(self) -> int: ...
    @property
    def num_cancelled(self) -> int: ...
    @property
    def num_failed(self) -> int: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_cached_tokens(self) -> int: ...
    @property
    def num_generated_tokens(self) -> int: ...
    @property
    def num_embedded_tokens(self) -> int:
        """Of inputs; no prompt tokens, since none can be cached."""
    @property
    def num_encoded_media(self) -> int:
        """Pieces of images and sound; those reused are not counted."""
    @property
    def num_steps(self) -> int:
        """Batches computed, those of embeddings not among them."""
    @property
    def num_batch_tokens(self) -> int:
        """In all batches together."""
    @property
    def num_batch_sequences(self) -> int:
        """In all batches together."""
    @property
    def queue_time(self) -> LatencyHistogram:
        """From submission to admission, of an input to its turn."""
    @property
    def time_to_first_token(self) -> LatencyHistogram:
        """From submission to the first token."""
    @property
    def inter_token_latency(self) -> LatencyHistogram:
        """From one token of a request to the next."""
    @property
    def resident(self) -> bool:
        """Whether it is in memory."""
    @property
    def num_loads(self) -> int:
        """The first, and all returns from eviction."""
    @property
    def num_evictions(self) -> int: ...
    @property
    def load_ms(self) -> float:
        """Of all loads together."""
    @property
    def num_waiting(self) -> int:
        """Requests, now."""
    @property
    def num_running(self) -> int:
        """Requests, now."""
    @property
    def num_kv_cells_used(self) -> int:
        """Now, by running sequences and hot prefixes."""
    @property
    def num_hot_prefixes(self) -> int:
        """Now."""
    @property
    def num_hot_tokens(self) -> int:
        """KV cells of hot prefixes, now."""
    @property
    def num_hot_hits(self) -> int:
        """Tokens reused from the KV memory."""
    @property
    def num_warm_hits(self) -> int:
        """Tokens reused from RAM."""
    @property
    def num_cold_hits(self) -> int:
        """Tokens reused from disk."""
    @property
    def num_failed_restores(self) -> int:
        """Stored prefixes that were of no use."""
    @property
    def num_draft_tokens(self) -> int:
        """Guessed ahead."""
    @property
    def num_accepted_draft_tokens(self) -> int:
        """Of those guessed ahead, what was right."""
    @property
    def num_stopped_steps(self) -> int:
        """Steps that gave way to something new, and were computed again."""
    @property
    def num_preemptions(self) -> int:
        """Of requests whose KV cells another needed; they went on later."""

class KvStoreStats:
    """Of the KV kept in RAM and on disk, since the engine began."""

    @property
    def num_pieces(self) -> int: ...
    @property
    def ram_bytes(self) -> int:
        """Of states in RAM."""
    @property
    def disk_bytes(self) -> int:
        """Of files."""
    @property
    def max_ram_bytes(self) -> int: ...
    @property
    def max_disk_bytes(self) -> int: ...
    @property
    def num_stored(self) -> int:
        """Pieces put."""
    @property
    def num_written(self) -> int:
        """Files written."""
    @property
    def num_loaded(self) -> int:
        """States read from disk."""
    @property
    def num_ram_evictions(self) -> int: ...
    @property
    def num_disk_evictions(self) -> int: ...
    @property
    def num_write_failures(self) -> int: ...
    @property
    def num_read_failures(self) -> int:
        """Files and folders that could not be read, and were left."""
    @property
    def num_damaged(self) -> int:
        """Files that were of no use, and removed."""
    @property
    def num_dropped(self) -> int:
        """Pieces not kept, or in RAM only: no room, or the writer is behind."""

class PrefixRef:
    model_id: str
    fingerprint: str
    kv_kind: str
    cache_namespace: str
    tokens: list[int]
    def __init__(self, **attributes: Any) -> None: ...

class PrefixInfo:
    @property
    def tier(self) -> Literal["hot", "warm", "cold"] | None: ...
    @property
    def is_on_disk(self) -> bool: ...
    @property
    def hot_bytes(self) -> int: ...
    @property
    def ram_bytes(self) -> int: ...
    @property
    def disk_bytes(self) -> int: ...

class MemoryStats:
    """The memory that models are loaded into."""

    @property
    def budget_bytes(self) -> int: ...
    @property
    def used_bytes(self) -> int:
        """Of models, snapshots and what is charged from outside."""
    @property
    def models_bytes(self) -> int:
        """Weights (shared ones once), KV memory and buffers."""
    @property
    def snapshot_bytes(self) -> int:
        """KV of prompts kept in RAM."""
    @property
    def external_bytes(self) -> int:
        """Charged from outside: image models."""
    @property
    def num_evictions(self) -> int: ...
    @property
    def num_reloads(self) -> int:
        """Models that came back for a request."""

class ResidencyEvent:
    @property
    def number(self) -> int: ...
    @property
    def model_id(self) -> str: ...
    @property
    def has_returned(self) -> bool: ...

class EngineStats:
    """Counters of the engine and of each loaded model."""

    @property
    def models(self) -> list[ModelStats]: ...
    @property
    def memory(self) -> MemoryStats: ...
    @property
    def kv_store(self) -> KvStoreStats: ...
    @property
    def num_switches(self) -> int: ...

class Engine:
    def __init__(self, options: EngineOptions) -> None: ...
    def load(self, model_id: str, options: ModelOptions) -> ModelInfo: ...
    def unload(self, model_id: str) -> ModelStats: ...
    def switch_model(self, model_id: str) -> None: ...
    def set_pinned(self, model_id: str, pinned: bool) -> None: ...
    def ensure_resident(self, model_id: str) -> None: ...
    def set_external_memory(self, name: str, bytes: int, what: str = "") -> None: ...
    def set_external_holder(
        self, give_back: Callable[[], bool], may_give_back: Callable[[], bool]
    ) -> None: ...
    def active_model(self) -> str: ...
    def model_info(self, model_id: str) -> ModelInfo: ...
    def models(self) -> list[ModelInfo]: ...
    def stats(self) -> EngineStats: ...
    def residency_events(self, after: int) -> list[ResidencyEvent]: ...
    def tokenize(
        self,
        model_id: str,
        text: str,
        add_special: bool = True,
        parse_special: bool = True,
        may_wait: bool = True,
    ) -> list[int]: ...
    def tokenize_infill(
        self, model_id: str, prefix: str, suffix: str, may_wait: bool = True
    ) -> list[int]: ...
    def detokenize(
        self, model_id: str, tokens: list[int], special: bool = True, may_wait: bool = True
    ) -> bytes: ...
    def format_chat(
        self, model_id: str, request: ChatFormatRequest, may_wait: bool = True
    ) -> ChatPrompt: ...
    def submit(self, request: GenerateRequest, outputs: OutputQueue) -> int: ...
    def try_submit(self, request: GenerateRequest, outputs: OutputQueue) -> int | None: ...
    def embed(self, request: EmbedRequest) -> list[bytes]: ...
    def prefix_info(self, prefix: PrefixRef) -> PrefixInfo: ...
    def pin_prefix(self, prefix: PrefixRef) -> None: ...
    def persist_prefix(self, prefix: PrefixRef) -> None: ...
    def discard_prefix(self, prefix: PrefixRef, others: list[PrefixRef]) -> None: ...
    def make_disk_room(self, bytes: int) -> None: ...
    def move_prefix(self, prefix: PrefixRef, tier: str, others: list[PrefixRef]) -> None: ...
    def prefix_usage(self, prefixes: list[tuple[PrefixRef, str]]) -> PrefixInfo: ...
    def read_prefix(self, prefix: PrefixRef) -> list[bytes]: ...
    def write_prefix(self, prefix: PrefixRef, states: list[bytes]) -> None: ...
    def cancel(self, request_id: int) -> bool: ...
    def drain(self, timeout_ms: int) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...
