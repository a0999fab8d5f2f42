"""The optional extra [report]: Jinja2 and plotly, imported when a report is made."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from agentobs.errors import MissingExtraError

# With what they need themselves.
_PACKAGES = frozenset({"jinja2", "markupsafe", "narwhals", "plotly"})


def import_extra(name: str) -> Any:
    """Return a module of the extra; raise MissingExtraError where that is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise MissingExtraError("report", "The report") from error


def require_extra() -> None:
    """Raise MissingExtraError where the extra is not installed, before any work is done."""
    for name in ("jinja2", "plotly"):
        import_extra(name)
