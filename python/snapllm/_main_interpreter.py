"""Importing this raises ImportError in a subinterpreter.

An extension module that is imported there waits for ever (pybind11 asks for the GIL as the main
interpreter's threads do), so this comes first.
"""

from __future__ import annotations

import ctypes

_call = ctypes.PYFUNCTYPE(ctypes.c_void_p)
_own = _call(("PyInterpreterState_Get", ctypes.pythonapi))()
_main = _call(("PyInterpreterState_Main", ctypes.pythonapi))()

if _own != _main:
    raise ImportError("snapllm works in the main interpreter only, not in a subinterpreter")
