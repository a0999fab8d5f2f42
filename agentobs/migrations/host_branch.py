"""Our revisions as a branch among those of a host, in the version table of its own."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import context
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, delete, insert
from sqlalchemy.schema import CreateTable, DropTable

from agentobs.errors import MigrationError
from agentobs.migrations.catalog import current_schema
from agentobs.migrations.environment import errors_for_operators
from agentobs.migrations.host_filters import include_name, include_object
from agentobs.migrations.scripts import VERSION_TABLE, revisions, version_location
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from alembic.runtime.migration import MigrationContext, MigrationInfo

# As Alembic makes it.
_VERSIONS = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)
_TWICE = re.compile(r"Revision (\S+) is present more than once")


def branch_options() -> dict[str, Any]:
    """Return options for `context.configure()` of a host whose `version_locations` name ours, too.

    Filters for autogenerate; a transaction for each revision, since ours set limits that are to end
    with it; and a record of our revision in our own version table, which services and commands ask.
    Where an id is that of two revisions, or ours are not there, Alembic's command line ends with
    one line on stderr; a program gets its CommandError, with a MigrationError as the cause.
    """
    with errors_for_operators():
        _require_our_revisions(context.script)
    return {
        "include_name": include_name,
        "include_object": include_object,
        "on_version_apply": record_revision,
        "transaction_per_migration": True,
    }


def record_revision(
    ctx: MigrationContext,
    step: MigrationInfo,
    heads: Collection[Any],
    run_args: Mapping[str, Any],
) -> None:
    """Keep our version table in step with the host's, as `on_version_apply` of Alembic."""
    del run_args
    # A stamp may move ours by naming one of the host's that depends on them, or none at all.
    if not (step.is_stamp or _ours_of(step.up_revisions)):
        return
    with errors_for_operators():
        _require_schema(ctx)
    below = step.revision_map.iterate_revisions(tuple(heads), "base", implicit_base=True)
    # The newest comes first.
    _write(ctx, next(iter(_ours_of(below)), None))


def _write(ctx: MigrationContext, revision: str | None) -> None:
    if revision is None:
        ctx.execute(DropTable(_VERSIONS, if_exists=True))
        return
    ctx.execute(CreateTable(_VERSIONS, if_not_exists=True))
    ctx.execute(delete(_VERSIONS))
    ctx.execute(insert(_VERSIONS).values(version_num=revision))


def _ours_of(found: Iterable[object]) -> list[str]:
    scripts = (each for each in found if isinstance(each, Script))
    home = version_location()
    return [each.revision for each in scripts if Path(each.path).resolve().parent == home]


def _require_our_revisions(script: ScriptDirectory) -> None:
    anew = ScriptDirectory(
        script.dir,
        version_locations=script.version_locations,
        recursive_version_locations=script.recursive_version_locations,
    )
    ours = {found.revision for found in revisions()}
    if clash := sorted(_ids_twice(anew) & ours):
        raise MigrationError(
            f"{', '.join(clash)} are ids of revisions of yours and of ours, which Alembic tells "
            "apart by their ids alone: give yours others, or let ours have a version table of "
            "their own (`agentobs db upgrade`, or upgrade_with_host() in env.py)"
        )
    if ours - {found.revision for found in anew.walk_revisions()}:
        raise MigrationError(
            "version_locations does not name our revisions: add agentobs:alembic/versions, "
            "or what agentobs.migrations.version_location() returns"
        )


def _ids_twice(script: ScriptDirectory) -> set[str]:
    # Of two that have the same id Alembic keeps one, whichever it loads last, and only warns.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        script.get_heads()
    found = (_TWICE.search(str(warning.message)) for warning in caught)
    return {match[1] for match in found if match}


def _require_schema(ctx: MigrationContext) -> None:
    named = read_settings().schema_name
    if named is None or ctx.connection is None or ctx.as_sql:
        return
    found = current_schema(ctx.connection)
    if found != named:
        raise MigrationError(
            f"as a branch our tables are made in the schema of your connection, {found}, and "
            f"AGENTOBS_SCHEMA names {named}: set the search_path of the connection, or let ours "
            "have a version table of their own (`agentobs db upgrade`)"
        )
