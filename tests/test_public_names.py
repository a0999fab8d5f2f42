from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import agentobs


def homes_that_type_checkers_see() -> dict[str, str]:
    """Return the module that each name is imported from under TYPE_CHECKING."""
    tree = ast.parse(Path(agentobs.__file__).read_text(encoding="utf-8"))
    guard = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.asname or alias.name: str(node.module)
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_public_names_are_sorted_and_named_once() -> None:
    assert agentobs.__all__ == sorted(set(agentobs.__all__))


def test_names_lazy_homes_and_type_checkers_imports_are_the_same() -> None:
    assert homes_that_type_checkers_see() == agentobs._HOMES
    assert sorted(agentobs._HOMES) == agentobs.__all__


@pytest.mark.parametrize("name", agentobs.__all__)
def test_a_public_name_is_the_object_of_its_home(name: str) -> None:
    home = import_module(agentobs._HOMES[name])

    assert getattr(agentobs, name) is getattr(home, name)
    assert name in getattr(home, "__all__", [name])


def test_dir_shows_every_public_name() -> None:
    assert set(agentobs.__all__) <= set(dir(agentobs))
    assert "__doc__" in dir(agentobs)


def test_a_star_import_brings_exactly_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from agentobs import *", names)  # noqa: S102 (no other way inside a function)

    assert sorted(names.keys() - {"__builtins__"}) == agentobs.__all__


def test_an_unknown_name_is_an_attribute_error_that_quotes_it() -> None:
    with pytest.raises(
        AttributeError, match="module 'agentobs' has no attribute 'AgentDefinitoin'"
    ):
        _ = agentobs.AgentDefinitoin
    assert not hasattr(agentobs, "_unknown")
