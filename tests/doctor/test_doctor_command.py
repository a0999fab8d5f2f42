"""What `agentobs doctor` prints, and how it ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from support.doctor import of_private
from support.event_rows import EVENTS
from support.maintenance import FEBRUARY, add_rows, maintained
from support.private_server import private_server
from support.shell import agentobs

from agentobs import migrations
from agentobs.cli.doctor import _print
from agentobs.doctor import Diagnosis, Finding, Severity
from agentobs.maintenance import Month

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agentobs import DatabaseSettings


async def test_a_healthy_database_is_a_few_lines_and_exit_code_0() -> None:
    with private_server(options={"fsync": "on"}) as server:
        settings = of_private(server)
        await migrations.upgrade(settings=settings)

        result = agentobs("doctor", settings=settings)

    assert (result.returncode, result.stderr) == (0, "")
    assert "warning" not in result.stdout
    head, *_, fine, summary = result.stdout.splitlines()
    assert head.startswith("PostgreSQL ")
    assert head.endswith("database postgres, schema public, as postgres")
    assert fine.startswith("ok: reachable, version, ")
    assert summary.startswith("1 notice, ")
    assert server.password not in result.stdout


async def test_a_warning_is_exit_code_3_and_its_fix_stands_below(
    agentobs_database: DatabaseSettings, hand: AsyncConnection
) -> None:
    month = Month.of(datetime.now(UTC)).next()
    await hand.execute(text(f"DROP TABLE {EVENTS}_{month.suffix}"))

    result = agentobs("doctor", settings=agentobs_database)

    assert (result.returncode, result.stderr) == (3, "")
    lines = result.stdout.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("  partitions: ")]
    assert lines[place + 1] == "    fix: agentobs maintain --apply"
    assert "\x1b" not in result.stdout


def test_a_server_that_can_t_be_reached_is_exit_code_4() -> None:
    nowhere = "postgresql://owner:unsaid@127.0.0.1:1/agents"

    result = agentobs("doctor", AGENTOBS_DATABASE_URL=nowhere)

    assert result.returncode == 4
    assert "critical\n  reachable: can't connect to" in result.stdout
    assert "Traceback" not in result.stderr
    assert "unsaid" not in result.stdout + result.stderr


def test_an_address_that_is_none_is_an_error_of_the_command() -> None:
    result = agentobs("doctor", AGENTOBS_DATABASE_URL="mysql://host/agents")

    assert result.returncode == 1
    assert result.stderr.startswith("agentobs: AGENTOBS_DATABASE_URL")


@pytest.mark.parametrize(
    "arguments", [["--keep", "90"], ["--keep-payload", "soon"], ["--timeout", "0"]]
)
def test_an_option_that_makes_no_sense_is_refused(
    agentobs_database: DatabaseSettings, arguments: list[str]
) -> None:
    assert agentobs("doctor", *arguments, settings=agentobs_database).returncode == 2


async def test_scripts_get_json(agentobs_database: DatabaseSettings, hand: AsyncConnection) -> None:
    await add_rows(hand, FEBRUARY, 1)
    await maintained(agentobs_database)

    result = agentobs("doctor", "--json", "--keep", "13w", settings=agentobs_database)

    found = json.loads(result.stdout)
    assert found["worst"] == "warning"
    assert found["server"]["schema_name"] == "public"
    (late,) = [each for each in found["findings"] if each["check"] == "retention"]
    assert late["severity"] == "warning"
    assert late["subject"] == EVENTS
    assert late["fix"] == "agentobs maintain --keep 91d --apply"
    assert Diagnosis.model_validate_json(result.stdout).worst is Severity.WARNING


def test_nothing_reaches_the_terminal_as_markup_or_control_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = Finding(
        check="transactions",
        severity=Severity.WARNING,
        words="[red]x[/red] \x1b[31m",
        fix="SELECT 1;\n  \x1b[31m;",
    )

    _print(Diagnosis(server=None, findings=(finding,), seconds=0))

    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red]x[/red]" in shown
    assert "    fix: SELECT 1;\n" in shown
