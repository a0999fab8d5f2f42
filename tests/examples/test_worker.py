from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import func, select, text
from support.shell import REPOSITORY, environment

from agentobs import AgentTransformationEvent, Database
from agentobs.errors import InvalidValueError
from examples.worker import AGENTS, TASKS, Job, run, run_job, run_until_done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from agentobs import DatabaseSettings


@pytest_asyncio.fixture
async def database(agentobs_database: DatabaseSettings) -> AsyncIterator[Database]:
    async with Database(agentobs_database) as found:
        yield found


async def stored(database: Database, workflow: UUID) -> int:
    events = select(func.count()).where(AgentTransformationEvent.correlation_id == workflow)
    async with database.session() as session:
        return await session.scalar(events) or 0


def test_the_worker_runs_its_jobs_and_ends(agentobs_database: DatabaseSettings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.worker"],
        cwd=REPOSITORY,
        env=environment(agentobs_database, PYTHONWARNINGS="error"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("connections opened\n")


async def test_every_job_is_stored(database: Database) -> None:
    workflow = await run(database, AGENTS * 10, asyncio.Event())

    assert await stored(database, workflow) == 10 * len(AGENTS)
    assert database.pool_stats().in_use == 0


async def test_a_stop_ends_the_jobs_in_hand_and_takes_no_more(database: Database) -> None:
    stop, taken = asyncio.Event(), 0

    def agents() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            if taken == 2 * TASKS:
                stop.set()
            yield "agent-router"

    workflow = await run(database, agents(), stop)

    assert await stored(database, workflow) == taken == 2 * TASKS


async def test_a_job_that_fails_for_good_ends_the_worker_with_its_error(
    database: Database,
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await run(database, ["x" * 300, *AGENTS], asyncio.Event())

    assert isinstance(caught.value.exceptions[0], InvalidValueError)


async def test_a_job_that_was_stored_though_its_connection_was_lost_is_stored_once(
    database: Database,
) -> None:
    job = Job(uuid4(), "agent-router")
    await run_job(database, job)

    await run_until_done(database, job)

    assert await stored(database, job.workflow) == 1


async def test_a_job_whose_connection_is_lost_is_run_again(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION die_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF nextval('tries') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); "
                "END IF; RETURN NEW; END $$"
            )
        )
        await connection.execute(text("CREATE SEQUENCE tries"))
        await connection.execute(
            text(
                "CREATE TRIGGER die_once BEFORE INSERT ON agent_transformation_events "
                "FOR EACH ROW EXECUTE FUNCTION die_once()"
            )
        )
        await connection.commit()

    workflow = await run(database, AGENTS, asyncio.Event())

    assert await stored(database, workflow) == len(AGENTS)


async def test_sigterm_is_the_stop(agentobs_database: DatabaseSettings) -> None:
    script = (
        "import asyncio, os, signal, examples.worker as worker\n"
        "def agents():\n"
        "    while True:\n"
        "        os.kill(os.getpid(), signal.SIGTERM); yield 'agent-router'\n"
        "worker.AGENTS = agents()\n"
        "asyncio.run(worker.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=environment(agentobs_database),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == 0, done.stderr
