"""Sets in the YouTube-VIS format: tubes of masks, and a tracker's results as box prompts per object and frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import Content, Item, Kind, Prompt, Truth
from hqsam_datasets.benchmarks.cocolike import (
    check_categories,
    check_ids,
    field,
    group,
    inside,
    read_json,
    real,
    records,
    size_of,
    whole,
)
from hqsam_datasets.benchmarks.common import find_file, find_prompts
from hqsam_datasets.fetch.tree import below, found_below
from hqsam_datasets.formats import ground_truth
from hqsam_datasets.sample import make_key

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class YtvisLike:
    """A set in the YouTube-VIS format.

    Attributes:
        annotations: Name of the annotation file.
        tracks: Name of the prompt file: YouTube-VIS results ``[{video_id, category_id, score,
            segmentations}]``; None: no boxes are read.
    """

    name: str
    dataset_version: str
    annotations: str
    tracks: str | None = "mask2former_results.json"
    kind: Kind = "ytvis"
    class_agnostic: bool = False

    def without_boxes(self) -> Self:
        """See `hqsam_datasets.benchmarks.base.Benchmark`."""
        return replace(self, tracks=None)

    def read(self, root: Path) -> Content:
        """Every frame of every video with the tracker's boxes on it."""
        path = find_file(root, self.annotations)
        tracks_at = None if self.tracks is None else find_prompts(root, self.tracks)
        truth = read_json(path, dict)
        videos = sorted(records(truth, "videos", path), key=lambda v: whole(v, "id", path))
        known = {whole(v, "id", path) for v in videos}
        # Null or absent for the val and test splits: their ground truth is private.
        objects = group(
            records(truth, "annotations", path) if truth.get("annotations") else [],
            "video_id",
            path,
        )
        check_ids(objects, known, path, "annotations of videos")
        _check_lengths(objects, videos, path)
        if truth.get("annotations"):
            sizes = {whole(video, "id", path): size_of(video, path) for video in videos}
            truth["annotations"] = [
                _canonical(record, sizes, path) for record in truth["annotations"]
            ]
            objects = group(truth["annotations"], "video_id", path)
        tracks: dict[Any, list[Json]] = {}
        if tracks_at is not None:
            tracks = group(read_json(tracks_at, list), "video_id", tracks_at)
            check_ids(tracks, known, tracks_at, "tracks of videos")
            _check_lengths(tracks, videos, tracks_at)
            found = (
                whole(record, "category_id", tracks_at)
                for some in tracks.values()
                for record in some
            )
            check_categories(found, truth, path, tracks_at)
        items = self._items(
            _frames(root, videos, path), path, tracks_at or path, videos, objects, tracks
        )
        return Content(
            items=items, n_images=sum(len(_names(v, path)) for v in videos), ground_truth=truth
        )

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
            size, video_id = size_of(video, path), whole(video, "id", path)
            for frame, name in enumerate(_names(video, path)):
                number += 1
                key = make_key(self.name, f"{video_id:05d}-{frame:05d}")
                yield Item(
                    key=key,
                    path=below(frames, name),
                    image_id=number,
                    height=size[0],
                    width=size[1],
                    video=name.split("/")[0],
                    video_id=video_id,
                    frame=frame,
                    truths=tuple(_truths(objects.get(video_id, []), frame, size, path)),
                    prompts=tuple(_prompts(key, tracks.get(video_id, []), frame, size, tracks_at)),
                )


def _frames(root: Path, videos: list[Json], path: Path) -> Path:
    """Find the folder of videos by its content: archives of several splits may lie side by side."""
    if not videos:
        raise UserError("the file lists no videos", file=path, cure="fetch the archive again")
    first = _names(videos[0], path)[0].split("/")[0]
    return found_below(root, f"JPEGImages/{first}", depth=4).parent


def _names(video: Json, path: Path) -> list[str]:
    """The frames' files."""
    names = field(video, "file_names", path)
    if not isinstance(names, list) or not names:
        raise UserError(
            "file_names is not a list of frames",
            file=path,
            key=f"video {video.get('id')}",
            cure="fetch the file again",
        )
    return [
        inside({"id": video.get("id"), "file_names": name}, "file_names", path) for name in names
    ]


def _check_lengths(groups: dict[Any, list[Json]], videos: list[Json], path: Path) -> None:
    """Every object needs an entry, mask or null, for each frame that the annotations list."""
    for video in videos:
        frames = len(_names(video, path))
        for record in groups.get(whole(video, "id", path), ()):
            masks = field(record, "segmentations", path)
            if not isinstance(masks, list) or len(masks) != frames:
                found = len(masks) if isinstance(masks, list) else "no list of"
                raise UserError(
                    f"{found} segmentations, but video {video['id']} has {frames} frames",
                    file=path,
                    key=f"record {record.get('id', '')} of video {video['id']}",
                    cure="write one mask, or null, for each of the file_names of the annotation "
                    "file",
                )


def _canonical(record: Json, sizes: dict[int, tuple[int, int]], path: Path) -> Json:
    """An annotation as `gt.json` has it (see `formats.ground_truth`)."""
    numbers = {name: whole(record, name, path) for name in ("id", "video_id", "category_id")}
    size = sizes[numbers["video_id"]]
    masks: dict[str, Any] = {}
    for name in ("segmentations", "segmentations_refined"):
        if name in record:
            shown = {"id": record.get("id"), "segmentations": field(record, name, path)}
            if not isinstance(shown["segmentations"], list):
                raise UserError(
                    f"{name} is not a list", file=path, key=f"record {record.get('id')}"
                )
            counts = [
                _mask(shown, frame, size, path) for frame in range(len(shown["segmentations"]))
            ]
            masks[name] = [None if one is None else ground_truth.mask(one, *size) for one in counts]
    if record.get("areas") is None:
        found = (None if m is None else m["counts"] for m in masks["segmentations"])
        masks["areas"] = [
            None if c is None else float(rle.area(c, height=size[0], width=size[1])) for c in found
        ]
    return ground_truth.annotation(record, path, **numbers, **masks)


def _mask(record: Json, frame: int, size: tuple[int, int], path: Path) -> str | None:
    entry = field(record, "segmentations", path)[frame]
    if not entry:  # as the official program has it: null, [] or {}
        return None
    try:
        return rle.from_segmentation(entry, height=size[0], width=size[1])
    except ValueError as error:
        raise UserError(
            f"bad segmentation in frame {frame}: {error}", file=path, key=str(record.get("id"))
        ) from error


def _truths(objects: list[Json], frame: int, size: tuple[int, int], path: Path) -> Iterator[Truth]:
    for record in objects:
        counts = _mask(record, frame, size, path)
        if counts is not None:
            yield Truth(
                instance_id=f"{whole(record, 'id', path)}-{frame:05d}",
                rle=counts,
                area=float(rle.area(counts, height=size[0], width=size[1])),
                category_id=whole(record, "category_id", path),
                track_id=whole(record, "id", path),
                iscrowd=ground_truth.yes(record, "iscrowd", path),
            )


def _prompts(
    key: str, tracks: list[Json], frame: int, size: tuple[int, int], path: Path
) -> Iterator[Prompt]:
    for track, record in enumerate(tracks):
        counts = _mask(record, frame, size, path)
        box = (
            None
            if counts is None
            else rle.tight_box(rle.decode(counts, height=size[0], width=size[1]))
        )
        if box is not None:
            yield Prompt(
                prompt_id=f"{key}-{track:05d}",
                prompt_set="tracker_box",
                box=box,
                score=real(record, "score", path),
                category_id=whole(record, "category_id", path),
                track_id=track,
            )
