"""The optional extra [archive]: PyArrow, imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from agentobs.errors import MissingExtraError


class _Module:
    """A module of the extra: maintenance without archives needs no PyArrow, and starts faster."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        try:
            module = import_module(self._name)
        except ModuleNotFoundError as error:
            if error.name != "pyarrow":
                raise
            raise MissingExtraError("archive", "The archive of old rows") from error
        return getattr(module, attribute)


pa: Any = _Module("pyarrow")
pc: Any = _Module("pyarrow.compute")
pq: Any = _Module("pyarrow.parquet")


def require_extra() -> None:
    """Raise MissingExtraError where the extra is not installed, before any work is done."""
    _ = pa.__version__
