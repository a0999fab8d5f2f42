"""Put the tables beside in the place of the old ones, by what revision 0005 itself runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.migrations.online.catching_up import apply_changes, catch_up
from agentobs.migrations.online.revisions import run_locked
from agentobs.migrations.online.tables import CHANGES, EVENT_TABLES, KEY, NOTE, STATE, TRIGGER

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agentobs.migrations.online.revisions import Steps
    from agentobs.migrations.online.tables import EventTable

_REVISION = "0005"
# The partitions of former ids that have none: no more will come. In one statement, for others wait.
_DROP_EMPTY = """
    DO $$
    DECLARE
        part regclass;
    BEGIN
        FOR part IN SELECT inhrelid FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = '{ids}'::regclass AND relname <> '{ids}_default'
        LOOP
            EXECUTE format('DO $empty$ BEGIN IF NOT EXISTS (SELECT FROM %1$s) THEN '
                           'DROP TABLE %1$s; END IF; END $empty$', part);
        END LOOP;
    END
    $$
"""


def swap(connection: Connection) -> None:
    """Swap in one short transaction, which records revision 0005 too.

    What of it takes long (the rows, their indexes) is there already, and is found by the
    statements of the revision; those decide what the tables are.
    """
    run_locked(connection, _REVISION, _swap_under_locks, before=_leave_little)


def _leave_little(connection: Connection) -> None:
    for table in EVENT_TABLES:
        catch_up(connection, table)


def _take_the_rest(connection: Connection) -> None:
    """Copy the last changes, and take away what noted them, which the revision would refuse."""
    for table in EVENT_TABLES:
        while apply_changes(connection, table):
            pass
        for name in (TRIGGER, f"{TRIGGER}_emptied"):
            connection.exec_driver_sql(f"DROP TRIGGER {name} ON {table.name}")
    for statement in (
        f"DROP FUNCTION {NOTE}()",
        f"DROP FUNCTION {KEY}(uuid, timestamptz)",
        f"DROP TABLE {CHANGES}, {STATE}",
    ):
        connection.exec_driver_sql(statement)
    for table in EVENT_TABLES:
        connection.exec_driver_sql(_DROP_EMPTY.format(ids=table.original_ids))


def _swap_under_locks(connection: Connection, steps: Steps) -> None:
    """Run the steps of the revision's upgrade, but for those that move rows."""
    _take_the_rest(connection)
    steps["_take_locks"]()
    steps["_run"]("0005_dependents.sql")
    for table in EVENT_TABLES:
        steps["_run"]("0005_carry.sql", table.name)
    for table in EVENT_TABLES:
        connection.exec_driver_sql(f"ALTER TABLE {table.beside} RENAME TO {table.name}")
        _finish(steps, table)
    connection.exec_driver_sql("DROP TABLE agentobs_carried")
    steps["_create_partition_states"]()
    steps["_run_qualified"]("0005_parent_links.sql")
    steps["_secure_functions"]()


def _finish(steps: Steps, table: EventTable) -> None:
    steps["_run"]("0005_finish.sql", table.name)
