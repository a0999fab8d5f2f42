"""What an online upgrade works with: its state, what notes changes, the tables beside the old ones.

All of it is in the schema of the tables, named agentobs_online_…; but for the partitions, which
have their final names from the start, for their indexes are called after them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.migrations.online.locks import lock_tables, patiently
from agentobs.migrations.online.months import create_next_months
from agentobs.migrations.online.tables import CHANGES, EVENT_TABLES, KEY, NOTE, STATE, TRIGGER
from agentobs.migrations.scripts import statements_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from agentobs.migrations.online.tables import EventTable

# The same key as revision 0005 makes of a row: kept where it is of the row's month, else made of
# the instant and of the old one.
_CREATE_KEY = f"""
    CREATE FUNCTION {KEY}(id uuid, instant timestamptz) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
    DECLARE
        hash constant bytea := substr(sha256(uuid_send(id)), 1, 16);
        digits constant text := overlay(encode(hash, 'hex')
            PLACING substr('89ab', 1 + (get_byte(hash, 8) & 3), 1) FROM 17 FOR 1);
    BEGIN
        IF NOT (instant >= '1970-01-01 00:00:00+00' AND instant < '10889-08-02 05:31:50.656+00')
        THEN
            RETURN overlay(digits PLACING 'ffffffffffff8' FROM 1)::uuid;
        END IF;
        IF instant < '10889-06-30 00:00:00+00' AND substr(id::text, 15, 1) = '7'
           AND id >= agentobs_uuid7_floor(date_trunc('month',
                greatest(instant - interval '1 day', '1970-01-01 00:00:00+00'), 'UTC'))
           AND id < agentobs_uuid7_floor(date_trunc('month',
                instant + interval '1 day', 'UTC') + interval '1 month')
        THEN
            RETURN id;
        END IF;
        RETURN (agentobs_uuid7_prefix(instant) || substr(digits, 17))::uuid;
    END
    $$
"""
# It runs as its owner, whatever the writer's rights and search_path are.
_CREATE_NOTE = f"""
    DO $do$
    BEGIN
    EXECUTE replace($sql$
    CREATE FUNCTION {NOTE}() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $agentobs$
    BEGIN
        -- All rows are gone: no key stands for that but the one that nothing has.
        IF TG_OP = 'TRUNCATE' THEN
            INSERT INTO {{schema}}.{CHANGES}
            VALUES (TG_TABLE_NAME, '00000000-0000-0000-0000-000000000000');
            RETURN NULL;
        END IF;
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO {{schema}}.{CHANGES} VALUES (TG_TABLE_NAME, OLD.id);
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO {{schema}}.{CHANGES} VALUES (TG_TABLE_NAME, NEW.id);
        END IF;
        RETURN NULL;
    END
    $agentobs$
    $sql$, '{{schema}}', quote_ident(current_schema()));
    END
    $do$
"""  # noqa: S608 (constant names)
_CREATE_STATE = f"""
    CREATE TABLE {STATE} (
        table_name text PRIMARY KEY,
        fingerprint text NOT NULL,
        phase text NOT NULL DEFAULT 'copying',
        last_instant text,
        last_id uuid,
        copied bigint NOT NULL DEFAULT 0,
        total bigint NOT NULL
    )
"""
_CREATE_CHANGES = f"CREATE TABLE {CHANGES} (table_name text NOT NULL, id uuid NOT NULL)"
# The copy asks of each row whether there is a note of it; and notes are worked off in its order.
_INDEX_CHANGES = f"CREATE INDEX {CHANGES}_id_idx ON {CHANGES} (table_name, id)"
_REVOKE_NOTE = f"REVOKE ALL ON FUNCTION {NOTE}() FROM PUBLIC"
_TOOLS = (
    _CREATE_STATE,
    _CREATE_CHANGES,
    _INDEX_CHANGES,
    _CREATE_KEY,
    _CREATE_NOTE,
    _REVOKE_NOTE,
)
_NOTE_TABLE = text(
    f"""
    INSERT INTO {STATE} (table_name, fingerprint, total)
    SELECT :table, :fingerprint, greatest(reltuples, 0) FROM pg_class
    WHERE oid = to_regclass(quote_ident(:table))
    """  # noqa: S608 (a constant name)
)


def refuse_obstacles(connection: Connection) -> None:
    """Let revision 0005 say what of the host it would refuse to rewrite the tables under."""
    for statement in statements_of("0005_dependents.sql"):
        connection.exec_driver_sql(statement)


def begin(connection: Connection, fingerprints: Mapping[str, str]) -> None:
    """Make all that is worked with, and note changes from the commit on, in one transaction.

    Raises MigrationError where revision 0005 would refuse what of the host stands on the tables.
    """

    def work(connection: Connection) -> None:
        refuse_obstacles(connection)
        for statement in _TOOLS:
            connection.exec_driver_sql(statement)
        for table in EVENT_TABLES:
            values = {"table": table.name, "fingerprint": fingerprints[table.name]}
            connection.execute(_NOTE_TABLE, values)
            _create_beside(connection, table)
        # Whoever wrote before has committed by then. It comes last, for others wait from here on.
        lock_tables(connection, "SHARE ROW EXCLUSIVE")
        _note_changes(connection)

    patiently(connection, work)


def _note_changes(connection: Connection) -> None:
    for table in EVENT_TABLES:
        for name, moment in (
            (TRIGGER, "INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW"),
            (f"{TRIGGER}_emptied", "TRUNCATE ON {} FOR EACH STATEMENT"),
        ):
            connection.exec_driver_sql(
                f"CREATE TRIGGER {name} AFTER {moment.format(table.name)} EXECUTE FUNCTION {NOTE}()"
            )
            # A session that replicates changes rows, too.
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ENABLE ALWAYS TRIGGER {name}")


def _create_beside(connection: Connection, table: EventTable) -> None:
    """Make the partitioned table, its DEFAULT and next months, and where former ids are kept."""
    for statement in (*_beside(table), *_original_ids(table)):
        connection.exec_driver_sql(statement)
    create_next_months(connection, table)


def _beside(table: EventTable) -> Iterator[str]:
    name = table.name
    like = f"LIKE {name} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS"
    yield f"CREATE TABLE {table.beside} ({like}) PARTITION BY RANGE (id)"
    yield f"CREATE TABLE {name}_default PARTITION OF {table.beside} DEFAULT"
    yield f"COMMENT ON TABLE {name}_default IS 'The rows of {name} that no month takes'"


def _original_ids(table: EventTable) -> Iterator[str]:
    ids = table.original_ids
    columns = "id uuid NOT NULL, original_id uuid NOT NULL"
    comment = f"The ids that rows of {table.name} had before they were ordered by time"
    yield f"CREATE TABLE {ids} ({columns}) PARTITION BY RANGE (id)"
    yield f"COMMENT ON TABLE {ids} IS '{comment}'"
    yield f"CREATE TABLE {ids}_default PARTITION OF {ids} DEFAULT"
    yield f"ALTER TABLE {ids} ADD CONSTRAINT {ids}_pkey PRIMARY KEY (id)"
    yield f"CREATE INDEX {ids}_original_id_idx ON {ids} (original_id)"
