"""Partition the event tables by month.

Reason: the tables grow without end. A month that is a table of its own is expired by DROP, leaves
no dead rows, and is not looked at by a query for another month. The range is the key's, which
holds the row's instant (revision 0004): `id` stays the whole primary key, and a look-up by it
touches one partition.
Cost on a big table: both event tables are rewritten in one transaction: rows are copied, compared,
and indexed anew, so twice their room on disk is needed at the peak. An ACCESS EXCLUSIVE lock on
them, and on agent_definitions, whose triggers for the foreign key go with the old table, keeps
readers out too. Ids that are not ordered by time are made anew from the row's instant, the same
ones each time; the tables …_original_ids keep what they were, and the downgrade gives them back.

Longer statements are in files beside this one, parted by two blank lines. The link to a parent is
no foreign key of the server's here: to detach a partition it would check each row that points into
it. Statement triggers do its duty, see 0005_parent_links.sql.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

EVENTS, METRICS = "agent_transformation_events", "router_performance_metrics"
INSTANTS = {EVENTS: "started_at", METRICS: "measured_at"}
PARENT_KEY = f"{EVENTS}_parent_event_id_fkey"
TRIGGERS = [
    f"trigger_{EVENTS}_parents_{moment}" for moment in ("inserted", "updated", "awaited", "deleted")
]
FUNCTIONS = [
    "agentobs_check_parents_of_inserted()",
    "agentobs_check_parents_of_updated()",
    "agentobs_forget_deleted_parents()",
    "agentobs_await_writers_of_links()",
    "agentobs_require_parents(uuid[])",
    "agentobs_lock_parents(boolean)",
]


def upgrade() -> None:
    _take_locks()
    _run("0005_dependents.sql")
    for table in INSTANTS:
        _run("0005_carry.sql", table)
    for table, instant in INSTANTS.items():
        _make_keys(table, instant)
        _create(table, partitioned=True)
        _create_months(table, instant)
        _copy_rows(table, from_key="original_id", to_key="id")
        _compare_rows(table, from_key="original_id", to_key="id")
        _run("0005_original_ids.sql", table)
        _run("0005_finish.sql", table)
    op.execute("DROP TABLE agentobs_carried")
    _create_partition_states()
    _run_qualified("0005_parent_links.sql")
    _secure_functions()


def downgrade() -> None:
    _take_locks()
    for trigger in TRIGGERS:
        op.execute(f"DROP TRIGGER {trigger} ON {EVENTS}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    _drop_partition_states()
    _run("0005_dependents.sql")
    for table in INSTANTS:
        _run("0005_carry.sql", table)
    for table in INSTANTS:
        _create(table, partitioned=False)
        # An original id that was written again is that row's: the older one keeps its new id.
        op.execute(f"""
            DELETE FROM {table}_original_ids
            WHERE original_id IN (SELECT id FROM agentobs_old_{table})
        """)
        _copy_rows(table, from_key="id", to_key="original_id")
        _compare_rows(table, from_key="id", to_key="original_id")
        _run("0005_finish.sql", table)
        op.execute(f"DROP TABLE {table}_original_ids")
    op.execute("DROP TABLE agentobs_carried")
    _run("0005_former_indexes.sql")
    _declare_parents()


def _run(file: str, table: str = "") -> None:
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    for statement in text.replace("{table}", table).split("\n\n\n"):
        op.execute(statement)


def _run_qualified(file: str) -> None:
    """Run the statements of a file with the schema, which only the server knows, in their text."""
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    for statement in text.split("\n\n\n"):
        op.execute(f"""
            DO $do$
            BEGIN
                EXECUTE replace(replace($sql${statement}$sql$,
                    '{{schema}}', quote_ident(current_schema())),
                    '{{events}}', quote_literal(format('%I.{EVENTS}', current_schema())));
            END
            $do$
        """)


def _take_locks() -> None:
    # First of all. Whoever waits for a lock stalls all behind it.
    text = Path(__file__).with_name("take_locks.sql").read_text(encoding="utf-8")
    tables = f"agent_definitions, {EVENTS}, {METRICS}"
    locks = f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;"
    op.execute(text.replace("{tables}", tables).replace("{locks}", locks))
    # What is locked beyond these.
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Months are those of UTC, and `+ interval '1 month'` counts in the session's time zone.
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute("SET LOCAL datestyle = 'ISO'")
    op.execute("""
        CREATE TABLE agentobs_carried (
            position bigint GENERATED ALWAYS AS IDENTITY,
            table_name text NOT NULL,
            statement text NOT NULL,
            of_each_leaf text
        )
    """)


def _make_keys(table: str, instant: str) -> None:
    """Map each id that is not ordered by time to one that is.

    The new one is made of the row's instant and of the old one, so that a second upgrade makes it
    again. An instant that no key holds gives an id behind those of all months.
    """
    # OFFSET 0 keeps what is made in one place from being made anew at each use.
    op.execute(f"""
        CREATE TABLE {table}_original_ids (id uuid NOT NULL, original_id uuid NOT NULL)
    """)
    op.execute(f"""
        INSERT INTO {table}_original_ids (id, original_id)
        SELECT key, id FROM (
            SELECT id,
                CASE
                    WHEN NOT ({instant} >= '1970-01-01 00:00:00+00'
                              AND {instant} < '10889-08-02 05:31:50.656+00')
                    THEN overlay(digits PLACING 'ffffffffffff8' FROM 1)::uuid
                    -- The months whose CHECK takes the instant, a day of slack included.
                    WHEN {instant} < '10889-06-30 00:00:00+00' AND substr(id::text, 15, 1) = '7'
                     AND id >= agentobs_uuid7_floor(date_trunc('month',
                            greatest({instant} - interval '1 day', '1970-01-01 00:00:00+00'), 'UTC'))
                     AND id < agentobs_uuid7_floor(date_trunc('month',
                            {instant} + interval '1 day', 'UTC') + interval '1 month')
                    THEN id
                    ELSE (agentobs_uuid7_prefix({instant}) || substr(digits, 17))::uuid
                END AS key
            FROM (
                SELECT id, {instant},
                    overlay(encode(hash, 'hex')
                            PLACING substr('89ab', 1 + (get_byte(hash, 8) & 3), 1) FROM 17 FOR 1)
                    AS digits
                FROM (
                    SELECT id, {instant}, substr(sha256(uuid_send(id)), 1, 16) AS hash
                    FROM agentobs_old_{table} OFFSET 0
                ) AS hashed OFFSET 0
            ) AS drawn OFFSET 0
        ) AS keyed
        WHERE key <> id
    """)
    op.execute(f"ALTER TABLE {table}_original_ids ADD PRIMARY KEY (id), ADD UNIQUE (original_id)")
    op.execute(f"ANALYZE {table}_original_ids")


def _create(table: str, *, partitioned: bool) -> None:
    # Columns that the host added come along, with defaults, CHECKs, comments and storage.
    clause = "PARTITION BY RANGE (id)" if partitioned else ""
    op.execute(f"""
        CREATE TABLE {table} (LIKE agentobs_old_{table} INCLUDING ALL
                              EXCLUDING INDEXES EXCLUDING STATISTICS) {clause}
    """)


def _create_months(table: str, instant: str) -> None:
    """Make a partition of each month that a key is of, of this one, and of the next three.

    A key that is kept may be of another month than its row's instant, by the clocks' difference.
    """
    op.execute(f"""
        DO $$
        DECLARE
            first timestamptz;
            name text;
        BEGIN
            FOR first IN
                SELECT date_trunc('month', {instant}, 'UTC')
                FROM agentobs_old_{table} o JOIN {table}_original_ids k ON k.original_id = o.id
                WHERE {instant} >= '1970-01-01 00:00:00+00'
                  AND {instant} < '9999-12-01 00:00:00+00'
                UNION
                SELECT date_trunc('month', to_timestamp(
                    ('x0000' || translate(left(id::text, 13), '-', ''))::bit(64)::bigint
                    / 1000.0), 'UTC')
                FROM agentobs_old_{table} o
                WHERE NOT EXISTS (SELECT FROM {table}_original_ids WHERE original_id = o.id)
                  AND {instant} < '9999-12-01 00:00:00+00'
                UNION
                SELECT date_trunc('month', now(), 'UTC') + ahead * interval '1 month'
                FROM generate_series(0, 3) AS ahead
                ORDER BY 1
            LOOP
                name := '{table}_' || to_char(first, '"y"YYYY"m"MM');
                -- A day of slack on both sides, for the clocks of client and server differ.
                EXECUTE format(
                    'CREATE TABLE %I PARTITION OF {table} (CONSTRAINT %I '
                    'CHECK ({instant} >= %L AND {instant} < %L)) FOR VALUES FROM (%L) TO (%L)',
                    name, name || '_{instant}_check',
                    first - interval '1 day', first + interval '1 month 1 day',
                    agentobs_uuid7_floor(first), agentobs_uuid7_floor(first + interval '1 month'));
                EXECUTE format('COMMENT ON TABLE %I IS %L', name,
                               'The rows of {table} of ' || to_char(first, 'YYYY-MM'));
            END LOOP;
        END
        $$
    """)
    op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    op.execute(f"""
        COMMENT ON TABLE {table}_default IS 'The rows of {table} that no month takes'
    """)


def _copy_rows(table: str, *, from_key: str, to_key: str) -> None:
    links = _joins("o", from_key, table == EVENTS)
    # Neighbours in time are to be neighbours on disk, which a join of large tables would undo.
    order = "coalesce(own.id, o.id)" if to_key == "id" else "o.id"
    op.execute("SET LOCAL work_mem = '128MB'")
    op.execute(f"""
        DO $$
        DECLARE
            names text;
            sources text;
        BEGIN
            {_columns(table, "o", to_key)}
            EXECUTE format(
                'INSERT INTO {table} (%s) OVERRIDING SYSTEM VALUE '
                'SELECT %s FROM agentobs_old_{table} o {links} ORDER BY {order}',
                names, sources);
        END
        $$
    """)
    op.execute(f"ANALYZE {table}")


def _compare_rows(table: str, *, from_key: str, to_key: str) -> None:
    """Compare number and content of the rows, ids as they were; it is all undone if they differ."""
    links = _joins("n", to_key, table == EVENTS)
    op.execute(f"""
        DO $$
        DECLARE
            names text;
            sources text;
            before record;
            after record;
        BEGIN
            {_columns(table, "n", from_key)}
            EXECUTE format(
                'SELECT count(*), sum(hashtextextended(ROW(%s)::text, 0)) FROM agentobs_old_{table}',
                names) INTO before;
            EXECUTE format(
                'SELECT count(*), sum(hashtextextended(ROW(%s)::text, 0)) FROM {table} n {links}',
                sources) INTO after;
            IF before IS DISTINCT FROM after THEN
                RAISE EXCEPTION 'the rows of {table} are not what they were: % before, % after',
                    before.count, after.count USING ERRCODE = 'AO003';
            END IF;
        END
        $$
    """)


def _columns(table: str, alias: str, key: str) -> str:
    """Return the assignment of the columns' names, and of where the values come from."""
    return f"""
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum),
                   string_agg(
                       CASE attname
                           WHEN 'id' THEN 'coalesce(own.{key}, {alias}.id)'
                           WHEN 'parent_event_id'
                           THEN 'coalesce(parents.{key}, {alias}.parent_event_id)'
                           ELSE '{alias}.' || quote_ident(attname)
                       END, ', ' ORDER BY attnum)
            INTO names, sources
            FROM pg_attribute
            WHERE attrelid = '{table}'::regclass AND attnum > 0
              AND NOT attisdropped AND attgenerated = '';
    """


def _joins(alias: str, key: str, has_parents: bool) -> str:
    own = f"LEFT JOIN {{}}_original_ids own ON own.{key} = {alias}.id"
    if not has_parents:
        return own.format(METRICS)
    parents = f" LEFT JOIN {EVENTS}_original_ids parents ON parents.{key} = {alias}.parent_event_id"
    return own.format(EVENTS) + parents


def _create_partition_states() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS agentobs_partitions (
            table_name text NOT NULL,
            month date NOT NULL,
            lower_id uuid NOT NULL,
            upper_id uuid NOT NULL,
            expired_at timestamp with time zone,
            restored_at timestamp with time zone,
            payload_expired_at timestamp with time zone,
            archive text,
            CONSTRAINT agentobs_partitions_pkey PRIMARY KEY (table_name, month)
        )
    """)
    op.execute("""
        COMMENT ON TABLE agentobs_partitions IS
        'What maintenance did to the months of the event tables'
    """)


def _drop_partition_states() -> None:
    # What was noted of a month is true again after the next upgrade: a pin, an expiry.
    op.execute("""
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM agentobs_partitions) THEN
                DROP TABLE agentobs_partitions;
            END IF;
        END
        $$
    """)


def _secure_functions() -> None:
    """Let the functions run as the table's owner, whatever role writes with what search_path.

    So a role that may only insert needs no right to read, and nobody calls them by themselves.
    """
    op.execute(f"""
        DO $$
        DECLARE
            owner constant oid := (SELECT relowner FROM pg_class WHERE oid = '{EVENTS}'::regclass);
            is_own constant boolean := (SELECT oid = owner FROM pg_roles
                                        WHERE rolname = current_user);
            function text;
        BEGIN
            FOREACH function IN ARRAY ARRAY[{", ".join(f"'{name}'" for name in FUNCTIONS)}]
            LOOP
                EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER '
                               'SET search_path = pg_catalog, pg_temp', function);
                EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
                IF NOT is_own THEN
                    EXECUTE format('ALTER FUNCTION %s OWNER TO %s', function, owner::regrole);
                END IF;
            END LOOP;
            -- Behind a delete that waits, all who write links wait.
            ALTER FUNCTION agentobs_await_writers_of_links() SET lock_timeout = '2s';
            IF NOT is_own THEN
                EXECUTE format('ALTER TABLE agentobs_partitions OWNER TO %s', owner::regrole);
            END IF;
        END
        $$
    """)


def _declare_parents() -> None:
    """Declare the foreign key anew; children of an expired parent keep their link to it."""
    op.execute(f"""
        DO $$
        DECLARE
            orphans bigint;
        BEGIN
            SELECT count(*) INTO orphans FROM {EVENTS} child
            WHERE parent_event_id IS NOT NULL
              AND NOT EXISTS (SELECT FROM {EVENTS} WHERE id = child.parent_event_id);
            IF orphans > 0 THEN
                RAISE NOTICE '% events keep the link to a parent that has expired: % is not valid',
                    orphans, '{PARENT_KEY}';
            END IF;
            EXECUTE 'ALTER TABLE {EVENTS} ADD CONSTRAINT {PARENT_KEY} '
                'FOREIGN KEY (parent_event_id) REFERENCES {EVENTS} (id)'
                || CASE WHEN orphans > 0 THEN ' NOT VALID' ELSE '' END;
        END
        $$
    """)
