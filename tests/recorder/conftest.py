from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.recorders import strict_recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentobs import DatabaseSettings, Recorder


@pytest.fixture
def recorder(agentobs_database: DatabaseSettings, tmp_path: Path) -> Iterator[Recorder]:
    """Yield a strict recorder on a database of the test's own, which drops nothing here."""
    with strict_recorder(agentobs_database, tmp_path) as recorder:
        yield recorder
