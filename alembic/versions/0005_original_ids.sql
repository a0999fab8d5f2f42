-- Part the former ids of {table} by the months of its keys, so that those of a month go with it.
ALTER TABLE {table}_original_ids RENAME TO agentobs_old_{table}_ids


CREATE TABLE {table}_original_ids (id uuid NOT NULL, original_id uuid NOT NULL)
PARTITION BY RANGE (id)


COMMENT ON TABLE {table}_original_ids IS
'The ids that rows of {table} had before they were ordered by time'


DO $$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT right(relname, -length('{table}')) AS suffix, pg_get_expr(relpartbound, oid) AS bounds
        FROM pg_class JOIN pg_inherits ON inhrelid = oid
        WHERE inhparent = '{table}'::regclass
        ORDER BY relname
    LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF {table}_original_ids %s',
                       '{table}_original_ids' || part.suffix, part.bounds);
    END LOOP;
END
$$


INSERT INTO {table}_original_ids (id, original_id)
SELECT id, original_id FROM agentobs_old_{table}_ids


DROP TABLE agentobs_old_{table}_ids


ALTER TABLE {table}_original_ids ADD CONSTRAINT {table}_original_ids_pkey PRIMARY KEY (id)


CREATE INDEX {table}_original_ids_original_id_idx ON {table}_original_ids (original_id)


DO $$
DECLARE
    part regclass;
BEGIN
    -- The months that have none need no partition: no more will come.
    FOR part IN SELECT inhrelid FROM pg_inherits
        WHERE inhparent = '{table}_original_ids'::regclass
          AND inhrelid <> '{table}_original_ids_default'::regclass
    LOOP
        EXECUTE format('DO $empty$ BEGIN IF NOT EXISTS (SELECT FROM %1$s) THEN '
                       'DROP TABLE %1$s; END IF; END $empty$', part);
    END LOOP;
END
$$


ANALYZE {table}_original_ids
