"""Where in a workflow the code runs: kept in a context variable, carried as a string.

The string begins with a traceparent of W3C Trace Context, whose trace id is the correlation id. Its
parent id has 64 bits, too few for the key of an event: so the string goes on, behind a semicolon,
where there is more to tell. `context.partition(";")[0]` is a traceparent for other tools, and
a traceparent of theirs is taken as well.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote
from uuid import UUID

from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NO_VERSION = "ff"
_SPAN_BITS = 64
_SPAN_MASK = (1 << _SPAN_BITS) - 1
_AGENT_LENGTH = 255
# Longer ones are none of ours: an agent of 255 characters, percent-encoded, has 3,060 at most.
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The workflow, and the event within it, that what is recorded next belongs to."""

    correlation_id: UUID
    parent_event_id: UUID | None = None
    session_id: UUID | None = None
    agent: str | None = None

    def __str__(self) -> str:
        parts = [self.traceparent]
        if self.parent_event_id is not None:
            parts.append(f"parent={self.parent_event_id.hex}")
        if self.session_id is not None:
            parts.append(f"session={self.session_id.hex}")
        if self.agent is not None:
            parts.append(f"agent={quote(self.agent, safe='', errors='replace')}")
        return ";".join(parts)

    @property
    def traceparent(self) -> str:
        """The traceparent: of the parent's key the last 64 bits, which are its random ones."""
        span = (self.parent_event_id or self.correlation_id).int & _SPAN_MASK
        return f"00-{self.correlation_id.hex}-{span or 1:016x}-01"


class Scope:
    """A block of code with a place in a workflow, within another one."""

    __slots__ = ("context", "is_left", "outer", "token")

    def __init__(self, context: TraceContext, outer: Scope | None) -> None:
        self.context = context
        self.outer = outer
        self.is_left = False
        self.token: Token[Scope | None] | None = None


_CURRENT: ContextVar[Scope | None] = ContextVar("agentobs_scope", default=None)


def current_context() -> TraceContext | None:
    """Return where in a workflow the code runs; None outside of any."""
    scope = _current_scope()
    return None if scope is None else scope.context


def enter(context: TraceContext) -> Scope:
    """Begin a block; whoever is called or started from within it, belongs to it."""
    scope = Scope(context, _current_scope())
    scope.token = _CURRENT.set(scope)
    return scope


def leave(scope: Scope) -> None:
    """End a block.

    One that is left in another context than it was entered in, as that of a generator may be, stays
    set where it was entered, and counts no more. Tasks that were started within a block stay in it.
    """
    token, scope.token = scope.token, None
    if token is None:
        return
    try:
        _CURRENT.reset(token)
    except ValueError:
        scope.is_left = True


def _current_scope() -> Scope | None:
    scope = _CURRENT.get()
    while scope is not None and scope.is_left:
        scope = scope.outer
    return scope


def parse_trace_context(text: object) -> TraceContext:
    """Read what `str(TraceContext)` wrote, or a traceparent; raise InvalidValueError."""
    is_short = isinstance(text, str) and len(text) <= _LONGEST
    traceparent, *parts = str(text).strip().split(";") if is_short else [""]
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or found[1] == _NO_VERSION or not int(found[2], 16) or not int(found[3], 16):
        raise InvalidValueError("context", "is no traceparent, nor what recorder.context() gave")
    facts = dict(part.partition("=")[::2] for part in parts)
    return TraceContext(
        UUID(found[2]),
        parent_event_id=_key(facts, "parent"),
        session_id=_key(facts, "session"),
        agent=_agent(facts),
    )


def _key(facts: Mapping[str, str], name: str) -> UUID | None:
    if name not in facts:
        return None
    try:
        return UUID(facts[name])
    except ValueError:
        raise InvalidValueError("context", f"has a {name} that is no UUID") from None


def _agent(facts: Mapping[str, str]) -> str | None:
    return unquote(facts["agent"])[:_AGENT_LENGTH] if "agent" in facts else None
