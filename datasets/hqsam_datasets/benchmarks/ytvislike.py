"""Sets in the YouTube-VIS format: tubes of masks, and a tracker's results as box prompts per object and frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_datasets import rle
from hqsam_datasets.benchmarks.base import Content, Item, Kind, Prompt, Truth
from hqsam_datasets.benchmarks.cocolike import check_categories, check_ids, field, group, read_json
from hqsam_datasets.benchmarks.common import find_file, find_prompts
from hqsam_datasets.errors import UserError
from hqsam_datasets.extract import below, found_below
from hqsam_datasets.sample import make_key

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class YtvisLike:
    """A set in the YouTube-VIS format.

    Attributes:
        annotations: Name of the annotation file.
        tracks: Name of the prompt file: YouTube-VIS results ``[{video_id, category_id, score, segmentations}]``.
    """

    name: str
    dataset_version: str
    annotations: str
    tracks: str = "mask2former_results.json"
    kind: Kind = "ytvis"
    class_agnostic: bool = False

    def read(self, root: Path) -> Content:
        """Every frame of every video with the tracker's boxes on it."""
        path, tracks_at = find_file(root, self.annotations), find_prompts(root, self.tracks)
        truth = read_json(path, dict)
        videos = sorted(field(truth, "videos", path), key=lambda v: int(field(v, "id", path)))
        known = {v["id"] for v in videos}
        objects = group(truth.get("annotations") or [], "video_id", path)  # private for val and test splits
        check_ids(objects, known, path, "annotations of videos")
        _check_lengths(objects, videos, path)
        tracks: dict[Any, list[Json]] = {}
        if tracks_at is not None:
            tracks = group(read_json(tracks_at, list), "video_id", tracks_at)
            check_ids(tracks, known, tracks_at, "tracks of videos")
            _check_lengths(tracks, videos, tracks_at)
            check_categories(
                (int(field(r, "category_id", tracks_at)) for t in tracks.values() for r in t), truth, tracks_at
            )
        items = self._items(_frames(root, videos, path), path, tracks_at or path, videos, objects, tracks)
        return Content(items=items, n_images=sum(len(v["file_names"]) for v in videos), ground_truth=truth)

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
                    path=below(frames, str(name)),
                    image_id=number,
                    height=size[0],
                    width=size[1],
                    video=str(name).split("/")[0],
                    video_id=int(video["id"]),
                    frame=frame,
                    truths=tuple(_truths(objects.get(video["id"], []), frame, size, path)),
                    prompts=tuple(_prompts(key, tracks.get(video["id"], []), frame, size, tracks_at)),
                )


def _frames(root: Path, videos: list[Json], path: Path) -> Path:
    """The folder of video folders; archives of several splits may lie side by side, so it is known by its content."""
    if not videos:
        raise UserError("the file lists no videos", file=path, cure="fetch the archive again")
    first = str(field(videos[0], "file_names", path)[0]).split("/")[0]
    return found_below(root, f"JPEGImages/{first}", depth=4).parent


def _check_lengths(groups: dict[Any, list[Json]], videos: list[Json], path: Path) -> None:
    """Every object needs an entry, mask or null, for each frame that the annotations list."""
    for video in videos:
        frames = len(field(video, "file_names", path))
        for record in groups.get(video["id"], ()):
            if len(masks := field(record, "segmentations", path)) != frames:
                raise UserError(
                    f"{len(masks)} segmentations, but video {video['id']} has {frames} frames",
                    file=path,
                    key=f"record {record.get('id', '')} of video {video['id']}",
                    cure="write one mask, or null, for each of the file_names of the annotation file",
                )


def _mask(record: Json, frame: int, size: tuple[int, int], path: Path) -> str | None:
    entry = field(record, "segmentations", path)[frame]
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
