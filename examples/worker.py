"""A worker that ends well: it takes jobs until it is told to stop, and ends those that it took.

Run it with `python -m examples.worker`; SIGTERM or Ctrl-C ends it after the jobs in hand. Here the
jobs are the agents of a workflow; a real worker takes them from its queue, and tells the queue that
a job is done when it is stored.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from agentobs import AgentTransformationEvent, Database, EventType
from agentobs.errors import ConflictError, ConnectionFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

AGENTS = ("agent-api-designer", "agent-database-tuner", "agent-test-author")
TASKS = 4
TRIES = 3


@dataclass(frozen=True)
class Job:
    """An agent to run; its id is that of its event, so that no second try stores it twice."""

    workflow: UUID
    agent: str
    id: UUID = field(default_factory=uuid4)


async def run_job(database: Database, job: Job) -> None:
    """Store that an agent ran, in a transaction of its own; a job that is stored is done."""
    async with database.begin() as session:
        if await session.get(AgentTransformationEvent, job.id) is not None:
            return
        session.add(
            AgentTransformationEvent(
                id=job.id,
                event_type=EventType.COMPLETE,
                correlation_id=job.workflow,
                target_agent=job.agent,
                success=True,
            )
        )


async def run_until_done(database: Database, job: Job) -> None:
    """Run a job; where another transaction or a lost connection is in the way, run it again."""
    for attempt in range(1, TRIES):
        try:
            return await run_job(database, job)
        except (ConflictError, ConnectionFailedError):
            await asyncio.sleep(0.1 * 2**attempt)
    return await run_job(database, job)


async def take_jobs(database: Database, jobs: Iterator[Job], stop: asyncio.Event) -> None:
    """Run jobs, one after the other, until there is none left, or until the stop."""
    while not stop.is_set():
        job = next(jobs, None)
        if job is None:
            return
        await run_until_done(database, job)


async def run(database: Database, agents: Iterable[str], stop: asyncio.Event) -> UUID:
    """Run the jobs in several tasks; one that fails for good ends them all with its error."""
    workflow = uuid4()
    jobs = (Job(workflow, agent) for agent in agents)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(TASKS):
            tasks.create_task(take_jobs(database, jobs, stop))
    return workflow


async def main() -> None:
    """Run within a Database of the process."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Database() as database:
        workflow = await run(database, AGENTS, stop)
        print(f"workflow {workflow}: {database.pool_stats().opened} connections opened")


if __name__ == "__main__":
    asyncio.run(main())
