"""Ask the doctor, and do what it says."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from sqlalchemy import make_url
from support.shell import agentobs, psql

from agentobs import DatabaseSettings
from agentobs.doctor import Diagnosis, Finding, Severity, Thresholds, diagnose

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.private_server import PrivateServer

# A server of tests may lose its data in a crash.
OF_A_TEST_SERVER = frozenset({"fsync", "full_page_writes", "synchronous_commit"})


async def examined(settings: DatabaseSettings, **thresholds: Any) -> Diagnosis:
    return await diagnose(settings, thresholds=Thresholds(**thresholds))


async def findings_of(check: str, settings: DatabaseSettings, **thresholds: Any) -> list[Finding]:
    """Return what a check has found fault with."""
    return faults_of(check, await examined(settings, **thresholds))


def faults_of(check: str, diagnosis: Diagnosis) -> list[Finding]:
    own = [finding for finding in diagnosis.findings if finding.check == check]
    assert own, f"no check {check}"
    return [finding for finding in own if finding.severity is not Severity.OK]


def worse_than_a_notice(diagnosis: Diagnosis) -> list[Finding]:
    return [
        finding
        for finding in diagnosis.findings
        if finding.severity > Severity.NOTICE and finding.subject not in OF_A_TEST_SERVER
    ]


def fix(settings: DatabaseSettings, findings: Iterable[Finding]) -> None:
    """Paste each fix into psql or a shell."""
    for finding in findings:
        assert finding.fix is not None, finding
        if finding.fix.endswith(";"):
            done = psql(settings, finding.fix)
        else:
            program, *arguments = shlex.split(finding.fix)
            assert program == "agentobs", finding
            done = agentobs(*arguments, settings=settings)
        assert done.returncode == 0, (finding.fix, done.stderr)


def of_private(server: PrivateServer, **parts: Any) -> DatabaseSettings:
    """Return the settings of a private server, or with another database, role or password."""
    url = make_url(server.url()).set(**parts).render_as_string(hide_password=False)
    # A space is a plus in no URL of libpq.
    return DatabaseSettings(database_url=SecretStr(url.replace("+", "%20")))
