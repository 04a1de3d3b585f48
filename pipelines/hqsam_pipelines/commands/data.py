"""data: Look at samples and their prompts, check a folder of your own, read the data sheets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hqsam_datasets.folder_check import Finding

app = typer.Typer(help="Look at samples and their prompts, check a folder of your own, read the data sheets.")

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here, too.")]
_SHOWN = 5


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="Key of a training sample, e.g. ecssd_0001.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="PNG", help="Where to draw; default: KEY.png.")] = None,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The pipeline's data folder.")] = Path("data"),
    json_file: Json = None,
) -> None:
    """Draw a training sample: picture, masks, and each augmented view with box, points and noisy mask."""
    from hqsam_datasets import atomic, drawing, images, lookup

    found = lookup.find_sample(key, data)
    target = out or Path(f"{key}.png")
    atomic.write_bytes(target, images.encode_png(drawing.draw_sample(found.sample, found.views, found.noises)))
    sample = found.sample
    facts = {name: value for name, value in found.row.items() if not isinstance(value, bytes)}
    typer.echo(f"{key}: {sample.width}x{sample.height}, {len(sample.instances)} instance(s), in {found.where}")
    for name in ("origin_image", "origin_mask", "image_mode", "exif_orientation", "mask_encoding", "fg_fraction"):
        if name in facts:
            typer.echo(f"  {name:<17}{facts[name]}")
    for view in found.views:
        typer.echo(f"  view {view['view']}: prompt {view['prompt']}, {view['n_foreground']} foreground pixels")
    typer.echo(f"drawn to {target}")
    if json_file is not None:
        atomic.write_json(json_file, {"key": key, "manifest": facts, "views": found.views, "drawing": str(target)})


@app.command()
def doctor(
    path: Annotated[Path, typer.Argument(help="A folder with images and masks.")],
    images: Annotated[str | None, typer.Option("--images", help="Subfolder of the images.")] = None,
    masks: Annotated[str | None, typer.Option("--masks", help="Subfolder of the masks.")] = None,
    json_file: Json = None,
) -> None:
    """Say in plain words what is wrong with a folder of images and masks. Exit status 1 if it is not usable."""
    from hqsam_datasets import atomic
    from hqsam_datasets.folder_check import examine

    findings = examine(path, image_folder=images, mask_folder=masks, report=lambda done, total, what: None)
    for finding in findings:
        _print(finding)
    if json_file is not None:
        rows = [{"level": f.level, "text": f.text, "files": list(f.files)} for f in findings]
        atomic.write_json(json_file, {"folder": str(path), "findings": rows})
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


@app.command()
def sheet(
    source: Annotated[str | None, typer.Argument(help="A training source; none: list them.")] = None,
) -> None:
    """Print the data sheet of a training source: licence, citation, layout, known bad files."""
    from hqsam_datasets import sources

    if source is None:
        for name in sources.names():
            typer.echo(f"{name:<14}{sources.load(name).sheet.title}")
        return
    facts = sources.load(source).sheet
    for name in ("title", "url", "licence", "citation", "n_pairs", "layout", "notes"):
        typer.echo(f"{name:<10}{getattr(facts, name)}")
    for title, table in (("checksums", facts.checksums), ("known bad", facts.known_bad), ("strays", facts.strays)):
        for name, text in table.items():
            typer.echo(f"{title:<10}{name}: {text}")


def _print(finding: Finding) -> None:
    typer.echo(f"{finding.level:<8}{finding.text}")
    for name in finding.files[:_SHOWN]:
        typer.echo(f"           {name}")
    if len(finding.files) > _SHOWN:
        typer.echo(f"           and {len(finding.files) - _SHOWN} more")
