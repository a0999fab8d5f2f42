"""Measure what a record costs its caller, and how long an event loop of the host is held up.

Run with `make bench`. The records are made before, with contexts of about 1 KB; the writer is busy
all the time. Goals: median below 25 us and p99 below 150 us, with a spool a median below 50 us; an
event loop that records is held up for at most 5 ms at p99 under full load, and for 2 ms at 1,000
rows a second; memory does not grow over a million records. The floor is a loop that does the same
without a recorder, and a call that only puts the record into a list.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentobs import DatabaseSettings, migrations
from agentobs.recorder import Recorder
from benchmarks.recorder_records import decisions
from benchmarks.server import environment, fresh_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agentobs.recorder import RoutingDecision

Delivery = Literal["drop", "block", "spool"]
CALLS, DIFFERENT, WARM = 60_000, 200, 4_000
# So many calls, then a pause as a service has between requests: the writer keeps up, and is busy.
BURST, PAUSE = 20, 0.002
MANY = 1_000_000
TICK, TICKS = 0.001, 5_000


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=MANY, help="how many for the memory")
    records = parser.parse_args().records
    with fresh_server() as server:
        print(environment(server))
        settings = DatabaseSettings(database_url=server.url)
        asyncio.run(migrations.upgrade(settings=settings))
        made = decisions(DIFFERENT)
        # What a host holds besides is not what is measured.
        gc.collect()
        gc.freeze()
        _calls(settings, made)
        _pauses(settings, made)
        _memory(settings, made, records)


def _calls(settings: DatabaseSettings, made: Sequence[RoutingDecision]) -> None:
    print(f"one call of {CALLS:,}, in us, while the writer is busy")
    _print_call("a list", _timed([].append, made))
    deliveries: tuple[Delivery, ...] = ("drop", "spool")
    for delivery in deliveries:
        with _recorder(settings, delivery) as recorder:
            _print_call(delivery, _timed(recorder.routing_decision, made))
        _require_complete(recorder)


def _timed(call: Callable[[Any], Any], made: Sequence[RoutingDecision]) -> list[float]:
    clock, times = time.perf_counter, []
    for number in range(WARM + CALLS):
        record = made[number % len(made)]
        began = clock()
        call(record)
        times.append(clock() - began)
        if number % BURST == 0:
            time.sleep(PAUSE)
    return sorted(times[WARM:])


def _print_call(name: str, times: Sequence[float]) -> None:
    shown = (f"{label} {1e6 * _at(times, share):7.1f}" for label, share in _SHARES)
    print(f"  {name:<8} {'   '.join(shown)}")


_SHARES = (("median", 0.5), ("p99", 0.99), ("p99.9", 0.999))


def _at(times: Sequence[float], share: float) -> float:
    return times[int(len(times) * share)]


def _pauses(settings: DatabaseSettings, made: Sequence[RoutingDecision]) -> None:
    print("how late an event loop of the host is, in ms")
    _print_pauses("nothing else", asyncio.run(_ticks()))
    with _recorder(settings, "drop") as recorder:
        _print_pauses("1,000 rows/s", asyncio.run(_while_recording(recorder, made, 1_000)))
    _require_complete(recorder)
    with _recorder(settings, "drop") as recorder:
        began = time.perf_counter()
        times = asyncio.run(_while_recording(recorder, made, None))
        seconds = time.perf_counter() - began
        rate = sum(recorder.statistics().accepted.values()) / seconds
        _print_pauses(f"{rate:,.0f} rows/s", times)


def _print_pauses(name: str, times: Sequence[float]) -> None:
    shown = (f"{label} {1e3 * _at(times, share):6.2f}" for label, share in _SHARES)
    print(f"  {name:<14} {'   '.join(shown)}")


async def _ticks() -> list[float]:
    times = []
    for _ in range(TICKS):
        began = time.perf_counter()
        await asyncio.sleep(TICK)
        times.append(time.perf_counter() - began - TICK)
    return sorted(times)


async def _while_recording(
    recorder: Recorder, made: Sequence[RoutingDecision], rate: int | None
) -> list[float]:
    """Tick while the same loop records: `rate` rows a second, or as many as the writer takes."""
    task = asyncio.create_task(_record(recorder, made, rate))
    times = await _ticks()
    task.cancel()
    return times


async def _record(recorder: Recorder, made: Sequence[RoutingDecision], rate: int | None) -> None:
    number, began = 0, time.perf_counter()
    while True:
        # Full load is what the writer keeps up with: beyond that records are only dropped.
        has_room = recorder.statistics().buffer_rows < recorder.settings.flush_rows * 2
        due = BURST if rate is None else (time.perf_counter() - began) * rate - number
        for _ in range(int(due) if has_room else 0):
            recorder.routing_decision(made[number % len(made)])
            number += 1
        await asyncio.sleep(TICK)


def _memory(settings: DatabaseSettings, made: Sequence[RoutingDecision], records: int) -> None:
    with _recorder(settings, "block") as recorder:
        sizes = []
        for number in range(records):
            recorder.routing_decision(made[number % len(made)])
            if number % (records // 10) == 0:
                sizes.append(_resident())
        recorder.barrier()
    shown = ", ".join(f"{size:.0f}" for size in sizes)
    print(f"resident memory over {records:,} records, in MiB at each tenth: {shown}")


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


@contextmanager
def _recorder(settings: DatabaseSettings, delivery: Delivery) -> Iterator[Recorder]:
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(
            settings, delivery=delivery, lenient=False, folder=Path(folder), close_timeout=120
        )
        with recorder:
            yield recorder


def _require_complete(recorder: Recorder) -> None:
    if recorder.statistics().completeness < 1:
        raise RuntimeError(f"the writer did not keep up: {recorder.statistics()}")


if __name__ == "__main__":
    main()
