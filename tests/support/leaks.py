"""Look for the canary in everything that an error shows to people and to logs."""

from __future__ import annotations

import logging
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.models import CANARY

from agentobs.errors import AgentobsError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Caught:
    """The error that the block raised."""

    error: AgentobsError


@contextmanager
def nothing_leaks(caplog: pytest.LogCaptureFixture) -> Iterator[Caught]:
    """Expect an error of ours, and the canary in no part of it and in no log record."""
    caplog.set_level(logging.DEBUG)
    caught = Caught()
    with pytest.raises(AgentobsError) as info:
        yield caught
    caught.error = info.value
    for shown in (*_shown_by(info.value), caplog.text):
        assert CANARY not in shown


def _shown_by(error: BaseException | None) -> Iterator[str]:
    """Yield what the error and those behind it show, also to those who look at attributes."""
    yield "".join(traceback.format_exception(error))
    while error is not None:
        yield f"{error} {error!r} {error.args} {vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
