"""Which agents fit: by capabilities, by trigger phrases, by trigger patterns; best first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ARRAY, Float, Text, cast, func, quoted_name, select, text, true
from sqlalchemy.sql.functions import Function

from agentobs.errors import InvalidValueError
from agentobs.models import AgentDefinition
from agentobs.registry.candidates import (
    ACTIVE,
    COLUMNS,
    entries,
    newest_of,
    rows_of,
    select_agents,
    taking_part,
)
from agentobs.registry.patterns import PatternBounds, try_patterns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import ColumnElement, RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.elements import SQLCoreOperations
    from sqlalchemy.sql.selectable import TableValuedAlias

    from agentobs.registry.candidates import Candidates

    Condition = ColumnElement[bool] | SQLCoreOperations[bool]

LIMIT = 50
"""How many agents are returned, by default."""

LEAST_SIMILARITY = 0.3
"""How similar a trigger must be, by default: what pg_trgm itself takes for similar."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class MatchedAgent(_Answer):
    """A version of an agent that fits, and what it was found by, as its definition has it.

    `similarity` is 0 to 1, of the one trigger in `matched` where that is only similar, 1 where a
    trigger is equal; None where similarity was not asked.
    """

    id: UUID
    agent_name: str
    agent_version: str
    agent_type: str
    domain: str | None
    status: str
    is_active: bool
    capabilities: tuple[str, ...]
    triggers: tuple[str, ...]
    trigger_patterns: tuple[str, ...]
    success_rate: float | None
    quality_score: float | None
    avg_execution_time_ms: int | None
    matched: tuple[str, ...]
    similarity: float | None = None


class TriggerMatches(_Answer):
    """Agents by trigger phrases; `way` is overlap where the database has no pg_trgm."""

    way: Literal["similarity", "overlap"]
    agents: tuple[MatchedAgent, ...]


class PatternProblem(_Answer):
    """A pattern of an agent that could not be tried to its end, and why."""

    agent_name: str
    agent_version: str
    pattern: str
    reason: str


class PatternMatches(_Answer):
    """Agents by trigger patterns, and what is wrong with the patterns of any agent."""

    agents: tuple[MatchedAgent, ...]
    problems: tuple[PatternProblem, ...]


def select_agents_where(fits: Condition, candidates: Candidates = ACTIVE) -> Select[Any]:
    """Build the statement: all versions of agents of which one fits; `fits` tells which."""
    conditions = taking_part(candidates)
    named = select(AgentDefinition.agent_name).where(fits, *conditions)
    found = select_agents(candidates).where(AgentDefinition.agent_name.in_(named))
    return found.add_columns(func.coalesce(fits, False).label("fits"))


def select_similar_agents(
    phrases: Sequence[str], schema: str, candidates: Candidates = ACTIVE
) -> Select[Any]:
    """Build the statement: all versions that take part, with the trigger most similar to a phrase.

    `schema` is where the database has pg_trgm.
    """
    triggers = _unnested(AgentDefinition.triggers, "trigger")
    wanted = _unnested(cast(list(phrases), ARRAY(Text)), "phrase")
    similarity = _similarity(schema, triggers.c.text, wanted.c.text)
    nearest = (
        select(triggers.c.text.label("nearest"), similarity.label("similarity"))
        .select_from(triggers.join(wanted, true()))
        .order_by(similarity.desc(), triggers.c.text)
        .limit(1)
        .lateral("nearest_trigger")
    )
    fits = func.coalesce(AgentDefinition.triggers.overlap(list(phrases)), False)
    return (
        select_agents(candidates)
        .add_columns(fits.label("fits"), nearest.c.nearest, nearest.c.similarity)
        .outerjoin(nearest, true())
    )


async def find_agents_by_capabilities(
    session: AsyncSession,
    capabilities: Collection[str],
    *,
    match: Literal["all", "any"] = "any",
    candidates: Candidates = ACTIVE,
    limit: int = LIMIT,
) -> tuple[MatchedAgent, ...]:
    """Return the agents that have all, or any, of some capabilities, best performing first.

    Best is the highest success rate, then quality score, then the shortest execution; unknown ones
    come last. Capabilities are compared as they are written. Raises InvalidValueError.
    """
    wanted = _texts("capabilities", capabilities)
    _require_limit(limit)
    if match not in {"all", "any"}:
        raise InvalidValueError("match", "must be 'all' or 'any'")
    column = AgentDefinition.capabilities
    fits = column.contains(wanted) if match == "all" else column.overlap(wanted)
    rows = await rows_of(session, select_agents_where(fits, candidates))
    found = [row for row in newest_of(rows, candidates) if row["fits"]]
    return tuple(_matched(row, _common(row["capabilities"], wanted)) for row in found[:limit])


async def find_agents_by_triggers(
    session: AsyncSession,
    phrases: Collection[str],
    *,
    least_similarity: float = LEAST_SIMILARITY,
    candidates: Candidates = ACTIVE,
    limit: int = LIMIT,
) -> TriggerMatches:
    """Return the agents with any of some trigger phrases, then those with similar ones.

    Equal is as written, the case of letters included, which an index can tell; these come first,
    best performing first. Where the database has the extension pg_trgm (which this role may use),
    agents follow that have a similar trigger, whatever the case, most similar first. Without it
    there are none of these. Raises InvalidValueError.
    """
    wanted = _texts("phrases", phrases)
    _require_limit(limit)
    if not 0 < least_similarity <= 1:
        raise InvalidValueError("least_similarity", "must be above 0 and at most 1")
    schema = await session.scalar(_TRIGRAM_SCHEMA)
    if schema is None:
        found = await _overlapping(session, wanted, candidates)
        return TriggerMatches(way="overlap", agents=tuple(found[:limit]))
    found = await _similar(session, wanted, schema, least_similarity, candidates)
    return TriggerMatches(way="similarity", agents=tuple(found[:limit]))


async def find_agents_by_patterns(
    session: AsyncSession,
    request: str,
    *,
    ignore_case: bool = True,
    bounds: PatternBounds | None = None,
    candidates: Candidates = ACTIVE,
    limit: int = LIMIT,
) -> PatternMatches:
    """Return the agents of whose trigger patterns one is found in a request, best performing first.

    Patterns are Python's regular expressions. They are tried in a process of their own, within
    bounds of processor time: a pattern that is broken, or takes too long, is a problem in the
    answer and no match. Raises InvalidValueError, and ConfigurationError where no process can be
    started.
    """
    if not isinstance(request, str):
        raise InvalidValueError("request", "must be one text")
    _require_limit(limit)
    rows = newest_of(await rows_of(session, select_agents(candidates)), candidates)
    # Each pattern once, in the order of the agents: the best ones' are tried first.
    patterns = list(
        dict.fromkeys(each for row in rows for each in entries(row, "trigger_patterns"))
    )
    told = await _tried(patterns, request, bounds or PatternBounds(), ignore_case)
    found = [
        (row, [p for p in entries(row, "trigger_patterns") if told[p] is True]) for row in rows
    ]
    agents = [_matched(row, matched) for row, matched in found if matched]
    problems = tuple(problem for row in rows for problem in _problems(row, told))
    return PatternMatches(agents=tuple(agents[:limit]), problems=problems)


# Looked up rather than tried: an unknown function would end the transaction of whoever asks.
_TRIGRAM_SCHEMA = text("""
    SELECT namespace.nspname
    FROM pg_catalog.pg_extension AS extension
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = extension.extnamespace
    WHERE extension.extname = 'pg_trgm'
      AND pg_catalog.has_schema_privilege(namespace.oid, 'USAGE')
""")


def _unnested(array: Any, name: str) -> TableValuedAlias:
    return func.unnest(array).table_valued("text").render_derived(name=name)


def _similarity(schema: str, *texts: ColumnElement[str]) -> Function[float]:
    # Both names quoted: SQLAlchemy quotes that of a schema only where the function's is.
    name, package = quoted_name("similarity", quote=True), quoted_name(schema, quote=True)
    return Function(name, *texts, packagenames=(package,), type_=Float)


async def _overlapping(
    session: AsyncSession, phrases: list[str], candidates: Candidates
) -> list[MatchedAgent]:
    statement = select_agents_where(AgentDefinition.triggers.overlap(phrases), candidates)
    rows = newest_of(await rows_of(session, statement), candidates)
    return [_matched(row, _common(row["triggers"], phrases)) for row in rows if row["fits"]]


async def _similar(
    session: AsyncSession, phrases: list[str], schema: str, least: float, candidates: Candidates
) -> list[MatchedAgent]:
    statement = select_similar_agents(phrases, schema, candidates)
    rows = newest_of(await rows_of(session, statement), candidates)
    equal = [
        _matched(row, _common(row["triggers"], phrases), similarity=1.0)
        for row in rows
        if row["fits"]
    ]
    near = [
        _matched(row, [row["nearest"]], similarity=row["similarity"])
        for row in rows
        if not row["fits"] and (row["similarity"] or 0) >= least
    ]
    # Stable, so that of equally similar ones the best performing stays first.
    return equal + sorted(near, key=lambda each: -(each.similarity or 0))


async def _tried(
    patterns: list[str], request: str, bounds: PatternBounds, ignore_case: bool
) -> dict[str, bool | str]:
    if not patterns:
        return {}
    told = await asyncio.to_thread(try_patterns, patterns, request, bounds, ignore_case=ignore_case)
    return dict(zip(patterns, told, strict=True))


def _problems(row: RowMapping, told: dict[str, bool | str]) -> Iterable[PatternProblem]:
    for pattern in entries(row, "trigger_patterns"):
        if isinstance(reason := told[pattern], str):
            yield PatternProblem(
                agent_name=row["agent_name"],
                agent_version=row["agent_version"],
                pattern=pattern,
                reason=reason,
            )


def _matched(
    row: RowMapping, matched: Iterable[str], *, similarity: float | None = None
) -> MatchedAgent:
    told = {column.key: row[column.key] for column in COLUMNS}
    for name in ("capabilities", "triggers", "trigger_patterns"):
        told[name] = entries(row, name)
    return MatchedAgent(**told, matched=tuple(matched), similarity=similarity)


def _common(held: Iterable[str | None], wanted: Collection[str]) -> list[str]:
    return [each for each in held if each is not None and each in wanted]


def _texts(name: str, values: Collection[str]) -> list[str]:
    if isinstance(values, str) or not values or not all(isinstance(each, str) for each in values):
        raise InvalidValueError(name, "must be one text or more, in a list or another collection")
    return list(dict.fromkeys(values))


def _require_limit(limit: int) -> None:
    if limit < 1:
        raise InvalidValueError("limit", "must be at least 1")
