"""What `hqsam score ... --against OTHER` prints and draws. Needs the base install only."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hqsam_base.errors import UserError
from hqsam_base.terminal import say
from hqsam_metrics.against import Changed, Row, views
from hqsam_metrics.base import Result

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
COUNT = 12
"""Instances that are listed and drawn at most."""
_PANEL = 208


def show(rows: Sequence[Row], most: Sequence[Changed], own: Path, other: Path) -> None:
    """Print both files' numbers with the difference, its interval and the verdict; then what changed most."""
    say(f"{own} against {other}")
    lines: list[tuple[str, ...]] = [
        ("", "against", "pred", "difference", "95 % interval", "verdict")
    ]
    for row in rows:
        values = ["undefined" if v is None else f"{v:.2f}" for v in (row.other, row.own)]
        difference = row.judged.difference
        moved = "" if row.own is None or row.other is None else f"{row.own - row.other:+.2f}"
        interval = ""
        if difference is not None and math.isfinite(difference.low):
            interval = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
        label = row.scale.label(row.name)
        lines.append((label, *values, moved, interval, row.judged.verdict))
    wide = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    for name, *cells, verdict in lines:
        middle = [cell.rjust(width) for cell, width in zip(cells, wide[1:-1], strict=True)]
        say("  ".join([name.ljust(wide[0]), *middle, verdict]).rstrip())
    if any(row.judged.why for row in rows):
        say("; ".join(dict.fromkeys(f"too few: {r.judged.why}" for r in rows if r.judged.why)))
    for number, one in enumerate(most, 1):
        say(f"{number:>2}  {one.quantity} {one.other:.1f} -> {one.own:.1f}  {one.unit}")


def check_folder(folder: Path | None, images: Path | None) -> None:
    """Check, before anything is scored, that pictures can be written and images are there.

    Raises:
        UserError: `folder` holds something already, or there is no folder of images.
    """
    if images is not None and folder is None:
        raise UserError(
            "images are for overlays, and none are asked for",
            key="--images",
            cure="name a folder for them with --overlays",
        )
    if images is not None and not images.is_dir():
        raise UserError("there is no such folder", file=images, key="--images")
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            "this holds something already", file=folder, key="--overlays", cure="name a new folder"
        )


def draw(
    most: Sequence[Changed], own: Result, other: Result, folder: Path, images: Path | None
) -> None:
    """Write one picture for each changed instance: image, other mask and own mask above, ground truth and both errors below.

    Args:
        most: the instances, with the number of their picture.
        own: the file that is judged, with what was kept.
        other: the file that it is compared with.
        folder: appears as a whole.
        images: folder of the images; where it has none of that name, the ground is grey.
    """
    import cv2
    import numpy as np

    from hqsam_base.atomic import atomic_folder
    from hqsam_pipelines.report.draw import Scene, overlay

    with atomic_folder(folder) as place:
        for number, one in enumerate(most, 1):
            before, after = views(one, own, other)
            image = None if images is None else _image(images, before.image, before.truth.shape)
            if image is None:
                image = np.full((*before.truth.shape, 3), 128, np.uint8)
            sheet = overlay(Scene(image, before.truth, before.found, after.found), _PANEL)
            name = re.sub(r"[^\w.-]+", "_", one.unit)[:80]
            done, data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))
            assert done
            (place / f"{number:02d}-{name}.png").write_bytes(data.tobytes())


def _image(folder: Path, name: str, shape: tuple[int, ...]) -> Any:
    """The picture of that name, uint8 [H, W, 3] RGB, or with another suffix or without its folders; None: there is none.

    Raises:
        UserError: it cannot be read, or is not of the masks' size.
    """
    import cv2
    import numpy as np

    from hqsam_base import png
    from hqsam_base.filenames import AmbiguousNameError, meant
    from hqsam_base.foreign_names import NameRefusedError, relative_path

    try:
        path = relative_path(name)
        wanted = [
            str(at.with_suffix(suffix))
            for at in (path, PurePosixPath(path.name))
            for suffix in (path.suffix, *PICTURES)
        ]
        file = next((f for p in wanted if (f := meant(folder, p)) and f.is_file()), None)
        if file is None:
            return None
        found = png.decode(file.read_bytes())
    except (NameRefusedError, AmbiguousNameError, ValueError) as error:
        raise UserError(f"the image {name} cannot be read: {error}", file=folder) from None
    if found is None or found.shape[:2] != shape:
        raise UserError(
            f"this is no picture of {shape[1]} x {shape[0]}, the size of its masks",
            file=file,
            cure="give the images that the ground truth is of",
        )
    if found.dtype != np.uint8:
        found = (found >> 8).astype(np.uint8)
    grey = found.ndim == 2
    return cv2.cvtColor(found, cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB)[..., :3]
