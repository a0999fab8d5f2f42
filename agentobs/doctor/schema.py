"""The schema: the revision that is recorded, and what differs from what the revisions make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from agentobs.doctor.findings import Finding, Severity
from agentobs.maintenance.ddl import literal_of
from agentobs.maintenance.statements import statement_with
from agentobs.migrations import VERSION_TABLE, revisions
from agentobs.migrations.catalog import NEWEST_MADE
from agentobs.migrations.comparison import compare, expected_catalog, read_catalog
from agentobs.migrations.online.tables import STATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentobs.doctor.context import Context
    from agentobs.migrations import RevisionInfo
    from agentobs.migrations.comparison import Comparison, Difference

_UPGRADE = "agentobs db upgrade"
# The revision that rewrites the event tables.
_PARTITIONED = "0005"
# Names in a path are quoted as anywhere else.
_SET_SEARCH_PATH = text("SELECT set_config('search_path', :path, :local)")
_EXISTS = text("SELECT to_regclass(:table) IS NOT NULL")


def lacks_tables(context: Context) -> bool:
    """Tell whether the tables are not those of head: not made yet, or of a revision before it."""
    if context.recorded is None:
        return False
    known = [each.revision for each in revisions()]
    recorded = context.recorded
    return not recorded or (max(recorded) in known and max(recorded) != known[0])


async def check_revision(context: Context) -> list[Finding]:
    """Find a database that is not at the revision of this package, whichever is behind."""
    known, recorded = list(revisions()), context.recorded
    if recorded is None:
        # Who may not read the table is told so.
        table = context.schema.qualified(VERSION_TABLE)
        await context.rows(statement_with("SELECT FROM {table}", table=table))
        return []
    if len(recorded) > 1:
        return [_several(context, recorded, known)]
    if recorded == (known[0].revision,):
        return []
    if recorded and recorded[0] not in {each.revision for each in known}:
        return [_ahead(recorded[0], known[0])]
    return await _older(context, recorded, known)


async def _older(
    context: Context, recorded: tuple[str, ...], known: list[RevisionInfo]
) -> list[Finding]:
    # A run that was told not to run, or tables that came by a dump: less may be recorded.
    if not (await _compare(context)).faults:
        return [_stale(recorded, known[0])]
    if not recorded:
        return [await _unrecorded(context, known[0])]
    return await _half_done(context) or [_behind(recorded[0], known)]


async def _unrecorded(context: Context, head: RevisionInfo) -> Finding:
    tables = [each.name for each in context.relations if each.name == each.root]
    if tables:
        made = (await context.rows(NEWEST_MADE, schema=context.schema.quoted))[0][0]
        words = f"no revision is recorded, though {', '.join(tables)} exist"
        if made is None:
            return _finding(Severity.CRITICAL, words, "agentobs db adopt --repair --apply")
        words = f"{words}, as revision {made} makes them"
        return _finding(Severity.CRITICAL, words, f"agentobs db stamp {made}")
    words = f"schema {context.schema.name} has no tables yet; this package is at {head.revision}"
    return _finding(Severity.CRITICAL, words, _UPGRADE)


def _several(context: Context, recorded: tuple[str, ...], known: list[RevisionInfo]) -> Finding:
    names = [each.revision for each in known]
    # The newest one that is known, as `known` is newest first.
    kept = next((name for name in names if name in recorded), recorded[0])
    table = context.schema.qualified(VERSION_TABLE)
    return _finding(
        Severity.CRITICAL,
        f"{VERSION_TABLE} has {len(recorded)} rows, and there is one line of revisions: "
        f"{', '.join(sorted(recorded))}",
        f"DELETE FROM {table} WHERE version_num <> {literal_of(kept)};",  # noqa: S608
    )


def _behind(recorded: str, known: list[RevisionInfo]) -> Finding:
    newer = [each for each in known if each.revision > recorded]
    missing = "; ".join(f"{each.revision} {each.description}" for each in reversed(newer))
    words = (
        f"the database is at {recorded}, behind this package, which is at {known[0].revision}. "
        f"It lacks {missing}"
    )
    if recorded < _PARTITIONED:
        words = f"{words}. Where services can't wait for it: `{_UPGRADE} --online`"
    return _finding(Severity.CRITICAL, words, _UPGRADE)


async def _half_done(context: Context) -> list[Finding]:
    """Find an online upgrade that was broken off: no other upgrade runs until it ends."""
    state = context.schema.qualified(STATE)
    if not (await context.rows(_EXISTS, table=state))[0][0]:
        return []
    words = (
        "an online upgrade is not finished: its triggers note every change, and its copies take "
        "room. If none is at work, go on with it, or take it back with "
        "`agentobs db upgrade --online --undo`"
    )
    return [_finding(Severity.CRITICAL, words, f"{_UPGRADE} --online")]


def _stale(recorded: tuple[str, ...], head: RevisionInfo) -> Finding:
    words = (
        f"{', '.join(recorded) or 'no revision'} is recorded, and the tables are those of "
        f"{head.revision}: migrations would fail"
    )
    return _finding(Severity.CRITICAL, words, f"agentobs db stamp {head.revision}")


def _ahead(recorded: str, head: RevisionInfo) -> Finding:
    return _finding(
        Severity.WARNING,
        f"the database is at {recorded}, ahead of this package, which is at {head.revision}: "
        "services go on, and migrations refuse it",
        "pip install --upgrade agentobs-orm",
    )


def _finding(severity: Severity, words: str, fix: str) -> Finding:
    return Finding(check="revision", severity=severity, subject=VERSION_TABLE, words=words, fix=fix)


async def check_drift(context: Context) -> list[Finding]:
    """Find columns, constraints, indexes, triggers and functions that revisions make otherwise."""
    comparison = await _compare(context)
    faults = [each for each in comparison.faults if not _is_told(each)]
    comments = [each for each in comparison.differences if each.kind == "comment"]
    return [
        *(_drift(context, each) for each in faults),
        *([_comments(context, comments)] if comments else []),
    ]


async def _compare(context: Context) -> Comparison:
    async with context.connection.begin():
        path = {"path": context.schema.quoted, "local": context.is_pooled}
        await context.connection.execute(_SET_SEARCH_PATH, path)
        found = await context.connection.run_sync(read_catalog)
    return compare(expected_catalog("head"), found)


def _is_told(difference: Difference) -> bool:
    """Tell whether another check finds it: an index that is not valid is one to build again."""
    return difference.kind == "index" and "not valid" in difference.words


def _drift(context: Context, difference: Difference) -> Finding:
    caution = "" if difference.is_safe else ". Look at the rows before you mend it"
    if any(" ON ONLY " in statement for statement in difference.statements):
        # Made at once in all partitions, it would keep writers waiting.
        caution = ". Ask again after this fix: the one for its partitions follows"
    if difference.breach:
        caution = f"{caution}. Rows that don't allow it are found by {difference.breach}"
    return Finding(
        check="drift",
        severity=_severity_of(difference),
        subject=difference.subject,
        words=f"{difference}{caution}",
        fix=_pasted(context, difference.statements),
    )


def _comments(context: Context, differences: Sequence[Difference]) -> Finding:
    """Make one finding of all: they go together, where a dump came without them."""
    statements = [each for difference in differences for each in difference.statements]
    return Finding(
        check="drift",
        severity=Severity.NOTICE,
        subject="comments",
        words=f"{len(differences)} comments are missing, on which nothing rests",
        fix=_pasted(context, statements),
    )


def _severity_of(difference: Difference) -> Severity:
    is_missing = difference.kind in {"table", "column"} and "is missing" in difference.words
    return Severity.CRITICAL if is_missing else Severity.WARNING


def _pasted(context: Context, statements: Sequence[str]) -> str | None:
    if not statements:
        return None
    # They name no schema, so that they fit any.
    path = [f"SET search_path TO {context.schema.quoted}"] if context.settings.schema_name else []
    return "\n".join(f"{statement};" for statement in (*path, *statements))
