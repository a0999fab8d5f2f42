"""A worker that ends well: it takes jobs until it is told to stop, and loses none of them.

Run it with `python -m examples.worker`; SIGTERM or Ctrl-C ends it after the jobs in hand. Here the
jobs are the agents of a workflow; a real worker takes them from its queue.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from agentobs import AgentTransformationEvent, Database, EventType
from agentobs.errors import ConflictError, ConnectionFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable

AGENTS = ("agent-api-designer", "agent-database-tuner", "agent-test-author")
TASKS = 4
TRIES = 3


async def write_event(database: Database, workflow: UUID, agent: str) -> None:
    """Store that an agent ran, in a transaction of its own."""
    async with database.begin() as session:
        session.add(
            AgentTransformationEvent(
                event_type=EventType.COMPLETE,
                correlation_id=workflow,
                target_agent=agent,
                success=True,
            )
        )


async def run_job(database: Database, workflow: UUID, agent: str) -> None:
    """Run a job; where another transaction or a lost connection is in the way, run it again."""
    for attempt in range(1, TRIES + 1):
        try:
            await write_event(database, workflow, agent)
        except (ConflictError, ConnectionFailedError):
            if attempt == TRIES:
                raise
            await asyncio.sleep(0.1 * 2**attempt)
        else:
            return


async def take_jobs(database: Database, jobs: asyncio.Queue[tuple[UUID, str]]) -> None:
    """Run jobs, one after the other, until the queue is shut down and empty."""
    while True:
        workflow, agent = await jobs.get()
        try:
            await run_job(database, workflow, agent)
        finally:
            jobs.task_done()


async def run(database: Database, agents: Iterable[str], stop: asyncio.Event) -> UUID:
    """Feed the tasks until there is nothing more, or until the stop; end what they have begun."""
    workflow, jobs = uuid4(), asyncio.Queue[tuple[UUID, str]](maxsize=TASKS)
    tasks = [asyncio.create_task(take_jobs(database, jobs)) for _ in range(TASKS)]
    for agent in agents:
        if stop.is_set():
            break
        await jobs.put((workflow, agent))
    await jobs.join()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
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
