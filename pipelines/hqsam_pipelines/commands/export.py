"""export: Write a model for another runtime.

`hqsam export onnx --checkpoint sam_hq_vit_l.pth --out onnx/`
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsam.model.outputs import Output
from hqsam_base.terminal import say
from hqsam_pipelines.commands._outputs import check_outputs

if TYPE_CHECKING:
    from hqsam.export.onnx_files import Exported

app = typer.Typer(no_args_is_help=True, help="Write a model for another runtime.")


class PartName(StrEnum):
    """Which files."""

    encoder = "encoder"
    decoder = "decoder"
    both = "both"


@app.callback()
def _group() -> None:
    """Write a model for another runtime."""


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
        say(_line(file))
    if json_file is not None:
        write_json(
            json_file, {"backbone": model.backbone.name, "files": [_row(file) for file in written]}
        )


def _line(file: Exported) -> str:
    gap = file.difference
    values = f"values up to {gap.scale:.1f}"
    return (
        f"{file.path}: {file.size / 1e6:.1f} MB, largest difference from PyTorch "
        f"{gap.largest:.1e} ({values})"
    )


def _row(file: Exported) -> dict[str, object]:
    gap = file.difference
    return {
        "file": file.path.name,
        "bytes": file.size,
        "largest_difference": gap.largest,
        "largest_value": gap.scale,
    }
