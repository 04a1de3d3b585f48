"""Benchmarks with predictions as the pipeline writes them, made of the golden files."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hqsam_base.rle import encode_rle, rle_string
from hqsam_metrics.base import load_score, score_options
from hqsam_metrics.benchmark import score_benchmark
from hqsam_metrics.masks.png import read_index_png
from tests import GOLDEN
from tests.metrics.golden import read_golden

SCHEMAS = {
    "images": "key:string height:int32 width:int32 image_id:int64 video:string video_id:int64 "
    "frame:int64",
    "instances": "instance_id:string key:string category_id:int64 track_id:int64 iscrowd:int8 "
    "area:double rle:string "
    "height:int32 width:int32",
    "prompts": "prompt_id:string key:string prompt_set:string kind:string x0:double y0:double "
    "x1:double y1:double "
    "points:points labels:labels rle:string height:int32 width:int32 score:double "
    "category_id:int64 track_id:int64 "
    "instance_id:string",
    "predictions": "prompt_id:string key:string prompt_set:string system:string rle:string "
    "height:int32 width:int32 "
    "iou_pred:double mask_area:int64",
}
LISTS = {"points": pa.list_(pa.list_(pa.float64())), "labels": pa.list_(pa.int32())}
Rows = list[dict[str, Any]]


def write_table(path: Path, name: str, rows: Rows) -> None:
    columns = [column.split(":") for column in SCHEMAS[name].split()]
    schema = pa.schema(
        [(key, LISTS[kind] if kind in LISTS else pa.type_for_alias(kind)) for key, kind in columns]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


@dataclass
class Set:
    """A benchmark and its predictions, ready to be written."""

    kind: str
    root: Path
    images: Rows = field(default_factory=list)
    instances: Rows = field(default_factory=list)
    prompts: Rows = field(default_factory=list)
    predictions: Rows = field(default_factory=list)
    ground_truth: Path | None = None

    def add(
        self, prompt_id: str, key: str, counts: str, size: tuple[int, int], **prompt: Any
    ) -> None:
        quality = prompt.pop("iou_pred", 1.0)
        self.prompts.append(
            {"prompt_id": prompt_id, "key": key, "prompt_set": "boxes", "kind": "box"} | prompt
        )
        row = {
            "prompt_id": prompt_id,
            "key": key,
            "prompt_set": "boxes",
            "rle": counts,
            "iou_pred": quality,
        }
        row |= {"height": size[0], "width": size[1]}
        self.predictions += [row | {"system": system} for system in ("sam", "hq_sum")]

    def write(self) -> dict[str, Path]:
        at = {"benchmark": self.root / "benchmark", "predictions": self.root / "predictions"}
        for folder in at.values():
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("images", "instances", "prompts"):
            write_table(at["benchmark"] / f"{name}.parquet", name, getattr(self, name))
        index = {
            "benchmark": "b",
            "kind": self.kind,
            "prompt_sets": ["boxes"],
            "dataset_version": "v1",
        }
        (at["benchmark"] / "index.json").write_text(json.dumps(index))
        if self.ground_truth is not None:
            shutil.copy(self.ground_truth, at["benchmark"] / "gt.json")
        for n in range(3):
            write_table(
                at["predictions"] / f"part-{n:05d}.parquet", "predictions", self.predictions[n::3]
            )
        info = {"model": "m", "systems": ["sam", "hq_sum"], "resize": "longest_side"}
        (at["predictions"] / "predict.json").write_text(json.dumps(info))
        return at

    def score(self, **options: Any) -> dict[str, Any]:
        at = self.write()
        out = {"out_json": self.root / "b-m.json", "out": self.root / "scores"}
        chosen = score_options({"version": load_score(options["metric"]).version} | options)
        score_benchmark(**at, **out, options=chosen, progress=lambda *words: None)
        return json.loads(out["out_json"].read_text())


def masks_like(tmp_path: Path, masks: Any, pairs: Any) -> Set:
    """24 golden pairs of masks; every other one with the id of its object."""
    one = Set("masks", tmp_path)
    for n, (key, pair) in enumerate(list(pairs.items())[:24]):
        size = pair["height"], pair["width"]
        sides = {side: encode_rle(masks[f"{side}_{key}"])["counts"] for side in ("pred", "gt")}
        one.images.append({"key": f"k{key}", "height": size[0], "width": size[1], "image_id": n})
        one.instances.append(
            {
                "instance_id": f"i{key}",
                "key": f"k{key}",
                "rle": sides["gt"],
                "height": size[0],
                "width": size[1],
            }
        )
        one.add(f"p{key}", f"k{key}", sides["pred"], size, instance_id=f"i{key}" if n % 2 else None)
    return one


def coco_like(tmp_path: Path, folder: str, results: str) -> Set:
    truth = read_golden(f"{folder}/gt.json")
    one = Set(folder, tmp_path, ground_truth=GOLDEN / folder / "gt.json")
    size = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    one.images = [
        {"key": f"k{i}", "height": h, "width": w, "image_id": i} for i, (h, w) in size.items()
    ]
    for n, row in enumerate(read_golden(f"{folder}/{results}")):
        image = row["image_id"]
        counts = row["segmentation"]["counts"]
        half = {"score": 2 * row["score"], "category_id": row["category_id"], "iou_pred": 0.5}
        one.add(f"{n:06d}", f"k{image}", counts, size[image], **half)
    return one


def numbered_through(
    sets: dict[str, tuple[Any, Rows]], *, images: int = 1000, categories: int = 1000
) -> tuple[Any, Rows]:
    """One COCO file of many, as the index stage makes it of SGinW: ids numbered through, the set as supercategory."""
    whole: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    results: Rows = []
    for number, (name, (truth, rows)) in enumerate(sets.items(), start=1):
        shift, kinds = images * number, categories * number
        folder = {"file_name": f"{name}/valid/x.jpg"}
        whole["images"] += [row | folder | {"id": shift + row["id"]} for row in truth["images"]]
        whole["categories"] += [
            {"id": kinds + row["id"], "supercategory": name} for row in truth["categories"]
        ]
        for row, into in [(r, whole["annotations"]) for r in truth["annotations"]] + [
            (r, results) for r in rows
        ]:
            moved = {key: shift + row[key] for key in ("id", "image_id") if key in row}
            moved["category_id"] = kinds + row["category_id"]
            into.append(row | moved)
    return whole, results


def ytvis_like(tmp_path: Path) -> Set:
    """The golden videos; track n is row n of their results."""
    folder = GOLDEN / "video_ytvis"
    one = Set("ytvis", tmp_path, ground_truth=folder / "gt.json")
    videos = {video["id"]: video for video in read_golden("video_ytvis/gt.json")["videos"]}
    for video in videos.values():
        for frame in range(video["length"]):
            one.images.append(
                {
                    "key": f"{video['id']}-{frame:03d}",
                    "height": video["height"],
                    "width": video["width"],
                    "image_id": len(one.images),
                    "video": f"v{video['id']}",
                    "video_id": video["id"],
                    "frame": 5 * frame,
                }
            )
    for track, row in enumerate(read_golden("video_ytvis/results.json")):
        for frame, code in enumerate(row["segmentations"]):
            if code is not None:
                counts, *size = rle_string(code)
                prompt = {
                    "score": row["score"],
                    "category_id": row["category_id"],
                    "track_id": track,
                }
                name = f"{track:03d}-{frame:03d}"
                one.add(
                    name, f"{row['video_id']}-{frame:03d}", counts.decode(), tuple(size), **prompt
                )
    return one


def davis_like(tmp_path: Path) -> Set:
    """The golden sequences and results."""
    one = Set("davis", tmp_path)
    root = GOLDEN / "davis"
    for n, sequence in enumerate(sorted(p.name for p in (root / "results").iterdir())):
        for frame, path in enumerate(
            sorted((root / "DAVIS" / "Annotations" / "480p" / sequence).glob("*.png"))
        ):
            key = f"{sequence}-{path.stem}"
            real, found = (
                read_index_png(path),
                read_index_png(root / "results" / sequence / path.name),
            )
            size = {"height": real.shape[0], "width": real.shape[1]}
            place = {
                "image_id": len(one.images),
                "video": sequence,
                "video_id": n + 1,
                "frame": frame,
            }
            one.images.append({"key": key} | size | place)
            for label in sorted(set(np.unique(real).tolist()) - {0, 255}):
                code = {"rle": encode_rle(real == label)["counts"], "track_id": label}
                one.instances.append({"instance_id": f"{key}-{label}", "key": key} | size | code)
            for label in sorted(set(np.unique(found).tolist()) - {0, 255}):
                counts = encode_rle(found == label)["counts"]
                one.add(f"{key}-{label}", key, counts, real.shape, track_id=label, iou_pred=0.5)
    return one
