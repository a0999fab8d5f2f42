"""One user of an embedded server, as a process that a test can kill.

    python embedded_user.py [DATA_DIRECTORY]

Writes `ready STARTED PID` once the server answers, and leaves when its standard input ends.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agentobs.embedded import running_server, server_status


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with running_server(folder, options={"fsync": "off"}) as server:
        psql = [str(server.binary("psql")), "-X", "-At", server.url, "-c", "SELECT 1"]
        subprocess.run(psql, check=True, stdout=subprocess.DEVNULL)
        sys.stdout.write(f"ready {server.started} {server_status(folder).pid}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
