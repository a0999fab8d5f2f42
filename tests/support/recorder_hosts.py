"""Processes that record, started quickly: a fork of one that has everything imported."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, TextIO
from uuid import UUID

from pydantic import SecretStr
from support.recorders import strict_recorder

from agentobs import DatabaseSettings, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
# Not the folder of the tests, which the server does not know.
_FORKS.set_forkserver_preload(["agentobs.recorder", "sqlalchemy.dialects.postgresql.asyncpg"])
# How many decisions are made before the outcome of one is known: more than a flush takes.
_LAG = 150


@dataclass
class Accepted:
    """What a host's calls had returned for: each was told after that."""

    decisions: set[UUID] = field(default_factory=set)
    runs: set[UUID] = field(default_factory=set)
    qualities: dict[UUID, float] = field(default_factory=dict)

    def add(self, line: str) -> None:
        what, key, *more = line.split()
        if what == "decision":
            self.decisions.add(UUID(key))
        elif what == "run":
            self.runs.add(UUID(key))
        else:
            self.qualities[UUID(key)] = float(more[0])


class Host:
    """A process that records, and tells what was accepted."""

    def __init__(self, process: BaseProcess, told: TextIO) -> None:
        self.accepted = Accepted()
        self._process = process
        self._told = told

    def read(self, lines: int) -> None:
        for line in itertools.islice(self._told, lines):
            self.accepted.add(line)

    def kill(self) -> None:
        """Kill it without a warning, and read to the end of what it had told."""
        self._process.kill()
        self._process.join()
        for line in self._told:
            self.accepted.add(line)

    def end(self) -> None:
        """Read until it ends by itself."""
        for line in self._told:
            self.accepted.add(line)
        self._process.join()
        assert self._process.exitcode == 0


@contextmanager
def host_of(
    work: Callable[..., None], database: DatabaseSettings, folder: Path, *arguments: object
) -> Iterator[Host]:
    """Run `work(tell, database, folder, *arguments)` in a process for the block."""
    told, teller = _FORKS.Pipe(duplex=False)
    assert database.database_url is not None
    url = database.database_url.get_secret_value()
    process = _FORKS.Process(target=_run, args=(work, teller, url, folder, *arguments))
    process.start()
    teller.close()
    with told, os.fdopen(os.dup(told.fileno()), encoding="ascii") as lines:
        try:
            yield Host(process, lines)
        finally:
            process.kill()
            process.join()
            process.close()


def _run(
    work: Callable[..., None], teller: Connection, url: str, folder: Path, *arguments: object
) -> None:
    def tell(*words: object) -> None:
        # One write is whole or not there, also if the next moment is the last one.
        os.write(teller.fileno(), (" ".join(map(str, words)) + "\n").encode())

    database = DatabaseSettings.model_construct(database_url=SecretStr(url))
    work(tell, database, folder, *arguments)


def record_for_ever(
    tell: Callable[..., None], database: DatabaseSettings, folder: Path
) -> NoReturn:
    """Record as a service does, with a spool, until somebody kills the process."""
    recorder = strict_recorder(
        database, folder, delivery="spool", flush_rows=100, flush_interval=0.01, buffer_rows=400
    ).start()
    # It keeps all that follows in the spool: a successor finds what is stored already, too. In a
    # context of its own it is nobody's parent, which would be stored at once.
    copy_context().run(recorder.transformation(target_agent="agent-open").__enter__)
    waiting: deque[UUID] = deque()
    for number in itertools.count():
        waiting.append(_record_workflow(recorder, tell))
        if len(waiting) > _LAG or number % 3 == 0:
            key = waiting.popleft()
            quality = number % 100 / 100
            recorder.outcome(key, success=True, quality_score=quality)
            tell("outcome", key, quality)
    raise AssertionError


def _record_workflow(recorder: Recorder, tell: Callable[..., None]) -> UUID:
    decision = recorder.routing_decision(selected_agent="agent-debug", strategy="fuzzy")
    tell("decision", decision.id)
    with recorder.transformation(target_agent="agent-debug", decision=decision) as outer:
        with recorder.transformation(target_agent="agent-testing") as inner:
            pass
        tell("run", inner.id)
    tell("run", outer.id)
    return decision.id
