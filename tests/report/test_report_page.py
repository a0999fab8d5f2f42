"""What the page of a report holds, read as a browser reads HTML, without one."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go  # type: ignore[import-untyped]
import pytest
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]
from report.report_rows import HOSTILE, WINDOW

from agentobs.analytics import Alert
from agentobs.report import figures, render
from agentobs.report.gather import MOST_ALERTS, Top
from agentobs.report.page import _span
from agentobs.report.text import hover, label, visible

if TYPE_CHECKING:
    from agentobs.report import ReportData
    from agentobs.report.figures import Figure

SECTIONS = (
    "alerts",
    "completeness",
    "router",
    "agents",
    "calibration",
    "components",
    "graph",
    "slow",
    "failures",
)
VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Collect the elements of a page with their attributes, and what stands in each section."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.scripts: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self.feed(page)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self._section = str(dict(attrs)["id"])
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        self.texts[self._section] = self.texts.get(self._section, "") + data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def shown(month: ReportData) -> str:
    return render(month)


@pytest.fixture(scope="module")
def read(shown: str) -> Reader:
    return Reader(shown)


def painted(figure: Any, key: str = "") -> Any:
    """Put a colour in the place of each variable, as the page does."""
    if isinstance(figure, dict):
        return {name: painted(value, name) for name, value in figure.items() if name != "config"}
    if isinstance(figure, list):
        return [painted(value, key) for value in figure]
    is_color = isinstance(figure, str) and key.endswith("color") and figure.startswith("--")
    return "red" if is_color else figure


def test_the_page_refers_to_nothing_outside(read: Reader) -> None:
    for _, attributes in read.elements:
        for name in ("src", "srcset", "action", "data", "poster"):
            assert name not in attributes
        assert str(attributes.get("href", "#")).startswith(("#", "data:"))


def test_the_policy_lets_only_the_pages_own_scripts_run(read: Reader) -> None:
    (policy,) = [each["content"] for each in read.tags("meta") if "http-equiv" in each]
    figures_of_it, *scripts = read.scripts
    assert json.loads(figures_of_it)
    hashes = {b64encode(sha256(script.encode()).digest()).decode() for script in scripts}
    assert policy is not None
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_names_from_the_database_are_text_everywhere(shown: str, read: Reader) -> None:
    assert visible(HOSTILE) in read.texts["agents"]
    assert "<b>ValueError</b>" in read.texts["failures"]
    assert [tag for tag, _ in read.elements if tag in {"img", "b"}] == []
    handlers = [name for _, of in read.elements for name in of if name.startswith("on")]
    assert handlers == []
    assert "<!--" not in shown.replace(get_plotlyjs(), "")
    assert len(read.tags("script")) == 3


def test_texts_of_users_are_not_in_the_page(shown: str) -> None:
    assert "secret-" not in shown


def test_alerts_that_fire_stand_before_everything_else(read: Reader) -> None:
    sections = [each["id"] for each in read.tags("section")]
    assert sections == list(SECTIONS)
    assert "Cache hit rate: 5" in " ".join(read.texts["alerts"].split())
    assert "below 60.0%" in read.texts["alerts"]


def test_a_report_of_nothing_says_so_in_every_section(nothing: ReportData) -> None:
    read = Reader(render(nothing))
    assert figures(nothing) == {}
    for section in SECTIONS:
        assert re.search(r"\b(No|None|Nothing|Not|nothing)\b", read.texts[section]), section


def test_failed_workflows_are_trees_open_on_the_way_to_the_failure(read: Reader) -> None:
    assert len(read.tags("details")) > 20
    opened = [each for each in read.tags("details") if "open" in each]
    assert len(opened) >= 10
    assert "TimeoutError" in read.texts["failures"]
    assert "critical path" in read.texts["failures"]


def test_plotly_accepts_every_chart(month: ReportData) -> None:
    found = figures(month)
    assert {"latency", "cache", "reliability", "confidence", "handoffs", "runs-0"} <= set(found)
    for figure in found.values():
        # It refuses what it does not know.
        go.Figure(painted(figure))


def test_colours_of_charts_are_variables_of_the_page(month: ReportData, shown: str) -> None:
    def named(figure: Any, key: str = "") -> set[str]:
        if isinstance(figure, dict):
            return set().union(*(named(value, name) for name, value in figure.items()))
        if isinstance(figure, list):
            return set().union(*(named(value, key) for value in figure))
        return {figure} if key.endswith("color") and str(figure).startswith("--") else set()

    used = named(figures(month))
    assert used
    assert {name for name in used if f"  {name}: light-dark(" not in shown} == set()


def test_a_series_has_a_point_for_each_step_and_none_where_nothing_was(month: ReportData) -> None:
    bucket = month.routing[3].model_copy(update={"p50_total_us": None, "timed": 0})
    data = replace(month, routing=(*month.routing[:3], bucket, *month.routing[4:]))
    p50 = figures(data)["latency"]["data"][0]

    assert len(p50["x"]) == len(p50["y"]) == len(month.routing) == 31
    assert p50["y"][3] is None
    assert p50["y"][4] == month.routing[4].p50_total_us / 1000  # type: ignore[operator]


def test_the_ends_of_a_reliability_bar_are_those_of_the_interval(month: ReportData) -> None:
    trace: Figure = figures(month)["reliability"]["data"][0]
    bins = [each for each in month.calibration.overall.bins if each.count]
    for place, each in enumerate(bins):
        assert each.success_rate_interval is not None
        high = trace["y"][place] + trace["error_y"]["array"][place]
        low = trace["y"][place] - trace["error_y"]["arrayminus"][place]
        assert high == pytest.approx(each.success_rate_interval.high)
        assert low == pytest.approx(each.success_rate_interval.low)


def test_more_alerts_than_have_room_are_counted(month: ReportData) -> None:
    alert = Alert(
        name="agent_success_rate",
        subject=HOSTILE,
        value=0.123,
        bound=0.8,
        rows=1234,
        has_enough_data=True,
        is_firing=True,
    )
    read = Reader(render(replace(month, alerts=Top.of([alert] * 10_000, MOST_ALERTS))))
    said = " ".join(read.texts["alerts"].split())
    assert said.count("Agent success rate of </script>") == MOST_ALERTS
    assert "12.3%, below 80.0% (1,234 rows)" in said
    assert "9,980 more alerts left out" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("routing_p95_ms", "Routing p95: 120.5 ms, above 100.0 ms"),
        ("expired_rows_age_days", "Expired rows age: 120.5 days, above 100.0 days"),
        ("partition_rows", "Partition rows: 120, above 100"),
        ("unheard", "Unheard: 120, above 100"),
    ],
)
def test_an_alert_is_told_with_its_unit(month: ReportData, name: str, words: str) -> None:
    alert = Alert(
        name=name,
        subject=None,
        value=120.5,
        bound=100,
        rows=None,
        has_enough_data=True,
        is_firing=True,
    )
    read = Reader(render(replace(month, alerts=Top((alert,)))))
    assert words in " ".join(read.texts["alerts"].split())


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [
        ("a<b>&amp;", "a&lt;b&gt;&amp;amp;"),
        ("", "(empty)"),
        ("a\u202eb\nc\u2028d\x00", "a�b�c�d�"),
    ],
)
def test_plotly_is_given_texts_without_markup(text: str, shown_as: str) -> None:
    assert hover(text) == label(text) == shown_as


def test_a_long_label_keeps_its_beginning_and_its_end() -> None:
    assert label(f"begin{'<' * 200}end1") == f"begin{'&lt;' * 11}…{'&lt;' * 11}end1"


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(days=1), "1 day"),
        (timedelta(days=14), "14 days"),
        (timedelta(hours=36), "36 hours"),
        (timedelta(minutes=5), "5 minutes"),
    ],
)
def test_a_step_is_told_in_its_own_unit(span: timedelta, words: str) -> None:
    assert _span(span) == words


def test_the_window_and_the_version_stand_at_the_top(read: Reader) -> None:
    assert f"{WINDOW.since:%Y-%m-%d %H:%M:%S} to {WINDOW.until:%Y-%m-%d}" in read.texts[""]
