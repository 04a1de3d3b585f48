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
Markdown = Annotated[
    Path | None, typer.Option("--md", metavar="FILE", help="Write the answer as Markdown.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print the answer's one line only.")]
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
    md: Markdown = None,
    every: Every = False,
    quiet: Quiet = False,
) -> None:
    """Compare the results of two revisions, without a checkout.

    Metrics come from git, per-instance tables from the DVC cache (or the remote). Prints the
    answer in one line, then the headline rows with their intervals. Exit status: 0 no regression,
    1 a headline row is worse, 2 usage, 3 the revisions cannot be compared.
    """
    from hqsam_base.errors import UserError
    from hqsam_pipelines.compare.answer import answer

    try:
        comparison = _compared(rev_a, rev_b)
    except UserError as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(3) from None
    _write(comparison, html, json, md)
    found = answer(comparison)
    if quiet:
        say(found.line)
    else:
        _show(comparison, every=every)
    raise typer.Exit(found.exit_status)


def _compared(rev_a: str, rev_b: str) -> Comparison:
    from hqsam_base.errors import UserError
    from hqsam_pipelines.compare.comparison import compare as run
    from hqsam_pipelines.config.env import repository_root

    try:
        root = repository_root()
    except FileNotFoundError as error:
        raise UserError(str(error)) from None
    return run(root, rev_a, rev_b)


def _write(comparison: Comparison, html: Path | None, json: Path | None, md: Path | None) -> None:
    from hqsam_base.atomic import write_json, write_text
    from hqsam_pipelines.compare.render import to_html, to_json, to_markdown

    if json is not None:
        write_json(json, to_json(comparison))
    if html is not None:
        write_text(html, to_html(comparison))
    if md is not None:
        write_text(md, to_markdown(comparison))


def _show(comparison: Comparison, *, every: bool) -> None:
    from rich.console import Console

    from hqsam_pipelines.compare.render import show

    show(comparison, Console(), every=every)
