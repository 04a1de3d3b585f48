"""history: The headline numbers of every commit that carries a report, as curves and a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsam_base.terminal import say
from hqsam_pipelines.commands import completion

if TYPE_CHECKING:
    from rich.console import Console

    from hqsam_pipelines.compare.history import History

app = typer.Typer(help="The headline numbers of every commit that carries a report.")


@app.command()
def history(
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="REV",
            help="The first commit; default: all.",
            autocompletion=completion.revisions,
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="A metric or benchmark; may be repeated; default: all.",
            autocompletion=completion.rows,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with curves and a table."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--md", metavar="FILE", help="Write Markdown; -: print it.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write every number; -: print it.")
    ] = None,
) -> None:
    """Show the headline numbers of every commit that carries a report, newest first.

    Read from git: no checkout, no tables. An interval is that of HQ-SAM minus SAM at its commit,
    moved to HQ-SAM's value. `hqsam compare A B` says whether two commits differ.
    """
    from hqsam_base.atomic import write_text
    from hqsam_base.errors import UserError
    from hqsam_pipelines.commands._outputs import check_outputs
    from hqsam_pipelines.compare import history as work
    from hqsam_pipelines.config.env import repository_root

    printed = Path("-")
    outputs = {"--html": html, "--md": markdown, "--csv": csv}
    files = {option: path for option, path in outputs.items() if path not in (None, printed)}
    check_outputs(files)
    try:
        root = repository_root()
    except FileNotFoundError as error:
        raise UserError(str(error)) from None
    found = work.history(root, since=since, metrics=metrics or ())
    forms = {"--html": work.to_html, "--md": work.to_markdown, "--csv": work.to_csv}
    for option, path in outputs.items():
        if path is not None and path != printed:
            write_text(path, forms[option](found))
    texts = [forms[option](found) for option, path in outputs.items() if path == printed]
    for text in texts:
        say(text.rstrip("\n"), lines=True)
    if not texts:
        from rich.console import Console

        _show(found, Console(highlight=False))


def _show(found: History, console: Console) -> None:
    """Prints a table; columns that do not fit are left out and counted."""
    from rich.table import Table

    from hqsam_base.terminal import styled
    from hqsam_pipelines.compare.history import label, shown, value

    rows, room = [], console.width - len("abcdef012 2026-01-01 ")
    for row in shown(found):
        texts = [label(row, found.rows), *(value(entry, row) for entry in found.entries)]
        room -= max(map(len, texts)) + 1
        if room >= 0:
            rows.append(row)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("commit", "date"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_column(styled(label(row, found.rows)), justify="right", no_wrap=True)
    for entry in reversed(found.entries):
        values = (styled(value(entry, row)) for row in rows)
        table.add_row(entry.sha[:9], entry.date, *values)
    console.print(table)
    left = len(found.rows) - len(rows)
    if left:
        say(f"{left} more headline rows: --metric NAME, --csv -, --html FILE")
    for note in found.notes:
        say(f"note: {note}")
