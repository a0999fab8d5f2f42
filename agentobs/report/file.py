"""The file that a report goes to: all of it, or what was there before."""

from __future__ import annotations

from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING

from agentobs.errors import InvalidValueError

if TYPE_CHECKING:
    from pathlib import Path


def check_output(path: Path) -> Path:
    """Return where a report can go, links followed; raise InvalidValueError where it can't."""
    try:
        target = path.resolve()
        if target.is_dir():
            raise _refused(path, "is a folder: name a file in it")
        if target.exists() and not target.is_file():
            raise _refused(path, "is no regular file: name another one")
        if not target.parent.is_dir():
            raise _refused(path, "lies in a folder that is not there: make it first")
    except (OSError, RuntimeError) as error:
        # Links that lead in a circle are a RuntimeError before Python 3.13.
        raise _failed(path, error) from error
    return target


def write_file(path: Path, text: str) -> int:
    """Put a text in the place of what the file holds, at once; return its bytes.

    Raises InvalidValueError where the file can't be written; what was there is left alone.
    """
    target, content = check_output(path), text.encode()
    # In the same folder, for a rename goes to no other file system.
    temporary = target.with_name(f".agentobs-{token_hex(8)}.tmp")
    try:
        # As the process makes its files, and never through a link that lies in wait.
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(target)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return len(content)


def _refused(path: Path, rule: str) -> InvalidValueError:
    return InvalidValueError("output", f"{path} {rule}")


def _failed(path: Path, error: Exception) -> InvalidValueError:
    return _refused(path, f"can't be written: {getattr(error, 'strerror', None) or error}")
