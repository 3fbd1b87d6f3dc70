"""`snapllm serve`: the HTTP server."""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import logging
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

from snapllm.cli.pull import with_files
from snapllm.cli.serve_checks import problem_of
from snapllm.cli.units import (
    USAGE_ERROR,
    expand_home,
    parse_bytes,
    parse_host,
    parse_image_part,
    parse_key,
    parse_key_file,
    parse_listen_host,
    parse_origin,
    parse_path,
    parse_seconds_within,
)
from snapllm.engine import MAX_DRAFT_TOKENS, MAX_DRAIN_TIMEOUT_S, MAX_THREADS
from snapllm.errors import InvalidRequestError, SnapLLMError
from snapllm.params import MAX_KEEP_ALIVE_S, FlashAttention, KvType
from snapllm.server.config import ServerConfig
from snapllm.server.options import AppOptions

_DEFAULTS = ServerConfig()
_LEVELS = ("debug", "info", "warning", "error")
_COUNT_END = 1 << 31
_MAX_OPEN_FILES = 65_536


def _model(text: str) -> tuple[str, Path]:
    model_id, separator, path = text.partition("=")
    if not separator or not model_id or not path:
        raise argparse.ArgumentTypeError(f"expected ID=PATH, not {text!r}")
    return model_id, expand_home(path)


def _part(text: str) -> tuple[str, str, Path]:
    name, separator, path = text.partition("=")
    model_id, dot, part = name.rpartition(".")
    if not separator or not dot or not model_id or not path:
        raise argparse.ArgumentTypeError(f"expected ID.PART=PATH, not {text!r}")
    return (model_id, *parse_image_part(f"{part}={path}"))


def _alias(text: str) -> tuple[str, str]:
    name, separator, model_id = text.partition("=")
    if not separator or not name or not model_id:
        raise argparse.ArgumentTypeError(f"expected NAME=ID, not {text!r}")
    return name, model_id


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) >= _COUNT_END:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, not {text!r}")
    return int(text)


def _at_most(bound: int, text: str) -> int:
    if _count(text) > bound:
        raise argparse.ArgumentTypeError(f"expected at most {bound}, not {text!r}")
    return int(text)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < _COUNT_END:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {_COUNT_END - 1}")
    return int(text)


def _layers(text: str) -> int:
    return -1 if text == "-1" else _count(text)


def add_parser(commands: Any) -> None:
    """Adds the command's options."""
    parser = commands.add_parser(
        "serve",
        help="serve models over HTTP",
        description="Serves models over HTTP to OpenAI clients and natively.",
    )
    d = _DEFAULTS
    parser.add_argument(
        "--host",
        type=parse_listen_host,
        default=d.host,
        help="address to listen on (%(default)s, and ::1 beside it; :: is all of IPv6 and IPv4)",
    )
    parser.add_argument(
        "--port", type=_port, default=d.port, help="port; 0 = any free one (%(default)s)"
    )
    parser.add_argument(
        "--model",
        type=_model,
        action="append",
        default=[],
        metavar="ID=PATH",
        help="load this GGUF file, or image model, under this id; hf:OWNER/REPO:TAG downloads one "
        "first; repeatable (default: the demo model)",
    )
    parser.add_argument(
        "--mmproj",
        type=_model,
        action="append",
        default=[],
        metavar="ID=PATH",
        help="projector file that lets the model of this id take images; repeatable",
    )
    parser.add_argument(
        "--part",
        type=_part,
        action="append",
        default=[],
        metavar="ID.PART=PATH",
        help="a further file of the image model of this id: its vae, taesd, clip_l, clip_g, "
        "t5xxl, llm or upscaler; repeatable",
    )
    parser.add_argument(
        "--lora-dir",
        type=_model,
        action="append",
        default=[],
        metavar="ID=DIR",
        help="folder of LoRA files for the image model of this id; repeatable",
    )
    parser.add_argument(
        "--image-host",
        type=parse_host,
        action="append",
        default=[],
        metavar="HOST",
        help="fetch images that requests name by a URL of this host, or of any below "
        "'*.HOST'; repeatable (default: none)",
    )
    parser.add_argument(
        "--no-demo", action="store_true", help="start empty when no --model is given"
    )
    keeping = parser.add_mutually_exclusive_group()
    keeping.add_argument(
        "--workspace",
        type=parse_path,
        metavar="DIR",
        help="folder for what is kept across restarts (default: the user's data folder)",
    )
    keeping.add_argument("--no-workspace", action="store_true", help="keep nothing across restarts")
    parser.add_argument(
        "--kv-ram", type=_count, default=0, metavar="MB", help="MB of KV kept in RAM; 0 = chosen"
    )
    parser.add_argument(
        "--kv-disk", type=_count, default=0, metavar="MB", help="MB of KV kept on disk; 0 = chosen"
    )
    parser.add_argument(
        "--threads",
        type=functools.partial(_at_most, MAX_THREADS),
        default=0,
        help="compute threads at most; 0 = as many as there are physical cores",
    )
    parser.add_argument(
        "--context-size", type=_count, default=0, help="tokens per request; 0 = as the model allows"
    )
    parser.add_argument(
        "--gpu-layers",
        type=_layers,
        default=d.gpu_layers,
        metavar="N",
        help="layers of text models on the GPU; -1 = all (the default)",
    )
    parser.add_argument(
        "--kv-type",
        choices=get_args(KvType),
        default=d.kv_type,
        help="number type of text models' KV: q8_0 takes half the memory of f16 (%(default)s)",
    )
    parser.add_argument(
        "--draft-tokens",
        type=functools.partial(_at_most, MAX_DRAFT_TOKENS),
        default=d.draft_tokens,
        help="guess so many tokens ahead from the text so far, at most 15: answers that quote "
        "get faster, none gets another; 0 = none (the default)",
    )
    parser.add_argument(
        "--flash-attention",
        choices=get_args(FlashAttention),
        default=d.flash_attention,
        help="of text models; auto: on where answers do not come to depend on what else is "
        "computed at the same time (auto)",
    )
    parser.add_argument(
        "--memory-budget",
        type=parse_bytes,
        default=0,
        metavar="SIZE",
        help="memory for models, as 8GiB or 800MB; 0 = what the machine has free",
    )
    parser.add_argument(
        "--keep-alive",
        type=functools.partial(parse_seconds_within, MAX_KEEP_ALIVE_S),
        default=d.keep_alive_s,
        metavar="TIME",
        help="evict a model that nobody used for so long, as 90s, 10m or 2h, until it is "
        "asked for again; 0 = only when memory is short (the default)",
    )
    parser.add_argument(
        "--drain-timeout",
        type=functools.partial(parse_seconds_within, MAX_DRAIN_TIMEOUT_S),
        default=d.drain_timeout_s,
        metavar="TIME",
        help="how long running requests get at shutdown, as 90s or 10m (%(default)s s)",
    )
    parser.add_argument(
        "--alias",
        type=_alias,
        action="append",
        default=[],
        metavar="NAME=ID",
        help="serve model ID under this name too; * stands for anything: 'claude-*=demo'",
    )
    parser.add_argument(
        "--api-key",
        type=parse_key,
        action="append",
        default=[],
        metavar="KEY",
        help="require this key; repeatable; keys share no cached prompts (default: no key)",
    )
    parser.add_argument(
        "--api-key-file",
        type=parse_key_file,
        action="extend",
        default=[],
        metavar="FILE",
        help="require one of this file's keys, one a line, which no list of processes shows; "
        "repeatable",
    )
    parser.add_argument(
        "--cors-origin",
        type=parse_origin,
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this origin ask; repeatable; * = all (default: none)",
    )
    parser.add_argument(
        "--default-max-tokens",
        type=_limit,
        default=d.app.default_max_tokens,
        metavar="N",
        help="tokens of a chat completion whose request sets no limit (default: %(default)s), and "
        "of a response, which has 4096 at least",
    )
    parser.add_argument(
        "--keep-billing-header",
        action="store_true",
        help="keep Claude Code's billing line, which changes with every request, in prompts",
    )
    parser.add_argument("--log-level", choices=_LEVELS, default=d.log_level)
    parser.set_defaults(handler=handle)


@contextmanager
def _without_collections() -> Iterator[None]:
    """For imports: what they make stays. Collections while they go on, later ones that go through
    it again, and those at the end of the interpreter would find nothing in it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _allow_many_files() -> None:
    """Takes of the limit of open files what it may: a connection needs one, and a request another.

    The 1,024 that are usual are for programs that use select(2), and more connections than that
    leave no file to any request.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(most, _MAX_OPEN_FILES)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        # Some systems allow less than they say.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def handle(options: argparse.Namespace) -> int:
    """Runs the server until it is told to stop."""
    if problem := problem_of(options):
        print(f"snapllm serve: {problem}", file=sys.stderr)
        return USAGE_ERROR
    try:
        models, projectors = with_files(options.model, options.mmproj)
    except SnapLLMError as error:
        print(f"snapllm serve: {error}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, InvalidRequestError) else 1
    with _without_collections():
        from snapllm.server.run import StartupError, serve

    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    config = ServerConfig(
        host=options.host,
        port=options.port,
        models=tuple(models),
        projectors=tuple(projectors),
        parts=tuple(options.part),
        lora_dirs=tuple(options.lora_dir),
        image_hosts=tuple(options.image_host),
        workspace=options.workspace,
        persist=not options.no_workspace,
        kv_ram_bytes=options.kv_ram * 1_000_000,
        kv_disk_bytes=options.kv_disk * 1_000_000,
        demo=not options.no_demo,
        num_threads=options.threads,
        context_size=options.context_size,
        gpu_layers=options.gpu_layers,
        kv_type=options.kv_type,
        draft_tokens=options.draft_tokens,
        flash_attention=options.flash_attention,
        memory_budget_bytes=options.memory_budget,
        keep_alive_s=options.keep_alive,
        drain_timeout_s=options.drain_timeout,
        log_level=options.log_level,
        app=AppOptions(
            aliases=tuple(options.alias),
            api_keys=(*options.api_key, *options.api_key_file),
            cors_origins=tuple(options.cors_origin),
            default_max_tokens=options.default_max_tokens,
            strip_billing_header=not options.keep_billing_header,
        ),
    )
    _allow_many_files()
    try:
        asyncio.run(serve(config))
    except (StartupError, OSError) as error:
        print(f"snapllm serve: {error}", file=sys.stderr)
        return 1
    return 0
