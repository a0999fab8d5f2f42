"""Answers are frozen, and become tables of other libraries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import ValidationError

from agentobs.analytics import Result, Table
from agentobs.analytics.results import table_of
from agentobs.errors import ConfigurationError


class Part(Result):
    name: str
    share: float | None


class Answer(Result):
    key: UUID
    at: datetime
    took: timedelta
    count: int
    is_right: bool | None
    side: Literal["left", "right"] | None
    names: tuple[str, ...]
    parts: Table[Part]


ANSWER = Answer(
    key=UUID(int=1),
    at=datetime(2026, 3, 1, tzinfo=UTC),
    took=timedelta(seconds=2),
    count=3,
    is_right=None,
    side="left",
    names=("a", "b"),
    parts=table_of(Part, [Part(name="p", share=0.5)]),
)
TOLD = {
    "key": str(UUID(int=1)),
    "at": ANSWER.at,
    "took": ANSWER.took,
    "count": 3,
    "is_right": None,
    "side": "left",
    "names": ["a", "b"],
    "parts": [{"name": "p", "share": 0.5}],
}


def test_an_answer_can_not_be_changed() -> None:
    table = table_of(Answer, [ANSWER])

    assert (len(table), table[0], list(table)) == (1, ANSWER, [ANSWER])
    with pytest.raises(ValidationError):
        ANSWER.count = 4  # type: ignore[misc]
    with pytest.raises(ValidationError):
        table.root = ()  # type: ignore[misc]


def test_a_table_is_a_table_of_arrow() -> None:
    pytest.importorskip("pyarrow")
    assert table_of(Answer, [ANSWER, ANSWER]).to("arrow").to_pylist() == [TOLD, TOLD]
    assert ANSWER.to("arrow").to_pylist() == [TOLD]


def test_a_table_without_rows_has_its_columns_and_their_types() -> None:
    full, empty = table_of(Answer, [ANSWER]).to("arrow"), table_of(Answer, []).to("arrow")

    assert empty.schema == full.schema
    assert str(empty.schema.field("parts").type).startswith("list<")
    assert str(empty.schema.field("is_right").type) == "bool"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_is_one_of_the_libraries_at_hand(library: Any) -> None:
    module = import_module(library)
    frame = table_of(Answer, [ANSWER, ANSWER]).to(library)

    assert isinstance(frame, module.DataFrame)
    assert frame.shape == (2, 8)
    assert list(frame["count"]) == [3, 3]


def test_a_library_that_is_none_or_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ConfigurationError, match="pip install pandas"):
        ANSWER.to("pandas")
    with pytest.raises(ConfigurationError, match="arrow, pandas, polars"):
        ANSWER.to("excel")  # type: ignore[arg-type]
