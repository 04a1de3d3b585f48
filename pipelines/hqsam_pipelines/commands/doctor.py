"""doctor: Check that this machine and this checkout can run the pipeline; `doctor data PATH`: check a folder of your own data.

`doctor urls` asks the mirrors of the active profile. `doctor licences` lists the licences of all dependencies.

Exit status 1 if something would fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hqsam_base.terminal import say

if TYPE_CHECKING:
    pass

app = typer.Typer(
    help="Check that this machine and this checkout can run the pipeline, or a folder of your own "
    "data."
)

Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write the findings to this file."),
]
_SHOWN = 5


@app.callback(invoke_without_command=True)
def doctor(context: typer.Context, json_file: Json = None) -> None:
    """Look at Python, libraries, variables, machine, GPU, git, DVC, Prefect, Ray, params.yaml and left-over outputs."""
    if context.invoked_subcommand is not None:
        return
    from hqsam_pipelines.runner import doctor as checks

    findings = checks.examine(Path.cwd())
    for finding in findings:
        say(f"{finding.mark:<5} {finding.what:<14} {finding.detail}")
    if json_file is not None:
        checks.write(findings, json_file)
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


@app.command()
def urls(json_file: Json = None) -> None:
    """Ask every mirror of the active profile for its headers, in less than a minute; nothing is downloaded.

    Exit status 1 if no mirror gives a file that is needed.
    """
    from hqsam_base import atomic
    from hqsam_datasets.fetch import mirrors
    from hqsam_datasets.fetch.places import drop_folder, dropped
    from hqsam_pipelines.config import env
    from hqsam_pipelines.config.params import FILE, Params

    root = env.repository_root()
    params = Params.load(root / FILE)
    archives = {name: params.archive(name) for name in params.archives}
    found = mirrors.ask_all(archives)
    for mirror in found:
        say(f"{mirror.state:<11}{mirror.archive}/{mirror.file}  {mirror.url}")
        say(f"           {mirror.detail}")
    if json_file is not None:
        rows = [{**vars(mirror), "usable": mirror.usable} for mirror in found]
        atomic.write_json(json_file, {"mirrors": rows})
    drop = drop_folder(root / "data" / "archives" / "any")
    here = {
        f"{name}/{file.name}"
        for name, spec in archives.items()
        for file in spec.files
        if dropped(drop, name, file)
    }
    lost = [name for name in mirrors.unreachable(found, archives) if name not in here]
    say(f"{sum(mirror.usable for mirror in found)} of {len(found)} mirrors can be used")
    for name in lost:
        say(f"no mirror gives {name}: download it by hand into {drop} (docs/archives.md)")
    if lost:
        raise typer.Exit(1)


@app.command()
def licences(json_file: Json = None) -> None:
    """List the licence of every package that this installation uses, as stated in its metadata."""
    from hqsam_base import atomic
    from hqsam_pipelines.runner.licences import licences as found

    rows = found()
    for row in rows:
        say(f"{row.name:<32} {row.version:<18} {row.licence}")
    if json_file is not None:
        atomic.write_json(json_file, {"packages": [vars(row) for row in rows]})


@app.command()
def data(
    path: Annotated[Path, typer.Argument(help="A folder with images and masks.")],
    images: Annotated[str | None, typer.Option("--images", help="Subfolder of the images.")] = None,
    masks: Annotated[str | None, typer.Option("--masks", help="Subfolder of the masks.")] = None,
    kind: Annotated[
        Literal["folder", "label_maps"],
        typer.Option("--kind", help="A mask is one object, or a map of labels."),
    ] = "folder",
    annotations: Annotated[
        str | None,
        typer.Option(
            "--annotations", help="COCO or LVIS file in the folder, in place of mask files."
        ),
    ] = None,
    json_file: Json = None,
) -> None:
    """Report what is wrong with a folder of images and masks; exit status 1 if it is unusable."""
    from hqsam_base import atomic
    from hqsam_datasets.diagnose import annotations as annotation_check
    from hqsam_datasets.diagnose import folder
    from hqsam_pipelines.commands._outputs import check_outputs
    from hqsam_pipelines.runner.progress import ProgressDisplay

    check_outputs({"--json": json_file}, inputs=[path / annotations] if annotations else [])

    with ProgressDisplay("doctor") as progress:
        if annotations is not None:
            findings = annotation_check.examine(
                path, annotations=annotations, image_folder=images, progress=progress
            )
        else:
            findings = folder.examine(
                path, image_folder=images, mask_folder=masks, kind=kind, progress=progress
            )
    for finding in findings:
        say(f"{finding.level:<8}{finding.text}")
        for name in finding.files[:_SHOWN]:
            say(f"           {name}")
        if len(finding.files) > _SHOWN:
            say(f"           and {len(finding.files) - _SHOWN} more")
    if json_file is not None:
        rows = [{"level": f.level, "text": f.text, "files": list(f.files)} for f in findings]
        atomic.write_json(json_file, {"folder": str(path), "findings": rows})
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
