"""HQ-YTVIS test: YouTube-VIS 2019 training videos with re-annotated masks.

Source: Ke et al., Video Mask Transfiner, ECCV 2022 (`ytvis_hq-test.json`); annotation licence not stated. Frames:
`train/JPEGImages/<video>/<frame>.jpg` of YouTube-VIS 2019 (login needed, CC BY 4.0), every fifth frame annotated.
Masks are uncompressed run lengths, one entry a frame, null when the object is away. Prompts: boxes of Mask2Former
Swin-L tracks, per object and frame, from its YouTube-VIS results (`[{video_id, category_id, score,
segmentations}]`). The tracker was trained on these videos. Known bad files: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_datasets import rle
from hqsam_datasets.benchmarks.base import Content, Item, Kind, Prompt, Truth
from hqsam_datasets.benchmarks.cocolike import check_ids, field, group, read_json
from hqsam_datasets.benchmarks.common import find_file, find_folder
from hqsam_datasets.errors import UserError
from hqsam_datasets.sample import make_key

Json = dict[str, Any]


@dataclass(frozen=True)
class HqYtvis:
    """The test part of HQ-YTVIS."""

    name: str = "hq_ytvis"
    kind: Kind = "ytvis"
    dataset_version: str = "HQ-YTVIS test"
    class_agnostic: bool = False
    annotations: str = "ytvis_hq-test.json"
    tracks: str = "mask2former_results.json"

    def read(self, root: Path) -> Content:
        """Every frame of every video with the tracker's boxes on it."""
        path, tracks_at = find_file(root, self.annotations), find_file(root, self.tracks)
        truth = read_json(path, dict)
        videos = sorted(field(truth, "videos", path), key=lambda v: int(field(v, "id", path)))
        known = {v["id"] for v in videos}
        objects = group(field(truth, "annotations", path), "video_id", path)
        tracks = group(read_json(tracks_at, list), "video_id", tracks_at)
        check_ids(objects, known, path, "annotations of videos")
        check_ids(tracks, known, tracks_at, "tracks of videos")
        frames = find_folder(root, "JPEGImages")
        return Content(items=self._items(frames, path, tracks_at, videos, objects, tracks), ground_truth=truth)

    def _items(
        self,
        frames: Path,
        path: Path,
        tracks_at: Path,
        videos: list[Json],
        objects: dict[Any, list[Json]],
        tracks: dict[Any, list[Json]],
    ) -> Iterator[Item]:
        number = 0
        for video in videos:
            size = int(field(video, "height", path)), int(field(video, "width", path))
            for frame, name in enumerate(field(video, "file_names", path)):
                number += 1
                key = make_key(self.name, f"{int(video['id']):05d}-{frame:05d}")
                yield Item(
                    key=key,
                    path=frames / name,
                    image_id=number,
                    height=size[0],
                    width=size[1],
                    video=str(name).split("/")[0],
                    video_id=int(video["id"]),
                    frame=frame,
                    truths=tuple(_truths(objects.get(video["id"], []), frame, size, path)),
                    prompts=tuple(_prompts(key, tracks.get(video["id"], []), frame, size, tracks_at)),
                )


def _mask(record: Json, frame: int, size: tuple[int, int], path: Path) -> str | None:
    masks = field(record, "segmentations", path)
    entry = masks[frame] if frame < len(masks) else None
    if entry is None:
        return None
    try:
        return rle.from_segmentation(entry, height=size[0], width=size[1])
    except ValueError as error:
        raise UserError(f"bad segmentation in frame {frame}: {error}", file=path, key=str(record.get("id"))) from error


def _truths(objects: list[Json], frame: int, size: tuple[int, int], path: Path) -> Iterator[Truth]:
    for record in objects:
        counts = _mask(record, frame, size, path)
        if counts is not None:
            yield Truth(
                instance_id=f"{record['id']}-{frame:05d}",
                rle=counts,
                area=float(rle.area(counts, height=size[0], width=size[1])),
                category_id=int(field(record, "category_id", path)),
                track_id=int(record["id"]),
                iscrowd=bool(record.get("iscrowd", 0)),
            )


def _prompts(key: str, tracks: list[Json], frame: int, size: tuple[int, int], path: Path) -> Iterator[Prompt]:
    for track, record in enumerate(tracks):
        counts = _mask(record, frame, size, path)
        box = None if counts is None else rle.tight_box(rle.decode(counts, height=size[0], width=size[1]))
        if box is not None:
            yield Prompt(
                prompt_id=f"{key}-{track:05d}",
                prompt_set="tracker_box",
                box=box,
                score=float(field(record, "score", path)),
                category_id=int(field(record, "category_id", path)),
                track_id=track,
            )


BENCHMARK = HqYtvis()
