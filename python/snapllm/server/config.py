"""What a server is started with."""

from __future__ import annotations

from pathlib import Path

import msgspec

from snapllm.params import FlashAttention, KvType, LoadOptions
from snapllm.server.options import AppOptions


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `snapllm serve`; the command line's defaults are these."""

    host: str = "127.0.0.1"
    port: int = 6930
    models: tuple[tuple[str, Path], ...] = ()
    """Models to load at the start, as id and file, in this order."""
    projectors: tuple[tuple[str, Path], ...] = ()
    """Projector files of these models, by id."""
    parts: tuple[tuple[str, str, Path], ...] = ()
    """Files of these image models beside their first: id, part and file."""
    lora_dirs: tuple[tuple[str, Path], ...] = ()
    """Folders of LoRA files of these image models, by id."""
    image_hosts: tuple[str, ...] = ()
    """Hosts that images may be fetched from; none = requests carry their images."""
    workspace: Path | None = None
    """Folder for what the server keeps across restarts; made when missing. None = a
    folder of the user's, if no other server uses it."""
    persist: bool = True
    """Keep contexts and prompts across restarts at all."""
    kv_ram_bytes: int = 0
    """Bound of the KV kept in RAM; 0 = an eighth of the free memory."""
    kv_disk_bytes: int = 0
    """Bound of the KV kept on disk; 0 = 20 GiB or a quarter of the free space."""
    demo: bool = True
    """Load the demo model when `models` is empty."""
    num_threads: int = 0
    context_size: int = 0
    gpu_layers: int = -1
    """Layers of text models on the GPU; -1 = all."""
    kv_type: KvType = "f16"
    draft_tokens: int = 0
    """Tokens guessed ahead from the text so far and checked in one batch; 0 = none."""
    flash_attention: FlashAttention = "auto"
    memory_budget_bytes: int = 0
    keep_alive_s: float = 0.0
    """Seconds after which an unused model is evicted; 0 = as long as memory allows."""
    max_queued_requests: int = 256
    app: AppOptions = AppOptions()
    drain_timeout_s: float = 10.0
    """Seconds that running requests get to finish at shutdown."""
    log_level: str = "info"

    def load_options(self) -> LoadOptions:
        """The options of text models, of the command line's and of those loaded over HTTP."""
        return LoadOptions(
            context_size=self.context_size,
            gpu_layers=self.gpu_layers,
            kv_type=self.kv_type,
            draft_tokens=self.draft_tokens,
            flash_attention=self.flash_attention,
        )
