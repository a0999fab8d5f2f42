"""What the doctor says: findings, each with its fix, and the diagnosis that they make up."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, computed_field


class Severity(StrEnum):
    """How bad a finding is; they compare in this order, and not as texts."""

    OK = "ok"
    NOTICE = "notice"
    """Worth knowing; nothing has to be done."""
    WARNING = "warning"
    """Something will go wrong, or costs more than it should."""
    CRITICAL = "critical"
    """Services or maintenance can't work."""

    @property
    def rank(self) -> int:
        """The place in the order, from 0."""
        return list(Severity).index(self)

    def __lt__(self, other: str) -> bool:
        return self.rank < Severity(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Severity(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Severity(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Severity(other).rank


class Finding(BaseModel):
    """What one check found on one subject, in words.

    `fix` is SQL where it ends with a semicolon, else a command; None where there is nothing to do.
    """

    model_config = ConfigDict(frozen=True)

    check: str
    severity: Severity
    words: str
    subject: str | None = None
    fix: str | None = None


class Server(BaseModel):
    """The server and the database that were looked at, and as whom; `place` is an address."""

    model_config = ConfigDict(frozen=True)

    place: str
    version: str
    version_number: int
    database: str
    schema_name: str
    role: str
    is_standby: bool
    revision: str | None
    """The revision that is recorded; None where there is none, or it can't be read."""


class Diagnosis(BaseModel):
    """All findings, worst first; `server` is None where it could not be reached."""

    model_config = ConfigDict(frozen=True)

    server: Server | None
    findings: tuple[Finding, ...]
    seconds: float

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way to put it
    @property
    def worst(self) -> Severity:
        """The severity of the worst finding."""
        return max((finding.severity for finding in self.findings), default=Severity.OK)
