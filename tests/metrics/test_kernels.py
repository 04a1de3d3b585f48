"""The compiled paths of the metrics give what the plain ones give, and say nothing of their own about bad input."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hqsam_base import compiled
from hqsam_base.errors import UserError
from hqsam_base.progress import silent
from hqsam_base.rle import encode_rle
from hqsam_base.runs import RleBatch, RleError, encode_lengths
from hqsam_metrics.ap import accumulate, decoding, detection, matching, resample, scan
from hqsam_metrics.ap.instances import parse_ground_truth
from hqsam_metrics.ap.results import Results, parse_results, read_results
from hqsam_metrics.masks.packed import Shapes
from hqsam_metrics.masks.pairs import draw_for_bands, make_bands
from hqsam_metrics.scores import coco
from tests import FULL
from tests.metrics.synthetic import detections, random_masks

MODULES = (scan.KERNELS, *decoding._KERNELS)
Both = Callable[[Callable[[], Any]], tuple[Any, Any]]


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    """Runs a function without and with the kernels; other tests find them not loaded."""
    pytest.importorskip("numba")
    for module in MODULES:
        assert compiled.fill(module) is None
        importlib.import_module(module)
    monkeypatch.setattr(compiled, "ready", lambda *_, **__: compiled.loaded(scan.KERNELS))

    def run(function: Callable[[], Any]) -> tuple[Any, Any]:
        found = []
        for switch in ("0", "1"):
            monkeypatch.setenv(compiled.SWITCH, switch)
            found.append(function())
        return found[0], found[1]

    yield run
    for module in MODULES:
        sys.modules.pop(module, None)


def test_scores_are_equal_in_every_bit(both: Both) -> None:
    for seed in range(200 if FULL else 12):
        content, rows = detections(np.random.default_rng([3, seed]), images=8)
        gt = parse_ground_truth(content, "gt")
        dt = parse_results([rows], gt, "dt")
        measures = (None, 0.02, 0.2)
        for agnostic in (False, True):
            plan = coco.make_plan(
                measures, class_agnostic=agnostic, max_dets=None, per_instance=seed % 2 == 0
            )
            plain, fast = both(partial(detection.score_detections, gt, dt, plan))
            for a, b in zip(plain.tables, fast.tables, strict=True):
                np.testing.assert_array_equal(a.precision, b.precision)
                np.testing.assert_array_equal(a.recall, b.recall)
            if plain.best is not None:
                for key in ("gt", "iou", "biou"):
                    np.testing.assert_array_equal(getattr(plain.best, key), getattr(fast.best, key))


def test_matches_are_equal_where_values_are(both: Both) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        n_dt, n_gt = 12, 9
        group = np.sort(rng.integers(0, 3, n_dt))
        dt, gt = (part.reshape(-1) for part in np.indices((n_dt, n_gt)))
        near = (gt // 3 == group[dt]) & (rng.random(len(dt)) < 0.8)
        found = both(
            partial(
                matching.match,
                dt=dt[near],
                gt=gt[near],
                value=rng.choice([0.4, 0.5, 0.75, 0.95], near.sum()),
                group=group,
                gt_ignore=rng.random((4, n_gt)) < 0.3,
                gt_crowd=rng.random(n_gt) < 0.2,
                thresholds=accumulate.IOU_THRESHOLDS,
            )
        )
        np.testing.assert_array_equal(found[0].dt, found[1].dt)
        np.testing.assert_array_equal(found[0].gt, found[1].gt)


def test_bands_of_masks_of_any_size_are_equal(both: Both) -> None:
    rng = np.random.default_rng(8)
    for shape in ((1, 1), (1, 200), (200, 1), (64, 64), (129, 70)):
        codes = [encode_rle(mask)["counts"].encode() for mask in random_masks(rng, 12, shape)]
        batch = RleBatch.of(codes, [shape[0]] * 12, [shape[1]] * 12)

        def made(batch: RleBatch = batch) -> list[Any]:
            shapes = Shapes.decoded(batch)
            drawing, widths = draw_for_bands(shapes, (0.02, 0.1))
            found = [make_bands(drawing, width) for width in widths]
            return [
                *vars(shapes).values(),
                *(b.counts for b in found),
                *(b.planes.words for b in found),
            ]

        for a, b in zip(*both(made), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_code_is_the_same_pieces_or_the_same_error(both: Both) -> None:
    rng = np.random.default_rng(9)
    good = b"".join(bytes([48 + int(v)]) for v in rng.integers(0, 16, 6))

    def decoded(code: bytes) -> Any:
        try:
            return vars(Shapes.decoded(RleBatch.of([b"d0", code], [5, 5], [4, 7])))
        except RleError as error:
            return error.index, error.reason

    codes = [
        b"",
        b"S1",
        b"~",
        b"000",
        b"0S1",
        b"S10",
        b"oooooooo0",
        b"PPPPPPP0",
        b"T10",
        b"Q1",
        good,
    ]
    codes += [bytes(rng.integers(40, 112, 5).tolist()) for _ in range(300)]
    for _ in range(30):  # valid ones, with empty runs inside
        cuts = np.sort(rng.integers(0, 36, 8))
        lengths = np.diff(np.concatenate([[0], cuts, [35]]))
        codes.append(encode_lengths(lengths, np.array([0, len(lengths)]))[0].tobytes())
    for code in codes:
        plain, fast = both(lambda code=code: decoded(code))
        np.testing.assert_equal(fast, plain)


def columns(found: Results | str) -> Any:
    """What a reader gave, fit to compare."""
    if isinstance(found, str):
        return found
    rest = {key: value for key, value in vars(found).items() if key != "masks"}
    return rest | {f"mask {key}": value for key, value in vars(found.masks).items()}


def test_the_reader_of_results_gives_what_json_gives(both: Both, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    content, rows = detections(rng, images=6)
    gt = parse_ground_truth(content, "gt")
    for n, row in enumerate(rows):
        row["score"] = [0.5, 1, 0.1234567890123456789, 1e-3, 12345678901234567890, -0.0, 1e22][
            n % 7
        ]
        row |= [{}, {"bbox": [1, 2.5, 3e1, -4]}, {"name": "a b", "id": n, "x": None}][n % 3]
    path = tmp_path / "dt.json"

    def read() -> Any:
        try:
            return columns(read_results(path, gt))
        except UserError as error:
            return str(error)

    usual = [
        json.dumps(rows),
        json.dumps(rows, indent=1),
        " " + json.dumps(rows, separators=(",", ":")) + "\n",
    ]
    for text in usual:
        path.write_text(text)
        plain, fast = both(read)
        np.testing.assert_equal(fast, plain)
        assert scan.scan_results(path, silent) is not None  # it was not the plain reader
    short = json.dumps(rows[:4])
    twice = short.replace('"score"', '"score": 7, "image_id": 0, "score"', 1)
    path.write_text(twice.replace('"image_id": 0, ', "", 1))
    plain, fast = both(read)
    np.testing.assert_equal(fast, plain)
    digits = [i for i, c in enumerate(short) if c in '{}[]",:0123456789.eE\\']
    for _ in range(3000 if FULL else 200):
        at = int(rng.choice(digits))
        new = str(rng.choice([*list('{}[]",:0159.eE-+\\ \tntNI'), "\u00e9", ""]))
        path.write_text(short[:at] + new + short[at + int(rng.integers(0, 2)) :], encoding="utf-8")
        plain, fast = both(read)
        np.testing.assert_equal(fast, plain)


def test_a_file_in_many_blocks_is_read_whole(
    both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, rows = detections(np.random.default_rng(5), images=9)
    gt, path = parse_ground_truth(content, "gt"), tmp_path / "dt.json"
    path.write_text(json.dumps(rows))
    largest = max(len(json.dumps(row)) for row in rows)
    for block in (largest, largest + 7, 5 * largest):
        monkeypatch.setattr(scan, "_BLOCK", block)
        plain, fast = both(lambda: columns(read_results(path, gt)))
        np.testing.assert_equal(fast, plain)
        assert scan.scan_results(path, silent) is not None


def by_definition(matches: resample.Matches, name: str, weights: Any) -> Any:
    """AP of one vector of weights, step by step; one stratum."""
    truth, values = matches.truth, []
    for k in np.unique(truth.category):
        cells = truth.category == k
        count = int(weights[truth.image[cells]] @ truth.objects[name][cells])
        mine = matches.category == k
        own = weights[matches.image[mine]].astype(int)
        for t in range(10 if count else 0):
            hit = own * (matches.hit[name][mine] >> t & 1)
            seen = own * (1 - (matches.void[name][mine] >> t & 1).astype(int))
            true, total = np.cumsum(hit), np.cumsum(seen)
            points = [
                (a / count, a / (b + np.spacing(1))) for a, b in zip(true, total, strict=True)
            ]
            best = [
                max((p for r, p in points if r >= q), default=0)
                for q in accumulate.RECALL_THRESHOLDS
            ]
            values.append(np.mean(best))
    return np.mean(values) if values else np.nan


def test_weighted_ap_is_its_definition_plain_and_compiled(both: Both) -> None:
    rng = np.random.default_rng(6)
    images, n = 12, 150
    cell = np.sort(rng.integers(0, 4 * images, 60))
    cells, there = np.unique(cell, return_counts=True)
    objects = {"AP": np.where(cells // images == 2, 0, there).astype(np.int32)}
    small = [np.arange(images), np.zeros(images), cells % images, cells // images]
    truth = resample.Truth(
        [str(i) for i in range(images)], *(part.astype(np.int32) for part in small), objects
    )
    hit = rng.integers(0, 1 << 10, n).astype(np.uint16) & rng.integers(0, 1 << 10, n).astype(
        np.uint16
    )
    void = rng.integers(0, 1 << 10, n).astype(np.uint16) & ~hit & np.uint16(0x3FF)
    void[::9], hit[::9] = 0x3FF, 0
    image = rng.integers(0, images, n).astype(np.int32)
    category = np.sort(rng.integers(0, 5, n)).astype(np.int32)
    matches = resample.Matches(truth, image, category, {"AP": hit}, {"AP": void})
    drawn = rng.multinomial(images, np.full(images, 1 / images), 70).astype(np.uint16)
    weights = np.vstack([np.zeros(images, np.uint16), drawn])
    plain, fast = both(lambda: resample.weighted_ap(matches, "AP", weights))
    want = [by_definition(matches, "AP", row) for row in weights]
    np.testing.assert_allclose(plain, want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast, want, rtol=0, atol=1e-12)
    halves = both(lambda: resample.weighted_ap(matches, "AP", weights * 0.5))[0]
    np.testing.assert_allclose(halves, want, rtol=0, atol=1e-12)
    assert np.isnan(want[0])


def test_a_file_that_grows_while_it_is_read_is_left_to_the_plain_reader(
    both: Both, tmp_path: Path
) -> None:
    path = tmp_path / "dt.json"
    _, rows = detections(np.random.default_rng(5), images=9)
    path.write_text(json.dumps(rows))
    with path.open("rb") as file:
        assert scan._scan(file, path.stat().st_size // 2, silent) is None
