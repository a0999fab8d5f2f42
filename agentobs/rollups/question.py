"""What is asked of the rollups: the shape, of which there are few, and the values of a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentobs.keys import uuid7_floor
from agentobs.rollups.hours import DAY, HOUR, ceil_to, floor_to, key_floor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from agentobs.rollups.families import Family


@dataclass(frozen=True)
class Shape:
    """A table asked of each agent or of all, in steps or as a whole.

    `has_days` says that a step may hold a whole day, which is read as one then.
    """

    family: Family
    of_agents: bool = False
    has_steps: bool = False
    has_days: bool = True


@dataclass(frozen=True)
class Span:
    """The window that is asked of, and the beginnings of its steps, where the shape has some.

    The first step begins not after `since`. An hour that a step parts is read row by row, and not
    at all where its rows have expired.
    """

    since: datetime
    until: datetime
    begins: Sequence[datetime] = ()

    @property
    def has_hours(self) -> bool:
        """Whether there is a whole hour in it."""
        return ceil_to(self.since, HOUR) < floor_to(self.until, HOUR)

    @property
    def values(self) -> dict[str, Any]:
        """The parameters of the statement."""
        first_hour, end_hour = ceil_to(self.since, HOUR), floor_to(self.until, HOUR)
        return {
            "first_hour": first_hour,
            "middle": first_hour + (end_hour - first_hour) / 2,
            "end_hour": end_hour,
            "first_day": ceil_to(self.since, DAY),
            "end_day": floor_to(self.until, DAY),
            "lower_id": uuid7_floor(self.since),
            "upper_id": uuid7_floor(self.until),
            **self._steps,
        }

    @property
    def _steps(self) -> dict[str, Any]:
        if not self.begins:
            return {}
        keys = [key_floor(begin) for begin in self.begins]
        return {"begins": list(self.begins), "begin_keys": keys}
