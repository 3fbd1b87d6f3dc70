"""Strategies for requests of every endpoint that the API's description has."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from fuzzing.bodies import OTHERS, WITH_MODEL, Body
from fuzzing.values import NAMES, PATHS, SchemaValues, Values, odd_texts, odd_values, raw, to_json

STREAMED = frozenset(
    (
        *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
        *("/api/v1/generate", "/api/v1/vision/generate", "/api/v1/diffusion/generate"),
        *("/v1/images/generations", "/api/v1/contexts/ingest"),
        "/api/v1/contexts/{context_id}/query",
    )
)
DRAWING = ("/api/v1/diffusion/generate", "/v1/images/generations")
_SLOW = (*DRAWING, "/api/v1/contexts/ingest", "/api/v1/models/load")
TWIN_CONTEXT = "twin"
"""What twins ask about: no other request names it."""
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Request:
    """One request. Texts such as ``@response`` stand for what is known when it is sent."""

    method: str
    endpoint: str
    """The path as the API's description has it."""
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] | None = None
    """The fields on the way to the one that was changed in a body that is answered as it was."""
    is_twin: bool = False
    """Whether it is sent with and without `stream`, and must have one answer."""
    leaves: bool = False
    """Whether the client leaves before the answer is whole."""


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within a body."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))


def _holder(body: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        body = body[key]
    return body


@st.composite
def _mutated(draw: st.DrawFn, body: Body) -> tuple[Body, tuple[str, ...]]:
    """The body with one field that is another, missing, twice there or of another name."""
    body = copy.deepcopy(body) or {"tier": "hot", "name": "x"}
    path = draw(st.sampled_from(list(_places(body))))
    holder, key = _holder(body, path), path[-1]
    how = draw(st.sampled_from(["replace"] * 8 + ["remove", "double", "rename"]))
    if how == "remove":
        del holder[key]
    elif how == "rename" and isinstance(holder, dict):
        holder[draw(odd_texts)] = holder.pop(key)
    elif how == "double" and isinstance(holder, dict):
        # The second of two fields of one name comes after all others.
        holder[raw(f'{key}":{to_json(draw(odd_values)).decode()},"x')] = 0
    else:
        is_path = isinstance(key, str) and key.endswith("_path")
        holder[key] = draw(st.sampled_from(PATHS) if is_path else odd_values)
    return body, tuple(name for name in path if isinstance(name, str))


def _between(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


_LIMITS = {"n": 3, "best_of": 3, "num_threads": 2, "batch_count": 2, "steps": 3, "max_sequences": 8}
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
_SHORT: dict[str, Body] = {
    "/v1/responses": {"max_output_tokens": 8},
    "/api/v1/diffusion/generate": {"width": 64, "height": 64, "steps": 1, "cfg_scale": 1},
    "/v1/images/generations": {"size": "64x64", "steps": 1, "cfg_scale": 1},
}
"""What is given where a default takes long."""


def _bounded(endpoint: str, body: Body) -> Body:
    """The body without what is allowed and only takes long."""
    for name, value in _SHORT.get(endpoint, {}).items():
        if body.get(name) is None:
            body[name] = value
    for name, most in _LIMITS.items():
        if _between(body.get(name), most + 1, 1000):
            body[name] = most
    for name in _LENGTHS:
        if _between(body.get(name), 17, 2**31 - 1):
            body[name] = 1 + body[name] % 16
    if _between(body.get("n_predict"), -1, -1):  # until the context is full
        body["n_predict"] = 16
    for name in ("width", "height"):
        if _between(body.get(name), 129, 2048):
            body[name] = 64
    return body


def _seeds(endpoint: str) -> st.SearchStrategy[Body]:
    if endpoint in OTHERS:
        return st.sampled_from(OTHERS[endpoint])
    named = st.sampled_from(["demo"] * 6 + ["nano", "second", "third", "demo@doc"])
    bodies = st.sampled_from(WITH_MODEL[endpoint])
    return st.builds(lambda body, model: {"model": model, **body}, bodies, named)


@st.composite
def _body(draw: st.DrawFn, endpoint: str, schema: Values) -> tuple[bytes, tuple[str, ...] | None]:
    """A body for an endpoint: valid, nearly valid, or none at all."""
    kind = draw(st.sampled_from(["seed"] * 3 + ["mutated"] * 10 + ["schema"] * 5 + ["bad"]))
    if kind == "bad":
        whole = to_json(draw(_seeds(endpoint)))
        cut = whole[: draw(st.integers(0, len(whole)))]
        odd = to_json(draw(odd_values))
        return draw(st.sampled_from([cut, odd, whole + odd, b"\xff" + whole]) | st.binary()), None
    if kind == "schema":
        return to_json(_bounded(endpoint, draw(schema))), None
    body = dict(draw(_seeds(endpoint)))
    if endpoint in STREAMED and draw(st.booleans()):
        body["stream"] = True
    if kind == "seed":
        return to_json(body), None
    mutated, changed = draw(_mutated(body))
    whole = to_json(_bounded(endpoint, mutated))
    # Other models, and models of another file, refuse more than what was changed.
    is_same = body.get("model") in (None, "demo", "pix") and "file_path" not in changed
    return whole, changed if is_same else None


_IDS = {
    "model_id": st.sampled_from(NAMES),
    "context_id": st.sampled_from(["doc", "album", "copy", "@context"] * 3 + list(NAMES)),
    "response_id": st.sampled_from(["@response"] * 4 + ["resp_0", "%00"]),
    "job_id": st.sampled_from(["@job", "0", "x"]),
    "request_id": st.sampled_from(["@request"] * 3 + ["req_0"]),
}

# The longest line of a request that is read has 8,190 bytes.
_short_texts = odd_texts.filter(lambda text: len(text) < 200)
_QUERY_VALUES = (
    st.sampled_from(["", "0", "1", "-1", "1e3", "hot", "demo", "desc", "true"]) | _short_texts
)
_QUERY_NAMES = ("limit", "order", "after", "tier", "model_id", "name", "ttl_seconds", "stream", "")


def _quoted(text: str) -> str:
    return quote(text, safe="@", errors="surrogatepass")


@st.composite
def _path(draw: st.DrawFn, endpoint: str, query: tuple[str, ...]) -> str:
    path = _PLACEHOLDER.sub(
        lambda found: _quoted(
            draw(_IDS[found[1]] | _short_texts) if draw(_rarely) else draw(_IDS[found[1]])
        ),
        endpoint,
    )
    names = st.sampled_from(query or _QUERY_NAMES)
    if draw(st.booleans()) if query else draw(_rarely):
        pairs = draw(st.lists(st.tuples(names, _QUERY_VALUES), max_size=3))
        path += "?" + "&".join(f"{name}={_quoted(value)}" for name, value in pairs)
    return path


_rarely = st.sampled_from([False] * 12 + [True])
_HEADERS: tuple[dict[str, str], ...] = (
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/json; charset=utf-16"},
    {"Content-Type": "multipart/form-data; boundary=x"},
    {"Content-Type": ""},
    {"Content-Type": ";;;=\x7f"},
    {"Content-Encoding": "gzip"},
    {"Content-Encoding": "nonsense"},
    {"Content-Encoding": "deflate"},
    {"Accept": "image/png", "Accept-Encoding": "gzip;q=x"},
    {"Authorization": "Bearer "},
    {"Authorization": "\xff\xfe \xe9"},
    {"x-api-key": "x" * 4000},
    {"anthropic-version": "2023-06-01", "anthropic-beta": "x,y"},
    {"anthropic-version": ""},
    {"x-request-id": "a b\x7fc" * 50},
    {"Origin": "null", "Access-Control-Request-Method": "x"},
    {"Range": "bytes=5-1", "If-None-Match": "*", "Cookie": "a=\xff;;="},
    {"Host": "\xff"},
    {"Connection": "close"},
    {"Expect": "100-continue"},
    {"X-Forwarded-For": "1" * 6000},
)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW")


def _leaves_the_demo(request: Request) -> bool:
    """Whether the demo model is there after a request, which most others ask."""
    return "unload" not in request.path or b"demo" not in (request.body or b"")


def examples() -> Iterator[Request]:
    """Every body that is answered, as a request."""
    for endpoint, bodies in (WITH_MODEL | OTHERS).items():
        for body in bodies:
            whole = {"model": "demo", **body} if endpoint in WITH_MODEL else body
            path = endpoint.replace("{context_id}", "doc")
            yield Request("POST", endpoint, path, to_json(whole))


class Requests:
    """Makes strategies from the API's description.

    Args:
        document: The server's /openapi.json.
        exported: A file that an export gave.
    """

    def __init__(self, document: dict[str, Any], exported: bytes) -> None:
        self._values = SchemaValues(document["components"]["schemas"])
        self._exported = exported
        self._operations = [
            (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]

    def all(self) -> st.SearchStrategy[Request]:
        """Requests of all kinds."""
        likely = [op for op in self._operations for _ in range(self._weight(*op))]
        one = st.sampled_from(likely).flatmap(lambda op: self._request(*op))
        return st.one_of([one] * 7 + [self._odd()]).filter(_leaves_the_demo)

    def _weight(self, method: str, path: str, operation: dict[str, Any]) -> int:
        if method != "POST":
            return 1
        return 1 if path in DRAWING else 2 if path in _SLOW else 5

    def _request(
        self, method: str, endpoint: str, operation: dict[str, Any]
    ) -> st.SearchStrategy[Request]:
        query = tuple(
            each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"
        )
        path = _path(endpoint, query)
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            body = self._file() if content else st.none()
            return st.builds(lambda path, body: Request(method, endpoint, path, body), path, body)
        schema = self._values.of(content["application/json"]["schema"])
        made = st.builds(
            lambda path, body: Request(method, endpoint, path, body[0], changed=body[1]),
            path,
            _body(endpoint, schema),
        )
        if endpoint not in STREAMED:
            return made
        leaving = made.map(lambda request: replace(request, leaves=True))
        if endpoint in DRAWING or endpoint.endswith("ingest"):
            return st.one_of([made] * 9 + [leaving])
        return st.one_of([made] * 8 + [leaving, self._twin(method, endpoint)])

    def _twin(self, method: str, endpoint: str) -> st.SearchStrategy[Request]:
        """A body whose answer must not depend on `stream`."""

        def build(body: Body, text: str) -> Request:
            body = copy.deepcopy(body) | {"temperature": 0}
            body.pop("previous_response_id", None)  # may be another one the second time
            name = next(name for name in ("messages", "prompt", "input", "query") if name in body)
            if isinstance(body[name], str) and text:
                body[name] = text
            elif name == "messages" and isinstance(body[name][-1]["content"], str) and text:
                body[name] = [*body[name][:-1], {**body[name][-1], "content": text}]
            if body.get("model") != "demo":
                body = body | {"model": "demo"} if "model" in body else body
            path = endpoint.replace("{context_id}", TWIN_CONTEXT)
            return Request(method, endpoint, path, to_json(body), is_twin=True)

        texts = st.sampled_from(["", "Hello!", "Who are you?", "Count to five.", "2 + 2 = "])
        return st.builds(
            build, _seeds(endpoint), texts | st.text("abc \u00e9\U0001f600", max_size=9)
        )

    def _file(self) -> Values:
        """A context's file, or what is left of one."""

        def damage(place: int, flip: int) -> bytes:
            at = place % len(self._exported)
            return (
                self._exported[:at] + bytes([self._exported[at] ^ flip]) + self._exported[at + 1 :]
            )

        places = st.integers(0, 1 << 14) | st.integers(0, 1 << 26)
        return st.one_of(
            st.just(self._exported),
            st.builds(damage, places, st.integers(1, 255)),
            places.map(lambda length: self._exported[:length]),
            st.binary(max_size=100).map(lambda more: self._exported + more),
            st.binary(max_size=100),
        )

    def _odd(self) -> st.SearchStrategy[Request]:
        """A request whose method, path or headers are none of the API's."""
        plain = st.sampled_from(self._operations).flatmap(lambda op: self._request(*op))
        return _odd(plain)


@st.composite
def _odd(draw: st.DrawFn, plain: st.SearchStrategy[Request]) -> Request:
    request = replace(draw(plain), changed=None, is_twin=False, leaves=False)
    how = draw(st.sampled_from(["method", "headers", "headers", "path"]))
    if how == "method":
        return replace(request, method=draw(st.sampled_from(_METHODS)), endpoint="")
    if how == "headers":
        return replace(request, headers=draw(st.sampled_from(_HEADERS)))
    path, step = request.endpoint, draw(_short_texts)
    odd = (
        *(f"{path}/", f"/{path}", path.upper(), f"{path}/{_quoted(step)}", f"/{_quoted(step)}"),
        *(
            f"{path}/../../x",
            f"{path}%2f..%2f..",
            f"{path}#x",
            f"{path};a=b",
            "*",
            f"http://x{path}",
        ),
    )
    return replace(request, path=re.sub("[{}]", "", draw(st.sampled_from(odd))), endpoint="")
