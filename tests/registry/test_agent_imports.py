from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import agentobs.registry


def test_every_public_name_is_found_where_it_is_said_to_be() -> None:
    homes = agentobs.registry._HOMES

    assert sorted(homes) == sorted(agentobs.registry.__all__)
    for name, home in homes.items():
        assert getattr(agentobs.registry, name) is getattr(import_module(home), name)
        assert name in dir(agentobs.registry)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"agentobs\.registry.*nothing"):
        _ = agentobs.registry.nothing


def test_agents_are_matched_without_the_extra_that_reads_files() -> None:
    code = (
        "import sys; sys.modules['yaml'] = None; "
        "from agentobs.registry import find_agents_by_capabilities, trigger_collisions"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert (result.returncode, result.stderr) == (0, b"")
