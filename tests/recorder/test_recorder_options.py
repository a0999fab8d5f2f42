from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from agentobs import Recorder, RecorderSettings, RoutingDecision, Transformation
from agentobs.errors import ConfigurationError
from agentobs.recorder.fields import RoutingDecisionFields, TransformationFields
from agentobs.recorder.options import RecorderOptions

if TYPE_CHECKING:
    from pydantic import BaseModel

# Of a run that begins they are not known.
RESULTS = {
    "completed_at",
    "error_message",
    "error_type",
    "initialization_duration_ms",
    "quality_score",
    "success",
    "total_execution_duration_ms",
    "transformation_duration_ms",
}


@pytest.mark.parametrize(
    ("arguments", "model", "left_out"),
    [
        (RecorderOptions, RecorderSettings, set()),
        (RoutingDecisionFields, RoutingDecision, set()),
        (TransformationFields, Transformation, RESULTS),
    ],
)
def test_type_checkers_know_the_arguments_that_are_taken(
    arguments: type, model: type[BaseModel], left_out: set[str]
) -> None:
    assert set(arguments.__annotations__) == model.model_fields.keys() - left_out


def test_an_option_that_is_misspelled_is_named_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match="no option delivry: did you mean delivery"):
        Recorder(**cast("Any", {"delivry": "spool"}))


def test_a_database_that_is_no_settings_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"Recorder\(DatabaseSettings\(database_url=…\)\)"):
        Recorder(cast("Any", "postgresql://localhost/agents"))


@pytest.mark.parametrize("name", ["url", "dsn", "database_url", "schema_name"])
def test_an_option_that_is_of_the_database_is_told_where_it_belongs(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Recorder\(DatabaseSettings\(database_url=…\)\)"):
        Recorder(**cast("Any", {name: "postgresql://localhost/agents"}))


def test_an_option_that_does_not_fit_is_named_by_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="AGENTOBS_RECORDER_FLUSH_ROWS"):
        Recorder(flush_rows=0)


def test_a_recorder_has_no_public_name_but_those_that_services_call() -> None:
    names = {name for name in dir(Recorder) if not name.startswith("_")}

    assert names == {
        "abarrier",
        "aclose",
        "attach",
        "barrier",
        "close",
        "close_on_signals",
        "context",
        "feedback",
        "is_replaying",
        "outcome",
        "record",
        "routing_decision",
        "start",
        "statistics",
        "transformation",
    }
