"""A FastAPI service on agentobs: one Database for the application, one session a request.

Run it with `uvicorn examples.fastapi_service:app`; AGENTOBS_DATABASE_URL names the database.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator  # noqa: TC003 (FastAPI reads the annotations)
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from agentobs import AgentTransformationEvent, Database, EventType, Health
from agentobs.errors import ConnectionFailedError, InvalidValueError, PoolTimeoutError

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one Database for as long as the application runs, in each of its workers."""
    async with Database() as app.state.database:
        yield


app = FastAPI(title="Agents", lifespan=lifespan)


def database(request: Request) -> Database:
    """Return the application's Database."""
    found: Database = request.app.state.database
    return found


async def writing(
    database: Annotated[Database, Depends(database)],
) -> AsyncIterator[AsyncSession]:
    """Give a request a session: committed when its handler returns, rolled back when it raises."""
    async with database.begin() as session:
        yield session


async def reading(
    database: Annotated[Database, Depends(database)],
) -> AsyncIterator[AsyncSession]:
    """Give a request a session that can't write, on the replica where there is one."""
    async with database.read_session() as session:
        yield session


# They end before the response is sent: who gets a 201 can rely on it, and a slow client keeps no
# connection.
Writing = Annotated[AsyncSession, Depends(writing, scope="function")]
Reading = Annotated[AsyncSession, Depends(reading, scope="function")]


class NewEvent(BaseModel):
    """What a client tells of an identity that an agent assumed."""

    correlation_id: UUID
    target_agent: str = Field(max_length=255)
    success: bool
    quality_score: float | None = Field(default=None, ge=0, le=1)


@app.post("/events", status_code=201)
async def write_event(new: NewEvent, session: Writing) -> dict[str, UUID]:
    """Store an event."""
    kind = EventType.COMPLETE if new.success else EventType.FAILED
    event = AgentTransformationEvent(event_type=kind, **new.model_dump())
    session.add(event)
    await session.flush()
    return {"id": event.id}


@app.get("/workflows/{correlation_id}")
async def agents_of_workflow(correlation_id: UUID, session: Reading) -> list[str]:
    """List the agents of a workflow in the order in which they began."""
    event = AgentTransformationEvent
    names = await session.scalars(
        select(event.target_agent)
        .where(event.correlation_id == correlation_id)
        .order_by(event.started_at, event.id)
    )
    if not (found := list(names)):
        raise HTTPException(404, "no event of this workflow is stored")
    return found


@app.get("/health", response_model_exclude={"reason"})
async def health(database: Annotated[Database, Depends(database)], response: Response) -> Health:
    """Answer 200 where the database is usable, else 503; the reason is for the log."""
    state = await database.health(timeout=2)
    if not state.ok:
        logger.warning("the database is not usable: %s", state.reason)
        response.status_code = 503
    return state


@app.exception_handler(InvalidValueError)
async def refuse(request: Request, error: InvalidValueError) -> Response:
    """Tell a client which value does not fit, and what would."""
    del request
    return Response(str(error), status_code=422)


@app.exception_handler(PoolTimeoutError)
@app.exception_handler(ConnectionFailedError)
async def try_again(request: Request, error: Exception) -> Response:
    """Tell a client that the service is overloaded or its database away, and not why."""
    del request, error
    return Response(status_code=503, headers={"Retry-After": "1"})
