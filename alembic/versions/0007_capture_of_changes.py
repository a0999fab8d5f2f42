"""Capture which rows of a partition change.

Reason: a closed month is rewritten beside itself while services go on; what they change in it
meanwhile is noted by a trigger, which maintenance puts on that partition for as long as it takes.
Cost on a big table: none, no event table is touched.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

FUNCTION = "agentobs_note_changed_row()"


def upgrade() -> None:
    # A lock that does not come soon is given up: whoever waits for it stalls all behind it.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("CREATE TABLE agentobs_changed_rows (table_name text NOT NULL, id uuid NOT NULL)")
    op.execute("""
        COMMENT ON TABLE agentobs_changed_rows IS
        'Rows that changed in a partition since maintenance began to rewrite it'
    """)
    # It runs as its owner: a schema in its search_path could hold another's operators.
    op.execute(f"""
        DO $do$
        BEGIN
        EXECUTE replace($sql$
        CREATE FUNCTION {FUNCTION} RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $agentobs$
        BEGIN
            -- All rows are gone: no key stands for that but the one that nothing has.
            IF TG_OP = 'TRUNCATE' THEN
                INSERT INTO {{schema}}.agentobs_changed_rows
                VALUES (TG_TABLE_NAME, '00000000-0000-0000-0000-000000000000');
                RETURN NULL;
            END IF;
            IF TG_OP <> 'INSERT' THEN
                INSERT INTO {{schema}}.agentobs_changed_rows VALUES (TG_TABLE_NAME, OLD.id);
            END IF;
            IF TG_OP <> 'DELETE' THEN
                INSERT INTO {{schema}}.agentobs_changed_rows VALUES (TG_TABLE_NAME, NEW.id);
            END IF;
            RETURN NULL;
        END
        $agentobs$
        $sql$, '{{schema}}', quote_ident(current_schema()));
        END
        $do$
    """)
    # It runs as the owner of the event tables, whatever the writer's rights and search_path are.
    op.execute(f"REVOKE ALL ON FUNCTION {FUNCTION} FROM PUBLIC")
    op.execute(f"""
        DO $$
        DECLARE
            owner constant oid := (SELECT relowner FROM pg_class
                                   WHERE oid = 'agent_transformation_events'::regclass);
        BEGIN
            IF owner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) THEN
                EXECUTE format('ALTER TABLE agentobs_changed_rows OWNER TO %s', owner::regrole);
                EXECUTE format('ALTER FUNCTION {FUNCTION} OWNER TO %s', owner::regrole);
            END IF;
        END
        $$
    """)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # With it goes a trigger that a rewriting which was broken off has left.
    op.execute(f"DROP FUNCTION {FUNCTION} CASCADE")
    op.execute("DROP TABLE agentobs_changed_rows")
