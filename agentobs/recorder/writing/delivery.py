"""From entries to rows in the database, over one connection of its own."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import NullPool

from agentobs.errors import (
    AgentobsError,
    ConflictError,
    ConstraintError,
    DatabaseError,
    InvalidDataError,
    InvalidValueError,
    SpoolError,
    StatementTimeoutError,
)
from agentobs.recorder.dead_letters.writing import DeadLetter
from agentobs.recorder.entries import Kind
from agentobs.recorder.rows import EVENTS, METRICS, Layout, decimal_of, instant_from
from agentobs.recorder.writing import statements
from agentobs.recorder.writing.batch import with_descendants
from agentobs.recorder.writing.statements import Completion, Feedback, Outcome
from agentobs.sessions.address import database_address
from agentobs.sessions.engine import engine_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from agentobs.recorder.dead_letters.writing import DeadLetters
    from agentobs.recorder.entries import Entry
    from agentobs.settings import DatabaseSettings

logger = logging.getLogger("agentobs.recorder")

# The row is what is wrong, whatever it is tried on: values, constraints, limits, words of triggers.
_POISON_CLASSES = frozenset({"22", "23", "54", "P0", "AO"})
_TWICE = "23505"
_AUTOCOMMIT = "AUTOCOMMIT"
# What conversions raise, of rows that a spool of another version held.
_UNREADABLE = (ValueError, TypeError, ArithmeticError, KeyError)


@dataclass(slots=True)
class Delivered:
    """What became of entries, also where an error ended the delivery before its end."""

    written: list[Entry] = field(default_factory=list)
    refused: list[tuple[Entry, Exception]] = field(default_factory=list)
    parentless: list[Entry] = field(default_factory=list)
    unmatched: list[Entry] = field(default_factory=list)


class Delivery:
    """The connection of a writer, opened when it is needed, and what is done with it.

    Each call is a transaction of its own. An error that is not the fault of a row is raised;
    `drop_connection` then lets the next statement open another one.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        name = settings.application_name or "agentobs"
        self.engine: AsyncEngine = engine_for(
            database_address(settings),
            settings.model_copy(update={"application_name": f"{name} recorder"}),
            poolclass=NullPool,
            connect_args={"command_timeout": settings.command_timeout or None},
        )
        self.connections = 0
        self._is_pooled = settings.pooler is not None
        self._connection: AsyncConnection | None = None

    async def drop_connection(self) -> None:
        """Close the connection, in whatever state it is."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(AgentobsError, OSError):
                await connection.invalidate()
            with suppress(AgentobsError, OSError):
                await connection.close()

    async def close(self) -> None:
        """Close everything."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        await self.engine.dispose()

    async def insert_metrics(
        self, entries: list[Entry], done: Delivered, *, is_doubtful: bool
    ) -> None:
        """Store routing decisions; where `is_doubtful`, those that are not stored yet."""
        await self._insert(METRICS, entries, done, is_doubtful=is_doubtful)

    async def insert_events(
        self, entries: list[Entry], done: Delivered, *, is_doubtful: bool
    ) -> None:
        """Store runs, as above; of one that is stored and had not ended, its end."""
        await self._insert(EVENTS, entries, done, is_doubtful=is_doubtful)

    async def complete_runs(self, entries: list[Entry], done: Delivered) -> None:
        """Note how runs ended whose start is stored; store those whose start is gone again."""
        changed = Delivered()
        try:
            await self._change(statements.complete_runs, _completion, entries, changed)
        finally:
            done.written += changed.written
            done.refused += changed.refused
        await self.insert_events(changed.unmatched, done, is_doubtful=False)

    async def update_outcomes(self, entries: list[Entry], done: Delivered) -> None:
        """Note what came of routing decisions."""
        await self._change(statements.update_outcomes, _outcome, entries, done)

    async def update_feedback(self, entries: list[Entry], done: Delivered) -> None:
        """Note what persons said of routing decisions."""
        await self._change(statements.update_feedback, _feedback, entries, done)

    async def stored_events(self, keys: Collection[UUID]) -> set[UUID]:
        """Return those of the keys whose events are stored."""
        return await self._existing(EVENTS, keys)

    async def stored_metrics(self, keys: Collection[UUID]) -> set[UUID]:
        """Return those of the keys whose decisions are stored."""
        return await self._existing(METRICS, keys)

    async def _insert(
        self, layout: Layout, entries: list[Entry], done: Delivered, *, is_doubtful: bool
    ) -> None:
        if is_doubtful:
            entries = await self._not_stored(layout, entries, done)
        if not entries:
            return
        try:
            records = layout.records(entry.values for entry in entries)
            connection = await self._open(is_single=True)
            await statements.insert_records(connection, layout.model, layout.columns, records)
            await connection.commit()
        except (AgentobsError, *_UNREADABLE) as error:
            await self._roll_back()
            await self._sort_out(layout, entries, done, error, was_doubtful=is_doubtful)
        else:
            done.written += entries

    async def _sort_out(
        self,
        layout: Layout,
        entries: list[Entry],
        done: Delivered,
        error: Exception,
        *,
        was_doubtful: bool,
    ) -> None:
        """Go on without the rows that the error is about, or raise it."""
        rows = {entry.id: entry for entry in entries}
        waiting = with_descendants(rows, getattr(error, "missing", ()))
        if waiting:
            done.parentless += waiting.values()
            rest = [entry for entry in entries if entry.id not in waiting]
            await self._insert(layout, rest, done, is_doubtful=False)
        elif _is_stored_already(error) and not was_doubtful:
            await self._insert(layout, entries, done, is_doubtful=True)
        elif isinstance(error, StatementTimeoutError) and len(entries) > 1:
            # It has given its connection up. Fewer rows take less time.
            await self.drop_connection()
            for half in _halves(entries):
                await self._insert(layout, half, done, is_doubtful=True)
        elif not _is_poison(error) or _is_stored_already(error):
            raise error
        elif len(entries) == 1:
            done.refused.append((entries[0], error))
        else:
            for half in _halves(entries):
                await self._insert(layout, half, done, is_doubtful=False)

    async def _not_stored(
        self, layout: Layout, entries: list[Entry], done: Delivered
    ) -> list[Entry]:
        stored = await self._existing(layout, [entry.id for entry in entries])
        known = [entry for entry in entries if entry.id in stored]
        if layout is EVENTS:
            known = await self._complete_open(known, done)
        else:
            known = await self._change_known(known, done)
        done.written += known
        return [entry for entry in entries if entry.id not in stored]

    async def _change_known(self, known: list[Entry], done: Delivered) -> list[Entry]:
        """Note what was merged into decisions after they were stored; return the others."""
        changed = Delivered()
        validated = [entry for entry in known if Kind.OUTCOME in entry.was_merged]
        commented = [entry for entry in known if Kind.FEEDBACK in entry.was_merged]
        await self.update_outcomes(validated, changed)
        await self.update_feedback(commented, changed)
        done.refused += changed.refused
        open_ids = {entry.id for entry in changed.unmatched}
        gone = open_ids | {entry.id for entry, _ in changed.refused}
        settled = [entry for entry in known if entry.id not in gone]
        if open_ids:
            done.written += settled
            raise ConflictError("others have locked rows that are to be changed: it is tried again")
        return settled

    async def _complete_open(self, known: list[Entry], done: Delivered) -> list[Entry]:
        """Note the end of runs of which the start alone is stored; return the others."""
        ends = [entry for entry in known if not entry.is_start]
        connection = await self._open()
        ended = await statements.completed(connection, [entry.id for entry in ends])
        await connection.commit()
        late = [e for e in ends if e.id not in ended and e.values.get("completed_at")]
        if late:
            await self.complete_runs(late, done)
        late_ids = {entry.id for entry in late}
        return [entry for entry in known if entry.id not in late_ids]

    async def _change(
        self,
        change: Callable[[AsyncConnection, list[Any]], Awaitable[set[UUID]]],
        make: Callable[[Entry], Any],
        entries: list[Entry],
        done: Delivered,
    ) -> None:
        if not entries:
            return
        try:
            changes = [make(entry) for entry in entries]
            connection = await self._open()
            matched = await change(connection, changes)
            await connection.commit()
        except (AgentobsError, *_UNREADABLE) as error:
            await self._roll_back()
            if not _is_poison(error):
                raise
            if len(entries) == 1:
                done.refused.append((entries[0], error))
                return
            for half in _halves(entries):
                await self._change(change, make, half, done)
        else:
            done.written += [entry for entry in entries if entry.id in matched]
            done.unmatched += [entry for entry in entries if entry.id not in matched]

    async def _existing(self, layout: Layout, keys: Collection[UUID]) -> set[UUID]:
        try:
            connection = await self._open()
            stored = await statements.existing(connection, layout.model, keys)
            await connection.commit()
        except AgentobsError:
            await self._roll_back()
            raise
        return stored

    async def _open(self, *, is_single: bool = False) -> AsyncConnection:
        """Return the connection; a single statement needs no BEGIN and COMMIT around it.

        Each round trip costs more than its time, where a busy thread of the host takes the
        interpreter meanwhile. Through a pooler, COPY must not leave its backend in the middle.
        """
        if self._connection is None:
            self._connection = await self.engine.connect()
            self.connections += 1
        level = _AUTOCOMMIT if is_single and not self._is_pooled else self._default_level
        return await self._connection.execution_options(isolation_level=level)

    @property
    def _default_level(self) -> str | None:
        return self.engine.dialect.default_isolation_level

    async def _roll_back(self) -> None:
        if self._connection is not None:
            # Where that fails too, the next statement tells.
            with suppress(AgentobsError):
                await self._connection.rollback()


def bury(dead_letters: DeadLetters, letters: list[tuple[Entry, str, Exception | None]]) -> bool:
    """Write entries to the dead-letter file, with the reason; return whether they are there."""
    if not letters:
        return True
    try:
        dead_letters.write([_letter(*letter) for letter in letters])
        # The first reason stands for the others, which are in the file.
        logger.error("%d rows went to %s: %s", len(letters), dead_letters.path, letters[0][1])
    except SpoolError as error:
        logger.error("%d rows are lost: %s", len(letters), error)  # noqa: TRY400 (as above)
        return False
    return True


def _letter(entry: Entry, reason: str, error: Exception | None) -> DeadLetter:
    return DeadLetter(
        kind=str(entry.kind),
        id=entry.id,
        reason=reason,
        row=entry.values,
        sqlstate=getattr(error, "sqlstate", None),
        constraint=getattr(error, "constraint", None),
    )


def _is_poison(error: Exception) -> bool:
    if isinstance(error, ConstraintError | InvalidDataError | InvalidValueError):
        return True
    if isinstance(error, DatabaseError):
        return (error.sqlstate or "")[:2] in _POISON_CLASSES
    return not isinstance(error, AgentobsError)


def _is_stored_already(error: Exception) -> bool:
    return (
        isinstance(error, ConstraintError)
        and error.sqlstate == _TWICE
        and (error.constraint or "").endswith("_pkey")
    )


def _halves(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    middle = len(entries) // 2
    return list(entries[:middle]), list(entries[middle:])


def _completion(entry: Entry) -> Completion:
    values = entry.values
    score = values.get("quality_score")
    return Completion(
        entry.id,
        values["event_type"],
        values.get("success"),
        values.get("error_type"),
        values.get("error_message"),
        None if score is None else decimal_of(score),
        values.get("transformation_duration_ms"),
        values.get("initialization_duration_ms"),
        values.get("total_execution_duration_ms"),
        instant_from(values["completed_at"]),
    )


def _outcome(entry: Entry) -> Outcome:
    values = entry.values
    score = values.get("actual_quality_score")
    return Outcome(
        entry.id,
        values.get("actual_success"),
        None if score is None else decimal_of(score),
        instant_from(values["validated_at"]),
        entry.is_replayed or entry.has_waited,
    )


def _feedback(entry: Entry) -> Feedback:
    values, is_late = entry.values, entry.is_replayed or entry.has_waited
    return Feedback(entry.id, values["feedback_type"], values.get("feedback_details"), is_late)
