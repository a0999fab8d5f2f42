"""Every error that the package raises on its own account.

::

    AgentobsError
    ├── ConfigurationError          a setting is missing or wrong
    │   └── MissingExtraError       an optional extra is not installed
    ├── InvalidValueError           a value does not fit its column (also a ValueError)
    ├── DatabaseError               the database refused a statement, or could not be asked
    │   ├── ConnectionFailedError   the server can't be reached, or ended the connection
    │   ├── PoolTimeoutError        every connection of the pool was in use for too long
    │   ├── StatementTimeoutError   a statement took too long, or was cancelled
    │   ├── ConstraintError         a row breaks a constraint
    │   ├── InvalidDataError        a value is none of its type
    │   ├── ReadOnlyError           a write, where only reads are allowed
    │   ├── ConflictError           another transaction was in the way: run yours again
    │   └── SchemaMismatchError     tables or columns are missing, or have changed meanwhile
    ├── DatabaseNotRunningError     the Database was not started, or was stopped
    ├── EventLoopError              the Database belongs to another event loop or process
    ├── CreateAllRefusedError       metadata.create_all() was called
    ├── MigrationError              a migration run was refused or failed
    │   ├── TablesExistError        the tables are there, but no revision is recorded
    │   ├── AdoptionRefusedError    tables that scripts made are not those of revision 0003
    │   ├── UnknownRevisionError    the database is newer than this package
    │   ├── PoolerRefusedError      the connection goes through a transaction pooler
    │   ├── MigrationLockError      another migration kept the lock too long
    │   └── SchemaDriftError        the database differs from the models
    ├── ArchiveError                an archive of old rows can't be written or read
    │   ├── ArchiveDamagedError     it is not what was written
    │   ├── ArchiveFormatError      a newer version of the package wrote it
    │   └── ArchiveMismatchError    it does not fit the table
    ├── MaintenanceError            maintenance of the partitions was refused or failed
    │   └── MaintenanceBlockedError others kept locks that it needs, for too long
    ├── RecorderError               the recorder can't do what was asked
    │   ├── RecorderClosedError     it was closed, and takes nothing any more
    │   └── BarrierTimeoutError     what was accepted is not safe yet, though a barrier waited
    ├── SpoolError                  a file that holds records for later can't be written or read
    ├── EmbeddedServerError         the embedded PostgreSQL did not start, stop or answer
    └── DefinitionError             an agent definition file can't be read

Each carries its facts as attributes; the message names the fix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from uuid import UUID


class AgentobsError(Exception):
    """The root of the tree."""

    def __reduce__(self) -> tuple[Callable[..., AgentobsError], tuple[Any, ...]]:
        # By default an exception is unpickled by calling its class with the message alone, which
        # fails in the process that waits for it.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(
    kind: type[AgentobsError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> AgentobsError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ConfigurationError(AgentobsError):
    """A setting is missing or wrong; `setting` is its name in the environment."""

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class MissingExtraError(ConfigurationError):
    """A part of the package needs the optional extra named `extra`."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the extra [{extra}]: install it with "
            f"pip install 'agentobs-orm[{extra}]'"
        )
        self.extra = extra


class InvalidValueError(AgentobsError, ValueError):
    """A value does not fit `column` (as `table.column`); `rule` says what would.

    The column is None where a statement binds a value by itself.
    """

    def __init__(self, column: str | None, rule: str) -> None:
        Exception.__init__(self, f"{'a value' if column is None else column} {rule}")
        self.column = column
        self.rule = rule


class DatabaseError(AgentobsError):
    """The database refused a statement, or could not be asked.

    `sqlstate`, `table`, `column` and `constraint` are the server's, each None where it gave none.
    Errors of statements are also the error that SQLAlchemy would have raised, so that a host's
    `except IntegrityError` works on. Values never stand in the message.
    """

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str | None = None,
        table: str | None = None,
        column: str | None = None,
        constraint: str | None = None,
    ) -> None:
        # Not super(): beside this class may stand one of SQLAlchemy's, which wants the statement.
        Exception.__init__(self, message)
        self.sqlstate = sqlstate
        self.table = table
        self.column = column
        self.constraint = constraint


class ConnectionFailedError(DatabaseError, ConnectionError):
    """The server can't be reached, does not let us in, or ended the connection."""


class PoolTimeoutError(DatabaseError, TimeoutError):
    """Every connection of the pool was in use for longer than a task waits for one."""


class StatementTimeoutError(DatabaseError, TimeoutError):
    """A statement took longer than it may, or somebody cancelled it."""


class ConstraintError(DatabaseError):
    """A row breaks the constraint named `constraint`, or NOT NULL of `column`.

    `missing` are the parents that are not there, where a link to a parent was refused: up to 100.
    """

    missing: tuple[UUID, ...] = ()


class InvalidDataError(DatabaseError):
    """A value is none of the type that the statement wants."""


class ReadOnlyError(DatabaseError):
    """A write was tried in a read session, or on a server that takes none."""


class ConflictError(DatabaseError):
    """Another transaction was in the way (deadlock, serialization, lock): run yours again."""


class SchemaMismatchError(DatabaseError):
    """Tables or columns that the statement names are missing, or changed under it."""


class DatabaseNotRunningError(AgentobsError):
    """The Database was not started yet, or was stopped."""


class EventLoopError(AgentobsError):
    """The Database belongs to another event loop or another process."""


class CreateAllRefusedError(AgentobsError):
    """`create_all()` can't make functions, triggers and partitions: run the migrations."""


class MigrationError(AgentobsError):
    """A migration run was refused or failed; `revision` is where the database is now."""

    def __init__(self, message: str, *, revision: str | None = None) -> None:
        super().__init__(message)
        self.revision = revision


class TablesExistError(MigrationError):
    """Tables of the package exist in the schema, but no revision is recorded."""


class AdoptionRefusedError(MigrationError):
    """Tables that scripts made are not those of revision 0003; `differences` are what is wrong."""

    def __init__(self, differences: Sequence[object], *, can_repair: bool) -> None:
        way = "run it again with repair (--repair), or mend" if can_repair else "mend"
        super().__init__(
            f"the tables are not those of revision 0003 ({len(differences)}): "
            + "; ".join(map(str, differences))
            + f". Nothing was changed: {way} them by hand, as `agentobs db adopt` shows"
        )
        self.differences = tuple(differences)


class UnknownRevisionError(MigrationError):
    """The database is at a revision that this package does not know."""


class PoolerRefusedError(MigrationError):
    """The connection goes through a transaction pooler, where a session lock means nothing."""


class MigrationLockError(MigrationError):
    """Another migration run kept the lock for longer than the bound; `holders` are its backends."""

    def __init__(self, message: str, *, holders: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.holders = tuple(holders)


class SchemaDriftError(MigrationError):
    """The database differs from the models; `differences` are Alembic's descriptions of each."""

    def __init__(self, differences: Sequence[object]) -> None:
        super().__init__(
            f"the database differs from the models ({len(differences)}): "
            + "; ".join(map(str, differences))
        )
        self.differences = tuple(differences)


class ArchiveError(AgentobsError):
    """The archive at `path`, a file or a URL, can't be written or read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class ArchiveDamagedError(ArchiveError):
    """An archive is not what was written: `damage` says how that shows."""

    def __init__(self, path: str, damage: str) -> None:
        super().__init__(path, f"the archive is damaged: {damage}; take a copy of it instead")
        self.damage = damage


class ArchiveFormatError(ArchiveError):
    """A newer version of the package wrote the archive, in the format numbered `found`."""

    def __init__(self, path: str, found: object, known: int) -> None:
        super().__init__(
            path,
            f"the archive has format {found}, and this version reads up to {known}: "
            "upgrade agentobs-orm",
        )
        self.found = found
        self.known = known


class ArchiveMismatchError(ArchiveError):
    """An archive does not fit the table into which it shall go."""


class MaintenanceError(AgentobsError):
    """Maintenance of the partitions was refused or failed; what it had finished stays."""


class MaintenanceBlockedError(MaintenanceError):
    """Others kept locks that maintenance needs; `blockers` describes each of their backends."""

    def __init__(self, message: str, *, blockers: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.blockers = tuple(blockers)


class RecorderError(AgentobsError):
    """The recorder can't do what was asked; what it had accepted stays accepted."""


class RecorderClosedError(RecorderError):
    """The recorder was closed: make another one, or start it again."""


class BarrierTimeoutError(RecorderError, TimeoutError):
    """A barrier waited in vain for `pending` records to be safe; they are still on their way."""

    def __init__(self, message: str, *, pending: int) -> None:
        Exception.__init__(self, message)
        self.pending = pending


class SpoolError(AgentobsError):
    """The file or folder at `path`, which holds records for later, can't be written or read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class EmbeddedServerError(AgentobsError):
    """The embedded PostgreSQL did not start, stop or answer; `log_file` holds its words."""

    def __init__(self, message: str, *, log_file: Path | None = None) -> None:
        super().__init__(message)
        self.log_file = log_file


class DefinitionError(AgentobsError):
    """The agent definition at `path` can't be read; `line` counts from 1 where it is known."""

    def __init__(self, path: Path, reason: str, *, line: int | None = None) -> None:
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason
