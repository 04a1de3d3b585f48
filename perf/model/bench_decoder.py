"""Decoder: 100 boxes on one ViT-B image, one call here against one call per box of the authors' predictor.

    python -m perf.model.bench_decoder [--boxes 100] [--rounds 3] [--json FILE]
        [--full|--quick]

Both get the same weights and the same random image features (no encoder runs), both return boolean
masks of 1024 x 683 pixels, and the masks must agree. CPU seconds of one thread, the two programs in
turn, ratio of the medians. The authors' loop is timed on 10 boxes a round and scaled, unless
`--full`. Target: 3 times as fast.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perf.model.measure import median, processor
from perf.table import Row, finish

TARGET, AGREEMENT, DIFFERING = 3.0, 1e-4, 1e-5
SIZE = (683, 1024)


def _ours() -> Any:
    """ViT-B's decoder sizes behind the shortest encoder that has an early feature."""
    import torch

    from hqsam.api.predictor import SamHQPredictor
    from hqsam.model.backbones.base import vit_backbone
    from hqsam.model.hq_sam import HQSam

    torch.manual_seed(0)
    backbone = vit_backbone("short", width=768, depth=1, heads=12, global_blocks=(0,))
    return SamHQPredictor(HQSam(backbone=backbone, sam=backbone.build()).eval())


def _theirs(model: Any) -> Any:
    import torch

    from hqsam.model._torchvision import ensure_torchvision
    from hqsam.model.convert import merged_state

    ensure_torchvision()
    warnings.simplefilter("ignore")
    from segment_anything_hq import SamPredictor
    from segment_anything_hq import modeling as m

    encoder = torch.nn.Module()
    encoder.img_size = 1024  # type: ignore[assignment]
    transformer = m.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    sam = m.Sam(
        image_encoder=encoder,
        prompt_encoder=m.PromptEncoder(256, (64, 64), (1024, 1024), 16),
        mask_decoder=m.MaskDecoderHQ(transformer_dim=256, transformer=transformer, vit_dim=768),
    )
    state = {k: v for k, v in merged_state(model).items() if not k.startswith("image_encoder.")}
    sam.load_state_dict(state, strict=True)
    return SamPredictor(sam.eval())


@dataclass
class Race:
    """Both predictors with the features of one image that nobody encoded, and the boxes."""

    ours: Any
    theirs: Any
    final: Any
    early: Any
    boxes: npt.NDArray[np.float64]

    def run_ours(self) -> tuple[float, Any, Any]:
        """Seconds, masks, low-resolution logits of all boxes in one call."""
        import torch

        from hqsam.model.hq_sam import Encoded

        start = time.process_time()
        self.ours._encoded = Encoded(self.final, self.early)
        # Part of the bill: the authors' decoder computes it for every box.
        self.ours._fused = self.ours.model.fuse(self.ours._encoded)
        boxes = torch.as_tensor(self.boxes, dtype=torch.float32)
        masks, _, low = self.ours.predict_torch(None, None, boxes=boxes, multimask_output=False)
        return time.process_time() - start, masks.numpy(), low.numpy()

    def run_theirs(self, count: int) -> tuple[float, list[Any]]:
        """Seconds a box, and what came back for the first boxes."""
        start = time.process_time()
        found = [self.theirs.predict(box=box, multimask_output=False) for box in self.boxes[:count]]
        return (time.process_time() - start) / count, found


def prepare(boxes: int) -> Race:
    """The same weights and features on both sides."""
    import torch

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    final, early = (torch.randn(1, width, 64, 64, generator=generator) for width in (256, 768))
    ours = _ours()
    theirs = _theirs(ours.model)
    for predictor in (ours, theirs):
        predictor.is_image_set = True
        predictor.original_size, predictor.input_size = SIZE, SIZE
    theirs.features, theirs.interm_features = final, [early.permute(0, 2, 3, 1)]
    corners = np.random.default_rng(2).uniform(0, [SIZE[1], SIZE[0]], (boxes, 2, 2))
    return Race(ours, theirs, final, early, np.sort(corners, axis=1).reshape(boxes, 4))


def measure(boxes: int, timed: int, rounds: int) -> dict[str, Any]:
    """Time both in turn and compare their masks."""
    import torch

    race = prepare(boxes)
    ours_s, theirs_s = [], []
    with torch.no_grad():
        for _ in range(rounds):
            per_box, loop = race.run_theirs(timed)
            seconds, masks, low = race.run_ours()
            theirs_s.append(per_box * boxes)
            ours_s.append(seconds)
    return {
        "boxes": boxes,
        "hqsam_s": ours_s,
        "authors_s": theirs_s,
        "authors_timed_boxes": timed,
        "largest_logit_difference": max(
            float(np.abs(low[n] - out[2]).max()) for n, out in enumerate(loop)
        ),
        "differing_pixels": sum(int((masks[n] != out[0]).sum()) for n, out in enumerate(loop)),
        "compared_pixels": timed * SIZE[0] * SIZE[1],
    }


def main() -> int:
    """Print the table; 1 if the target is missed or the masks differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boxes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true", help="24 boxes, 3 of the authors', 1 round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    boxes, rounds = (24, 1) if options.quick else (options.boxes, options.rounds)
    timed = 3 if options.quick else boxes if options.full else min(10, boxes)
    result = measure(boxes, timed, rounds)
    theirs, ours = median(result["authors_s"]), median(result["hqsam_s"])
    share = result["differing_pixels"] / result["compared_pixels"]
    what = (
        f"{result['boxes']} boxes on a vit_b image, CPU float32: speed against the authors' "
        f"predictor"
    )
    rows = [
        Row.at_least(
            f"{what}, called per box",
            theirs / ours,
            TARGET,
            peer=f"segment-anything-hq: {theirs:.1f} s",
            now=f"{ours:.1f} s",
        ),
        Row.at_most(
            "vit_b decoder: largest difference of the low-resolution logits",
            result["largest_logit_difference"],
            AGREEMENT,
            "",
        ),
        Row.at_most(
            f"vit_b decoder: share of differing mask pixels, of {result['compared_pixels']:,}",
            share,
            DIFFERING,
            "",
        ),
    ]
    return finish(rows, options.json, results=[result], cpu=processor())


if __name__ == "__main__":
    sys.exit(main())
