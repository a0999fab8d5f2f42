"""The error seam: what SQLAlchemy, the driver and the system raise, as an error of ours.

An error of PostgreSQL quotes data: in DETAIL ("Failing row contains …"), in CONTEXT, for some
SQLSTATEs in the message itself; the driver quotes arguments. So only what may be told is copied,
and a copy without the rest takes the place of the driver's error in the chain. An exception that a
column type of the host raises stays the host's: of it, the arguments are replaced.
"""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asyncpg.exceptions import (
    ClientConfigurationError,
    InterfaceError,
    InternalClientError,
    InvalidCachedStatementError,
    PostgresError,
)
from sqlalchemy.exc import (
    DBAPIError,
    EmulatedDBAPIException,
    IntegrityError,
    SQLAlchemyError,
    StatementError,
)

from agentobs import errors
from agentobs.sessions.advice import advice, connection_advice
from agentobs.sessions.both_errors import as_both

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.engine import ExceptionContext

# The classes whose messages name tables, constraints, roles and settings, and quote no value.
_TRUSTED_CLASSES = frozenset(
    {"08", "0A", "23", "25", "26", "28", "2B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58"}
)
# What revisions and their triggers raise in words of their own.
_OUR_STATES = frozenset({"AO001", "AO002", "AO003", "AO004"})
# Of an untrusted class, but never with a value: too long a text, a division by zero.
_TRUSTED_STATES = _OUR_STATES | {"22001", "22012"}
_FOREIGN_KEY = "23503"
_PARENT_KEY = "agent_transformation_events_parent_event_id_fkey"
# And what the triggers raise that keep the link to a parent, in the words of a foreign key.
_OUR_WORDS = re.compile(
    '(insert or )?update on table "agent_transformation_events" violates foreign key constraint '
    f'"{_PARENT_KEY}"'
)
_ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Their detail, as long as it holds ids and nothing else.
_MISSING_PARENTS = re.compile(f"Missing in agent_transformation_events: ({_ID}(?:, {_ID})*)")
# A partition, and its primary key, which is called after it.
_PARTITION = re.compile(
    "(agent_transformation_events|router_performance_metrics)_(?:y[0-9]+m[0-9]{2}|default)(_pkey)?"
)
# Where PL/pgSQL's RAISE is at home: it takes any SQLSTATE, and any words.
_RAISE = "exec_stmt_raise"
# Of these the names may have been values (`CAST(:name AS regclass)`): they are told where the text
# of the statement has them, too.
_NAMING_CLASSES = frozenset({"3F", "42"})
_NAME = re.compile(r"\"([^\"]*)\"")
_SYNTAX_ERROR = "42601"
_ARGUMENT = re.compile(r"invalid input for query argument \$\d+")
_DEPENDENT_OBJECTS = "2BP01"
_SSL_REFUSED = "rejected SSL upgrade"
_TOLD_FIELDS = (
    "query",
    "position",
    "sqlstate",
    "severity",
    "schema_name",
    "table_name",
    "column_name",
    "data_type_name",
    "constraint_name",
)
_KINDS_BY_STATE = {
    "08P01": errors.DatabaseError,
    "25006": errors.ReadOnlyError,
    "3F000": errors.SchemaMismatchError,
    "42703": errors.SchemaMismatchError,
    "42P01": errors.SchemaMismatchError,
    "55P03": errors.ConflictError,
    "57014": errors.StatementTimeoutError,
}
_KINDS_BY_CLASS = {
    "08": errors.ConnectionFailedError,
    "22": errors.InvalidDataError,
    "23": errors.ConstraintError,
    "28": errors.ConnectionFailedError,
    "40": errors.ConflictError,
}
# What the driver raises where nothing translates it: for COPY, and for rows that are streamed.
_DRIVER = (PostgresError, InterfaceError, InternalClientError)
# COPY passes on what the encoder of a type raises, too.
_ENCODING = (TypeError, ValueError, ArithmeticError)
_KINDS_BY_TYPE: tuple[tuple[type[BaseException], type[errors.DatabaseError]], ...] = (
    (InvalidCachedStatementError, errors.SchemaMismatchError),
    (TimeoutError, errors.StatementTimeoutError),
    (OSError, errors.ConnectionFailedError),
    *((type_, errors.InvalidDataError) for type_ in _ENCODING),
)


@dataclass(frozen=True)
class Facts:
    """What may be told of an error; `reason` is the server's message, or words in its place."""

    reason: str
    sqlstate: str | None = None
    table: str | None = None
    column: str | None = None
    constraint: str | None = None
    missing: tuple[UUID, ...] = ()
    is_stale_plan: bool = False
    is_tls_refused: bool = False
    is_certificate_refused: bool = False


def facts_of(error: BaseException) -> Facts:
    """Read what may be told of an error of SQLAlchemy, its driver or the operating system."""
    driver = driver_error(error)
    return Facts(
        reason=_reason(driver),
        sqlstate=getattr(driver, "sqlstate", None),
        table=_of_the_whole(getattr(driver, "table_name", None)),
        column=getattr(driver, "column_name", None),
        constraint=_of_the_whole(getattr(driver, "constraint_name", None)),
        missing=_missing_parents(driver),
        is_stale_plan=isinstance(driver, InvalidCachedStatementError),
        is_tls_refused=isinstance(driver, ConnectionError) and _SSL_REFUSED in str(driver),
        is_certificate_refused=isinstance(driver, ssl.SSLCertVerificationError),
    )


def _of_the_whole(name: str | None) -> str | None:
    """Return the name of a table, or its key, where the server names that of a partition."""
    part = name and _PARTITION.fullmatch(name)
    return part[1] + (part[2] or "") if part else name


def _missing_parents(driver: BaseException) -> tuple[UUID, ...]:
    facts = getattr(driver, "sqlstate", None), getattr(driver, "constraint_name", None)
    if facts != (_FOREIGN_KEY, _PARENT_KEY):
        return ()
    found = _MISSING_PARENTS.fullmatch(getattr(driver, "detail", None) or "")
    return tuple(map(UUID, found[1].split(", "))) if found else ()


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's own error, which SQLAlchemy keeps below one or two of its own."""
    while isinstance(error, SQLAlchemyError | EmulatedDBAPIException):
        below = getattr(error, "orig", None) or error.__cause__
        if below is None:
            return error
        error = below
    return error


def statement_failed(error: Exception, *, lost: bool = False) -> errors.DatabaseError:
    """Make the error of ours for one of a statement, whose connection is `lost` or goes on."""
    facts = facts_of(error)
    if lost and facts.sqlstate is None:
        # The driver tells in which state of its own it met the end.
        facts = replace(facts, reason="the connection ended")
    kind = errors.ConnectionFailedError if lost else _kind_of(driver_error(error), facts.sqlstate)
    return _make(kind, f"{facts.reason}: {advice(kind, facts)}", facts)


def connection_failed(error: Exception, place: str) -> errors.DatabaseError:
    """Make the error of ours for a connection to `place` that could not be opened."""
    facts = facts_of(error)
    message = f"can't connect to {place}: {facts.reason}: {connection_advice(facts)}"
    return _make(errors.ConnectionFailedError, message, facts)


@contextmanager
def driver_errors_explained() -> Iterator[None]:
    """Explain what the driver raises where it is asked directly, as for COPY."""
    try:
        yield
    except errors.AgentobsError:
        raise
    except (*_DRIVER, OSError, *_ENCODING) as error:
        # Of a connection that ends while a COPY begins, the driver tells its own state at times.
        lost = isinstance(error, InternalClientError)
        explained = _as_of_sqlalchemy(statement_failed(error, lost=lost), error)
        copy = without_data(error)
        # Who follows the context instead of the cause finds the original.
        remove_data(error)
        raise explained from copy


def explain_error(context: ExceptionContext) -> BaseException | None:
    """Handle SQLAlchemy's event `handle_error`: return the error to raise; None leaves it."""
    error = context.original_exception
    theirs = context.sqlalchemy_exception
    # A ping that fails is the pool's business: it opens another connection.
    if context.is_pre_ping or not isinstance(error, Exception):
        return None
    if isinstance(error, errors.AgentobsError) and not isinstance(error, errors.InvalidValueError):
        # Another connection was to be opened, and could not.
        ours: errors.AgentobsError = error
    elif theirs is None and isinstance(error, _DRIVER):
        explained = _as_of_sqlalchemy(statement_failed(error), error, context.statement)
        remove_data(error)
        return explained
    elif theirs is None and isinstance(error, UnicodeEncodeError):
        # A parameter of that kind is refused as such.
        return errors.InvalidValueError(
            None, "in the text of the statement can't be sent: it holds lone surrogates"
        )
    elif isinstance(theirs, DBAPIError) or isinstance(error, OSError):
        # SQLAlchemy gives up the connection of a statement that took too long, to be safe.
        lost = context.is_disconnect and not isinstance(error, TimeoutError)
        ours = statement_failed(error, lost=lost)
    elif isinstance(theirs, StatementError) and not isinstance(error, SQLAlchemyError):
        ours = _unbindable(error)
    else:
        return None
    remove_data(error)
    return ours if theirs is None else as_both(ours, theirs, lost=context.is_disconnect)


def remove_data(error: Exception) -> None:
    """Take the data out of an error that SQLAlchemy will show as the cause of ours."""
    if isinstance(error, OSError | errors.AgentobsError):
        return
    if isinstance(error, EmulatedDBAPIException):
        copy = without_data(driver_error(error))
        error.orig = copy if isinstance(copy, Exception) else None
        error.__cause__ = copy
        if hasattr(error, "detail"):
            error.detail = None
    reason = _reason(driver_error(error))
    if isinstance(error, _DRIVER):
        _keep_what_is_told(error, error.__dict__)
    error.args = (reason,)
    error.__context__ = None


def without_data(error: BaseException) -> BaseException:
    """Copy a driver's error: its class and what may be told, without detail, context and values."""
    if isinstance(error, OSError):
        return error
    copy = type(error).__new__(type(error))
    copy.args = (_reason(error),)
    _keep_what_is_told(copy, error.__dict__)
    return copy


def _keep_what_is_told(error: BaseException, facts: Mapping[str, Any]) -> None:
    told = {name: facts[name] for name in _TOLD_FIELDS if name in facts}
    error.__dict__.clear()
    # Some of the driver's errors look for these when they are printed.
    error.__dict__.update(told, detail=None, hint=None)


def _as_of_sqlalchemy(
    ours: errors.DatabaseError, error: Exception, statement: str | None = None
) -> errors.DatabaseError:
    """Make of an error that SQLAlchemy did not translate what it would have made of it."""
    kind = IntegrityError if isinstance(ours, errors.ConstraintError) else DBAPIError
    return as_both(ours, kind(statement, None, without_data(error)))


def _make(kind: type[errors.DatabaseError], message: str, facts: Facts) -> errors.DatabaseError:
    error = kind(
        message,
        sqlstate=facts.sqlstate,
        table=facts.table,
        column=facts.column,
        constraint=facts.constraint,
    )
    if isinstance(error, errors.ConstraintError):
        error.missing = facts.missing
    return error


def _kind_of(driver: BaseException, sqlstate: str | None) -> type[errors.DatabaseError]:
    if _is_refused_argument(driver):
        return errors.InvalidDataError
    for type_, kind in _KINDS_BY_TYPE:
        if isinstance(driver, type_):
            return kind
    by_class = _KINDS_BY_CLASS.get((sqlstate or "")[:2], errors.DatabaseError)
    return _KINDS_BY_STATE.get(sqlstate or "", by_class)


def _unbindable(error: Exception) -> errors.InvalidValueError:
    """Make the error for a value that was refused before the driver saw it."""
    if isinstance(error, errors.InvalidValueError):
        return errors.InvalidValueError(error.column, error.rule)
    return errors.InvalidValueError(
        None, f"can't be sent to the database ({type(error).__name__}): look at its type"
    )


def _reason(driver: BaseException) -> str:
    """Return the words of an error, as far as they quote no value."""
    sqlstate = getattr(driver, "sqlstate", None)
    if sqlstate is not None:
        return _server_words(driver, sqlstate)
    text = _first_line(driver)
    if _is_refused_argument(driver):
        found = _ARGUMENT.match(text)
        return found[0] if found else "invalid input for a query argument"
    if isinstance(driver, TimeoutError):
        return text or "no answer in time"
    return text if _is_known(driver) else type(driver).__name__


def _server_words(driver: BaseException, sqlstate: str) -> str:
    text = _first_line(driver)
    if found := _ARGUMENT.match(text):
        # Of some types the driver refuses arguments by the server's class of errors.
        return found[0]
    if sqlstate == _SYNTAX_ERROR:
        position = getattr(driver, "position", None)
        return f"syntax error at character {position}" if position else "syntax error"
    if sqlstate == _DEPENDENT_OBJECTS and (detail := getattr(driver, "detail", None)):
        # This detail holds names of objects, never of rows.
        return f"{text} ({' '.join(str(detail).split())})"
    is_told = _is_trusted(driver, sqlstate, text) and _names_are_told(driver, sqlstate, text)
    return text if is_told else _condition(driver)


def _is_trusted(driver: BaseException, sqlstate: str, text: str) -> bool:
    if getattr(driver, "server_source_function", None) == _RAISE:
        return sqlstate in _OUR_STATES or _OUR_WORDS.fullmatch(text) is not None
    return sqlstate[:2] in _TRUSTED_CLASSES or sqlstate in _TRUSTED_STATES


def _names_are_told(driver: BaseException, sqlstate: str, text: str) -> bool:
    # The driver keeps the statement, in which arguments are only numbered.
    statement = getattr(driver, "query", None)
    if sqlstate[:2] not in _NAMING_CLASSES or statement is None:
        return True
    return all(part in statement for name in _NAME.findall(text) for part in str(name).split("."))


def _first_line(driver: BaseException) -> str:
    # The text of asyncpg's errors has the detail in it; the first argument has not.
    text = driver if isinstance(driver, OSError) or not driver.args else driver.args[0]
    return str(text).partition("\n")[0].rstrip(".")


def _is_refused_argument(driver: BaseException) -> bool:
    """Tell whether the driver refused to send an argument, which its message quotes."""
    # asyncpg calls this error DataError, and hides it behind the server's error of that name.
    return isinstance(driver, InterfaceError) and (
        isinstance(driver, ValueError) and not isinstance(driver, ClientConfigurationError)
    )


def _is_known(driver: BaseException) -> bool:
    """Tell whether the words are the driver's or the system's own, which quote no value."""
    return isinstance(driver, InterfaceError | InternalClientError | OSError | SQLAlchemyError)


def _condition(driver: BaseException) -> str:
    """Return the name of the condition in words: InvalidTextRepresentationError has four."""
    words = re.findall(r"[A-Z][a-z]+|[A-Z]+(?![a-z])", type(driver).__name__)
    return " ".join(word.lower() for word in words if word != "Error") or "database error"
