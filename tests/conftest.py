from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

pytest_plugins = ["agentobs.testing"]


@pytest.fixture
def session(agentobs_session: AsyncSession) -> AsyncSession:
    return agentobs_session
