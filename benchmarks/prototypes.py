"""Prototype tables of two kinds, made by SQL alone: as they were, and partitioned by key.

They do not depend on which revision is head, so that what was decided by them can be measured
again at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.workload import Span

_DEFINITIONS = """
CREATE TABLE {schema}.agent_definitions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    agent_name varchar(255) NOT NULL, agent_version varchar(50) NOT NULL DEFAULT '1.0.0',
    agent_type varchar(100) NOT NULL, yaml_config jsonb NOT NULL, parsed_metadata jsonb,
    capabilities text[] DEFAULT '{{}}', domain varchar(100), triggers text[] DEFAULT '{{}}',
    trigger_patterns text[] DEFAULT '{{}}', avg_execution_time_ms integer,
    success_rate numeric(5,4) CHECK (success_rate >= 0 AND success_rate <= 1),
    quality_score numeric(5,4) CHECK (quality_score >= 0 AND quality_score <= 1),
    is_active boolean NOT NULL DEFAULT true, status varchar(50) NOT NULL DEFAULT 'active',
    registry_path text, definition_hash varchar(64), created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(), last_loaded_at timestamptz,
    UNIQUE (agent_name, agent_version)
)
"""
_EVENTS = """
    id uuid NOT NULL DEFAULT gen_random_uuid(), event_type varchar(100) NOT NULL,
    correlation_id uuid NOT NULL, session_id uuid, source_agent varchar(255),
    target_agent varchar(255) NOT NULL, transformation_reason text, context_snapshot jsonb,
    context_keys text[], context_size_bytes integer, user_request text,
    routing_confidence numeric(5,4), routing_strategy varchar(100),
    transformation_duration_ms integer, initialization_duration_ms integer,
    total_execution_duration_ms integer, success boolean, error_message text,
    error_type varchar(100), quality_score numeric(5,4), agent_definition_id uuid,
    parent_event_id uuid, started_at timestamptz NOT NULL DEFAULT now(), completed_at timestamptz
"""
_EVENT_CHECKS = """,
    CHECK (quality_score IS NULL OR (quality_score >= 0 AND quality_score <= 1)),
    CHECK (routing_confidence >= 0 AND routing_confidence <= 1)
"""
_METRICS = """
    id uuid NOT NULL DEFAULT gen_random_uuid(), metric_type varchar(100) NOT NULL,
    correlation_id uuid, user_request_hash varchar(64), context_hash varchar(64),
    selected_agent varchar(255), selection_strategy varchar(100), confidence_score numeric(5,4),
    alternative_agents jsonb, alternatives_count integer DEFAULT 0, cache_lookup_us integer,
    trigger_matching_us integer, confidence_scoring_us integer, total_routing_time_us integer,
    trigger_confidence numeric(5,4), context_confidence numeric(5,4),
    capability_confidence numeric(5,4), historical_confidence numeric(5,4), cache_hit boolean,
    cache_key varchar(255), cache_age_seconds integer, selection_validated boolean,
    actual_success boolean, actual_quality_score numeric(5,4), prediction_error numeric(5,4),
    feedback_provided boolean DEFAULT false, feedback_type varchar(50), feedback_details jsonb,
    measured_at timestamptz NOT NULL DEFAULT now(), validated_at timestamptz
"""
_METRIC_CHECKS = """,
    CHECK (confidence_score >= 0 AND confidence_score <= 1),
    CHECK ((trigger_confidence IS NULL OR (trigger_confidence >= 0 AND trigger_confidence <= 1))
       AND (context_confidence IS NULL OR (context_confidence >= 0 AND context_confidence <= 1))
       AND (capability_confidence IS NULL
            OR (capability_confidence >= 0 AND capability_confidence <= 1))
       AND (historical_confidence IS NULL
            OR (historical_confidence >= 0 AND historical_confidence <= 1)))
"""
_PARENT_CHECK = """
CREATE FUNCTION {schema}.parents_exist() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, {schema}, pg_temp AS $$
DECLARE missing uuid[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared(8210147);
    SELECT array_agg(outside.parent) INTO missing
    FROM (SELECT parent_event_id AS parent FROM inserted WHERE parent_event_id IS NOT NULL
          EXCEPT SELECT id FROM inserted) AS outside
    WHERE (SELECT true FROM {schema}.agent_transformation_events AS event
           WHERE event.id = outside.parent {lock}) IS NULL;
    IF missing IS NOT NULL THEN
        RAISE foreign_key_violation USING
            MESSAGE = 'parent events are missing',
            DETAIL = array_to_string(missing[1:100], ', '),
            CONSTRAINT = 'agent_transformation_events_parent_event_id_fkey';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER parents_exist AFTER INSERT ON {schema}.agent_transformation_events
REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION {schema}.parents_exist()
"""
PARENT_CHECKS = {"none": "", "plain": "", "locking": "FOR KEY SHARE"}


@dataclass(frozen=True)
class Kind:
    """One of the two tables of many rows."""

    table: str
    instant: str
    columns: str
    checks: str


EVENTS = Kind("agent_transformation_events", "started_at", _EVENTS, _EVENT_CHECKS)
METRICS = Kind("router_performance_metrics", "measured_at", _METRICS, _METRIC_CHECKS)


@dataclass(frozen=True)
class Indexes:
    """Indexes by the name that follows `idx_<table>_`, each as what follows ON <table>."""

    definitions: dict[str, str]

    def statements(self, schema: str, kind: Kind) -> Iterator[str]:
        """Yield the statements that make them."""
        for name, definition in self.definitions.items():
            index = f"idx_{kind.table}_{name}"
            yield f"CREATE INDEX {index} ON {schema}.{kind.table} {definition}"

    def without(self, name: str) -> Indexes:
        """Return the others."""
        return Indexes({key: text for key, text in self.definitions.items() if key != name})

    def plus(self, name: str, definition: str) -> Indexes:
        """Return these and one more, or another form of one of them."""
        return Indexes({**self.definitions, name: definition})


NO_INDEXES = Indexes({})


def definitions_table(schema: str) -> list[str]:
    """Return the statements for the table of definitions, without the indexes that are asked."""
    return [_DEFINITIONS.format(schema=schema)]


def bare(schema: str, kind: Kind) -> list[str]:
    """Return the statements for a table with nothing but columns: the floor of an insert."""
    return [f"CREATE TABLE {schema}.{kind.table} ({kind.columns})"]


def as_it_was(schema: str, kind: Kind, indexes: Indexes) -> list[str]:
    """Return the statements for one unpartitioned table, its parent link a foreign key."""
    keys = ", PRIMARY KEY (id)"
    if kind is EVENTS:
        keys += (
            f", FOREIGN KEY (agent_definition_id) REFERENCES {schema}.agent_definitions"
            f", FOREIGN KEY (parent_event_id) REFERENCES {schema}.{kind.table}"
        )
    table = f"CREATE TABLE {schema}.{kind.table} ({kind.columns}{kind.checks}{keys})"
    return [table, *indexes.statements(schema, kind)]


def partitioned(
    schema: str,
    kind: Kind,
    indexes: Indexes,
    months: Sequence[Span],
    *,
    parent_check: str = "plain",
    storage: str = "",
) -> list[str]:
    """Return the statements for month partitions by key; `storage` is each one's WITH (…)."""
    keys = ", PRIMARY KEY (id)"
    if kind is EVENTS:
        keys += f", FOREIGN KEY (agent_definition_id) REFERENCES {schema}.agent_definitions"
    root = f"{schema}.{kind.table}"
    statements = [
        f"CREATE TABLE {root} ({kind.columns}{kind.checks}{keys}) PARTITION BY RANGE (id)",
        f"CREATE TABLE {root}_default PARTITION OF {root} DEFAULT",
        *(_partition(root, kind, month, storage) for month in months),
        *indexes.statements(schema, kind),
    ]
    if kind is EVENTS and parent_check != "none":
        lock = PARENT_CHECKS[parent_check]
        statements.append(_PARENT_CHECK.format(schema=schema, lock=lock))
    return statements


def _partition(root: str, kind: Kind, month: Span, storage: str) -> str:
    day = timedelta(days=1)
    check = (
        f"CHECK ({kind.instant} >= '{month.begin - day}' AND {kind.instant} < '{month.end + day}')"
    )
    return (
        f"CREATE TABLE {root}_y{month.begin:%Ym%m} PARTITION OF {root} ({check}) "
        f"FOR VALUES FROM ('{lowest_key(month.begin)}') TO ('{lowest_key(month.end)}') {storage}"
    )


def lowest_key(instant: datetime) -> str:
    """Return the lowest UUID of the instant's millisecond, as text."""
    milliseconds = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    digits = f"{milliseconds:012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"
