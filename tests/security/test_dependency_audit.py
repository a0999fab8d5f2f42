"""`make check` looks for known vulnerabilities in what is installed, and fails by them."""

from __future__ import annotations

import subprocess

from support.shell import REPOSITORY


def commands_of_check() -> list[str]:
    # The mark of an installation that is up to date stands in for one that make would begin.
    done = subprocess.run(
        ["make", "--dry-run", "--old-file=.venv/ready", "check"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.splitlines()


def test_the_checks_audit_what_is_installed() -> None:
    (audit,) = (line for line in commands_of_check() if "pip-audit" in line)

    assert "--ignore-vuln" not in audit
    assert "--dry-run" not in audit


def test_a_finding_ends_the_checks() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (audit,) = (line for line in makefile.splitlines() if "/pip-audit" in line)

    # make goes on after a command with a dash before it, and a shell after one with ||.
    assert audit.startswith("\t$(BIN)/pip-audit ")
    assert "||" not in audit
    assert ".IGNORE" not in makefile
