"""`snapllm models`: the models of a running server."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Mapping
from typing import Any, get_args

from snapllm.cli.client import RequestError, request, table, url_option
from snapllm.cli.units import parse_image_part, parse_path, parse_seconds_within
from snapllm.hub import is_reference
from snapllm.params import MAX_KEEP_ALIVE_S, KvType


def add_parser(commands: Any) -> None:
    """Adds the command and its actions."""
    parser = commands.add_parser(
        "models",
        help="list, load, switch and unload a server's models",
        description="Lists, loads, switches, pins and unloads the models of a running server.",
    )
    parents = [url_option(parser)]
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="list the models (the default)", parents=parents)
    load = actions.add_parser(
        "load", help="load a GGUF file that the server can read", parents=parents
    )
    load.add_argument("model_id", metavar="ID")
    load.add_argument("path", type=parse_path)
    load.add_argument("--context-size", type=int, default=0)
    load.add_argument("--gpu-layers", type=int, default=-1)
    load.add_argument("--kv-type", choices=get_args(KvType), help="number type of its KV")
    load.add_argument(
        "--mmproj", type=parse_path, metavar="PATH", help="projector that lets it take images"
    )
    load.add_argument(
        "--part",
        type=parse_image_part,
        action="append",
        default=[],
        metavar="PART=PATH",
        help="a further file of an image model: its vae, taesd, clip_l, clip_g, t5xxl, llm or "
        "upscaler; repeatable",
    )
    load.add_argument(
        "--lora-dir", type=parse_path, metavar="PATH", help="folder of an image model's LoRA files"
    )
    load.add_argument("--pin", action="store_true", help="never evict it")
    load.add_argument(
        "--keep-alive",
        type=functools.partial(parse_seconds_within, MAX_KEEP_ALIVE_S),
        metavar="TIME",
    )
    for action, text in (
        ("switch", "make a model the default"),
        ("unload", "unload a model"),
        ("pin", "exempt a model from eviction"),
        ("unpin", "end that"),
    ):
        actions.add_parser(action, help=text, parents=parents).add_argument(
            "model_id", metavar="ID"
        )
    actions.add_parser("stats", help="print the counters as JSON", parents=parents)
    parser.set_defaults(handler=handle, action="list")


def handle(options: argparse.Namespace) -> int:
    """Runs one action against the server."""
    try:
        print(_run(options))
    except RequestError as error:
        print(f"snapllm models: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> str:
    if options.action == "list":
        return _table(request(options.url, "/api/v1/models"))
    if options.action == "stats":
        return json.dumps(request(options.url, "/api/v1/models/cache/stats")["stats"], indent=2)
    if options.action == "load":
        answer = request(options.url, "/api/v1/models/load", _load_body(options))
        return f"{answer['message']} ({answer['load_time_ms']:.0f} ms)"
    if options.action in ("pin", "unpin"):
        body = {"model_id": options.model_id, "pinned": options.action == "pin"}
        return str(request(options.url, "/api/v1/models/pin", body)["message"])
    answer = request(
        options.url, f"/api/v1/models/{options.action}", {"model_id": options.model_id}
    )
    time_ms = answer.get("switch_time_ms")
    took = f" ({time_ms} ms)" if time_ms is not None else ""
    return f"{answer['message']}{took}"


def _load_body(options: argparse.Namespace) -> dict[str, Any]:
    path = str(options.path)
    body = {
        "model_id": options.model_id,
        # Of a model of the hub the server says best what it wants instead.
        "file_path": path if is_reference(path) else str(options.path.absolute()),
        "context_size": options.context_size,
        "gpu_layers": options.gpu_layers,
        "pinned": options.pin,
    }
    paths = {f"{part}_path": path for part, path in options.part}
    paths |= {"mmproj_path": options.mmproj, "lora_dir": options.lora_dir}
    # The server's working directory is another than ours.
    body |= {name: str(path.absolute()) for name, path in paths.items() if path is not None}
    if options.kv_type is not None:
        body["kv_type"] = options.kv_type
    if options.keep_alive is not None:
        body["keep_alive_s"] = options.keep_alive
    return body


def _table(answer: Mapping[str, Any]) -> str:
    rows = [("ID", "STATE", "QUANT", "SIZE", "CONTEXT", "THREADS", "")]
    for model in answer["models"]:
        marks = [name for name in ("active", "pinned") if model.get(name)]
        rows.append(
            (
                model["id"],
                model.get("state", ""),
                model["quantization"] or "",
                f"{model['size_gb']:.2f} GB",
                str(model.get("context_size", "")),
                str(model.get("num_threads", "")),
                ", ".join(marks),
            )
        )
    return table(rows)
