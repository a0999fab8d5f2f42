"""What goes into an archive comes back bit for bit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from support.archives import (
    MONTH,
    PARTITION,
    PAYLOAD,
    SCHEMA,
    SOURCE,
    add_host_columns,
    differing_rows,
    restored,
    store_events,
    store_rows,
)

from agentobs.maintenance.archive import (
    BatchLimits,
    fingerprint,
    is_unchanged,
    verify_archive,
    write_archive,
)
from agentobs.maintenance.archive.arrays import array_text, parse_array
from agentobs.maintenance.archive.folders import split_location

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

TINY = BatchLimits(rows=2, bytes=1000)

# Values that a typed column, a driver or a parser of JSON would change.
STUBBORN: dict[str, list[str | None]] = {
    "context_snapshot": [
        None,
        "null",
        "{}",
        "[]",
        '{"a": 1e400, "b": 123456789012345678901234567890, "c": 0.10, "d": -0.0}',
        '{"text": "tab\\tnew\\nline\\\\ back \\"quote\\" ü 🐘 \\u2028"}',
        '"\\\\N"',
    ],
    "context_keys": [
        None,
        "{}",
        "{NULL}",
        '{"NULL","",null," ","a b","a,b","a\\"b","a\\\\b","{x}",ü,"\t"}',
        "{{a,b},{c,d}}",
        "[0:1]={a,b}",
        "{plain,words}",
    ],
    "user_request": [None, "", "\\N", "\\.", "a\tb\nc\rd\be\ff\vg\\h", "\x01\x1f\x7f", "NULL", "'"],
    "routing_confidence": [None, "0", "1", "0.5000", "0.0001"],
    "context_size_bytes": [None, "0", "-2147483648", "2147483647"],
    "success": [None, "true", "false"],
    "completed_at": [
        None,
        "infinity",
        "-infinity",
        "2026-11-25 12:30:00.000001+00",
        "2026-11-25 12:30:00.1+05:30",
        "0001-01-01 00:00:00+00",
        "9999-12-31 23:59:59.999999+00",
        "294276-12-31 23:59:59.999999+00",
        "0044-03-15 12:00:00+00 BC",
    ],
    "session_id": [None, "00000000-0000-0000-0000-000000000000"],
    "host.note": [None, "null", '{"b": 1,  "a": 1, "b": 2}', "1E5"],
    'the "place"': [None, "(1.5,-0)", "(NaN,Infinity)"],
    "bytes:raw": [None, "", "\\x00ff5c4e0a"],
    "span": [None, "1 year -2 mons +3 days -04:05:06.789", "0", "-1 month 1 day"],
    "mood": [None, "calm", 'a "b" \\\\c'],
    "pair": [None, "(,)", '("a, ""b""\\\\",7)'],
    "any_number": [None, "NaN", "1e-50", "1" * 60, "0.10", "0.100"],
    "amount": [None, "NaN", "0.00000000001", "-123456789.12345678901", "0"],
    "ratio": [None, "NaN", "-Infinity", "-0", "0.1", "1e-320", "3e15"],
    "small": [None, "-32768"],
    "large": [None, "9223372036854775807", "-9223372036854775808"],
    "day": [None, "infinity", "2024-02-29", "0001-01-01 BC", "5874897-12-31"],
    "local": [None, "-infinity", "2024-02-29 23:59:59.999999", "10000-01-01 00:00:00"],
    "matrix": [None, "{{a,b},{c,NULL}}", "{{{x}}}"],
    "numbers": [None, "{1,NULL,-3}", "{}"],
    "padded": [None, "", "ab"],
    "address": [None, "10.0.0.1", "10.0.0.0/8", "::1/128"],
    "window": [None, "empty", "(,)", "[2026-01-01 00:00:00.5+00,infinity)"],
    "kind_of": [None, "agent_definitions", "pg_class"],
    "price": [None, "-12.34"],
    "agentobs:verbatim": [None, "of the host"],
}


def stubborn_rows() -> list[dict[str, str | None]]:
    """Return rows in which every stubborn value occurs, beside others than the next time."""
    count = max(map(len, STUBBORN.values()))
    return [
        {name: values[number % len(values)] for name, values in STUBBORN.items()}
        for number in range(count)
    ]


@pytest.mark.parametrize("limits", [BatchLimits(), TINY], ids=["one batch", "many batches"])
async def test_every_stubborn_value_comes_back_bit_for_bit(
    agentobs_engine: AsyncEngine, tmp_path: Path, limits: BatchLimits
) -> None:
    await add_host_columns(agentobs_engine)
    rows = stubborn_rows()
    await store_rows(agentobs_engine, rows)

    async with agentobs_engine.connect() as connection:
        archive = await write_archive(connection, SOURCE, tmp_path, limits=limits)
        assert await is_unchanged(connection, SCHEMA, PARTITION, archive.manifest)
    manifest = await restored(agentobs_engine, archive.location)

    assert manifest.rows == len(rows)
    assert await differing_rows(agentobs_engine) == 0
    assert verify_archive(archive.location) == manifest == archive.manifest
    assert pq.ParquetFile(archive.location).num_row_groups == (1 if limits != TINY else 5)


async def test_the_settings_of_a_session_change_no_text_and_are_there_afterwards(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await add_host_columns(agentobs_engine)
    await store_rows(agentobs_engine, stubborn_rows())
    async with agentobs_engine.connect() as connection:
        plain = await write_archive(connection, SOURCE, tmp_path / "plain")

    async with agentobs_engine.connect() as connection:
        for setting in (
            "timezone = 'Asia/Kolkata'",
            "datestyle = 'German'",
            "intervalstyle = 'iso_8601'",
            "extra_float_digits = -10",
            "bytea_output = 'escape'",
        ):
            await connection.execute(text(f"SET {setting}"))
        await connection.commit()
        odd = await write_archive(connection, SOURCE, tmp_path / "odd")
        assert (
            await fingerprint(connection, SCHEMA, PARTITION, odd.manifest.column_names)
            == odd.manifest.fingerprint
        )
        assert await connection.scalar(text("SHOW datestyle")) == "German, DMY"
        assert await connection.scalar(text("SHOW timezone")) == "Asia/Kolkata"

    assert odd.manifest.content_sha256 == plain.manifest.content_sha256
    assert odd.manifest.fingerprint == plain.manifest.fingerprint


TEXTS = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "context_snapshot": st.none() | JSON.map(lambda value: {"value": value}),
            "context_keys": st.none() | st.lists(TEXTS | st.none(), max_size=4),
            "user_request": st.none() | TEXTS,
            "routing_confidence": st.none() | st.decimals(0, 1, places=4),
            "context_size_bytes": st.none() | st.integers(-(2**31), 2**31 - 1),
            "success": st.none() | st.booleans(),
            "completed_at": st.none() | st.datetimes(timezones=st.just(UTC)),
        }
    ),
    max_size=8,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
async def test_any_rows_come_back_bit_for_bit(
    agentobs_engine: AsyncEngine, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    async with agentobs_engine.begin() as connection:
        await connection.execute(text("TRUNCATE agent_transformation_events"))
    for row in rows:
        await store_events(agentobs_engine, 1, **row)

    async with agentobs_engine.connect() as connection:
        archive = await write_archive(connection, SOURCE, tmp_path, limits=TINY)
    await restored(agentobs_engine, archive.location)

    assert archive.manifest.rows == len(rows)
    assert await differing_rows(agentobs_engine) == 0


@given(
    st.lists(st.none() | TEXTS | st.sampled_from(["NULL", "null", "", "{", "\\", '"', "\u00a0"]))
)
def test_a_list_comes_back_from_the_text_of_its_array(elements: list[str | None]) -> None:
    assert parse_array(array_text(elements)) == elements


async def test_an_empty_partition_is_an_archive_too(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with agentobs_engine.connect() as connection:
        archive = await write_archive(connection, SOURCE, tmp_path)

    manifest = await restored(agentobs_engine, archive.location)

    assert (manifest.rows, manifest.earliest, manifest.latest) == (0, None, None)
    assert verify_archive(archive.location).rows == 0


async def test_others_read_typed_columns(agentobs_engine: AsyncEngine, tmp_path: Path) -> None:
    instant = datetime(MONTH.year, MONTH.number, 2, 3, 4, 5, 678901, tzinfo=UTC)
    await store_events(
        agentobs_engine,
        1,
        started_at=instant,
        context_snapshot={"a": [1]},
        context_keys=["x", None],
        routing_confidence=Decimal("0.8125"),
        context_size_bytes=7,
        success=True,
    )

    async with agentobs_engine.connect() as connection:
        archive = await write_archive(connection, SOURCE, tmp_path)

    table = pq.read_table(archive.location)
    (row,) = table.to_pylist()
    assert table.schema.field("started_at").type == pa.timestamp("us", tz="UTC")
    assert row["started_at"] == instant
    assert row["context_snapshot"] == '{"a": [1]}'
    assert row["context_keys"] == ["x", None]
    assert row["routing_confidence"] == Decimal("0.8125")
    assert (row["context_size_bytes"], row["success"]) == (7, True)
    assert table["agentobs:verbatim"].null_count == 1
    metadata = pq.ParquetFile(archive.location).metadata.row_group(0)
    columns = [metadata.column(place) for place in range(metadata.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    # What a query for some hours needs, and no more: bounds of texts would fill the memory.
    bounded = {column.path_in_schema for column in columns if column.is_stats_set}
    assert {"id", "started_at", "success"} <= bounded
    assert not {"context_snapshot", "user_request"} & bounded


async def test_what_no_typed_column_holds_stands_beside_it_word_for_word(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_rows(
        agentobs_engine, [{"completed_at": "infinity", "context_keys": "{{a},{b}}"}, {}]
    )

    async with agentobs_engine.connect() as connection:
        archive = await write_archive(connection, SOURCE, tmp_path)

    table = pq.read_table(archive.location, columns=["completed_at", "context_keys"])
    assert table.to_pylist() == [{"completed_at": None, "context_keys": None}] * 2
    assert pq.read_table(archive.location)["agentobs:verbatim"].to_pylist() == [
        '{"context_keys": "{{a},{b}}", "completed_at": "infinity"}',
        None,
    ]


async def test_the_payload_alone_is_archived_with_the_keys(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 5, user_request="why?", context_snapshot={"a": 1})

    async with agentobs_engine.connect() as connection:
        rows = await write_archive(connection, SOURCE, tmp_path)
        archive = await write_archive(connection, SOURCE, tmp_path, payload=PAYLOAD)
        assert await is_unchanged(connection, SCHEMA, PARTITION, archive.manifest)
        await connection.rollback()
        await connection.execute(text("UPDATE agent_transformation_events SET success = true"))
        assert await is_unchanged(connection, SCHEMA, PARTITION, archive.manifest)
        assert not await is_unchanged(connection, SCHEMA, PARTITION, rows.manifest)
        await connection.execute(text("UPDATE agent_transformation_events SET user_request = ''"))
        assert not await is_unchanged(connection, SCHEMA, PARTITION, archive.manifest)

    assert archive.manifest.kind == "payload"
    assert archive.manifest.column_names == ("id", *PAYLOAD)
    assert split_location(archive.location)[1] == f"{PARTITION}-payload.parquet"
    assert verify_archive(archive.location).rows == 5


async def test_the_ids_of_before_go_along_and_come_back_to_their_table(
    agentobs_engine: AsyncEngine, tmp_path: Path
) -> None:
    await store_events(agentobs_engine, 6)
    originals = "agent_transformation_events_original_ids"
    async with agentobs_engine.begin() as connection:
        await connection.execute(
            text(
                f"INSERT INTO {originals} SELECT id, gen_random_uuid() "
                "FROM agent_transformation_events ORDER BY id LIMIT 4"
            )
        )
    ids = text(f"SELECT id, original_id FROM {originals} ORDER BY id")
    async with agentobs_engine.connect() as connection:
        before = (await connection.execute(ids)).all()
        await connection.rollback()
        archive = await write_archive(connection, SOURCE, tmp_path, limits=TINY)
        # One of them is still there when the others come back.
        await connection.execute(
            text(f"DELETE FROM {originals} WHERE id <> :id"), {"id": before[0][0]}
        )
        await connection.commit()

    await restored(agentobs_engine, archive.location)

    assert archive.manifest.original_ids == 4
    assert pq.read_table(archive.location)["agentobs:original_id"].null_count == 2
    async with agentobs_engine.connect() as connection:
        assert (await connection.execute(ids)).all() == before
