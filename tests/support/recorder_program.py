"""Programs that record and end in some way: `python recorder_program.py NAME`.

The database and the folder are those of the environment. What is printed is for the test to read.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from agentobs import Recorder
from agentobs.errors import BarrierTimeoutError

if TYPE_CHECKING:
    from types import FrameType

RECORDS = 20
# Room for some of their records in the spool, and for the others among the dead letters.
SMALL_FILE = 10_000
FORKS = 5
# Until somebody ends it.
_LONG = 60.0


def record(recorder: Recorder, number: int = RECORDS, *, agent: str = "agent-debug") -> None:
    for _ in range(number):
        recorder.routing_decision(selected_agent=agent, strategy="fuzzy")


def forgets_to_close() -> None:
    record(Recorder().start())


def records_at_exit_only() -> None:
    # An hour is far: nothing is written before the end.
    record(Recorder(flush_interval=3600.0))


def leaves_by_sys_exit() -> NoReturn:
    record(Recorder().start())
    sys.exit(3)


def leaves_by_an_exception() -> NoReturn:
    record(Recorder().start())
    raise LookupError("this is how it ends")


def leaves_a_run_open() -> NoReturn:
    recorder = Recorder().start()
    with recorder.transformation(target_agent="agent-debug"):
        sys.exit(0)


def leaves_another_thread_recording() -> None:
    recorder = Recorder().start()
    record(recorder)

    def go_on() -> None:
        while True:
            recorder.routing_decision(selected_agent="agent-thread", strategy="fuzzy")

    threading.Thread(target=go_on, daemon=True).start()


def records_more_than_its_disk_takes() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILE, SMALL_FILE))
    recorder = Recorder().start()
    for _ in range(RECORDS):
        recorder.routing_decision(selected_agent="a" * 255, strategy="fuzzy")
    try:
        recorder.barrier(0.1)
    except BarrierTimeoutError:
        print("not safe", recorder.statistics().unspooled)  # noqa: T201


def ends_in_children() -> None:
    for make in (
        multiprocessing.get_context("spawn").Process,
        multiprocessing.get_context("fork").Process,
    ):
        child = make(target=forgets_to_close)
        child.start()
        child.join()
        assert child.exitcode == 0


def closes_on_signals() -> None:
    recorder = Recorder(flush_interval=3600.0).start()
    recorder.close_on_signals()
    _record_until_the_end(recorder)


def chains_to_its_own_handler() -> None:
    def handle(number: int, frame: FrameType | None) -> NoReturn:
        assert threading.current_thread() is threading.main_thread()
        print(signal.Signals(number).name, frame is not None, flush=True)  # noqa: T201
        sys.exit(5)

    signal.signal(signal.SIGTERM, handle)
    closes_on_signals()


def gets_a_signal_in_the_middle_of_a_record() -> None:
    class Sender(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            # In the call that has no room in the spool, which holds the locks of the recorder.
            logger.removeHandler(self)
            os.kill(os.getpid(), signal.SIGTERM)

    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILE, SMALL_FILE))
    logger = logging.getLogger("agentobs.recorder")
    logger.addHandler(Sender())
    recorder = Recorder(flush_interval=3600.0).start()
    recorder.close_on_signals()
    for _ in range(RECORDS):
        recorder.routing_decision(selected_agent="a" * 255, strategy="fuzzy")
    time.sleep(_LONG)


def records_in_the_main_thread_until_a_signal() -> None:
    recorder = Recorder().start()
    recorder.close_on_signals()
    print("ready", flush=True)  # noqa: T201
    while True:
        record(recorder)


def asks_for_no_handlers() -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    with Recorder() as recorder:
        record(recorder)
        assert before == [signal.getsignal(number) for number in signal.valid_signals()]


def _record_until_the_end(recorder: Recorder) -> None:
    record(recorder)
    print("ready", flush=True)  # noqa: T201
    time.sleep(_LONG)


def forks_after_the_start() -> None:
    recorder = Recorder(flush_interval=0.5).start()
    record(recorder, agent="agent-before")
    child = os.fork()
    if not child:
        record(recorder, agent="agent-child")
        recorder.close()
        os._exit(0)
    record(recorder, agent="agent-after")
    assert os.waitpid(child, 0)[1] == 0
    # The connection of the parent is still its own.
    recorder.barrier(30)
    record(recorder, agent="agent-end")


def leaves_a_child_behind() -> None:
    recorder = Recorder(flush_interval=3600.0).start()
    record(recorder)
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def forks_with_multiprocessing() -> None:
    recorder = Recorder(flush_interval=0.5).start()
    record(recorder, agent="agent-before")
    forks = multiprocessing.get_context("fork")
    children = [
        forks.Process(target=record, args=(recorder,), kwargs={"agent": "agent-child"})
        for _ in range(3)
    ]
    for child in children:
        child.start()
    record(recorder, agent="agent-after")
    for child in children:
        child.join()
        assert child.exitcode == 0
    record(recorder, agent="agent-end")


def forks_workers_that_go_on_after_it_was_loaded() -> None:
    """As a server does that loads the application once: only the workers record."""
    recorder = Recorder()
    workers = []
    for _ in range(3):
        if not (worker := os.fork()):
            record(recorder, agent="agent-child")
            # As a worker ends that was told to: by Python's own way out.
            sys.exit(0)
        workers.append(worker)
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0, 0]


def forks_while_threads_record() -> None:
    recorder = Recorder().start()
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.is_set():
            record(recorder, agent="agent-thread")

    threads = [threading.Thread(target=go_on) for _ in range(4)]
    for each in threads:
        each.start()
    for _ in range(FORKS):
        if not (child := os.fork()):
            record(recorder, agent="agent-child")
            report = recorder.close()
            os._exit(0 if report.is_complete else 1)
        assert os.waitpid(child, 0)[1] == 0
    is_over.set()
    for each in threads:
        each.join()
    recorder.close()
    print(sum(recorder.statistics().written.values()))  # noqa: T201


if __name__ == "__main__":
    globals()[sys.argv[1]]()
