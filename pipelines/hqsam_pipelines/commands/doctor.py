"""doctor: Check that this machine and this checkout can run the pipeline.

Exit status 1 if something would fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check that this machine and this checkout can run the pipeline.")


@app.command()
def doctor(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the findings here, too.")
    ] = None,
) -> None:
    """Look at Python, libraries, disk, memory, GPU, git, DVC, the Prefect server, params.yaml and left-over outputs."""
    from hqsam_pipelines import doctor as checks

    findings = checks.examine(Path.cwd())
    for finding in findings:
        typer.echo(f"{finding.mark:<5} {finding.what:<14} {finding.detail}")
    if json_file is not None:
        checks.write(findings, json_file)
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)
