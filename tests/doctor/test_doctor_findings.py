"""Severities and what is made of them."""

from __future__ import annotations

import pytest

from agentobs.doctor import Diagnosis, Finding, Severity, Thresholds
from agentobs.errors import InvalidValueError


def finding(severity: Severity) -> Finding:
    return Finding(check="x", severity=severity, words="so it is")


def test_severities_compare_by_how_bad_they_are_and_not_as_texts() -> None:
    assert sorted(Severity, reverse=True) == ["critical", "warning", "notice", "ok"]
    assert Severity.CRITICAL > Severity.WARNING >= Severity.WARNING
    assert Severity.OK < Severity.NOTICE <= Severity.CRITICAL
    assert max(Severity) is Severity.CRITICAL


def test_the_worst_of_a_diagnosis_is_that_of_its_findings() -> None:
    found = tuple(map(finding, (Severity.OK, Severity.WARNING, Severity.NOTICE)))

    assert Diagnosis(server=None, findings=found, seconds=0).worst is Severity.WARNING
    assert Diagnosis(server=None, findings=(), seconds=0).worst is Severity.OK


@pytest.mark.parametrize(
    ("name", "value"),
    [("dead_share", 1.5), ("months_ahead", -1), ("check_timeout", 0), ("months_behind", 1)],
)
def test_a_bound_that_makes_no_sense_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidValueError, match=f"Thresholds.{name}"):
        Thresholds(**{name: value})
