"""The pages of `hqsam compare` and `hqsam history` in a real browser: quiet, sorted, for every reader, on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hqsam_pipelines.compare.answer import answer
from hqsam_pipelines.compare.comparison import compare
from hqsam_pipelines.compare.history import history, to_html
from hqsam_pipelines.compare.page import to_html as compare_page
from tests.browser.conftest import serious
from tests.pipelines.test_compare import commit, make_repository, write_run
from tests.pipelines.test_history import reports

PHONE = (390, 844)


@pytest.fixture(scope="module")
def difference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A page of two commits, and its answer."""
    folder = tmp_path_factory.mktemp("difference")
    make_repository(folder / "repo")
    write_run(folder / "repo", strength=0.03)
    first = commit(folder / "repo", "first")
    write_run(folder / "repo", strength=0.3)
    found = compare(folder / "repo", first)
    (folder / "diff.html").write_text(compare_page(found), encoding="utf-8")
    return folder / "diff.html", answer(found).sentence()


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three reports."""
    folder = tmp_path_factory.mktemp("past")
    reports(folder / "repo")
    (folder / "history.html").write_text(to_html(history(folder / "repo")), encoding="utf-8")
    return folder / "history.html"


def test_a_comparison_is_quiet_and_begins_with_the_answer(visit, difference) -> None:
    path, sentence = difference
    opened = visit(path)
    assert opened.is_quiet(), (opened.said, opened.asked)
    page = opened.page
    assert page.locator("h1").inner_text() == sentence and sentence.startswith("B is worse")
    rows = page.locator("#rows table.sort tbody tr:visible")
    whole = rows.count()
    page.locator("#rows .filter input").fill("mbiou")
    assert 0 < rows.count() < whole
    page.locator(".enlarge").first.click()
    page.wait_for_selector("dialog[open]")
    assert serious(page) == []


def test_two_reports_are_compared_by_a_click(visit, past: Path) -> None:
    opened = visit(past)
    page = opened.page
    buttons = page.locator("#reports tbody button")
    buttons.nth(2).click()
    buttons.nth(1).press("Enter")
    chosen = page.locator("#chosen")
    assert "hqsam compare" in chosen.inner_text() and "+2.5" in chosen.inner_text()
    assert opened.is_quiet(), (opened.said, opened.asked)
    assert serious(page) == []


@pytest.mark.parametrize("name", ["difference", "past"])
def test_nothing_is_cut_on_a_phone(visit, request: pytest.FixtureRequest, name: str) -> None:
    made = request.getfixturevalue(name)
    page = visit(made[0] if isinstance(made, tuple) else made, *PHONE).page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert serious(page) == []
