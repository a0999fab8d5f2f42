"""The report of that month, and a browser that has opened it."""

from __future__ import annotations

import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from report.report_rows import NOON, WINDOW, add_rows, month_of_rows
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncSession

from agentobs.report import ReportData, gather, render
from agentobs.sessions import create_engine
from agentobs.testing.databases import settings_for, temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from agentobs import DatabaseSettings

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


async def gathered(settings: DatabaseSettings) -> tuple[ReportData, ReportData]:
    """Return the report of the month, and the one from before there was a row."""
    engine = create_engine(settings, poolclass=NullPool)
    async with AsyncSession(engine) as session:
        nothing = await gather(session, WINDOW, made_at=NOON)
        await add_rows(session, *month_of_rows())
        month = await gather(session, WINDOW, made_at=NOON)
        await session.rollback()
    await engine.dispose()
    return month, nothing


@pytest.fixture(scope="session")
def reports(agentobs_server: URL, agentobs_template: str) -> tuple[ReportData, ReportData]:
    with (
        temporary_database(agentobs_server, template=agentobs_template) as name,
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        settings = settings_for(agentobs_server, name)
        # Beside whatever event loop the tests have.
        return thread.submit(asyncio.run, gathered(settings)).result()


@pytest.fixture(scope="session")
def month(reports: tuple[ReportData, ReportData]) -> ReportData:
    return reports[0]


@pytest.fixture(scope="session")
def nothing(reports: tuple[ReportData, ReportData]) -> ReportData:
    return reports[1]


@pytest.fixture(scope="session")
def page(month: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(month), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Chrome]:
    """Yield a browser without a window that has opened the report, and logs what it does."""
    if CHROMIUM is None or DRIVER is None:
        # Without them nothing is known of the page: good enough for a laptop, not for CI.
        give_up = pytest.fail if "CI" in os.environ else pytest.skip
        give_up("there is no chromium, or no chromedriver, on this machine (.ci/run installs them)")
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,900"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()
