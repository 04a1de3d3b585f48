"""What is wrong with a folder of images and masks: `hqsam doctor data PATH`.

Nothing is changed. Every pair is read the way the normalise stage reads it, so what passes here
passes there.
"""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.filenames import is_hidden
from hqsam_base.processes import ordered_map, worker_count
from hqsam_base.progress import Progress
from hqsam_base.texts import open_text
from hqsam_datasets.diagnose.finding import Finding, Level
from hqsam_datasets.diagnose.foreign import foreign_format, tool_of
from hqsam_datasets.diagnose.pixels import (
    Facts,
    Kind,
    about_content,
    about_images,
    about_masks,
    look,
)
from hqsam_datasets.formats.labelme import labelme_files
from hqsam_datasets.sources.folder import mask_finder, stem_of
from hqsam_datasets.sources.own import LOSSY, SUFFIXES

IMAGE_NAMES = (
    "images",
    "image",
    "imgs",
    "img",
    "im",
    "jpegimages",
    "photos",
    "input",
    "inputs",
    "rgb",
    "data",
)
MASK_NAMES = (
    "masks",
    "mask",
    "gt",
    "gts",
    "labels",
    "label",
    "annotations",
    "ground_truth",
    "groundtruth",
    "ground_truth_mask",
    "segmentations",
    "segmentationobject",
    "segmentationclass",
    "masks_max255",
    "mattes",
    "alpha",
)
FOREIGN = (
    ".heic",
    ".heif",
    ".avif",
    ".jp2",
    ".exr",
    ".npy",
    ".npz",
    ".mat",
    ".psd",
    ".svg",
    ".dng",
    ".cr2",
    ".nef",
    ".arw",
)
"""Pictures and arrays in formats that are not read."""
_WORTH_A_PROCESS = 400
_LARGE = 64 << 20


@dataclass(slots=True)
class _Folder:
    """Files by stem: images, masks (several for a stem only if names clash), and the rest."""

    images: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    masks: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    others: list[Path] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)

    def pairs(self) -> list[tuple[str, Path, tuple[Path, ...]]]:
        """Return stem, image and masks of every image that has masks, as the source `folder` pairs them."""
        masks_of = mask_finder(self.masks)
        found = {stem: masks_of(stem) for stem in sorted(self.images)}
        return [
            (s, self.images[s][0], tuple(self.masks[m][0] for m in masks))
            for s, masks in found.items()
            if masks
        ]

    def lonely(self) -> tuple[list[str], list[str]]:
        """Return stems of images without mask, and of masks without image."""
        masks_of = mask_finder(self.masks)
        masks = {stem: masks_of(stem) for stem in self.images}
        used = {mask for found in masks.values() for mask in found}
        return sorted(s for s, found in masks.items() if not found), sorted(
            self.masks.keys() - used
        )


def examine(
    folder: Path,
    *,
    image_folder: str | None = None,
    mask_folder: str | None = None,
    kind: Kind = "folder",
    progress: Progress,
) -> list[Finding]:
    """Look at a folder of images and masks.

    Args:
        folder: the folder; images and masks lie in two subfolders, or side by side.
        image_folder: subfolder of the images, if its name does not say so.
        mask_folder: subfolder of the masks.
        kind: the source that is to read it: a mask is one object, or a map of labels.
        progress: called for every pair.

    Returns:
        Findings, worst first within the order of looking. No `error` among them means that the
        normalise stage takes every pair.

    Raises:
        UserError: if there is no such folder, or it is not clear where images and masks are.
    """
    image_dir, mask_dir = _locate(folder, image_folder, mask_folder)
    found = _listed(image_dir, mask_dir)
    findings = list(_about_pairing(found, image_dir, mask_dir))
    pairs = found.pairs()
    facts: list[Facts] = []
    workers = worker_count(len(pairs), worth=_WORTH_A_PROCESS)
    for done, of_pair in enumerate(
        ordered_map(functools.partial(look, kind), pairs, workers=workers), start=1
    ):
        facts += of_pair
        progress(done, len(pairs), "pairs")
    findings += [*about_images(facts), *about_masks(facts), *about_content(facts)]
    order: dict[Level, int] = {"error": 0, "warning": 1, "note": 2, "ok": 3}
    findings.append(_verdict(findings, folder, kind, image_dir, mask_dir))
    return sorted(findings, key=lambda finding: order[finding.level])


def _locate(folder: Path, image_folder: str | None, mask_folder: str | None) -> tuple[Path, Path]:
    if not folder.is_dir():
        problem = "this is a file, not a folder" if folder.is_file() else "there is no such folder"
        cure = (
            "unpack it, then give the folder"
            if folder.is_file()
            else "give the folder that holds images and masks"
        )
        raise UserError(problem, file=folder, cure=cure)
    given = [folder / name if name is not None else None for name in (image_folder, mask_folder)]
    for path in given:
        if path is not None and not path.is_dir():
            raise UserError(
                "there is no such folder", file=path, cure="name a subfolder of the folder"
            )
    subfolders = (path for path in sorted(folder.iterdir()) if path.is_dir())
    children = {p.name.lower(): p for p in subfolders if not p.name.startswith((".", "__MACOSX"))}
    guessed = [
        next((children[n] for n in names if n in children), None)
        for names in (IMAGE_NAMES, MASK_NAMES)
    ]
    image_dir, mask_dir = given[0] or guessed[0], given[1] or guessed[1]
    if (
        image_dir is None
        and mask_dir is None
        and any(p.suffix.lower() in SUFFIXES for p in folder.iterdir())
    ):
        if not _listed(folder, folder).pairs():
            _say_if_annotated(folder, None)
        return folder, folder
    if mask_dir is None or not any(p.suffix.lower() in SUFFIXES for p in mask_dir.rglob("*")):
        _say_if_annotated(folder, image_dir)
    if image_dir is None and mask_dir is None and len(children) == 1:
        return _locate(
            next(iter(children.values())), None, None
        )  # a folder around everything, as archives have it
    if image_dir is None or mask_dir is None:
        if not any(folder.iterdir()):
            raise UserError(
                "the folder is empty",
                file=folder,
                cure="give the folder that holds images and masks",
            )
        what = "images" if image_dir is None else "masks"
        there = ", ".join(sorted(children)) or "no subfolder"
        cure = "name the subfolders with --images and --masks"
        raise UserError(
            f"it is not clear where the {what} are; the folder holds {there}",
            file=folder,
            cure=cure,
        )
    return image_dir, mask_dir


def _say_if_annotated(folder: Path, image_dir: Path | None) -> None:
    """Stop where the objects are in annotation files, with what to do about their kind."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".json", ".txt", ".xml") and not is_hidden(path.name)
    )
    if of_labelme := labelme_files(folder):
        cure = (
            f"write them as one COCO file: hqsam data labelme {folder} {folder / 'coco.json'}; "
            f"then check that file here"
        )
        raise UserError(
            f"the objects are in {len(of_labelme)} files of labelme", file=of_labelme[0], cure=cure
        )
    if coco := [path for path in found if path.suffix == ".json" and _is_coco(path)]:
        images = f" --images {image_dir.name}" if image_dir else ""
        cure = f"say so: --annotations {coco[0].relative_to(folder).as_posix()}{images}"
        raise UserError("the masks seem to be in an annotation file", file=coco[0], cure=cure)
    if foreign := [path for path in found if path.suffix != ".txt" and tool_of(path)]:
        raise foreign_format(foreign[0])
    if yolo := [path for path in found if path.suffix == ".txt" and _is_yolo(path)]:
        problem = f"the objects seem to be in {len(yolo)} files of YOLO, which are not read"
        cure = (
            "convert them to one COCO file, as the library supervision does; files of boxes alone "
            "have no masks"
        )
        raise UserError(problem, file=yolo[0], cure=cure)


def _is_coco(path: Path) -> bool:
    """Return whether a JSON file has COCO's keys; a large one is taken for such a file unread."""
    if path.stat().st_size > _LARGE:
        return True
    try:
        with open_text(path) as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError):
        return True  # reading it by its name will report what is wrong with it
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _is_yolo(path: Path) -> bool:
    """Return whether a text file begins with an object of YOLO: a class and at least two points as fractions."""
    with open_text(path, errors="replace") as file:
        first = file.readline(10_000)
    return re.fullmatch(r"\d+(\s+[01]?\.?\d+(e-\d+)?){4,}\s*", first) is not None


def _listed(image_dir: Path, mask_dir: Path) -> _Folder:
    found = _Folder()
    shared = image_dir == mask_dir
    for base in dict.fromkeys((image_dir, mask_dir)):
        for path in sorted(base.rglob("*")):
            inner = path.relative_to(base)
            if any(part.startswith((".", "__MACOSX")) for part in inner.parts) or path.is_dir():
                continue
            if not path.is_file():
                found.dangling.append(path)
                continue
            suffix = path.suffix.lower()
            is_image = base == image_dir and suffix in (LOSSY if shared else SUFFIXES)
            if suffix not in SUFFIXES:
                found.others.append(path)
            else:
                group = found.images if is_image else found.masks
                group[stem_of(inner)].append(path)
    return found


def _about_pairing(found: _Folder, image_dir: Path, mask_dir: Path) -> Iterator[Finding]:
    pairs = found.pairs()
    yield Finding(
        "ok" if pairs else "error", f"{len(pairs)} pairs of image and mask with the same name"
    )
    several = tuple(stem for stem, _, masks in pairs if len(masks) > 1)
    if several:
        yield Finding(
            "note", f"{len(several)} images have several masks: each becomes an instance", several
        )
    no_mask, no_image = found.lonely()
    for group, alone, text in (
        (found.images, no_mask, f"images have no mask in {mask_dir.resolve().name}/"),
        (found.masks, no_image, f"masks have no image in {image_dir.resolve().name}/"),
    ):
        if alone:
            yield Finding(
                "error", f"{len(alone)} {text}", tuple(group[stem][0].name for stem in alone)
            )
        twice = sorted(stem for stem, paths in group.items() if len(paths) > 1)
        if twice:
            yield Finding(
                "error", f"{len(twice)} names occur with several extensions", tuple(twice)
            )
    close = _nearly(no_mask, no_image)
    if close:
        text = (
            f"{len(close)} of the unpaired names differ only in case or by an ending such as "
            f"_mask: rename them"
        )
        text += "; several masks of a.jpg go into a folder a/"
        yield Finding("note", text, close)
    if image_dir == mask_dir and not found.images and found.masks:
        text = (
            "in one folder for both only JPEG and WebP files count as images: put images and "
            "masks into folders of their own"
        )
        yield Finding("note", text)
    if found.dangling:
        names = tuple(path.name for path in found.dangling)
        yield Finding("error", f"{len(names)} links lead nowhere", names)
    foreign = tuple(path.name for path in found.others if path.suffix.lower() in FOREIGN)
    if foreign:
        text = (
            f"{len(foreign)} files have a format that is not read: convert images to JPEG or PNG, "
            f"masks to PNG"
        )
        yield Finding("warning", text, foreign)
    names = tuple(path.name for path in found.others if path.name not in foreign)
    if names:
        yield Finding(
            "note", f"{len(names)} files are neither images nor masks and are left alone", names
        )


def _nearly(no_mask: Sequence[str], no_image: Sequence[str]) -> tuple[str, ...]:
    endings = r"([_.-](mask|gt|seg|label|matte)|[_-]\d+|\.(jpe?g|png|tiff?|bmp|webp))$"
    lonely = {stem.lower() for stem in no_mask}
    close = []
    for stem in no_image:
        plain = stem.lower()
        if plain in lonely or re.sub(endings, "", plain) in lonely:
            close.append(stem)
    return tuple(close)


def _verdict(
    findings: Sequence[Finding], folder: Path, kind: Kind, image_dir: Path, mask_dir: Path
) -> Finding:
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        return Finding(
            "error",
            f"not usable as it is: {errors} kinds of problems have to be fixed or listed under "
            f"skip",
        )
    where = f"images: {_inside(image_dir, folder)}, masks: {_inside(mask_dir, folder)}"
    return Finding("ok", f"usable as a training source: {{kind: {kind}, archive: NAME, {where}}}")


def _inside(path: Path, folder: Path) -> str:
    inner = path.relative_to(folder).as_posix()
    return (
        inner if re.fullmatch(r"[\w./ -]*[\w.]", inner) else json.dumps(inner, ensure_ascii=False)
    )
