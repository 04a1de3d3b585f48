"""YouTube-VIS results: tracks with a mask or null for each frame; in a zip as the 2019 server takes it.

Source: https://youtube-vos.org/dataset/vis (submission: `results.json` in a zip).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hqsam_base.atomic import atomic_file
from hqsam_metrics.exports.base import Export, stream_results, write_results

if TYPE_CHECKING:
    from hqsam_metrics.base import ScoreOptions
    from hqsam_metrics.benchmark_data import Predictions
    from hqsam_metrics.scores.ytvis import YtvisOptions


class YtvisExport(Export):
    """The format `ytvis`: a name ending in `.zip` gives the server's archive, any other the JSON in it."""

    name = "ytvis"
    kinds = ("ytvis",)

    def write(self, data: Predictions, options: ScoreOptions, out: Path) -> list[str]:
        """See `hqsam_metrics.exports.base.Export`."""
        rows = _tracks(data, cast("YtvisOptions", options))
        if out.suffix.lower() != ".zip":
            write_results(out, rows)
            return []
        # A fixed time: the same predictions give the same bytes.
        entry = zipfile.ZipInfo("results.json", (1980, 1, 1, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED
        with (
            atomic_file(out) as file,
            zipfile.ZipFile(file, "w") as archive,
            archive.open(entry, "w", force_zip64=True) as member,
        ):
            stream_results(member, rows)
        return []


def _tracks(data: Predictions, options: YtvisOptions) -> Iterator[dict[str, Any]]:
    from hqsam_metrics.ap.tubes_io import blank_string, read_ytvis
    from hqsam_metrics.scores.ytvis import join_tracks

    truth = read_ytvis(data.benchmark.ground_truth)
    tubes = join_tracks(data, truth, options)
    offsets = tubes.frames.offsets.tolist()
    for number in range(len(tubes)):
        video = int(tubes.video[number])
        size = [int(truth.heights[video]), int(truth.widths[video])]
        codes = [tubes.frames.masks.string(i) for i in range(offsets[number], offsets[number + 1])]
        blank = blank_string(*size)
        yield {
            "video_id": int(truth.video_ids[video]),
            "category_id": int(truth.category_ids[tubes.category[number]]),
            "score": float(tubes.score[number]),
            "segmentations": [
                None if code == blank else {"size": size, "counts": code.decode("ascii")}
                for code in codes
            ],
        }


EXPORT = YtvisExport()
