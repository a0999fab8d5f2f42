"""Which definitions take part in a question about agents, in which order.

The newest version of each agent is chosen in Python, of what one SELECT returns: the order of
semantic versions in SQL would be a second one to keep right, and definitions are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from agentobs.errors import InvalidValueError
from agentobs.models import AgentDefinition, AgentStatus
from agentobs.versions import version_order

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncSession

COLUMNS = (
    AgentDefinition.id,
    AgentDefinition.agent_name,
    AgentDefinition.agent_version,
    AgentDefinition.agent_type,
    AgentDefinition.domain,
    AgentDefinition.status,
    AgentDefinition.is_active,
    AgentDefinition.capabilities,
    AgentDefinition.triggers,
    AgentDefinition.trigger_patterns,
    AgentDefinition.success_rate,
    AgentDefinition.quality_score,
    AgentDefinition.avg_execution_time_ms,
)
_BEST_FIRST = (
    AgentDefinition.success_rate.desc().nulls_last(),
    AgentDefinition.quality_score.desc().nulls_last(),
    AgentDefinition.avg_execution_time_ms.asc().nulls_last(),
    AgentDefinition.agent_name,
    AgentDefinition.id,
)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Which definitions take part: those of some statuses (None: of any), active ones, newest ones.

    The newest version of an agent is that of those which take part; it stands for the agent even
    where an older one would fit better.
    """

    statuses: Collection[str] | None = (AgentStatus.ACTIVE,)
    include_inactive: bool = False
    every_version: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.statuses, str):
            raise InvalidValueError("candidates.statuses", "must be a collection of texts, or None")


ACTIVE = Candidates()
"""The newest active version of each agent."""


def select_agents(candidates: Candidates = ACTIVE) -> Select[Any]:
    """Build the statement: all versions that take part, best performing first."""
    columns: list[Any] = list(COLUMNS)
    return select(*columns).where(*taking_part(candidates)).order_by(*_BEST_FIRST)


def taking_part(candidates: Candidates) -> list[ColumnElement[bool]]:
    """Return the conditions that a definition takes part."""
    conditions: list[ColumnElement[bool]] = []
    if not candidates.include_inactive:
        conditions.append(AgentDefinition.is_active.is_(True))
    if candidates.statuses is not None:
        conditions.append(AgentDefinition.status.in_(sorted(candidates.statuses)))
    return conditions


async def rows_of(session: AsyncSession, statement: Select[Any]) -> list[RowMapping]:
    """Return the rows of a statement, by the names of its columns."""
    return list((await session.execute(statement)).mappings())


def newest_of(rows: Sequence[RowMapping], candidates: Candidates) -> list[RowMapping]:
    """Keep the newest version of each agent, in the order of the rows."""
    if candidates.every_version:
        return list(rows)
    newest: dict[str, str] = {}
    for row in rows:
        name, version = row["agent_name"], row["agent_version"]
        newest[name] = max(newest.get(name, version), version, key=version_order)
    return [row for row in rows if row["agent_version"] == newest[row["agent_name"]]]


def entries(row: RowMapping, column: str) -> tuple[str, ...]:
    """Return the entries of an array, which may be NULL and hold NULL."""
    return tuple(each for each in row[column] or () if each is not None)
