"""Aggregate closed hours and days of both event tables.

Reason: a chart of a month reads hundreds of hours instead of millions of rows. Maintenance folds
the rows of an hour that has closed into sums and histograms; a row that is written, changed or
deleted in such an hour marks it, and it is read row by row until it is folded anew.
Cost on a big table: three triggers on each partition, for which writers wait a moment; no row is
read before maintenance folds it. A row in an open hour costs a look at a sequence.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

EVENTS, METRICS = "agent_transformation_events", "router_performance_metrics"
EXECUTIONS, DECISIONS = "agentobs_execution_rollups", "agentobs_routing_rollups"
STATE, MARKS, PARTITIONS = (
    "agentobs_rollup_state",
    "agentobs_rollup_marks",
    "agentobs_rollup_partitions",
)
ATTACHED, WATERMARK = "agentobs_attached_partitions", "agentobs_rollup_watermark"
FUNCTION = "agentobs_mark_rollup_hour()"

# The columns of the event tables that the rollups are made of.
AGGREGATED = {
    EVENTS: ["target_agent", "success", "total_execution_duration_ms", "quality_score"],
    METRICS: [
        "selected_agent",
        "total_routing_time_us",
        "cache_lookup_us",
        "trigger_matching_us",
        "confidence_scoring_us",
        "cache_hit",
        "cache_age_seconds",
    ],
}
COMMENTS = {
    STATE: "How far the rollups of each event table reach",
    MARKS: "Hours in which rows changed after they were folded",
    PARTITIONS: "The partitions that the rollups were made of, as they were then",
    EXECUTIONS: "Hours and days of agent_transformation_events, of each agent and of all",
    DECISIONS: "Hours and days of router_performance_metrics, of each agent and of all",
}


def upgrade() -> None:
    _take_locks("SHARE ROW EXCLUSIVE")
    _create_state()
    _create_rollups()
    for table, comment in COMMENTS.items():
        op.execute(f"COMMENT ON TABLE {table} IS '{comment}'")
    _create_view()
    _create_function()
    for table in (EVENTS, METRICS):
        _watch(table)
    _forget_what_came_back()
    _hand_over()


def downgrade() -> None:
    _take_locks("ACCESS EXCLUSIVE")
    op.execute(f"DROP VIEW {ATTACHED}")
    for table in (EVENTS, METRICS):
        for moment in ("inserted", "updated", "deleted"):
            op.execute(f"DROP TRIGGER trigger_{table}_rollups_{moment} ON {table}")
    op.execute(f"DROP FUNCTION {FUNCTION}")
    op.execute(f"DROP SEQUENCE {WATERMARK}")
    for table in (STATE, MARKS, PARTITIONS):
        op.execute(f"DROP TABLE {table}")
    for table in (EXECUTIONS, DECISIONS):
        _drop_rollup(table)


def _take_locks(mode: str) -> None:
    # Whoever waits for a lock stalls all behind it.
    text = Path(__file__).with_name("take_locks.sql").read_text(encoding="utf-8")
    tables = f"{EVENTS}, {METRICS}"
    locks = f"LOCK TABLE {tables} IN {mode} MODE;"
    op.execute(text.replace("{tables}", tables).replace("{locks}", locks))
    # What is locked beyond these.
    op.execute("SET LOCAL lock_timeout = '5s'")


def _create_state() -> None:
    # Before it all hours are closed: the first 64 bits of the least key that is open, and one more,
    # for the bits behind them are not compared. A sequence is read and set outside of snapshots, so
    # that a writer with an old one sees the newest value.
    op.execute(f"CREATE SEQUENCE {WATERMARK} AS bigint MINVALUE 0 START 0")
    op.execute(f"""
        COMMENT ON SEQUENCE {WATERMARK} IS
        'The first 64 bits of the key with which the open hours begin, and one'
    """)
    # Who writes a row asks for it, whatever the role.
    op.execute(f"GRANT SELECT ON SEQUENCE {WATERMARK} TO PUBLIC")
    op.execute(f"""
        CREATE TABLE {STATE} (
            table_name text NOT NULL,
            folded_to timestamp with time zone DEFAULT '1970-01-01 00:00:00+00' NOT NULL,
            closing_to timestamp with time zone,
            closing xid8[],
            CONSTRAINT {STATE}_pkey PRIMARY KEY (table_name)
        )
    """)
    op.execute(f"INSERT INTO {STATE} (table_name) VALUES ('{EVENTS}'), ('{METRICS}')")
    # No unique key: writers that mark the same hour would wait for each other, and a mark would be
    # lost that was made while another one of its hour was taken away.
    op.execute(f"""
        CREATE TABLE {MARKS} (table_name text NOT NULL, hour timestamp with time zone NOT NULL)
    """)
    op.execute(f"CREATE INDEX idx_{MARKS}_hour ON {MARKS} (table_name, hour)")
    op.execute(f"""
        CREATE TABLE {PARTITIONS} (
            partition oid NOT NULL,
            table_name text NOT NULL,
            print text NOT NULL,
            lower_id uuid NOT NULL,
            upper_id uuid NOT NULL,
            CONSTRAINT {PARTITIONS}_pkey PRIMARY KEY (partition)
        )
    """)


def _create_rollups() -> None:
    _create_rollup(
        EXECUTIONS,
        counts=["executions", "finished", "succeeded", "rated"],
        measures=["total_execution_duration_ms"],
        sums=["quality_score_sum numeric"],
        percentiles=["p50_duration_ms", "p95_duration_ms", "p99_duration_ms"],
    )
    _create_rollup(
        DECISIONS,
        counts=["decisions", "over_target", "cache_lookups", "cache_hits", "cache_ages"],
        measures=[
            "total_routing_time_us",
            "cache_lookup_us",
            "trigger_matching_us",
            "confidence_scoring_us",
        ],
        sums=["cache_age_seconds_sum bigint"],
        percentiles=[
            "p50_total_us",
            "p95_total_us",
            "p99_total_us",
            "p95_cache_lookup_us",
            "p95_trigger_matching_us",
            "p95_confidence_scoring_us",
        ],
    )


def _create_rollup(
    table: str, *, counts: list[str], measures: list[str], sums: list[str], percentiles: list[str]
) -> None:
    columns = [
        *(f"{name} bigint NOT NULL" for name in counts),
        *sums,
        *(
            f"{name}_{part}"
            for name in measures
            for part in ("rows bigint NOT NULL", "sum bigint", "histogram numeric")
        ),
        *(f"{name} integer" for name in percentiles),
    ]
    op.execute(f"""
        CREATE TABLE IF NOT EXISTS {table} (
            begins_at timestamp with time zone NOT NULL,
            is_day boolean NOT NULL,
            is_total boolean NOT NULL,
            is_kept boolean DEFAULT false NOT NULL,
            agent character varying(255),
            {", ".join(columns)}
        )
    """)
    op.execute(f"""
        CREATE INDEX IF NOT EXISTS idx_{table}_time ON {table} (is_total, is_day, begins_at)
    """)
    # Most databases keep none of it, and each question asks.
    op.execute(f"""
        CREATE INDEX IF NOT EXISTS idx_{table}_kept ON {table} (begins_at) WHERE is_kept
    """)
    op.execute(f"COMMENT ON COLUMN {table}.is_kept IS 'Whether its rows have expired since'")
    op.execute(f"COMMENT ON COLUMN {table}.agent IS 'NULL where is_total, or none was chosen'")


def _drop_rollup(table: str) -> None:
    # What was kept of rows that have expired is known nowhere else: it waits for the next upgrade.
    op.execute(f"DELETE FROM {table} WHERE NOT is_kept")
    op.execute(f"""
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM {table}) THEN
                DROP TABLE {table};
            END IF;
        END
        $$
    """)


def _create_view() -> None:
    # What marks rest on: a TRUNCATE or rewrite changes the file of a partition, and to disable a
    # trigger changes its row. Without all three in force there is no print.
    op.execute(f"""
        CREATE VIEW {ATTACHED} AS
        SELECT root.relname AS table_name, part.oid AS partition,
               CASE WHEN part.relkind = 'r' AND watching.always = 3
                    THEN part.relfilenode || ' ' || watching.prints END AS print,
               -- Sums know no policies: who sees some rows only is to read these.
               row_security_active(root.oid) AS is_filtered,
               coalesce(substring(bounds FROM 'FROM \\(''([0-9a-f-]{{36}})''\\)')::uuid,
                        '00000000-0000-0000-0000-000000000000') AS lower_id,
               coalesce(substring(bounds FROM 'TO \\(''([0-9a-f-]{{36}})''\\)')::uuid,
                        'ffffffff-ffff-ffff-ffff-ffffffffffff') AS upper_id
        FROM pg_inherits
        JOIN pg_class root ON root.oid = inhparent
        JOIN pg_class part ON part.oid = inhrelid
        CROSS JOIN LATERAL (SELECT pg_get_expr(part.relpartbound, part.oid) AS bounds) AS bound
        CROSS JOIN LATERAL (
            SELECT count(*) FILTER (WHERE tgenabled = 'A') AS always,
                   string_agg(oid || '.' || xmin, ',' ORDER BY tgname) AS prints
            FROM pg_trigger
            WHERE tgrelid = part.oid AND tgname IN (
                'trigger_' || root.relname || '_rollups_inserted',
                'trigger_' || root.relname || '_rollups_updated',
                'trigger_' || root.relname || '_rollups_deleted')
        ) AS watching
        WHERE inhparent IN ('{EVENTS}'::regclass, '{METRICS}'::regclass)
    """)
    op.execute(f"""
        COMMENT ON VIEW {ATTACHED} IS
        'The partitions of the event tables: what they are by now, and the keys that they take'
    """)


def _create_function() -> None:
    # It runs as its owner: a schema in its search_path could hold another's operators.
    op.execute(f"""
        DO $do$
        BEGIN
        EXECUTE replace($sql$
        CREATE FUNCTION {FUNCTION} RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $agentobs$
        DECLARE
            transaction constant text := pg_current_xact_id()::text;
            closed_ms constant bigint := (SELECT last_value >> 16 FROM {{schema}}.{WATERMARK});
            -- The hours that this transaction has marked: what is set so goes with the transaction
            -- or the savepoint, as the marks do.
            marked text := coalesce(current_setting('agentobs.marked_hours', true), '');
            key uuid;
            number bigint;
            mark text;
        BEGIN
            IF NOT starts_with(marked, transaction || ':') THEN
                marked := transaction || ':';
            END IF;
            FOREACH key IN ARRAY ARRAY[OLD.id, NEW.id] LOOP
                CONTINUE WHEN key IS NULL;
                number := ('x0000' || translate(left(key::text, 13), '-', ''))::bit(64)::bigint
                          / 3600000;
                -- Keys before the least UUIDv7 of an hour belong to the hour before.
                IF key < (lpad(to_hex(number * 3600000), 12, '0') || '70008000000000000000')::uuid
                THEN
                    number := number - 1;
                END IF;
                -- A row may have moved to an hour that is open; and none lies before 1970.
                CONTINUE WHEN number * 3600000 >= closed_ms OR number < 0;
                -- By the partition's number: another schema has tables of the same names.
                mark := ',' || TG_RELID || ' ' || number || ',';
                CONTINUE WHEN strpos(marked, mark) > 0;
                INSERT INTO {{schema}}.{MARKS} (table_name, hour)
                VALUES (TG_ARGV[0], to_timestamp(number * 3600));
                marked := transaction || ':'
                          || right(substr(marked, length(transaction) + 2) || mark, 2000);
                PERFORM set_config('agentobs.marked_hours', marked, true);
            END LOOP;
            RETURN NULL;
        END
        $agentobs$
        $sql$, '{{schema}}', quote_ident(current_schema()));
        END
        $do$
    """)
    op.execute(f"REVOKE ALL ON FUNCTION {FUNCTION} FROM PUBLIC")


def _watch(table: str) -> None:
    """Let rows in closed hours mark these: on each partition, today's and later ones.

    The question is in WHEN, and no transition table is asked for: with one, COPY would write to a
    partitioned table row by row. Rows that a replication brings, or a session that acts as one,
    mark as others do.
    """
    differing = " OR ".join(
        f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in ("id", *AGGREGATED[table])
    )
    conditions = {
        "inserted": ("INSERT", _is_closed("NEW.id")),
        "updated": (
            "UPDATE",
            f"({differing}) AND {_is_closed('LEAST(OLD.id, NEW.id)')}",
        ),
        "deleted": ("DELETE", _is_closed("OLD.id")),
    }
    for moment, (event, condition) in conditions.items():
        trigger = f"trigger_{table}_rollups_{moment}"
        op.execute(f"""
            CREATE TRIGGER {trigger} AFTER {event} ON {table} FOR EACH ROW
            WHEN ({condition}) EXECUTE FUNCTION agentobs_mark_rollup_hour('{table}')
        """)
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")


def _is_closed(key: str) -> str:
    # Bytes are compared one by one, up to the end of the shorter: a key is compared in its first
    # eight. NULL, as long as no hour has closed, marks nothing.
    return f"uuid_send({key}) < int8send(pg_sequence_last_value('{WATERMARK}'))"


def _forget_what_came_back() -> None:
    """Forget what was kept by this revision before of months that were restored since."""
    for table, rollup in ((EVENTS, EXECUTIONS), (METRICS, DECISIONS)):
        op.execute(f"""
            DELETE FROM {rollup}
            USING agentobs_partitions
            WHERE table_name = '{table}' AND expired_at IS NULL AND restored_at IS NOT NULL
              AND begins_at >= month::timestamp AT TIME ZONE 'UTC'
              AND begins_at < (month + interval '1 month') AT TIME ZONE 'UTC'
        """)


def _hand_over() -> None:
    """Give all to the owner of the event tables; who may read these may read what they add up to.

    But for tables whose policies show each role other rows.
    """
    tables = ", ".join(f"'{name}'" for name in (*COMMENTS, ATTACHED))
    op.execute(f"""
        DO $$
        DECLARE
            owner constant oid := (SELECT relowner FROM pg_class WHERE oid = '{EVENTS}'::regclass);
            is_own constant boolean := (SELECT oid = owner FROM pg_roles
                                        WHERE rolname = current_user);
            name text;
            reader record;
        BEGIN
            FOREACH name IN ARRAY ARRAY[{tables}]
            LOOP
                IF NOT is_own THEN
                    EXECUTE format('ALTER TABLE %I OWNER TO %s', name, owner::regrole);
                END IF;
                FOR reader IN
                    SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'
                                    ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
                    FROM pg_class, aclexplode(relacl)
                    WHERE privilege_type = 'SELECT' AND grantee <> relowner AND NOT relrowsecurity
                      AND (pg_class.oid = '{EVENTS}'::regclass AND name <> '{DECISIONS}'
                           OR pg_class.oid = '{METRICS}'::regclass AND name <> '{EXECUTIONS}')
                LOOP
                    EXECUTE format('GRANT SELECT ON %I TO %s', name, reader.role);
                END LOOP;
            END LOOP;
            IF NOT is_own THEN
                EXECUTE format('ALTER SEQUENCE {WATERMARK} OWNER TO %s', owner::regrole);
                EXECUTE format('ALTER FUNCTION {FUNCTION} OWNER TO %s', owner::regrole);
            END IF;
        END
        $$
    """)
