from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

pytest_plugins = ["agentobs.testing"]

# How long an example takes, the machine decides.
settings.register_profile("agentobs", deadline=None)
settings.load_profile("agentobs")


@pytest.fixture
def session(agentobs_session: AsyncSession) -> AsyncSession:
    return agentobs_session
