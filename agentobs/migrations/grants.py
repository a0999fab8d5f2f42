"""The rights of the roles that work with the tables: what each needs, and the SQL that grants it.

Rights are those of whole tables. A right on a partition would be a way around the triggers of its
table, which keep links true and mark the hours of the rollups; so nobody gets one, and nothing is
granted on tables that are yet to be made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agentobs.migrations.connection import quoted
from agentobs.migrations.scripts import VERSION_TABLE
from agentobs.models import metadata
from agentobs.rollups import tables as rollups

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODELS = tuple(sorted(metadata.tables))
_WATERMARK = "agentobs_rollup_watermark"


class Right(NamedTuple):
    """Privileges on some tables or sequences."""

    privileges: tuple[str, ...]
    kind: str
    names: tuple[str, ...]


# To write again is to find the row, to lock it and to change it. Nothing is deleted: months go by
# maintenance, and the registry switches versions off. A writer that may not read the sequence
# would mark no hour, and the rollups would go stale.
_WRITING = (
    Right(("SELECT", "INSERT", "UPDATE"), "TABLE", _MODELS),
    Right(("SELECT",), "TABLE", (VERSION_TABLE,)),
    Right(("SELECT",), "SEQUENCE", (_WATERMARK,)),
)
_READING = (
    Right(
        ("SELECT",),
        "TABLE",
        (
            *_MODELS,
            "agent_transformation_events_original_ids",
            "router_performance_metrics_original_ids",
            "agentobs_partitions",
            *sorted(rollups.metadata.tables),
            VERSION_TABLE,
        ),
    ),
)


class Wanted(NamedTuple):
    """A privilege that a role is to have; of the schema itself where `name` is None."""

    role: str
    privilege: str
    name: str | None


@dataclass(frozen=True)
class Grants:
    """Who may write and who may read; a role may do both."""

    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """All roles, each once, in the order in which they were named."""
        return tuple(dict.fromkeys((*self.writers, *self.readers)))

    def statements(self, schema: str) -> Iterator[str]:
        """Iterate over the statements, in the order in which they are run."""
        if self.roles:
            yield f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {_all_of(self.roles)}"
        for roles, rights in self._pairs():
            for right in rights:
                names = ", ".join(f"{quoted(schema)}.{quoted(name)}" for name in right.names)
                privileges = ", ".join(right.privileges)
                yield f"GRANT {privileges} ON {right.kind} {names} TO {_all_of(roles)}"

    def wanted(self) -> Iterator[Wanted]:
        """Iterate over what every role has when the statements have been run."""
        for role in self.roles:
            yield Wanted(role, "USAGE", None)
        for roles, rights in self._pairs():
            for right in rights:
                for role in roles:
                    for name in right.names:
                        yield from (Wanted(role, each, name) for each in right.privileges)

    def _pairs(self) -> Iterator[tuple[tuple[str, ...], tuple[Right, ...]]]:
        for roles, rights in ((self.writers, _WRITING), (self.readers, _READING)):
            if roles:
                yield tuple(dict.fromkeys(roles)), rights


def _all_of(roles: tuple[str, ...]) -> str:
    return ", ".join(map(quoted, roles))
