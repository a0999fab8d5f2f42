"""The charts of a report, as plotly takes them: pure data, without the library.

A value under a key that ends with `color` and that begins with `--` is a CSS variable of the page,
which puts in the colour of its theme. Agents stand on numbered places with their names as labels:
as categories, names that are cut alike would be one, and those like dates would be an axis of time.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

from agentobs.analytics import AlertThresholds, Interval
from agentobs.report.gather import MOST_EDGES
from agentobs.report.text import hover, label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from agentobs.analytics import Calibration, ComponentConfidence, Handoff
    from agentobs.report.gather import AgentRow, ReportData

    Figure = dict[str, Any]

NOBODY = "(nobody)"
ENTRY = "(entry)"

_PERCENTILES = {"p50": "--series-1", "p95": "--series-2", "p99": "--series-3"}
_COMPONENTS = {
    "trigger": "--series-1",
    "context": "--series-2",
    "capability": "--series-3",
    "historical": "--series-4",
}
_BOUNDS = AlertThresholds()
_TARGET_MS = _BOUNDS.max_routing_p95_ms
# A target far above all values would press them to the axis.
_SHOW_TARGET_FROM = _TARGET_MS / 2
_GOOD, _FAIR = 0.95, 0.8
_CLEAR = "rgba(0,0,0,0)"
_ROW_PX, _AXES_PX = 24, 90


def figures(data: ReportData) -> dict[str, Figure]:
    """Return the charts by their names, without those that nothing is known for."""
    found = {
        "latency": _latency(data),
        "cache": _cache(data),
        "reliability": _reliability(data.calibration),
        "confidence": _confidence(data.confidence.items),
        "handoffs": _handoffs(tuple(data.handoffs.edges)[:MOST_EDGES]),
    }
    sparklines = {
        f"runs-{place}": _sparkline(row, data) for place, row in enumerate(data.agents.items)
    }
    return {name: figure for name, figure in found.items() if figure is not None} | sparklines


def _latency(data: ReportData) -> Figure | None:
    if not data.summary.timed:
        return None
    begins = _begins(data)
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": begins,
            "y": [_ms(getattr(each, f"{name}_total_us")) for each in data.routing],
            "customdata": [each.timed for each in data.routing],
            "line": {"color": color, "width": 2},
            "marker": {"color": color, "size": 5},
            "hovertemplate": f"{name} %{{y:,.2f}} ms of %{{customdata:,}} decisions<extra></extra>",
        }
        for name, color in _PERCENTILES.items()
    ]
    layout = _over_time(data, {"rangemode": "tozero", "title": {"text": "ms"}})
    slowest_us = max(each.p99_total_us or 0 for each in data.routing)
    if slowest_us / 1000 >= _SHOW_TARGET_FROM:
        layout |= _level(_TARGET_MS, f"target {_TARGET_MS:.0f} ms")
    return {"data": traces, "layout": layout}


def _cache(data: ReportData) -> Figure | None:
    if not data.summary.cache_lookups:
        return None
    begins = _begins(data)
    lookups = {
        "type": "bar",
        "name": "look-ups",
        "x": begins,
        "y": [each.cache_lookups for each in data.routing],
        # A bar is as wide as its step, and begins with it.
        "width": data.step.total_seconds() * 1000,
        "offset": 0,
        "yaxis": "y2",
        "marker": {"color": "--muted-fill"},
        "hovertemplate": "%{y:,} look-ups<extra></extra>",
    }
    rate = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "hit rate",
        "x": begins,
        "y": [each.cache_hit_rate for each in data.routing],
        "line": {"color": "--series-1", "width": 2},
        "marker": {"color": "--series-1", "size": 5},
        "hovertemplate": "%{y:.1%} hits<extra></extra>",
    }
    share = {"range": [0, 1.02], "tickformat": ".0%", "tickmode": "linear", "dtick": 0.2}
    layout = _over_time(data, share | {"overlaying": "y2", "title": {"text": "hits"}})
    layout["margin"] = layout["margin"] | {"r": 60}
    layout["yaxis2"] = {
        "side": "right",
        "rangemode": "tozero",
        "showgrid": False,
        "title": {"text": "look-ups"},
        "tickformat": ",d",
    }
    bound = _BOUNDS.min_cache_hit_rate
    return {"data": [lookups, rate], "layout": layout | _level(bound, f"alert below {bound:.0%}")}


def _reliability(found: Calibration) -> Figure | None:
    bins = [each for each in found.overall.bins if each.count]
    if not bins:
        return None
    most = max(each.count for each in bins)
    rates = [each.success_rate or 0.0 for each in bins]
    # Where there are decisions, there is an interval.
    ends = [each.success_rate_interval or Interval(low=0, high=1) for each in bins]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [each.mean_confidence for each in bins],
        "y": rates,
        "customdata": [each.count for each in bins],
        "marker": {
            "color": "--series-1",
            "size": [8 + 16 * sqrt(each.count / most) for each in bins],
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [end.high - rate for end, rate in zip(ends, rates, strict=True)],
            "arrayminus": [rate - end.low for end, rate in zip(ends, rates, strict=True)],
            "color": "--series-1",
            "thickness": 1.5,
        },
        "hovertemplate": "confidence %{x:.1%}, success %{y:.1%}, %{customdata:,} decisions"
        "<extra></extra>",
    }
    share = {"range": [-0.03, 1.03], "tickformat": ".0%", "dtick": 0.2, "gridcolor": "--line"}
    share["zeroline"] = False
    layout = _layout(380) | {
        "xaxis": share | {"title": {"text": "mean confidence"}},
        "yaxis": share | {"title": {"text": "success rate"}},
        "shapes": [_line(x0=0, y0=0, x1=1, y1=1)],
        "showlegend": False,
    }
    return {"data": [trace], "layout": layout}


def _confidence(agents: Sequence[Sequence[ComponentConfidence]]) -> Figure | None:
    shown = [group for group in agents if any(each.score_share for each in group)]
    if not shown:
        return None
    places = list(range(len(shown)))
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": places,
            "x": [_of(group, name).score_share or 0 for group in shown],
            "customdata": [_component_hover(_of(group, name)) for group in shown],
            "marker": {"color": color},
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        for name, color in _COMPONENTS.items()
    ]
    names = [label(_name(group[0].agent, NOBODY)) for group in shown]
    layout = _layout(_AXES_PX + _ROW_PX * len(shown)) | {
        "barmode": "stack",
        "xaxis": {
            "range": [0, 1],
            "tickformat": ".0%",
            "gridcolor": "--line",
            "title": {"text": "share of the scores"},
        },
        "yaxis": _named(places, names) | {"autorange": "reversed"},
    }
    return {"data": traces, "layout": layout}


def _component_hover(one: ComponentConfidence) -> str:
    about = [hover(_name(one.agent, NOBODY)), f"{one.component} of {one.rows:,} decisions"]
    if one.score_share is not None:
        about.append(f"adds {one.score_share:.1%} of the scores")
    if one.mean is not None:
        about.append(f"mean {one.mean:.3f}")
    return "<br>".join(about)


def _handoffs(edges: Sequence[Handoff]) -> Figure | None:
    """Return sources on the left, targets on the right: an agent may be both, and loops are none.

    So any graph has a drawing in which no edge runs backwards.
    """
    if not edges:
        return None
    sources = list(dict.fromkeys(edge.source_agent for edge in edges))
    targets = list(dict.fromkeys(edge.target_agent for edge in edges))
    names = [_name(each, ENTRY) for each in (*sources, *targets)]
    trace = {
        "type": "sankey",
        "arrangement": "fixed",
        "node": {
            "label": [label(each) for each in names],
            "customdata": [hover(each) for each in names],
            "color": "--node",
            "line": {"width": 0},
            "pad": 12,
            "thickness": 12,
            "hovertemplate": "%{customdata}<br>%{value:,} hand-offs<extra></extra>",
        },
        "link": {
            "source": [sources.index(edge.source_agent) for edge in edges],
            "target": [len(sources) + targets.index(edge.target_agent) for edge in edges],
            "value": [edge.count for edge in edges],
            "color": [_color(edge.success_rate) for edge in edges],
            "customdata": [_edge_hover(edge) for edge in edges],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        "valueformat": ",d",
    }
    height = _AXES_PX + _ROW_PX * max(len(sources), len(targets), 6)
    return {"data": [trace], "layout": _layout(height)}


def _edge_hover(edge: Handoff) -> str:
    names = f"{hover(_name(edge.source_agent, ENTRY))} → {hover(edge.target_agent)}"
    rate = "none ended" if edge.success_rate is None else f"{edge.success_rate:.1%} succeeded"
    return f"{names}<br>{edge.count:,} hand-offs, {rate}"


def _color(success_rate: float | None) -> str:
    if success_rate is None:
        return "--link-unknown"
    if success_rate >= _GOOD:
        return "--link-good"
    return "--link-fair" if success_rate >= _FAIR else "--link-poor"


def _sparkline(row: AgentRow, data: ReportData) -> Figure:
    trace = {
        "type": "scatter",
        "mode": "lines",
        "x": _begins(data),
        "y": list(row.runs),
        "fill": "tozeroy",
        "line": {"color": "--series-1", "width": 1.5},
        "fillcolor": "--muted-fill",
    }
    hidden = {"visible": False, "fixedrange": True}
    layout = _layout(32) | {
        "width": 140,
        "margin": {"l": 2, "r": 2, "t": 2, "b": 2},
        "xaxis": hidden | {"type": "date"},
        "yaxis": hidden | {"range": [0, max(*row.runs, 1) * 1.1]},
        "showlegend": False,
    }
    return {"data": [trace], "layout": layout, "config": {"staticPlot": True}}


def _layout(height: int) -> Figure:
    return {
        "height": height,
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": {"color": "--text", "family": "system-ui, sans-serif", "size": 12},
        "margin": {"l": 60, "r": 20, "t": 36, "b": 44},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        "hoverlabel": {"bgcolor": "--panel", "bordercolor": "--line", "font": {"color": "--text"}},
    }


def _over_time(data: ReportData, values: Figure) -> Figure:
    first = min(data.window.since, data.routing[0].begins_at)
    ends = [_instant(first), _instant(data.window.until)]
    return _layout(280) | {
        "xaxis": {"type": "date", "range": ends, "gridcolor": "--line", "linecolor": "--line"},
        "yaxis": {"gridcolor": "--line", "zerolinecolor": "--line"} | values,
        "hovermode": "x",
    }


def _level(value: float, words: str) -> Figure:
    """Return a line across the chart, with words on it."""
    note = {
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": value,
        "yanchor": "bottom",
        "text": words,
        "showarrow": False,
        "font": {"color": "--muted"},
    }
    return {"shapes": [_line(xref="paper", x0=0, x1=1, y0=value, y1=value)], "annotations": [note]}


def _line(**ends: Any) -> Figure:
    return {"type": "line", "line": {"color": "--muted", "dash": "dot", "width": 1.5}, **ends}


def _named(places: Sequence[int], names: Sequence[str]) -> Figure:
    axis = {"tickmode": "array", "tickvals": list(places), "ticktext": list(names)}
    away = {"ticks": "outside", "ticklen": 6, "tickcolor": _CLEAR}
    return axis | away | {"automargin": True, "showgrid": False, "zeroline": False}


def _begins(data: ReportData) -> list[str]:
    return [_instant(each.begins_at) for each in data.routing]


def _instant(value: datetime) -> str:
    # Without an offset, which plotly would turn into the reader's zone.
    return value.replace(tzinfo=None).isoformat()


def _of(group: Iterable[ComponentConfidence], name: str) -> ComponentConfidence:
    return next(each for each in group if each.component == name)


def _name(agent: str | None, instead: str) -> str:
    return instead if agent is None else agent


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000
