from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from agentobs import errors

RAISED = [
    errors.ConfigurationError("set it", setting="AGENTOBS_SCHEMA"),
    errors.MissingExtraError("cli", "The command line"),
    errors.InvalidValueError("agent_definitions.domain", "must be a str, got int"),
    errors.InvalidValueError(None, "must be JSON"),
    errors.DatabaseError("refused", sqlstate="42883"),
    errors.ConnectionFailedError("no server", sqlstate="57P03"),
    errors.PoolTimeoutError("all in use"),
    errors.StatementTimeoutError("too slow", sqlstate="57014"),
    errors.ConstraintError("twice", sqlstate="23505", table="t", constraint="t_key"),
    errors.InvalidDataError("no number", sqlstate="22P02"),
    errors.ReadOnlyError("only reads", sqlstate="25006"),
    errors.ConflictError("again", sqlstate="40001"),
    errors.SchemaMismatchError("no table", sqlstate="42P01", table="t"),
    errors.DatabaseNotRunningError("not started"),
    errors.EventLoopError("another loop"),
    errors.RecorderError("can't"),
    errors.RecorderClosedError("closed"),
    errors.BarrierTimeoutError("2 are pending", pending=2),
    errors.CreateAllRefusedError("run the migrations"),
    errors.MigrationError("failed", revision="0001"),
    errors.TablesExistError("they exist"),
    errors.AdoptionRefusedError(["column t.c is missing"], can_repair=True),
    errors.UnknownRevisionError("newer", revision="9999"),
    errors.PoolerRefusedError("a pooler"),
    errors.MigrationLockError("locked", holders=[42]),
    errors.SchemaDriftError([("remove_index", "x")]),
    errors.ArchiveError("y2026m01.parquet", "no space"),
    errors.ArchiveDamagedError("y2026m01.parquet", "one byte differs"),
    errors.ArchiveFormatError("y2026m01.parquet", 2, 1),
    errors.ArchiveMismatchError("y2026m01.parquet", "another table"),
    errors.MaintenanceError("failed"),
    errors.MaintenanceBlockedError("blocked", blockers=["backend 42"]),
    errors.SpoolError(Path("spool"), "no space"),
    errors.EmbeddedServerError("no start", log_file=Path("server.log")),
    errors.DefinitionError(Path("agent.yaml"), "is empty", line=3),
]


def _classes(kind: type[errors.AgentobsError]) -> set[type[errors.AgentobsError]]:
    public = vars(errors).values()
    children = (child for child in kind.__subclasses__() if child in public)
    return {kind}.union(*(_classes(child) for child in children))


def test_the_tree_in_the_docstring_names_every_class() -> None:
    drawn = errors.__doc__ or ""

    assert all(kind.__name__ in drawn for kind in _classes(errors.AgentobsError))
    assert {type(error) for error in RAISED} == _classes(errors.AgentobsError) - {
        errors.AgentobsError
    }


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_crosses_to_another_process_with_its_facts(error: errors.AgentobsError) -> None:
    received = pickle.loads(pickle.dumps(error))

    assert type(received) is type(error)
    assert str(received) == str(error)
    assert vars(received) == vars(error)


def test_a_bad_value_is_a_value_error_too() -> None:
    assert isinstance(RAISED[2], ValueError)
