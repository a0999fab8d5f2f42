"""A folder of definition files into the table agent_definitions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    column,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from agentobs.models import AgentDefinition, metadata
from agentobs.registry.folders import LoadedFile, LoadedFolder, folder_prefix, load_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from sqlalchemy import ColumnElement
    from sqlalchemy.dialects.postgresql import Insert
    from sqlalchemy.ext.asyncio import AsyncSession

_TABLE = metadata.tables[AgentDefinition.__tablename__]
_KEY = ("agent_name", "agent_version")

# Syncs of one database take turns: a second one sees what the first has written, and two that
# write the same rows in different order can't deadlock. The number is "agentreg" in ASCII.
_LOCK_KEY = int.from_bytes(b"agentreg", "big")


class AgentVersion(BaseModel):
    """A version of an agent and the registry path of its file."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    path: str


class FileFailure(BaseModel):
    """A file that can't be read; `line` counts from 1 where it is known."""

    model_config = ConfigDict(frozen=True)

    path: Path
    reason: str
    line: int | None = None


class FileWarning(BaseModel):
    """A file that was read with doubt."""

    model_config = ConfigDict(frozen=True)

    path: Path
    text: str


class SyncReport(BaseModel):
    """What a sync did; versions in order of name and version, files in order of path."""

    model_config = ConfigDict(frozen=True)

    added: tuple[AgentVersion, ...] = ()
    updated: tuple[AgentVersion, ...] = ()
    unchanged: tuple[AgentVersion, ...] = ()
    reactivated: tuple[AgentVersion, ...] = ()
    deactivated: tuple[AgentVersion, ...] = ()
    failed: tuple[FileFailure, ...] = ()
    warnings: tuple[FileWarning, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every file was read."""
        return not self.failed


class _Known(NamedTuple):
    """What the table knows of a version."""

    id: UUID
    name: str
    version: str
    digest: str | None
    path: str | None
    is_active: bool


class _Plan(NamedTuple):
    """What is to be done with each file, by its row."""

    added: list[LoadedFile]
    updated: list[LoadedFile]
    reactivated: list[tuple[UUID, LoadedFile]]
    unchanged: list[tuple[UUID, LoadedFile]]


async def sync_folder(
    session: AsyncSession,
    folder: Path,
    *,
    root: str | None = None,
    prune: bool = False,
    now: datetime | None = None,
) -> SyncReport:
    """Make agent_definitions hold what the definition files in `folder` say.

    A new version is added, one whose file changed is updated and activated; of an unchanged one
    only `last_loaded_at` (and a moved `registry_path`) is written. Scores and ids are never
    touched. `prune` deactivates active versions whose file lay in the folder and is gone, and
    forgets its path; a version that comes back after that is activated again. `root` stands for
    the folder in registry paths; by default its absolute path.

    The caller commits; until then other syncs wait. Raises DefinitionError for a folder without
    definition files; a file that can't be read is reported, and the others are loaded.
    """
    loaded = await asyncio.to_thread(load_folder, folder, root)
    instant = now or datetime.now(UTC)
    await session.execute(select(func.pg_advisory_xact_lock(cast(_LOCK_KEY, BigInteger))))
    plan = _plan(loaded.files, await _known_versions(session, loaded.files))
    await _upsert(session, [*plan.added, *plan.updated], instant)
    await _touch(session, plan, instant)
    gone = await _deactivate_missing(session, loaded) if prune else []
    return _report(loaded, plan, gone)


async def _known_versions(
    session: AsyncSession, files: Sequence[LoadedFile]
) -> dict[tuple[str, str], _Known]:
    names = sorted({file.document.agent_name for file in files})
    named = _TABLE.c.agent_name == any_(bindparam("names", names, ARRAY(Text)))
    known = await _select_known(session, named)
    return {(row.name, row.version): row for row in known}


async def _select_known(session: AsyncSession, *criteria: ColumnElement[bool]) -> list[_Known]:
    rows = await session.execute(
        select(
            _TABLE.c.id,
            _TABLE.c.agent_name,
            _TABLE.c.agent_version,
            _TABLE.c.definition_hash,
            _TABLE.c.registry_path,
            _TABLE.c.is_active,
        )
        .where(*criteria)
        .order_by(_TABLE.c.agent_name, _TABLE.c.agent_version)
    )
    return [_Known(*row) for row in rows]


def _plan(files: Sequence[LoadedFile], known: dict[tuple[str, str], _Known]) -> _Plan:
    plan = _Plan([], [], [], [])
    for file in files:
        row = known.get(file.version)
        if row is None:
            plan.added.append(file)
        elif row.digest != file.document.definition_hash:
            plan.updated.append(file)
        elif _was_pruned(row):
            plan.reactivated.append((row.id, file))
        else:
            plan.unchanged.append((row.id, file))
    return plan


def _was_pruned(row: _Known) -> bool:
    # A version that an operator switched off still has the path of its file.
    return not row.is_active and row.path is None


async def _upsert(session: AsyncSession, files: Sequence[LoadedFile], now: datetime) -> None:
    # One statement for all rows, run once a row in one round trip: a statement with all rows in
    # it would meet the limits on parameters and on the size of a message.
    rows = [
        {
            **file.document.columns(),
            "registry_path": file.registry_path,
            "is_active": True,
            "last_loaded_at": now,
        }
        for file in sorted(files, key=lambda file: file.version)
    ]
    if rows:
        await session.execute(_upsert_statement(rows[0].keys()), rows)


def _upsert_statement(names: Iterable[str]) -> Insert:
    statement = insert(_TABLE)
    return statement.on_conflict_do_update(
        index_elements=_KEY,
        set_={name: statement.excluded[name] for name in names if name not in _KEY},
    )


async def _touch(session: AsyncSession, plan: _Plan, now: datetime) -> None:
    pairs = [*plan.unchanged, *plan.reactivated]
    if not pairs:
        return
    returned = {key for key, _ in plan.reactivated}
    touched = (
        func.unnest(
            bindparam("ids", [key for key, _ in pairs], ARRAY(Uuid)),
            bindparam("paths", [file.registry_path for _, file in pairs], ARRAY(Text)),
            bindparam("returned", [key in returned for key, _ in pairs], ARRAY(Boolean)),
        )
        .table_valued(column("id", Uuid), column("path", Text), column("returned", Boolean))
        .render_derived("touched")
    )
    await session.execute(
        update(_TABLE)
        .where(_TABLE.c.id == touched.c.id)
        .values(
            last_loaded_at=now,
            registry_path=touched.c.path,
            is_active=or_(_TABLE.c.is_active, touched.c.returned),
        )
    )


async def _deactivate_missing(session: AsyncSession, loaded: LoadedFolder) -> list[_Known]:
    """Deactivate what no file of the folder holds any more, and return it as it was."""
    if not loaded.files:
        return []
    inside = _TABLE.c.registry_path.startswith(folder_prefix(loaded.root), autoescape=True)
    present = {file.version for file in loaded.files}
    known = await _select_known(session, _TABLE.c.is_active, inside)
    gone = [row for row in known if _is_gone(row, present, loaded)]
    await session.execute(
        update(_TABLE)
        .where(_TABLE.c.id == any_(bindparam("gone", [row.id for row in gone], ARRAY(Uuid))))
        .values(is_active=False, registry_path=None)
    )
    return gone


def _is_gone(row: _Known, present: set[tuple[str, str]], loaded: LoadedFolder) -> bool:
    # A file that can't be read may be this agent's.
    lost = row.path is None or not loaded.may_hold(row.path)
    return lost and (row.name, row.version) not in present


def _report(loaded: LoadedFolder, plan: _Plan, gone: list[_Known]) -> SyncReport:
    return SyncReport(
        added=_versions(plan.added),
        updated=_versions(plan.updated),
        unchanged=_versions(file for _, file in plan.unchanged),
        reactivated=_versions(file for _, file in plan.reactivated),
        deactivated=tuple(
            AgentVersion(name=row.name, version=row.version, path=row.path or "") for row in gone
        ),
        failed=tuple(
            FileFailure(path=error.path, reason=error.reason, line=error.line)
            for error in loaded.failures
        ),
        warnings=_file_warnings(loaded.files),
    )


def _versions(files: Iterable[LoadedFile]) -> tuple[AgentVersion, ...]:
    return tuple(
        AgentVersion(
            name=file.document.agent_name,
            version=file.document.agent_version,
            path=file.registry_path,
        )
        for file in files
    )


def _file_warnings(files: Iterable[LoadedFile]) -> tuple[FileWarning, ...]:
    documents = sorted((file.document for file in files), key=lambda found: found.path.as_posix())
    return tuple(
        FileWarning(path=document.path, text=text)
        for document in documents
        for text in document.warnings
    )
