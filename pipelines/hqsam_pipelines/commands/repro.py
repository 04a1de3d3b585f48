"""repro: Run what is out of date, independent stages side by side.

The same work and the same bytes as `dvc repro`, as one Prefect flow over the same graph. `hqsam
repro ablations` makes the profile of that name the active one first, runs it, and shows its table.
`hqsam repro seeds --n 3` trains and scores the active profile with three seeds and shows how far its
numbers move with them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hqsam_base.terminal import say

app = typer.Typer(help="Run what is out of date, independent stages side by side.")


@app.command()
def repro(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Stages (score@coco-nano) or groups (score), with all they need; none: all; "
            "ablations: the paper's grid; seeds: the active profile with several seeds."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", "-j", min=1, help="Stages at the same time.")
    ] = 2,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Run the targets even if nothing changed.")
    ] = False,
    from_dir: Annotated[
        Path | None,
        typer.Option(
            "--from-dir",
            metavar="DIR",
            exists=True,
            file_okay=False,
            resolve_path=True,
            help="Archives that you downloaded yourself, as ARCHIVE/FILE or FILE; default: "
            "data/drop.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--n",
            min=2,
            max=100,
            help="With `seeds`: how many, the own one included.",
            show_default="3",
        ),
    ] = None,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept-code",
            help="Run nothing; accept the outputs of the last run as made by today's code. For "
            "updates that move no number.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write a summary of the run to this file."),
    ] = None,
) -> None:
    """Bring the targets up to date."""
    from hqsam_datasets.fetch.places import DROP_FOLDER_VARIABLE
    from hqsam_pipelines.config import env
    from hqsam_pipelines.runner import repro as runner

    for word in ("ablations", "seeds"):
        if targets and word in targets and len(targets) > 1:
            raise typer.BadParameter(f"`{word}` runs stages of its own: name no others beside it")
    if seeds is not None and targets != ["seeds"]:
        raise typer.BadParameter(f"--n belongs to `hqsam repro seeds --n {seeds}`")
    if from_dir is not None:
        os.environ[DROP_FOLDER_VARIABLE] = str(from_dir)
    root, grid, several = env.repository_root(), targets == ["ablations"], targets == ["seeds"]
    if accept:
        from hqsam_pipelines.config import preflight
        from hqsam_pipelines.runner.accept import accept_code

        preflight.pipeline(root)  # the stage `code`, which asks else, counts as run afterwards
        found = accept_code(root)
        say(
            f"{len(found.accepted)} stages count as made by today's code: "
            f"{', '.join(found.accepted) or 'none'}"
        )
        for name, why in found.left.items():
            say(f"{name} runs again: {why}")
        return
    if grid:
        _switch(root)
    if several:
        from hqsam_pipelines.runner import seeds_run

        outcome = seeds_run.run(root, seeds or 3, workers=workers, force=force)
    else:
        outcome = runner.run(root, [] if grid else targets or [], workers=workers, force=force)
    if json_file is not None:
        runner.write(outcome, json_file)
    for line in outcome.lines():
        say(line, lines=True)
    if outcome.failed:
        raise typer.Exit(1)
    table = "tables/ablations.md" if grid else "seeds/spread.md"
    if grid or several:
        say((root / "reports" / table).read_text(encoding="utf-8"), lines=True)
    if "report" in (*outcome.ran, *outcome.fresh):
        from hqsam_pipelines.runner.last_line import last_line

        say(last_line(root))


def _switch(root: Path) -> None:
    """Make the profile with all rows of configs/ablations the active one, for the data of the one that is active now.

    Raises:
        UserError: the active profile is not a base of a grid: the sample's would say nothing about its
            data.
    """
    from hqsam_base.errors import UserError
    from hqsam_pipelines import ablations
    from hqsam_pipelines.config import profiles
    from hqsam_pipelines.config.params import FILE, Params

    active = Params.load(root / FILE).profile
    base = ablations.PROFILES.get(active, active)
    name = next((name for name, of in ablations.PROFILES.items() if of == base), None)
    if name is None:
        bases = " or ".join(f"`hqsam profile {of}`" for of in ("sample", "paper"))
        problem = f"there is no grid of ablations for the profile {active!r}"
        raise UserError(problem, file=root / FILE, key="profile", cure=f"switch first: {bases}")
    if profiles.switch(root, name):
        say(
            f"params.yaml is now the profile {name}; `hqsam profile {ablations.PROFILES[name]}` "
            f"goes back"
        )
        for line in profiles.prune(root):
            say(line)
