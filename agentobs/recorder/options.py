"""The arguments of a Recorder."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from agentobs.errors import ConfigurationError
from agentobs.settings import DatabaseSettings, RecorderSettings, read_recorder_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


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
        near = get_close_matches(unknown[0], RecorderSettings.model_fields, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise ConfigurationError(f"a Recorder has no option {unknown[0]}{hint}")
    return read_recorder_settings(**options)


def require_settings(database: object) -> None:
    """Raise ConfigurationError where the database is named otherwise than by its settings."""
    if database is not None and not isinstance(database, DatabaseSettings):
        raise ConfigurationError(
            "a Recorder takes its database as an object: Recorder(DatabaseSettings(database_url=…))"
        )
