"""What the autogenerate of a host leaves alone: the tables of the package, whatever it compares.

By exact names, by the names that maintenance gives to months, and, of what the server says, by
being a partition of a table of ours: a host may have `agentobs_notes`, and name a partition as it
likes. And only in the schema of our tables: elsewhere the host may have tables of the same names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from alembic import context
from sqlalchemy import Table

from agentobs.migrations.online import tables as online
from agentobs.migrations.scripts import VERSION_TABLE
from agentobs.models import AgentTransformationEvent, RouterPerformanceMetric, metadata
from agentobs.rollups import tables as rollups
from agentobs.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.schema import SchemaItem

_EVENT_TABLES = (AgentTransformationEvent.__tablename__, RouterPerformanceMetric.__tablename__)
_PARTITIONED = frozenset(
    f"{name}{suffix}" for name in _EVENT_TABLES for suffix in ("", "_original_ids")
)
_EXACT = frozenset(
    {
        *metadata.tables,
        *rollups.metadata.tables,
        *_PARTITIONED,
        "agentobs_partitions",
        "agentobs_changed_rows",
        VERSION_TABLE,
        online.STATE,
        online.CHANGES,
        *(table.beside for table in online.EVENT_TABLES),
    }
)
# A month that is rewritten or restored stands beside the table for a while, and is no partition.
_OF_A_MONTH = re.compile(
    rf"({'|'.join(_PARTITIONED)})_(default|y\d{{4}}m\d{{2}}(_rewrite|_restoration)?)"
)


def include_name(
    name: str | None,
    type_: str,
    parent_names: Mapping[str, str | None],
    *,
    schema: str | None = None,
) -> bool:
    """Keep our tables out of what the host's autogenerate reads, as `include_name` of Alembic.

    It spares their reflection. A partition with a name of the host's own is read all the same, and
    our models are unknown to it: give `include_object` too. `schema` is that of our tables; None
    is what AGENTOBS_SCHEMA says.
    """
    if type_ != "table" or name is None:
        return True
    return not (_is_our_name(name) and _is_our_schema(parent_names.get("schema_name"), schema))


def include_object(
    object_: SchemaItem,
    name: str | None,
    type_: str,
    reflected: bool,
    compare_to: SchemaItem | None,
    *,
    schema: str | None = None,
) -> bool:
    """Keep our tables out of what the host's autogenerate proposes, as `include_object` of Alembic.

    Neither dropped nor changed nor made: that is for our own migrations, and `agentobs db check`
    tells whether they are what the models say. `schema` as for `include_name`.
    """
    del compare_to
    if type_ != "table" or name is None or not isinstance(object_, Table):
        return True
    if not reflected and object_.metadata is metadata:
        return False
    is_ours = _is_our_name(name) or any(map(_has_our_partitions, _parents(object_)))
    return not (is_ours and _is_our_schema(object_.schema, schema))


def _is_our_name(name: str) -> bool:
    return name in _EXACT or _is_of_a_month(name)


def _is_of_a_month(name: str) -> bool:
    return _OF_A_MONTH.fullmatch(name) is not None


def _has_our_partitions(parent: str) -> bool:
    # A host may inherit from a table that has none, and may part a month further.
    return parent in _PARTITIONED or _is_of_a_month(parent)


def _parents(table: Table) -> tuple[str, ...]:
    """Return the names of what a table is a partition of, as the database said."""
    parents: Any = table.dialect_options["postgresql"]["inherits"]
    return tuple(parents or ())


def _is_our_schema(found: str | None, named: str | None) -> bool:
    ours = named or read_settings().schema_name
    # Alembic leaves the connection's own schema unnamed, which may be the one that we name.
    return found == ours or (found is None and ours == _default_schema())


def _default_schema() -> str | None:
    try:
        return context.get_context().dialect.default_schema_name
    except NameError:
        # Alembic compares for a program, without an env.py.
        return None
