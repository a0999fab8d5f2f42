"""The runs of a workflow as a tree with times: plain Python, without recursion, for any data.

Times are integers of microseconds. A run reaches from its start to its end: `completed_at`, or
where that is missing or lies before the start, the start and the recorded duration. A run without
either has no end: its total and its self time are unknown, and it reaches to the last instant
known below it. A run whose parent is not there, or that a loop of parents leads back to, is a root.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from agentobs.keys import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

_MICROSECOND = timedelta(microseconds=1)
_MICROSECONDS_A_MILLISECOND = 1000


class Link(StrEnum):
    """What ties a run to the tree.

    `orphan`: the parent is expired, missing or not among what was asked for. `cycle`: the parents
    led in a loop, which was cut at the run of it that began first.
    """

    ROOT = "root"
    CHILD = "child"
    ORPHAN = "orphan"
    CYCLE = "cycle"


class Run(NamedTuple):
    """What the tree is made of; ids are unique."""

    id: UUID
    parent_id: UUID | None
    started_at: datetime
    completed_at: datetime | None
    recorded_ms: int | None
    success: bool | None


@dataclass(slots=True, eq=False, repr=False)
class Span:
    """A run in its place.

    `end` is as far as it reaches, `total` None where that is no end of its own. `own` is what no
    child covers, `critical` the part of the critical path that is its own, None off the path.
    `failed_below` counts the failed runs under it, `reached` is the last of the failed runs right
    above one that failed.
    """

    run: Run
    begin: int
    end: int
    total: int | None
    link: Link = Link.ROOT
    parent: Span | None = None
    children: list[Span] = field(default_factory=list)
    depth: int = 0
    own: int | None = None
    critical: int | None = None
    failed_below: int = 0
    reached: Span | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the run failed; one that goes on has not."""
        return self.run.success is False


def grow(runs: Iterable[Run]) -> list[Span]:
    """Return each run once, in depth-first order: roots and siblings as they began, then by id."""
    spans = [_span(run) for run in sorted(runs, key=lambda run: (run.started_at, run.id))]
    _link(spans)
    _cut_loops(spans)
    for span in spans:
        if span.parent is not None:
            span.parent.children.append(span)
    ordered = _depth_first([span for span in spans if span.parent is None])
    _measure(ordered)
    _trace_failures(ordered)
    if extent(ordered) is not None:
        _mark_critical(ordered)
    return ordered


def extent(spans: Sequence[Span]) -> int | None:
    """Return the microseconds from first start to last instant; None where nothing has ended."""
    if all(span.total is None for span in spans):
        return None
    return max(span.end for span in spans) - min(span.begin for span in spans)


def microseconds(instant: datetime) -> int:
    """Return an instant on the axis of the spans."""
    return (instant - EPOCH) // _MICROSECOND


def _span(run: Run) -> Span:
    begin = microseconds(run.started_at)
    total = _total(run, begin)
    return Span(run, begin, begin + (total or 0), total)


def _total(run: Run, begin: int) -> int | None:
    if run.completed_at is not None and run.completed_at >= run.started_at:
        return microseconds(run.completed_at) - begin
    if run.recorded_ms is not None and run.recorded_ms >= 0:
        return run.recorded_ms * _MICROSECONDS_A_MILLISECOND
    return None


def _link(spans: Sequence[Span]) -> None:
    of_id = {span.run.id: span for span in spans}
    for span in spans:
        if span.run.parent_id is not None:
            span.parent = of_id.get(span.run.parent_id)
            span.link = Link.ORPHAN if span.parent is None else Link.CHILD


def _cut_loops(spans: Sequence[Span]) -> None:
    """Walk up from each span, as far as no walk has been; one that meets itself is in a loop."""
    walks: dict[int, int] = {}
    order = {id(span): place for place, span in enumerate(spans)}
    for walk, start in enumerate(spans):
        span: Span | None = start
        while span is not None and id(span) not in walks:
            walks[id(span)] = walk
            span = span.parent
        if span is not None and walks[id(span)] == walk:
            first = min(_loop(span), key=lambda each: order[id(each)])
            first.parent, first.link = None, Link.CYCLE


def _loop(start: Span) -> list[Span]:
    loop, span = [start], start.parent
    while span is not None and span is not start:
        loop.append(span)
        span = span.parent
    return loop


def _depth_first(roots: Sequence[Span]) -> list[Span]:
    ordered: list[Span] = []
    left = list(reversed(roots))
    while left:
        span = left.pop()
        span.depth = 0 if span.parent is None else span.parent.depth + 1
        ordered.append(span)
        left.extend(reversed(span.children))
    return ordered


def _measure(ordered: Sequence[Span]) -> None:
    """From the leaves up: how far each reaches, and what of it no child covers."""
    for span in reversed(ordered):
        if span.total is None:
            span.end = max([span.begin, *(child.end for child in span.children)])
        else:
            span.own = span.total - _covered(span)


def _covered(span: Span) -> int:
    """Return how much of a span its children cover together, in it and each moment once."""
    covered, at = 0, span.begin
    for child in span.children:
        begin, end = max(child.begin, at), min(child.end, span.end)
        if begin < end:
            covered, at = covered + end - begin, end
    return covered


def _trace_failures(ordered: Sequence[Span]) -> None:
    for span in ordered:
        if span.has_failed:
            above = span.parent
            span.reached = above.reached if above is not None and above.has_failed else span
    for span in reversed(ordered):
        if span.parent is not None:
            span.parent.failed_below += span.failed_below + span.has_failed


def _mark_critical(ordered: Sequence[Span]) -> None:
    """Go back from the end to the child that ended last, from its begin to the one before, ….

    Children count as far as they lie in their parent. Several roots are taken as the children of
    one run that reaches over all of them. A run of no known length is not on the path.
    """
    roots = [span for span in ordered if span.parent is None]
    first, last = min(span.begin for span in roots), max(span.end for span in roots)
    left = _critical_of(roots, first, last)[1]
    while left:
        span, begin, end = left.pop()
        span.critical, below = _critical_of(span.children, begin, end)
        left.extend(below)


def _critical_of(
    children: Sequence[Span], since: int, until: int
) -> tuple[int, list[tuple[Span, int, int]]]:
    """Return what of the time is no child's, and the children on the path with their times."""
    clipped = [(min(s.end, until), max(s.begin, since), s) for s in children]
    # Of two that ended together, the one that began first explains more.
    clipped.sort(key=lambda each: (-each[0], each[1]))
    own, path = 0, []
    for end, begin, span in clipped:
        if begin < end <= until:
            own += until - end
            until = begin
            path.append((span, begin, end))
    return own + until - since, path
