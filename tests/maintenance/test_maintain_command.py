from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from sqlalchemy import text
from support.event_rows import EVENTS, insert_row
from support.maintenance import FEBRUARY, add_rows, letting_go, maintained, partitions_of, texts_in
from support.shell import agentobs, connect_in_transaction

from agentobs.cli.progress import TerminalWatcher
from agentobs.maintenance.plan import DiscardRewrite
from agentobs.maintenance.tables import EVENTS as TABLE
from agentobs.maintenance.tables import MonthPartition

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings

PARTITION = f"{EVENTS}_{FEBRUARY.suffix}"


async def test_without_apply_the_plan_is_printed_and_nothing_is_changed(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    before = await partitions_of(look)

    result = agentobs("maintain", "--ahead", "4", settings=agentobs_database)

    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.partition("_")[0] for line in lines[:2]] == [
        "would: make agent",
        "would: make router",
    ]
    assert lines[2] == "Nothing was changed: run it again with --apply."
    assert await partitions_of(look) == before


async def test_with_apply_what_was_done_is_printed(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 2)

    result = agentobs(
        "maintain", "--apply", "--keep", "13w", "--archive", str(tmp_path),
        settings=agentobs_database,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    made, folded, archived = result.stdout.splitlines()
    assert made == f"done: make {PARTITION}, move 2 rows into it from DEFAULT"
    assert folded.startswith(f"done: fold {EVENTS}, up to ")
    assert archived == (f"done: archive in {tmp_path}, detach and drop {PARTITION} (about 2 rows)")
    # No terminal: lines, and no bar.
    assert result.stderr.splitlines()[-1].endswith("(about 2 rows) …")
    assert "\x1b" not in result.stdout + result.stderr
    assert await texts_in(look) == []


def test_where_nothing_is_to_be_done_it_says_so(agentobs_database: DatabaseSettings) -> None:
    result = agentobs("maintain", settings=agentobs_database)

    assert (result.returncode, result.stdout) == (0, "nothing to do\n")


async def test_rows_of_no_month_are_told_of(
    agentobs_database: DatabaseSettings, look: AsyncConnection
) -> None:
    await insert_row(look, id="00000000-0000-4000-8000-000000000000", started_at="infinity")

    result = agentobs("maintain", settings=agentobs_database)

    assert f"note: 1 rows stay in {EVENTS}_default" in result.stdout


@pytest.mark.parametrize("apply", [[], ["--apply"]], ids=["plan", "apply"])
async def test_scripts_get_json(
    agentobs_database: DatabaseSettings, look: AsyncConnection, apply: list[str]
) -> None:
    await add_rows(look, FEBRUARY, 2)

    result = agentobs("maintain", "--json", *apply, settings=agentobs_database)

    plan = json.loads(result.stdout)
    closed_to = plan["steps"][1].pop("closed_to")
    assert datetime.fromisoformat(closed_to) <= datetime.now(UTC)
    assert plan == {
        "applied": bool(apply),
        "steps": [
            {
                "step": "make_month",
                "table": EVENTS,
                "partition": PARTITION,
                "month": "2024-02",
                "moved": 2,
                "rekeyed": 0,
                "seen": 2,
                "locked_seconds": 0,
            },
            {
                "step": "fold_rollups",
                "table": EVENTS,
                "anew": False,
                "changed_hours": 0,
                "has_changed_partitions": False,
            },
        ],
        "notes": [],
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep", "90"], "such as 90d or 13w"),
        (["--keep", "1y"], "such as 90d or 13w"),
        (["--keep-payload", "-1d"], "such as 90d or 13w"),
        (["--keep", "0d"], "a day at least"),
        (["--keep", "14d", "--keep-payload", "2w"], "must be less than keep"),
        (["--ahead", "25"], "ahead must lie"),
    ],
)
def test_an_age_that_makes_no_sense_is_refused(
    agentobs_database: DatabaseSettings, arguments: list[str], words: str
) -> None:
    result = agentobs("maintain", *arguments, settings=agentobs_database)

    assert result.returncode in {1, 2}
    assert words in result.stderr.replace("│", " ").replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_an_age_beyond_all_instants_keeps_everything(agentobs_database: DatabaseSettings) -> None:
    result = agentobs("maintain", "--keep", "99999w", settings=agentobs_database)

    assert (result.returncode, result.stdout) == (0, "nothing to do\n")


async def test_an_archive_is_listed_verified_restored_and_released(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 2)
    before = await texts_in(look)
    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))
    location = str(tmp_path / f"{PARTITION}.parquet")

    def archive(*arguments: str) -> str:
        result = agentobs("archive", *arguments, settings=agentobs_database)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert PARTITION in archive("list", str(tmp_path))
    assert archive("verify", location) == f"intact: 2 rows of {PARTITION}\n"
    assert f"restored: 2 rows of {PARTITION}" in archive("restore", location)
    assert archive("release", PARTITION) == f"released: {PARTITION}\n"
    assert await texts_in(look) == before


async def test_a_restoration_that_gives_up_ends_with_exit_code_3(
    agentobs_database: DatabaseSettings, look: AsyncConnection, tmp_path: Path
) -> None:
    await add_rows(look, FEBRUARY, 2)
    await maintained(agentobs_database, letting_go(FEBRUARY, archive=tmp_path))
    location = str(tmp_path / f"{PARTITION}.parquet")

    async with connect_in_transaction(agentobs_database) as blocker:
        await blocker.execute(text(f"LOCK TABLE {EVENTS} IN ROW EXCLUSIVE MODE"))
        result = agentobs(
            "archive", "restore", location, "--patience", "0", settings=agentobs_database
        )

    assert result.returncode == 3, result.stderr
    assert "others kept locks" in result.stderr


def test_a_terminal_sees_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = TerminalWatcher()
    console = Console(force_terminal=True, record=True, width=120)
    monkeypatch.setattr(shown._progress.live, "console", console)
    step = DiscardRewrite(MonthPartition(TABLE, FEBRUARY))

    shown.progressed(1_000, 4_000)
    shown.progressed(2_000, 4_000)
    console.print(shown._progress.get_renderable())

    assert "2,000 of about 4,000 rows" in console.export_text()
    shown.finished(step)
    assert shown._progress.tasks == []


def test_who_is_in_the_way_is_told_once_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    blocker: Any = "backend 7 (psql, idle in transaction, transaction open for {} s, x on y)"
    with TerminalWatcher() as watcher:
        for seconds in range(3):
            watcher.blocked([blocker.format(seconds)])

    assert capsys.readouterr().err.count("waiting for backend 7") == 1
