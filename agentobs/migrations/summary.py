"""What an operator reads at the end of a run."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alembic.script import Script

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import TextIO

    from alembic.runtime.migration import MigrationContext, MigrationInfo

    from agentobs.migrations.catalog import TableSize


@dataclass(frozen=True)
class AppliedStep:
    """A revision that was applied or taken back, and how long that took."""

    revision: str
    description: str
    is_upgrade: bool
    seconds: float


@dataclass
class StepTimer:
    """Time each revision of a run, by Alembic's hook that is called after each of them."""

    steps: list[AppliedStep] = field(default_factory=list)
    revision: str | None = None
    """Where the database was seen last; None is base."""
    is_known: bool = False
    """Whether it was seen at all."""
    is_stamped: bool = False
    ended_at_base: bool = False
    _last: float = field(default_factory=time.perf_counter)

    @property
    def is_at_base(self) -> bool:
        """Whether the database was seen at base, and nothing of ours is in it."""
        return self.is_known and self.revision is None

    def note(self, revision: str | None) -> None:
        """Note at which revision the database was seen."""
        self.revision, self.is_known = revision, True

    def forget(self) -> None:
        """Admit that the database may be elsewhere now."""
        self.revision, self.is_known = None, False

    def record(
        self,
        ctx: MigrationContext,
        step: MigrationInfo,
        heads: Collection[Any],
        run_args: Mapping[str, Any],
    ) -> None:
        """Note that a revision has been run; the time since the last one was its own."""
        del ctx, run_args
        now = time.perf_counter()
        self.is_stamped |= step.is_stamp
        self.ended_at_base = not heads
        script = step.up_revision
        if isinstance(script, Script) and not step.is_stamp:
            applied = AppliedStep(
                script.revision, script.doc.rstrip("."), step.is_upgrade, now - self._last
            )
            self.steps.append(applied)
        self._last = now


def print_summary(
    run: StepTimer,
    *,
    schema: str,
    tables: Iterable[TableSize],
    stream: TextIO | None = None,
) -> None:
    """Print each step with its time and each table with its size, to stderr by default."""
    for line in _lines(run, schema, run.revision or "base", list(tables)):
        print(line, file=stream or sys.stderr)


def _lines(run: StepTimer, schema: str, revision: str, tables: list[TableSize]) -> list[str]:
    total = sum(step.seconds for step in run.steps)
    if run.steps:
        head = f"agentobs: schema {schema} is now at {revision} ({total:.2f} s)"
    elif run.is_stamped:
        head = f"agentobs: schema {schema} is recorded to be at {revision}: nothing was run"
    else:
        head = f"agentobs: schema {schema} is at {revision}: nothing to do"
    applied = [
        f"  {'+' if step.is_upgrade else '-'} {step.revision}  "
        f"{step.description:<44} {step.seconds:6.2f} s"
        for step in run.steps
    ]
    return [head, *applied, *(f"  {table.table:<52} {table.size:>8}" for table in tables)]
