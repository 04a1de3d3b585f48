"""checkpoint: Identify a checkpoint, or convert it to another format.

`hqsam checkpoint inspect sam_hq_vit_l.pth`, `hqsam checkpoint convert models/nano merged.pth --to
hq_sam`
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hqsam_base.terminal import say
from hqsam_pipelines.commands._outputs import check_outputs

app = typer.Typer(
    no_args_is_help=True, help="Identify a checkpoint, or convert it to another format."
)


class Target(StrEnum):
    """Formats that can be written."""

    hq_sam = "hq_sam"
    sam = "sam"
    hq_decoder = "hq_decoder"
    sam_decoder = "sam_decoder"
    hq_head = "hq_head"
    hf_sam_hq = "hf_sam_hq"


@app.command()
def inspect(
    file: Annotated[
        Path, typer.Argument(help="A .pth or .safetensors file, or the folder of a trained model.")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the same as JSON.")
    ] = None,
) -> None:
    """Print format, backbone, variant, parameter counts, SHA-256 and notes of a checkpoint."""
    from hqsam.model.convert import inspect
    from hqsam_base.atomic import write_json

    check_outputs({"--json": json_file}, inputs=[file])
    found = inspect(file)
    rows: dict[str, object] = {
        "format": found.format,
        "backbone": found.backbone,
        "variant": found.variant,
        "sha256": found.sha256,
        "published_as": found.published_as,
        "parameters": found.parameters,
        "dtypes": found.dtypes,
        "metadata": found.metadata,
    }
    if json_file is not None:
        write_json(json_file, {"file": file.name, **rows})
    for name, value in rows.items():
        if isinstance(value, dict):
            value = ", ".join(
                f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items()
            )
        say(f"{name:<13} {value or '-'}")


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint of any known format, or a folder with one: of training, of Hugging "
            "Face."
        ),
    ],
    target: Annotated[Path, typer.Argument(help=".pth or .safetensors; for hf_sam_hq a folder.")],
    to: Annotated[Target, typer.Option(help="Format to write; hq_sam is the official merged one.")],
    backbone: Annotated[
        str | None, typer.Option(help="Default: detected from the weights.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="SAM's weights, if SOURCE holds a trained head only.")
    ] = None,
) -> None:
    """Write a checkpoint in another format; the weights stay the same."""
    from hqsam.model.convert import write
    from hqsam.model.load import load_any
    from hqsam.model.weight_files import files_of, weights_file

    if to is not Target.hf_sam_hq:
        check_outputs({"TARGET": target}, inputs=[*files_of(weights_file(source)), base])
    without_hq = f"choose --to {Target.sam.value}" if to.value.startswith(("hq", "hf")) else None
    write(load_any(source, backbone=backbone, base=base, without_hq=without_hq), target, to.value)
    say(f"wrote {target} ({to.value})")
