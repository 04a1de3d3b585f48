"""Synthetic workloads of the metrics benchmarks: seeded, so that every program sees the same files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hqsam_base.rle import encode_rle


@dataclass(frozen=True)
class Workload:
    """Annotation and result file of one benchmark."""

    name: str
    gt: Path
    dt: Path
    n_images: int
    n_masks: int


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A star-shaped polygon with a ragged outline, some with a hole: uint8 [height, width]."""
    mask = np.zeros((height, width), np.uint8)
    centre = rng.uniform(0.15, 0.85, 2) * (width, height)
    radius = np.exp(rng.uniform(np.log(0.02), np.log(0.35))) * min(height, width)
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(8, 60))))
    reach = radius * rng.uniform(0.55, 1.0, len(angles))
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None] + centre
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    if rng.random() < 0.2:
        cv2.circle(mask, tuple(int(v) for v in centre), int(radius * 0.3), 0, -1)
    return mask


def disturbed(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """A detection of `mask`: moved a little, grown or shrunk."""
    step = max(2, min(mask.shape) // 150)
    out = np.roll(mask, tuple(int(v) for v in rng.integers(-step, step + 1, 2)), (0, 1))
    kernel = np.ones((3, 3), np.uint8)
    change = cv2.dilate if rng.random() < 0.5 else cv2.erode
    return change(out, kernel, iterations=int(rng.integers(0, step + 1)))


def make_coco(
    folder: Path,
    name: str,
    *,
    images: int,
    height: int,
    width: int,
    gt: int,
    dt: int,
    seed: int = 0,
) -> Workload:
    """Writes a COCO set: `gt` objects and `dt` detections an image, ten categories."""
    folder.mkdir(parents=True, exist_ok=True)
    out = Workload(
        name, folder / f"{name}-gt.json", folder / f"{name}-dt.json", images, images * (gt + dt)
    )
    if out.dt.exists():
        return out
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {
        "images": [{"id": i + 1, "height": height, "width": width} for i in range(images)],
        "categories": [{"id": c + 1, "name": f"c{c + 1}"} for c in range(10)],
        "annotations": [],
    }
    results = []
    for image in truth["images"]:
        masks = [blob(rng, height, width) for _ in range(gt)]
        categories = rng.integers(1, 11, gt).tolist()
        for mask, category in zip(masks, categories, strict=True):
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "iscrowd": 0,
                    "area": float(mask.sum()),
                    "bbox": list(cv2.boundingRect(mask)),
                    "segmentation": encode_rle(mask),
                }
            )
        for n in range(dt):
            which = n % gt
            mask = disturbed(rng, masks[which]) if rng.random() < 0.85 else blob(rng, height, width)
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": categories[which],
                    "score": round(float(rng.random()), 4),
                    "segmentation": encode_rle(mask),
                }
            )
    out.gt.write_text(json.dumps(truth))
    out.dt.write_text(json.dumps(results))
    return out


def make_lvis(folder: Path, *, images: int, annotations: int, dets: int, seed: int = 0) -> Workload:
    """Writes an LVIS-size set at 480x640: `annotations` in all, `dets` detections an image, 1203 categories."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"lvis-{images}-{annotations}-{dets}"
    out = Workload(
        name,
        folder / f"{name}-gt.json",
        folder / f"{name}-dt.json",
        images,
        annotations + images * dets,
    )
    if out.dt.exists():
        return out
    rng = np.random.default_rng(seed)
    # A pool of shapes: drawing millions anew would take longer than everything that is measured.
    pool = [blob(rng, 480, 640) for _ in range(400)]
    shapes = [(encode_rle(mask), float(mask.sum())) for mask in pool]
    copies = [[encode_rle(disturbed(rng, mask)) for _ in range(3)] for mask in pool]
    frequency = np.repeat(["r", "c", "f"], [337, 461, 405]).tolist()
    categories = [{"id": c + 1, "frequency": frequency[c]} for c in range(1203)]
    weights = 1 / np.arange(1, 1204) ** 0.8
    weights /= weights.sum()
    rows, anns = [], 0
    with out.gt.open("w") as file:
        file.write('{"annotations": [')
        for image in range(images):
            n = annotations * (image + 1) // images - anns
            which, kinds = rng.integers(0, 400, n), rng.choice(1203, n, p=weights) + 1
            rows.append((which, kinds))
            for shape, category in zip(which.tolist(), kinds.tolist(), strict=True):
                anns += 1
                code, area = shapes[shape]
                line = {
                    "id": anns,
                    "image_id": image + 1,
                    "category_id": category,
                    "area": area,
                    "segmentation": code,
                }
                file.write(("" if anns == 1 else ", ") + json.dumps(line))
        negative = [rng.choice(1203, 12, p=weights) + 1 for _ in range(images)]
        head = [
            {
                "id": i + 1,
                "height": 480,
                "width": 640,
                "not_exhaustive_category_ids": negative[i][:1].tolist(),
                "neg_category_ids": np.setdiff1d(negative[i][1:], rows[i][1]).tolist(),
            }
            for i in range(images)
        ]
        file.write(f'], "images": {json.dumps(head)}, "categories": {json.dumps(categories)}}}')
    _write_lvis_results(out.dt, rows, copies, dets, rng)
    return out


def _write_lvis_results(
    path: Path, rows: Any, copies: Any, dets: int, rng: np.random.Generator
) -> None:
    with path.open("w") as file:
        file.write("[")
        for image, (which, kinds) in enumerate(rows):
            # Most detections are of the image's own categories, as a detector's are after the
            # federated filter.
            pick = rng.integers(0, max(1, len(which)), dets)
            foreign = rng.random(dets) < 0.3
            scores = rng.random(dets).round(4).tolist()
            lines = []
            for n in range(dets):
                own = len(which) and not foreign[n]
                shape = int(which[pick[n]]) if own else int(rng.integers(0, 400))
                category = int(kinds[pick[n]]) if own else int(rng.integers(1, 1204))
                code = copies[shape][n % 3]
                line = {
                    "image_id": image + 1,
                    "category_id": category,
                    "score": scores[n],
                    "segmentation": code,
                }
                lines.append(json.dumps(line))
            file.write(("" if image == 0 else ", ") + ", ".join(lines))
        file.write("]")


def make_davis(
    folder: Path, *, sequences: int, frames: int, height: int = 480, width: int = 854
) -> Path:
    """Writes a DAVIS-like set with three objects a sequence, and results: `<folder>/DAVIS`, `<folder>/results`."""
    root = folder / f"davis-{sequences}-{frames}"
    listing = root / "DAVIS" / "ImageSets" / "2017" / "val.txt"
    if listing.exists():
        return root
    rng = np.random.default_rng(0)
    names = [f"s{n:02d}" for n in range(sequences)]
    for name in names:
        objects = [blob(rng, height, width) for _ in range(3)]
        for side in ("DAVIS/Annotations/480p", "results"):
            (root / side / name).mkdir(parents=True, exist_ok=True)
        for frame in range(frames):
            real, found = np.zeros((2, height, width), np.uint8)
            for label, mask in enumerate(objects, start=1):
                moved = np.roll(mask, (frame, 2 * frame), (0, 1))
                real[moved > 0] = label
                found[disturbed(rng, moved) > 0] = label
            cv2.imwrite(str(root / "DAVIS/Annotations/480p" / name / f"{frame:05d}.png"), real)
            cv2.imwrite(str(root / "results" / name / f"{frame:05d}.png"), found)
    listing.parent.mkdir(parents=True)
    listing.write_text("\n".join(names) + "\n")
    return root
