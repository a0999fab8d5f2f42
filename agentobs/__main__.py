"""The command `agentobs`, also as `python -m agentobs`."""

from __future__ import annotations

import sys

from agentobs.errors import MissingExtraError


def main() -> None:
    """Run the command line, or say which extra it needs."""
    try:
        from agentobs.cli import run  # noqa: PLC0415 (an optional extra)
    except MissingExtraError as error:
        sys.exit(f"agentobs: {error}")
    run()


if __name__ == "__main__":
    main()
