"""The words and names of a made-up installation: its agents, and what its users say."""

from __future__ import annotations

from decimal import Decimal
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

_MARKS = [Decimal(number).scaleb(-4) for number in range(10_001)]
_SUBJECTS = (
    "api-designer code-reviewer database-tuner debug-intelligence documentation-writer "
    "release-manager test-author workflow-coordinator security-auditor performance-profiler "
    "incident-responder dependency-updater schema-migrator frontend-builder data-analyst "
    "log-reader cost-watcher prompt-editor evaluation-runner translation-checker "
    "accessibility-tester infrastructure-planner queue-inspector changelog-keeper"
)
AGENTS = tuple(f"agent-{subject}" for subject in _SUBJECTS.split())
# The n-th agent gets 1/n of what the first gets.
_SHARES = list(accumulate(1 / rank for rank in range(1, len(AGENTS) + 1)))
_VOCABULARY = (
    "add fix the order refund endpoint index query slow test flaky retry timeout migration schema "
    "review release notes customer invoice payment webhook cache key token limit stream parse log "
    "trace error null pointer race lock thread pool session route handler model field column type "
    "deploy rollback branch merge conflict lint format docs example config secret rotate audit "
    "alert threshold latency percentile batch queue worker consumer offset replay backfill export"
)
WORDS = _VOCABULARY.split()


def agent_name(rng: Random) -> str:
    """Return an agent, the first ones most often."""
    return rng.choices(AGENTS, cum_weights=_SHARES)[0]


def words(rng: Random, count: int) -> str:
    """Return a text of so many words."""
    return " ".join(rng.choices(WORDS, k=count))


def mark(rng: Random, mean: float, deviation: float) -> Decimal:
    """Return a number from 0 to 1 with four places."""
    return _MARKS[max(0, min(10_000, round(10_000 * rng.gauss(mean, deviation))))]
