"""How the commands that read take their window, and how they show what they found."""

from __future__ import annotations

import csv
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.table import Table as Grid

from agentobs.analytics import Table, Window
from agentobs.cli.terminal import console, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentobs.analytics import Result

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(rf"([1-9]\d{{0,5}})([{''.join(_UNITS)}])")
_NOTHING = "-"
NOTHING_FOUND = "nothing in this window"
# What a column is called where its field's name would take the room that names need.
_HEADINGS = {
    "begins_at": "begins (UTC)",
    "brier_score": "Brier",
    "cache_hit_rate": "hits",
    "dead_end_rate": "share",
    "executions": "runs",
    "executions_delta": "change",
    "expected_calibration_error": "ECE",
    "first_agent": "one",
    "first_month": "from",
    "has_enough_data": "enough",
    "high_confidence": "to",
    "is_firing": "fires",
    "lag_seconds": "lag s",
    "last_month": "to",
    "low_confidence": "from",
    "mean_cache_age_seconds": "age s",
    "mean_confidence": "confidence",
    "mean_prediction_error": "error",
    "mean_quality": "quality",
    "over_target_share": "slow",
    "p50_duration_ms": "p50 ms",
    "p50_total_us": "p50 ms",
    "p95_duration_ms": "p95 ms",
    "p95_total_us": "p95 ms",
    "p99_duration_ms": "p99 ms",
    "p99_total_us": "p99 ms",
    "second_agent": "other",
    "size_mib": "MiB",
    "source_agent": "from",
    "success_rate": "ok",
    "target_agent": "to",
}
# Only these columns are cut where a terminal is too narrow, and only as far as they must be.
_NAMES = {
    "agent", "first_agent", "group", "second_agent", "source_agent", "subject", "target_agent",
}  # fmt: skip
# From here on a fraction tells nothing.
_LARGE = 1_000


def _window(text: str) -> Window:
    if (match := _LENGTH.fullmatch(text)) is None:
        raise typer.BadParameter("give minutes, hours, days or weeks, such as 90m, 24h, 7d or 4w")
    return Window.last(timedelta(**{_UNITS[match[2]]: int(match[1])}))


_SINCE = typer.Option(
    "--since", parser=_window, metavar="TIME", help="How far back to look: 90m, 24h, 7d or 4w."
)
Since = Annotated[Window, _SINCE]
SinceIfAny = Annotated[Window | None, _SINCE]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print the rows as CSV.")]


def show(
    answer: Result | Table[Any], columns: Sequence[str], *, as_json: bool, as_csv: bool
) -> None:
    """Print an answer: as a grid of some columns, or all of it as JSON or CSV."""
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both")
    rows = list(answer) if isinstance(answer, Table) else [answer]
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    elif as_csv:
        _write_csv(answer, rows)
    elif rows:
        console().print(grid(rows, columns))
    else:
        console().print(NOTHING_FOUND)


def grid(
    rows: Sequence[Result], columns: Sequence[str], headings: Mapping[str, str] | None = None
) -> Grid:
    """Return rows as a grid with short headings, or those given; names alone are ever cut."""
    known = _HEADINGS | dict(headings or {})
    found = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        found.add_column(
            known.get(name, name.replace("_", " ")),
            justify="right" if _is_number(rows[0], name) else "left",
            no_wrap=name not in _NAMES,
            overflow="ellipsis",
        )
    for row in rows:
        found.add_row(*(plain(shown(name, getattr(row, name))) for name in columns))
    return found


def _is_number(row: Result, name: str) -> bool:
    """Tell by the field, for there may be no value at all."""
    kind = type(row).model_fields[name].annotation
    return not {int, float}.isdisjoint({kind, *get_args(kind)})


def shown(name: str, value: Any) -> str:
    """Return a value as people read it, by the unit that its field's name ends with."""
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%m-%d %H:%M}"
    if isinstance(value, int | float):
        return _number(name, value)
    if isinstance(value, tuple | list):
        return ", ".join(shown(name, each) for each in value) or _NOTHING
    return str(value)


def _number(name: str, value: float) -> str:
    if name.endswith(("_rate", "_share")):
        return f"{value:.0%}" if value in {0, 1} else f"{value:.1%}"
    if name.endswith("_us"):
        return f"{value / 1000:,.2f}"
    if name.endswith("_delta"):
        return f"{value:+,}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{_places(name, value)}f}"


def _places(name: str, value: float) -> int:
    if name.endswith(("_ms", "_seconds")) or abs(value) >= _LARGE:
        return 0
    return 1 if name.endswith("_mib") else 3


def _write_csv(answer: Result | Table[Any], rows: Sequence[Result]) -> None:
    kind = answer.row_kind() if isinstance(answer, Table) else type(answer)
    writer = csv.DictWriter(sys.stdout, list(kind.model_fields), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(_cells(row.model_dump(mode="json")))


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one cell for each field: what is nested in it is JSON."""
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in values.items()
    }
