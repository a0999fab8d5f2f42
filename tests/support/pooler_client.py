"""A service behind a pooler: `python pooler_client.py ROUNDS`; prints how many rows it wrote.

Its tasks write and read by the ORM, by Core and by COPY, each in many short transactions.
"""

from __future__ import annotations

import asyncio
import sys
from uuid import uuid4

from sqlalchemy import func, select, text

from agentobs import AgentTransformationEvent, Database
from agentobs.bulk import copy_rows

TASKS = 8


async def work(db: Database, rounds: int) -> int:
    event, workflow = AgentTransformationEvent, uuid4()
    mine = select(func.count()).where(event.correlation_id == workflow)
    row = {"event_type": "transformation_start", "correlation_id": workflow, "target_agent": "a"}
    for number in range(rounds):
        async with db.begin() as session:
            written = event(**row, user_request=f"request {number}")
            session.add(written)
            await session.flush()
            written.success = True
        async with db.begin() as session:
            await copy_rows(session, event, [row, row])
        async with db.session() as session:
            assert (await session.get_one(event, written.id)).success
        async with db.read_session(autocommit=number % 2 == 0) as session:
            assert await session.scalar(mine) == 3 * (number + 1)
            assert await session.scalar(text("SHOW transaction_read_only")) == "on"
    return 3 * rounds


async def main(rounds: int) -> None:
    async with Database() as db:
        written = await asyncio.gather(*(work(db, rounds) for _ in range(TASKS)))
        assert (await db.health()).ok
    sys.stdout.write(str(sum(written)))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
