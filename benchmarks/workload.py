"""Realistic rows of the three tables, the same for the same seed, ready for COPY.

Rows are dicts of all columns; JSON columns hold JSON text, as the driver wants it. They come in
the order of their instants, as a writer sends them: `batches(events(…), 2000)`. The shape is that
of a busy installation: 24 agents, few of which do most of the work; workflows of 1 to 21 nested
transformations, so that 83 % of the events have a parent; contexts of about 1 KB; requests that
come again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heappop, heappush
from itertools import islice, pairwise
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from agentobs.keys import uuid7_floor
from benchmarks.vocabulary import AGENTS, WORDS, agent_name, mark, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from decimal import Decimal

Row = dict[str, Any]

BATCH = 2000
_FOLDERS = ("orders", "billing", "accounts", "search", "reports", "gateway", "jobs", "admin")
_STRATEGIES = ("explicit", "fuzzy_match", "capability_match", "historical")
_ERRORS = ("TimeoutError", "ToolError", "ValidationError", "RateLimitError", "ContextOverflow")
# Of workflows: on average six events, one of them the root.
_NESTED = (0, 1, 2, 3, 4, 5, 6, 8, 12, 20)
_NESTED_WEIGHTS = (10, 12, 12, 12, 11, 10, 9, 10, 8, 6)


@dataclass(frozen=True)
class Span:
    """The time that rows are spread over."""

    begin: datetime
    end: datetime

    def instants(self, count: int, rng: Random) -> Iterator[datetime]:
        """Yield so many instants, evenly spread with jitter, in order."""
        step = (self.end - self.begin) / count
        for number in range(count):
            yield self.begin + step * (number + rng.random())


@dataclass
class _Requests:
    """What users ask: three in ten requests were made before, lately most likely."""

    rng: Random
    known: list[tuple[str, str]] = field(default_factory=list)

    def next(self) -> tuple[str, str]:
        """Return the hashes of a request and of its context."""
        if self.known and self.rng.random() < 0.3:  # noqa: PLR2004
            return self.known[-1 - int(len(self.known) * self.rng.random() ** 3)]
        request = f"{self.rng.getrandbits(256):064x}", f"{self.rng.getrandbits(256):064x}"
        self.known.append(request)
        return request


def months(first: datetime, count: int) -> list[Span]:
    """Return so many calendar months, the first of them that which begins at `first`."""
    begins = [
        first.replace(year=first.year + month // 12, month=month % 12 + 1)
        for month in range(first.month - 1, first.month + count)
    ]
    return [Span(begin, end) for begin, end in pairwise(begins)]


def batches(rows: Iterable[Row], size: int = BATCH) -> Iterator[list[Row]]:
    """Cut rows into lists of `size`, the last of them shorter."""
    rest = iter(rows)
    while batch := list(islice(rest, size)):
        yield batch


def records(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """Turn rows into what `copy_records_to_table` takes; columns are the keys of any of them."""
    return [tuple(row.values()) for row in rows]


def as_values(row: Row) -> Row:
    """Return the row with Python values in place of JSON text, for the models and `copy_rows`."""
    return row | {name: orjson.loads(row[name]) for name in _JSON & row.keys() if row[name]}


_JSON = {
    "yaml_config",
    "parsed_metadata",
    "context_snapshot",
    "alternative_agents",
    "feedback_details",
}


def definitions(*, seed: int = 1, versions: int = 3) -> list[Row]:
    """Make the definitions of all agents, `versions` of each, the last of them active."""
    rng = Random(seed)  # noqa: S311
    return [
        _definition(agent, version, rng, active=version == versions)
        for agent in AGENTS
        for version in range(1, versions + 1)
    ]


def _definition(agent: str, version: int, rng: Random, *, active: bool) -> Row:
    capabilities = [words(rng, 2) for _ in range(6)]
    triggers = [words(rng, 3) for _ in range(8)]
    document = _document(agent, version, capabilities, triggers, rng)
    return {
        "id": UUID(int=rng.getrandbits(128), version=4),
        "agent_name": agent,
        "agent_version": f"1.{version}.0",
        "agent_type": rng.choice(("specialist", "coordinator", "transformer")),
        "yaml_config": orjson.dumps(document).decode(),
        "parsed_metadata": orjson.dumps({"title": agent, "triggers": len(triggers)}).decode(),
        "capabilities": capabilities,
        "domain": rng.choice(_FOLDERS),
        "triggers": triggers,
        "trigger_patterns": [rf"\b{rng.choice(WORDS)}\b"],
        "avg_execution_time_ms": rng.randrange(500, 60_000),
        "success_rate": mark(rng, 0.93, 0.04),
        "quality_score": mark(rng, 0.88, 0.06),
        "is_active": active,
        "definition_hash": f"{rng.getrandbits(256):064x}",
    }


def _document(
    agent: str, version: int, capabilities: list[str], triggers: list[str], rng: Random
) -> Row:
    return {
        "schema_version": "1.0",
        "version": f"1.{version}.0",
        "agent_identity": {"name": agent, "description": words(rng, 12), "color": "blue"},
        "capabilities": {"primary": capabilities[:3], "secondary": capabilities[3:]},
        "activation_patterns": {"explicit_triggers": triggers},
        "limits": {"tokens": 1000 * rng.randrange(4, 120), "seconds": rng.randrange(30, 900)},
        "checklist": [words(rng, 9) for _ in range(5)],
    }


def events(
    count: int,
    span: Span,
    *,
    seed: int = 1,
    agents: Sequence[Row] | None = None,
    running: float = 0.0,
    random_keys: bool = False,
) -> Iterator[Row]:
    """Yield `count` transformations over the span, in order of `started_at`.

    `agents` are the rows of `definitions()` that the events refer to; without them they refer to
    none. `running` is the share whose end is not known yet. With `random_keys` the ids are random,
    as they were before keys told time.
    """
    rng = Random(seed)  # noqa: S311
    known = {row["agent_name"]: row["id"] for row in agents or ()}
    writer = _Writer(rng, known, running, random_keys=random_keys)
    sizes = list(_sizes(count, rng))
    begins = span.instants(len(sizes), rng)
    return islice(_in_order(map(writer.workflow, begins, sizes)), count)


def _sizes(count: int, rng: Random) -> Iterator[int]:
    """Yield how many events workflows have, until they have `count`, or a few more."""
    while count > 0:
        size = 1 + rng.choices(_NESTED, _NESTED_WEIGHTS)[0]
        yield size
        count -= size


def _in_order(workflows: Iterable[list[Row]]) -> Iterator[Row]:
    """Merge workflows, which begin in order and overlap, into one stream in order."""
    waiting: list[tuple[datetime, int, Row]] = []
    number = 0
    for workflow in workflows:
        while waiting and waiting[0][0] <= workflow[0]["started_at"]:
            yield heappop(waiting)[2]
        for row in workflow:
            heappush(waiting, (row["started_at"], number, row))
            number += 1
    while waiting:
        yield heappop(waiting)[2]


@dataclass(frozen=True)
class _Writer:
    """Makes the events of workflows; `known` are the ids of definitions by agent."""

    rng: Random
    known: dict[str, UUID]
    running: float
    random_keys: bool = field(kw_only=True)

    def workflow(self, begin: datetime, size: int) -> list[Row]:
        """Return a transformation and those nested in it, `size` in all, in order."""
        rng = self.rng
        contexts = [_context(rng)]
        rows = [self.event(begin, None, contexts[0])]
        for _ in range(1, size):
            place = int(len(rows) * rng.random() ** 0.5)
            contexts.append(_handed_over(rng, contexts[place]))
            at = rows[-1]["started_at"] + timedelta(seconds=rng.expovariate(0.25))
            rows.append(self.event(at, rows[place], contexts[-1]))
        return rows

    def event(self, at: datetime, parent: Row | None, context: Row) -> Row:
        """Return one transformation."""
        rng, text = self.rng, orjson.dumps(context)
        agent = agent_name(rng)
        return {
            "id": _key(at, rng, random_keys=self.random_keys),
            "correlation_id": parent["correlation_id"] if parent else _random_key(rng),
            "session_id": parent["session_id"] if parent else _session(at),
            "source_agent": parent["target_agent"] if parent else "agent-workflow-coordinator",
            "target_agent": agent,
            "transformation_reason": words(rng, 6),
            "context_snapshot": text.decode(),
            "context_keys": list(context),
            "context_size_bytes": len(text),
            "user_request": parent["user_request"] if parent else words(rng, 14),
            "routing_confidence": mark(rng, 0.82, 0.1),
            "routing_strategy": rng.choice(_STRATEGIES),
            "transformation_duration_ms": rng.randrange(5, 90),
            "initialization_duration_ms": rng.randrange(2, 40),
            "agent_definition_id": self.known.get(agent),
            "parent_event_id": parent["id"] if parent else None,
            "started_at": at,
            **_end(at, rng, running=rng.random() < self.running),
        }


def _end(at: datetime, rng: Random, *, running: bool) -> Row:
    failed = rng.random() < 0.06  # noqa: PLR2004
    milliseconds = int(rng.lognormvariate(8.3, 1.1))
    end = {
        "event_type": "transformation_failed" if failed else "transformation_complete",
        "total_execution_duration_ms": milliseconds,
        "success": not failed,
        "error_message": words(rng, 10) if failed else None,
        "error_type": rng.choice(_ERRORS) if failed else None,
        "quality_score": None if failed else mark(rng, 0.87, 0.08),
        "completed_at": at + timedelta(milliseconds=milliseconds),
    }
    return dict.fromkeys(end) | {"event_type": "transformation_start"} if running else end


def _context(rng: Random) -> Row:
    """Return the context of a new workflow, about 1 KB of JSON text."""
    folder = rng.choice(_FOLDERS)
    return {
        "task": words(rng, 12),
        "trace": f"{rng.getrandbits(128):032x}",
        "user": {"id": rng.randrange(5000), "team": folder, "plan": rng.choice(("free", "pro"))},
        "repository": {"name": f"{folder}-service", "commit": f"{rng.getrandbits(160):040x}"},
        "files": [_file(rng, folder) for _ in range(5)],
        "history": [_message(rng, role) for role in _ROLES],
        "limits": {"tokens": 120_000, "seconds": 90.5, "retries": None},
        "nested": False,
    }


def _handed_over(rng: Random, context: Row) -> Row:
    """Return the context that a nested agent gets: a task, a file and a message are new to it."""
    file = _file(rng, context["user"]["team"])
    return context | {
        "task": words(rng, 12),
        "trace": f"{rng.getrandbits(128):032x}",
        "files": [*context["files"][1:], file],
        "history": [*context["history"][1:], _message(rng, rng.choice(_ROLES))],
        "nested": True,
    }


_ROLES = ("user", "assistant", "tool")


def _file(rng: Random, folder: str) -> str:
    return f"src/{folder}/{rng.choice(WORDS)}_{rng.choice(WORDS)}.py"


def _message(rng: Random, role: str) -> Row:
    return {"role": role, "text": words(rng, 19), "tokens": rng.randrange(20, 900)}


def metrics(
    count: int,
    span: Span,
    *,
    seed: int = 2,
    settled: float = 0.0,
    feedback: float = 0.0,
    random_keys: bool = False,
) -> Iterator[Row]:
    """Yield `count` routing decisions over the span, in order of `measured_at`.

    `settled` is the share whose outcome is known, `feedback` that with a person's feedback: both
    come later, so that new rows have neither.
    """
    rng = Random(seed)  # noqa: S311
    requests = _Requests(rng)
    for at in span.instants(count, rng):
        confidence = mark(rng, 0.82, 0.1)
        yield {
            "id": _key(at, rng, random_keys=random_keys),
            "correlation_id": _random_key(rng) if rng.random() < 0.9 else None,  # noqa: PLR2004
            **_decision(rng, requests, confidence),
            **_outcome(at, rng, confidence, settled=rng.random() < settled),
            **_feedback(rng, provided=rng.random() < feedback),
            "measured_at": at,
        }


def _decision(rng: Random, requests: _Requests, confidence: Decimal) -> Row:
    request_hash, context_hash = requests.next()
    hit = rng.random() < 0.62  # noqa: PLR2004
    others = [] if hit else [_alternative(rng) for _ in range(rng.randrange(5))]
    microseconds = int(rng.lognormvariate(6.5 if hit else 9.9, 0.8))
    return {
        "metric_type": rng.choice(("routing_decision", "cache_hit" if hit else "cache_miss")),
        "user_request_hash": request_hash,
        "context_hash": context_hash,
        "selected_agent": agent_name(rng),
        "selection_strategy": rng.choice(_STRATEGIES),
        "confidence_score": confidence,
        "alternative_agents": orjson.dumps(others).decode(),
        "alternatives_count": len(others),
        **_timings(rng, microseconds),
        **{f"{name}_confidence": mark(rng, 0.8, 0.12) for name in _COMPONENTS},
        "cache_hit": hit,
        "cache_key": f"route:{request_hash[:16]}:{context_hash[:16]}",
        "cache_age_seconds": rng.randrange(3600) if hit else None,
    }


_COMPONENTS = ("trigger", "context", "capability", "historical")


def _timings(rng: Random, microseconds: int) -> Row:
    lookup = rng.randrange(20, 400)
    return {
        "cache_lookup_us": lookup,
        "trigger_matching_us": microseconds // 2,
        "confidence_scoring_us": microseconds // 3,
        "total_routing_time_us": lookup + microseconds,
    }


def _alternative(rng: Random) -> Row:
    confidence = float(mark(rng, 0.6, 0.15))
    return {"agent": agent_name(rng), "confidence": confidence, "reason": words(rng, 3)}


def _outcome(at: datetime, rng: Random, confidence: Decimal, *, settled: bool) -> Row:
    quality = mark(rng, 0.85, 0.1)
    return {
        "selection_validated": True if settled else None,
        "actual_success": rng.random() < 0.94 if settled else None,  # noqa: PLR2004
        "actual_quality_score": quality if settled else None,
        "prediction_error": confidence - quality if settled else None,
        "validated_at": at + timedelta(minutes=rng.expovariate(0.1)) if settled else None,
    }


def _feedback(rng: Random, *, provided: bool) -> Row:
    kind = rng.choices(("positive", "negative", "correction"), (70, 20, 10))[0]
    return {
        "feedback_provided": provided,
        "feedback_type": kind if provided else None,
        "feedback_details": orjson.dumps({"note": words(rng, 8)}).decode() if provided else None,
    }


def _session(at: datetime) -> UUID:
    """Return the conversation at this time: one begins every ten minutes and holds several."""
    return UUID(int=Random(int(at.timestamp()) // 600).getrandbits(128), version=4)  # noqa: S311


def _random_key(rng: Random) -> UUID:
    return UUID(int=rng.getrandbits(128), version=4)


def _key(at: datetime, rng: Random, *, random_keys: bool) -> UUID:
    if random_keys:
        return _random_key(rng)
    # The random bits are of the seed, where those of `uuid7_at` are the system's.
    return UUID(int=uuid7_floor(at).int | rng.getrandbits(62))
