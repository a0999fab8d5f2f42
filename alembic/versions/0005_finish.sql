-- Give the new table all that the old one had, and drop that one.
DO $$
DECLARE
    parts constant oid[] := ARRAY(SELECT '{table}'::regclass::oid UNION ALL
                                  SELECT inhrelid FROM pg_inherits
                                  WHERE inhparent = '{table}'::regclass);
    owner constant oid := (SELECT relowner FROM pg_class
                           WHERE oid = 'agentobs_old_{table}'::regclass);
    carried record;
    part record;
BEGIN
    -- What the host grants on new tables by default was not granted on this one.
    FOR part IN SELECT DISTINCT oid::regclass AS name, grantee
        FROM pg_class, aclexplode(relacl) WHERE oid = ANY (parts) AND grantee <> relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', part.name,
                       CASE part.grantee WHEN 0 THEN 'PUBLIC' ELSE part.grantee::regrole::text END);
    END LOOP;
    FOR carried IN SELECT statement, of_each_leaf FROM agentobs_carried
        WHERE table_name = '{table}' ORDER BY position
    LOOP
        IF carried.of_each_leaf IS NULL THEN
            EXECUTE carried.statement;
            CONTINUE;
        END IF;
        FOR part IN SELECT oid::regclass AS name FROM pg_class
            WHERE oid = ANY (parts) AND relkind = 'r'
        LOOP
            EXECUTE format('%s %s %s', carried.statement, part.name, carried.of_each_leaf);
        END LOOP;
    END LOOP;
    IF owner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) THEN
        FOR part IN SELECT oid::regclass AS name
            FROM (SELECT unnest(parts) UNION ALL
                  SELECT relid FROM pg_partition_tree('{table}_original_ids')) AS owned (oid)
        LOOP
            EXECUTE format('ALTER TABLE %s OWNER TO %s', part.name, owner::regrole);
        END LOOP;
    END IF;
END
$$


DROP TABLE agentobs_old_{table}
