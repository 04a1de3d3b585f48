"""profile: Switch to another ready profile of configs/.

`hqsam profile paper` replaces params.yaml by configs/paper.yaml; the switch is a diff of params.yaml.
"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Switch to another ready profile of configs/.")


@app.command()
def profile(
    name: Annotated[str | None, typer.Argument(help="A file of configs/ without `.yaml`; none: list them.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace params.yaml even if it holds changes of your own.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave outputs that the new profile does not have.")] = False,
) -> None:
    """Make a profile the active one and take away the outputs that it does not have (they stay in DVC's cache)."""
    from hqsam_pipelines import env, profiles

    root = env.repository_root()
    if name is None:
        for known, active in profiles.listing(root):
            typer.echo(f"{'*' if active else ' '} {known}")
        return
    switched = profiles.switch(root, name, force=force)
    typer.echo(f"params.yaml is now configs/{name}.yaml" if switched else f"{name} is active already")
    if not keep:
        for path in profiles.prune(root):
            typer.echo(f"removed {path} (not part of this profile)")
