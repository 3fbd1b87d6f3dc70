"""The process in which a chat template is tried out. It imports little: a load waits for it."""

from __future__ import annotations

import os
import resource
import sys
import threading

from snapllm import _core

_MAX_BYTES = 512 << 20
# Several times what known templates take, and less than threads have.
_STACK_BYTES = 512 << 10
# Ends it where nobody is left who would.
_MAX_CPU_S = 60


def main() -> None:
    """Tries out the template of the standard input."""
    text = sys.stdin.buffer.read()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, _MAX_CPU_S)
    _limit(resource.RLIMIT_AS, _address_space() + _MAX_BYTES)
    passed = []

    def probe() -> None:
        _core.probe_chat_template(text)
        passed.append(True)

    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    sys.exit(0 if passed else 1)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, hard))


def _address_space() -> int:
    """What libraries reserve, which may be more than there is memory; 0 where none tells."""
    try:
        with os.fdopen(os.open("/proc/self/statm", os.O_RDONLY)) as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
