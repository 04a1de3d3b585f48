"""What is wrong with images and their COCO or LVIS file: `hqsam doctor data PATH --annotations FILE`.

Nothing is changed. Every image is read as the normalise stage reads it, so what passes here passes
there.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.processes import ordered_map, worker_count
from hqsam_base.progress import Progress
from hqsam_datasets import sources
from hqsam_datasets.diagnose.finding import Finding, Level
from hqsam_datasets.diagnose.foreign import foreign_format, tool_of
from hqsam_datasets.formats.image_files import ImageError
from hqsam_datasets.formats.manifest import Reject
from hqsam_datasets.prepare.normalise import make_sample
from hqsam_datasets.sources.base import Pair, SourceOptions

_WORTH_A_PROCESS = 400
_LEFT_OUT = {
    "crowd": "crowd regions are left out",
    "no_object": "images have no object and are left out",
    "no_mask": "annotations have no mask (segmentation is empty) and are left out",
}
_TEXTS = {
    "unreadable_image": "images cannot be read (damaged, truncated, or not images)",
    "unsupported_mode": "images have an unsupported pixel type",
    "too_large": "images are too large to be decoded",
    "size_mismatch": "images do not have the size that the file says: its masks would lie "
    "elsewhere",
    "invalid_annotation": "annotations cannot be drawn",
    "empty_mask": "masks lie outside their image or are empty",
}


def examine(
    folder: Path, *, annotations: str, image_folder: str | None, progress: Progress
) -> list[Finding]:
    """Look at a folder of images with an annotation file.

    Args:
        folder: the folder around both.
        annotations: the annotation file, as a path inside the folder or as one that is typed in a
            shell.
        image_folder: the folder of the images, likewise; None: beside the annotation file.
        progress: called for every image.

    Returns:
        Findings, worst first. No `error` among them means that the normalise stage takes every
        image with objects.

    Raises:
        UserError: for what stops the normalise stage: a malformed file, images that are not there.
    """
    if not folder.is_dir():
        raise UserError(
            "there is no such folder",
            file=folder,
            cure="give the folder around images and annotations",
        )
    inside = [
        None if name is None else _inside(folder, name) for name in (image_folder, annotations)
    ]
    options = SourceOptions(archive="NAME", images=inside[0], annotations=inside[1])
    try:
        scan = sources.load("coco_json").scan("NAME", folder, options)
    except UserError as error:
        raise (
            foreign_format(path) if tool_of(path := folder / str(inside[1])) else error
        ) from None
    workers = worker_count(len(scan.pairs), worth=_WORTH_A_PROCESS)
    rejects, n_instances = list(scan.rejects), 0
    for done, (n, of_pair) in enumerate(ordered_map(_look, scan.pairs, workers=workers), start=1):
        n_instances += n
        rejects += of_pair
        progress(done, len(scan.pairs), "images")
    findings = [
        Finding(
            "ok" if n_instances else "error", f"{n_instances} objects on {len(scan.pairs)} images"
        )
    ]
    # CVAT marks brush masks as crowds, some tools every run-length mask: nothing would be left.
    crowds = sum(reject["reason"] == "crowd" for reject in rejects)
    if crowds and not n_instances:
        text = f"all {crowds} annotations are crowd regions: if they are objects, set iscrowd to 0"
        findings.append(Finding("error", text))
    findings += _about(rejects)
    findings.append(_verdict(findings, options))
    order: dict[Level, int] = {"error": 0, "warning": 1, "note": 2, "ok": 3}
    return sorted(findings, key=lambda finding: order[finding.level])


def _inside(folder: Path, name: str) -> str:
    """Return the path below `folder` that a name means."""
    if not (folder / name).exists() and Path(name).exists():
        name = str(Path(name).absolute())
    try:
        return (folder / name).resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise UserError(
            "not inside the folder", file=name, cure=f"give a path below {folder}"
        ) from None


def _look(pair: Pair) -> tuple[int, list[Reject]]:
    """Return the number of usable objects of an image, and what is wrong with it."""
    try:
        row, _, rejects = make_sample("NAME", "NAME_x", pair)
    except ImageError as error:
        return 0, [
            Reject(source="", origin=pair.origin_image, reason=error.reason, detail=error.told)
        ]
    return row["n_instances"], rejects


def _about(rejects: Sequence[Reject]) -> Iterator[Finding]:
    groups: dict[tuple[Level, str], list[str]] = defaultdict(list)
    for reject in rejects:
        left_out = _LEFT_OUT.get(reject["reason"])
        text = left_out or _TEXTS.get(reject["reason"], reject["reason"])
        groups["note" if left_out else "error", text].append(
            f"{reject['origin']}: {reject['detail']}"
        )
    for (level, text), names in groups.items():
        yield Finding(level, f"{len(names)} {text}", tuple(names))


def _verdict(findings: Sequence[Finding], options: SourceOptions) -> Finding:
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        return Finding(
            "error",
            f"not usable as it is: {errors} kinds of problems have to be fixed; until then the "
            f"files that they name are left out",
        )
    quoted = functools.partial(json.dumps, ensure_ascii=False)
    images = f"images: {quoted(options.images)}, " if options.images else ""
    entry = (
        f"{{kind: coco_json, archive: NAME, {images}annotations: {quoted(options.annotations)}}}"
    )
    return Finding("ok", f"usable as a training source: {entry}")
