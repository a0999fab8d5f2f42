"""How far an online upgrade is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.errors import MigrationError
from agentobs.migrations.online.tables import EVENT_TABLES, STATE

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agentobs.migrations.comparison import Catalog

_HAS_STATE = text("SELECT to_regclass(:table) IS NOT NULL")
_STATES = text(f"SELECT table_name, fingerprint, phase FROM {STATE}")  # noqa: S608 (a constant)


def is_under_way(connection: Connection) -> bool:
    """Tell whether an online upgrade was begun and is not finished; ends the transaction."""
    found = bool(connection.scalar(_HAS_STATE, {"table": STATE}))
    connection.rollback()
    return found


def require_none_under_way(connection: Connection) -> None:
    """Raise MigrationError where a revision would find what an online upgrade works with."""
    if is_under_way(connection):
        raise MigrationError(
            "an online upgrade is under way: finish it with `agentobs db upgrade --online`, or "
            "take it back with `agentobs db upgrade --online --undo`"
        )


def fingerprints_of(found: Catalog) -> dict[str, str]:
    """Tell each table by what its copy is made like: all but its triggers."""
    return {
        table.name: hashlib.sha256(
            found.tables[table.name].model_copy(update={"triggers": {}}).model_dump_json().encode()
        ).hexdigest()
        for table in EVENT_TABLES
    }


def phases_of(connection: Connection, found: Catalog) -> dict[str, str]:
    """Return how far each table is; raise MigrationError where one is not what it was."""
    states = {row[0]: (row[1], row[2]) for row in connection.execute(_STATES)}
    connection.rollback()
    for name, fingerprint in fingerprints_of(found).items():
        if states[name][0] != fingerprint:
            raise MigrationError(
                f"the table {name} was changed since the online upgrade began: take that back with "
                "`agentobs db upgrade --online --undo`, and begin again"
            )
    return {name: phase for name, (_, phase) in states.items()}
