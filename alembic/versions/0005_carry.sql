-- Note what makes the next table the equal of {table}, and give its names free. What is of each
-- leaf has its name between the two parts: a partition has settings of its own, a table is its leaf.
-- The indexes of 0005_former_indexes.sql stay behind: to build them would take a third of the time.
WITH former (name) AS (
    SELECT unnest(ARRAY['idx_agent_transformation_events_target', 'idx_agent_transformation_events_source',
        'idx_agent_transformation_events_type', 'idx_agent_transformation_events_started_at',
        'idx_agent_transformation_events_success_time', 'idx_agent_transformation_events_performance',
        'idx_agent_transformation_events_context',
        'idx_router_performance_metrics_measured_at', 'idx_router_performance_metrics_type_time',
        'idx_router_performance_metrics_agent_time', 'idx_router_performance_metrics_cache',
        'idx_router_performance_metrics_timing', 'idx_router_performance_metrics_prediction',
        'idx_router_performance_metrics_request_hash', 'idx_router_performance_metrics_alternatives',
        'idx_router_performance_metrics_feedback'])
)
INSERT INTO agentobs_carried (table_name, statement, of_each_leaf)
SELECT '{table}', statement, of_each_leaf FROM (
    SELECT 1, format('ALTER TABLE {table} ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)), NULL
    FROM pg_constraint
    WHERE conrelid = '{table}'::regclass AND contype IN ('p', 'f') AND conparentid = 0
      -- It has triggers from here on.
      AND conname <> 'agent_transformation_events_parent_event_id_fkey'
    UNION ALL
    SELECT 2, replace(pg_get_indexdef(indexrelid),
                      format(' ON ONLY %I.{table} ', current_schema()),
                      format(' ON %I.{table} ', current_schema())), NULL
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = '{table}'::regclass AND NOT indisprimary
      AND relname NOT IN (SELECT name FROM former)
    UNION ALL
    SELECT 2, pg_get_statisticsobjdef(oid), NULL
    FROM pg_statistic_ext WHERE stxrelid = '{table}'::regclass
    UNION ALL
    SELECT 3, format('COMMENT ON INDEX %s IS %L', indexrelid::regclass, description), NULL
    FROM pg_index JOIN pg_description ON objoid = indexrelid AND classoid = 'pg_class'::regclass
    JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = '{table}'::regclass AND relname NOT IN (SELECT name FROM former)
    UNION ALL
    SELECT 3, format('COMMENT ON CONSTRAINT %I ON {table} IS %L', conname, description), NULL
    FROM pg_constraint k
    JOIN pg_description ON objoid = k.oid AND classoid = 'pg_constraint'::regclass
    WHERE conrelid = '{table}'::regclass AND contype IN ('p', 'f')
      AND conname <> 'agent_transformation_events_parent_event_id_fkey'
    UNION ALL
    SELECT 3, format('COMMENT ON TABLE {table} IS %L', obj_description('{table}'::regclass)), NULL
    UNION ALL
    SELECT 3, format('ALTER TABLE {table} ALTER COLUMN %I SET STATISTICS %s',
                     attname, attstattarget), NULL
    FROM pg_attribute
    WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attstattarget >= 0
    UNION ALL
    SELECT 4, 'ALTER TABLE', format('SET (%s)', string_agg(
        format('%s%I = %L', prefix, split_part(option, '=', 1),
               substr(option, strpos(option, '=') + 1)), ', '))
    FROM pg_class leaf
    LEFT JOIN pg_inherits ON inhrelid = leaf.oid
    LEFT JOIN pg_class toast ON toast.oid = leaf.reltoastrelid
    CROSS JOIN LATERAL (
        SELECT '', unnest(leaf.reloptions) UNION ALL SELECT 'toast.', unnest(toast.reloptions)
    ) AS options (prefix, option)
    WHERE '{table}'::regclass IN (leaf.oid, inhparent) AND leaf.relkind = 'r'
      AND coalesce(pg_get_expr(leaf.relpartbound, leaf.oid), 'DEFAULT') = 'DEFAULT'
    HAVING count(*) > 0
    UNION ALL
    SELECT 5, format('GRANT %s%s ON {table} TO %s%s', privilege_type, columns,
                     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), NULL
    FROM (
        SELECT '' AS columns, relacl AS acl FROM pg_class WHERE oid = '{table}'::regclass
        UNION ALL
        SELECT format(' (%I)', attname), attacl FROM pg_attribute
        WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped
    ) AS granted, aclexplode(acl)
) AS found (step, statement, of_each_leaf)
ORDER BY step


DO $$
DECLARE
    found oid;
    key name;
BEGIN
    FOR found IN SELECT indexrelid FROM pg_index WHERE indrelid = '{table}'::regclass LOOP
        EXECUTE format('ALTER INDEX %s RENAME TO agentobs_old_%s', found::regclass, found);
    END LOOP;
    FOR found IN SELECT oid FROM pg_statistic_ext WHERE stxrelid = '{table}'::regclass LOOP
        EXECUTE (SELECT format('DROP STATISTICS %s.%I', stxnamespace::regnamespace, stxname)
                 FROM pg_statistic_ext WHERE oid = found);
    END LOOP;
    -- With the table they would go too, but ask for the locks of the tables that they name late.
    FOR key IN SELECT conname FROM pg_constraint
        WHERE conrelid = '{table}'::regclass AND contype = 'f' AND conparentid = 0
    LOOP
        EXECUTE format('ALTER TABLE {table} DROP CONSTRAINT %I', key);
    END LOOP;
END
$$


ALTER TABLE {table} RENAME TO agentobs_old_{table}
