"""The writer: from entries to rows in the database.

::

    writer              takes batches, and sees them through
    composer            what goes into a batch
    batch               what is written together
    others, held        what waits for rows of other processes
    delivery            rows to the database, without those that it refuses
    statements          the SQL of it
    replay              what dead processes left
    pace                leaving the interpreter to the host's threads
"""

from __future__ import annotations
