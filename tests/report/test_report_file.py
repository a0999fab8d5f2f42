"""The file of a report is all of it, or what was there before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentobs.errors import InvalidValueError
from agentobs.report import check_output, write_file


def test_a_file_is_replaced_at_once_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    with path.open(encoding="utf-8") as reader:
        assert write_file(path, "new ü") == 6
        # Who has it open reads on in the old one.
        assert reader.read() == "old"
    assert path.read_text(encoding="utf-8") == "new ü"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_the_rights_that_other_files_of_the_process_have(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "report.html", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o640


def test_a_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="is a folder: name a file in it"):
        write_file(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="lies in a folder that is not there"):
        check_output(tmp_path / "missing" / "report.html")


def test_what_is_no_regular_file_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="is no regular file"):
        write_file(Path(os.devnull), "x")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.html", tmp_path / "link.html"
    link.symlink_to(target)
    write_file(link, "new")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "new"


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "report.html"
    link.symlink_to(link)
    with pytest.raises(InvalidValueError, match="can't be written"):
        check_output(link)


def test_where_it_can_not_be_replaced_the_old_file_stays_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InvalidValueError, match="can't be written: Permission denied"):
        write_file(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
