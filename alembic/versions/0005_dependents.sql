-- Name what of the host would be lost with the old tables, before anything is changed.
DO $$
DECLARE
    ours constant oid[] := ARRAY['agent_transformation_events'::regclass,
                                 'router_performance_metrics'::regclass];
    found text;
BEGIN
    WITH dependent AS (
        -- A view is known by its name, and not by that of its rule.
        SELECT regexp_replace(pg_describe_object(d.classid, d.objid, d.objsubid),
                              '^rule _RETURN on ', '') AS description
        FROM pg_depend d
        LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
        LEFT JOIN pg_index i ON i.indexrelid = c.oid
        LEFT JOIN pg_type t ON t.typrelid = ANY (ours)
            AND d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray)
        LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
        WHERE (t.oid IS NOT NULL
               OR d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (ours))
          -- Parts of the tables themselves, which are carried over.
          AND d.classid NOT IN ('pg_type'::regclass, 'pg_attrdef'::regclass,
                                'pg_statistic_ext'::regclass)
          -- A unique index that lacks the id is none on a partitioned table.
          AND (c.oid IS NULL OR i.indisunique AND NOT i.indisprimary
               OR NOT (c.relkind IN ('i', 'I', 't') OR c.relispartition OR c.oid = ANY (ours)))
          -- Nor are exclusions and NO INHERIT; and what was not looked at would become valid.
          AND (k.oid IS NULL OR k.conrelid <> ALL (ours) OR k.contype IN ('u', 'x')
               OR k.contype IN ('c', 'n') AND k.connoinherit
               OR NOT k.convalidated
                  AND k.conname <> 'agent_transformation_events_parent_event_id_fkey')
        UNION
        SELECT format('inheritance of %s by %s', inhparent::regclass, inhrelid::regclass)
        FROM pg_inherits WHERE inhrelid = ANY (ours)
        UNION
        -- Left by an expiry that was broken off, or in the way of a month.
        SELECT 'table ' || oid::regclass FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND NOT relispartition
          AND relkind IN ('r', 'p') AND relname ~
              '^(agent_transformation_events|router_performance_metrics)_(y[0-9]+m[0-9]{2}|default)'
        UNION
        SELECT 'row security of table ' || oid::regclass FROM pg_class
        WHERE oid = ANY (ours) AND relrowsecurity
    )
    SELECT string_agg(description, ', ' ORDER BY description) INTO found FROM dependent;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'the event tables can''t be rewritten under %', found
            USING ERRCODE = 'AO002';
    END IF;
END
$$
