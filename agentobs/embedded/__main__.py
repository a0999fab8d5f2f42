"""The entry of the keeper process; nobody types this."""

from __future__ import annotations

import sys
from pathlib import Path

from agentobs.embedded.keeper import keep

if __name__ == "__main__":
    keep(Path(sys.argv[1]), keeper_lock=int(sys.argv[2]))
