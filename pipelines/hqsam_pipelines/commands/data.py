"""data: Look at samples and their prompts, read the data sheets, copy shards to and from object stores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hqsam_base.terminal import say
from hqsam_pipelines.runner.progress import ProgressDisplay

if TYPE_CHECKING:
    from hqsam_datasets.diagnose.lookup import FoundImage

app = typer.Typer(
    help="Look at samples and their prompts, read the data sheets, copy shards to and from object "
    "stores."
)

Url = Annotated[str, typer.Argument(help="Folder URL of an object store, e.g. s3://bucket/shards.")]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result here, too.")
]


@app.command()
def show(
    key: Annotated[
        str,
        typer.Argument(help="Key of a training sample or an evaluation image, e.g. ecssd_0001."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PNG", help="Where to draw; default: KEY.png.")
    ] = None,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="The pipeline's data folder.")
    ] = Path("data"),
    json_file: Json = None,
) -> None:
    """Draw a training sample: picture, masks, and each augmented view with box, points and noisy mask.

    Of an evaluation image: picture, ground truth, and the prompts of each set.
    """
    from hqsam_base import atomic
    from hqsam_datasets.diagnose import drawing, lookup
    from hqsam_datasets.formats import images
    from hqsam_pipelines.commands._outputs import check_outputs

    target = out or Path(f"{key}.png")
    check_outputs({"--out": target, "--json": json_file})
    if (evaluated := lookup.find_image(key, data)) is not None:
        _show_image(key, evaluated, target, json_file)
        return
    found = lookup.find_sample(key, data)
    atomic.write_bytes(
        target, images.encode_png(drawing.draw_sample(found.sample, found.views, found.pictures))
    )
    sample = found.sample
    facts = {name: value for name, value in found.row.items() if not isinstance(value, bytes)}
    say(
        f"{key}: {sample.width}x{sample.height}, {len(sample.instances)} instance(s), in "
        f"{found.where}"
    )
    for name in (
        "origin_image",
        "origin_mask",
        "image_mode",
        "exif_orientation",
        "mask_encoding",
        "fg_fraction",
    ):
        if name in facts:
            say(f"  {name:<17}{facts[name]}")
    for view in found.views:
        say(
            f"  view {view['view']}: prompt {view['prompt']}, {view['n_foreground']} foreground "
            f"pixels"
        )
    say(f"drawn to {target}")
    if json_file is not None:
        atomic.write_json(
            json_file, {"key": key, "manifest": facts, "views": found.views, "drawing": str(target)}
        )


def _show_image(key: str, found: FoundImage, target: Path, json_file: Path | None) -> None:
    from hqsam_base import atomic
    from hqsam_datasets.diagnose import drawing
    from hqsam_datasets.formats import images

    drawing_of = drawing.draw_evaluation(found.image, found.truths, found.prompts)
    atomic.write_bytes(target, images.encode_png(drawing_of))
    facts = {
        name: value
        for name, value in found.row.items()
        if not isinstance(value, bytes) and value is not None
    }
    sets = Counter(prompt["prompt_set"] for prompt in found.prompts)
    told = ", ".join(f"{n} {name}" for name, n in sorted(sets.items())) or "no prompt"
    size = f"{facts['width']}x{facts['height']}"
    say(f"{key}: {size}, {len(found.truths)} ground-truth object(s), {told}, in {found.where}")
    say(f"drawn to {target}")
    if json_file is not None:
        atomic.write_json(
            json_file, {"key": key, "image": facts, "prompts": dict(sets), "drawing": str(target)}
        )


@app.command()
def labelme(
    folder: Annotated[Path, typer.Argument(help="Folder with images and labelme's JSON files.")],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT.json", help="The COCO file to write, best in that folder."),
    ],
) -> None:
    """Write the shapes of a labelme folder as one COCO file, which sources, evaluation sets and doctor read."""
    from hqsam_base import atomic
    from hqsam_datasets.formats.labelme import convert
    from hqsam_pipelines.commands._outputs import check_outputs

    check_outputs({"OUT.json": out})
    found = convert(folder)
    atomic.write_json(out, found.content)
    say(
        f"{len(found.content['annotations'])} objects on {len(found.content['images'])} images: "
        f"{out}"
    )
    for kind, number in sorted(found.left_out.items()):
        say(f"  {number} shapes of type {kind} have no area and were left out")


@app.command()
def push(
    folder: Annotated[
        Path, typer.Argument(help="A folder of shards: data/shards or data/prompts.")
    ],
    url: Url,
) -> None:
    """Copy shards to an object store; files already there are skipped."""
    from hqsam_datasets.formats import remote

    with ProgressDisplay("push") as progress:
        sent = remote.push(folder, url, progress=progress)
    say(f"{sent} shards sent; {url} is complete")


@app.command()
def pull(
    url: Url,
    folder: Annotated[
        Path, typer.Argument(help="Folder to write; appears whole and verified or not at all.")
    ],
) -> None:
    """Copy shards from an object store and verify them."""
    from hqsam_datasets.formats import remote

    with ProgressDisplay("pull") as progress:
        index = remote.pull(url, folder, progress=progress)
    say(f"{len(index['shards'])} shards in {folder}")


@app.command()
def sheet(
    source: Annotated[
        str | None, typer.Argument(help="A training source; none: list them.")
    ] = None,
) -> None:
    """Print the data sheet of a training source: licence, citation, layout, known bad files."""
    from hqsam_datasets import sources

    if source is None:
        for name in sources.names():
            say(f"{name:<14}{sources.load(name).sheet.title}")
        return
    facts = sources.load(source).sheet
    for name in ("title", "url", "licence", "citation", "n_pairs", "layout", "notes"):
        say(f"{name:<10}{getattr(facts, name)}", lines=True)
    for title, table in (
        ("checksums", facts.checksums),
        ("known bad", facts.known_bad),
        ("strays", facts.strays),
    ):
        for name, text in table.items():
            say(f"{title:<10}{name}: {text}", lines=True)
