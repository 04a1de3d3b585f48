"""profile: Switch to another ready profile of configs/.

`hqsam profile paper` replaces params.yaml by configs/paper.yaml; the switch is a diff of
params.yaml.
"""

from __future__ import annotations

from typing import Annotated

import typer

from hqsam_base.terminal import say

app = typer.Typer(help="Switch to another ready profile of configs/.")


@app.command()
def profile(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A file of configs/ or configs/overlays/ without `.yaml`; none: list them."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace params.yaml even if it holds changes of your own."),
    ] = False,
    prune: Annotated[
        bool | None,
        typer.Option(
            "--prune/--no-prune",
            help="Remove outputs that the profile does not have (they stay in DVC's cache, or move to "
            ".hqsam/aside); default: when switching.",
        ),
    ] = None,
) -> None:
    """Make a profile the active one; without a name, list them (with --prune: tidy up after an edit of params.yaml)."""
    from hqsam_pipelines.config import env, profiles

    root = env.repository_root()
    if name is None:
        for known, active in profiles.listing(root):
            say(f"{'*' if active else ' '} {known}")
    else:
        switched = profiles.switch(root, name, force=force)
        say(f"params.yaml is now the profile {name}" if switched else f"{name} is active already")
    if prune or (prune is None and name is not None):
        for line in profiles.prune(root):
            say(line)
    if name is not None:
        for line in profiles.restore(root):
            say(line)
