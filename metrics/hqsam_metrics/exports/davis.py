"""DAVIS 2017 results: `<sequence>/<frame>.png`, palette pictures whose values are object numbers.

Source: https://davischallenge.org/davis2017/code.html; the palette is that of the DAVIS annotations,
which is PASCAL VOC's colour map.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_metrics.exports.base import Export, plain_names

if TYPE_CHECKING:
    from hqsam_metrics.base import ScoreOptions
    from hqsam_metrics.benchmark_data import Predictions


class DavisExport(Export):
    """The format `davis`. Overlaps of objects are resolved as the metric does."""

    name = "davis"
    kinds = ("davis",)
    folder = True

    def write(self, data: Predictions, options: ScoreOptions, out: Path) -> list[str]:
        """See `hqsam_metrics.exports.base.Export`."""
        from PIL import Image

        from hqsam_metrics.benchmark_data import strings
        from hqsam_metrics.scores.davis import label_maps

        for folder in plain_names(sorted({*map(str, strings(data.benchmark.images, "video"))})):
            (out / folder).mkdir()
        warnings: list[str] = []
        palette = davis_palette()
        for video, frame, labels in label_maps(data, warnings):
            picture = Image.fromarray(labels)
            picture.putpalette(palette)
            picture.save(out / video / f"{frame:05d}.png")
        return warnings


def davis_palette() -> bytes:
    """Return the 256 colours of the DAVIS annotations as RGB bytes [768]: PASCAL VOC's colour map.

    Bits 0, 1, 2 of a number (then 3, 4, 5; then 6, 7) are the highest bits of red, green and blue.
    """
    return bytes(
        sum(((label >> 3 * step + channel) & 1) << 7 - step for step in range(3))
        for label in range(256)
        for channel in range(3)
    )


EXPORT = DavisExport()
