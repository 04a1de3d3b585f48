"""repro: Run what is out of date, independent stages side by side.

The same work and the same bytes as `dvc repro`, as one Prefect flow over the same graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Run what is out of date, independent stages side by side.")


@app.command()
def repro(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Stages (score@coco-nano) or groups (score), with all they need; none: all."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-j", min=1, help="Stages at the same time.")] = 2,
    force: Annotated[bool, typer.Option("--force", "-f", help="Run the targets even if nothing changed.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write what happened here.")] = None,
) -> None:
    """Bring the targets up to date."""
    from hqsam_pipelines import env, reproduce

    outcome = reproduce.run(env.repository_root(), targets or [], workers=workers, force=force)
    if json_file is not None:
        reproduce.write(outcome, json_file)
    for line in outcome.lines():
        typer.echo(line)
    if outcome.failed:
        raise typer.Exit(1)
