"""A workflow's runs become a tree with times, however bad the data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentobs.analytics.trace_tree import Link, Run, Span, extent, grow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANY = 10_000
MS = 1000
"""The microseconds of a millisecond."""


def at(milliseconds: int) -> datetime:
    return NOON + timedelta(milliseconds=milliseconds)


def run(
    number: int,
    begin: int = 0,
    end: int | None = None,
    *,
    parent: int | None = None,
    recorded: int | None = None,
    success: bool | None = True,
) -> Run:
    return Run(
        UUID(int=number),
        None if parent is None else UUID(int=parent),
        at(begin),
        None if end is None else at(end),
        recorded,
        success,
    )


def number_of(span: Span) -> int:
    return span.run.id.int


def numbers(spans: Sequence[Span]) -> list[int]:
    return [number_of(span) for span in spans]


def path(spans: Sequence[Span]) -> dict[int, float]:
    return {number_of(s): s.critical / MS for s in spans if s.critical is not None}


def own(spans: Sequence[Span]) -> dict[int, float | None]:
    return {number_of(s): None if s.own is None else s.own / MS for s in spans}


def test_runs_stand_depth_first_and_siblings_as_they_began() -> None:
    spans = grow([run(4, 8, 9), run(3, 2, 5, parent=1), run(2, 5, 6, parent=1), run(1, 0, 8)])

    assert [(number_of(s), s.depth, s.link) for s in spans] == [
        (1, 0, Link.ROOT),
        (3, 1, Link.CHILD),
        (2, 1, Link.CHILD),
        (4, 0, Link.ROOT),
    ]
    assert numbers(spans[0].children) == [3, 2]


def test_no_runs_are_no_tree() -> None:
    assert grow([]) == []
    assert extent([]) is None


def test_a_run_whose_parent_is_missing_is_a_root_and_keeps_its_children() -> None:
    spans = grow([run(1, 0, 9), run(2, 1, 3, parent=99), run(3, 2, 3, parent=2)])

    assert [(number_of(s), s.depth, s.link) for s in spans] == [
        (1, 0, Link.ROOT),
        (2, 0, Link.ORPHAN),
        (3, 1, Link.CHILD),
    ]


def test_a_loop_is_cut_at_the_run_that_began_first() -> None:
    spans = grow(
        [
            run(1, 3, 4, parent=3),
            run(2, 2, 9, parent=1),
            run(3, 5, 6, parent=2),
            run(4, 0, 1, parent=3),
            run(5, 0, 1, parent=5),
        ]
    )

    assert [(number_of(s), s.depth, s.link) for s in spans] == [
        (5, 0, Link.CYCLE),
        (2, 0, Link.CYCLE),
        (3, 1, Link.CHILD),
        (4, 2, Link.CHILD),
        (1, 2, Link.CHILD),
    ]


def test_the_end_is_the_completion_else_the_recorded_duration() -> None:
    spans = grow(
        [
            run(1, 0, 5, recorded=7),
            run(2, 1, recorded=7),
            run(3, 9, 2, recorded=7),
            run(4, 9, 9),
            run(5, 9, 2),
            run(6, 9, recorded=-1),
            run(7, 9),
        ]
    )

    assert {number_of(s): s.total for s in spans} == {
        1: 5 * MS,
        2: 7 * MS,
        3: 7 * MS,
        4: 0,
        5: None,
        6: None,
        7: None,
    }
    assert extent(spans) == 16 * MS


def test_self_time_counts_overlapping_children_once_and_not_outside_their_parent() -> None:
    spans = grow(
        [
            run(1, 10, 20),
            run(2, 5, 12, parent=1),
            run(3, 11, 14, parent=1),
            run(4, 18, 40, parent=1),
            run(5, 30, 50, parent=1),
            run(6, 0, 60, parent=2),
        ]
    )

    assert own(spans) == {1: 4, 2: 0, 3: 3, 4: 22, 5: 20, 6: 60}


def test_a_run_that_goes_on_has_no_times_but_covers_what_is_known_below_it() -> None:
    spans = grow([run(1, 0, 10), run(2, 1, parent=1, success=None), run(3, 2, 6, parent=2)])

    assert [(number_of(s), s.total) for s in spans] == [(1, 10 * MS), (2, None), (3, 4 * MS)]
    assert own(spans) == {1: 5, 2: None, 3: 4}
    assert path(spans) == {1: 5, 2: 1, 3: 4}


def test_where_nothing_has_ended_there_is_neither_extent_nor_path() -> None:
    spans = grow([run(1, 0, success=None), run(2, 5, parent=1, success=None)])

    assert extent(spans) is None
    assert path(spans) == {}


def test_the_critical_path_goes_back_from_the_end_to_the_child_that_ended_last() -> None:
    spans = grow(
        [
            run(1, 0, 100),
            run(2, 10, 50, parent=1),
            run(3, 20, 40, parent=1),
            run(4, 45, 90, parent=1),
            run(5, 60, 95, parent=4),
            run(6, 5, 44, parent=1),
        ]
    )

    # 2 reaches into 4, so 6 is the last before it; 5 counts as far as 4 does.
    assert path(spans) == {1: 5 + 1 + 10, 6: 39, 4: 15, 5: 30}


def test_several_roots_are_taken_as_parts_of_one_run() -> None:
    spans = grow([run(1, 0, 10), run(2, 3, 12, parent=99), run(3, 15, 20)])

    assert path(spans) == {2: 9, 3: 5}
    assert extent(spans) == 20 * MS


def test_a_failure_reaches_up_as_far_as_the_runs_above_failed_too() -> None:
    spans = grow(
        [
            run(1, 0, 9),
            run(2, 1, 9, parent=1, success=False),
            run(3, 2, 9, parent=2, success=False),
            run(4, 3, 9, parent=3),
            run(5, 4, 9, parent=4, success=False),
            run(6, 1, 2, parent=1, success=None),
        ]
    )

    reached = {number_of(s): number_of(s.reached) for s in spans if s.reached}
    assert reached == {2: 2, 3: 2, 5: 5}
    assert {number_of(s): s.failed_below for s in spans} == {1: 3, 2: 2, 3: 1, 4: 1, 5: 0, 6: 0}


@pytest.mark.parametrize("shape", ["deep", "wide", "loop", "looped below"])
def test_ten_thousand_runs_of_any_shape_are_no_trouble(shape: str) -> None:
    parents: dict[str, Callable[[int], int | None]] = {
        "deep": lambda n: n - 1 or None,
        "wide": lambda n: 1 if n > 1 else None,
        "loop": lambda n: n - 1 or MANY,
        "looped below": lambda n: n - 1 or 2,
    }
    runs = [run(n, n, 2 * MANY - n, parent=parents[shape](n)) for n in range(1, MANY + 1)]
    spans = grow(sorted(runs, key=lambda each: each.id.int * 7919 % MANY))

    assert sorted(numbers(spans)) == [*range(1, MANY + 1)]
    assert max(span.depth for span in spans) == (1 if shape == "wide" else MANY - 1)
    assert sum(span.critical or 0 for span in spans) == extent(spans)


INSTANTS = st.integers(0, 12)


@st.composite
def workflows(draw: st.DrawFn) -> list[Run]:
    count = draw(st.integers(0, 9))
    links = st.one_of(st.none(), st.integers(1, count + 1))
    return [
        run(
            number,
            draw(INSTANTS),
            draw(st.none() | INSTANTS),
            parent=draw(links),
            recorded=draw(st.none() | st.integers(-1, 12)),
            success=draw(st.sampled_from([True, False, None])),
        )
        for number in range(1, count + 1)
    ]


class Oracle:
    """The definitions told again, by search, recursion and sets of milliseconds."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs = {r.id.int: r for r in runs}
        self.parents: dict[int, int | None] = {
            n: r.parent_id.int if r.parent_id and r.parent_id.int in self.runs else None
            for n, r in self.runs.items()
        }
        self.cut = {n for n in self.runs if n == min(self.above(n), key=self.order, default=0)}
        self.parents |= dict.fromkeys(self.cut)

    def order(self, n: int) -> tuple[datetime, int]:
        return self.runs[n].started_at, n

    def above(self, n: int) -> set[int]:
        """Return the loop that a run is part of."""
        loop: set[int] = set()
        at: int | None = self.parents[n]
        while at is not None and at not in loop:
            loop.add(at)
            at = self.parents[at]
        return loop if n in loop else set()

    def children(self, n: int | None) -> list[int]:
        return sorted((c for c, p in self.parents.items() if p == n), key=self.order)

    def depth_first(self, n: int | None = None) -> list[int]:
        return [each for c in self.children(n) for each in (c, *self.depth_first(c))]

    def begin(self, n: int) -> int:
        return (self.runs[n].started_at - NOON) // timedelta(milliseconds=1)

    def total(self, n: int) -> int | None:
        r = self.runs[n]
        known = [] if r.recorded_ms is None else [r.recorded_ms]
        if r.completed_at is not None:
            known.insert(0, (r.completed_at - r.started_at) // timedelta(milliseconds=1))
        return next((took for took in known if took >= 0), None)

    def end(self, n: int) -> int:
        total = self.total(n)
        if total is not None:
            return self.begin(n) + total
        return max([self.begin(n), *map(self.end, self.children(n))])

    def own(self, n: int) -> int | None:
        if self.total(n) is None:
            return None
        moments = set(range(self.begin(n), self.end(n)))
        return len(
            moments.difference(*(range(self.begin(c), self.end(c)) for c in self.children(n)))
        )

    def critical(self, n: int | None, since: int, until: int) -> dict[int | None, int]:
        found: dict[int | None, int] = {n: 0}
        cursor = until
        while True:
            clipped = [
                (min(self.end(c), until), -max(self.begin(c), since), -place, c)
                for place, c in enumerate(self.children(n))
                if max(self.begin(c), since) < min(self.end(c), until) <= cursor
            ]
            if not clipped:
                found[n] += cursor - since
                return found
            end, minus_begin, _, child = max(clipped)
            found[n] += cursor - end
            found |= self.critical(child, -minus_begin, end)
            cursor = -minus_begin

    def path(self) -> dict[int, int]:
        if all(self.total(n) is None for n in self.runs):
            return {}
        roots = self.children(None)
        found = self.critical(None, min(map(self.begin, roots)), max(map(self.end, roots)))
        return {n: took for n, took in found.items() if n is not None}

    def failed_below(self, n: int) -> int:
        below = self.depth_first(n)
        return sum(self.runs[each].success is False for each in below)


@settings(max_examples=150, deadline=None)
@given(workflows())
def test_any_workflow_is_the_tree_that_its_definition_says(runs: list[Run]) -> None:
    oracle, spans = Oracle(runs), grow(runs)

    assert numbers(spans) == oracle.depth_first()
    assert {number_of(s) for s in spans if s.link is Link.CYCLE} == oracle.cut
    for span in spans:
        number = number_of(span)
        assert (span.parent and number_of(span.parent)) == oracle.parents[number]
        assert span.depth == (0 if span.parent is None else span.parent.depth + 1)
        assert span.failed_below == oracle.failed_below(number)
        total = oracle.total(number)
        assert span.total == (None if total is None else total * MS)
    assert own(spans) == {n: oracle.own(n) for n in oracle.depth_first()}
    assert all(span.own is None or span.own >= 0 for span in spans)
    assert path(spans) == oracle.path()


@settings(max_examples=60, deadline=None)
@given(workflows(), st.randoms(use_true_random=False))
def test_the_order_in_which_runs_are_given_does_not_matter(runs: list[Run], random: Random) -> None:
    told = [(number_of(s), s.depth, s.link, s.own, s.critical) for s in grow(runs)]
    random.shuffle(runs)

    assert [(number_of(s), s.depth, s.link, s.own, s.critical) for s in grow(runs)] == told


@settings(max_examples=60, deadline=None)
@given(workflows())
def test_failures_reach_up_an_unbroken_row_of_failed_runs(runs: list[Run]) -> None:
    for span in grow(runs):
        assert (span.reached is not None) == span.has_failed
        if span.reached is None:
            continue
        above, at = span.reached.parent, span
        assert above is None or not above.has_failed
        while at is not span.reached:
            assert at.has_failed
            assert at.parent is not None
            at = at.parent
