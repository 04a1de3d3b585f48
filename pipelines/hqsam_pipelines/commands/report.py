"""report: Write the numbers of the last report into a README.

`hqsam report readme`
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hqsam_base.errors import UserError
from hqsam_base.terminal import say

app = typer.Typer(no_args_is_help=True, help="Write the numbers of the last report elsewhere.")


@app.callback()
def _group() -> None:
    """Write the numbers of the last report elsewhere."""


@app.command()
def readme(
    file: Annotated[
        Path | None, typer.Argument(help="A Markdown file; default: README.md of the repository.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit status 1 if it is out of date.")
    ] = False,
) -> None:
    """Replace the numbers between the two marks by those of `reports/tables`."""
    from hqsam_pipelines.config.env import repository_root
    from hqsam_pipelines.report import readme as numbers

    root = repository_root()
    path, tables = file or root / "README.md", root / "reports" / "tables"
    if not path.is_file():
        raise UserError("there is no such file", file=path, cure="give an existing Markdown file")
    if check:
        if numbers.updated(path, tables)[1]:
            raise UserError(
                "the numbers are not those of the report",
                file=path,
                cure="run `hqsam report readme`",
            )
        say(f"{path}: up to date")
        return
    say(f"{path}: {'written' if numbers.write(path, tables) else 'up to date'}")
