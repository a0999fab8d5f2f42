"""A run of maintenance, as a process, that kills itself at a point of its way.

    python killed_maintenance.py MODULE.FUNCTION before|after NUMBER maintain|restore ARGUMENTS

The point is a call of the function, the NUMBER-th of them. `maintain` takes a name and an age in
days and an archive, `restore` an archive; the database is that of the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from importlib import import_module
from typing import Any

from agentobs.maintenance import Policy, maintain, restore


def kill_at(point: str, moment: str, number: int) -> None:
    module_name, _, name = point.rpartition(".")
    module = import_module(f"agentobs.maintenance.{module_name}")
    original = getattr(module, name)
    calls = 0

    async def replacement(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await original(*arguments, **options)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, replacement)


def main() -> None:
    point, moment, number, what, *arguments = sys.argv[1:]
    kill_at(point, moment, int(number))
    if what == "restore":
        asyncio.run(restore(arguments[0]))
        return
    name, days, archive = arguments
    ages: dict[str, Any] = {name: timedelta(days=int(days))}
    asyncio.run(maintain(Policy(archive=archive, **ages)))


if __name__ == "__main__":
    main()
