"""evaluate: Evaluate models and predictions on a benchmark, without an edit of params.yaml.

`hqsam evaluate --benchmark coift --model nano --model ../sam2.1-hiera-tiny`
`hqsam evaluate --benchmark coco --model nano --predictions theirs.json`
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hqsam_base.terminal import say, styled

app = typer.Typer(
    help="Evaluate models and predictions on a benchmark, without an edit of params.yaml."
)


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@app.command()
def evaluate(
    benchmark: Annotated[str, typer.Option(help="An evaluation set of params.yaml.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]X",
            help="A model of params.yaml, a checkpoint file, a folder of the transformers library, "
            "or OWNER/NAME@COMMIT on the hub. May be given several times.",
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Masks of another program: COCO, LVIS or YouTube-VIS results, a folder of PNGs, "
            "a DAVIS folder. May be given several times.",
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(metavar="SET", help="Prompt set; default: those of params.yaml. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: evaluations/BENCHMARK.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Device; auto: a GPU if there is one.")] = (
        Device.auto
    ),
) -> None:
    """Predict and score every system under the same prompts and print one table with paired intervals.

    Each system is compared with SAM of the same run, or with the first system where there is none.
    Training data are not needed. The files are those of the stages, in a folder of their own.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from hqsam_pipelines import evaluate as evaluation
    from hqsam_pipelines.config import preflight
    from hqsam_pipelines.config.env import repository_root
    from hqsam_pipelines.runner.progress import ProgressDisplay

    root = repository_root()
    params = preflight.load(root)
    wanted = evaluation.requested(params, model or [], predictions or [], benchmark)
    with ProgressDisplay(f"evaluate-{benchmark}") as progress:
        found = evaluation.evaluate(
            root=root,
            params=wanted,
            prompts=prompts or [],
            out=out or root / "evaluations" / benchmark,
            progress=progress,
            device=device.value,
        )
    shown = Table(title=benchmark, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("prompts", "metric", "system"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("value", justify="right")
    shown.add_column("against", no_wrap=True)
    for name in ("Δ", "95 % interval"):
        shown.add_column(name, justify="right", no_wrap=True)
    before = ""
    for line in found.lines:
        cells = evaluation.shown(line)
        if before and cells[0] + cells[1] != before:
            shown.add_section()
        before = cells[0] + cells[1]
        shown.add_row(*(styled(cell) for cell in cells))
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)  # a pipe or a log has no width of its own
    console.print(shown)
    for warning in found.warnings:
        say(f"warning: {warning}", err=True)
    for file in found.files:
        say(str(file))
