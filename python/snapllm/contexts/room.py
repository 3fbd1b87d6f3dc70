"""Why there is no place for the KV of a context."""

from __future__ import annotations

from snapllm import _core
from snapllm.contexts.record import ContextRecord
from snapllm.errors import ContextTooLargeError, StorageError

PIECE_TOKENS = 256
"""Of a model with full attention; the KV of others is one piece. docs/store_format.md"""


def check_fits(core: _core.Engine, record: ContextRecord, *, has_workspace: bool) -> None:
    """Refuses a context that RAM alone is to hold, and cannot, before it is computed.

    What models without full attention keep is known only once it is there.

    Raises:
        ContextTooLargeError: Its KV is more than RAM may hold.
    """
    if has_workspace or record.kv_kind != "blocks":
        return
    info, max_bytes = core.model_info(record.model_id), core.stats().kv_store.max_ram_bytes
    needed = info.kv_bytes * len(record.tokens) // info.kv_cells
    if needed > max_bytes:
        raise _not_in_ram_alone(needed, max_bytes)


def explain_not_kept(
    core: _core.Engine, record: ContextRecord, error: StorageError, *, has_workspace: bool
) -> StorageError:
    """The error that says what is missing, where RAM is too small for a context's KV.

    Without a workspace RAM has to hold all of it. On its way to disk it goes through RAM piece
    by piece. How much that is, is worked out from the model's KV memory.

    Args:
        core: The engine.
        record: The context.
        error: What the store said; returned where RAM is not the reason.
        has_workspace: Whether the store has a disk.
    """
    num_tokens = len(record.tokens)
    is_cut = has_workspace and record.kv_kind == "blocks"
    info, max_bytes = core.model_info(record.model_id), core.stats().kv_store.max_ram_bytes
    num_held = min(num_tokens, PIECE_TOKENS) if is_cut else num_tokens
    needed = info.kv_bytes * num_held // info.kv_cells
    if has_workspace and needed <= max_bytes:
        return error
    if not has_workspace:
        return _not_in_ram_alone(needed, max_bytes)
    what = f"pieces of about {_megabytes(needed)}" if is_cut else f"about {_megabytes(needed)}"
    return _too_large(what, max_bytes, "content", "")


def not_in_ram(core: _core.Engine, num_bytes: int) -> ContextTooLargeError:
    """The error of a context that is to be in RAM, which does not hold its `num_bytes`."""
    what = f"about {_megabytes(num_bytes)}"
    instead = ", or leave it cold or make it hot"
    return _too_large(what, core.stats().kv_store.max_ram_bytes, "tier", instead)


def _not_in_ram_alone(needed: int, max_bytes: int) -> ContextTooLargeError:
    instead = ", or give it a --workspace, where it goes to disk"
    return _too_large(f"about {_megabytes(needed)}", max_bytes, "content", instead)


def _too_large(what: str, max_bytes: int, param: str, instead: str) -> ContextTooLargeError:
    return ContextTooLargeError(
        f"the context's KV takes {what}, and RAM holds at most {_megabytes(max_bytes)} of all "
        f"contexts' KV: start the server with a larger --kv-ram (kv_ram_bytes){instead}",
        param=param,
    )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.2f} MB"
