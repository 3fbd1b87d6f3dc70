"""Fetching images from URLs without becoming somebody's way into the network.

Only hosts that the operator named are asked, under addresses that are public, and the
connection goes to the very address that was checked. Redirects are not followed.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from typing_extensions import Buffer

from snapllm._media import MAX_IMAGE_BYTES
from snapllm.errors import InvalidRequestError

TIMEOUT_S = 10.0
_CHUNK_BYTES = 1 << 16


def is_public_address(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return ip.is_global and not ip.is_multicast and (mapped is None or mapped.is_global)


class UrlFetcher:
    """Reads files from allowed hosts. Any thread may call it.

    Args:
        hosts: Host names that may be asked; ``*.example.org`` means all hosts below it.
        timeout_s: Seconds that one fetch may take, all in all.
        is_allowed_address: Decides on the addresses that a host name resolves to.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        timeout_s: float = TIMEOUT_S,
        is_allowed_address: Callable[[str], bool] = is_public_address,
    ) -> None:
        self._hosts = {host.lower() for host in hosts if not host.startswith("*.")}
        self._domains = tuple(host[1:].lower() for host in hosts if host.startswith("*."))
        self._timeout_s = timeout_s
        self._is_allowed_address = is_allowed_address

    def __call__(self, url: str) -> bytes:
        """Returns what the URL holds.

        Raises:
            InvalidRequestError: The URL or its host is not allowed, it cannot be read in
                time, or it holds too much.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            raise InvalidRequestError("not a valid URL") from None
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
            raise InvalidRequestError("not an http(s) URL of a host")
        if host not in self._hosts and not host.endswith(self._domains):
            raise InvalidRequestError(f"images of host {host} are not allowed")
        port = port or (443 if parts.scheme == "https" else 80)
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        try:
            connection = self._connect(parts.scheme, host, port, deadline)
            try:
                return _read(connection, target, deadline)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, InvalidRequestError):
                raise
            raise InvalidRequestError(f"cannot be fetched: {error or 'no answer'}") from None

    def _connect(
        self, scheme: str, host: str, port: int, deadline: float
    ) -> http.client.HTTPConnection:
        addresses = _addresses_of(host, port, deadline)
        if not addresses or not all(map(self._is_allowed_address, addresses)):
            raise InvalidRequestError(f"host {host} has an address that is not public")
        plain = socket.create_connection((addresses[0], port), _left(deadline))
        if scheme == "http":
            connection = http.client.HTTPConnection(host, port)
            connection.sock = plain
            return connection
        try:
            context = ssl.create_default_context()
            plain.settimeout(_left(deadline))  # of the whole handshake
            # Its kind leaves the usual port out of the host's name, for which URLs may be signed.
            connection = http.client.HTTPSConnection(host, port, context=context)
            connection.sock = context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        return connection


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _addresses_of(host: str, port: int, deadline: float) -> list[str]:
    """What the host's name resolves to.

    Raises:
        OSError: To nothing, or not in time.
    """
    found: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.put([str(entry[4][0]) for entry in entries])
        except (OSError, UnicodeError) as error:
            found.put(error if isinstance(error, OSError) else OSError(str(error)))

    # Nothing ends a lookup: a thread of its own outlasts the waiting for it.
    threading.Thread(target=look_up, name="snapllm-lookup", daemon=True).start()
    try:
        addresses = found.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimeoutError("timed out") from None
    if isinstance(addresses, OSError):
        raise addresses
    return addresses


class _Timed(io.RawIOBase):
    """What a socket receives until a deadline, however slowly it trickles in."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)


def _read(connection: http.client.HTTPConnection, target: str, deadline: float) -> bytes:
    connection.putrequest("GET", target)
    connection.putheader("Accept", "image/*")
    connection.putheader("Connection", "close")
    sock: socket.socket = connection.sock
    sock.settimeout(_left(deadline))
    connection.endheaders()
    response = http.client.HTTPResponse(sock, method="GET")
    response.fp.close()
    response.fp = io.BufferedReader(_Timed(sock, deadline))
    response.begin()
    if response.status != 200:
        raise InvalidRequestError(f"cannot be fetched: the host answered {response.status}")
    data = bytearray()
    while True:
        chunk = response.read1(_CHUNK_BYTES)
        if not chunk:
            return bytes(data)
        data += chunk
        if len(data) > MAX_IMAGE_BYTES:
            raise InvalidRequestError(f"holds more than {MAX_IMAGE_BYTES} bytes")
