"""Proof of an overlap: align two pictures on their pixels and see where they agree.

A candidate (`hqsam_datasets.overlap.candidates`) says: under this dihedral variant, roughly at this
scale and shift, the two may show the same thing. Here the finer picture is warped into the frame of
the coarser, corners are tracked, an affine map is fitted to the tracks with RANSAC, and the
normalised cross-correlation (NCC) of every small window is taken. What counts is agreement of
*corners* and textured windows: flat areas agree with everything and are neither for nor against;
straight edges slide along each other and prove little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.overlap.candidates import Candidate, variant_image

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
Kind = Literal["exact", "near", "crop", "background", "foreground"]

VIEW_SIDE = 320
"""Longest side of the pictures that are compared."""
REGION_SIDE = 80
"""Longest side of the region that is kept for the gallery."""

_WINDOW = 11  # pixels, side of an NCC window
_TEXTURE = (
    3.0  # grey levels: a window with a lower standard deviation (after a slight blur) is flat
)
_AGREE = 0.75  # NCC of a window that shows the same
_N_CORNERS = 300
_MIN_COVER = 24 * 24  # pixels of a common frame that is worth a look
_ROUNDS = (
    (100, 2, 3.0),
    (160, 1, 1.5),
)  # corners to track, pyramid levels above the first, tolerance in pixels
_STOP = (3, 12, 0.05)  # the tracker's criteria: at most 12 steps, or one below 0.05 pixels


@dataclass(frozen=True)
class View:
    """A picture prepared for comparison.

    Attributes:
        grey: uint8 [h, w], longest side at most `VIEW_SIDE`.
        mask: bool [h, w], the foreground, or None if there is none to ask.
    """

    grey: U8
    mask: Mask | None = None

    @classmethod
    def of(cls, rgb: U8, mask: Mask | None = None) -> View:
        """Build from an image uint8 [H, W, 3] and a foreground bool [H, W]."""
        grey = np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), np.uint8)
        scale = min(1.0, VIEW_SIDE / max(grey.shape))
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        small_mask = None
        if mask is not None:
            small_mask = (
                cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
            )
        return cls(np.asarray(small, np.uint8), small_mask)


@dataclass(frozen=True)
class Evidence:
    """What the pixels say about a candidate.

    Attributes:
        ncc: correlation of the agreeing area of both pictures, -1..1; NaN if nothing agrees.
        corners: corners with agreeing windows; None if they were not counted (same pixels).
        corner_fraction: their share of all corners in the common frame.
        matched_fraction: agreeing share of the textured windows in the common frame.
        matched_inside, matched_outside: the same over the pixels inside and outside the training
            foreground only; NaN if
            there is no texture.
        cover_train, cover_other: share of either frame that lies in the common frame.
        area_train, area_other: share of either frame's area with agreeing windows.
        area_inside: share of the training frame's area that agrees and is foreground.
        affine: float64 [2, 3], from the variant of the training image to the other image, both in
            fractions of their frame (0, 0 is the top left corner, 1, 1 the bottom right one).
        region: bool [h, w], longest side at most `REGION_SIDE`: where the other picture agrees,
            stretched over its frame.
        outline, complexity, colour: of a comparison of outlines (`hqsam_datasets.overlap.shapes`):
            agreement (0: chance, 1: all), complexity, and difference of the mean colours in grey
            levels; then `matched_inside` is the masks' IoU.
    """

    ncc: float
    corners: int | None
    corner_fraction: float
    matched_fraction: float
    matched_inside: float
    matched_outside: float
    cover_train: float
    cover_other: float
    area_train: float
    area_other: float
    area_inside: float
    affine: F64
    region: Mask
    outline: float = float("nan")
    complexity: float = float("nan")
    colour: float = float("nan")

    @classmethod
    def of_exact(cls) -> Evidence:
        """Return the evidence of two pictures with the same pixels."""
        return cls(
            ncc=1.0,
            corners=None,
            corner_fraction=1.0,
            matched_fraction=1.0,
            matched_inside=1.0,
            matched_outside=1.0,
            cover_train=1.0,
            cover_other=1.0,
            area_train=1.0,
            area_other=1.0,
            area_inside=1.0,
            affine=np.array([[1.0, 0, 0], [0, 1, 0]]),
            region=np.ones((1, 1), np.bool_),
        )


def pixel_affine(
    evidence: Evidence, variant: int, shape: tuple[int, ...], to_shape: tuple[int, ...]
) -> F64:
    """Return the affine map [2, 3] from pixels (x, y) of the training image's file to pixels of the other image.

    Args:
        evidence: of the pair.
        variant: dihedral variant of the training image that was compared.
        shape: height and width of the training image.
        to_shape: of the other image.
    """
    turn = np.eye(3)
    if variant & 4:
        turn = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    if variant & 1:
        turn = np.array([[-1.0, 0, 1], [0, 1, 0], [0, 0, 1]]) @ turn
    if variant & 2:
        turn = np.array([[1.0, 0, 0], [0, -1, 1], [0, 0, 1]]) @ turn
    chain = (
        np.linalg.inv(_to_unit(to_shape))
        @ np.vstack([evidence.affine, [0, 0, 1]])
        @ turn
        @ _to_unit(shape)
    )
    return np.asarray(chain[:2], np.float64)


def _to_unit(shape: tuple[int, ...]) -> F64:
    """Return the map from pixel centres to fractions of the frame."""
    height, width = shape[:2]
    return np.array([[1 / width, 0, 0.5 / width], [0, 1 / height, 0.5 / height], [0, 0, 1]])


def judge(evidence: Evidence, *, same_hash: bool = False) -> Kind | None:
    """Return the kind of overlap that the evidence proves, or None.

    The limits lie in the gap between planted overlaps and unrelated pairs that
    perf/data/overlap_recall.py measures.

    Args:
        evidence: what `compare` found.
        same_hash: the perceptual hashes of the two whole pictures agree.
    """
    e = evidence
    if e.corners is None or e.corners < 4:
        return None
    # Pictures of two grids reach 47 corners, or two in five of all corners, but not both.
    many = e.corners >= 40 and e.corner_fraction >= 0.4 and e.ncc >= 0.7
    if not (e.ncc >= 0.85 or many):
        return None
    framed = max(e.cover_train, e.cover_other) >= 0.85
    whole = framed and e.matched_fraction >= 0.6 and max(e.area_train, e.area_other) >= 0.04
    certain = many or (e.ncc >= 0.88 and e.corners >= 14)
    outside = certain and e.matched_outside >= 0.45 and e.corner_fraction >= 0.2
    outside = outside or (
        e.ncc >= 0.97 and e.corners >= 30 and e.matched_outside >= 0.2 and e.corner_fraction >= 0.2
    )
    outside = outside and min(e.area_train, e.area_other) >= 0.06
    inside = certain and e.matched_inside >= 0.7
    inside = (inside or (e.corners >= 20 and e.matched_inside >= 0.9)) and e.area_inside >= 0.008
    if not (whole or outside or inside):
        return None
    # Comparisons with NaN are false: a part without texture does not speak against the rest.
    only_inside = e.matched_outside < 0.5 * e.matched_inside or not (whole or outside)
    if only_inside and not (same_hash and framed):
        return "foreground"
    if (
        e.matched_inside < 0.5 * e.matched_outside
        or not framed
        or not (whole or e.matched_inside >= 0)
    ):
        return "background"
    return "near" if min(e.cover_train, e.cover_other) >= 0.85 else "crop"


def compare(train: View, other: View, candidate: Candidate) -> Evidence | None:
    """Align and compare; None if the two frames do not even overlap or cannot be aligned."""
    turned = View(
        variant_image(train.grey, candidate.variant),
        None if train.mask is None else variant_image(train.mask, candidate.variant),
    )
    forward = _first_guess(turned.grey.shape, other.grey.shape, candidate)
    swap = _scale(forward) > 1.0  # always shrink: the finer picture goes into the coarser's frame
    source, target = (other, turned) if swap else (turned, other)
    affine = _refine(source.grey, target.grey, _inverse(forward) if swap else forward)
    if affine is None:
        return None
    return _evidence(turned, other, source, target, affine, swap)


def _first_guess(shape: tuple[int, ...], to_shape: tuple[int, ...], candidate: Candidate) -> F64:
    """Return the affine map [2, 3] from variant pixels to the other's, as the candidate says."""
    if candidate.transform is None:
        x, y = to_shape[1] / shape[1], to_shape[0] / shape[0]
        return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])
    scale_x, scale_y, tx, ty = candidate.transform
    unit, to_unit = max(shape) / 256, max(to_shape) / 256
    x, y = scale_x * to_unit / unit, scale_y * to_unit / unit
    # Features are measured from the corner of the frame, pixels from the middle of the first one.
    return np.array([[x, 0, x / 2 - 0.5 + tx * to_unit], [0, y, y / 2 - 0.5 + ty * to_unit]])


def _scale(affine: F64) -> float:
    return float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))


def _inverse(affine: F64) -> F64:
    return np.asarray(cv2.invertAffineTransform(affine), np.float64)


def _warp(image: U8, affine: F64, shape: tuple[int, ...]) -> tuple[U8, Mask]:
    """Return the image in the target frame, and where it covers it; shrinking blurs first."""
    scale = _scale(affine)
    if scale < 0.8:
        image = np.asarray(
            cv2.GaussianBlur(image, (0, 0), 0.45 * float(np.sqrt(1 / scale**2 - 1))), np.uint8
        )
    size = (shape[1], shape[0])
    warped = cv2.warpAffine(
        image, affine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    cover = cv2.warpAffine(
        np.full(image.shape, 255, np.uint8), affine, size, flags=cv2.INTER_NEAREST
    )
    return np.asarray(warped, np.uint8), cover > 0


def _normalised(image: U8) -> U8:
    """Normalise local contrast, so that brightness and gamma do not disturb the tracker."""
    values = image.astype(np.float32)
    mean = cv2.GaussianBlur(values, (0, 0), 7)
    spread = cv2.sqrt(cv2.GaussianBlur((values - mean) ** 2, (0, 0), 7))
    flat = (values - mean) / (np.asarray(spread) + 4)
    return np.asarray(np.clip(flat * 45 + 128, 0, 255), np.uint8)


def _refine(source: U8, target: U8, affine: F64) -> F64 | None:
    """Refine the affine map from source to target pixels on tracked corners.

    None if the overlap is empty.
    """
    normal_source, normal_target = _normalised(source), _normalised(target)
    for count, levels, tolerance in _ROUNDS:
        if not 1 / 16 < _scale(affine) < 1.6:
            return None
        warped, cover = _warp(normal_source, affine, target.shape)
        if cover.sum() < _MIN_COVER:
            return None
        correction = _track(warped, normal_target, cover, count, levels, tolerance)
        if correction is None:
            return affine
        affine = np.asarray(
            (np.vstack([correction, [0, 0, 1]]) @ np.vstack([affine, [0, 0, 1]]))[:2], np.float64
        )
    return affine


def _track(
    warped: U8, target: U8, cover: Mask, count: int, levels: int, tolerance: float
) -> F64 | None:
    """Return the affine correction from the warped picture to the target.

    None if too few corners can be tracked.
    """
    points = cv2.goodFeaturesToTrack(target, count, 0.02, 6, mask=cover.astype(np.uint8))
    if points is None or len(points) < 4:
        return None
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        target,
        warped,
        points,
        np.zeros_like(points),
        winSize=(13, 13),
        maxLevel=levels,
        criteria=_STOP,
    )
    good = status.ravel() > 0
    if good.sum() < 4:
        return None
    fit, inliers = cv2.estimateAffine2D(
        found[good], points[good], ransacReprojThreshold=tolerance, maxIters=500
    )
    if fit is None or inliers.sum() < 4:
        return None
    # A correction keeps the shape: stretch and shear within 30 %, no reflection.
    stretch = np.linalg.svd(fit[:, :2], compute_uv=False)
    gentle = np.linalg.det(fit[:, :2]) > 0 and stretch[0] < 1.35 and stretch[1] > 0.74
    return np.asarray(fit, np.float64) if gentle else None


# ---- what agrees ----


@dataclass(frozen=True)
class _Windows:
    """Windows of two aligned pictures: which agree, which have texture in either, and how they correlate."""

    ncc: F32
    agree: Mask
    textured: Mask

    @property
    def share(self) -> float:
        """Agreeing share of the textured windows; NaN if there are none."""
        total = int(self.textured.sum())
        return int(self.agree.sum()) / total if total else float("nan")


def _windows(first: U8, second: U8, where: Mask) -> _Windows:
    """Compare all windows, each over its pixels in `where` only.

    Those with less than a quarter are left out.
    """
    size = (_WINDOW, _WINDOW)
    weight = where.astype(np.float32)
    share = cv2.blur(weight, size)
    norm = 1 / np.maximum(share, 1e-3)
    a, b = (
        cv2.GaussianBlur(image.astype(np.float32) - 128, (0, 0), 0.9) for image in (first, second)
    )
    mean_a, mean_b = cv2.blur(a * weight, size) * norm, cv2.blur(b * weight, size) * norm
    var_a = np.maximum(cv2.blur(a * a * weight, size) * norm - mean_a * mean_a, 0)
    var_b = np.maximum(cv2.blur(b * b * weight, size) * norm - mean_b * mean_b, 0)
    covariance = cv2.blur(a * b * weight, size) * norm - mean_a * mean_b
    ncc = covariance / np.sqrt(np.maximum(var_a * var_b, 1e-6))
    seen, floor = where & (share > 0.25), _TEXTURE**2
    agree = seen & (var_a > floor) & (var_b > floor) & (ncc >= _AGREE)
    return _Windows(ncc, agree, seen & ((var_a > floor) | (var_b > floor)))


@dataclass(frozen=True)
class _Areas:
    """What one pixel of the common frame is worth, as a share of the training frame and of the other's."""

    train: float
    other: float


def _evidence(
    turned: View, other: View, source: View, target: View, affine: F64, swap: bool
) -> Evidence | None:
    warped, cover = _warp(source.grey, affine, target.grey.shape)
    cover = np.asarray(cv2.erode(cover.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
    if cover.sum() < _MIN_COVER:
        return None
    forward = _inverse(affine) if swap else affine
    shrink = _scale(affine) ** 2
    areas = _Areas(
        train=(1.0 if swap else 1 / shrink) / turned.grey.size,
        other=(1 / shrink if swap else 1.0) / other.grey.size,
    )
    whole = _windows(warped, target.grey, cover)
    # The training foreground, in the target frame.
    inside = np.zeros(target.grey.shape, np.bool_) if turned.mask is None else turned.mask
    if turned.mask is not None and not swap:
        size = (target.grey.shape[1], target.grey.shape[0])
        moved = cv2.warpAffine(inside.astype(np.uint8), affine, size, flags=cv2.INTER_NEAREST)
        inside = np.asarray(moved > 0)
    foreground = _windows(warped, target.grey, cover & inside) if inside.any() else None
    background = _windows(warped, target.grey, cover & ~inside) if inside.any() else whole
    agree = background.agree if foreground is None else background.agree | foreground.agree
    corners, n_corners = _corners(target.grey, warped, cover, agree)
    region = agree
    if swap:
        moved, there = _warp(agree.astype(np.uint8) * 255, forward, other.grey.shape)
        region = (moved > 127) & there
    a, b = (image[agree].astype(np.float64) for image in (warped, target.grey))
    flat = not a.size or a.std() == 0 or b.std() == 0
    return Evidence(
        ncc=float("nan") if flat else float(np.corrcoef(a, b)[0, 1]),
        corners=corners,
        corner_fraction=corners / max(n_corners, 1),
        matched_fraction=whole.share,
        matched_inside=float("nan") if foreground is None else foreground.share,
        matched_outside=background.share,
        cover_train=min(1.0, float(cover.sum()) * areas.train),
        cover_other=min(1.0, float(cover.sum()) * areas.other),
        area_train=float(agree.sum()) * areas.train,
        area_other=float(agree.sum()) * areas.other,
        area_inside=0.0 if foreground is None else float(foreground.agree.sum()) * areas.train,
        affine=in_fractions(forward, turned.grey.shape, other.grey.shape),
        region=thumbnail(region),
    )


def thumbnail(region: Mask) -> Mask:
    """Shrink a region bool [H, W] to a longest side of at most `REGION_SIDE`: a hundred thousand must fit in memory."""
    scale = min(1.0, REGION_SIDE / max(region.shape))
    size = (max(1, round(region.shape[1] * scale)), max(1, round(region.shape[0] * scale)))
    small = cv2.resize(region.view(np.uint8) * np.uint8(255), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small > 127)


def in_fractions(affine: F64, shape: tuple[int, ...], to_shape: tuple[int, ...]) -> F64:
    """Return a map between pixels of two frames as one between fractions of them."""
    chain = _to_unit(to_shape) @ np.vstack([affine, [0, 0, 1]]) @ np.linalg.inv(_to_unit(shape))
    return np.asarray(chain[:2], np.float64)


def _corners(target: U8, warped: U8, cover: Mask, agree: Mask) -> tuple[int, int]:
    """Count the corners with agreeing windows, and all corners; the mean over the two pictures."""
    agreeing = total = 0
    where = cover.astype(np.uint8)
    for image in (target, warped):
        points = cv2.goodFeaturesToTrack(
            cv2.GaussianBlur(image, (3, 3), 0), _N_CORNERS, 0.02, 6, mask=where
        )
        if points is not None:
            x, y = np.rint(points[:, 0]).astype(np.int64).T
            agreeing += int(agree[y, x].sum())
            total += len(x)
    return agreeing // 2, total // 2
