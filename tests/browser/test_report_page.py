"""The report's page in a real browser: quiet, sorted, filtered, enlarged, on a phone, on paper, for every reader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import serious

OVERVIEW = "#results table.sort"


def column(page: Any, number: int) -> list[str]:
    """The cells of a column of the overview that can be seen."""
    cells = page.locator(f"{OVERVIEW} tbody tr:visible td:nth-child({number})")
    return [str(text).strip() for text in cells.all_inner_texts()]


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-").split()[0]) for text in texts if text]


def test_nothing_is_said_and_nothing_leaves_the_page(visit, report: Path) -> None:
    opened = visit(report)
    assert opened.is_quiet(), (opened.said, opened.asked)
    assert opened.page.title().startswith("SAM against HQ-SAM · sample")


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(visit, report: Path) -> None:
    page = visit(report).page
    head = page.locator(f"{OVERVIEW} .sorter", has_text=re.compile("^SAM$"))
    head.click()
    falling = numbers(column(page, 4))
    assert falling == sorted(falling, reverse=True) and len(set(falling)) > 5
    head.press("Enter")
    assert numbers(column(page, 4)) == falling[::-1]
    # The name of a set is written once a group, but every row of a sorted table has it.
    colours = page.locator(f"{OVERVIEW} .again").evaluate_all(
        "cells => cells.map(cell => getComputedStyle(cell).color)"
    )
    assert "rgba(0, 0, 0, 0)" not in colours


def test_every_count_of_the_card_is_of_rows_that_can_be_seen(visit, report: Path) -> None:
    page = visit(report).page
    rows = page.locator(f"{OVERVIEW} tbody tr").evaluate_all(
        "rows => rows.filter(row => !row.textContent.includes('Mean of the four'))"
        ".map(row => row.cells[5].firstElementChild.className)"
    )
    card = page.locator(".card").last
    assert card.locator(".value").inner_text() == f"{rows.count('up')} ahead"
    told = re.findall(r"(\d+) ([a-z ]+)", card.locator(".unit").inner_text())
    assert sum(int(count) for count, _ in told) == len(rows) - rows.count("up")
    assert f"the {len(rows)} rows" in card.locator(".more").inner_text()
    assert 0 < rows.count("up") < len(rows)
    # Each row of the table has its line in the chart, and each interval its whisker.
    known = page.locator(f"{OVERVIEW} tbody td:nth-child(6) .ci", has_text="[").count()
    assert page.locator("#results svg .name").count() == len(column(page, 1))
    assert page.locator("#results svg .whisker").count() == known > 3


def test_rows_are_filtered_by_words(visit, report: Path) -> None:
    page = visit(report).page
    page.locator("#results .filter input").fill("mbiou coift")
    assert column(page, 1) == ["COIFT"] and column(page, 3) == ["mBIoU"]
    page.locator("#results .filter input").fill("")
    assert len(column(page, 1)) > 8


def test_pictures_are_enlarged_by_mouse_and_keyboard(visit, report: Path) -> None:
    page = visit(report).page
    page.locator(".enlarge").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    caption = page.locator("dialog p").first
    first = caption.inner_text()
    assert "(1 of " in first and page.locator("dialog input[type=range]").is_visible()
    page.keyboard.press("ArrowRight")
    assert "(2 of " in caption.inner_text()
    page.keyboard.press("4")
    pressed = page.locator("dialog button[aria-pressed=true]")
    assert pressed.inner_text() == "Ground truth"
    assert not page.locator("dialog input[type=range]").is_visible()
    page.wait_for_function(  # a picture, not a blank
        """() => { const canvas = document.querySelector("dialog canvas");
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(pixels.data).size > 20; }"""
    )
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_without_scripts_everything_can_be_read(visit, report: Path) -> None:
    page = visit(report, java_script_enabled=False).page
    assert page.locator(f"{OVERVIEW} tbody tr").count() > 8
    assert (
        page.locator("figure img").first.is_visible() and page.locator("nav a").first.is_visible()
    )


def test_a_phone_shows_everything(visit, report: Path) -> None:
    page = visit(report, 390, 844).page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not page.locator("nav a").first.is_visible()  # folded
    page.locator("nav summary").click()
    page.locator("nav a").first.click()
    assert not page.locator("nav a").first.is_visible()
    box = page.locator("#results .scroll").nth(1)
    box.evaluate("element => { element.scrollLeft = 200; }")
    name = page.locator(f"{OVERVIEW} tbody td").first.bounding_box()
    assert name["x"] >= 0 and name["width"] > 80  # the first column stays


def test_print_cuts_nothing_off(visit, report: Path) -> None:
    page = visit(report).page
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 portrait less its margins
    wide = page.evaluate(
        "[...document.querySelectorAll('table, figure, svg, dl')].filter(e => e.checkVisibility()"
        " && e.getBoundingClientRect().right > 690).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert page.pdf(prefer_css_page_size=True)[:5] == b"%PDF-"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, report: Path, scheme: str) -> None:
    page = visit(report, color_scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert serious(page) == []
