"""Junk anywhere in a good file: a result or one UserError, never another exception."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam_metrics import UserError
from hqsam_metrics.ap.detection import score_detections
from hqsam_metrics.ap.instances import parse_ground_truth
from hqsam_metrics.ap.results import parse_results
from hqsam_metrics.ap.tubes import score_tubes
from hqsam_metrics.ap.tubes_io import parse_tube_results, parse_ytvis
from hqsam_metrics.scores import coco, lvis
from tests.metrics.golden import read_golden
from tests.metrics.synthetic import detections

JUNK = [
    None,
    True,
    -1,
    0,
    3,
    2**40,
    2**63,
    2**80,
    -(2**70),
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "12",
    "\u2028",
    [],
    {},
    [[]],
    [None],
    [0, 0, 1, 1, 2, 2],
    [[0, 0, 1, 1, 2, float("nan")]],
    {"size": [3, 3], "counts": "9"},
    {"size": [-1, 3], "counts": [1]},
    {"size": "ab", "counts": 3},
    {"id": 1},
    [1, "a", {}],
    [2**70],
]


def places(node: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All paths of a JSON value; of long lists the first entries."""
    out = [way] if way else []
    if isinstance(node, dict):
        for key, value in node.items():
            out += places(value, (*way, key))
    elif isinstance(node, list):
        for n, value in enumerate(node[:3]):
            out += places(value, (*way, n))
    return out


def spoil(content: Any, rng: np.random.Generator) -> Any:
    content = copy.deepcopy(content)
    ways = places(content)
    for _ in range(int(rng.integers(1, 3))):
        *way, last = ways[int(rng.integers(0, len(ways)))]
        node = content
        try:
            for step in way:
                node = node[step]
            if rng.random() < 0.25:
                del node[last]
            else:
                node[last] = JUNK[int(rng.integers(0, len(JUNK)))]
        except (KeyError, IndexError, TypeError):
            continue
    return content


def score_coco(truth: Any, rows: Any) -> None:
    gt = parse_ground_truth(truth, "gt")
    plan = coco.make_plan((None, 0.02), class_agnostic=False, max_dets=None, per_instance=True)
    score_detections(
        gt, parse_results([rows] if isinstance(rows, list) else [[rows]], gt, "dt"), plan
    )


def score_lvis(truth: Any, rows: Any) -> None:
    gt = parse_ground_truth(truth, "gt", lvis=True)
    plan = lvis.make_plan((None, 0.02), max_dets=None, per_instance=False)
    score_detections(
        gt, parse_results([rows] if isinstance(rows, list) else [[rows]], gt, "dt"), plan
    )


def score_ytvis(truth: Any, rows: Any) -> None:
    parsed = parse_ytvis(truth, "gt")
    score_tubes(parsed, parse_tube_results(rows, parsed, "dt"))


def lvis_set() -> tuple[Any, Any]:
    truth, rows = detections(np.random.default_rng(1), images=3)
    for image in truth["images"]:
        image |= {"neg_category_ids": [3, 10], "not_exhaustive_category_ids": [17]}
    for category in truth["categories"]:
        category["frequency"] = "r"
    return truth, rows


def ytvis_set() -> tuple[Any, Any]:
    truth, rows = (read_golden(f"video_ytvis/{name}.json") for name in ("gt", "results"))
    first = [video["id"] for video in truth["videos"][:1]]
    truth["videos"] = truth["videos"][:1]
    truth["annotations"] = [row for row in truth["annotations"] if row["video_id"] in first]
    return truth, [row for row in rows if row["video_id"] in first]


SETS = {
    "coco": (score_coco, detections(np.random.default_rng(1), images=3)),
    "lvis": (score_lvis, lvis_set()),
    "ytvis": (score_ytvis, ytvis_set()),
}


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_spoiled_files(name, seed):
    rng = np.random.default_rng(seed)
    score, (truth, rows) = SETS[name]
    which = rng.random() < 0.5
    truth, rows = (spoil(truth, rng), rows) if which else (truth, spoil(rows, rng))
    try:
        score(truth, rows)
    except UserError as error:
        assert str(error)
        json.dumps(str(error))


@pytest.mark.parametrize("name", SETS)
def test_the_sets_are_good(name):
    score, (truth, rows) = SETS[name]
    score(truth, rows)
