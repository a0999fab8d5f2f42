"""The command line: one file for each group of commands."""

from __future__ import annotations

from agentobs.errors import MissingExtraError

try:
    from agentobs.cli.application import app, run
except ModuleNotFoundError as error:
    if error.name not in {"rich", "typer"}:
        raise
    raise MissingExtraError("cli", "The command line") from error

__all__ = ["app", "run"]
