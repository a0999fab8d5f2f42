from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support.docs_console import (
    Console,
    DocumentationError,
    Step,
    parse,
    require_output,
    require_targets,
)
from support.docs_pages import READ, RUN, Page, all_pages
from support.docs_places import Places, page_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path
    from subprocess import CompletedProcess

    from sqlalchemy import URL

PAGES = all_pages()

# Every block of the documentation that is not run, with the reason that the page gives.
NOT_RUN = {
    ("README.md", "installs from a package registry"),
    ("docs/coming-from-the-pool.md", "the code that is replaced"),
    ("docs/embedded.md", "installs from a package registry"),
    ("docs/testing.md", "fetches from a package registry"),
    ("docs/testing.md", "installs from a package registry"),
}

# Most of a page's time is the start of its commands.
_AT_ONCE = 2


@pytest.fixture(scope="module")
def runs(
    agentobs_server: URL,
    agentobs_template: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[Page, Future[CompletedProcess[str]]]]:
    """The pages that were selected, each run in its own place, some at once."""
    places = Places(agentobs_server, agentobs_template)
    called = (getattr(item, "callspec", None) for item in request.session.items)
    selected = {spec.params["page"] for spec in called if spec and "page" in spec.params}
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        yield {
            page: pool.submit(places.run, page, tmp_path_factory.mktemp("page"))
            for page in PAGES
            if page in selected and page.runs_on
        }


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.is_run], ids=lambda page: page.name
)
def test_every_block_of_the_page_does_what_the_page_says(
    page: Page, runs: dict[Page, Future[CompletedProcess[str]]]
) -> None:
    assert page.runs_on is not None, f"{page.name} begins with no <!-- runs on: … -->"
    done = runs[page].result()
    assert done.returncode == 0, done.stdout


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
