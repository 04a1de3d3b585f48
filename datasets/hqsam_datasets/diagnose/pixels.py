"""What the pixels of a folder's images and masks show, and what is wrong with them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hqsam_datasets.diagnose.finding import Finding
from hqsam_datasets.formats.image_files import ImageError, probe, white_is_zero
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.formats.masks import FOREGROUND, DecodedMask, decode_labels, decode_mask

Kind = Literal["folder", "label_maps"]

_BORDER_SHARE = 0.8
_MIN_SIDE = 32
_TINY_SHARE, _FULL_SHARE = 0.001, 0.98
_MASK_REASONS = {
    "not_a_mask": "masks are pictures, not masks",
    "ambiguous_mask": "masks have values that do not say what is foreground (use 0 and 255; label "
    "maps: --kind label_maps)",
    "unreadable_mask": "masks cannot be read (damaged, truncated, or not images)",
    "too_large": "files are too large to be decoded",
}
_IMAGE_REASONS = {
    "unreadable_image": "images cannot be read (damaged, truncated, or not images)",
    "unsupported_mode": "images have an unsupported pixel type",
    "too_large": "files are too large to be decoded",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What one image and one of its masks show."""

    stem: str
    image_error: ImageError | None = None
    mask_error: ImageError | None = None
    mode: str = ""
    orientation: int = 1
    encoding: str = ""
    problem: str = ""
    small: bool = False
    tiny: bool = False
    full: bool = False
    inverted: bool = False
    n_labels: int = 1
    white_is_zero: bool = False
    digest: str = ""


def look(kind: Kind, pair: tuple[str, Path, tuple[Path, ...]]) -> list[Facts]:
    """Return the facts of an image with its first mask, then those of further masks alone."""
    stem, image_path, mask_paths = pair
    try:
        data = image_path.read_bytes()
        found, rgb = probe(data), decode_image(data)
    except ImageError as error:
        return [Facts(stem, image_error=error)]
    sizes = (rgb.shape[:2], (found.height, found.width))
    names = [stem] if len(mask_paths) == 1 else [f"{stem}/{path.name}" for path in mask_paths]
    facts = [
        _look_at_mask(kind, name, path, sizes) for name, path in zip(names, mask_paths, strict=True)
    ]
    digest = hashlib.sha256(rgb.tobytes() + str(rgb.shape).encode()).hexdigest()
    small = min(rgb.shape[:2]) < _MIN_SIDE
    of_image = Facts(
        stem,
        mode=found.mode,
        orientation=found.orientation,
        small=small,
        white_is_zero=white_is_zero(data),
        digest=digest,
    )
    return [of_image, *facts]


def _look_at_mask(
    kind: Kind, name: str, path: Path, sizes: tuple[tuple[int, ...], tuple[int, int]]
) -> Facts:
    """Return the facts of one mask; `sizes` are those of the image, upright and as stored."""
    try:
        data = path.read_bytes()
        if kind == "folder":
            mask = decode_mask(data)
        else:  # all labels as one mask, as kind `label_maps` reads them
            labels = decode_labels(data)
            whole = np.where((labels > 0) & (labels < 255), 255, 0).astype(np.uint8)
            mask = DecodedMask(whole, "palette", 0.0)
    except ImageError as error:
        return Facts(name, mask_error=error)
    foreground = mask.foreground
    problem = (
        ""
        if mask.mask.shape in sizes
        else f"{name}: image {_size(sizes[0])}, mask {_size(mask.mask.shape)}"
    )
    border = np.concatenate([foreground[0], foreground[-1], foreground[:, 0], foreground[:, -1]])
    share = float(foreground.mean())
    n_labels = 1
    if kind == "folder" and mask.encoding == "palette":
        n_labels = len(
            set(np.unique(decode_labels(data)).tolist()) - {0, 255}
        )  # without background and void
    return Facts(
        name,
        encoding="empty" if not foreground.any() else mask.encoding,
        problem=problem,
        tiny=0 < share < _TINY_SHARE,
        full=share > _FULL_SHARE,
        inverted=float(border.mean()) > _BORDER_SHARE,
        n_labels=n_labels,
        white_is_zero=white_is_zero(data),
    )


def about_images(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Report images that cannot be read, are turned, or are not RGB."""
    for reason, text in _IMAGE_REASONS.items():
        errors = [
            (f.stem, f.image_error)
            for f in facts
            if f.image_error and f.image_error.reason == reason
        ]
        if errors:
            yield Finding(
                "error",
                f"{len(errors)} {text}",
                tuple(f"{stem}: {error.told}" for stem, error in errors),
            )
    turned = tuple(f.stem for f in facts if f.orientation != 1)
    if turned:
        yield Finding(
            "note",
            f"{len(turned)} images are stored turned (EXIF); they are turned upright here",
            turned,
        )
    odd = Counter(f.mode for f in facts if f.mode not in ("", "RGB"))
    for mode, n in sorted(odd.items()):
        stems = tuple(f.stem for f in facts if f.mode == mode)
        yield Finding("note", f"{n} images are {mode}, not RGB; they are converted", stems)


def about_masks(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Report masks that cannot be read, do not fit, are empty, or are encoded in other ways than 0 and 255."""
    for reason, text in _MASK_REASONS.items():
        wrong = [
            f"{f.stem}: {f.mask_error.detail}"
            for f in facts
            if f.mask_error and f.mask_error.reason == reason
        ]
        if wrong:
            yield Finding("error", f"{len(wrong)} {text}", tuple(wrong))
    sizes = tuple(f.problem for f in facts if f.problem)
    if sizes:
        yield Finding("error", f"{len(sizes)} masks do not have the size of their image", sizes)
    empty = tuple(f.stem for f in facts if f.encoding == "empty")
    if empty:
        yield Finding(
            "error",
            f"{len(empty)} masks have no foreground (no value above {FOREGROUND})",
            empty,
        )
    kinds = Counter(f.encoding for f in facts if f.encoding not in ("", "empty"))
    if len(kinds) > 1:
        counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        yield Finding(
            "note", f"the masks are encoded in several ways: {counts}; all become 0..255 here"
        )
    maps = tuple(f.stem for f in facts if f.n_labels > 1)
    if maps:
        text = (
            "masks hold several labels, here taken for one object: kind label_maps makes an "
            "instance of each"
        )
        yield Finding("note", f"{len(maps)} {text}", maps)
    if kinds.get("0/1"):
        stems = tuple(f.stem for f in facts if f.encoding == "0/1")
        text = (
            "masks are 0/1: they look black, and code that takes > 128 as foreground finds "
            "nothing; converted here"
        )
        yield Finding("note", f"{len(stems)} {text}", stems)


def about_content(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Report inverted masks, extreme sizes and images that occur twice."""
    inverted = tuple(f.stem for f in facts if f.inverted)
    if inverted:
        yield Finding(
            "warning", f"{len(inverted)} masks are white along the border: inverted?", inverted
        )
    negative = tuple(f.stem for f in facts if f.white_is_zero)
    if negative:
        text = (
            "are TIFFs whose tag says that 0 is white (MINISWHITE): 8 bits and less are read as they "
            "look, deeper ones as they are stored, and other programs do either; if one comes out "
            "inverted, convert it to PNG"
        )
        yield Finding("warning", f"{len(negative)} images or masks {text}", negative)
    for name, text in (
        ("tiny", f"masks cover less than {_TINY_SHARE:.1%} of their image"),
        ("full", f"masks cover more than {_FULL_SHARE:.0%} of their image"),
        ("small", f"images have a side of less than {_MIN_SIDE} pixels"),
    ):
        stems = tuple(f.stem for f in facts if getattr(f, name))
        if stems:
            yield Finding(
                "warning",
                f"{len(stems)} {text}: the quality gate stops there (params quality)",
                stems,
            )
    by_digest: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        if fact.digest:
            by_digest[fact.digest].append(fact.stem)
    same = tuple(" = ".join(stems) for stems in by_digest.values() if len(stems) > 1)
    if same:
        yield Finding("warning", f"{len(same)} groups of images have exactly the same pixels", same)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
