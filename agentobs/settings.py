"""What the environment says: the AGENTOBS_* variables, read once into an immutable object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

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


SchemaName = Annotated[str, NoDecode, AfterValidator(_require_identifier)]


class DatabaseSettings(BaseSettings):
    """Where the database is; an unset field is never passed on.

    URLs are secrets, because they hold a password: `repr` and logs show neither of them.
    """

    model_config = SettingsConfigDict(
        env_prefix="AGENTOBS_",
        env_ignore_empty=True,
        extra="ignore",
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

    @property
    def url_for_migrations(self) -> SecretStr | None:
        """Return the direct URL where one is set, else the services' URL."""
        return self.migration_url if self.migration_url is not None else self.database_url


def read_settings() -> DatabaseSettings:
    """Read the environment; raise ConfigurationError that names the variable, not its value."""
    try:
        return DatabaseSettings()
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        name = str(fault["loc"][0]).upper()
        setting = name if name.startswith("AGENTOBS_") else f"AGENTOBS_{name}"
        raise ConfigurationError(f"{setting}: {fault['msg']}", setting=setting) from None
