"""The commands by name; each is imported when it is called, for imports are most of a start."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from agentobs.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where each one is: a module, and in it a function or an application with commands of its own.
_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "status": ("status", "command"),
    "workflows": ("reading", "workflows_command"),
    "trace": ("trace", "command"),
    "agents": ("agents", "app"),
    "routing": ("reading", "routing_command"),
    "calibration": ("reading", "calibration_command"),
    "handoffs": ("reading", "handoffs_command"),
    "alerts": ("reading", "alerts_command"),
    "report": ("report", "command"),
    "db": ("db", "app"),
    "server": ("server", "app"),
    "maintain": ("maintain", "command"),
    "doctor": ("doctor", "command"),
    "archive": ("archive", "app"),
    "spool": ("spool", "app"),
    "dead-letters": ("dead_letters", "app"),
}


class Commands(TyperGroup):
    """A group whose help imports all of its commands, and a call the one that it names."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Imported()  # type: ignore[assignment]  # nothing is added to it


class _Imported(Mapping[str, Any]):
    """The commands; raises MissingExtraError where one wants a package that is not there."""

    def __getitem__(self, name: str) -> Any:
        module, attribute = _PLACES[name]
        try:
            found = getattr(import_module(f"agentobs.cli.{module}"), attribute)
        except ModuleNotFoundError as error:
            if error.name != "yaml":
                raise
            raise MissingExtraError("cli", "The command line") from error
        return _command_of(name, found)

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


def _command_of(name: str, found: Any) -> Any:
    one = typer.Typer(add_completion=False)
    if isinstance(found, typer.Typer):
        one.add_typer(found, name=name)
        return get_group(one).commands[name]
    one.command(name=name)(found)
    return get_command(one)
