"""The file in which records outlive their process, and the machine.

::

    spool               append, read, settle, sync; take over that of a dead process
    folder              its folder, lock and note
    frames              what stands in its segments
    reading             reading those, past what is damaged
    healing             what somebody has deleted, made anew
    raw_write           write(2) that keeps the interpreter's lock
"""

from __future__ import annotations
