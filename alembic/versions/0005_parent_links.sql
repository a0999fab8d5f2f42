-- What keeps parent_event_id true on the partitioned table, one statement between two blank lines.
-- Names of our own are qualified when it is run: the functions run as their owner, and a schema in
-- their search_path could hold another's operators.
--
-- A check alone is not a foreign key: an open insert of a child and a delete of its parent would
-- both succeed. So who writes a link holds an advisory lock, shared, to the end of the transaction,
-- and who deletes takes it alone before it looks for children: it waits for those who may have
-- seen the parent, and those who come later find it gone. Rows are not locked, for that would write
-- to each parent; nor is the table, for two deletes that want more than they have would deadlock.
CREATE FUNCTION agentobs_lock_parents(alone boolean) RETURNS void
LANGUAGE plpgsql AS $agentobs$
DECLARE
    -- "aobs" in ASCII, so that no host's key is the same by chance.
    namespace constant integer := 1634689651;
    events constant integer := {events}::regclass::oid::integer;
BEGIN
    IF NOT alone THEN
        PERFORM pg_advisory_xact_lock_shared(namespace, events);
    ELSIF current_setting('transaction_isolation') = 'read committed' THEN
        PERFORM pg_advisory_xact_lock(namespace, events);
    ELSE
        -- Its snapshot may be older than a child that is committed by now, and would not show it.
        RAISE EXCEPTION 'an event is deleted, or given another id, in READ COMMITTED only'
            USING ERRCODE = 'AO004';
    END IF;
END
$agentobs$


-- The rows that are deleted are locked before the statement's end: two deletes, one of the other's
-- children, would deadlock over them if they took this lock only then.
CREATE FUNCTION agentobs_await_writers_of_links() RETURNS trigger
LANGUAGE plpgsql AS $agentobs$
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' THEN
        PERFORM {schema}.agentobs_lock_parents(true);
    END IF;
    RETURN NULL;
END
$agentobs$


CREATE FUNCTION agentobs_require_parents(wanted uuid[]) RETURNS void
LANGUAGE plpgsql AS $agentobs$
DECLARE
    missing uuid[];
BEGIN
    PERFORM {schema}.agentobs_lock_parents(false);
    -- A scalar subquery is a look-up by id in one partition for each parent, never a join that
    -- reads all of them.
    IF current_setting('transaction_isolation') = 'read committed' THEN
        missing := ARRAY(
            SELECT parent FROM unnest(wanted) AS parent
            WHERE (SELECT true FROM {schema}.agent_transformation_events WHERE id = parent) IS NULL);
    ELSE
        -- An old snapshot shows a parent that is deleted by now; its lock fails with 40001.
        missing := ARRAY(
            SELECT parent FROM unnest(wanted) AS parent
            WHERE (SELECT true FROM {schema}.agent_transformation_events WHERE id = parent
                   FOR KEY SHARE) IS NULL);
    END IF;
    IF missing = '{}' THEN
        RETURN;
    END IF;
    -- A parent that has expired with its month is still a true link, and may be restored.
    missing := ARRAY(
        SELECT parent FROM unnest(missing) AS parent
        WHERE NOT EXISTS (
            SELECT FROM {schema}.agentobs_partitions
            WHERE table_name = 'agent_transformation_events' AND expired_at IS NOT NULL
              AND lower_id <= parent AND parent < upper_id)
        LIMIT 100);
    IF missing <> '{}' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'foreign_key_violation',
            MESSAGE = 'insert or update on table "agent_transformation_events" violates foreign '
                'key constraint "agent_transformation_events_parent_event_id_fkey"',
            DETAIL = 'Missing in agent_transformation_events: ' || array_to_string(missing, ', '),
            SCHEMA = (SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                      WHERE pg_class.oid = {events}::regclass),
            TABLE = 'agent_transformation_events',
            COLUMN = 'parent_event_id',
            CONSTRAINT = 'agent_transformation_events_parent_event_id_fkey';
    END IF;
END
$agentobs$


CREATE FUNCTION agentobs_check_parents_of_inserted() RETURNS trigger
LANGUAGE plpgsql AS $agentobs$
DECLARE
    wanted uuid[];
BEGIN
    wanted := ARRAY(
        SELECT parent_event_id FROM inserted WHERE parent_event_id IS NOT NULL
        EXCEPT SELECT id FROM inserted);
    IF wanted <> '{}' THEN
        PERFORM {schema}.agentobs_require_parents(wanted);
    END IF;
    RETURN NULL;
END
$agentobs$


CREATE FUNCTION agentobs_check_parents_of_updated() RETURNS trigger
LANGUAGE plpgsql AS $agentobs$
DECLARE
    wanted uuid[];
    gone uuid[];
BEGIN
    wanted := ARRAY(
        SELECT parent_event_id FROM (
            SELECT id, parent_event_id FROM after WHERE parent_event_id IS NOT NULL
            EXCEPT SELECT id, parent_event_id FROM before
        ) AS changed);
    gone := ARRAY(SELECT id FROM before EXCEPT SELECT id FROM after);
    IF wanted <> '{}' THEN
        PERFORM {schema}.agentobs_require_parents(wanted);
    END IF;
    IF gone <> '{}' THEN
        PERFORM {schema}.agentobs_lock_parents(true);
        IF EXISTS (SELECT FROM {schema}.agent_transformation_events WHERE parent_event_id = ANY (gone)) THEN
            RAISE EXCEPTION USING
                ERRCODE = 'foreign_key_violation',
                MESSAGE = 'update on table "agent_transformation_events" violates foreign key '
                    'constraint "agent_transformation_events_parent_event_id_fkey"',
                TABLE = 'agent_transformation_events',
                COLUMN = 'parent_event_id',
                CONSTRAINT = 'agent_transformation_events_parent_event_id_fkey';
        END IF;
    END IF;
    RETURN NULL;
END
$agentobs$


CREATE FUNCTION agentobs_forget_deleted_parents() RETURNS trigger
LANGUAGE plpgsql AS $agentobs$
DECLARE
    gone constant uuid[] := ARRAY(SELECT id FROM deleted);
BEGIN
    IF gone <> '{}' THEN
        PERFORM {schema}.agentobs_lock_parents(true);
        UPDATE {schema}.agent_transformation_events SET parent_event_id = NULL
        WHERE parent_event_id = ANY (gone);
    END IF;
    RETURN NULL;
END
$agentobs$


CREATE TRIGGER trigger_agent_transformation_events_parents_inserted
AFTER INSERT ON agent_transformation_events REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION agentobs_check_parents_of_inserted()


CREATE TRIGGER trigger_agent_transformation_events_parents_updated
AFTER UPDATE ON agent_transformation_events REFERENCING OLD TABLE AS before NEW TABLE AS after
FOR EACH STATEMENT EXECUTE FUNCTION agentobs_check_parents_of_updated()


CREATE TRIGGER trigger_agent_transformation_events_parents_awaited
BEFORE DELETE ON agent_transformation_events
FOR EACH STATEMENT EXECUTE FUNCTION agentobs_await_writers_of_links()


CREATE TRIGGER trigger_agent_transformation_events_parents_deleted
AFTER DELETE ON agent_transformation_events REFERENCING OLD TABLE AS deleted
FOR EACH STATEMENT EXECUTE FUNCTION agentobs_forget_deleted_parents()
