"""The image models of an engine."""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path

from snapllm._gate import Gate
from snapllm._model_ids import check_is_there
from snapllm.diffusion.image_model import ImageModel, Worker
from snapllm.diffusion.options import ImageModelOptions, LoadImageOptions, read_options
from snapllm.diffusion.traits import traits_of
from snapllm.diffusion.weights_file import WeightsFile, read_header
from snapllm.errors import (
    EngineClosedError,
    InvalidModelError,
    InvalidRequestError,
    ModelNotFoundError,
    SnapLLMError,
)

COMPUTE_BYTES = 128 << 20
"""What a worker is charged for beside its weights until more of it is known."""


class _Load:
    """A load that may be ended from outside. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self.is_cancelled = False

    def note_worker(self, worker: Worker) -> None:
        """Says what loads the model; raises where that is not wanted any more."""
        with self._lock:
            self._worker = worker
        self.check()

    def cancel(self) -> None:
        """Has the load fail, at once where it is a process's."""
        with self._lock:
            self.is_cancelled, worker = True, self._worker
        if worker is not None:
            worker.close()

    def check(self) -> None:
        """Raises `EngineClosedError` where it was cancelled."""
        if self.is_cancelled:
            raise self.end()

    @staticmethod
    def end() -> EngineClosedError:
        """What a cancelled load fails with."""
        return EngineClosedError("the load of the image model was cancelled, or the engine closed")


class ImageModels:
    """Loads image models and finds them again.

    Args:
        charge: Called with a key for what is charged, all the memory it takes from now on, and what
            to call it; raises `OutOfMemoryError` when there is no room.
        num_threads: Threads a model computes with where its options name none.
        keep_alive_s: Seconds after which an unused model is evicted whose options say nothing
            else; 0 = never for that reason.
        gate: Lets models be loaded and images be asked for.
        is_computing: Whether a model of another kind, which could be evicted, has requests.
    """

    def __init__(
        self,
        charge: Callable[[str, int, str], None],
        num_threads: int,
        keep_alive_s: float,
        gate: Gate,
        is_computing: Callable[[], bool],
    ) -> None:
        self._charge, self._num_threads, self._gate = charge, num_threads, gate
        self._keep_alive_s, self._is_computing = keep_alive_s, is_computing
        self._changed = threading.Condition()
        self._in_process = threading.Lock()  # upstream's loads are one at a time there
        self._loads: dict[str, _Load] = {}
        self._models: dict[str, ImageModel] = {}
        self._active: str | None = None
        self._is_closed = False
        self._numbers = itertools.count(1)

    def load(
        self, path: str | PathLike[str], model_id: str, options: LoadImageOptions
    ) -> ImageModel:
        """Loads a model; see `Engine.load_diffusion`."""
        self._gate.check_open()
        path = Path(path).absolute()
        wanted = read_options(options)
        load = _Load()
        with self._changed:
            self._changed.wait_for(lambda: model_id not in self._loads)
            if self._is_closed:
                raise load.end()
            found = self._models.get(model_id)
            if found is None:
                self._loads[model_id] = load
        if found is not None:
            _take_again(found, path, wanted)
            return found
        try:
            return self._load(path, model_id, wanted, load)
        finally:
            with self._changed:
                del self._loads[model_id]
                self._changed.notify_all()

    def _load(
        self, path: Path, model_id: str, options: ImageModelOptions, load: _Load
    ) -> ImageModel:
        headers = _read_headers(path, options)
        with contextlib.nullcontext() if options.isolated else self._in_process:
            try:
                model = self._start(model_id, headers, options, load)
            except SnapLLMError:
                load.check()  # what it failed with may be its end
                raise
        with self._changed:
            if not (self._is_closed or load.is_cancelled):
                self._models[model_id] = model
                self._active = self._active or model_id
                return model
        model.close()
        raise load.end()

    def _start(
        self,
        model_id: str,
        headers: Mapping[str, WeightsFile],
        options: ImageModelOptions,
        load: _Load,
    ) -> ImageModel:
        file_bytes = sum(header.num_bytes for header in headers.values())
        expected = file_bytes + COMPUTE_BYTES
        # While one of this id still ends, another may be loaded.
        what = f"image model {model_id}"
        key = f"{what} ({next(self._numbers)})"
        keep_alive_s = self._keep_alive_s if options.keep_alive_s is None else options.keep_alive_s
        # Neither holds this, which ends when nobody does.
        charge, models = self._charge, weakref.ref(self)

        def note_memory(measured: int | None) -> None:
            charge(key, 0 if measured is None else max(measured, expected), what)

        def is_room_coming() -> bool:
            return (held := models()) is not None and held.is_busy_beside(model_id)

        charge(key, expected, what)
        try:
            return ImageModel(
                model_id,
                {part: str(header.path) for part, header in headers.items()},
                file_bytes,
                options,
                traits_of(headers),
                num_threads=options.num_threads or self._num_threads,
                keep_alive_s=keep_alive_s,
                on_memory=note_memory,
                on_worker=load.note_worker,
                is_room_coming=is_room_coming,
                gate=self._gate,
            )
        except BaseException:
            charge(key, 0, what)
            raise

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._models or model_id in self._loads

    @property
    def active(self) -> str | None:
        """The id of the model for requests that name none."""
        return self._active

    def switch(self, model_id: str) -> None:
        """Makes a model the active one; raises `ModelNotFoundError`."""
        with self._changed:
            self._active = self._find(model_id).id

    def get(self, model_id: str | None = None) -> ImageModel:
        """A model by its id, or the active one.

        Raises:
            ModelNotFoundError: There is none.
        """
        with self._changed:
            return self._find(model_id)

    def _find(self, model_id: str | None) -> ImageModel:
        if not model_id and self._active is None:
            raise ModelNotFoundError("no image model is loaded")
        model = self._models.get(model_id or self._active or "")
        if model is None:
            raise ModelNotFoundError(f"Model not found: {model_id}")
        return model

    def all(self) -> list[ImageModel]:
        """All models, in the order of their loads."""
        with self._changed:
            return list(self._models.values())

    def is_busy_beside(self, model_id: str) -> bool:
        """Whether another model, of any kind, that could be evicted has requests now."""
        others = (model for model in self.all() if model.id != model_id and model.can_go)
        return self._is_computing() or any(model.is_busy for model in others)

    def give_back(self) -> bool:
        """Evicts the model that has been idle longest; False when none can go."""
        return any(model.evict() for model in sorted(self.all(), key=lambda model: model.used_at))

    def may_give_back(self) -> bool:
        """Whether a model that is busy now could go once it is idle."""
        return any(model.is_busy and model.can_go for model in self.all())

    def unload(self, model_id: str) -> None:
        """Ends a model's requests and its worker, or its load; raises `ModelNotFoundError`."""
        with self._changed:
            load = None if model_id in self._models else self._loads.get(model_id)
            if load is not None:
                load.is_cancelled = True  # before it puts its model among the others
        if load is not None:
            load.cancel()
            return
        with self._changed:
            model = self._find(model_id)
            del self._models[model.id]
            if self._active == model.id:
                left = sorted(self._models.values(), key=lambda each: each.used_at)
                self._active = left[-1].id if left else None
        model.close()

    def close(self) -> None:
        """Unloads all models; none can be loaded afterwards."""
        with self._changed:
            self._is_closed, self._active = True, None
            models, loads = list(self._models.values()), list(self._loads.values())
            self._models.clear()
        for load in loads:
            load.cancel()
        for model in models:
            model.close()


def _read_headers(path: Path, options: ImageModelOptions) -> dict[str, WeightsFile]:
    """The headers of a model's files by part, checked.

    Raises:
        ModelFileNotFoundError: A file cannot be read.
        InvalidModelError: A file is damaged, or they make no image model.
    """
    main = read_header(path)
    if not main.is_image_model:
        raise InvalidModelError(f"{path}: the file is not an image model", param="path")
    headers = {"model" if main.is_whole else "diffusion_model": main}
    headers |= {part: read_header(file) for part, file in options.parts.items()}
    if not main.is_whole and not headers.keys() & {"vae", "taesd"}:
        raise InvalidModelError(
            f"{path}: the file has the diffusion model alone; give its vae or taesd, and "
            "its text encoders (clip_l, clip_g, t5xxl or llm)",
            param="path",
        )
    return headers


def _take_again(model: ImageModel, path: Path, wanted: ImageModelOptions) -> None:
    """Loads a model for the second time: it is there already.

    Raises:
        ModelFileNotFoundError: There is no such file.
        InvalidRequestError: It is of another file, or has not what is wanted of it now.
    """
    own = Path(model.info.path)
    if path != own:
        check_is_there(path)
        if not (own.exists() and path.samefile(own)):
            raise InvalidRequestError(f"model_id {model.id} is taken by {own}", param="model_id")
    if not wanted.agrees(model.options):
        raise InvalidRequestError(
            f"model_id {model.id} is loaded with other options: unload it first", param="model_id"
        )
    model.pinned = model.pinned or wanted.pinned
    if wanted.keep_alive_s is not None:
        model.keep_alive_s = wanted.keep_alive_s
