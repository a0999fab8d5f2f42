"""Records of a host, on their way to the database.

::

    recorder            what services call
    in_session          the same in a transaction of the host's own
    run                 a block of the host's code that runs as another agent
    records             what is recorded, with the bounds of the schema
    fields, options     their fields, and a recorder's options, as keyword arguments
    trace_context       the workflow around it, also across processes
    intake              from a record to an entry, in the host's call
    sanitize            any Python value to JSON that PostgreSQL stores
    entries             what the buffer holds
    rows                the values of a row, as the driver takes them
    buffer              the bounded buffer between the host and the writer
    open_runs           the runs that go on
    running             the parts of a recorder, from start to close
    thread              its threads
    lifecycle           forks, signals, and the end of Python
    writer              takes batches, and sees them through
    composer            what goes into a batch
    pace                leaving the interpreter to the host's threads
    batch, held         what is written together, and what waits
    delivery            rows to the database, without those that it refuses
    statements          the SQL of it
    replay              what dead processes left
    spool (_*)          the file in which records outlive their process
    raw_write           write(2) that keeps the interpreter's lock
    dead_letters        the file of what the database refuses
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
