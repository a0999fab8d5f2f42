"""A pytest plugin: a real PostgreSQL for the tests of services, and for our own.

Opt in with `pytest_plugins = ["agentobs.testing"]` in the top conftest.py.
"""

from __future__ import annotations

from agentobs.errors import MissingExtraError

try:
    from agentobs.testing.fixtures import (
        agentobs_database,
        agentobs_empty_database,
        agentobs_engine,
        agentobs_server,
        agentobs_session,
        agentobs_shared_database,
        agentobs_template,
        pytest_report_header,
    )
except ModuleNotFoundError as error:
    if error.name not in {"pytest", "pytest_asyncio"}:
        raise
    raise MissingExtraError("testing", "The pytest plugin") from error

__all__ = [
    "agentobs_database",
    "agentobs_empty_database",
    "agentobs_engine",
    "agentobs_server",
    "agentobs_session",
    "agentobs_shared_database",
    "agentobs_template",
    "pytest_report_header",
]
