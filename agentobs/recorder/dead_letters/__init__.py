"""What the database refuses, kept with the reason.

::

    writing             the file of a recorder, and reading all of them
    files               such a file written anew, beside who appends to it
    resending           what is in them, sent again
"""

from __future__ import annotations
