"""What is wrong with a database, and the command or SQL that mends it.

::

    examination     every check in its turn, none of which breaks another one
    server          reachable, its version, its clock
    addresses       those of services, migrations and readers; poolers
    parameters      the server's
    schema          revision and drift
    indexes         those that are not valid, or not used
    partitions      months ahead, their CHECKs, rows in DEFAULT
    retention       months that should be gone
    rollups         hours that are not folded
    activity        transactions and locks in the way
    bloat           dead rows and room that is lost
    failures        a check that could not be made
    context         what a check is given
    connection      one that only reads, and waits for nobody
    thresholds      from where on fault is found
    findings        what is said
"""

from __future__ import annotations

from agentobs.doctor.examination import diagnose
from agentobs.doctor.findings import Diagnosis, Finding, Server, Severity
from agentobs.doctor.thresholds import Thresholds

__all__ = ["Diagnosis", "Finding", "Server", "Severity", "Thresholds", "diagnose"]
