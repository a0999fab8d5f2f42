from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from support.models import CANARY
from support.recorders import connected, decisions, events, strict_recorder

from agentobs import RoutingDecision, Transformation
from agentobs.recorder.sanitize import encode_context

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from uuid import UUID

    from agentobs import DatabaseSettings, Recorder

LIMIT = 4096


async def only_row(recorder: Recorder, database: DatabaseSettings) -> dict[str, Any]:
    await recorder.abarrier()
    [row] = await events(database)
    return row


def run_with(recorder: Recorder, context: Mapping[Any, Any] | None, **values: Any) -> None:
    with recorder.transformation(target_agent="agent", context_snapshot=context, **values):
        pass


def without_passwords(value: Any) -> Any:
    """Redact as a host does: a text, or the keys of a context that name a secret."""
    if isinstance(value, str):
        return value.replace(CANARY, "…")
    return {key: each for key, each in value.items() if CANARY not in f"{key}{each}"}


def failing(_: Any) -> Any:
    raise RuntimeError(CANARY)


async def test_a_context_is_stored_as_it_was_when_it_was_handed_over(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    context: dict[str, Any] = {"steps": [1], "inner": {"a": 1}}
    with recorder.transformation(target_agent="agent", context_snapshot=context):
        context["steps"].append(2)
        context["inner"]["a"] = 2
        context["late"] = True

    row = await only_row(recorder, agentobs_database)
    assert row["context_snapshot"] == {"steps": [1], "inner": {"a": 1}}
    assert row["context_keys"] == ["steps", "inner"]


async def test_the_details_of_feedback_and_the_hash_of_a_decision_are_those_of_the_call(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    context: dict[str, Any] = {"a": [1]}
    decision = recorder.routing_decision(context=context)
    recorder.feedback(decision, "correction", context)
    context["a"].append(2)
    await recorder.abarrier()

    [row] = await decisions(agentobs_database)
    assert row["context_hash"] == hashlib.sha256(b'{"a":[1]}').hexdigest()
    assert row["feedback_details"] == {"a": [1]}


async def test_names_and_size_of_a_context_are_filled_in(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    for context in (None, {}, {"ü": 1, "b": None}, MappingProxyType({1: "x"})):
        run_with(recorder, context)
    await recorder.abarrier()

    names = ("context_snapshot", "context_keys", "context_size_bytes")
    assert [tuple(map(row.get, names)) for row in await events(agentobs_database)] == [
        (None, None, None),
        ({}, [], 2),
        ({"ü": 1, "b": None}, ["ü", "b"], len('{"ü":1,"b":null}'.encode())),
        ({"1": "x"}, ["1"], len('{"1":"x"}')),
    ]


async def test_what_was_changed_is_counted_in_the_row_and_in_the_statistics(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    run_with(recorder, {"a\x00": "\ud800", "nan": float("nan")}, reason="x\x00")

    row = await only_row(recorder, agentobs_database)
    assert row["context_snapshot"] == {
        "a\ufffd": "\ufffd",
        "nan": None,
        "_agentobs": {"sanitised": 4},
    }
    assert row["context_keys"] == ["a\ufffd", "nan"]
    assert row["transformation_reason"] == "x\ufffd"
    assert recorder.statistics().sanitised == 4


async def test_of_a_large_context_size_hash_and_beginning_stay(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    context = {"text": "ü" * LIMIT, "more": 1}
    whole = json.dumps(context, ensure_ascii=False, separators=(",", ":")).encode()
    with strict_recorder(agentobs_database, tmp_path, context_limit=LIMIT) as recorder:
        run_with(recorder, context)
        row = await only_row(recorder, agentobs_database)

    facts = row["context_snapshot"]["_agentobs"]
    assert whole.decode().startswith(facts.pop("preview"))
    assert facts == {
        "cut": True,
        "size_bytes": len(whole),
        "sha256": hashlib.sha256(whole).hexdigest(),
    }
    assert row["context_size_bytes"] == len(whole)
    assert row["context_keys"] == ["text", "more"]
    assert (recorder.statistics().cut, recorder.statistics().sanitised) == (1, 0)


async def test_a_text_of_a_row_is_cut_where_it_is_huge(
    recorder: Recorder, agentobs_database: DatabaseSettings
) -> None:
    run_with(recorder, None, user_request="x" * 1_000_000)

    row = await only_row(recorder, agentobs_database)
    assert len(row["user_request"]) < 70_000
    assert hashlib.sha256(b"x" * 1_000_000).hexdigest() in row["user_request"]
    assert recorder.statistics().cut == 1


async def test_what_the_hook_takes_out_is_nowhere(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    secret = {"kept": 1, CANARY: 2, "password": CANARY}
    options = {"redact": without_passwords}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        decision = recorder.routing_decision(context=secret, user_request=f"log in as {CANARY}")
        recorder.feedback(decision, "correction", secret)
        run_with(recorder, secret, user_request=f"log in as {CANARY}")
        recorder.record(Transformation(target_agent="whole", context_snapshot=secret))
        await recorder.abarrier()

    [metric] = await decisions(agentobs_database)
    assert metric["context_hash"] == hashlib.sha256(b'{"kept":1}').hexdigest()
    assert metric["user_request_hash"] == hashlib.sha256("log in as …".encode()).hexdigest()
    assert metric["feedback_details"] == {"kept": 1}
    rows = await events(agentobs_database)
    assert [row["context_keys"] for row in rows] == [["kept"]] * 2
    assert [row["context_snapshot"] for row in rows] == [{"kept": 1}] * 2
    assert rows[0]["user_request"] == "log in as …"
    assert CANARY not in repr((metric, rows))
    assert secret["password"] == CANARY


async def test_what_a_hook_returns_may_be_anything(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    options = {"redact": lambda value: None if isinstance(value, str) else ["hidden"]}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        run_with(recorder, {"a": 1}, user_request="hidden too")
        row = await only_row(recorder, agentobs_database)

    assert row["context_snapshot"] == {"value": ["hidden"]}
    assert (row["context_keys"], row["user_request"]) == (["value"], None)


async def test_where_a_hook_fails_nothing_is_stored_of_what_it_was_given(
    agentobs_database: DatabaseSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"redact": failing, "lenient": True}
    with strict_recorder(agentobs_database, tmp_path, **options) as recorder:
        decision = recorder.routing_decision(context={"a": CANARY}, user_request=CANARY)
        recorder.feedback(decision, "correction", {"a": CANARY})
        run_with(recorder, {CANARY: CANARY}, user_request=CANARY)
        row = await only_row(recorder, agentobs_database)

    withheld = {"_agentobs": {"redaction_failed": True}}
    assert (row["context_snapshot"], row["context_keys"]) == (withheld, [])
    [metric] = await decisions(agentobs_database)
    assert metric["feedback_details"] == withheld
    assert (metric["context_hash"], metric["user_request_hash"]) == (None, None)
    assert recorder.statistics().sanitised == 2
    [logged] = [each for each in caplog.messages if "redact" in each]
    assert "RuntimeError" in logged
    assert CANARY not in repr((metric, row)) + caplog.text


async def test_a_hook_that_fails_is_told_where_the_recorder_is_strict(
    agentobs_database: DatabaseSettings, tmp_path: Path
) -> None:
    with strict_recorder(agentobs_database, tmp_path, redact=failing) as recorder:
        with pytest.raises(RuntimeError):
            recorder.routing_decision(RoutingDecision(user_request="secret"))
        with pytest.raises(RuntimeError):
            run_with(recorder, {"a": 1})

    assert await events(agentobs_database) == []


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.binary(max_size=10)
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.uuids()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(SCALARS, inner, max_size=4)
        | st.frozensets(SCALARS, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=15,
)
CONTEXTS = st.dictionaries(SCALARS, VALUES, max_size=6)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(contexts=st.lists(CONTEXTS, min_size=1, max_size=20))
async def test_a_context_of_any_shape_is_stored_and_read_back_as_sanitised(
    recorder: Recorder, agentobs_database: DatabaseSettings, contexts: list[dict[Any, Any]]
) -> None:
    keys = [
        recorder.record(
            Transformation(target_agent="agent", context_snapshot=context, success=True)
        )
        for context in contexts
    ]
    await recorder.abarrier()

    found = await contexts_as_text(agentobs_database)
    for key, context in zip(keys, contexts, strict=True):
        assert key is not None
        stored, size, names = found[key]
        expected = encode_context(context, 2**20)
        assert exactly(stored) == exactly(expected.text)
        assert size == expected.size
        assert set(names) == {*json.loads(expected.text)} - {"_agentobs"}
    assert recorder.statistics().dead_lettered == {}


async def contexts_as_text(database: DatabaseSettings) -> dict[UUID, tuple[str, int, list[str]]]:
    query = (
        "SELECT id, context_snapshot::text, context_size_bytes, context_keys "
        "FROM agent_transformation_events"
    )
    async with connected(database) as connection:
        return {key: tuple(row) for key, *row in await connection.execute(text(query))}


def exactly(document: str) -> Any:
    return json.loads(document, parse_float=Decimal, parse_int=Decimal)
