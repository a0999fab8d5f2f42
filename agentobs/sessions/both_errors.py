"""Errors that are ours and SQLAlchemy's at once, so that a host's `except` clauses work on."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.exc import SQLAlchemyError

    from agentobs.errors import AgentobsError

E = TypeVar("E", bound="AgentobsError")

_COPIED = ("statement", "orig", "ismulti")
_OF_SQLALCHEMY = frozenset(
    {*_COPIED, "params", "detail", "hide_parameters", "connection_invalidated"}
)


def as_both(ours: E, theirs: SQLAlchemyError, *, lost: bool = False) -> E:
    """Return `ours` as an error that is of the class of `theirs`, too.

    It has the attributes of both, and no parameters; in another process it arrives as ours alone.
    """
    kind = _class_of_both(type(ours), type(theirs))  # type: ignore[arg-type]
    error: E = _new(kind, ours.args, ours.__dict__)
    error.__dict__.update({name: getattr(theirs, name, None) for name in _COPIED})
    error.__dict__.update(params=None, detail=[], hide_parameters=True, connection_invalidated=lost)
    return error


@cache
def _class_of_both(ours: type[Any], theirs: type[Any]) -> type[Any]:
    """Make the class, once for each pair that the seam meets."""

    def reduce(error: Any) -> str | tuple[Any, ...]:
        facts = {k: v for k, v in error.__dict__.items() if k not in _OF_SQLALCHEMY}
        return _new(ours, error.args, facts).__reduce__()  # type: ignore[no-any-return]

    namespace = {
        "__doc__": ours.__doc__,
        "__module__": ours.__module__,
        "__reduce__": reduce,
        "__str__": Exception.__str__,
    }
    return type(ours.__name__, (ours, theirs), namespace)


def _new(kind: Any, args: tuple[Any, ...], attributes: Mapping[str, Any]) -> Any:
    # Two constructors that know nothing of each other: neither is called.
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
