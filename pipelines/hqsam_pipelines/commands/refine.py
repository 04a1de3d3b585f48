"""refine: Refine predictions with CascadePSP, CRM or GrabCut and score them beside the original ones.

`hqsam refine coift nano --refiner grabcut --json out.json`
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hqsam.model.outputs import Output
from hqsam_base.terminal import say

app = typer.Typer(
    help="Refine predictions with CascadePSP, CRM or GrabCut and score them beside the original "
    "ones."
)


class Device(StrEnum):
    """Device of a network."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@app.command()
def refine(
    benchmark: Annotated[
        str, typer.Argument(help="Its predictions must exist: data/predictions/BENCHMARK-MODEL.")
    ],
    model: Annotated[str, typer.Argument(help="A model of params.yaml.")],
    refiner: Annotated[
        str, typer.Option(help="A file of hqsam/refiners/: cascadepsp, crm, grabcut, ...")
    ],
    system: Annotated[
        str, typer.Option(help="System to refine; the paper refines SAM's.")
    ] = Output.sam.value,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The refiner's weights.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(metavar="DIR", help="crm: checkout of the authors' code.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Device of a network.")] = Device.auto,
    long_side: Annotated[
        int, typer.Option(min=96, help="cascadepsp: pixels of the global step (its L).")
    ] = 900,
    fast: Annotated[
        bool, typer.Option("--fast", help="cascadepsp: the global step alone.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")
    ] = None,
) -> None:
    """Refine each mask of one system and print the scores before and after, with the paired difference.

    Only reads what the stages wrote; no output of the pipeline changes. For a refiner in the tables
    of the report give params.yaml a section `systems` with an entry of kind `refined`.
    """
    from hqsam import refiners
    from hqsam.prediction.refine import evaluate
    from hqsam_base.atomic import write_json
    from hqsam_pipelines.commands._outputs import check_outputs
    from hqsam_pipelines.config import preflight
    from hqsam_pipelines.config.env import repository_root
    from hqsam_pipelines.runner.progress import ProgressDisplay

    check_outputs({"--json": json}, inputs=[weights])
    root = repository_root()
    params = preflight.load(root)
    params.entry("models", model)
    score = params.score(benchmark)
    options = refiners.RefinerOptions(
        weights=weights, repository=repository, device=device.value, long_side=long_side, fast=fast
    )
    opened = refiners.load(refiner).open(options)
    with ProgressDisplay(f"refine-{benchmark}-{model}") as progress:
        found = evaluate(
            benchmark=root / "data" / "benchmarks" / benchmark,
            predictions=root / "data" / "predictions" / f"{benchmark}-{model}",
            system=system,
            opened=opened,
            options=score,
            progress=progress,
        )
    if json is not None:
        write_json(json, found)
    if not found["refiner"].get("weights_published", True):
        say("note: these are not the published weights of the refiner", err=True)
    for result in found["results"]:
        _show(result, f"{benchmark}-{model}", system, refiner)


def _show(result: dict[str, Any], name: str, system: str, refiner: str) -> None:
    from hqsam_metrics.base import score_of

    score = score_of(result["original"]["protocol"])
    say(
        f"{name}, {result['prompt_set']}, {result['refined']['n_scored']} scored (fractions times "
        f"100)"
    )
    for label, key in ((system, "original"), (f"{system} + {refiner}", "refined")):
        values = [
            (k, v, score.value(k).scale) for k, v in result[key]["metrics"].items() if v is not None
        ]
        say(
            f"  {label:<24} "
            + "  ".join(f"{scale.label(k)} {scale.factor * v:.1f}" for k, v, scale in values)
        )
    for value, d in result["differences"].items():
        scale = score.column_scale(value)
        tested = "too few images to tell"
        if d["low"] is not None:
            low, high = (scale.factor * d[name] for name in ("low", "high"))
            tested = f"[{low:+.1f}, {high:+.1f}], p = {d['p_value']:.3g}"
        say(
            f"  difference of {scale.label(value)}: {scale.factor * d['difference']:+.1f} {tested}, "
            f"{d['n_pairs']} instances in {d['n_clusters']} clusters"
        )
