"""What the commands that read print, and how they end."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncSession
from support.shell import connect, url_of
from typer.testing import CliRunner, Result

from agentobs import AgentTransformationEvent, EventType, MetricType, RouterPerformanceMetric
from agentobs.cli import app
from agentobs.errors import AgentobsError
from agentobs.keys import uuid7_at

if TYPE_CHECKING:
    from agentobs import DatabaseSettings

WORKFLOW = UUID("0190a7f8-2d3e-7c41-b1aa-5f0d1c2b3a49")
LONG_NAME = "agent-with-a-name-that-is-longer-than-most"
HOSTILE = "[red]agent[/red]\x1b[31m<script>"
READING = ("status", "workflows", "agents", "routing", "calibration", "handoffs", "alerts")


@pytest.fixture
def address(agentobs_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url_of(agentobs_database))


@pytest_asyncio.fixture
async def workflow(agentobs_database: DatabaseSettings, address: None) -> None:
    del address
    began = datetime.now(UTC) - timedelta(minutes=5)
    root = _run("agent-outer", began, 3000, True)
    inner = _run(HOSTILE, began + timedelta(seconds=1), 1000, False, source="agent-outer")
    inner.parent_event_id, inner.error_type = root.id, "ValueError"
    decisions = [_decision(began + timedelta(milliseconds=number)) for number in range(30)]
    async with connect(agentobs_database) as connection, AsyncSession(connection) as session:
        session.add(root)
        await session.flush()
        session.add_all([inner, *decisions])
        await session.commit()


@pytest_asyncio.fixture
async def long_names(agentobs_database: DatabaseSettings, address: None) -> None:
    del address
    began = datetime.now(UTC) - timedelta(minutes=5)
    run = _run(LONG_NAME, began, 123_456, True, source="agent-that-hands-over-all-of-its-work")
    async with connect(agentobs_database) as connection, AsyncSession(connection) as session:
        session.add_all([run, _decision(began)])
        await session.commit()


def _run(
    agent: str, began: datetime, took_ms: int, success: bool, source: str | None = None
) -> AgentTransformationEvent:
    return AgentTransformationEvent(
        id=uuid7_at(began),
        event_type=EventType.COMPLETE if success else EventType.FAILED,
        correlation_id=WORKFLOW,
        source_agent=source,
        target_agent=agent,
        started_at=began,
        completed_at=began + timedelta(milliseconds=took_ms),
        total_execution_duration_ms=took_ms,
        success=success,
    )


def _decision(measured_at: datetime) -> RouterPerformanceMetric:
    return RouterPerformanceMetric(
        id=uuid7_at(measured_at),
        metric_type=MetricType.ROUTING_DECISION,
        correlation_id=WORKFLOW,
        selected_agent="agent-outer",
        selection_strategy="fuzzy",
        confidence_score=0.9,
        total_routing_time_us=250_000,
        cache_hit=False,
        selection_validated=True,
        actual_success=True,
        actual_quality_score=0.8,
        measured_at=measured_at,
    )


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.usefixtures("workflow")
def test_a_workflow_is_shown_as_a_tree_with_its_critical_path_and_failures() -> None:
    found = run("trace", str(WORKFLOW))

    assert found.exit_code == 0
    head, outer, inner = found.stdout.splitlines()
    assert head == "2 runs in 3,000 ms, 30 decisions, 1 failed"
    assert outer == "* agent-outer  3,000 ms (self 2,000)"
    assert inner.startswith("*   [red]agent[/red]")
    assert inner.endswith("1,000 ms (self 1,000)  failed: ValueError")


@pytest.mark.usefixtures("workflow")
def test_what_stands_in_a_row_reaches_no_terminal_as_markup_or_control_code() -> None:
    for command in (("trace", str(WORKFLOW)), ("agents",), ("handoffs",)):
        shown = run(*command).stdout
        assert "[red]agent[/red]" in shown
        assert "\x1b" not in shown


@pytest.mark.usefixtures("workflow")
def test_a_workflow_that_is_not_there_is_told_and_exits_1() -> None:
    unknown = UUID(int=7)
    found = run("trace", str(unknown))

    assert (found.exit_code, found.stdout) == (1, f"no workflow {unknown}\n")


@pytest.mark.usefixtures("workflow")
def test_agents_shows_what_each_did_and_keeps_its_commands() -> None:
    found = run("agents")
    assert found.exit_code == 0
    assert "agent-outer" in found.stdout
    assert "100%" in found.stdout
    assert run("agents", "list").exit_code == 0


@pytest.mark.usefixtures("workflow")
def test_routing_shows_times_in_milliseconds_and_the_share_over_the_target() -> None:
    found = run("routing", "--since", "1h")
    last = found.stdout.splitlines()[-1]

    assert found.exit_code == 0
    assert "250.00" in found.stdout
    assert "100%" in found.stdout
    assert last


@pytest.mark.usefixtures("workflow")
def test_calibration_tells_what_is_too_little_to_judge_by() -> None:
    assert "agent-outer" in run("calibration").stdout
    assert "30" in run("calibration", "--by", "strategy").stdout
    assert run("calibration", "--by", "weather").exit_code == 2


@pytest.mark.usefixtures("workflow")
def test_alerts_exit_1_when_one_fires_and_name_it() -> None:
    found = run("alerts")

    assert found.exit_code == 1
    assert found.stdout.splitlines()[1].startswith("cache_hit_rate")


@pytest.mark.usefixtures("workflow")
def test_status_shows_the_database_on_one_screen() -> None:
    found = run("status")

    assert found.exit_code == 0
    for words in ("PostgreSQL", "at revision", "connections in use", "router_performance_metrics"):
        assert words in found.stdout
    assert len(found.stdout.splitlines()) < 24
    assert json.loads(run("status", "--json").stdout)["health"]["ok"] is True


@pytest.mark.usefixtures("workflow")
def test_json_holds_the_whole_answer_and_csv_its_rows() -> None:
    for command in READING[1:]:
        as_json, as_csv = run(command, "--json"), run(command, "--csv")
        assert json.loads(as_json.stdout)
        rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
        assert rows
        assert None not in rows[0]
        assert run(command, "--json", "--csv").exit_code == 2


@pytest.mark.parametrize("length", ["7", "0d", "-1h", "5x", "soon", "1.5h", ""])
def test_a_window_that_is_none_is_refused_with_examples(length: str) -> None:
    found = run("routing", "--since", length)

    assert found.exit_code == 2
    assert "90m, 24h, 7d or 4w" in " ".join(found.stderr.replace("│", " ").split())


@pytest.mark.usefixtures("address")
def test_on_an_empty_database_every_command_answers() -> None:
    for command in READING:
        found = run(command)
        assert (found.exit_code, found.stderr) == (0, "")
        assert found.stdout


def test_on_a_database_that_is_not_migrated_they_say_what_to_run(
    agentobs_empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", url_of(agentobs_empty_database))
    for command in READING:
        found = run(command)
        assert "run `agentobs db upgrade`" in f"{found.exception} {found.output}"
        # To who watches alerts, exit code 1 says that one fires.
        if command == "alerts":
            assert found.exit_code == 3
        else:
            assert isinstance(found.exception, AgentobsError)


def test_the_shell_completes_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AGENTOBS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "agentobs rou")
    monkeypatch.setenv("COMP_CWORD", "1")
    shown = subprocess.run(
        [Path(sys.executable).with_name("agentobs")], capture_output=True, text=True, check=False
    )

    assert shown.stdout.split() == ["routing"]


@pytest.mark.usefixtures("address")
def test_a_series_without_a_decision_is_one_line_and_whole_for_programs() -> None:
    assert run("routing").stdout == "nothing in this window\n"
    assert len(json.loads(run("routing", "--json").stdout)) in {24, 25}


@pytest.mark.usefixtures("workflow")
def test_workflows_are_found_for_a_look_at_one_of_them() -> None:
    found = json.loads(run("workflows", "--only", "failed", "--json").stdout)

    assert [row["correlation_id"] for row in found] == [str(WORKFLOW)]
    assert str(WORKFLOW) in run("workflows").stdout
    assert run("workflows", "--only", "running").stdout.startswith("nothing")
    refused = run("workflows", "--only", "stuck")
    assert refused.exit_code == 2
    assert "failed or running" in refused.output


@pytest.mark.usefixtures("workflow")
def test_status_and_trace_know_windows_and_csv() -> None:
    tables = list(csv.DictReader(io.StringIO(run("status", "--since", "7d", "--csv").stdout)))
    assert [row["table"] for row in tables] == [
        "agent_transformation_events",
        "router_performance_metrics",
    ]
    assert "since " in run("status", "--since", "1h").stdout
    assert run("trace", str(WORKFLOW), "--since", "1h").exit_code == 0


def test_that_nothing_could_be_checked_is_another_exit_code_than_an_alert(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTOBS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")

    found = run("alerts")

    assert found.exit_code == 3
    assert "agentobs: " in found.output


@pytest.mark.usefixtures("workflow")
def test_alerts_leaves_out_what_is_far_from_firing_until_it_is_asked_for() -> None:
    shown, everything = run("alerts").stdout, run("alerts", "--all").stdout

    assert "agent_success_rate" in shown
    assert "partition_rows" not in shown
    assert "--all" in shown
    assert "partition_rows" in everything
    assert "expired_rows_age_days" in everything
    assert len(json.loads(run("alerts", "--json").stdout)) == len(everything.splitlines()) - 1


@pytest.mark.usefixtures("long_names")
def test_at_80_columns_no_line_wraps_and_only_names_are_cut() -> None:
    shown = {
        command: _on_a_terminal(command, 80)
        for command in ("agents", "routing", "handoffs", "alerts", "status")
    }
    for command, lines in shown.items():
        assert max(map(len, lines)) <= 80, command
    heading, row = shown["agents"]
    assert " ".join(heading.split()) == "agent runs change ok p50 ms p95 ms p99 ms quality"
    assert row.startswith(LONG_NAME[:20])
    assert row.split()[1:] == ["1", "-", "100%", "123,456", "123,456", "123,456", "-"]
    assert re.match(r"\d\d-\d\d \d\d:00 ", shown["routing"][-1])
    for name in ("agent_transformation_events ", "router_performance_metrics "):
        assert any(line.startswith(name) for line in shown["status"])
    assert any("rows est." in line for line in shown["status"])


def _on_a_terminal(command: str, width: int) -> list[str]:
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(width), "NO_COLOR": "1"}
    arguments = [sys.executable, "-m", "agentobs", command]
    with subprocess.Popen(arguments, env=environ, stdout=theirs) as process:
        process.wait(60)
    os.close(theirs)
    seen = os.read(ours, 65_536).decode()
    os.close(ours)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines()]


@pytest.mark.usefixtures("workflow")
def test_a_terminal_gets_colours_where_a_pipe_gets_none() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "agentobs", "agents"]
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    piped = subprocess.run(command, env=environ, capture_output=True, check=True).stdout
    with subprocess.Popen(command, env=environ, stdout=theirs) as process:
        process.wait(60)
    os.close(theirs)
    seen = os.read(ours, 65_536)
    os.close(ours)

    assert b"\x1b[" in seen
    assert b"\x1b[" not in piped
