"""What an operator wants of the partitions: how many ahead, and how long what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from agentobs.errors import InvalidValueError
from agentobs.maintenance.months import SLACK

if TYPE_CHECKING:
    from agentobs.maintenance.months import Month

# Each month is a relation with its indexes, which the planner looks at.
_MOST_AHEAD = 24


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Policy:
    """What to make and what to let go; nothing is let go by default.

    `keep` is the age at which rows expire, `keep_payload` that of their contexts, requests and
    feedback; what expires is archived in `archive`, where that is given. A month expires as a
    whole, when its youngest row is older than that. `rebuild_rollups` has all hours folded anew
    whose rows are there. Raises InvalidValueError.
    """

    ahead: int = 3
    keep: timedelta | None = None
    keep_payload: timedelta | None = None
    # A URL may hold a password.
    archive: str | None = field(default=None, repr=False)
    rebuild_rollups: bool = False
    now: datetime = field(default_factory=_now)

    def __post_init__(self) -> None:
        if self.now.utcoffset() is None:
            raise InvalidValueError("now", "must have a time zone")
        if not 0 <= self.ahead <= _MOST_AHEAD:
            raise InvalidValueError("ahead", f"must lie within 0 and {_MOST_AHEAD}")
        for name, age in (("keep", self.keep), ("keep_payload", self.keep_payload)):
            if age is not None and age < timedelta(days=1):
                raise InvalidValueError(name, "must be a day at least")
        if self.keep and self.keep_payload and self.keep_payload >= self.keep:
            raise InvalidValueError("keep_payload", "must be less than keep: the rows hold it")

    def expires(self, month: Month) -> bool:
        """Tell whether all rows of a month are older than what is kept."""
        return self._is_older(month, self.keep)

    def expires_payload(self, month: Month) -> bool:
        """Tell whether the payload of all rows of a month is older than what is kept."""
        return self._is_older(month, self.keep_payload)

    def _is_older(self, month: Month, age: timedelta | None) -> bool:
        # A row may lie behind its month's end, by the slack between clocks. And an age may reach
        # back farther than there are instants.
        return age is not None and self.now - (month.end + SLACK) >= age
