"""What the revisions make: read from databases that they made, and kept beside them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from agentobs.migrations.comparison.catalog import Catalog
from agentobs.migrations.scripts import script_home

if TYPE_CHECKING:
    from pathlib import Path


class ExpectedCatalogs(BaseModel):
    """The catalogs of the two revisions at which a database is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_0003: Catalog
    """What hand-run scripts made before there were revisions."""
    at_head: Catalog


def expected_file() -> Path:
    """Return the file that holds the catalogs."""
    return script_home() / "alembic" / "expected_catalogs.json"


def expected_catalog(revision: Literal["0003", "head"]) -> Catalog:
    """Return what a database at the revision holds of ours."""
    catalogs = _read()
    return catalogs.at_0003 if revision == "0003" else catalogs.at_head


@cache
def _read() -> ExpectedCatalogs:
    return ExpectedCatalogs.model_validate_json(expected_file().read_bytes())
