"""Figure 6 of the paper: where the HQ token looks, beside SAM's, on scenes of the four HQ sets.

The only part of the report that runs the model: for the few scenes shown here, on the processor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hqsam_pipelines.report import paper
from hqsam_pipelines.report.draw import TRUTH, U8, Painter, captioned
from hqsam_pipelines.report.html import Picture
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.scenes import Pick, SceneReader

SIDE = 232
HEADS = ("Image and prompt", "Ground truth", "SAM's token", "HQ token")
TEXT = (
    "Cross-attention of SAM's mask token and of the HQ token to the image, in the last "
    "token-to-image layer of the mask decoder (Figure 6 of the paper): the mean over its heads, "
    "from nothing (dark) to each map's own maximum (yellow). The model sees the image as {grid} "
    "positions; the maps are as coarse."
)


def figure(run: Run, reader: SceneReader, picks: Sequence[Pick]) -> tuple[Picture, str] | None:
    """A row per scene, and what to say of them; None where the model has no HQ token or its files are not here."""
    model = run.models[0]
    head = run.root / "models" / model / "hq_head.safetensors"
    checkpoint = run.root / str(run.params["models"].get(model, {}).get("checkpoint"))
    if not picks or not head.is_file() or not checkpoint.is_file():
        return None
    from hqsam.model.build import build_model
    from hqsam.model.options import ModelOptions

    entry = {k: v for k, v in run.params["models"][model].items() if k not in ("train", "seed")}
    options = ModelOptions.model_validate({**entry, "checkpoint": checkpoint})
    net = build_model(options, head=head).eval()
    rows = [row for pick in picks if (row := _row(run, net, reader, pick)) is not None]
    if not rows:
        return None
    captions = [[paper.title(pick.benchmark), "", "", ""] for pick in picks]
    image = captioned(rows, HEADS, captions)
    grid = net.backbone.embedding_size
    text = TEXT.format(grid=f"{grid} × {grid}")
    return Picture(image, "Attention of SAM's token and of the HQ token", ""), text


def _row(run: Run, net: Any, reader: SceneReader, pick: Pick) -> list[U8] | None:
    from hqsam.prediction.options import PredictOptions
    from hqsam.prediction.prompt import Prompt
    from hqsam.prediction.token_attention import token_attention
    from hqsam.systems.sam_hq import SamHQ

    result = run.find(pick.benchmark, pick.model, pick.prompt_set, run.hq_system(pick.benchmark))
    resize = {} if result is None else {"resize": result.protocol.get("resize", "longest_side")}
    how = PredictOptions.model_validate({"device": "cpu", **resize})
    scene = reader.read(pick)
    prompt = Prompt.from_row(reader.prompt(pick))
    seen: Mapping[str, Any] | None = token_attention(SamHQ(net, how), scene.image, prompt)
    if seen is None:
        return None
    painter = Painter(scene, SIDE)
    return [
        painter.prompt(),
        painter.mask(scene.truth, TRUTH),
        *(painter.heat(np.asarray(seen[name])) for name in ("sam", "hq_token")),
    ]
