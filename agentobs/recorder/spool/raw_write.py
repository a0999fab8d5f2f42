"""write(2) that keeps the interpreter lock.

`os.write` lets the lock go, and beside a busy thread it takes one switch interval (5 ms) to get it
back; the write of a record into the page cache takes some microseconds.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; after an OSError a part of it may be written."""
    written = _WRITE(descriptor, data, len(data))
    if written != len(data):
        _write_rest(descriptor, data, written)


def _write_rest(descriptor: int, data: bytes, written: int) -> None:
    # The plain one says what is wrong, and runs the signal handlers that an interrupt is about.
    rest = memoryview(data)[max(written, 0) :]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _plain_write(descriptor: int, data: bytes, _: int) -> int:
    return os.write(descriptor, data)


def _load_write() -> Callable[[int, bytes, int], int]:
    try:
        # Some interpreters are built without it.
        ctypes: Any = import_module("ctypes")
        write = ctypes.PyDLL(None).write
    except (ImportError, OSError, AttributeError, TypeError):
        return _plain_write
    write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
    write.restype = ctypes.c_ssize_t
    function: Callable[[int, bytes, int], int] = write
    return function


_WRITE = _load_write()
