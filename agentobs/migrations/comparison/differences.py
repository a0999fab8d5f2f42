"""What a comparison finds: differences, each with the SQL that mends it, and additions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "table", "column", "comment", "constraint", "foreign key", "index", "trigger", "function"
]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be; `subject` names it, `words` say what is wrong.

    `statements` would mend it. Where `is_safe`, they lose nothing, and fail where the rows do not
    allow it; else somebody has to decide. They run one by one, not in one transaction. An index of
    partitions they only begin: it is not valid, and a difference, until each partition has its own.
    `breach` finds the rows that do not allow it, if that can be asked.
    """

    kind: Kind
    subject: str
    words: str
    statements: tuple[str, ...] = ()
    is_safe: bool = True
    breach: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} {self.words}"


@dataclass(frozen=True)
class Addition:
    """What others added to our tables, which is left alone."""

    kind: Kind
    subject: str

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"


@dataclass(frozen=True)
class Comparison:
    """What differs, and what others added."""

    differences: tuple[Difference, ...] = ()
    additions: tuple[Addition, ...] = ()

    @property
    def faults(self) -> tuple[Difference, ...]:
        """The differences but for comments, on which nothing rests."""
        return tuple(each for each in self.differences if each.kind != "comment")


@dataclass
class Notes:
    """Where the comparison of one table gathers what it finds."""

    differences: list[Difference] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)

    def differs(
        self,
        kind: Kind,
        subject: str,
        words: str,
        *statements: str,
        is_safe: bool = True,
        breach: str | None = None,
    ) -> None:
        """Note a difference."""
        self.differences.append(Difference(kind, subject, words, statements, is_safe, breach))

    def added(self, kind: Kind, subject: str) -> None:
        """Note what others added."""
        self.additions.append(Addition(kind, subject))
