"""A toy system: fills the box, whatever the picture shows; knows boxes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hqsam.prediction.postprocess import MaskPatch
from hqsam.prediction.prompt import Prompt
from hqsam.systems import Context, Decoded, Entry, Promptable, SystemKind


class Boxes(Promptable):
    """See the module."""

    takes = frozenset({"box"})
    protocol: Mapping[str, Any] = {"filled": "box, inclusive"}

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, image: Any) -> Any:
        return image.shape[:2]

    def encode(self, prepared: Sequence[Any]) -> Sequence[Any]:
        return prepared

    def decode(self, image: Any, prompts: Sequence[Prompt]) -> Mapping[str, Decoded]:
        return {self.name: Decoded([p.box for p in prompts], [0.5] * len(prompts))}

    def to_image(self, image: Any, values: Any) -> MaskPatch:
        mask = np.zeros(image, bool)
        x0, y0, x1, y1 = (round(v) for v in values)
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
        return MaskPatch.of(mask)


class BoxesKind(SystemKind):
    """See the module."""

    def open(self, entry: Entry, context: Context) -> Promptable:
        return Boxes(entry.name)


SYSTEM = BoxesKind("boxes")
