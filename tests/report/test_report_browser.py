"""The report as a reader has it: in a browser, from the disk, with a keyboard."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from report.report_rows import HOSTILE, ODD_NAMES
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.support.wait import WebDriverWait

from agentobs.report import figures, render
from agentobs.report.gather import MOST_EDGES
from agentobs.report.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from selenium.webdriver import Chrome

    from agentobs.report import ReportData

WORDS = ("--text", "--muted", "--accent", "--bad", "--good")
MARKS = {
    "latency": (".scatterlayer .js-line", 3),
    "cache": (".barlayer .point", 31),
    "reliability": (".scatterlayer .point", 1),
    "confidence": (".barlayer .point", 4),
    "handoffs": (".sankey-link", 1),
    "runs-0": (".scatterlayer .js-line", 1),
}


def look(browser: Chrome, script: str, *arguments: Any) -> Any:
    return browser.execute_script(f"return {script}", *arguments)


def logged(browser: Chrome, kind: str = "browser") -> list[dict[str, Any]]:
    """Return what was logged since it was asked last."""
    found: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return found


def press(browser: Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def prefer(browser: Chrome, scheme: str) -> None:
    """Let the system prefer a colour scheme, as far as the browser knows."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def wait(browser: Chrome, condition: Callable[[], bool]) -> None:
    WebDriverWait(browser, 10).until(lambda _: condition())


def brightness(color: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(each) / 255 for each in re.findall(r"\d+", color)[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def colors(browser: Chrome) -> dict[str, str]:
    """Return what the page paints with, and what a chart writes with."""
    found: dict[str, str] = look(
        browser,
        """(() => {
          const probe = document.body.appendChild(document.createElement("span"));
          const of = (name) => {
            probe.style.color = `var(${name})`;
            return getComputedStyle(probe).color;
          };
          const found = Object.fromEntries(arguments[0].map((name) => [name, of(name)]));
          probe.remove();
          const tick = document.querySelector("#latency .xtick text");
          return { ...found, chart: getComputedStyle(tick).fill };
        })()""",
        [*WORDS, "--panel", "--page"],
    )
    return found


def test_every_chart_is_drawn_with_its_marks(browser: Chrome, month: ReportData) -> None:
    drawn = look(browser, "[...document.querySelectorAll('.js-plotly-plot')].map((e) => e.id)")
    assert sorted(drawn) == sorted(figures(month))
    assert look(browser, "document.querySelectorAll('.js-plotly-plot .main-svg').length") >= len(
        drawn
    )
    for name, (selector, least) in MARKS.items():
        assert look(browser, f"document.querySelectorAll('#{name} {selector}').length") >= least


def test_every_edge_shown_has_a_ribbon(browser: Chrome, month: ReportData) -> None:
    edges = min(len(month.handoffs.edges), MOST_EDGES)
    assert look(browser, "document.querySelectorAll('.sankey-link').length") == edges


def test_no_label_is_cut_off_at_the_edge_of_its_chart(browser: Chrome) -> None:
    outside = look(
        browser,
        """[...document.querySelectorAll(".chart")].flatMap((chart) => {
          const box = chart.getBoundingClientRect();
          return [...chart.querySelectorAll(".main-svg text")]
            .filter((text) => text.textContent && text.getBoundingClientRect().width)
            .filter((text) => {
              const at = text.getBoundingClientRect();
              return at.left < box.left - 1 || at.right > box.right + 1;
            })
            .map((text) => text.textContent);
        })""",
    )
    assert outside == []


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser: Chrome) -> None:
    messages = [json.loads(each["message"])["message"] for each in logged(browser, "performance")]
    urls = [
        each["params"]["request"]["url"]
        for each in messages
        if each["method"] == "Network.requestWillBeSent"
    ]
    assert urls
    assert [url for url in urls if not url.startswith(("file:", "data:"))] == []
    assert logged(browser) == []


def test_a_hostile_name_is_text_and_runs_nothing(browser: Chrome) -> None:
    shown = look(browser, "document.body.innerText")
    assert visible(HOSTILE) in shown
    assert look(browser, "window.hacked ?? null") is None
    assert look(browser, "document.querySelectorAll('img').length") == 0
    links = look(browser, "[...document.querySelectorAll('a')].map((a) => a.outerHTML)")
    assert [link for link in links if "javascript" in link] == []


def test_the_labels_of_charts_show_odd_names_each_by_itself(browser: Chrome) -> None:
    ticks = look(
        browser,
        "[...document.querySelectorAll('#confidence .ytick text')].map((e) => e.textContent)",
    )
    assert len(set(ticks)) == len(ticks)
    assert {"2024-01-01", "--series-1", "(empty)", "agent-�gnp.exe"} <= set(ticks)
    assert [tick for tick in ticks if tick.startswith("</script><script")] != []
    assert len(ticks) >= len(ODD_NAMES)


def test_what_a_chart_says_of_a_mark_shows_names_as_text(browser: Chrome) -> None:
    said = look(
        browser,
        """(() => {
          const chart = document.getElementById("confidence");
          const place = chart.data[0].customdata.findIndex((each) => each.includes("script"));
          Plotly.Fx.hover(chart, [{ curveNumber: 0, pointNumber: place }]);
          const layer = chart.querySelector(".hoverlayer");
          const found = [layer.textContent, layer.querySelectorAll("a").length];
          Plotly.Fx.unhover(chart);
          return found;
        })()""",
    )
    assert visible(HOSTILE) in said[0]
    assert said[1] == 0


def test_a_script_that_is_not_the_pages_own_does_not_run(browser: Chrome) -> None:
    look(
        browser,
        """(() => {
          const script = document.createElement("script");
          script.textContent = "window.injected = 1";
          document.body.append(script);
          script.remove();
        })()""",
    )
    assert look(browser, "window.injected ?? null") is None
    # The browser says so, which is no complaint about the page.
    assert "Content Security Policy" in logged(browser)[0]["message"]


def test_the_keyboard_reaches_the_theme_and_changes_it(browser: Chrome) -> None:
    prefer(browser, "light")
    before = colors(browser)
    look(browser, "document.activeElement.blur()")
    press(browser, Keys.HOME, Keys.TAB)
    assert look(browser, "document.activeElement.id") == "theme"

    press(browser, Keys.ENTER)
    assert look(browser, "document.activeElement.ariaPressed") == "true"
    after = colors(browser)
    assert {name for name in before if before[name] == after[name]} == set()

    press(browser, Keys.SPACE)
    assert look(browser, "document.activeElement.ariaPressed") == "false"
    assert colors(browser) == before
    look(browser, "delete document.documentElement.dataset.theme")


def test_the_keyboard_reaches_a_tree_and_opens_it(browser: Chrome) -> None:
    look(browser, "document.querySelector('#graph summary').focus()")
    for _ in range(3):
        press(browser, Keys.TAB)
        if look(browser, "document.activeElement.matches('#slow summary')"):
            break
    opened = "document.activeElement.parentElement.open"
    assert look(browser, "document.activeElement.tagName") == "SUMMARY"
    assert look(browser, opened) is False
    press(browser, Keys.ENTER)
    assert look(browser, opened) is True
    assert look(browser, "document.activeElement.parentElement.querySelector('.tree').innerText")
    press(browser, Keys.ENTER)
    assert look(browser, opened) is False


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_readable_in_both_themes_of_the_system(browser: Chrome, scheme: str) -> None:
    prefer(browser, scheme)
    # The page hears of it with its next frame.
    wait(browser, lambda: colors(browser)["chart"] == colors(browser)["--text"])
    found = colors(browser)

    panel = brightness(found["--panel"])
    assert (panel > 0.5) == (scheme == "light")
    for word in WORDS:
        lighter, darker = sorted((panel, brightness(found[word])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, word


def test_on_a_telephone_the_page_does_not_scroll_sideways(browser: Chrome) -> None:
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        # Charts follow a little later.
        wait(browser, lambda: look(browser, "document.documentElement.scrollWidth") <= 390)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_report_of_nothing_opens_without_a_complaint(
    browser: Chrome, page: Path, nothing: ReportData
) -> None:
    empty = page.with_name("nothing.html")
    empty.write_text(render(nothing), encoding="utf-8")
    logged(browser)
    report = browser.current_window_handle
    browser.switch_to.new_window("tab")
    try:
        browser.get(empty.as_uri())
        assert look(browser, "document.querySelectorAll('.js-plotly-plot').length") == 0
        assert look(browser, "document.getElementById('theme').hidden") is False
        assert logged(browser) == []
    finally:
        browser.close()
        browser.switch_to.window(report)
