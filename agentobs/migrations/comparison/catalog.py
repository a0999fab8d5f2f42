"""What a schema holds, in PostgreSQL's own words, and free of the schema's name."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Part):
    """A column; `type` includes a collation of its own, and how it is generated."""

    type: str
    not_null: bool = False
    default: str | None = None
    comment: str | None = None


class Index(_Part):
    """An index that stands for no constraint; `using` is its definition from the method on."""

    using: str
    is_unique: bool = False
    is_valid: bool = True
    comment: str | None = None


class Constraint(_Part):
    """A constraint; `kind` is one of `p`, `u`, `c`, `f` and `x`, as in pg_constraint."""

    kind: str
    definition: str
    is_valid: bool = True


class Trigger(_Part):
    """A trigger; `enabled` is one of `O`, `D`, `R` and `A`, as in pg_trigger."""

    definition: str
    enabled: str = "O"


class Table(_Part):
    """A relation; `kind` is that of pg_class: `r` a table, `p` a partitioned one, `v` a view."""

    kind: str = "r"
    comment: str | None = None
    columns: dict[str, Column] = {}
    constraints: dict[str, Constraint] = {}
    indexes: dict[str, Index] = {}
    triggers: dict[str, Trigger] = {}


class Function(_Part):
    """A function; `source` is empty where its body was parsed when it was made.

    `definition` makes it, with `{schema}` for the schema's name; its form is the server's.
    """

    result: str
    language: str
    source: str
    volatility: str
    is_security_definer: bool = False
    settings: tuple[str, ...] = ()
    definition: str


class Catalog(_Part):
    """Relations by name, and functions by name and argument types; partitions are left out."""

    tables: dict[str, Table]
    functions: dict[str, Function]
