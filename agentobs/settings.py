"""What the environment says: the AGENTOBS_* variables, read once into an immutable object."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from agentobs.errors import ConfigurationError

_POSTGRESQL_IDENTIFIER_BYTES = 63


def _require_identifier(name: str) -> str:
    if not name or "\x00" in name or len(name.encode()) > _POSTGRESQL_IDENTIFIER_BYTES:
        raise ValueError("a schema name is 1 to 63 bytes long and holds no NUL")
    if name.startswith("pg_") or name == "information_schema":
        raise ValueError("this schema is PostgreSQL's own: name another one")
    if name == "$user":
        raise ValueError("$user stands for another name in a search path: write that name")
    return name


def _refuse_url(part: str) -> str:
    if "://" in part:
        raise ValueError("this is a URL, and may hold a password: give it as AGENTOBS_DATABASE_URL")
    return part


# Parts of an address are shown, other than a URL.
AddressPart = Annotated[str, AfterValidator(_refuse_url)]
SchemaName = Annotated[str, NoDecode, AfterValidator(_require_identifier)]

# Asked for each new physical connection, so that a token may expire meanwhile.
PasswordSource = Callable[[], str | Awaitable[str]]
Password = Annotated[SecretStr | PasswordSource, NoDecode]
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
TargetSession = Literal["any", "primary", "standby", "prefer-standby", "read-write", "read-only"]

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# asyncpg's own word for "no limit" is None, which an environment can't say: it is 0 here.
Limit = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# What names the place where it is no URL.
PLACE_PARTS = ("host", "port", "user", "database")


class DatabaseSettings(BaseSettings):
    """Where the database is and how services use it; an unset field is never passed on.

    The address is `database_url`, or its parts from `host` on: not both. Durations are seconds.
    URLs are secrets, because they hold a password: `repr` and logs show none of them.
    """

    model_config = SettingsConfigDict(
        env_prefix="AGENTOBS_",
        env_ignore_empty=True,
        # A misspelled argument would be replaced by what the environment says.
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    database_url: SecretStr | None = Field(
        default=None,
        description="The database of services and commands: postgresql://user:password@host/name",
    )
    migration_url: SecretStr | None = Field(
        default=None,
        description="The direct URL for migrations, where AGENTOBS_DATABASE_URL is a pooler's",
    )
    read_url: SecretStr | None = Field(
        default=None, description="The replica of read sessions; unset: the database itself"
    )
    host: AddressPart | None = Field(
        default=None,
        description="Instead of a URL: the server, a socket's folder, or several, by commas",
    )
    port: int | None = Field(default=None, ge=1, le=65535, description="The port; unset: 5432")
    user: AddressPart | None = Field(default=None, description="The role; unset: the system's user")
    password: Password | None = Field(
        default=None,
        # A callable may show what it holds, and is nothing that JSON knows.
        repr=False,
        exclude=True,
        description="The password, also of a URL without one; in Python also a callable",
    )
    database: AddressPart | None = Field(
        default=None, description="The database; unset: the role's name"
    )
    sslmode: SslMode | None = Field(default=None, description="As libpq's sslmode; unset: prefer")
    sslrootcert: Path | None = Field(default=None, description="The file of the server's CA")
    sslcert: Path | None = Field(default=None, description="The file of the client's certificate")
    sslkey: Path | None = Field(default=None, description="The file of the client's private key")
    target_session_attrs: TargetSession | None = Field(
        default=None, description="Which one of several hosts to use; unset: any"
    )
    pooler: Literal["transaction"] | None = Field(
        default=None, description="`transaction` where the address is a PgBouncer in that mode"
    )
    application_name: str | None = Field(
        default=None, description="The name in pg_stat_activity; unset: agentobs"
    )
    pool_size: int = Field(default=20, ge=1, description="The most connections of a process")
    pool_min_size: int = Field(default=5, ge=0, description="How many connections stay open")
    pool_timeout: Seconds = Field(
        default=60.0, description="How long to wait for a free connection"
    )
    pool_idle_lifetime: Seconds = Field(
        default=300.0, description="How long a connection may be idle before it is closed"
    )
    pool_max_queries: int = Field(
        default=50_000, ge=1, description="After how many statements a connection is replaced"
    )
    pool_ping_after: Limit = Field(
        default=30.0, description="After which idle time a connection is tested before use"
    )
    read_pool_size: int = Field(
        default=5, ge=1, description="The most connections for read sessions, opened when used"
    )
    connect_timeout: Limit = Field(
        default=60.0, description="How long opening a connection may take; 0: no limit"
    )
    command_timeout: Limit = Field(
        default=60.0, description="How long a statement may take; 0: no limit"
    )
    schema_name: SchemaName | None = Field(
        default=None,
        validation_alias="AGENTOBS_SCHEMA",
        description="The schema of the tables; unset: the connection's own (usually public)",
    )
    migration_lock_wait: float = Field(
        default=600.0,
        ge=0,
        description="How many seconds a migration waits for another one to end",
    )
    data_dir: Path | None = Field(
        default=None,
        description="Where the embedded server keeps its data; unset: the user's data folder",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let an address that the caller gives stand alone, whatever the environment names."""
        del dotenv_settings, file_secret_settings
        given, other = init_settings(), dict[str, None]()
        if given.get("host") is not None:
            other = {"database_url": None}
        elif given.get("database_url") is not None:
            other = dict.fromkeys(PLACE_PARTS)
        return init_settings, InitSettingsSource(settings_cls, other), env_settings

    @property
    def names_database(self) -> bool:
        """Tell whether an address is set, as a URL or in parts."""
        return self.database_url is not None or self.host is not None

    @property
    def names_database_for_migrations(self) -> bool:
        """Tell whether migrations have an address: the direct URL, or that of the services."""
        return self.migration_url is not None or self.names_database


class RecorderSettings(BaseSettings):
    """How a recorder takes records and brings them to the database.

    In Python the fields are arguments of `Recorder`. Durations are seconds, sizes are bytes.
    """

    model_config = SettingsConfigDict(
        env_prefix="AGENTOBS_RECORDER_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    delivery: Literal["drop", "block", "spool"] = Field(
        default="drop",
        description="What happens when the buffer is full: `drop` and count, `block` the caller, "
        "or `spool`: every record is in a local file before its call returns",
    )
    lenient: bool = Field(
        default=True,
        description="Whether a record that can't be accepted is counted and logged once, instead "
        "of raising where it was made",
    )
    folder: Path | None = Field(
        default=None,
        description="Where spools and dead letters are; unset: agentobs/recorder in the user's "
        "state folder",
    )
    buffer_rows: int = Field(default=20_000, ge=1, description="The most records in the buffer")
    buffer_bytes: int = Field(
        default=64 * 2**20, ge=1, description="The most bytes of records in the buffer"
    )
    flush_rows: int = Field(
        default=2_000, ge=1, le=20_000, description="How many records make a flush, and a batch"
    )
    flush_interval: Seconds = Field(
        default=1.0, description="How long a record may wait before it is written"
    )
    block_timeout: Limit = Field(
        default=0.0, description="How long `block` waits before it drops after all; 0: no limit"
    )
    announce_after: Limit = Field(
        default=10.0, description="After which time a run is written though it has not ended"
    )
    parent_wait: Limit = Field(
        default=30.0, description="How long a row waits for its parent's from another process"
    )
    outcome_wait: Limit = Field(
        default=30.0, description="How long an outcome or feedback waits for its decision's row"
    )
    context_limit: int = Field(
        default=256 * 2**10,
        ge=4096,
        description="The most bytes of a context; of a larger one size, hash and a preview stay",
    )
    close_timeout: Limit = Field(
        default=10.0, description="How long close() and the exit of Python wait for the last rows"
    )
    report_interval: Limit = Field(
        default=60.0, description="How often statistics are logged, where there is news; 0: never"
    )


def read_settings() -> DatabaseSettings:
    """Read the environment; raise ConfigurationError that names the variable, not its value."""
    try:
        return DatabaseSettings()
    except ValidationError as error:
        raise _wrong_setting(error, "AGENTOBS_") from None


def read_recorder_settings(**options: Any) -> RecorderSettings:
    """Read the environment, over which `options` win; raise ConfigurationError as above."""
    try:
        return RecorderSettings(**options)
    except ValidationError as error:
        raise _wrong_setting(error, "AGENTOBS_RECORDER_") from None


def _wrong_setting(error: ValidationError, prefix: str) -> ConfigurationError:
    fault = error.errors(include_input=False, include_url=False)[0]
    name = str(fault["loc"][0]).upper()
    setting = name if name.startswith("AGENTOBS_") else f"{prefix}{name}"
    return ConfigurationError(f"{setting}: {fault['msg']}", setting=setting)
