"""The arguments of a Recorder."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from agentobs.errors import ConfigurationError, InvalidValueError
from agentobs.settings import DatabaseSettings, RecorderSettings, read_recorder_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


_DATABASE = "its database as an object: Recorder(DatabaseSettings(database_url=…))"
# As other libraries call the address.
_ADDRESSES = {"url", "uri", "dsn"}


class RecorderOptions(TypedDict, total=False):
    """The fields of RecorderSettings, where they are explained."""

    delivery: Literal["drop", "block", "spool"]
    lenient: bool
    folder: Path | str | None
    buffer_rows: int
    buffer_bytes: int
    flush_rows: int
    flush_interval: float
    block_timeout: float
    announce_after: float
    parent_wait: float
    outcome_wait: float
    context_limit: int
    close_timeout: float
    report_interval: float


def settings_of(options: Mapping[str, Any]) -> RecorderSettings:
    """Return the settings with these options; raise ConfigurationError for a wrong one."""
    unknown = sorted(options.keys() - RecorderSettings.model_fields.keys())
    if unknown:
        if unknown[0] in DatabaseSettings.model_fields.keys() | _ADDRESSES:
            raise ConfigurationError(f"{unknown[0]} is no option, for a Recorder takes {_DATABASE}")
        near = get_close_matches(unknown[0], RecorderSettings.model_fields, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise ConfigurationError(f"a Recorder has no option {unknown[0]}{hint}")
    return read_recorder_settings(**options)


def require_settings(database: object) -> None:
    """Raise ConfigurationError where the database is named otherwise than by its settings."""
    if database is not None and not isinstance(database, DatabaseSettings):
        raise ConfigurationError(f"a Recorder takes {_DATABASE}")


def require_seconds(timeout: object) -> None:
    """Raise InvalidValueError for a timeout that is neither None nor a number."""
    if timeout is None:
        return
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or timeout != timeout:  # noqa: PLR0124 (NaN alone is not itself)
        raise InvalidValueError("timeout", "must be a number of seconds, or None")
