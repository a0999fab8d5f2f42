"""Every text that a public function takes from outside: none of them is read as SQL."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy.ext.asyncio import AsyncSession
from support.hostile import EVERYTHING, TEXTS, now
from support.shell import connect

from agentobs import AgentTransformationEvent, analytics, maintenance, migrations, registry
from agentobs.analytics import Window
from agentobs.bulk import copy_rows
from agentobs.errors import AgentobsError
from agentobs.maintenance import archive
from agentobs.registry import Candidates, PatternBounds

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from support.hostile import State

    from agentobs import DatabaseSettings

WINDOW = Window.last(timedelta(days=7))
ANY = Candidates(statuses=None)

Question = Callable[[AsyncSession, str], Awaitable[Any]]


def _selected(build: Callable[[str], Any]) -> Question:
    async def ask(session: AsyncSession, given: str) -> Any:
        return (await session.execute(build(given))).all()

    return ask


def _with_types(function: Callable[..., Awaitable[Any]]) -> Question:
    return lambda session, given: function(session, WINDOW, metric_types=[given])


async def _listed(session: AsyncSession, given: str) -> Any:
    del session
    return archive.list_archives(given)


async def _verified(session: AsyncSession, given: str) -> Any:
    del session
    return archive.verify_archive(given)


async def _manifest(session: AsyncSession, given: str) -> Any:
    del session
    return archive.read_manifest(given)


def _nowhere(name: str) -> Path:
    """Return a path that leads to no file which is there by chance."""
    return Path(f"/nowhere/{name}")


async def _document(session: AsyncSession, given: str) -> Any:
    del session
    return registry.read_document(_nowhere(given))


async def _parsed(session: AsyncSession, given: str) -> Any:
    del session
    return registry.parse_document(f"name: {given}".encode(errors="replace"), Path(given))


async def _version(session: AsyncSession, given: str) -> Any:
    del session
    return registry.version_order(given)


async def _copied(session: AsyncSession, given: str) -> Any:
    return await copy_rows(session, AgentTransformationEvent, [{given: 1}])


QUESTIONS: dict[str, Question] = {
    "analytics.agent_versions.name": lambda s, t: analytics.agent_versions(s, WINDOW, t),
    "analytics.feedback.metric_types": _with_types(analytics.feedback),
    "analytics.repeated_requests.metric_types": _with_types(analytics.repeated_requests),
    "analytics.routing.metric_types": lambda s, t: analytics.routing(
        s, WINDOW, timedelta(days=1), metric_types=[t]
    ),
    "analytics.routing_summary.metric_types": _with_types(analytics.routing_summary),
    "analytics.slowest.metric_types": _with_types(analytics.slowest),
    "analytics.session_traces.session_id": analytics.session_traces,
    "analytics.trace.correlation_id": analytics.trace,
    "analytics.workflows.only": lambda s, t: analytics.workflows(s, WINDOW, t),  # type: ignore[arg-type]
    "analytics.calibration.by": lambda s, t: analytics.calibration(s, WINDOW, by=t),  # type: ignore[arg-type]
    "analytics.select_workflows.only": _selected(
        lambda t: analytics.select_workflows(WINDOW, t)  # type: ignore[arg-type]
    ),
    "analytics.select_calibration.by": _selected(
        lambda t: analytics.select_calibration(WINDOW, by=t)  # type: ignore[arg-type]
    ),
    "analytics.select_agent_versions.name": _selected(
        lambda t: analytics.select_agent_versions(WINDOW, t)
    ),
    "analytics.select_corrections.metric_types": _selected(
        lambda t: analytics.select_corrections(WINDOW, metric_types=[t])
    ),
    "analytics.select_feedback.metric_types": _selected(
        lambda t: analytics.select_feedback(WINDOW, metric_types=[t])
    ),
    "analytics.select_repeated_requests.metric_types": _selected(
        lambda t: analytics.select_repeated_requests(WINDOW, metric_types=[t])
    ),
    "analytics.select_routing.metric_types": _selected(
        lambda t: analytics.select_routing(WINDOW, timedelta(days=1), metric_types=[t])
    ),
    "analytics.select_routing_summary.metric_types": _selected(
        lambda t: analytics.select_routing_summary(WINDOW, metric_types=[t])
    ),
    "analytics.select_slowest.metric_types": _selected(
        lambda t: analytics.select_slowest(WINDOW, metric_types=[t])
    ),
    "registry.find_agents_by_capabilities.capabilities": (
        lambda s, t: registry.find_agents_by_capabilities(s, [t], candidates=ANY)
    ),
    "registry.find_agents_by_capabilities.match": (
        lambda s, t: registry.find_agents_by_capabilities(s, ["x"], match=t)  # type: ignore[arg-type]
    ),
    "registry.find_agents_by_triggers.phrases": (
        lambda s, t: registry.find_agents_by_triggers(s, [t], candidates=ANY)
    ),
    "registry.find_agents_by_patterns.request": registry.find_agents_by_patterns,
    "registry.Candidates.statuses": lambda s, t: registry.find_agents_by_patterns(
        s, "x", candidates=Candidates(statuses=[t]), bounds=PatternBounds()
    ),
    "registry.read_document.path": _document,
    "registry.parse_document.path": _parsed,
    "registry.version_order.version": _version,
    "registry.sync_folder.folder": lambda s, t: registry.sync_folder(s, _nowhere(t)),
    "maintenance.archive.list_archives.target": _listed,
    "maintenance.archive.read_manifest.location": _manifest,
    "maintenance.archive.verify_archive.location": _verified,
    "bulk.copy_rows.rows": _copied,
}
"""The functions that answer or refuse at once; what writes has tests of its own beside this one."""

_BY_PATTERNS = "registry.find_agents_by_patterns.request"
ELSEWHERE = {
    **dict.fromkeys(
        (
            "migrations.downgrade.revision",
            "migrations.grant.readers",
            "migrations.grant.writers",
            "migrations.sql.revision",
            "migrations.stamp.revision",
            "migrations.upgrade.revision",
            "migrations.upgrade_online.revision",
        ),
        "test_hostile_revisions",
    ),
    "registry.sync_folder.root": "test_hostile_definitions",
    "maintenance.Policy.archive": "test_hostile_archives",
    "maintenance.release.partition": "test_hostile_archives",
    "maintenance.restore.location": "test_hostile_archives",
    "maintenance.archive.ArchiveSource.partition": "test_hostile_partitions",
    "maintenance.archive.fingerprint.columns": "test_hostile_partitions",
    "maintenance.archive.fingerprint.name": "test_hostile_partitions",
    "maintenance.archive.is_unchanged.name": "test_hostile_partitions",
    "maintenance.archive.load_archive.into": "test_hostile_archives",
    "maintenance.archive.load_archive.location": "test_hostile_archives",
    "maintenance.archive.write_archive.payload": "test_hostile_partitions",
    "maintenance.archive.write_archive.target": "test_hostile_archives",
}


def _arguments_of(module: Any) -> Iterator[str]:
    """Yield the arguments of a module's public functions that may be texts, or hold some."""
    place = module.__name__.removeprefix("agentobs.")
    for name in module.__all__:
        found = getattr(module, name)
        is_asked = inspect.isfunction(found) or name in {"ArchiveSource", "Candidates", "Policy"}
        if is_asked and found.__module__.startswith("agentobs"):
            for parameter in inspect.signature(found).parameters.values():
                if any(kind in str(parameter.annotation) for kind in ("str", "Path", "Literal")):
                    yield f"{place}.{name}.{parameter.name}"


def test_every_text_that_a_public_function_takes_is_tried() -> None:
    modules = (analytics, registry, migrations, maintenance, archive)
    taken = {argument for module in modules for argument in _arguments_of(module)}

    # These only tell Alembic which names are of the package.
    hooks = {name for name in taken if name.startswith("migrations.include_")}
    assert taken - hooks <= QUESTIONS.keys() | ELSEWHERE.keys()
    assert not [name for name in ELSEWHERE.values() if not _test_file(name).is_file()]


def _test_file(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.py")


async def _ask_all(
    database: DatabaseSettings, questions: Collection[Question], texts: Iterable[str]
) -> None:
    """Ask with each text: an answer, or an error that says that it is none of what is wanted."""
    # In autocommit: what came through would stay, and be seen.
    async with connect(database) as connection, AsyncSession(connection) as session:
        for question, given_text in product(questions, texts):
            with suppress(AgentobsError):
                await question(session, given_text)


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != _BY_PATTERNS])
async def test_a_text_that_looks_like_sql_is_asked_for_or_refused(
    guarded: DatabaseSettings, untouched: State, name: str
) -> None:
    await _ask_all(guarded, [QUESTIONS[name]], EVERYTHING)

    assert await now(guarded) == untouched


async def test_a_request_that_looks_like_sql_is_matched_or_refused(
    guarded: DatabaseSettings, untouched: State
) -> None:
    await _ask_all(guarded, [QUESTIONS[_BY_PATTERNS]], EVERYTHING)

    assert await now(guarded) == untouched


@settings(
    max_examples=4,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=TEXTS)
def test_any_text_is_asked_for_or_refused(
    guarded: DatabaseSettings, untouched: State, texts: list[str]
) -> None:
    async def story() -> None:
        await _ask_all(guarded, QUESTIONS.values(), texts)
        assert await now(guarded) == untouched

    asyncio.run(story())
