"""Keep the indexes that earn their price.

Reason: each index is paid for by every row. What the order of the keys serves as well (newest
first, a window of time) needs none; what nothing asks for goes; a composite with the key, a BRIN
index or an operator class that suits the question takes the place of a dearer one. Which question
each index answers, and what it costs, is in docs/indexes.md. Those that went from the event tables
were not built anew by revision 0005, so as not to be built for nothing. A page of
router_performance_metrics keeps a tenth of its room, so that the outcome, which comes later,
touches no index.
Cost on a big table: a SHARE lock on all three tables keeps writers out while the event tables are
read, once for each index that is built; readers wait only while the old indexes go.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

DEFINITIONS = "agent_definitions"
EVENTS, METRICS = "agent_transformation_events", "router_performance_metrics"

OLD = {DEFINITIONS: ["name", "type", "domain", "active", "yaml_config", "metadata"]}
NEW = {
    DEFINITIONS: ["yaml_paths"],
    EVENTS: ["target_newest", "started_at_brin", "context_paths"],
    METRICS: ["agent_newest", "measured_at_brin", "feedback_newest"],
}


def upgrade() -> None:
    # To make an index stops writers, and to drop one readers, too.
    _take_locks(
        f"LOCK TABLE {DEFINITIONS} IN ACCESS EXCLUSIVE MODE;",
        f"LOCK TABLE {EVENTS}, {METRICS} IN SHARE MODE;",
    )
    _drop(OLD)
    _create_new()
    _set_on_each_partition(METRICS, "SET (fillfactor = 90)")


def downgrade() -> None:
    _take_locks(f"LOCK TABLE {DEFINITIONS}, {EVENTS}, {METRICS} IN ACCESS EXCLUSIVE MODE;")
    _drop(NEW)
    _create_old()
    _set_on_each_partition(METRICS, "RESET (fillfactor)")


def _take_locks(*locks: str) -> None:
    # Whoever waits for a lock stalls all behind it.
    text = Path(__file__).with_name("take_locks.sql").read_text(encoding="utf-8")
    tables = f"{DEFINITIONS}, {EVENTS}, {METRICS}"
    op.execute(text.replace("{tables}", tables).replace("{locks}", "\n".join(locks)))
    # What is locked beyond these.
    op.execute("SET LOCAL lock_timeout = '5s'")


def _drop(indexes: dict[str, list[str]]) -> None:
    for table, names in indexes.items():
        for name in names:
            op.drop_index(op.f(f"idx_{table}_{name}"), table)


def _create(table: str, name: str, columns: list[str | sa.TextClause], **options: object) -> None:
    prefixed = {f"postgresql_{option}": value for option, value in options.items()}
    op.create_index(op.f(f"idx_{table}_{name}"), table, columns, **prefixed)


def _create_new() -> None:
    paths = "jsonb_path_ops"
    brin = {"using": "brin", "with": {"pages_per_range": 32, "autosummarize": "on"}}
    _create(DEFINITIONS, "yaml_paths", ["yaml_config"], using="gin", ops={"yaml_config": paths})
    _create(EVENTS, "target_newest", ["target_agent", "id"])
    _create(EVENTS, "started_at_brin", ["started_at"], **brin)
    _create(
        EVENTS,
        "context_paths",
        ["context_snapshot"],
        using="gin",
        ops={"context_snapshot": paths},
    )
    _create(METRICS, "agent_newest", ["selected_agent", "id"])
    _create(METRICS, "measured_at_brin", ["measured_at"], **brin)
    _create(METRICS, "feedback_newest", ["feedback_type", "id"], where=sa.text("feedback_provided"))


def _create_old() -> None:
    _create(DEFINITIONS, "name", ["agent_name"])
    _create(DEFINITIONS, "type", ["agent_type"])
    _create(DEFINITIONS, "domain", ["domain"])
    _create(DEFINITIONS, "active", ["is_active"], where=sa.text("is_active = TRUE"))
    _create(DEFINITIONS, "yaml_config", ["yaml_config"], using="gin")
    _create(DEFINITIONS, "metadata", ["parsed_metadata"], using="gin")


def _set_on_each_partition(table: str, change: str) -> None:
    # The partitioned table itself has no pages.
    op.execute(f"""
        DO $$
        DECLARE
            part regclass;
        BEGIN
            FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = '{table}'::regclass
            LOOP
                EXECUTE format('ALTER TABLE %s {change}', part);
            END LOOP;
        END
        $$
    """)
