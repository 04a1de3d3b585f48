"""The prompt set in which each system follows its own masks through a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hqsam.prediction.postprocess import MaskPatch
from hqsam.prediction.prompt import Prompt
from hqsam.prediction.tracks import Tracks
from hqsam.systems import Decoded, Promptable


class Shifts(Promptable):
    """Two systems whose masks are the box, moved right by 2 pixels and by 5; `asked` notes every call."""

    def __init__(self) -> None:
        self.asked: list[list[Any]] = []

    def prepare(self, image: Any) -> Any:
        return image

    def encode(self, prepared: Sequence[Any]) -> Sequence[Any]:
        return prepared

    def decode(self, image: Any, prompts: Sequence[Prompt]) -> Mapping[str, Decoded]:
        self.asked.append([prompt.box for prompt in prompts])

        def masks(by: int) -> list[Any]:
            found = []
            for prompt in prompts:
                assert prompt.box is not None
                x0, y0, x1, y1 = map(int, prompt.box)
                mask = np.zeros((20, 40), bool)
                mask[y0 : y1 + 1, x0 + by : x1 + by + 1] = True
                found.append(mask)
            return found

        return {f"by{by}": Decoded(masks(by), [0.5] * len(prompts)) for by in (2, 5)}

    def to_image(self, image: Any, values: Any) -> MaskPatch:
        return MaskPatch.of(values)


def row(track: int, x0: float) -> dict[str, Any]:
    return {"track_id": track, "x0": x0, "y0": 3.0, "x1": x0 + 4, "y1": 8.0}


def test_each_system_follows_its_own_masks_from_the_first_box_on() -> None:
    one, tracks = Shifts(), Tracks()

    def frame(video: str, *rows: dict[str, Any]) -> dict[tuple[str, int], int]:
        found = tracks.predictions(one, None, video, rows, per_pass=16)
        return {
            (system, r["track_id"]): int(patch.full().any(axis=0).argmax())
            for r, system, patch, _ in found
        }

    assert frame("a", row(1, 4.0)) == {("by2", 1): 6, ("by5", 1): 9}
    assert len(one.asked) == 1, "one call where all are at the first box"
    # A second object comes up; the first goes on from where each system saw it.
    assert frame("a", row(1, 4.0), row(2, 20.0)) == {
        ("by2", 1): 8,
        ("by2", 2): 22,
        ("by5", 1): 14,
        ("by5", 2): 25,
    }
    for _ in range(6):
        last = frame("a", row(2, 20.0))
    # Beyond the edge its mask is empty, and the last box that was not is asked for again.
    assert last["by5", 2] == 0 and one.asked[-1][0][0] == 35.0
    assert frame("b", row(1, 4.0)) == {("by2", 1): 6, ("by5", 1): 9}, "another video begins anew"
