"""The built-in tests of pytest-alembic; they are synchronous and drive env.py by an AsyncEngine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_alembic.tests import (
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import NullPool

from agentobs import create_engine
from agentobs.migrations.scripts import alembic_config as our_config

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.ext.asyncio import AsyncEngine

    from agentobs import DatabaseSettings

__all__ = [
    "test_model_definitions_match_ddl",
    "test_single_head_revision",
    "test_up_down_consistency",
    "test_upgrade",
]


@pytest.fixture
def alembic_config(empty: DatabaseSettings) -> Config:
    config = our_config()
    config.attributes["settings"] = empty
    return config


@pytest.fixture
def alembic_engine(empty: DatabaseSettings) -> AsyncEngine:
    options: dict[str, Any] = {"poolclass": NullPool}
    return create_engine(empty, **options)
