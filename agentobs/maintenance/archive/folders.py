"""Where archives are: a directory, or a URL that fsspec knows.

A file is written under a temporary name, made durable, and renamed; what bears a temporary name
is left over and means nothing. In a directory that is fsync and an atomic rename. On an object
store it is weaker: durable is what the store has acknowledged, and a rename is a copy, so the
checks after it are what counts. One process at a time writes to a folder; the lock of the
maintenance sees to that for one database.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from agentobs.errors import AgentobsError, ArchiveError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

TEMPORARY = ".partial"
"""What the name of a file ends with as long as it is written."""

_FILE_SCHEME = "file://"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Of each URL, for fsspec chains them: simplecache::ftp://user:password@host/path.
_LOGIN = re.compile(r"(?<=://)[^/]*@")
# Contexts and requests are secret.
_PRIVATE = 0o600


class Folder(Protocol):
    """A place for files, by their names."""

    def require(self) -> None:
        """Raise ArchiveError where there is no such folder."""

    def names(self) -> set[str]:
        """List the files; none where there is no such folder."""

    def lock(self) -> bool:
        """Try to be the only one who writes here, of all databases; tell whether one is."""

    def unlock(self) -> None:
        """Let others write."""

    def create(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Write a file: it has its name after the block, and there is nothing after an error."""

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file to read."""

    def location(self, name: str) -> str:
        """Return where a file is, with the password that a URL may hold."""

    def shown(self, name: str) -> str:
        """Return where a file is, for people."""


def open_folder(target: str | Path) -> Folder:
    """Return the folder at a path or URL, which is made when something is written to it."""
    text = str(target)
    if text.startswith(_FILE_SCHEME):
        return LocalFolder(Path(url2pathname(urlsplit(text).path)))
    return RemoteFolder(text) if "://" in text else LocalFolder(Path(target))


def split_location(location: str | Path) -> tuple[Folder, str]:
    """Return the folder and the name of a file."""
    text = str(location)
    if "://" not in text:
        path = Path(location)
        return LocalFolder(path.parent), path.name
    parent, _, name = text.rpartition("/")
    return open_folder(parent), name


class LocalFolder:
    """A directory; files are readable by their owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._locked: int | None = None
        _require_possible(self._path)

    def require(self) -> None:
        """Raise ArchiveError where there is no such folder."""
        with explained(str(self._path)):
            if not self._path.is_dir():
                raise ArchiveError(str(self._path), "there is no such folder: is its name right?")

    def names(self) -> set[str]:
        """List the files; none where there is no such folder."""
        with explained(str(self._path)):
            return {path.name for path in self._path.iterdir()} if self._path.exists() else set()

    def lock(self) -> bool:
        """Try to be the only one who writes here, on this machine; tell whether one is.

        The folder itself is locked, and nothing is left in it. A network file system may know no
        such locks: the databases that share a folder there must not be archived at one time.
        """
        with explained(str(self._path)):
            _make_durable_folder(self._path)
            opened = os.open(self._path, os.O_RDONLY)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            return False
        except OSError:
            os.close(opened)
            return True
        self._locked = opened
        return True

    def unlock(self) -> None:
        """Let others write."""
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file: it has its name after the block, and there is nothing after an error."""
        temporary = self._path / (name + TEMPORARY)
        with explained(self.shown(name)):
            _make_durable_folder(self._path)
            try:
                with _create_private(temporary) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self._path / name)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(self._path)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to read."""
        with explained(self.shown(name)), (self._path / name).open("rb") as file:
            yield file

    def location(self, name: str) -> str:
        """Return where a file is."""
        return str(self._path / name)

    def shown(self, name: str) -> str:
        """Return where a file is, for people."""
        return self.location(name)


class RemoteFolder:
    """A URL of fsspec."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._shown = without_password(self._url)
        with self._explained(self._shown):
            self._files, self._path = _filesystem(url, self._shown)

    def require(self) -> None:
        """Do nothing: an object store has files only, and no folder before its first."""

    def lock(self) -> bool:
        """Return True: an object store has no locks, and each database wants a URL of its own."""
        return True

    def unlock(self) -> None:
        """Do nothing."""

    def names(self) -> set[str]:
        """List the files; none where there is no such folder."""
        self._files.invalidate_cache()
        with self._explained(self._shown):
            try:
                paths = self._files.ls(self._path, detail=False)
            except FileNotFoundError:
                return set()
        return {str(path).rstrip("/").rpartition("/")[2] for path in paths}

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file: it has its name after the block, and there is nothing after an error."""
        temporary, path = self._path_of(name + TEMPORARY), self._path_of(name)
        with self._explained(self.shown(name)):
            self._files.makedirs(self._path, exist_ok=True)
            try:
                with self._files.open(temporary, "wb") as file:
                    yield file
                self._files.mv(temporary, path)
            except BaseException:
                with suppress(OSError):
                    self._files.rm_file(temporary)
                raise

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to read."""
        path = self._path_of(name)
        with self._explained(self.shown(name)), self._files.open(path, "rb") as file:
            yield cast("BinaryIO", file)

    def location(self, name: str) -> str:
        """Return where a file is, with the password that a URL may hold."""
        return f"{self._url}/{name}"

    def shown(self, name: str) -> str:
        """Return where a file is, for people."""
        return without_password(self.location(name))

    def _path_of(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def _explained(self, shown: str) -> AbstractContextManager[None]:
        return explained(shown, is_secret=self._url != self._shown)


@contextmanager
def explained(shown: str, *, is_secret: bool = False) -> Iterator[None]:
    """Raise ArchiveError for what the system says of a file."""
    try:
        yield
    except AgentobsError:
        # Some of ours are errors of the system as well.
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in _NO_SPACE:
            reason = f"no room for it ({reason}): free some, or name another folder"
        # The words of an error may hold a URL, and with it a password.
        raise ArchiveError(shown, reason) from (None if is_secret else error)


def _filesystem(url: str, shown: str) -> tuple[Any, str]:
    try:
        files, path = import_module("fsspec.core").url_to_fs(url)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{shown} needs fsspec: pip install fsspec") from error
    except (ImportError, ValueError) as error:
        # fsspec names the package that is missing for a scheme, or the scheme that it lacks; what
        # it takes for a port, which it quotes, may be of a password.
        is_secret = isinstance(error, ValueError) and shown != url.rstrip("/")
        reason = type(error).__name__ if is_secret else error
        cause = None if is_secret else error
        raise ConfigurationError(f"{shown} can't be opened: {reason}") from cause
    return files, str(path)


def without_password(url: str) -> str:
    """Return a folder's path or URL as it may be shown and stored."""
    return _LOGIN.sub("", url)


def _require_possible(path: Path) -> None:
    """Refuse a name that the system never sees."""
    try:
        is_possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise ArchiveError(repr(str(path)), "no folder has such a name: it holds what is no text")


def _create_private(path: Path) -> BinaryIO:
    # One is left over from a run that was killed.
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "wb")


def _make_durable_folder(path: Path) -> None:
    if not path.is_dir():
        _make_durable_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
