"""An online upgrade, as a process, that kills itself at a point of its way.

    python killed_online_upgrade.py MODULE.FUNCTION before|after NUMBER

The point is a call of the function, the NUMBER-th of them; the database is the environment's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from importlib import import_module
from typing import Any

from agentobs import migrations


def kill_at(point: str, moment: str, number: int) -> None:
    module_name, _, name = point.rpartition(".")
    module = import_module(f"agentobs.migrations.online.{module_name}")
    original = getattr(module, name)
    calls = 0

    def replacement(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, replacement)


if __name__ == "__main__":
    kill_at(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    asyncio.run(migrations.upgrade_online())
