"""The engine: many resident models in one process."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Sequence
from importlib import resources
from os import PathLike, fsencode
from pathlib import Path
from typing import Annotated, TypeAlias

from msgspec import Meta
from typing_extensions import Unpack

from snapllm import _core, _lifetime
from snapllm._checks import (
    check_host,
    check_model_id,
    check_model_path,
    check_path,
    check_text,
    convert,
    path_text,
    plain_number,
)
from snapllm._media import MediaPolicy
from snapllm._model_ids import ModelIds, default_id
from snapllm._numbers import INT32_MAX, INT64_MAX
from snapllm._probe import check_projector
from snapllm._reprs import add_reprs
from snapllm._runner import Runner
from snapllm._templates import TemplateTrials
from snapllm.contexts import ContextManager
from snapllm.diffusion import ImageModel
from snapllm.diffusion.options import LoadImageOptions
from snapllm.diffusion.registry import ImageModels
from snapllm.errors import (
    EngineClosedError,
    InvalidRequestError,
    ModelFileNotFoundError,
    ModelNotFoundError,
)
from snapllm.model import Model
from snapllm.params import MAX_KEEP_ALIVE_S, LoadOptions
from snapllm.totals import TotalsKeeper

MAX_THREADS = 512
MAX_DRAFT_TOKENS = 15  # the core's
MAX_DRAIN_TIMEOUT_S = 1_000_000
DEMO_MODEL_ID = "demo"

add_reprs()

_Threads: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_THREADS)]
_Bytes: TypeAlias = Annotated[int, Meta(ge=0, le=INT64_MAX)]
_KeepAlive: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_KEEP_ALIVE_S)]
_QueueLength: TypeAlias = Annotated[int, Meta(ge=1, le=INT32_MAX)]


def _charger(core: _core.Engine) -> Callable[[str, int, str], None]:
    """Charges memory to a core's budget while there is that core: what is charged for, a thread
    with an image model, must not keep it."""
    held = weakref.ref(core)

    def charge(key: str, num_bytes: int, what: str) -> None:
        if (core := held()) is not None:
            core.set_external_memory(key, num_bytes, what)

    return charge


def _computing(core: _core.Engine) -> Callable[[], bool]:
    """Tells whether a text model of a core that could be evicted has requests; see `_charger`."""
    held = weakref.ref(core)

    def is_computing() -> bool:
        if (core := held()) is None:
            return False
        pinned = {info.id for info in core.models() if info.pinned}
        models = (model for model in core.stats().models if model.id not in pinned)
        return any(model.num_running or model.num_waiting for model in models)

    return is_computing


def _demo_file(name: str) -> Path:
    path = Path(str(resources.files("snapllm") / "demo" / name))
    if not path.is_file():
        raise ModelFileNotFoundError(f"this installation has no {name}", filename=str(path))
    return path


def demo_model_path() -> Path:
    """The embedded demo model's GGUF file.

    Raises:
        ModelFileNotFoundError: This installation was built without it.
    """
    return _demo_file("demo.gguf")


def demo_projector_path() -> Path:
    """The demo model's eyes: the projector file with which it sees pictures.

    Raises:
        ModelFileNotFoundError: This installation was built without it.
    """
    return _demo_file("demo-mmproj.gguf")


class Engine(_lifetime.ClosedAtExit):
    """Loads models, keeps them resident and switches between them.

    A context manager; any thread may use it. Requests run on one compute thread in
    C++, many at once.

    Args:
        num_threads: Threads a model may compute with; 0 = the physical cores.
        memory_budget_bytes: Memory that models, the KV kept in RAM and what is charged by
            `set_external_memory` may take; 0 = what the machine has free.
        keep_alive_s: Seconds after which a model that nobody uses is evicted, to come back
            when it is asked for; 0 = never for that reason.
        max_queued_requests: Requests that wait per model before `QueueFullError`.
        workspace: Folder in which the KV of prompts outlives the process; made when
            missing. None keeps it in RAM only.
        kv_ram_bytes: Bound of the KV kept in RAM; 0 = an eighth of the free memory, or of the
            budget, at most 8 GiB.
        kv_disk_bytes: Bound of the KV kept in the workspace, which contexts alone may exceed;
            0 = a quarter of the space that is free or already taken by it, 20 GiB at most.
        image_hosts: Hosts that images may be fetched from where a chat names them by an
            http(s) URL, ``*.example.org`` for all below one; none = URLs are refused.

    Raises:
        InvalidRequestError: An argument is out of range, or another engine uses the
            workspace, of this process or another.
        StorageError: The workspace cannot be made or written.
    """

    def __init__(
        self,
        *,
        num_threads: int = 0,
        memory_budget_bytes: int = 0,
        keep_alive_s: float = 0.0,
        max_queued_requests: int = 256,
        workspace: str | PathLike[str] | None = None,
        kv_ram_bytes: int = 0,
        kv_disk_bytes: int = 0,
        image_hosts: Sequence[str] = (),
    ) -> None:
        if isinstance(image_hosts, str):
            raise InvalidRequestError(
                "image_hosts: expected a sequence of hosts, not one text", param="image_hosts"
            )
        hosts = convert(image_hosts, tuple[str, ...], "image_hosts")
        for number, host in enumerate(hosts):
            check_host(host, f"image_hosts[{number}]")
        folder = "" if workspace is None else path_text(workspace, "workspace")
        if workspace is not None and not folder:
            raise InvalidRequestError("workspace is empty", param="workspace")
        # As bytes: names of folders need not be UTF-8.
        options = _core.EngineOptions(workspace=fsencode(folder))
        for name, value, kind in (
            ("num_threads", num_threads, _Threads),
            ("memory_budget_bytes", memory_budget_bytes, _Bytes),
            ("keep_alive_s", keep_alive_s, _KeepAlive),
            ("max_queued_requests", max_queued_requests, _QueueLength),
            ("kv_ram_bytes", kv_ram_bytes, _Bytes),
            ("kv_disk_bytes", kv_disk_bytes, _Bytes),
        ):
            setattr(options, name, convert(plain_number(value), kind, name))
        try:
            core = _core.Engine(options)
        except InvalidRequestError as error:  # the rest was checked
            error.param = "workspace"
            raise
        self._runner = Runner(core, options.max_queued_requests)
        self.totals = TotalsKeeper(core.stats, self._runner.gate)
        """The counters, with those of models that were unloaded."""
        if hosts:
            # Not imported without need: TLS and HTTP take a while.
            from snapllm._fetch import UrlFetcher

            self._runner.media_policy = MediaPolicy(fetch=UrlFetcher(hosts))
        self.contexts = ContextManager(self._runner, Path(folder) / "contexts" if folder else None)
        """Documents whose KV is computed once and kept."""
        self._ids = ModelIds()
        self._templates = TemplateTrials(Path(folder) if folder else None)
        self._images = ImageModels(
            _charger(core),
            options.num_threads or _core.available_cpus(),
            options.keep_alive_s,
            self._runner.gate,
            _computing(core),
        )
        images = weakref.ref(self._images)  # the core must not keep alive what keeps it
        core.set_external_holder(
            lambda: (held := images()) is not None and held.give_back(),
            lambda: (held := images()) is not None and held.may_give_back(),
        )
        _lifetime.watch(core, self._runner.gate, self._images)

    def __repr__(self) -> str:
        try:
            self._runner.gate.check_open()
        except EngineClosedError:
            is_ours = not self._runner.gate.is_abandoned
            return f"<snapllm.Engine, {'closed' if is_ours else 'of another process'}>"
        models = [f"{info.id!r} ({info.state})" for info in self._runner.core.models()]
        models += [f"{model.id!r} (images)" for model in self._images.all()]
        return f"<snapllm.Engine of {', '.join(models) or 'no model'}>"

    @property
    def runner(self) -> Runner:
        """Runs neutral requests; for the server."""
        return self._runner

    def load(
        self,
        path: str | PathLike[str],
        model_id: str | None = None,
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Makes a GGUF model resident; the first one becomes the active model.

        Takes as long as the file takes to load; other models go on meanwhile. Where
        memory is short, idle models are evicted; they come back when they are asked for.
        Loading the same file under the same id again returns the resident model. Two ids
        of one file share its weights.

        Args:
            path: The GGUF file; of a model that was split, the first part.
            model_id: The id to use it under; by default the file's stem, without a part's number.
            **options: See `snapllm.params.LoadOptions`.

        Raises:
            ModelFileNotFoundError: There is no such file.
            InvalidModelError: The file is not a model that this build can load.
            OutOfMemoryError: It does not fit; the message says what it would need.
            ModelFileReplacedError: The model is loaded, and its file is another one by now.
            InvalidRequestError: An option is wrong, or the id is taken.
        """
        self._runner.gate.check_open()
        unknown = options.keys() - set(LoadOptions.__annotations__)
        if unknown:
            raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
        path = check_model_path(path)
        model_id = check_model_id(default_id(path) if model_id is None else model_id)
        given = options.get("mmproj_path")
        mmproj_path = "" if given is None else check_path(given, "mmproj_path")
        options["mmproj_path"] = mmproj_path
        core_options = _core.ModelOptions(path=path)
        for name, value in options.items():
            try:
                setattr(core_options, name, value)
            except InvalidRequestError:
                raise
            except (TypeError, ValueError):
                raise InvalidRequestError(
                    f"{name}: {value!r} is of the wrong type, or out of range", param=name
                ) from None
        if "batch_tokens" in options and "ubatch_tokens" not in options:
            # Its default may be more than the batch, and would be refused.
            core_options.ubatch_tokens = min(core_options.ubatch_tokens, core_options.batch_tokens)
        self._templates.check(path, core_options.chat_template)
        if mmproj_path:
            check_projector(path, mmproj_path)
        with self._ids.loading(model_id, "text", path, lambda: self._images):
            self._runner.core.load(model_id, core_options)
        return Model(self._runner, model_id)

    def load_demo(self, model_id: str = DEMO_MODEL_ID, **options: Unpack[LoadOptions]) -> Model:
        """Loads the small demo model that comes with the package, with its eyes."""
        options.setdefault("mmproj_path", demo_projector_path())
        return self.load(demo_model_path(), model_id, **options)

    def load_diffusion(
        self,
        path: str | PathLike[str],
        model_id: str | None = None,
        **options: Unpack[LoadImageOptions],
    ) -> ImageModel:
        """Loads an image model; the first one becomes the active image model.

        It runs in a process of its own, which is started again should it die. Its memory
        is charged to the engine's budget. Loading the same file under the same id again
        returns the model that is there.

        Args:
            path: A GGUF or safetensors file with the whole model, or its diffusion model.
            model_id: The id to use it under; the file's stem by default.
            **options: See `snapllm.diffusion.options.LoadImageOptions`.

        Raises:
            ModelFileNotFoundError: A file cannot be read.
            InvalidModelError: A file is damaged, or they make no image model.
            OutOfMemoryError: It does not fit.
            InvalidRequestError: An option is wrong, or the id is taken, as by the same file
                with other options.
        """
        path = check_model_path(path)
        model_id = check_model_id(default_id(path) if model_id is None else model_id)

        def texts() -> list[str]:
            return [info.id for info in self._runner.core.models()]

        with self._ids.loading(model_id, "image", path, texts):
            return self._images.load(path, model_id, options)

    def image_model(self, model_id: str | None = None) -> ImageModel:
        """A loaded image model; the active one by default.

        Raises:
            ModelNotFoundError: There is none.
        """
        self._runner.gate.check_open()
        return self._images.get(None if model_id is None else check_text(model_id, "model_id"))

    def image_models(self) -> list[ImageModel]:
        """All loaded image models, in the order of their loads."""
        return self._images.all()

    @property
    def active_image_model(self) -> str | None:
        """The id of the default image model; None when none is loaded."""
        return self._images.active

    def unload(self, model_id: str) -> None:
        """Ends the requests of a model of any kind and frees its memory.

        Raises:
            ModelNotFoundError: No model is loaded under that id.
        """
        self._runner.gate.check_not_shut()
        if check_text(model_id, "model_id") in self._images:
            self._images.unload(model_id)
            return
        self.totals.end(model_id, self._runner.core.unload(model_id))

    def pin(self, model_id: str) -> None:
        """Exempts a model of any kind from eviction.

        Raises:
            ModelNotFoundError: No model is loaded under that id.
        """
        self._set_pinned(model_id, True)

    def unpin(self, model_id: str) -> None:
        """Ends a pin; see `pin`."""
        self._set_pinned(model_id, False)

    def _set_pinned(self, model_id: str, pinned: bool) -> None:
        self._runner.gate.check_not_shut()
        if check_text(model_id, "model_id") in self._images:
            self._images.get(model_id).pinned = pinned
        else:
            self._runner.core.set_pinned(model_id, pinned)

    def set_external_memory(self, name: str, num_bytes: int) -> None:
        """Charges memory that something outside of the engine holds to the budget.

        Args:
            name: Who holds it.
            num_bytes: All that it holds from now on; 0 = nothing any more. Idle models
                are evicted to make room.

        Raises:
            InvalidRequestError: An argument is of the wrong type, or out of range.
            OutOfMemoryError: There is no room; what was charged before still is.
        """
        num_bytes = convert(plain_number(num_bytes), _Bytes, "num_bytes")
        self._runner.core.set_external_memory(check_text(name, "name"), num_bytes)

    def switch(self, model_id: str) -> None:
        """Makes a loaded model the default for requests of its kind that name none.

        Raises:
            ModelNotFoundError: No model is loaded under that id.
        """
        self._runner.gate.check_not_shut()
        # The core first: text models are switched between in microseconds.
        try:
            self._runner.core.switch_model(check_text(model_id, "model_id"))
        except ModelNotFoundError:
            if model_id not in self._images:
                raise
            self._images.switch(model_id)

    @property
    def active_model(self) -> str | None:
        """The id of the default model; None when none is loaded."""
        return self._runner.core.active_model() or None

    def model(self, model_id: str | None = None) -> Model:
        """A loaded model, in memory or evicted; the active one by default.

        Args:
            model_id: Its id, or ``model@context`` for a chat about a context's document.

        Raises:
            ModelNotFoundError: No model is loaded under that id.
        """
        self._runner.gate.check_not_shut()
        core, wanted = self._runner.core, check_text(model_id or "", "model_id")
        try:
            return Model(self._runner, core.model_info(wanted).id)
        except ModelNotFoundError:
            # "@context" alone is of the active model.
            names = ["", *(info.id for info in core.models())]
            if not any(wanted.startswith(f"{name}@") for name in names):
                raise
        return Model(self._runner, wanted)

    def models(self) -> list[Model]:
        """All loaded models, in the order of their first loads; `Model.info.state` tells which are
        in memory."""
        return [Model(self._runner, info.id) for info in self._runner.core.models()]

    def stats(self) -> _core.EngineStats:
        """Counters of the engine and of each loaded model."""
        return self._runner.core.stats()

    def close(self, drain_timeout_s: float = 0.0) -> None:
        """Ends the engine and frees its memory; requests and contexts raise `EngineClosedError`
        from now on, and so do those that it cuts off.

        Ctrl-C ends the waiting and then the engine. On the thread of an event loop no embedding
        or image of that loop can finish meanwhile: call it by `asyncio.to_thread` there.

        Args:
            drain_timeout_s: Seconds that requests of all kinds, and contexts that are being
                computed, get to finish; then they are ended. Images that wait count too.

        Raises:
            InvalidRequestError: It is no number, or out of range.
        """
        drain_timeout_s = convert(plain_number(drain_timeout_s), float, "drain_timeout_s")
        if not 0 <= drain_timeout_s <= MAX_DRAIN_TIMEOUT_S:
            raise InvalidRequestError(
                f"drain_timeout_s must be between 0 and {MAX_DRAIN_TIMEOUT_S}",
                param="drain_timeout_s",
            )
        deadline = time.monotonic() + drain_timeout_s
        with contextlib.closing(self._runner.core) as core:
            with contextlib.closing(self._images):
                self.contexts.stop_expiry()
                self._runner.gate.close(drain_timeout_s)
            core.drain(int(max(0.0, deadline - time.monotonic()) * 1000))
