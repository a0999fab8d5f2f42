from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest_asyncio
from httpx import ASGITransport, AsyncClient
from support.shell import url_of

from examples.fastapi_service import app, lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from fastapi import FastAPI

    from agentobs import Database, DatabaseSettings


@pytest_asyncio.fixture
async def client(
    agentobs_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncClient]:
    """Yield a client of the service, which runs as under a server: with its lifespan."""
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url_of(agentobs_database))
    async with lifespan(app):
        transport = ASGITransport(app, raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://service") as found:
            yield found


async def test_what_a_request_stores_the_next_one_reads(client: AsyncClient) -> None:
    workflow = str(uuid4())
    for agent in ("agent-router", "agent-api-designer"):
        stored = await client.post(
            "/events", json={"correlation_id": workflow, "target_agent": agent, "success": True}
        )
        assert stored.status_code == 201

    read = await client.get(f"/workflows/{workflow}")

    assert read.json() == ["agent-router", "agent-api-designer"]


async def test_a_workflow_that_is_not_there_is_not_found(client: AsyncClient) -> None:
    assert (await client.get(f"/workflows/{uuid4()}")).status_code == 404


async def test_a_bad_value_is_the_clients_fault_and_stores_nothing(client: AsyncClient) -> None:
    event = {"correlation_id": str(uuid4()), "target_agent": "a", "success": True}

    assert (await client.post("/events", json=event | {"quality_score": 7})).status_code == 422
    assert (await client.get(f"/workflows/{event['correlation_id']}")).status_code == 404


async def test_a_text_that_no_column_holds_is_the_clients_fault(client: AsyncClient) -> None:
    event = {"correlation_id": str(uuid4()), "target_agent": "a\x00b", "success": True}

    answer = await client.post("/events", json=event)

    assert answer.status_code == 422
    assert "U+0000" in answer.text


async def test_the_health_route_tells_the_revision(client: AsyncClient) -> None:
    answer = await client.get("/health")

    assert answer.status_code == 200
    assert answer.json()["ok"] is True
    assert answer.json()["revision"]


async def test_requests_share_the_connections_of_one_pool(client: AsyncClient) -> None:
    for _ in range(30):
        await client.get("/health")

    assert database_of(app).pool_stats().opened == 5
    assert database_of(app).pool_stats().in_use == 0


async def test_a_database_that_is_away_is_told_by_503(client: AsyncClient) -> None:
    await database_of(app).stop()

    answer = await client.get("/health")

    assert answer.status_code == 503
    assert "reason" not in answer.json()


def database_of(service: FastAPI) -> Database:
    found: Database = service.state.database
    return found
