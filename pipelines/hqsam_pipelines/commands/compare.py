"""`hqsam compare`: Compare two revisions: which is better, by how much, and is it noise?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsam_base.terminal import say

if TYPE_CHECKING:
    from hqsam_pipelines.compare.comparison import Comparison

app = typer.Typer(help="Compare two revisions: which is better, by how much, and is it noise?")

RevisionA = Annotated[
    str, typer.Argument(metavar="REV_A", help="A git revision: commit, branch or tag.")
]
RevisionB = Annotated[
    str,
    typer.Argument(
        metavar="[REV_B]", help="The revision to judge; default: the files on disk (`workspace`)."
    ),
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained page.")
]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write every row as JSON.")
]
Fail = Annotated[
    bool,
    typer.Option(
        "--fail-on-regression",
        help="Exit with 1 if a row is significantly worse, or if no row could be tested.",
    ),
]
Every = Annotated[
    bool,
    typer.Option("--all", help="Print every system, threshold and size, not only the main rows."),
]


@app.command()
def compare(
    rev_a: RevisionA,
    rev_b: RevisionB = "workspace",
    html: Html = None,
    json: Json = None,
    fail_on_regression: Fail = False,
    every: Every = False,
) -> None:
    """Compare the results of two revisions, without a checkout.

    Metrics come from git, per-instance tables from the DVC cache (or the remote). Prints the
    differences with paired bootstrap intervals and a verdict for each row.
    """
    comparison = _compared(rev_a, rev_b)
    _write(comparison, html, json)
    _show(comparison, every=every)
    if fail_on_regression:
        _gate(comparison)


def _compared(rev_a: str, rev_b: str) -> Comparison:
    from hqsam_base.errors import UserError
    from hqsam_pipelines.compare.comparison import compare as run
    from hqsam_pipelines.config.env import repository_root

    try:
        root = repository_root()
    except FileNotFoundError as error:
        raise UserError(str(error)) from None
    return run(root, rev_a, rev_b)


def _write(comparison: Comparison, html: Path | None, json: Path | None) -> None:
    from hqsam_base.atomic import write_json, write_text
    from hqsam_pipelines.compare.render import to_html, to_json

    if json is not None:
        write_json(json, to_json(comparison))
    if html is not None:
        write_text(html, to_html(comparison))


def _show(comparison: Comparison, *, every: bool) -> None:
    from rich.console import Console

    from hqsam_pipelines.compare.render import show

    console = Console()
    # A pipe or a CI log has no width of its own; 80 columns would cut the numbers.
    show(comparison, console if console.is_terminal else Console(width=150), every=every)


def _gate(comparison: Comparison) -> None:
    """Ends with 1 on a significant regression, or when nothing could be tested."""
    if comparison.regressions:
        names = ", ".join(
            f"{c.benchmark} {c.model} {c.system} {c.metric}" for c in comparison.regressions
        )
        say(f"regression: {names}", err=True)
        raise typer.Exit(1)
    if not comparison.tested:
        say("no row could be tested: see the notes above", err=True)
        raise typer.Exit(1)
