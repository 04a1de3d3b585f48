"""The reference programs themselves, as cross-check and as the yardstick of the benchmarks.

pycocotools' COCOeval and lvis-api define what AP means here; `hqsam_metrics.ap.detection` computes
the same faster. The boundary version is COCOeval with the original algorithm: full-size masks, a
3x3 erosion repeated as often as the band is wide. Nothing else imports this module; lvis is needed
for `lvis_reference` only.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hqsam_base.errors import UserError
from hqsam_metrics.masks.iou import dilation_pixels

Stats = dict[str, float]


def original_band(mask: NDArray[np.uint8], dilation: int) -> NDArray[np.uint8]:
    """Returns the boundary band as the original algorithm does: a 3x3 erosion of the padded picture, repeated."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation)
    band: NDArray[np.uint8] = np.asarray(mask - eroded[1:-1, 1:-1], np.uint8)
    return band


def _band(annotation: dict[str, Any], ratio: float) -> Any:
    """Returns the band of an annotation or detection (with a run-length code) as a run-length code."""
    if "band" not in annotation:
        mask = coco_mask.decode(annotation["segmentation"])
        dilation = dilation_pixels(mask.shape[0], mask.shape[1], ratio)
        annotation["band"] = coco_mask.encode(np.asfortranarray(original_band(mask, dilation)))
    return annotation["band"]


def _boundary_ious(dt: list[dict[str, Any]], gt: list[dict[str, Any]], ratio: float) -> Any:
    """Returns the matrix of min(mask IoU, boundary IoU), crowd columns by mask alone."""
    crowd = [int(bool(g.get("iscrowd"))) for g in gt]
    ious = np.asarray(
        coco_mask.iou([d["segmentation"] for d in dt], [g["segmentation"] for g in gt], crowd)
    )
    bands = coco_mask.iou(
        [_band(d, ratio) for d in dt], [_band(g, ratio) for g in gt], [0] * len(gt)
    )
    return (
        np.where(np.array(crowd, bool), ious, np.minimum(ious, bands))
        if len(dt) and len(gt)
        else ious
    )


class BoundaryCOCOeval(COCOeval):  # type: ignore[misc]
    """COCOeval by the rules of the Boundary IoU API: its IoU, and annotations with `ignore` are ignored."""

    dilation_ratio = 0.02

    def _prepare(self) -> None:
        marked = {row["id"] for row in self.cocoGt.dataset["annotations"] if row.get("ignore")}
        super()._prepare()
        for row in (row for rows in self._gts.values() for row in rows):
            row["ignore"] = int(bool(row["iscrowd"]) or row["id"] in marked)

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802 - the name of the method that is replaced
        """Returns the matrix of IoUs of one image and category (detections by falling score x ground truth)."""
        categories = [catId] if self.params.useCats else self.params.catIds
        gt = [g for c in categories for g in self._gts[imgId, c]]
        dt = [d for c in categories for d in self._dts[imgId, c]]
        if not gt and not dt:
            return []
        order = np.argsort([-d["score"] for d in dt], kind="mergesort")[: self.params.maxDets[-1]]
        return _boundary_ious([dt[i] for i in order], gt, self.dilation_ratio)


def _plain(results: list[dict[str, Any]], area_rule: str) -> list[dict[str, Any]]:
    """Returns copies of the detections; with a `bbox` key the official loaders take their areas from it."""
    keys = (
        "image_id",
        "category_id",
        "segmentation",
        "score",
        *(["bbox"] if area_rule == "bbox" else []),
    )
    return [{key: row[key] for key in keys if key in row} for row in results]


def coco_reference(
    gt: Mapping[str, Any] | Path,
    results: list[dict[str, Any]],
    *,
    dilation_ratio: float | None = None,
    class_agnostic: bool = False,
    limits: tuple[int, ...] = (1, 10, 100),
    area_rule: str = "mask",
) -> Stats:
    """Returns COCO's numbers by COCOeval; -1 where there is no ground truth.

    Args:
        gt: annotations, parsed or a file.
        results: detections.
        dilation_ratio: None for mask AP, or the ratio for boundary AP.
        class_agnostic: match whatever the category.
        limits: `maxDets`.
        area_rule: "bbox": the `bbox` key is left in, which changes the areas; "mask": it is taken
            out.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(gt.read_text()) if isinstance(gt, Path) else dict(gt)
        coco.createIndex()
        found = coco.loadRes(_plain(results, area_rule))
        kind = COCOeval if dilation_ratio is None else BoundaryCOCOeval
        program = kind(coco, found, "segm")
        program.dilation_ratio = dilation_ratio
        program.params.useCats = int(not class_agnostic)
        program.params.maxDets = list(limits)
        program.evaluate()
        program.accumulate()
    return _coco_stats(program.eval["precision"], program.eval["recall"], limits)


def _coco_stats(precision: Any, recall: Any, limits: tuple[int, ...]) -> Stats:
    """Averages COCOeval's tables [T, R, K, A, M] and [T, K, A, M]; its own summary wants a limit of 100."""

    def mean(cells: Any) -> float:
        cells = cells[cells > -1]
        return float(np.mean(cells)) if cells.size else -1.0

    last = precision[..., -1]
    out = {"AP": mean(last[..., 0]), "AP50": mean(last[0, ..., 0]), "AP75": mean(last[5, ..., 0])}
    out |= {f"AP{size}": mean(last[..., place]) for place, size in enumerate("sml", start=1)}
    out |= {f"AR{limit}": mean(recall[..., 0, place]) for place, limit in enumerate(limits)}
    return out | {
        f"AR{size}": mean(recall[..., place, -1]) for place, size in enumerate("sml", start=1)
    }


@contextlib.contextmanager
def removed_numpy_names() -> Iterator[None]:
    """Gives NumPy back the name `float` for the time of the block: lvis 0.5.3 (2020) still uses `np.float`."""
    names = {name: kind for name, kind in (("float", float), ("int", int)) if not hasattr(np, name)}
    for name, kind in names.items():
        setattr(np, name, kind)
    try:
        yield
    finally:
        for name in names:
            delattr(np, name)


def lvis_reference(
    gt: Path,
    results: list[dict[str, Any]],
    *,
    dilation_ratio: float | None = None,
    max_dets: int = 300,
    area_rule: str = "mask",
) -> Stats:
    """Returns LVIS's thirteen numbers by lvis-api; for boundary AP with the rules of the Boundary IoU API put in.

    Args:
        gt: annotations.
        results: detections.
        dilation_ratio: None for mask AP, or the ratio for boundary AP.
        max_dets: detections that count of an image.
        area_rule: see `coco_reference`.

    Raises:
        UserError: lvis is not installed.
    """
    try:
        with removed_numpy_names():
            from lvis import LVIS, LVISEval, LVISResults
    except ImportError:
        raise UserError(
            "lvis is not installed: `pip install lvis` for the cross-check against lvis-api"
        ) from None
    with removed_numpy_names():
        truth = LVIS(str(gt))
        kind = LVISEval if dilation_ratio is None else _boundary_lvis(LVISEval, dilation_ratio)
        program = kind(
            truth, LVISResults(truth, _plain(results, area_rule), max_dets=max_dets), "segm"
        )
        program.params.max_dets = max_dets
        program.run()
    return {name: float(value) for name, value in program.get_results().items()}


def _boundary_lvis(base: type, ratio: float) -> type:
    """Returns LVISEval by the rules of the Boundary IoU API: its IoU, crowds, half-open size bins."""

    class BoundaryLVISEval(base):  # type: ignore[misc]
        def _prepare(self) -> None:
            super()._prepare()
            for row in (row for rows in self._gts.values() for row in rows):
                row["ignore"] = int(bool(row.get("iscrowd")) or bool(row["ignore"]))

        def compute_iou(self, img_id: int, cat_id: int) -> Any:
            gt, dt = self._get_gt_dt(img_id, cat_id)
            if not gt and not dt:
                return []
            order = np.argsort([-d["score"] for d in dt], kind="mergesort")
            return _boundary_ious([dt[i] for i in order], gt, ratio)

        def evaluate_img(self, img_id: int, cat_id: int, area_rng: list[float]) -> Any:
            gt, dt = self._get_gt_dt(img_id, cat_id)
            if not gt and not dt:
                return None
            outside = [g["ignore"] or not area_rng[0] <= g["area"] < area_rng[1] for g in gt]
            last = np.argsort(outside, kind="mergesort").astype(int)
            gt, ignored = [gt[i] for i in last], np.array([bool(outside[i]) for i in last])
            dt = [dt[i] for i in np.argsort([-d["score"] for d in dt], kind="mergesort")]
            ious = self.ious[img_id, cat_id]
            ious = ious[:, last] if len(ious) else np.zeros((len(dt), len(gt)))
            crowd = np.array([bool(g.get("iscrowd")) for g in gt])
            rows = [_matches(ious, ignored, crowd, threshold) for threshold in self.params.iou_thrs]
            matched = np.array(rows, np.int64).reshape(len(self.params.iou_thrs), len(dt))
            lenient = [
                not area_rng[0] <= d["area"] < area_rng[1] or cat_id in self.img_nel[img_id]
                for d in dt
            ]
            of_match = np.append(ignored, False)[matched]
            return {
                "image_id": img_id,
                "category_id": cat_id,
                "area_rng": area_rng,
                "dt_ids": [d["id"] for d in dt],
                "gt_ids": [g["id"] for g in gt],
                "dt_matches": matched + 1.0,
                "gt_matches": None,
                "dt_scores": [d["score"] for d in dt],
                "gt_ignore": ignored,
                "dt_ignore": np.where(matched >= 0, of_match, np.array(lenient, bool)),
            }

    return BoundaryLVISEval


def _matches(ious: Any, ignored: Any, crowd: Any, threshold: float) -> list[int]:
    """Returns the ground truth that each detection takes at a threshold, -1 for none; ignored ones stand last."""
    taken: set[int] = set()
    out = []
    for row in ious:
        best, least = -1, min(threshold, 1 - 1e-10)
        for g, value in enumerate(row):
            if g in taken and not crowd[g]:
                continue
            if best >= 0 and not ignored[best] and ignored[g]:
                break
            if value >= least:
                best, least = g, value
        taken |= {best} - {-1}
        out.append(best)
    return out
