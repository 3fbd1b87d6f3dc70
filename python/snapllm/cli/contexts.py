"""`snapllm contexts`: the contexts of a running server."""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from snapllm.cli.client import (
    RequestError,
    download,
    download_into,
    request,
    table,
    upload,
    url_option,
)
from snapllm.cli.units import parse_path, parse_seconds_within
from snapllm.contexts.record import MAX_TTL_SECONDS

_API = "/api/v1/contexts"
_TEXT_HELP = "a text file in UTF-8; - = what is piped in"


def add_parser(commands: Any) -> None:
    """Adds the command and its actions."""
    parser = commands.add_parser(
        "contexts",
        help="list, ingest, ask, extend, move and delete a server's contexts",
        description="Shows what a running server keeps of documents, where, and what it takes.",
    )
    parents = [url_option(parser)]
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="list the contexts (the default)", parents=parents)
    ingest = actions.add_parser("ingest", help="compute and keep a text file", parents=parents)
    ingest.add_argument("path", type=parse_path, help=_TEXT_HELP)
    ingest.add_argument("--model", required=True, metavar="ID")
    _add_life(ingest)
    append = actions.add_parser("append", help="add a text file to a context", parents=parents)
    append.add_argument("context", metavar="ID")
    append.add_argument("path", type=parse_path, help=_TEXT_HELP)
    fork = actions.add_parser("fork", help="make a second context of a document", parents=parents)
    fork.add_argument("context", metavar="ID")
    _add_life(fork)
    query = actions.add_parser("query", help="ask a question", parents=parents)
    query.add_argument("context", metavar="ID")
    query.add_argument("question")
    move = actions.add_parser("move", help="move a context to a tier", parents=parents)
    move.add_argument("context", metavar="ID")
    move.add_argument("tier", choices=("hot", "warm", "cold"))
    export = actions.add_parser(
        "export", help="write a context with its KV as one file", parents=parents
    )
    export.add_argument("context", metavar="ID")
    export.add_argument("path", type=parse_path, help="the file; - = standard output")
    import_ = actions.add_parser("import", help="make a context of such a file", parents=parents)
    import_.add_argument("path", type=parse_path, help="the file; - = what is piped in")
    import_.add_argument("--model", default="", metavar="ID")
    _add_life(import_)
    delete = actions.add_parser("delete", help="delete a context", parents=parents)
    delete.add_argument("context", metavar="ID")
    actions.add_parser("stats", help="print the counters as JSON", parents=parents)
    parser.set_defaults(handler=handle, action="list")


def _add_life(parser: argparse.ArgumentParser) -> None:
    """Adds what a new context is called, and how long it lives."""
    parser.add_argument("--name")
    parser.add_argument(
        "--ttl",
        type=functools.partial(parse_seconds_within, MAX_TTL_SECONDS),
        metavar="TIME",
        default=86_400.0,
        help="0 = for ever (1 day)",
    )


def handle(options: argparse.Namespace) -> int:
    """Runs one action against the server."""
    try:
        said = _run(options)
    except BrokenPipeError:
        raise  # whoever reads an export has had enough
    except (RequestError, OSError) as error:
        print(f"snapllm contexts: {error}", file=sys.stderr)
        return 1
    is_piped = options.action == "export" and str(options.path) == "-"
    print(said, file=sys.stderr if is_piped else sys.stdout)
    return 0


def _run(options: argparse.Namespace) -> str:
    url = options.url
    if options.action == "list":
        return _table(request(url, _API)["contexts"])
    if options.action == "stats":
        return json.dumps(request(url, f"{_API}/stats")["stats"], indent=2)
    if options.action == "ingest":
        body = {"content": _text_of(options.path), "model_id": options.model} | _life(options)
        return _kept(request(url, f"{_API}/ingest", body))
    if options.action == "import":
        wanted = {"model_id": options.model, "name": options.name}
        query = urlencode(
            {key: value for key, value in wanted.items() if value}
            | {"ttl_seconds": math.ceil(options.ttl)}
        )
        return _kept(upload(url, f"{_API}/import?{query}", options.path))
    path = f"{_API}/{quote(options.context, safe='')}"
    if options.action == "export":
        return _export(url, f"{path}/export", options.path)
    if options.action == "append":
        return _kept(request(url, f"{path}/append", {"content": _text_of(options.path)}))
    if options.action == "fork":
        return _kept(request(url, f"{path}/fork", _life(options)))
    if options.action == "query":
        return str(request(url, f"{path}/query", {"query": options.question})["response"])
    if options.action == "move":
        return str(request(url, f"{path}/promote", {"tier": options.tier})["tier"])
    request(url, path, method="DELETE")
    return f"{options.context} deleted"


def _life(options: argparse.Namespace) -> dict[str, Any]:
    return {"name": options.name, "ttl_seconds": math.ceil(options.ttl) or None}


def _kept(answer: dict[str, Any]) -> str:
    return f"{answer['context_id']}: {answer['token_count']} tokens, {answer['tier']}"


def _export(url: str, request_path: str, path: Path) -> str:
    if str(path) != "-":
        num_bytes = download(url, request_path, path)
    elif sys.stdout.isatty():
        raise RequestError("a context is nothing to read: name a file, or pipe it on")
    else:
        num_bytes = download_into(sys.stdout.buffer, url, request_path)
    return f"{path}: {num_bytes / 1e6:.1f} MB"


def _text_of(path: Path) -> str:
    is_piped = str(path) == "-"
    name = "what is piped in" if is_piped else path
    try:
        text = sys.stdin.buffer.read().decode() if is_piped else path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RequestError(f"{name} is not UTF-8 text") from None
    if not text:
        raise RequestError(f"{name} is empty")
    return text


def _table(contexts: list[dict[str, Any]]) -> str:
    rows = [("ID", "NAME", "MODEL", "TIER", "TOKENS", "MEMORY", "DISK", "EXPIRES")]
    for context in contexts:
        rows.append(
            (
                context["context_id"],
                context["name"],
                context["model_id"],
                context["tier"],
                str(context["token_count"]),
                f"{context['memory_mb']:.1f} MB",
                f"{context['disk_mb']:.1f} MB",
                context["expires_at"] or "never",
            )
        )
    return table(rows)
