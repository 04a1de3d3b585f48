"""What `protocol: paper` and `protocol: strict` of a benchmark stand for: one key in place of several.

`paper` is what the official code of the benchmark does. `strict` keeps the aspect ratio everywhere,
takes boxes from the masks at full resolution, and adds boundary values at 0.01; scores and limits
are the official ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

Protocol = Literal["paper", "strict"]
NAMES: tuple[str, ...] = get_args(Protocol)

Sections = Mapping[str, Mapping[str, Any]]

# SysCV/sam-hq, train/train.py: images stretched to 1024 x 1024, boxes from the masks stretched alike.
_HQ: Mapping[str, Mapping[str, Any]] = {
    "index": {"box_side": 1024},
    "predict": {"resize": "stretch", "precision": "float32", "mask_prompt": "as_trained"},
    "score": {"dilation_ratio": 0.02},
}
# SAM's own resizing: the demo, and what the authors said of the other sets.
_SAM = {"resize": "longest_side", "precision": "float32", "mask_prompt": "as_trained"}
_BANDS = {"dilation_ratio": 0.02, "strict_dilation_ratio": 0.01}


def _asis(**score: Any) -> Sections:
    return {"index": {"box_side": None}, "predict": _SAM, "score": score}


PAPER: Mapping[str, Sections] = {
    **dict.fromkeys(("dis_vd", "coift", "hrsod", "thinobject5k_test"), _HQ),
    **dict.fromkeys(("dis_te1", "dis_te2", "dis_te3", "dis_te4"), _HQ),
    "big": _asis(dilation_ratio=0.02),
    "ndd20": _asis(dilation_ratio=0.02),
    "coco": _asis(score_rule="detector_x_iou", max_dets=100, dilation_ratio=0.02),
    "lvis": _asis(score_rule="detector", max_dets=300, **_BANDS),
    "uvo": _asis(score_rule="detector", max_dets=100, class_agnostic=True, **_BANDS),
    "sginw": _asis(score_rule="detector", max_dets=100, dilation_ratio=0.02),
    **dict.fromkeys(("hq_ytvis", "ytvis19"), _asis(score_rule="detector", dilation_ratio=0.02)),
    "davis": _asis(),
}
"""By adapter. Where the official code was never published (BIG, UVO, the videos): what paper and authors say of it."""


def sections(protocol: str, kind: str, options: Collection[str]) -> Sections | None:
    """Return what a protocol sets of `index`, `predict` and `score`.

    Args:
        protocol: one of `NAMES`.
        kind: adapter of the benchmark.
        options: names of the options that its metric has.

    Returns:
        None: there is no official code for this kind of data.
    """
    official = PAPER.get(kind)
    if protocol == "paper":
        return official
    score = {**(official["score"] if official else {}), **_BANDS}
    # HQ-YTVIS fixes its band, DAVIS has none.
    fixed = "strict_dilation_ratio" not in options
    kept = {key: value for key, value in score.items() if not (fixed and key in _BANDS)}
    return {"index": {"box_side": None}, "predict": _SAM, "score": kept}
