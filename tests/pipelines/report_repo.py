"""Builds a miniature repository with every file that the report and `hqsam compare` read, through the real writers.

Shapes are wheels with thin spokes; "SAM" fills the gaps between them, "HQ" keeps them and errs at a
few pixels. The scores are those of the real metrics.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hqsam_base.atomic import write_json, write_jsonl
from hqsam_base.rle import decode, encode
from hqsam_datasets.formats.images import encode_png
from hqsam_datasets.formats.manifest import write_rows, write_table
from hqsam_datasets.formats.tar_writer import write_tar
from hqsam_metrics.base import load_score, score_options
from hqsam_metrics.benchmark import score_benchmark

HQ4 = ("dis_vd", "coift", "hrsod", "thinobject5k_test")
SYSTEMS = ("sam", "hq_token", "hq_sum")
HEIGHT, WIDTH = 72, 96
CLIP = 5  # frames of a video


def params(benchmarks: tuple[str, ...] = (*HQ4, "coco", "davis")) -> dict[str, Any]:
    def score(name: str) -> dict[str, Any]:
        rule = {"score_rule": "detector"} if name == "coco" else {}
        output = "hq_sum" if name in ("coco", "davis") else "hq_token"
        metric = name if name in ("coco", "davis") else "masks"
        return {"metric": metric, "version": load_score(metric).version, "output": output, **rule}

    sets = {"coco": "detector_box", "davis": "tracker_box"}
    return {
        "profile": "sample",
        "seed": 0,
        "archives": {
            "dis5k": {"files": [{"name": "DIS5K.zip", "urls": ["embedded://dis5k/DIS5K.zip"]}]}
        },
        "sources": {"dis5k": {"kind": "dis5k", "archive": "dis5k", "expected": 9}},
        "benchmarks": {
            name: {"index": {"prompt_sets": [sets.get(name, "gt_box")]}, "score": score(name)}
            for name in benchmarks
        },
        "models": {"nano": {"backbone": "nano", "checkpoint": "nano.safetensors"}},
        "overlap": {"unresolved": "exclude"},
        "report": {"best": 2, "worst": 2, "improved": 2, "worsened": 2, "hero": 2, "panel": 96},
    }


def wheel(rng: np.random.Generator) -> np.ndarray:
    """bool [HEIGHT, WIDTH]: a rim and thin spokes."""
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    centre = (int(rng.integers(34, 62)), int(rng.integers(30, 42)))
    radius = int(rng.integers(18, 27))
    cv2.circle(canvas, centre, radius, 1, 2)
    for angle in np.linspace(0, np.pi, int(rng.integers(3, 6)) + 1)[:-1]:
        offset = (radius * np.cos(angle), radius * np.sin(angle))
        ends = [(int(centre[0] + s * offset[0]), int(centre[1] + s * offset[1])) for s in (-1, 1)]
        cv2.line(canvas, ends[0], ends[1], 1, 1)
    return canvas > 0


def predictions(
    truth: np.ndarray, rng: np.random.Generator, strength: float = 0.03
) -> dict[str, np.ndarray]:
    filled = (
        cv2.morphologyEx(truth.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)) > 0
    )
    near = cv2.dilate(truth.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    flips = (rng.random(truth.shape) < strength) & near
    return {"sam": filled, "hq_token": truth ^ flips, "hq_sum": (truth ^ flips) | (filled & near)}


class Repo:
    """Writes the files; `strength` is how wrong the HQ masks are."""

    def __init__(
        self, root: Path, *, strength: float = 0.03, seed: int = 0, images: int = 10
    ) -> None:
        self.root = root
        self.params = params()
        self.strength = strength
        self.seed = seed
        self.images = images

    def build(self) -> Repo:
        for name in self.params["benchmarks"]:
            self.benchmark(name)
        self.training_side()
        return self

    def benchmark(self, name: str) -> None:
        prompt_set = self.params["benchmarks"][name]["index"]["prompt_sets"][0]
        scenes = [self._scene(name, prompt_set, i) for i in range(self.images)]
        folder = self.root / "data" / "benchmarks" / name
        folder.mkdir(parents=True)
        write_tar(folder / "images-00000.tar", [(s["image"]["member"], s["png"]) for s in scenes])
        write_rows(folder / "images.parquet", "images", [s["image"] for s in scenes])
        write_rows(folder / "instances.parquet", "instances", [s["instance"] for s in scenes])
        if name == "coco":
            for i, scene in enumerate(scenes):
                self._distraction(scene, i)
            write_json(folder / "gt.json", coco_json([s["instance"] for s in scenes]))
        prompts = [s[kind] for s in scenes for kind in ("prompt", "distraction") if kind in s]
        write_rows(folder / "prompts.parquet", "prompts", prompts)
        kind = {"coco": "coco", "davis": "davis"}.get(name, "masks")
        index = {
            "benchmark": name,
            "kind": kind,
            "n_images": len(scenes),
            "n_instances": len(scenes),
        }
        index |= {
            "prompt_sets": [prompt_set],
            "n_prompts": {prompt_set: len(prompts)},
            "dataset_version": "test-1",
            "digest": digest(name),
        }
        write_json(folder / "index.json", index)
        self._predict(name, [r for s in scenes for r in s["predictions"]])
        self._score(name)

    def _scene(self, name: str, prompt_set: str, i: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, i, int(digest(name)[:6], 16)])
        video = f"clip-{i // CLIP}" if name == "davis" else None
        key = f"{name}_{i:02d}"
        truth = wheel(rng)
        noise = rng.integers(0, 120, (HEIGHT, WIDTH, 3), np.uint8)
        picture = np.where(truth[..., None], 250 - noise // 4, noise).astype(np.uint8)
        rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
        size = {"height": HEIGHT, "width": WIDTH}
        track = 1 if name == "davis" else None
        clip, frame = divmod(i, CLIP) if name == "davis" else (None, None)
        gt = str(i + 1) if name == "coco" else f"{key}_gt"
        image = {
            "key": key,
            "member": f"{key}.png",
            "shard": "images-00000.tar",
            **size,
            "image_id": i + 1,
            "video": video,
            "video_id": clip,
            "frame": frame,
            "pixel_digest": digest(key),
            "pdq": bytes(32),
            "pdq_quality": 100,
            "tiles": b"",
        }
        instance = {
            "instance_id": gt,
            "key": key,
            "image_id": i + 1,
            "category_id": 1,
            "track_id": track,
            "iscrowd": 0,
            "area": float(truth.sum()),
            "rle": encode(truth),
            **size,
        }
        prompt = {
            "prompt_id": f"{key}_p",
            "key": key,
            "prompt_set": prompt_set,
            "kind": "box",
            "x0": float(columns[0]),
            "y0": float(rows[0]),
            "x1": float(columns[-1]),
            "y1": float(rows[-1]),
            "points": None,
            "labels": None,
            "rle": None,
            **size,
            "score": 0.9,
            "category_id": 1,
            "track_id": track,
            "instance_id": None if name == "coco" else gt,
        }
        masks = predictions(truth, np.random.default_rng([i, 7]), self.strength)
        rows_out = [
            {
                "prompt_id": prompt["prompt_id"],
                "key": key,
                "prompt_set": prompt_set,
                "system": system,
                "rle": encode(mask),
                **size,
                "iou_pred": 0.8,
                "mask_area": int(mask.sum()),
            }
            for system, mask in masks.items()
        ]
        return {
            "image": image,
            "png": encode_png(picture),
            "instance": instance,
            "prompt": prompt,
            "predictions": rows_out,
        }

    def _distraction(self, scene: dict[str, Any], i: int) -> None:
        """COCO: a second detection in every image, a shifted copy of what SAM found; some with a higher score."""
        rng = np.random.default_rng([self.seed, i, 99])
        first = scene["predictions"][0]
        moved = np.roll(decode(first["rle"], height=HEIGHT, width=WIDTH), 7, axis=1)
        own = {
            "prompt_id": f"{first['key']}_q",
            "rle": encode(moved),
            "mask_area": int(moved.sum()),
        }
        scene["predictions"] += [{**first, **own, "system": system} for system in SYSTEMS]
        scene["prompt"]["score"] = float(np.round(rng.uniform(0.4, 0.9), 3))
        scene["distraction"] = {
            **scene["prompt"],
            "prompt_id": own["prompt_id"],
            "score": float(np.round(rng.random(), 3)),
        }

    def _predict(self, name: str, rows: list[dict[str, Any]]) -> None:
        folder = self.root / "data" / "predictions" / f"{name}-nano"
        folder.mkdir(parents=True, exist_ok=True)
        write_table(
            folder / "part-00000.parquet", table(rows), sort_by=("key", "prompt_id", "system")
        )
        done = {"benchmark": name, "model": "nano", "systems": list(SYSTEMS), "resize": "stretch"}
        write_json(folder / "predict.json", {**done, "digest": digest(f"p{name}")})

    def _score(self, name: str) -> None:
        score_benchmark(
            benchmark=self.root / "data/benchmarks" / name,
            predictions=self.root / "data/predictions" / f"{name}-nano",
            options=score_options(self.params["benchmarks"][name]["score"]),
            out_json=self.root / "reports/metrics" / f"{name}-nano.json",
            out=self.root / "data/scores" / f"{name}-nano",
            progress=lambda done, total, what: None,
        )

    def training_side(self) -> None:
        """What the other stages leave: samples, overlap, validation, shards, model, archives."""
        data = self.root / "data"
        done = {
            "source": "dis5k",
            "n_samples": 8,
            "n_rejects": 2,
            "n_expected": 9,
            "digest": digest("s"),
        }
        write_json(
            data / "samples/dis5k/normalise.json", {**done, "rejects_by_reason": {"stray_file": 2}}
        )
        write_jsonl(data / "overlap/exclusions.jsonl", [{"key": "dis5k_a", "kind": "exact"}])
        (data / "overlap/gallery").mkdir()
        picture = np.full((40, 80, 3), 128, np.uint8)
        (data / "overlap/gallery/00_exact.png").write_bytes(encode_png(picture))
        shown = {
            "file": "00_exact.png",
            "group": "dis_vd",
            "key": "dis_vd_00",
            "kind": "exact",
            "train_key": "dis5k_a",
        }
        found = {
            "counts": {"exact": 1, "near": 0},
            "by_benchmark": {"dis_vd": {"exact": 1, "near": 0}},
        }
        found |= {
            "gallery": [shown],
            "n_excluded": 1,
            "n_kept": 0,
            "n_train": 8,
            "n_eval": 36,
            "n_pairs": 1,
        }
        write_json(data / "overlap/overlap.json", {"version": 1, **found, "digest": digest("o")})
        write_json(
            data / "validation/validation.json",
            {"success": True, "n_expectations": 31, "digest": digest("v")},
        )
        shard = {"name": "train-00000.tar", "n": 7, "bytes": 123456, "sha256": digest("t")}
        index = {
            "n_samples": 7,
            "by_source": {"dis5k": 7},
            "excluded": ["dis5k_a"],
            "shards": [shard],
        }
        write_json(data / "shards/index.json", {**index, "digest": digest("sh")})
        fetched = {"files": [{"name": "DIS5K.zip", "sha256": digest("zip")}]}
        write_json(data / "archives/dis5k/fetch.json", fetched)
        model = self.root / "models/nano"
        write_json(model / "meta.json", {"epochs": 2, "n_samples": 7, "digest": digest("m")})
        lines = ["step,epoch,loss,bce,dice,lr"]
        lines += [
            f"{i},{i // 4},{2 / (i + 1):.6f},{1 / (i + 1):.6f},{1 / (i + 1):.6f},0.001"
            for i in range(8)
        ]
        (model / "curves.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def coco_json(instances: list[dict[str, Any]]) -> dict[str, Any]:
    size = {"height": HEIGHT, "width": WIDTH}
    annotations = [
        {
            "id": int(row["instance_id"]),
            "image_id": row["image_id"],
            "category_id": 1,
            "iscrowd": 0,
            "area": row["area"],
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": row["rle"]},
        }
        for row in instances
    ]
    images = [
        {"id": row["image_id"], "file_name": f"{row['key']}.png", **size} for row in instances
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "wheel"}],
    }


def table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
