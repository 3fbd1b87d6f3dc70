"""A server's life: listen, load, serve, drain, end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
from aiohttp import web

from snapllm._threads import run_apart
from snapllm.diffusion.options import LoadImageOptions
from snapllm.engine import DEMO_MODEL_ID, Engine, demo_model_path, demo_projector_path
from snapllm.errors import InvalidRequestError, SnapLLMError, StorageError
from snapllm.protocol.native_listing import ComingModel
from snapllm.server.accept_errors import AcceptErrors
from snapllm.server.app import create_app
from snapllm.server.coming import coming_model
from snapllm.server.config import ServerConfig
from snapllm.server.connections import Site
from snapllm.server.keys import STATE, ServerState
from snapllm.server.model_events import log_loaded
from snapllm.server.warm_up import warm_up

log = logging.getLogger("snapllm.server")


HEAD_START_S = 2.0
"""What models have to load in before the server listens: small ones are there from its first
request on, for large ones it does not keep its clients waiting."""


_LOOK_S = 0.02
"""Between looks at what the engine does not know of, when the server ends."""

MAX_WORKSPACES = 8
"""Servers of one user that keep something without being told where."""


class StartupError(Exception):
    """The server cannot start; the message says why."""


async def serve(config: ServerConfig) -> None:
    """Runs a server until SIGTERM, SIGINT or SIGHUP, then drains and returns.

    A second SIGTERM or SIGINT ends the process at once.

    Raises:
        StartupError: The engine cannot be made, the address cannot be had, a model
            cannot be loaded, or an option is none of its kind.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(AcceptErrors())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_exit, stop, number)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        # No second one: of a terminal that is closed, the system and its shell each send one.
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    is_given_none = not config.models
    config = _with_demo(config)
    coming = _coming_models(config)
    engine = _open_engine(config)
    options = msgspec.structs.replace(config.app, load_defaults=config.load_options())
    app = create_app(engine, options)
    # Before the first request: whoever finds the server there finds its models.
    app[STATE].startup.announce(coming)
    if is_given_none and config.models:
        app[STATE].stand_in = DEMO_MODEL_ID
    # A client that leaves cancels its handler, and that its request.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    site = Site(runner, config.host, config.port)
    loads = asyncio.ensure_future(_load_models(engine, app[STATE], config))
    try:
        await _bind(site, config)
        await _loaded_or_stopped(loads, stop, HEAD_START_S)
        await site.start()
        log.info("listening on http://%s", address_of(config.host, runner.addresses[0][1]))
        await _loaded_or_stopped(loads, stop)
        await stop.wait()
        log.info("shutting down: running requests have %g s", config.drain_timeout_s)
        await site.stop()
    finally:
        app[STATE].is_draining = True
        site.close()
        loads.cancel()
        app[STATE].give_up()
        left_s = await _prepared(app[STATE], config.drain_timeout_s)
        await run_apart(engine.close, left_s)
        await runner.cleanup()


async def _prepared(state: ServerState, timeout_s: float) -> float:
    """Waits for what the engine knows nothing of: it refuses, once it is closed, what was not
    submitted before.

    Returns:
        How much of the time is left.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while state.is_preparing() and loop.time() < deadline:
        await asyncio.sleep(_LOOK_S)
    return max(0.0, deadline - loop.time())


async def _bind(site: Site, config: ServerConfig) -> None:
    """Takes the address before anything is loaded: whoever cannot have it learns so at once."""
    try:
        await site.bind()
    except OSError as error:
        address = address_of(config.host, config.port)
        raise StartupError(f"cannot listen on {address}: {error.strerror or error}") from None


def address_of(host: str, port: int) -> str:
    """Host and port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def default_workspaces() -> Iterator[Path]:
    """The user's folders for what outlives a server: the first is a lone server's, the others are
    for those that run beside it."""
    try:
        data = _data_folder()
    except RuntimeError as error:  # a user without a home
        log.warning("%s", error)
        return
    yield data / "snapllm"
    for number in range(2, MAX_WORKSPACES + 1):
        yield data / f"snapllm-{number}"


def _data_folder() -> Path:
    """The user's folder for data. Relative paths are ignored, as the XDG specification says: what
    they name is another folder wherever a server is started.

    Raises:
        RuntimeError: There is none.
    """
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    if data.is_absolute():
        return data
    home = Path.home()
    if not home.is_absolute():
        raise RuntimeError(f"the home folder is not absolute: {home}")
    return home / ".local" / "share"


def _open_engine(config: ServerConfig) -> Engine:
    def open_in(workspace: Path | None) -> Engine:
        return Engine(
            num_threads=config.num_threads,
            memory_budget_bytes=config.memory_budget_bytes,
            keep_alive_s=config.keep_alive_s,
            max_queued_requests=config.max_queued_requests,
            workspace=workspace,
            kv_ram_bytes=config.kv_ram_bytes,
            kv_disk_bytes=config.kv_disk_bytes,
            image_hosts=config.image_hosts,
        )

    try:
        if config.persist and config.workspace is None:
            is_first = True
            for workspace in default_workspaces():
                try:
                    engine = open_in(workspace)
                except InvalidRequestError as error:
                    if error.param != "workspace":
                        raise
                    log.warning("%s", error)  # it is another server's
                    is_first = False
                except StorageError as error:
                    log.warning("%s", error)
                    break
                else:
                    if not is_first:
                        log.info("what is computed is kept in %s instead", workspace)
                    return engine
            log.warning("nothing is kept across restarts")
            return open_in(None)
        return open_in(config.workspace if config.persist else None)
    except SnapLLMError as error:
        raise StartupError(str(error)) from None


def _stop_or_exit(stop: asyncio.Event, number: int) -> None:
    if stop.is_set():
        log.warning("second signal: exiting at once")
        os._exit(128 + number)
    stop.set()


async def _loaded_or_stopped(
    loads: asyncio.Task[None], stop: asyncio.Event, timeout_s: float | None = None
) -> None:
    """Waits for the models, or until the server is to end or the time is over.

    Raises:
        StartupError: A model cannot be loaded.
    """
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({loads, stopping}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if loads.done():
        loads.result()


def _with_demo(config: ServerConfig) -> ServerConfig:
    """The configuration with the demo model, where it is to be served."""
    if config.models or not config.demo:
        return config
    log.info("no --model given: serving the embedded demo model as %r", DEMO_MODEL_ID)
    return msgspec.structs.replace(
        config,
        models=((DEMO_MODEL_ID, demo_model_path()),),
        projectors=((DEMO_MODEL_ID, demo_projector_path()),),
    )


def _coming_models(config: ServerConfig) -> list[ComingModel]:
    """The models of the command line, as far as a look at their files tells.

    Raises:
        StartupError: LoRAs are given for one that takes none.
    """
    with_parts = {owner for owner, _, _ in config.parts}
    with_projector = {owner for owner, _ in config.projectors}
    with_loras = {owner for owner, _ in config.lora_dirs}
    coming = [
        coming_model(
            model_id,
            path,
            has_parts=model_id in with_parts,
            has_projector=model_id in with_projector,
        )
        for model_id, path in config.models
    ]
    for model in coming:
        is_text_model = Path(model.file_path).exists() and not model.is_image_model
        if model.id in with_loras and is_text_model:
            raise StartupError(f"model {model.id}: lora_dir: only an image model has it")
    return coming


async def _load_models(engine: Engine, state: ServerState, config: ServerConfig) -> None:
    """Loads the models that were announced, in order, while the server answers."""
    for model in state.startup.models:
        try:
            await engine.runner.threads.loading.run(_load_model, engine, config, model)
        except SnapLLMError as error:
            raise StartupError(f"model {model.id}: {error}") from None
        state.startup.settle(model.id)


def _load_model(engine: Engine, config: ServerConfig, model: ComingModel) -> None:
    if model.is_image_model:
        parts = cast(
            LoadImageOptions,
            {part: file for owner, part, file in config.parts if owner == model.id},
        )
        parts["lora_dir"] = dict(config.lora_dirs).get(model.id)
        log_loaded(engine.load_diffusion(model.file_path, model.id, **parts).info)
        return
    options = config.load_options()
    options["mmproj_path"] = dict(config.projectors).get(model.id, "")
    loaded = engine.load(model.file_path, model.id, **options)
    log_loaded(loaded.info)
    warm_up(engine, loaded.id)
