"""The partitions of an online upgrade, as revision 0005 makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ARRAY, Text, bindparam, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from agentobs.migrations.online.tables import EventTable

_NEXT = text(
    """
    SELECT (date_trunc('month', now(), 'UTC') + ahead * interval '1 month')::text
    FROM generate_series(0, 3) AS ahead
    """
)
# What a month's partitions are made by; those that are there are left out. A day of slack on both
# sides of a month is for the clocks of client and server, which differ.
_STATEMENTS = text(
    """
    SELECT unnest(ARRAY[
        format('CREATE TABLE %1$I PARTITION OF %2$I (CONSTRAINT %3$I CHECK (%4$I >= %5$L '
               'AND %4$I < %6$L)) FOR VALUES FROM (%7$L) TO (%8$L)',
               part, beside, part || '_' || instant || '_check', instant,
               first - interval '1 day', first + interval '1 month 1 day', lower, upper),
        format('COMMENT ON TABLE %I IS %L', part,
               'The rows of ' || name || ' of ' || to_char(first, 'YYYY-MM')),
        format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
               ids || '_' || suffix, ids, lower, upper)])
    FROM (
        SELECT *, name || '_' || suffix AS part, agentobs_uuid7_floor(first) AS lower,
               agentobs_uuid7_floor(first + interval '1 month') AS upper
        FROM (
            SELECT CAST(month AS timestamptz) AS first,
                   to_char(CAST(month AS timestamptz), '"y"YYYY"m"MM') AS suffix
            FROM unnest(:months) AS month
        ) AS named
        CROSS JOIN (
            SELECT CAST(:name AS text) AS name, CAST(:beside AS text) AS beside,
                   CAST(:ids AS text) AS ids, CAST(:instant AS text) AS instant
        ) AS names
    ) AS months
    WHERE to_regclass(quote_ident(part)) IS NULL
    """
).bindparams(bindparam("months", type_=ARRAY(Text)))


def create_next_months(connection: Connection, table: EventTable) -> None:
    """Make this month and the next three."""
    create_months(connection, table, list(connection.scalars(_NEXT)))


def create_months(connection: Connection, table: EventTable, months: Sequence[str]) -> None:
    """Make the months whose first instants are given, but those that are there.

    The session's time zone must be UTC.
    """
    values = {
        "months": list(months),
        "name": table.name,
        "beside": table.beside,
        "ids": table.original_ids,
        "instant": table.instant,
    }
    for statement in connection.scalars(_STATEMENTS, values).all():
        connection.exec_driver_sql(statement)
