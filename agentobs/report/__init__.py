"""A report of a window of time as one HTML file, which needs neither network nor server.

::

    gather      the questions, asked in a session of yours: a `ReportData`
    figures     the charts, as plotly takes them
    page        the page, by Jinja2
    file        its way into the file, all of it or nothing

The last two need the extra [report].
"""

from __future__ import annotations

from agentobs.report.extra import require_extra
from agentobs.report.figures import figures
from agentobs.report.file import check_output, write_file
from agentobs.report.gather import ReportData, gather
from agentobs.report.page import render

__all__ = [
    "ReportData",
    "check_output",
    "figures",
    "gather",
    "render",
    "require_extra",
    "write_file",
]
