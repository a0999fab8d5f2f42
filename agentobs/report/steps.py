"""The step of a report's series."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentobs.analytics import Window

_MOST_STEPS = 48
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)
_STEPS = (*(timedelta(minutes=each) for each in _MINUTES), timedelta(days=1))
_WEEK = timedelta(weeks=1)


def step_of(window: Window) -> timedelta:
    """Return the shortest step that people reckon with and that makes about 50 of the window."""
    for step in _STEPS:
        if window.length <= _MOST_STEPS * step:
            return step
    weeks = -(-window.length // (_MOST_STEPS * _WEEK))
    return weeks * _WEEK
