"""What Alembic's autogenerate compares, and how it names and writes a revision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agentobs.migrations.comparison import expected_catalog
from agentobs.models import metadata
from agentobs.models.types import AwareTimestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import MigrationScript
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy.schema import SchemaItem


def is_ours(name: str | None, type_: str, parent_names: object) -> bool:
    """Admit our tables only: the host's would be proposed for dropping, and so would partitions."""
    del parent_names
    return type_ != "table" or name in metadata.tables


def is_of_a_revision(
    object_: SchemaItem, name: str | None, type_: str, reflected: bool, compare_to: object
) -> bool:
    """Leave out what a host added to our tables: what no revision makes, and no model has."""
    if not reflected or compare_to is not None or type_ == "table":
        return True
    # All but tables have one: columns, indexes, constraints.
    table = expected_catalog("head").tables.get(object_.table.name)  # type: ignore[attr-defined]
    if table is None or name is None:
        return True
    return name in table.columns or name in table.indexes or name in table.constraints


def render_type(type_: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Write our column type as what it is in the database: revisions import no agentobs."""
    del context
    if type_ == "type" and isinstance(item, AwareTimestamp):
        return f"sa.{item.impl_instance!r}"
    return False


def name_revision(
    context: MigrationContext, revision: Iterable[str], directives: list[MigrationScript]
) -> None:
    """Give a new revision the next number; make none where the models show no change."""
    del revision
    environment = context.environment_context
    if environment is None:
        return
    script = directives[0]
    options = environment.config.cmd_opts
    if getattr(options, "rev_id", None) is None:
        names = [found.revision for found in environment.script.walk_revisions()]
        script.rev_id = f"{max((int(name) for name in names if name.isdigit()), default=0) + 1:04}"
    # `alembic check` comes here too, and wants its script whether it is empty or not.
    asked_for = getattr(options, "autogenerate", False)
    if asked_for and script.upgrade_ops is not None and script.upgrade_ops.is_empty():
        directives.clear()
