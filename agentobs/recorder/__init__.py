"""Records of a host, on their way to the database.

::

    recorder            what services call
    in_session          the same in a transaction of the host's own
    records             what is recorded, with the bounds of the schema
    fields, options     their fields, and a recorder's options, as keyword arguments
    run                 a block of the host's code that runs as another agent
    run_facts           what is known of it before it begins
    run_owner           what such blocks tell the recorder
    trace_context       the workflow around it, also across processes
    intake              from a record to an entry, in the host's call
    sanitize            any Python value to JSON that PostgreSQL stores
    plain_copy          copies of such values, made of what JSON knows
    entries             what the buffer holds
    rows                the values of a row, as the driver takes them
    buffer              the bounded buffer between the host and the writer
    open_runs           the runs that go on
    refusals            what can't be taken: counted and said once, or raised
    lifetime            start and close, and what is taken in between
    running             the parts of a recorder, from start to close
    thread              its threads
    waiters             who waits for what was accepted to be safe
    lifecycle           forks, signals, and the end of Python
    writing/            from entries to rows in the database
    spool/              the file in which records outlive their process
    dead_letters/       the file of what the database refuses
    statistics          what was done, counted
    prometheus          the same as metrics
"""

from __future__ import annotations

from agentobs.recorder.in_session import record_in
from agentobs.recorder.recorder import Recorder
from agentobs.recorder.records import (
    Alternative,
    Confidence,
    Decision,
    RoutingDecision,
    Timings,
    Transformation,
)
from agentobs.recorder.run import Run
from agentobs.recorder.running import CloseReport
from agentobs.recorder.statistics import Statistics

__all__ = [
    "Alternative",
    "CloseReport",
    "Confidence",
    "Decision",
    "Recorder",
    "RoutingDecision",
    "Run",
    "Statistics",
    "Timings",
    "Transformation",
    "record_in",
]
