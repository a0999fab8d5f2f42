-- Take the locks, or none, for a moment and again: of a writer and this transaction, each with a
-- lock that the other one wants, it is this one that gives up, before a deadlock is looked for. An
-- autovacuum gives way, but not before that: it is waited for by a lock that no reader and no
-- writer minds.
DO $$
DECLARE
    deadlock_timeout constant int := (SELECT setting::int FROM pg_settings
                                      WHERE name = 'deadlock_timeout');
BEGIN
    FOR attempt IN 1..20 LOOP
        BEGIN
            PERFORM set_config('lock_timeout', (deadlock_timeout + 1000)::text, true);
            LOCK TABLE {tables} IN SHARE UPDATE EXCLUSIVE MODE;
            PERFORM set_config('lock_timeout', least(500, deadlock_timeout / 2 + 1)::text, true);
            {locks}
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF attempt = 20 THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(0.2 + random() / 5);
    END LOOP;
END
$$
