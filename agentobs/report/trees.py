"""Workflows as rows of a tree that opens and closes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentobs.analytics import Link

if TYPE_CHECKING:
    from uuid import UUID

    from agentobs.analytics import Trace, TraceNode

MOST_RUNS = 200
"""So many runs of a workflow are shown."""

# Deeper runs stand beside each other: browsers bound how deep elements nest.
_MOST_LEVELS = 30


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A run, and what its row opens or closes of the lists around it.

    `opens` says that the rows that follow are below it, `closes` how many lists end after it.
    """

    node: TraceNode
    opens: bool
    closes: int
    is_critical: bool

    @property
    def is_open(self) -> bool:
        """Whether it is shown with what is below it: the beginning, and the way to a failure."""
        return self.node.depth == 0 or self.node.failed_below > 0

    @property
    def odd_link(self) -> str | None:
        """What is unusual about the run's parent."""
        return None if self.node.link in {Link.ROOT, Link.CHILD} else self.node.link.value


def tree(trace: Trace) -> tuple[TreeRow, ...]:
    """Return the rows of a workflow, depth first: those on the way to a failure before others."""
    nodes = _shown(trace)
    critical = frozenset(trace.critical_path)
    levels = [min(node.depth, _MOST_LEVELS) for node in nodes]
    after = [*levels[1:], 0][: len(levels)]
    return tuple(
        TreeRow(node, follows > level, max(level - follows, 0), node.id in critical)
        for node, level, follows in zip(nodes, levels, after, strict=True)
    )


def _shown(trace: Trace) -> list[TraceNode]:
    """Return the runs that have room, each with all that are above it, in the order of the tree."""
    # What is above a failed run leads to a failure, too, and stands before it.
    ranked = sorted(
        enumerate(trace.nodes), key=lambda each: (not _leads_to_failure(each[1]), each[0])
    )
    kept: set[UUID] = {node.id for _, node in ranked[:MOST_RUNS]}
    return [node for node in trace.nodes if node.id in kept]


def _leads_to_failure(node: TraceNode) -> bool:
    return node.success is False or node.failed_below > 0
