"""agentobs trace: one workflow as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from agentobs.analytics.trace_tree import Link
from agentobs.analytics.traces import trace
from agentobs.cli.answers import AsCsv, SinceIfAny, show, shown
from agentobs.cli.reading import ask
from agentobs.cli.terminal import AsJson, console, plain

if TYPE_CHECKING:
    from collections.abc import Set

    from agentobs.analytics.trace_results import Trace, TraceNode

# Deeper runs stand no further to the right.
_MOST_LEVELS = 30


def command(
    workflow: Annotated[str, typer.Argument(metavar="ID", help="The workflow's correlation id.")],
    since: SinceIfAny = None,
    *,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show a workflow as a tree: who became whom, how long it took, what failed.

    `agentobs workflows` lists ids; with --since no older month is looked into. A star marks the
    critical path. Exit code 1 where there is no such workflow.
    """
    key = _key(workflow)
    answer = ask(lambda session: trace(session, key, window=since))
    if as_json or as_csv:
        show(answer.nodes if as_csv else answer, (), as_json=as_json, as_csv=as_csv)
    else:
        _print_trace(answer)
    if not answer.nodes and not answer.decisions:
        raise typer.Exit(1)


def _key(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter("give the correlation id of a workflow, a UUID") from None


def _print_trace(answer: Trace) -> None:
    out = console()
    if not answer.nodes and not answer.decisions:
        out.print(plain(f"no workflow {answer.correlation_id}"))
        return
    total = shown("total_ms", answer.total_ms)
    parts = [f"{len(answer.nodes)} runs in {total} ms", f"{len(answer.decisions)} decisions"]
    parts += [f"{answer.failed} failed"] if answer.failed else []
    parts += [f"{answer.running} running"] if answer.running else []
    out.print(plain(", ".join(parts)))
    critical = frozenset(answer.critical_path)
    for node in answer.nodes:
        out.print(plain(_line(node, critical)))
    if answer.is_truncated:
        out.print(plain("there are more: this is the beginning"))


def _line(node: TraceNode, critical: Set[UUID]) -> str:
    mark = "*" if node.id in critical else " "
    indent = "  " * min(node.depth, _MOST_LEVELS)
    total, own = shown("_ms", node.total_ms), shown("_ms", node.self_ms)
    words = [f"{mark} {indent}{node.target_agent}  {total} ms (self {own})", *_remarks(node)]
    return "  ".join(words)


def _remarks(node: TraceNode) -> list[str]:
    state = {True: [], False: [f"failed: {node.error_type or 'no type'}"], None: ["running"]}
    link = [] if node.link in {Link.ROOT, Link.CHILD} else [f"parent: {node.link.value}"]
    return state[node.success] + link
