"""What the planner does with a statement: which leaf it reads, by which index of the table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection

_PARENTS = text(
    """
    SELECT child.relname AS child, parent.relname AS parent FROM pg_inherits
    JOIN pg_class AS child ON child.oid = inhrelid
    JOIN pg_class AS parent ON parent.oid = inhparent
    """
)
# How often each table was read as a whole, and each index.
_SCANS = text(
    """
    SELECT "table".relname AS "table", NULL AS index, pg_stat_get_xact_numscans("table".oid) AS n
    FROM pg_class AS "table" WHERE "table".relkind = 'r'
    UNION ALL
    SELECT "table".relname, index.relname, pg_stat_get_xact_numscans(index.oid)
    FROM pg_index
    JOIN pg_class AS "table" ON "table".oid = indrelid
    JOIN pg_class AS index ON index.oid = indexrelid
    """
)


@dataclass(frozen=True)
class Scan:
    """One leaf that is read; `index` is the table's, whose part the leaf has, None for all rows.

    `leaf` is what follows the table's name, such as y2026m11; nothing for agent_definitions.
    The last three are known of a statement that ran.
    """

    leaf: str
    index: str | None
    ran: bool
    rows: float
    heap_blocks: int


@dataclass(frozen=True)
class Plan:
    """A plan as its scans, in the order of the text of EXPLAIN."""

    scans: list[Scan]
    nodes: list[str]
    subplans_removed: int

    @property
    def leaves(self) -> set[str]:
        """The leaves that are in the plan."""
        return {scan.leaf for scan in self.scans}

    @property
    def pairs(self) -> set[tuple[str, str | None]]:
        """The leaves, each with the index by which it is read."""
        return {(scan.leaf, scan.index) for scan in self.scans}

    @property
    def rows(self) -> float:
        """How many rows the scans found."""
        return sum(scan.rows for scan in self.scans)


async def explain(
    connection: AsyncConnection,
    statement: str,
    parameters: tuple[Any, ...] = (),
    *,
    analyze: bool = False,
) -> Plan:
    """Return the plan of a statement; with `analyze` run it as well."""
    options = "ANALYZE, BUFFERS, FORMAT JSON" if analyze else "FORMAT JSON"
    found = await connection.exec_driver_sql(f"EXPLAIN ({options}) {statement}", parameters)
    document = found.scalar_one()
    plans = json.loads(document) if isinstance(document, str) else document
    parents = await _parents(connection)
    nodes = list(_nodes(plans[0]["Plan"]))
    return Plan(
        [_scan(node, parents) for node in nodes if _reads_rows(node)],
        [node["Node Type"] for node in nodes],
        sum(node.get("Subplans Removed", 0) for node in nodes),
    )


async def sent_by(
    connection: AsyncConnection, work: Callable[[AsyncSession], Awaitable[object]]
) -> tuple[str, tuple[Any, ...]]:
    """Return the one statement that a session sends for `work`, and its parameters."""
    sent: list[tuple[str, tuple[Any, ...]]] = []

    def collect(*arguments: Any) -> None:
        if arguments[2].split()[0] not in {"SAVEPOINT", "RELEASE", "ROLLBACK"}:
            sent.append((arguments[2], tuple(arguments[3])))

    sync = connection.sync_connection
    event.listen(sync, "before_cursor_execute", collect)
    try:
        async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
            await work(session)
    finally:
        event.remove(sync, "before_cursor_execute", collect)
    (statement,) = sent
    return statement


async def scans_of(
    connection: AsyncConnection, work: Callable[[], Awaitable[object]]
) -> set[tuple[str, str | None]]:
    """Return the leaves that are read during `work`, each with the index, as `Plan.pairs` does.

    It knows of what foreign keys do, too, of which EXPLAIN tells nothing.
    """
    before = {tuple(row) for row in await connection.execute(_SCANS)}
    await work()
    after = {tuple(row) for row in await connection.execute(_SCANS)}
    parents = await _parents(connection)
    return {
        (table.removeprefix(parents[table] + "_"), index and parents.get(index, index))
        for table, index, _ in after - before
        if table in parents
    }


async def _parents(connection: AsyncConnection) -> dict[str, str]:
    return {row.child: row.parent for row in await connection.execute(_PARENTS)}


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def _reads_rows(node: dict[str, Any]) -> bool:
    """Tell a scan from what changes rows, and from a Bitmap Index Scan, which names no table."""
    return "Relation Name" in node and node["Node Type"] != "ModifyTable"


def _scan(node: dict[str, Any], parents: dict[str, str]) -> Scan:
    relation = node["Relation Name"]
    used = [each["Index Name"] for each in _nodes(node) if "Index Name" in each]
    # Two indexes on one leaf would be neither.
    index = " and ".join(parents.get(name, name) for name in used) or None
    loops = node.get("Actual Loops", 0)
    return Scan(
        leaf=relation.removeprefix(parents[relation] + "_") if relation in parents else "",
        index=index,
        ran=loops > 0,
        rows=node.get("Actual Rows", 0) * loops,
        heap_blocks=node.get("Exact Heap Blocks", 0) + node.get("Lossy Heap Blocks", 0),
    )
