"""A folder of agent definition files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentobs.errors import DefinitionError
from agentobs.jsonb import require_storable_text
from agentobs.registry.documents import AgentDocument, read_document

if TYPE_CHECKING:
    from collections.abc import Iterable

SUFFIXES = frozenset({".yaml", ".yml"})


class LoadedFile(NamedTuple):
    """A definition, and its registry_path: the root of its folder, then its path within."""

    registry_path: str
    document: AgentDocument

    @property
    def version(self) -> tuple[str, str]:
        """The name and version that make the row's natural key."""
        return self.document.agent_name, self.document.agent_version


class LoadedFolder(NamedTuple):
    """What a folder holds: files by name and version, and what can't be read, in path order."""

    root: str
    files: tuple[LoadedFile, ...]
    failures: tuple[DefinitionError, ...]
    failed_paths: frozenset[str]
    """The registry paths of `failures`."""

    def may_hold(self, registry_path: str) -> bool:
        """Whether the file, or a folder above it, is there but can't be read."""
        return any(
            registry_path == path or registry_path.startswith(f"{path}/")
            for path in self.failed_paths
        )


def folder_prefix(root: str) -> str:
    """Return what the registry paths of all files in `root` start with."""
    return f"{root.rstrip('/')}/"


def load_folder(folder: Path, root: str | None = None) -> LoadedFolder:
    """Read all definition files in `folder` and the folders below it.

    Hidden files and folders are skipped, links to folders not followed. `root` stands for the
    folder in registry paths; by default its absolute path, links unresolved. Raises
    DefinitionError where the folder is missing or holds no definition file at all.
    """
    paths, failures = _definition_paths(folder)
    if not paths and not failures:
        raise DefinitionError(folder, "holds no .yaml or .yml file")
    return _load(folder, root or Path(os.path.abspath(folder)).as_posix(), paths, failures)  # noqa: PTH100  (Path.resolve() would follow a `current` link to each release's own folder)


def _definition_paths(folder: Path) -> tuple[list[Path], list[DefinitionError]]:
    try:
        fault = "" if folder.is_dir() else "is no folder" if folder.exists() else "does not exist"
    except OSError as error:
        raise DefinitionError(folder, f"can't be read: {error.strerror}") from error
    if fault:
        raise DefinitionError(folder, fault)
    failures: list[DefinitionError] = []

    def note(error: OSError) -> None:
        failures.append(DefinitionError(Path(error.filename), f"can't be read: {error.strerror}"))

    paths: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = _shown(folders)
        paths.extend(Path(parent, name) for name in _shown(names))
    found = (path for path in paths if path.suffix.lower() in SUFFIXES)
    return sorted(found, key=Path.as_posix), failures


def _shown(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def _load(
    folder: Path, root: str, paths: list[Path], failures: list[DefinitionError]
) -> LoadedFolder:
    files: dict[tuple[str, str], LoadedFile] = {}
    for path in paths:
        try:
            file = LoadedFile(_registry_path(root, folder, path), read_document(path))
            _require_new(file, files)
            files[file.version] = file
        except DefinitionError as error:
            failures.append(error)
    failures.sort(key=lambda error: error.path.as_posix())
    failed = frozenset(folder_prefix(root) + _relative(folder, error.path) for error in failures)
    ordered = tuple(files[version] for version in sorted(files))
    return LoadedFolder(root, ordered, tuple(failures), failed)


def _registry_path(root: str, folder: Path, path: Path) -> str:
    registry_path = folder_prefix(root) + _relative(folder, path)
    try:
        require_storable_text(registry_path)
    except ValueError as error:
        raise DefinitionError(path, "has a path that is not UTF-8") from error
    return registry_path


def _relative(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _require_new(file: LoadedFile, files: dict[tuple[str, str], LoadedFile]) -> None:
    first = files.get(file.version)
    if first is not None:
        name, version = file.version
        reason = f"defines {name} {version}, as {first.document.path} does already"
        raise DefinitionError(file.document.path, reason)
