"""The writer: from entries to rows in the database.

::

    writer              takes batches, and sees them through
    composer            what goes into a batch
    batch, held         what is written together, and what waits
    delivery            rows to the database, without those that it refuses
    statements          the SQL of it
    replay              what dead processes left
    pace                leaving the interpreter to the host's threads
"""

from __future__ import annotations
