"""An agent definition file as a row of agent_definitions would hold it."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from agentobs.errors import DefinitionError, InvalidValueError
from agentobs.models import AgentDefinition, AgentStatus
from agentobs.registry.extraction import Extracted, dig, extract_capabilities, extract_triggers
from agentobs.registry.yaml_reader import YamlDocument, YamlProblemError, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILE_BYTES = 2**20
"""The largest definition file that is read."""

DEFAULT_VERSION = "1.0.0"
DEFAULT_TYPE = "general"

NAME_PATHS = ("agent_identity.name", "name", "agent_name", "metadata.name")
VERSION_PATHS = ("version", "agent_identity.version", "agent_version", "metadata.version")
TYPE_PATHS = (
    "agent_type",
    "agent_identity.agent_type",
    "agent_identity.task_agent_type",
    "type",
    "metadata.type",
)
DOMAIN_PATHS = (
    "domain",
    "agent_identity.domain",
    "domain_context",
    "domain_context.primary",
    "metadata.domain",
)
STATUS_PATHS = ("status", "agent_identity.status", "metadata.status")

# Where parsed_metadata takes each key from: the first place that has one.
METADATA_PATHS = {
    "title": ("agent_identity.title", "agent_identity.display_name", "title", "metadata.title"),
    "description": (
        "agent_identity.description",
        "description",
        "metadata.description",
        "agent_identity.purpose",
        "purpose",
    ),
    "color": ("agent_identity.color", "color", "metadata.color"),
    "category": ("agent_identity.category", "category", "metadata.category"),
    "priority": ("agent_identity.priority", "priority", "metadata.priority"),
    "tags": ("agent_identity.tags", "tags", "metadata.tags"),
    "author": ("agent_identity.author", "author", "metadata.author"),
    "specialization_level": ("agent_identity.specialization_level", "specialization_level"),
    "task_agent_type": ("agent_identity.task_agent_type", "task_agent_type"),
    "is_orchestrator": ("is_orchestrator", "agent_identity.is_orchestrator"),
    "mode": ("mode",),
    "model": ("model",),
    "schema_version": ("schema_version",),
}

_MAX_METADATA_CHARACTERS = 1000
_MAX_TAGS = 50
_MAX_WARNINGS = 20


class AgentDocument(BaseModel):
    """One version of an agent as its file defines it.

    `config` is the whole document as JSON values, `definition_hash` the SHA-256 (hex) of the
    file's bytes. `warnings` say what was read with doubt or left out.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    definition_hash: str
    agent_name: str
    agent_version: str
    agent_type: str
    domain: str | None
    status: AgentStatus
    capabilities: tuple[str, ...]
    triggers: tuple[str, ...]
    trigger_patterns: tuple[str, ...]
    metadata: dict[str, Any] = Field(repr=False)
    config: dict[str, Any] = Field(repr=False)
    warnings: tuple[str, ...] = ()

    def columns(self) -> dict[str, Any]:
        """Return what the file says, by the names of the columns of agent_definitions."""
        return {
            "agent_name": self.agent_name,
            "agent_version": self.agent_version,
            "agent_type": self.agent_type,
            "domain": self.domain,
            "status": self.status.value,
            "capabilities": list(self.capabilities),
            "triggers": list(self.triggers),
            "trigger_patterns": list(self.trigger_patterns),
            "parsed_metadata": self.metadata,
            "yaml_config": self.config,
            "definition_hash": self.definition_hash,
        }


def read_document(path: Path) -> AgentDocument:
    """Read the definition file at `path`; raises DefinitionError."""
    try:
        content = _read_bounded(path)
    except OSError as error:
        raise DefinitionError(path, f"can't be read: {error.strerror}") from error
    except ValueError as error:
        # The system never sees a name with U+0000, or a lone surrogate.
        raise DefinitionError(path, "can't be read: no file has such a name") from error
    return parse_document(content, path)


def parse_document(content: bytes, path: Path) -> AgentDocument:
    """Read a definition from the bytes of its file; `path` serves messages only.

    Raises DefinitionError for what is no YAML mapping, has no name, or fits no row.
    """
    try:
        parsed = parse_yaml(_decode(content))
        document = _assemble(parsed, path, hashlib.sha256(content).hexdigest())
    except YamlProblemError as problem:
        raise DefinitionError(path, problem.reason, line=problem.line) from problem
    _require_fitting(document, parsed)
    return document


def _read_bounded(path: Path) -> bytes:
    # Opening a pipe would wait for its writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise DefinitionError(path, "is no regular file")
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise DefinitionError(path, f"is larger than {MAX_FILE_BYTES} bytes")
    return content


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlProblemError("is not UTF-8", line) from None


def _assemble(parsed: YamlDocument, path: Path, digest: str) -> AgentDocument:
    written = parsed.written
    if not isinstance(written, dict):
        raise YamlProblemError("is no mapping: a definition has keys such as 'name' and 'version'")
    agent_type = _text_at(parsed, TYPE_PATHS)
    capabilities = extract_capabilities(written)
    phrases, patterns = extract_triggers(written)
    return AgentDocument(
        path=path,
        definition_hash=digest,
        agent_name=_name(parsed),
        agent_version=_text_at(parsed, VERSION_PATHS) or DEFAULT_VERSION,
        agent_type=agent_type or DEFAULT_TYPE,
        domain=_text_at(parsed, DOMAIN_PATHS),
        status=_status(parsed),
        capabilities=capabilities.entries,
        triggers=phrases.entries,
        trigger_patterns=patterns.entries,
        metadata=_metadata(written),
        config=parsed.values,
        warnings=_warnings(parsed, agent_type, capabilities, phrases, patterns),
    )


def _name(parsed: YamlDocument) -> str:
    name = _text_at(parsed, NAME_PATHS)
    if name is None:
        raise YamlProblemError(
            f"names no agent: write a line `name: …`, or one of {', '.join(NAME_PATHS)}"
        )
    return name


def _status(parsed: YamlDocument) -> AgentStatus:
    text = _text_at(parsed, STATUS_PATHS)
    if text is None:
        return AgentStatus.ACTIVE
    try:
        return AgentStatus(text.lower())
    except ValueError:
        reason = f"has a status that is none of {', '.join(AgentStatus)}"
        raise YamlProblemError(reason, _line_at(parsed, STATUS_PATHS)) from None


def _text_at(parsed: YamlDocument, paths: tuple[str, ...]) -> str | None:
    """Return the first text at one of `paths`, on one line without control characters."""
    path = _first_path(parsed, paths)
    if path is None:
        return None
    text: str = dig(parsed.written, path).strip()
    if not text.isprintable():
        raise YamlProblemError(
            f"has a line break or control character in {path}", _line_at(parsed, paths)
        )
    return text


def _first_path(parsed: YamlDocument, paths: tuple[str, ...]) -> str | None:
    for path in paths:
        value = dig(parsed.written, path)
        if isinstance(value, str) and value.strip():
            return path
    return None


def _line_at(parsed: YamlDocument, paths: tuple[str, ...]) -> int | None:
    path = _first_path(parsed, paths)
    return None if path is None else parsed.line_of(path)


def _metadata(document: dict[str, Any]) -> dict[str, Any]:
    picked = {key: _first_small(document, paths) for key, paths in METADATA_PATHS.items()}
    return {key: value for key, value in picked.items() if value is not None}


def _first_small(document: dict[str, Any], paths: tuple[str, ...]) -> Any:
    return next(
        (small for path in paths if (small := _small(dig(document, path))) is not None), None
    )


def _small(value: Any) -> Any:
    """Return text, a boolean or a list of texts, cut to what queries need; None for all else."""
    if isinstance(value, str):
        return " ".join(value.split())[:_MAX_METADATA_CHARACTERS] or None
    if isinstance(value, list):
        return [_small(item) for item in value if isinstance(item, str) and item][
            :_MAX_TAGS
        ] or None
    return value if isinstance(value, bool) else None


def _warnings(
    parsed: YamlDocument, agent_type: str | None, capabilities: Extracted, *triggers: Extracted
) -> tuple[str, ...]:
    found = [*parsed.warnings, *capabilities.warnings]
    found.extend(warning for extracted in triggers for warning in extracted.warnings)
    found.extend(_unreadable_version(parsed))
    if agent_type is None:
        found.append(f"no agent_type: {DEFAULT_TYPE!r} is stored")
    if not capabilities.entries:
        found.append("no capabilities: the router can't match on them")
    if not any(extracted.entries for extracted in triggers):
        found.append("no triggers: the router can't match on them")
    if len(found) > _MAX_WARNINGS:
        found[_MAX_WARNINGS:] = [f"{len(found) - _MAX_WARNINGS} more warnings are not shown"]
    return tuple(found)


def _unreadable_version(parsed: YamlDocument) -> Iterator[str]:
    """Warn of a version that is there and is no text; many definitions have none at all."""
    if _first_path(parsed, VERSION_PATHS) is None:
        for path in VERSION_PATHS:
            line = parsed.line_of(path)
            if line is not None:
                yield f"line {line}: {path} is no version: {DEFAULT_VERSION!r} is stored"


_COLUMN_PATHS = {
    "agent_name": NAME_PATHS,
    "agent_version": VERSION_PATHS,
    "agent_type": TYPE_PATHS,
    "domain": DOMAIN_PATHS,
}


def _require_fitting(document: AgentDocument, parsed: YamlDocument) -> None:
    """Ask the model, which knows the bounds of its columns."""
    try:
        AgentDefinition(**document.columns())
    except InvalidValueError as error:
        name = (error.column or "").rpartition(".")[2]
        line = _line_at(parsed, _COLUMN_PATHS.get(name, ()))
        raise DefinitionError(document.path, f"{name} {error.rule}", line=line) from error
