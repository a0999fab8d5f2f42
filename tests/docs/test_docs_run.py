from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docs_console import Console, DocumentationError, Step, parse, require_output, require_targets
from docs_pages import READ, RUN, Page, RunsOn, all_pages
from docs_runner import Runner, copy_repository, page_environment

from agentobs import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentobs.settings import DatabaseSettings

PAGES = all_pages()

# Every block of the documentation that is not run, with the reason that the page gives.
NOT_RUN: set[tuple[str, str]] = set()


@pytest.fixture
def data_directory() -> Iterator[Path]:
    # Where the tests run as root the server is another user, whom pytest's own folders keep out.
    folder = Path(tempfile.mkdtemp(prefix="agentobs-docs-"))
    folder.chmod(0o755)
    yield folder / "data"
    embedded.stop_server(folder / "data")
    shutil.rmtree(folder)


def url_of(settings: DatabaseSettings) -> str:
    assert settings.database_url is not None
    return settings.database_url.get_secret_value()


@pytest.fixture
def page_settings(page: Page, request: pytest.FixtureRequest) -> dict[str, str]:
    """What the page finds in its environment, by the comment at its top."""
    if page.runs_on is RunsOn.EMBEDDED:
        return {"AGENTOBS_DATA_DIR": str(request.getfixturevalue("data_directory"))}
    if page.runs_on is RunsOn.FOLDER:
        server = request.getfixturevalue("agentobs_server").set(drivername="postgresql")
        return {"AGENTOBS_TEST_DATABASE_URL": server.render_as_string(hide_password=False)}
    at_head = page.runs_on is RunsOn.HEAD
    fixture = "agentobs_database" if at_head else "agentobs_empty_database"
    return {"AGENTOBS_DATABASE_URL": url_of(request.getfixturevalue(fixture))}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.runnable_blocks], ids=lambda page: page.name
)
def test_every_block_of_the_page_does_what_the_page_says(
    page: Page,
    page_settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert page.runs_on is not None, f"{page.name} begins with no <!-- runs on: … -->"
    if page.runs_on is not RunsOn.FOLDER:
        copy_repository(tmp_path)
    for name in ("AGENTOBS_MIGRATION_URL", "AGENTOBS_SCHEMA", "AGENTOBS_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in page_settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with asyncio.Runner() as loop:
        Runner(page, Console(tmp_path, page_environment(tmp_path, page_settings)), loop).run()


def test_no_block_is_left_out_without_a_reason_that_is_listed_here() -> None:
    assert {
        (page.name, block.not_run)
        for page in PAGES
        for block in page.blocks
        if block.not_run is not None
    } == NOT_RUN


def test_every_block_is_of_a_language_that_is_run_or_only_read() -> None:
    assert {
        (page.name, block.line, block.language)
        for page in PAGES
        for block in page.blocks
        if block.language not in RUN | READ
    } == set()


def test_every_fence_of_a_page_belongs_to_a_block() -> None:
    for page in PAGES:
        assert page.text.count("```") == 2 * len(page.blocks), page.name


def test_expected_lines_are_found_in_order_between_others() -> None:
    step = Step("show", ["first …", "", "third  0.1 s"])
    require_output(step, "first line\nsecond\nthird    0.1 s\n")


@pytest.mark.parametrize("output", ["third\nfirst\n", "first\n", "first of all\nthird\n", ""])
def test_an_expected_line_that_is_missing_or_out_of_order_is_an_error(output: str) -> None:
    with pytest.raises(DocumentationError, match="the output lacks"):
        require_output(Step("show", ["first", "third"]), output)


def test_a_command_goes_on_after_a_backslash_and_a_prompt() -> None:
    assert list(parse("$ one \\\n  two\nshown\n$ cat <<E\n> a\n> E\n")) == [
        Step("one \\\n  two", ["shown"]),
        Step("cat <<E\na\nE"),
    ]


@pytest.mark.parametrize("text", ["$ false\n", "$ exit 3\n$ true\n", "$ false | cat\n"])
def test_a_command_that_fails_is_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(DocumentationError, match="exit code"):
        Console(tmp_path, page_environment(tmp_path, {})).run(text)


def test_a_command_may_fail_where_the_page_asks_for_its_exit_code(tmp_path: Path) -> None:
    console = Console(tmp_path, page_environment(tmp_path, {}))
    console.run("$ exit 3\n$ echo $?\n3\n")
    with pytest.raises(DocumentationError, match="the output lacks: 4"):
        console.run("$ exit 3\n$ echo $?\n4\n")


def test_an_exported_variable_is_seen_by_the_commands_that_follow(tmp_path: Path) -> None:
    console = Console(tmp_path, page_environment(tmp_path, {"AGENTOBS_DATABASE_URL": "mine"}))
    console.run("$ export AGENTOBS_SCHEMA='of mine'\n$ echo $AGENTOBS_SCHEMA\nof mine\n")
    console.run("$ export AGENTOBS_DATABASE_URL=shown\n$ echo $AGENTOBS_DATABASE_URL\nmine\n")


def test_a_make_command_needs_its_target_in_the_makefile() -> None:
    require_targets("make PYTHON=python3.13 demo  # a comment")
    with pytest.raises(DocumentationError, match="no target nonsense"):
        require_targets("make nonsense")
