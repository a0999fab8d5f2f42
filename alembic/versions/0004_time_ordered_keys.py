"""Order the keys of events by time.

Reason: a key that holds its row's instant makes new rows neighbours in the primary key's index, and
lets a partition be a range of keys. The server makes it as the models do: a UUIDv7 of the
transaction's now(), the default of the instant beside it. And updated_at of a definition says when
the definition changed, not when the registry looked at it or its scores were counted anew.
Cost on a big table: none, no row is read; the default and the comment of a column take an
ACCESS EXCLUSIVE lock on both event tables for a moment.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEYS = {
    "agent_transformation_events": "started_at",
    "router_performance_metrics": "measured_at",
}

FUNCTIONS = {
    "agentobs_refuse_instant": "Refuses an instant that no time-ordered key can hold",
    "agentobs_uuid7_prefix": "The first 16 digits of a UUIDv7: milliseconds, version, fraction",
    "agentobs_uuid7_floor": "The least UUIDv7 of an instant: a bound for ranges of ids",
    "agentobs_uuid7_at": "A new UUIDv7 of an instant",
}


def upgrade() -> None:
    _take_locks()
    _create_key_functions()
    for table, instant in KEYS.items():
        op.alter_column(
            table,
            "id",
            server_default=sa.text("agentobs_uuid7_at(now())"),
            comment=f"Primary key: a UUIDv7, made of {instant}",
        )
    _watch_changes_of_definitions()


def downgrade() -> None:
    _take_locks()
    op.execute("""
        CREATE OR REPLACE FUNCTION update_agent_definitions_timestamp() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at = NOW();
            RETURN NEW;
        END;
        $$
    """)
    for table in KEYS:
        op.alter_column(
            table, "id", server_default=sa.text("gen_random_uuid()"), comment="Primary key"
        )
    op.execute("DROP FUNCTION agentobs_uuid7_at(timestamptz)")
    op.execute("DROP FUNCTION agentobs_uuid7_floor(timestamptz)")
    op.execute("DROP FUNCTION agentobs_uuid7_prefix(timestamptz)")
    op.execute("DROP FUNCTION agentobs_refuse_instant(timestamptz)")


def _take_locks() -> None:
    # Whoever waits for a lock stalls all behind it.
    text = Path(__file__).with_name("take_locks.sql").read_text(encoding="utf-8")
    tables = ", ".join(KEYS)
    locks = f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;"
    op.execute(text.replace("{tables}", tables).replace("{locks}", locks))
    # What is locked beyond these.
    op.execute("SET LOCAL lock_timeout = '5s'")


def _create_key_functions() -> None:
    # Bodies that are parsed here and now: they rest on no search_path, and the server inlines them
    # into the default, so that a row costs no call. A role that may insert needs no other right.
    op.execute("""
        CREATE FUNCTION agentobs_refuse_instant(instant timestamptz) RETURNS text
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        BEGIN
            RAISE EXCEPTION 'a time-ordered key holds an instant from 1970-01-01 to 10889-08-02 UTC'
                USING ERRCODE = 'datetime_field_overflow';
        END
        $$
    """)
    # 1/4096 of a millisecond is a tick: the first twelve digits of their number are milliseconds,
    # the last three the fraction, and the version of the UUID stands between them. The difference
    # of two instants is exact, and immutable; extract() of an instant is neither by declaration.
    op.execute("""
        CREATE FUNCTION agentobs_uuid7_prefix(instant timestamptz) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN CASE
            WHEN instant >= '1970-01-01 00:00:00+00'::timestamptz
             AND instant < '10889-08-02 05:31:50.656+00'::timestamptz
            THEN overlay(
                lpad(
                    to_hex(
                        floor(
                            extract(epoch FROM instant - '1970-01-01 00:00:00+00'::timestamptz)
                            * 4096000
                        )::bigint
                    ),
                    15, '0'
                )
                PLACING '7' FROM 13 FOR 0
            )
            ELSE agentobs_refuse_instant(instant)
        END
    """)
    op.execute("""
        CREATE FUNCTION agentobs_uuid7_floor(instant timestamptz) RETURNS uuid
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN (agentobs_uuid7_prefix(instant) || '8000000000000000')::uuid
    """)
    # The last 17 characters of a random UUID are its variant and the 62 bits behind.
    op.execute("""
        CREATE FUNCTION agentobs_uuid7_at(instant timestamptz) RETURNS uuid
        LANGUAGE sql VOLATILE PARALLEL SAFE
        RETURN (agentobs_uuid7_prefix(instant) || right(gen_random_uuid()::text, 17))::uuid
    """)
    for name, comment in FUNCTIONS.items():
        op.execute(f"COMMENT ON FUNCTION {name}(timestamptz) IS '{comment}'")
        op.execute(f"GRANT EXECUTE ON FUNCTION {name}(timestamptz) TO PUBLIC")


def _watch_changes_of_definitions() -> None:
    # Whole rows are compared by their images, which every type of a column has, a host's too.
    op.execute("""
        CREATE OR REPLACE FUNCTION update_agent_definitions_timestamp() RETURNS trigger
        LANGUAGE plpgsql AS $$
        DECLARE
            updated_at constant timestamptz := OLD.updated_at;
        BEGIN
            OLD.last_loaded_at := NEW.last_loaded_at;
            OLD.avg_execution_time_ms := NEW.avg_execution_time_ms;
            OLD.success_rate := NEW.success_rate;
            OLD.quality_score := NEW.quality_score;
            IF OLD *<> NEW THEN
                -- A generated column of a host has no value before the row is written.
                OLD := jsonb_populate_record(OLD, (
                    SELECT jsonb_object_agg(attname, NULL) FROM pg_attribute
                    WHERE attrelid = TG_RELID AND attgenerated <> ''));
            END IF;
            NEW.updated_at := CASE WHEN OLD *<> NEW THEN now() ELSE updated_at END;
            RETURN NEW;
        END;
        $$
    """)
