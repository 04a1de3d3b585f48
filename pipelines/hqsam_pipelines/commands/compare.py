"""`hqsam compare`: Is this commit better than that one, by how much, and is it noise?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsam_base.terminal import say
from hqsam_pipelines.commands import completion

if TYPE_CHECKING:
    from hqsam_pipelines.compare.comparison import Comparison

app = typer.Typer(help="Is this commit better than that one, by how much, and is it noise?")

NOT_COMPARABLE = 3


Revisions = Annotated[
    list[str],
    typer.Argument(
        metavar="REV_A [REV_B ...]",
        help="Git revisions: commit, branch or tag. B is judged; default: the files on disk "
        "(`workspace`). Of several, each is judged against A.",
        autocompletion=completion.revisions,
    ),
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained page.")
]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write every row as JSON.")
]
Markdown = Annotated[
    Path | None,
    typer.Option(
        "--md", metavar="FILE", help="Write Markdown, to paste into a pull request; -: print it."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer alone, on one line.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="NAME",
        help="Ask about these rows alone: a benchmark, metric, prompt set or model; may be "
        "repeated.",
        autocompletion=completion.rows,
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top", min=1, metavar="N", help="Print the N headline rows farthest from noise."
    ),
]
Every = Annotated[
    bool,
    typer.Option("--all", help="Print every system, threshold and size, not only headline rows."),
]


@app.command()
def compare(
    revisions: Revisions,
    html: Html = None,
    json: Json = None,
    markdown: Markdown = None,
    quiet: Quiet = False,
    only: Only = None,
    top: Top = None,
    every: Every = False,
) -> None:
    """Compare the results of two revisions, without a checkout.

    Metrics and small per-instance tables come from git, larger tables from the DVC cache or remote.
    The answer comes first, then the headline rows with their intervals and verdicts.

    Exit status: 0 no regression, 1 a headline row is worse, 2 wrong usage, 3 it cannot be told.
    """
    from hqsam_base.errors import UserError
    from hqsam_pipelines.commands._outputs import check_outputs
    from hqsam_pipelines.compare.answer import answer

    paste = markdown is not None and str(markdown) == "-"
    outputs = {"--html": html, "--json": json, "--md": None if paste else markdown}
    try:
        check_outputs(outputs)
    except UserError as error:
        raise typer.BadParameter(str(error)) from None
    if len(revisions) > 2 and any(path is not None for path in outputs.values()):
        raise typer.BadParameter("a file compares two revisions; `hqsam history` has all")
    first, *others = revisions
    try:
        comparisons = [
            _compared(first, other, only=only or ()) for other in others or ["workspace"]
        ]
    except UserError as error:
        say(f"Error: {error}", err=True, lines=True)
        raise typer.Exit(NOT_COMPARABLE) from None
    if len(comparisons) == 1:
        _write(comparisons[0], outputs, every=every, top=top)
    _print(comparisons, markdown=paste, quiet=quiet, every=every, top=top)
    statuses = {answer(comparison).status for comparison in comparisons}
    if status := next((s for s in (1, NOT_COMPARABLE) if s in statuses), 0):
        raise typer.Exit(status)


def _compared(rev_a: str, rev_b: str, *, only: list[str] | tuple[()]) -> Comparison:
    from hqsam_base.errors import UserError
    from hqsam_pipelines.compare.comparison import compare as run
    from hqsam_pipelines.config.env import repository_root

    try:
        root = repository_root()
    except FileNotFoundError as error:
        raise UserError(str(error)) from None
    return run(root, rev_a, rev_b, only=only)


def _write(
    comparison: Comparison, outputs: dict[str, Path | None], *, every: bool, top: int | None
) -> None:
    from hqsam_base.atomic import write_json, write_text
    from hqsam_pipelines.compare.as_json import to_json
    from hqsam_pipelines.compare.markdown import to_markdown
    from hqsam_pipelines.compare.page import to_html

    if (json := outputs["--json"]) is not None:
        write_json(json, to_json(comparison))
    if (html := outputs["--html"]) is not None:
        write_text(html, to_html(comparison))
    if (markdown := outputs["--md"]) is not None:
        write_text(markdown, to_markdown(comparison, every=every, top=top))


def _print(
    comparisons: list[Comparison], *, markdown: bool, quiet: bool, every: bool, top: int | None
) -> None:
    """Prints the comparison, or each revision against the first, in the form that was asked for."""
    from rich.console import Console

    from hqsam_pipelines.compare.answer import answer
    from hqsam_pipelines.compare.markdown import to_markdown
    from hqsam_pipelines.compare.terminal import show, show_several

    several = len(comparisons) > 1
    if quiet:
        for comparison in comparisons:
            say(answer(comparison).sentence(comparison.b.label if several else "B"))
    elif markdown and several:
        say("\n".join(map(to_markdown, comparisons)).rstrip("\n"), lines=True)
    elif markdown:
        say(to_markdown(comparisons[0], every=every, top=top).rstrip("\n"), lines=True)
    elif several:
        show_several(comparisons, Console(highlight=False))
    else:
        show(comparisons[0], Console(highlight=False), every=every, top=top)
