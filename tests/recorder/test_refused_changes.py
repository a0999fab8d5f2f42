"""How long a change is tried that is refused, and which refusals are those of all changes."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from agentobs.errors import (
    ConnectionFailedError,
    ConstraintError,
    DatabaseError,
    ReadOnlyError,
    StatementTimeoutError,
)
from agentobs.recorder.entries import Entry, Kind
from agentobs.recorder.writing.others import is_outage, is_overdue


def change() -> Entry:
    return Entry(Kind.OUTCOME, uuid4(), {"actual_success": True})


def test_a_change_that_waited_long_for_its_row_is_not_overdue_at_its_first_refusal() -> None:
    entry = change()
    entry.held_until = time.monotonic() - 3600

    assert not is_overdue(entry, 60)
    assert not is_overdue(entry, 60)


def test_a_change_is_overdue_when_it_was_refused_for_as_long_as_it_may_be() -> None:
    entry = change()

    assert not is_overdue(entry, 60)
    entry.refused_until = time.monotonic()
    assert is_overdue(entry, 60)


def test_the_first_refusal_is_the_last_one_where_nothing_may_wait() -> None:
    assert is_overdue(change(), 0)


@pytest.mark.parametrize(
    ("error", "is_of_all"),
    [
        # One statement took too long: the next one may not.
        (StatementTimeoutError("too long", sqlstate="57014"), False),
        (ConstraintError("no such row", sqlstate="23503"), False),
        (DatabaseError("no rights", sqlstate="42501"), False),
        (DatabaseError("going down", sqlstate="57P01"), True),
        (DatabaseError("disk full", sqlstate="53100"), True),
        (ConnectionFailedError("gone"), True),
        (ReadOnlyError("a replica", sqlstate="25006"), True),
    ],
    ids=str,
)
def test_an_outage_is_what_every_change_would_meet(error: DatabaseError, is_of_all: bool) -> None:
    assert is_outage(error) is is_of_all
