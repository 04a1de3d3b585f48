"""A real browser: Debian's chromium, driven by playwright; without it these tests are skipped with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hqsam_pipelines.report.run import build_report
from tests.pipelines.report_repo import Repo

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


# A module's, not the session's: playwright keeps an event loop running in this thread, in which
# no other test could run one of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser with a fresh profile."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a miniature run."""
    root = tmp_path_factory.mktemp("page")
    repo = Repo(root).build()
    build_report(root=root, params=repo.params, out=root / "reports")
    return root / "reports" / "report.html"


class Opened:
    """A page that was opened, with what it said and asked for on the way."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri())

    def is_quiet(self) -> bool:
        """Whether nothing was said on the console and no request left the page."""
        return not self.said and all(
            url.startswith("data:") or url == self.page.url.partition("#")[0] for url in self.asked
        )


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Open a file in a window of a size, with or without scripts."""
    contexts = []

    def opened(path: Path, width: int = 1280, height: int = 900, **options: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        return Opened(context.new_page(), path)

    yield opened
    for context in contexts:
        context.close()


def serious(page: Any) -> list[str]:
    """What axe-core finds serious or critical on a page: rule and the first place."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['target']}"
        for one in found
        if one["impact"] in ("serious", "critical") or one["id"] == "empty-table-header"
    ]
