"""The page of a report: one text, with everything in it that it needs."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from agentobs.report.extra import import_extra
from agentobs.report.figures import ENTRY, NOBODY, figures
from agentobs.report.gather import MOST_EDGES
from agentobs.report.text import EMPTY, visible
from agentobs.report.trees import tree

if TYPE_CHECKING:
    from agentobs.analytics import Alert, ComponentConfidence
    from agentobs.report.gather import ReportData

_NOTHING = "-"
_UNITS = frozenset({"ms", "days"})
_FOLDER = files("agentobs.report")


@dataclass(frozen=True, slots=True)
class _AlertLine:
    what: str
    subject: str | None
    value: str
    bound: str
    rows: int | None


def render(data: ReportData) -> str:
    """Return the page as HTML; raise MissingExtraError where the extra [report] is missing.

    It asks for nothing: charts, style and script stand in it, and its policy forbids the rest.
    """
    environment = _environment()
    library = _script(import_extra("plotly.offline").get_plotlyjs())
    script = _script(_read("page.js"))
    markup = import_extra("markupsafe").Markup
    shown: str = environment.from_string(_read("page.html")).render(
        data=data,
        alerts=[_alert_line(each) for each in data.alerts.items],
        idle_components=_idle_components(data),
        edges=tuple(data.handoffs.edges)[:MOST_EDGES],
        figures=figures(data),
        policy=_policy(library, script),
        style=markup(_read("page.css")),
        library=markup(library),
        script=markup(script),
        empty=EMPTY,
        entry=ENTRY,
        nobody=NOBODY,
        tree=tree,
    )
    return shown


def _environment() -> Any:
    jinja2 = import_extra("jinja2")
    markup = import_extra("markupsafe").Markup

    def finalize(value: Any) -> Any:
        if value is None:
            return _NOTHING
        return visible(value) if isinstance(value, str) and not isinstance(value, markup) else value

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A number that is none is no JSON.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {
        "count": _count,
        "instant": _instant,
        "ms": _ms,
        "number": _number,
        "share": _share,
        "span": _span,
        "us": _us,
    }
    return environment


def _alert_line(alert: Alert) -> _AlertLine:
    what, _, unit = alert.name.rpartition("_")
    words = what if unit in _UNITS else alert.name
    below_or_above = "below" if unit == "rate" else "above"
    return _AlertLine(
        what=words.replace("_", " ").capitalize(),
        subject=alert.subject,
        value=_amount(unit, alert.value),
        bound=f"{below_or_above} {_amount(unit, alert.bound)}",
        rows=alert.rows,
    )


def _amount(unit: str, value: float | None) -> str:
    if unit == "rate":
        return _share(value)
    if unit in _UNITS:
        return f"{_number(value, 1)} {unit}"
    return _number(value, 0)


def _idle_components(data: ReportData) -> list[ComponentConfidence]:
    """Return the components that decide nothing for their agent."""
    return [
        each
        for group in data.confidence.items
        for each in group
        if each.is_constant or each.is_saturated
    ]


def _policy(*scripts: str) -> str:
    """Return the Content-Security-Policy: these scripts, and nothing from anywhere."""
    hashes = " ".join(
        f"'sha256-{b64encode(sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    rules = ("default-src 'none'", f"script-src {hashes}", "style-src 'unsafe-inline'")
    return "; ".join((*rules, "img-src data:", "base-uri 'none'", "form-action 'none'"))


def _script(text: str) -> str:
    # As the browser reads the lines, before it compares the hash.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read(name: str) -> str:
    return _FOLDER.joinpath(name).read_text(encoding="utf-8")


def _count(value: int | None) -> str:
    return _number(value, 0)


def _number(value: float | None, places: int) -> str:
    return _NOTHING if value is None else f"{value:,.{places}f}"


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.1%}"


def _ms(value: float | None) -> str:
    return _number(value, 0)


def _us(value: float | None) -> str:
    return _number(None if value is None else value / 1000, 2)


def _instant(value: datetime | None) -> str:
    return _NOTHING if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _span(value: timedelta) -> str:
    """Return a length of time in the largest unit that measures it out."""
    seconds = round(value.total_seconds())
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        if seconds % size == 0 and seconds:
            count = seconds // size
            return f"{count:,} {unit}{'' if count == 1 else 's'}"
    return f"{value.total_seconds():g} seconds"
