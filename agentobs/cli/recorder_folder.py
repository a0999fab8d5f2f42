"""The folder of recorders, as commands are told it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentobs.recorder.running import folder_of
from agentobs.settings import read_recorder_settings

Folder = Annotated[
    Path | None,
    typer.Option(
        help="Instead of the folder that AGENTOBS_RECORDER_FOLDER names.",
        exists=True,
        file_okay=False,
    ),
]


def place_of(folder: Path | None) -> Path:
    """Return the folder that is named, or that of the environment."""
    return folder or folder_of(read_recorder_settings())
