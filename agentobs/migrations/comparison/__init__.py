"""Compare the tables of a database with what the revisions make, in words and in SQL."""

from __future__ import annotations

from agentobs.migrations.comparison.catalog import Catalog
from agentobs.migrations.comparison.comparing import compare
from agentobs.migrations.comparison.differences import Addition, Comparison, Difference
from agentobs.migrations.comparison.expected import expected_catalog
from agentobs.migrations.comparison.reading import read_catalog

__all__ = [
    "Addition",
    "Catalog",
    "Comparison",
    "Difference",
    "compare",
    "expected_catalog",
    "read_catalog",
]
