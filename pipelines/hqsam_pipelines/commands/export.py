"""export: Write a model for another runtime, or predictions for other programs and servers.

`hqsam export onnx --checkpoint sam_hq_vit_l.pth --out onnx/`
`hqsam export predictions coco nano --as coco --out coco-results.json`
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsam.model.outputs import Output
from hqsam_base.errors import UserError
from hqsam_base.terminal import say
from hqsam_pipelines.commands._outputs import check_outputs

if TYPE_CHECKING:
    pass

app = typer.Typer(
    no_args_is_help=True,
    help="Write a model for another runtime, or predictions for other programs and servers.",
)


class PartName(StrEnum):
    """Which files."""

    encoder = "encoder"
    decoder = "decoder"
    both = "both"


@app.callback()
def _group() -> None:
    """Write a model for another runtime, or predictions for other programs and servers."""


@app.command()
def onnx(
    checkpoint: Annotated[
        Path, typer.Option(help="Weights: a whole SAM or HQ-SAM, or a model that training wrote.")
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where to write; files of the same name are replaced."),
    ],
    head: Annotated[
        Path | None, typer.Option(help="A trained HQ head, if --checkpoint is a plain SAM.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="vit_b, vit_l, ...; default: detected from the weights.")
    ] = None,
    part: Annotated[
        PartName, typer.Option(help="Image encoder, prompt encoder with decoder, or both.")
    ] = PartName.both,
    output: Annotated[
        Output,
        typer.Option(
            help="SAM + HQ logits, the HQ token alone (best for single objects), or plain SAM."
        ),
    ] = Output.hq_sum,
    multimask: Annotated[
        bool, typer.Option("--multimask", help="SAM's best of three masks, for ambiguous points.")
    ] = False,
    low_res_only: Annotated[
        bool,
        typer.Option(
            "--low-res-only", help="Leave out the masks of the original size (many prompts)."
        ),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Files, sizes and differences as JSON."),
    ] = None,
) -> None:
    """Write ONNX files and compare them with PyTorch: any number of images, of prompts, of points per prompt."""
    from hqsam.export.onnx_files import export_onnx, load_for_export
    from hqsam.export.parts import DecoderOptions, Part
    from hqsam_base.atomic import write_json

    check_outputs({"--json": json_file}, inputs=[checkpoint, head])
    options = DecoderOptions(output.value, multimask, low_res_only)
    both: tuple[Part, ...] = ("encoder", "decoder")
    parts = [name for name in both if part.value in (name, "both")]
    needs_hq = options.needs_early and "decoder" in parts
    model = load_for_export(checkpoint, head=head, backbone=backbone, needs_hq=needs_hq)
    written = export_onnx(model, out, parts=parts, options=options)
    for file in written:
        gap = file.difference
        say(
            f"{file.path}: {file.size / 1e6:.1f} MB, largest difference from PyTorch "
            f"{gap.largest:.1e} (values up to {gap.scale:.1f})"
        )
    if json_file is not None:
        rows = [
            {
                "file": file.path.name,
                "bytes": file.size,
                "largest_difference": file.difference.largest,
                "largest_value": file.difference.scale,
            }
            for file in written
        ]
        write_json(json_file, {"backbone": model.backbone.name, "files": rows})


@app.command()
def predictions(
    benchmark: Annotated[
        str, typer.Argument(help="Its predictions must exist: data/predictions/BENCHMARK-MODEL.")
    ],
    model: Annotated[str, typer.Argument(help="A model of params.yaml.")],
    form: Annotated[
        str, typer.Option("--as", metavar="FORMAT", help="coco, lvis, ytvis, davis, sginw or png.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="The file; for davis, sginw and png a new folder; ytvis: .json or .zip."),
    ],
    system: Annotated[
        str | None,
        typer.Option(help="Whose masks; default: what the benchmark calls HQ-SAM (score.output)."),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="SET", help="Which prompt set, where there are several.")
    ] = None,
) -> None:
    """Write the masks of one system as COCO, LVIS or YouTube-VIS results, DAVIS or SGinW folders, or PNGs.

    Scores follow the benchmark's score_rule. Only reads what the stages wrote.
    """
    from hqsam_base.atomic import atomic_folder
    from hqsam_metrics import exports
    from hqsam_metrics.benchmark import predicted_systems
    from hqsam_metrics.benchmark_data import Benchmark, load_predictions
    from hqsam_pipelines.config.env import repository_root
    from hqsam_pipelines.config.params import Params

    root = repository_root()
    params = Params.load(root / "params.yaml")
    params.entry("models", model)
    options = params.score(benchmark)
    export = exports.load(form)
    data = Benchmark(root / "data" / "benchmarks" / benchmark)
    folder = root / "data" / "predictions" / f"{benchmark}-{model}"
    export.check(data.index["kind"], out)
    if not export.folder:
        check_outputs({"--out": out})
    there = predicted_systems(data.index, folder)
    prompts = _chosen(prompts, sorted(there), "--prompts", folder)
    system = _chosen(system or options.output, there[prompts], "--system", folder)
    masks = load_predictions(data, folder, prompts, system)
    if export.folder:
        with atomic_folder(out) as temporary:
            warnings = export.write(masks, options, temporary)
    else:
        warnings = export.write(masks, options, out)
    for warning in warnings:
        say(f"note: {warning}", err=True)
    say(f"{out}: {len(masks.prompts)} masks of {system}, prompts {prompts}")


def _chosen(given: str | None, there: Sequence[str], option: str, folder: Path) -> str:
    """The one that was given, or the only one."""
    if given in there:
        return str(given)
    if given is None and len(there) == 1:
        return there[0]
    problem = "there are several" if given is None else f"there is no {given!r}"
    raise UserError(problem, file=folder, key=option, cure=f"use one of {', '.join(there)}")
