"""Annotation and prompt files with something wrong anywhere: one message, never a traceback, never the end of the process."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hqsam_base.errors import UserError
from hqsam_datasets import benchmarks
from hqsam_datasets.benchmarks import cocolike
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.prepare.index import index
from tests.datasets.benchmarks.test_more import ndd20_tree, sginw_tree
from tests.datasets.embedded_tree import tree
from tests.datasets.trees import fault_count, jpeg, put, quiet, run

WRONG = (
    None,
    "x",
    "5",
    -1,
    0,
    3.7,
    1e308,
    float("nan"),
    2**70,
    True,
    [],
    {},
    [[1, 2]],
    "../../../etc/passwd",
)
FILES = [
    ("coco", "instances_val2017.json"),
    ("coco", "coco_instances_results.json"),
    ("lvis", "lvis_v1_val.json"),
    ("uvo", "UVO_frame_val.json"),
    ("hq_ytvis", "ytvis_hq-test.json"),
    ("hq_ytvis", "mask2former_results.json"),
    ("sginw", "Rail/valid/_annotations_min1cat.coco.json"),
    ("sginw", "seginw-Rail_val.json"),
    ("ndd20", "ABOVE_LABELS.json"),
]


def published(name: str, folder: Path) -> Path:
    if name in ("sginw", "ndd20"):
        return {"sginw": sginw_tree, "ndd20": ndd20_tree}[name](folder)
    return Path(shutil.copytree(tree(name), folder))


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something could be wrong: every member, and the first three of every list."""
    yield here
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:3])
        if isinstance(value, list)
        else ()
    )
    for key, child in inner:
        yield from places(child, (*here, key))


def changed(value: Any, place: tuple[Any, ...], wrong: Any, remove: bool) -> Any:
    if not place:
        return wrong
    value = copy.copy(value)
    if len(place) > 1:
        value[place[0]] = changed(value[place[0]], place[1:], wrong, remove)
    elif remove:
        del value[place[0]]
    else:
        value[place[0]] = wrong
    return value


@pytest.mark.parametrize(("name", "file"), FILES)
def test_whatever_is_wrong_is_one_message_or_none(name: str, file: str, tmp_path: Path) -> None:
    root = published(name, tmp_path / "root")
    (path,) = root.rglob(file)
    good, dice, refused = json.loads(path.read_bytes()), random.Random(file), 0
    path.unlink()  # a link to the archive's file
    everywhere = list(places(good))
    for _ in range(fault_count(30, 1000)):
        path.write_text(
            json.dumps(
                changed(good, dice.choice(everywhere), dice.choice(WRONG), dice.random() < 0.2)
            )
        )
        try:
            for item in benchmarks.load(name).read(root).items:
                assert item.path.resolve().is_relative_to(root.resolve())
        except UserError as error:
            refused += 1
            assert error.file is not None
    assert refused > 5


def test_a_number_that_json_does_not_have(tmp_path: Path) -> None:
    root = published("sginw", tmp_path / "root")
    (path,) = root.rglob("Rail/valid/_annotations_min1cat.coco.json")
    path.write_text(path.read_text().replace('"caorau"', "NaN", 1))
    options = BenchmarkOptions(prompt_sets=("detector_box",))
    with pytest.raises(UserError, match="what JSON does not have"):
        index(
            "sginw",
            root=root,
            out=tmp_path / "out",
            options=options,
            progress=quiet,
            workers=1,
        )


@pytest.mark.parametrize("wrong", [None, 1e308, -1e9, float("nan")])
def test_a_coordinate_that_cannot_be_rejects_the_own_image(wrong: Any, tmp_path: Path) -> None:
    """pycocotools would take all memory over it."""
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 52} for n in (1, 2)]
    shapes = {1: [[wrong, 5, 25, 5, 25, 15]], 2: [[5, 5, 25, 5, 25, 15]]}
    found = [
        {"id": n, "image_id": n, "category_id": 1, "segmentation": shape}
        for n, shape in shapes.items()
    ]
    record = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "bird"}]}
    wanted = {"kind": "coco_json", "images": "train", "annotations": "x.json"}
    root = put(
        tmp_path / "in",
        {f"train/{n}.jpg": jpeg(n) for n in (1, 2)} | {"x.json": json.dumps(record).encode()},
    )
    if wrong != wrong:  # JSON has no such number: the file is refused, not the image
        with pytest.raises(UserError, match="not JSON compliant"):
            run("own", root, tmp_path / "out", **wanted)
    else:
        result = run("own", root, tmp_path / "out", **wanted)
        assert result["n_samples"] == 1 and result["rejects_by_reason"] == {"invalid_annotation": 1}
    put(root, {"x.json": json.dumps(record | {"annotations": found[1:], "categories": 5}).encode()})
    with pytest.raises(UserError, match="categories is not a list"):
        run("own", root, tmp_path / "again", **wanted)


def test_a_list_of_sequences_that_is_no_text(tmp_path: Path) -> None:
    root = published("davis", tmp_path / "root")
    (path,) = root.rglob("ImageSets/2017/val.txt")
    path.unlink()
    path.write_bytes(b"dogs-jump\n\x8f\xff\n")
    options = BenchmarkOptions(prompt_sets=("tracker_box",))
    with pytest.raises(UserError, match="does not exist"):
        index(
            "davis",
            root=root,
            out=tmp_path / "out",
            options=options,
            progress=quiet,
            workers=1,
        )


@pytest.mark.parametrize("value", ["5", "null", "{}", '"x"'])
def test_annotations_that_are_no_list(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'{{"images": [], "annotations": {value}}}')
    with pytest.raises(UserError, match="annotations is not a list"):
        cocolike.read_annotations(tmp_path / "a.json")
