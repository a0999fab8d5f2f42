"""What is to be done, decided from what there is: pure, so that it can be printed beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentobs.maintenance.archive.folders import without_password
from agentobs.maintenance.months import Month
from agentobs.maintenance.tables import MonthPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agentobs.maintenance.catalog import MonthState, TableState
    from agentobs.maintenance.policy import Policy
    from agentobs.maintenance.tables import EventTable
    from agentobs.rollups import Backlog

UNANNOUNCED_ROWS = 10_000
"""So many rows are moved out of DEFAULT without saying beforehand how long that locks a table."""
_UNANNOUNCED_SIGHT = 50_000

# Guesses on the safe side, of two cores and contexts of 1 KB: rows are copied beforehand, so that
# they are only compared and deleted under the lock. All of DEFAULT is looked at there.
_ROWS_MOVED_A_SECOND = 40_000
_ROWS_SEEN_A_SECOND = 400_000


@dataclass(frozen=True)
class MakeMonth:
    """Make the partition of a month, and move the rows into it that lie in DEFAULT."""

    part: MonthPartition
    moved: int = 0
    rekeyed: int = 0
    """Rows in the way: their ids lie in the month by chance, their instants do not."""
    seen: int = 0
    """The rows in DEFAULT, which the server looks at to tell that none of the month is left."""

    @property
    def locked_seconds(self) -> float:
        """For how long writers of the table may wait, about; 0 where it is not worth a word."""
        rows = self.moved + self.rekeyed
        if rows <= UNANNOUNCED_ROWS and self.seen <= _UNANNOUNCED_SIGHT:
            return 0
        return rows / _ROWS_MOVED_A_SECOND + self.seen / _ROWS_SEEN_A_SECOND

    def __str__(self) -> str:
        words = [f"make {self.part}"]
        if self.moved:
            words.append(f"move {self.moved:,} rows into it from DEFAULT")
        if self.rekeyed:
            words.append(f"give {self.rekeyed:,} rows in its way another id")
        if self.locked_seconds:
            words.append(f"who needs DEFAULT waits for about {self.locked_seconds:.1f} s")
        return ", ".join(words)


@dataclass(frozen=True)
class ExpireMonth:
    """Archive a month where that is wanted, detach its partition, and drop it."""

    part: MonthPartition
    rows: int | None
    """As the server estimates them."""
    archive: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        how = f"{_archived(self.archive)}, detach and drop" if self.archive else "detach and drop"
        return f"{how} {self.part} ({_about(self.rows)})"


def _archived(archive: str) -> str:
    return f"archive in {without_password(archive)}"


def _about(rows: int | None) -> str:
    return "never analyzed" if rows is None else f"about {rows:,} rows"


@dataclass(frozen=True)
class DropExpired:
    """Finish an expiry that ended after the partition was detached."""

    part: MonthPartition
    archive: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        how = f"{_archived(self.archive)} and drop" if self.archive else "drop"
        return f"{how} {self.part}, which has been detached"


@dataclass(frozen=True)
class ExpirePayload:
    """Rewrite a closed month without its payload, which is archived first where that is wanted."""

    part: MonthPartition
    rows: int | None
    """As the server estimates them."""
    archive: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        how = f"{_archived(self.archive)} and remove" if self.archive else "remove"
        columns = ", ".join(self.part.table.payload)
        return f"{how} {columns} of {self.part} ({_about(self.rows)})"


@dataclass(frozen=True)
class DiscardRewrite:
    """Discard what a rewriting of a month has left that was broken off."""

    part: MonthPartition
    is_attached: bool = True
    """Whether the month is still there."""

    def __str__(self) -> str:
        return f"discard what a rewriting of {self.part} has left"


@dataclass(frozen=True)
class DiscardRestoration:
    """Discard what a restoration of a month has left that was broken off."""

    part: MonthPartition

    def __str__(self) -> str:
        return f"discard what a restoration of {self.part} has left"


@dataclass(frozen=True)
class FoldRollups:
    """Add up the hours of a table that have closed, and those that changed since they were."""

    table: EventTable
    backlog: Backlog
    anew: bool = False
    """Whether all hours are read again whose rows are there."""

    def __str__(self) -> str:
        words = [f"fold {self.table.name}"]
        if self.anew:
            return f"{words[0]} anew, as far as its rows reach"
        if self.backlog.closed_to:
            words.append(f"up to {self.backlog.closed_to:%Y-%m-%d %H:%M} UTC")
        if self.backlog.marked:
            words.append(f"{self.backlog.marked:,} hours that changed since")
        if self.backlog.has_changed_partitions:
            words.append("the hours of partitions that were added, taken away or rewritten")
        return ", ".join(words)


MonthStep = (
    MakeMonth | DiscardRewrite | DiscardRestoration | DropExpired | ExpirePayload | ExpireMonth
)
Step = MonthStep | FoldRollups


@dataclass(frozen=True)
class Plan:
    """The steps, in the order in which they are done; `notes` say what no step mends."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


def make_plan(
    states: Iterable[TableState], policy: Policy, backlogs: Mapping[str, Backlog] | None = None
) -> Plan:
    """Decide what is to be done for all tables; the same state gives the same plan.

    `backlogs` are what the rollups of the tables lack, by their names.
    """
    states = list(states)
    # Months ahead first, and of all tables: what fails after them keeps no row waiting.
    ahead = [step for state in states for step in _months_ahead(state, policy)]
    lacking = backlogs or {}
    folds = [
        FoldRollups(state.table, lacking[state.table.name], policy.rebuild_rollups)
        for state in states
        if lacking.get(state.table.name) or policy.rebuild_rollups
    ]
    return Plan(
        (*ahead, *folds, *(step for state in states for step in _steps(state, policy))),
        (
            *(note for state in states for note in _notes(state, policy)),
            *(note for name, backlog in lacking.items() for note in _unwatched(name, backlog)),
        ),
    )


def _unwatched(table: str, backlog: Backlog) -> Iterator[str]:
    if backlog.unwatched:
        yield (
            f"{backlog.unwatched} partitions of {table} lack a trigger of the rollups, or it is "
            f"off: their hours are read row by row, and don't expire. Run `ALTER TABLE {table} "
            "ENABLE ALWAYS TRIGGER` for each trigger_…_rollups_…"
        )


def _months_ahead(state: TableState, policy: Policy) -> Iterator[MonthStep]:
    missing = _missing_months(state, policy)
    yield from (_make(state, month) for month in missing if month not in state.detached)


def _steps(state: TableState, policy: Policy) -> Iterator[MonthStep]:
    missing = _missing_months(state, policy)
    yield from (
        DiscardRewrite(state.part(month), month in state.months) for month in state.rewrites
    )
    yield from (DiscardRestoration(state.part(month)) for month in state.restorations)
    yield from _leftovers(state, policy)
    # Their names are free only now.
    yield from (_make(state, month) for month in missing if month in state.detached)
    if state.references:
        return
    # Rows that came late for a month that is gone go the same way.
    rows = {month: found.rows for month, found in state.months.items()}
    rows |= {month: _strays(state, month, fits=True) for month in missing}
    done = {found.month: found for found in state.states}
    for month in sorted(rows):
        yield from _expiries(state.part(month), rows[month], done.get(month), policy)


def _make(state: TableState, month: Month) -> MakeMonth:
    fitting, foreign = (_strays(state, month, fits=fits) for fits in (True, False))
    seen = sum(found.rows for found in state.strays)
    return MakeMonth(state.part(month), fitting, foreign, seen)


def _missing_months(state: TableState, policy: Policy) -> list[Month]:
    """Return those of this month and the next ones, and of rows in DEFAULT, that can be made."""
    return sorted(
        month
        for month in _wanted_months(state, policy) - state.months.keys()
        if month not in state.in_the_way
        and not any(partition.overlaps(month) for partition in state.partitions)
    )


def _wanted_months(state: TableState, policy: Policy) -> set[Month]:
    wanted = set(Month.of(policy.now).and_following(policy.ahead))
    return wanted | {found.month for found in state.strays if found.fits and found.month}


def _strays(state: TableState, month: Month, *, fits: bool) -> int:
    return sum(found.rows for found in state.strays if (found.month, found.fits) == (month, fits))


def _leftovers(state: TableState, policy: Policy) -> Iterator[DropExpired]:
    noted = {found.month: found.archive for found in state.states}
    for month in state.detached:
        archive = _archive_of(noted.get(month), policy)
        yield DropExpired(MonthPartition(state.table, month), archive)


def _archive_of(noted: str | None, policy: Policy) -> str | None:
    """Return where a month was archived; a password that the place needs was not noted."""
    given = policy.archive
    return given if noted is None or (given and without_password(given) == noted) else noted


def _expiries(
    part: MonthPartition, rows: int | None, done: MonthState | None, policy: Policy
) -> Iterator[ExpireMonth | ExpirePayload]:
    # What was brought back stays until it is released.
    if done is not None and done.is_restored:
        return
    if policy.expires(part.month):
        yield ExpireMonth(part, rows, policy.archive)
    elif policy.expires_payload(part.month) and not (done and done.is_payload_expired):
        yield ExpirePayload(part, rows, policy.archive)


def _notes(state: TableState, policy: Policy) -> Iterator[str]:
    made = set(_missing_months(state, policy))
    staying = sum(found.rows for found in state.strays if found.month not in made)
    if staying:
        yield (
            f"{staying:,} rows stay in {state.table.default}, where no retention reaches them: no "
            "month takes them, for their ids are not of their instants, or these lie outside the "
            "range of months"
        )
    if state.references and (policy.keep or policy.keep_payload):
        yield (
            f"no month of {state.table.name} goes while {', '.join(state.references)} refers to "
            "it: drop that constraint"
        )
    for found in state.states:
        if found.is_restored:
            part = state.part(found.month)
            yield f"{part} was restored, and stays until `agentobs archive release {part}`"
    for partition in state.partitions:
        if partition.month is None and not partition.is_default:
            yield f"{partition.name} is left alone: it is no partition of a month"
    for month in sorted(_wanted_months(state, policy) & set(state.in_the_way)):
        yield (
            f"{state.table.partition(month)} can't be made: a table of that name is there, and "
            "is no partition. Attach it, or give it another name"
        )
