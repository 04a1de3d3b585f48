"""The reference programs themselves, as cross-check and as the yardstick of the benchmarks.

pycocotools' COCOeval and lvis-api define what AP means here; `hqsam_metrics.ap.detection` computes the same faster. The
boundary version is COCOeval with the original algorithm: full-size masks, a 3x3 erosion repeated as often as the band
is wide. Nothing else imports this module; lvis is needed for `lvis_reference` only.
"""

from __future__ import annotations

import contextlib
import io
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
COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def original_band(mask: NDArray[np.uint8], dilation: int) -> NDArray[np.uint8]:
    """Returns the boundary band as the original algorithm does: a 3x3 erosion of the padded picture, repeated."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation)
    band: NDArray[np.uint8] = np.asarray(mask - eroded[1:-1, 1:-1], np.uint8)
    return band


class BoundaryCOCOeval(COCOeval):  # type: ignore[misc]
    """COCOeval whose IoU is min(mask IoU, boundary IoU), crowd columns by mask alone."""

    dilation_ratio = 0.02
    make_band = staticmethod(original_band)

    def _band(self, annotation: dict[str, Any]) -> Any:
        if "band" not in annotation:
            mask = coco_mask.decode(annotation["segmentation"])
            dilation = dilation_pixels(mask.shape[0], mask.shape[1], self.dilation_ratio)
            annotation["band"] = coco_mask.encode(np.asfortranarray(self.make_band(mask, dilation)))
        return annotation["band"]

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802 - the name of the method that is replaced
        """Returns the matrix of IoUs of one image and category (detections by falling score x ground truth)."""
        ious = super().computeIoU(imgId, catId)
        if not len(ious):
            return ious
        categories = [catId] if self.params.useCats else self.params.catIds
        gt = [g for c in categories for g in self._gts[imgId, c]]
        dt = [d for c in categories for d in self._dts[imgId, c]]
        order = np.argsort([-d["score"] for d in dt], kind="mergesort")[: self.params.maxDets[-1]]
        bands = [self._band(dt[i]) for i in order], [self._band(g) for g in gt]
        boundary = coco_mask.iou(*bands, [0] * len(gt))
        crowd = np.array([g["iscrowd"] for g in gt], bool)
        return np.where(crowd, ious, np.minimum(ious, boundary))


def _load(content: Mapping[str, Any] | Path, results: list[dict[str, Any]]) -> tuple[Any, Any]:
    if isinstance(content, Path):
        coco = COCO(str(content))
    else:
        coco = COCO()
        coco.dataset = dict(content)
        coco.createIndex()
    plain = [{key: r[key] for key in ("image_id", "category_id", "segmentation", "score")} for r in results]
    return coco, coco.loadRes(plain)


def coco_reference(
    gt: Mapping[str, Any] | Path,
    results: list[dict[str, Any]],
    *,
    dilation_ratio: float | None = None,
    class_agnostic: bool = False,
) -> Stats:
    """Returns COCO's twelve numbers by COCOeval; -1 where there is no ground truth.

    Args:
        gt: annotations, parsed or a file.
        results: detections (a `bbox` key is taken out: it would change the area rule).
        dilation_ratio: None for mask AP, or the ratio for boundary AP.
        class_agnostic: match whatever the category.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        coco, found = _load(gt, results)
        kind = COCOeval if dilation_ratio is None else BoundaryCOCOeval
        program = kind(coco, found, "segm")
        program.dilation_ratio = dilation_ratio
        if dilation_ratio is not None:
            for annotation in coco.dataset["annotations"]:
                annotation["segmentation"] = coco.annToRLE(annotation)
        program.params.useCats = int(not class_agnostic)
        program.evaluate()
        program.accumulate()
        program.summarize()
    return dict(zip(COCO_NAMES, map(float, program.stats), strict=True))


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


def lvis_reference(gt: Path, results: list[dict[str, Any]]) -> Stats:
    """Returns LVIS's thirteen numbers by lvis-api (mask AP, 300 detections an image).

    Raises:
        UserError: lvis is not installed.
    """
    try:
        with removed_numpy_names():
            from lvis import LVIS, LVISEval, LVISResults
    except ImportError:
        raise UserError("lvis is not installed: `pip install lvis` for the cross-check against lvis-api") from None
    plain = [{key: r[key] for key in ("image_id", "category_id", "segmentation", "score")} for r in results]
    with removed_numpy_names():
        truth = LVIS(str(gt))
        program = LVISEval(truth, LVISResults(truth, plain, max_dets=300), "segm")
        program.run()
    return {name: float(value) for name, value in program.get_results().items()}
