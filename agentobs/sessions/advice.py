"""What one can do about an error of the database: the part of a message that names the fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agentobs import errors

if TYPE_CHECKING:
    from agentobs.sessions.failures import Facts

_BY_CONSTRAINT = {
    "agent_definitions_name_version_unique": (
        "this version of the agent is stored already: update its row, or raise agent_version"
    ),
    "agent_transformation_events_agent_definition_id_fkey": (
        "write the agent's definition first, and delete it after its events"
    ),
    "agent_transformation_events_parent_event_id_fkey": (
        "write the parent event first, in this transaction or an earlier one"
    ),
}
# The CHECK of a month's partition.
_OF_ANOTHER_MONTH = re.compile(r".*_y\d{4,}m\d\d_(started|measured)_at_check")
_MAKE_THEM_TOGETHER = (
    "the id and the instant are of different months: make the id of the instant, by "
    "agentobs.keys.uuid7_at() or agentobs_uuid7_at() in SQL, or leave it out together with it"
)
_POOLER = "is a transaction pooler in between? Then set AGENTOBS_POOLER=transaction"
_BY_STATE = {
    "08P01": _POOLER,
    "22008": "an instant is outside what its type, or a time-ordered key (from 1970 on), can hold",
    "22P05": "remove U+0000, which PostgreSQL does not store",
    "23502": "give the column a value",
    "23503": "write the row that it names first, and delete that one last",
    "23505": "the row is there already: update it, or insert with ON CONFLICT",
    "23514": "the column takes other values: see docs/schema.md",
    "25P02": "a statement of this transaction failed before: roll back, then begin anew",
    "26000": _POOLER,
    "AO004": "give the transaction the isolation level READ COMMITTED",
    "P0001": "a function or trigger raised it, in words that are left out: they may hold data",
    "42501": "grant the role that right, or connect as another one",
    "42601": "look at the statement",
    "42P05": _POOLER,
    "53100": "the server's disk is full: make room there",
    "53200": "the server has no memory left: lower its load or work_mem",
}
_BY_KIND: dict[type[errors.DatabaseError], str] = {
    errors.ConflictError: "another transaction was in the way: run this one again",
    errors.ConnectionFailedError: (
        "what the transaction did is lost with the connection, unless it was committing: the pool "
        "opens another one, so run it again"
    ),
    errors.InvalidDataError: "look at the values of the statement, and at the types that it wants",
    errors.ReadOnlyError: (
        "a read session and a replica take no writes: use db.session() on the primary"
    ),
    errors.SchemaMismatchError: (
        "if it is one of agentobs, run `agentobs db upgrade`, or name the schema of the tables in "
        "AGENTOBS_SCHEMA"
    ),
    errors.StatementTimeoutError: (
        "it took longer than AGENTOBS_COMMAND_TIMEOUT or statement_timeout allows, or somebody "
        "cancelled it: narrow it, or raise the limit"
    ),
}
_STALE_PLAN = "the schema changed within the transaction: run it again from its beginning"
_OTHERWISE = "look at the statement; nothing of its transaction is kept"

_CONNECTION = {
    "08P01": f"it does not take an option of the connection; or {_POOLER}",
    "28000": "is this user allowed to connect from here (pg_hba.conf)?",
    "28P01": "are user and password right?",
    "3D000": "make the database (CREATE DATABASE), or name another one",
    "42501": "grant the role CONNECT on the database",
    "53300": "the server is full: end idle connections, lower AGENTOBS_POOL_SIZE, "
    "or raise max_connections",
    "57P03": "the server is starting or stopping: try again in a moment",
}
_UNREACHABLE = "is the server up, and are host and port right?"
_NO_TLS = "the server takes no TLS: set it up there, or lower sslmode where the network is trusted"
_CERTIFICATE = "is sslrootcert the server's CA, does its certificate name this host, is it valid?"


def advice(kind: type[errors.DatabaseError], facts: Facts) -> str:
    """Return the fix for an error of a statement."""
    if facts.is_stale_plan:
        return _STALE_PLAN
    if _OF_ANOTHER_MONTH.fullmatch(str(facts.constraint)):
        return _MAKE_THEM_TOGETHER
    by_constraint = _BY_CONSTRAINT.get(str(facts.constraint))
    return by_constraint or _BY_STATE.get(str(facts.sqlstate)) or _BY_KIND.get(kind, _OTHERWISE)


def connection_advice(facts: Facts) -> str:
    """Return the fix for a connection that could not be opened."""
    if facts.is_tls_refused:
        return _NO_TLS
    if facts.is_certificate_refused:
        return _CERTIFICATE
    return _CONNECTION.get(str(facts.sqlstate), _UNREACHABLE)
