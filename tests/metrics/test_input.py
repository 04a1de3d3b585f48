"""Bad input: each gives one clear error that names file and cure; what the protocols tolerate is counted."""

from __future__ import annotations

import copy
import gzip
import json
import math

import numpy as np
import pytest

from hqsam_base import json_stream
from hqsam_base.json_stream import iterate_results
from hqsam_base.rle import encode_rle
from hqsam_metrics import UserError
from hqsam_metrics.scores.coco import score_coco_files
from hqsam_metrics.scores.lvis import score_lvis_files
from hqsam_metrics.scores.ytvis import score_ytvis_files
from tests import GOLDEN
from tests.metrics.synthetic import detections


@pytest.fixture
def coco_set():
    truth, rows = detections(np.random.default_rng(5))
    return copy.deepcopy(truth), copy.deepcopy(rows)


def score(tmp_path, truth, rows, function=score_coco_files, **arguments):
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(rows))
    return function(pred=tmp_path / "dt.json", gt=tmp_path / "gt.json", **arguments)


def change(rows, at, **values):
    rows[at] = {**rows[at], **values}


BAD_RESULTS = [
    ({"image_id": 999}, "image_id 999 is not in"),
    ({"image_id": "1"}, "image_id 1 is not in"),
    ({"image_id": "a"}, "image_id a is not in .* not by the names of pictures"),
    ({"image_id": True}, "image_id"),
    ({"image_id": None}, "image_id"),
    ({"category_id": 1.5}, "category_id"),
    ({"score": math.nan}, "score"),
    ({"score": math.inf}, "score"),
    ({"score": 10**400}, "score"),
    ({"score": "0.9"}, "score"),
    ({"segmentation": {"size": [1, 1], "counts": "1"}}, "its image is"),
    ({"segmentation": "x"}, "segmentation"),
    ({"segmentation": None}, "no `segmentation`: masks are wanted"),
    (
        {"segmentation": {"counts": str(b"0")}},
        "is not of the code; of bytes in Python, write counts.dec",
    ),
]


@pytest.mark.parametrize(("values", "words"), BAD_RESULTS)
def test_results(tmp_path, coco_set, values, words):
    truth, rows = coco_set
    change(rows, 2, **values)
    with pytest.raises(UserError, match=words) as caught:
        score(tmp_path, truth, rows)
    assert "result 2" in str(caught.value) and "dt.json" in str(caught.value)


@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "segmentation"])
def test_missing_keys_of_results(tmp_path, coco_set, key):
    truth, rows = coco_set
    del rows[1][key]
    with pytest.raises(UserError, match=key):
        score(tmp_path, truth, rows)


def test_malformed_masks_are_named(tmp_path, coco_set):
    truth, rows = coco_set
    size = rows[3]["segmentation"]["size"]
    for counts in ("zzz\x7f", "", "5555", "\u00e4"):
        change(rows, 3, segmentation={"size": size, "counts": counts})
        with pytest.raises(UserError, match=r"dt.json: result 3"):
            score(tmp_path, truth, rows)
        with pytest.raises(UserError, match=r"dt.json: result 3"):
            score(tmp_path, truth, rows, workers=2)
    truth["annotations"][1]["segmentation"] = {
        "size": truth["annotations"][1]["segmentation"]["size"],
        "counts": "0",
    }
    with pytest.raises(UserError, match=r"gt.json: annotation id 2"):
        score(tmp_path, truth, [])


@pytest.mark.parametrize("where", ["below the limit", "unknown category"])
def test_malformed_masks_that_take_no_part_are_named_too(tmp_path, coco_set, where):
    truth, rows = coco_set
    bad = {"size": rows[3]["segmentation"]["size"], "counts": "zz"}
    category = 78 if where == "unknown category" else rows[3]["category_id"]
    rows.append(rows[3] | {"segmentation": bad, "category_id": category, "score": -1.0})
    with pytest.raises(UserError, match=f"dt.json: result {len(rows) - 1}: malformed"):
        score(tmp_path, truth, rows, max_dets=1)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("images", 1, "id"), "same", "more than once"),
        (("annotations", 1, "id"), "same", "more than once"),
        (("categories", 1, "id"), "same", "more than once"),
        (("images", 0, "height"), 0, "positive"),
        (("annotations", 0, "area"), -(10**400), "area"),
        (("images", 0, "width"), None, "width"),
        (("annotations", 0, "area"), "big", "area"),
        (("annotations", 0, "iscrowd"), 2, "iscrowd"),
        (("annotations", 0, "segmentation"), [[1, 2]], "three points"),
        (("images",), [], "nothing to score"),
        (("images",), None, "COCO format"),
    ],
)
def test_annotations(tmp_path, coco_set, path, value, words):
    truth, rows = coco_set
    *way, last = path
    target = truth
    for step in way:
        target = target[step]
    target[last] = truth[path[0]][0]["id"] if value == "same" else value
    with pytest.raises(UserError, match=words) as caught:
        score(tmp_path, truth, rows)
    assert "gt.json" in str(caught.value)


def blank(image):
    return encode_rle(np.zeros((image["height"], image["width"]), bool))


def test_what_cocoeval_tolerates_is_counted(tmp_path, coco_set):
    truth, rows = coco_set
    rows += [
        rows[0] | {"image_id": i["id"], "segmentation": blank(i), "score": -1.0}
        for i in truth["images"]
    ]  # none without any
    want = score(tmp_path, truth, rows)
    assert want.warnings == []
    first = truth["annotations"][0]
    first["ignore"] = 1
    (said,) = score(tmp_path, truth, rows).warnings
    assert said.startswith("1 annotations have `ignore`")
    assert score(tmp_path, truth, rows).metrics == want.metrics
    del first["ignore"]
    truth["annotations"] += [
        first | {"id": 900, "image_id": 77},
        first | {"id": 901, "category_id": 77},
    ]
    got = score(tmp_path, truth, [*rows, rows[0] | {"category_id": 78}])
    assert got.metrics == want.metrics
    assert [w.split()[0] for w in got.warnings] == ["1", "1", "1"]


def test_copies_of_detections_are_counted(tmp_path, coco_set):
    """Results of several processes put together with the samples that pad the last batch."""
    truth, rows = coco_set
    near = [rows[3] | {"score": rows[3]["score"] / 2}, rows[4] | {"category_id": 78}]
    want = score(tmp_path, truth, [*rows, *near])
    assert not [w for w in want.warnings if "copies" in w]
    again = [json.loads(json.dumps(rows[n])) for n in (0, 2, 2)]
    got = score(tmp_path, truth, [*again, *rows, *near])
    assert got.warnings[0].startswith(
        "3 detections are copies of another of the same image or video, category, score and mask"
    )
    assert not [w for w in score(tmp_path, truth, []).warnings if "copies" in w]
    folder = GOLDEN / "lvis"
    truth, rows = (json.loads((folder / name).read_text()) for name in ("gt.json", "results.json"))
    for more, count in ((0, 31), (1, 32)):  # some of this file are copies already
        got = score(tmp_path, truth, rows + rows[7 : 7 + more], function=score_lvis_files)
        assert got.warnings[0].startswith(f"{count} detections are copies")
    truth, rows = as_video(*squares([1, 2]))
    near = [rows[0] | {"segmentations": [None]}]
    got = score(tmp_path, truth, [*rows, *near, rows[1]], function=score_ytvis_files)
    assert [w.split()[0] for w in got.warnings if "copies" in w] == ["1"]


@pytest.mark.parametrize("first", [0, 1])
def test_an_annotation_of_id_0_counts_and_is_named(tmp_path, first):
    code = encode_rle(np.eye(20, dtype=bool))
    row = {"image_id": 1, "category_id": 1, "segmentation": code}
    truth = {"images": [{"id": 1, "height": 20, "width": 20}], "categories": [{"id": 1}]}
    truth["annotations"] = [row | {"id": first, "iscrowd": 0, "area": 20.0}]
    result = score(tmp_path, truth, [row | {"score": 0.9}])
    assert result.metrics["AP"] == pytest.approx(1)
    assert [w.startswith("annotation id 0") for w in result.warnings] == [True] * (1 - first)


def test_images_and_videos_without_a_detection_are_counted(tmp_path, coco_set):
    truth, rows = coco_set
    first = truth["images"][0]["id"]
    some = [row for row in rows if row["image_id"] != first]
    used = len({row["image_id"] for row in some})
    result = score(tmp_path, truth, some)
    assert result.warnings == [
        f"{len(truth['images']) - used} of 5 images have no detection: their objects count as "
        f"missed"
    ]
    folder = GOLDEN / "video_ytvis"
    truth, rows = (json.loads((folder / name).read_text()) for name in ("gt.json", "results.json"))
    some = [row for row in rows if row["video_id"] != truth["videos"][0]["id"]]
    assert "1 of 6 videos" in score(tmp_path, truth, some, function=score_ytvis_files).warnings[0]


def test_boundary_ap_above_mask_ap_is_a_warning(tmp_path):
    """By masks the best detection takes the only object that the second could have; by boundaries it takes the other."""
    solid = np.zeros((100, 200), bool)
    solid[10:90, 20:180] = True
    notched, holed = solid.copy(), solid.copy()
    for x in range(20, 180, 8):
        notched[10:34, x : x + 4] = notched[66:90, x : x + 4] = False
    y, x = np.ogrid[:100, :200]
    holed[(y - 50) ** 2 + (x - 70) ** 2 < 36**2] = False
    half = notched.copy()
    half[:, 155:] = False
    truth = {
        "images": [{"id": 1, "height": 100, "width": 200}],
        "categories": [{"id": 1}],
        "annotations": [
            {
                "id": n,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": 9000.0,
                "segmentation": encode_rle(mask),
            }
            for n, mask in ((1, notched), (2, holed))
        ],
    }
    rows = [
        {"image_id": 1, "category_id": 1, "score": value, "segmentation": encode_rle(mask)}
        for value, mask in ((0.9, solid), (0.8, half))
    ]
    mask, boundary = (score(tmp_path, truth, rows, iou_type=kind) for kind in ("segm", "boundary"))
    assert boundary.metrics["AP"] > mask.metrics["AP"] > 0.2
    assert [
        w for w in boundary.warnings if "AP_B" in w and "is above AP" in w
    ] and not mask.warnings


def test_files(tmp_path):
    gt = GOLDEN / "coco" / "gt.json"
    for text, words in [
        ("[", "valid JSON"),
        ("{}", "JSON list"),
        ("[1]", "image_id"),
        ('["a"]', "no object"),
    ]:
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(UserError, match=words):
            score_coco_files(pred=tmp_path / "r.json", gt=gt)
    with pytest.raises(UserError, match="no such file"):
        score_coco_files(pred=tmp_path / "none.json", gt=gt)
    with pytest.raises(UserError, match="cannot be read"):
        score_coco_files(pred=gt, gt=tmp_path / "none.json")
    with pytest.raises(UserError, match="JSON object"):
        score_coco_files(pred=gt, gt=tmp_path / "r.json")
    with pytest.raises(UserError, match="between 0 and 1"):
        score_coco_files(pred=gt, gt=gt, iou_type="boundary", dilation_ratio=0)


def test_empty_results_give_zero(tmp_path, coco_set):
    truth, _ = coco_set
    result = score(tmp_path, truth, [])
    assert result.metrics["AP"] == 0 and result.metrics["AR100"] == 0


@pytest.mark.parametrize("iou_type", ["segm", "boundary"])
def test_nothing_to_score_is_no_success(tmp_path, coco_set, iou_type):
    """A hidden ground truth, crowds only, objects without masks: everything was undefined, and the exit status 0."""
    truth, rows = coco_set
    crowds = [row | {"iscrowd": 1} for row in truth["annotations"]]
    for rows_of_file, words in [
        ([], "not public"),
        (None, "not public"),
        (crowds, "set `iscrowd` to 0"),
        ([row | {"segmentation": []} for row in crowds], "without a mask"),
        ([row | {"image_id": 77} for row in crowds], "not in `images`"),
    ]:
        with pytest.raises(UserError, match=words):
            score(tmp_path, truth | {"annotations": rows_of_file}, rows, iou_type=iou_type)
    folder = GOLDEN / "video_ytvis"
    truth, rows = (json.loads((folder / name).read_text()) for name in ("gt.json", "results.json"))
    hidden = {key: value for key, value in truth.items() if key != "annotations"}
    crowds = [row | {"iscrowd": 1} for row in truth["annotations"]]
    for content, words in [(hidden, "not public"), (truth | {"annotations": crowds}, "are crowds")]:
        with pytest.raises(UserError, match=words) as caught:
            score(tmp_path, content, rows, function=score_ytvis_files, iou_type=iou_type)
        assert "COCO" not in str(caught.value)


@pytest.mark.parametrize("length", [10**400, -1, True, "5"])
def test_a_video_without_a_possible_length_is_named(tmp_path, length):
    folder = GOLDEN / "video_ytvis"
    truth, rows = (json.loads((folder / name).read_text()) for name in ("gt.json", "results.json"))
    truth["videos"][0] = {**truth["videos"][0], "length": length}
    del truth["videos"][0]["file_names"]
    with pytest.raises(UserError, match="neither `file_names` nor `length`"):
        score(tmp_path, truth, rows, function=score_ytvis_files)


def square(count=3):
    """`count` images with one square each, and results that are a pixel wider."""
    corners = [[2, 2, 12, 2, 12, 12, 2, 12], [2, 2, 13, 2, 13, 12, 2, 12]]
    head = [
        {"image_id": n, "category_id": 1, "segmentation": [list(corners[0])]}
        for n in range(1, count + 1)
    ]
    truth = {
        "images": [{"id": n, "height": 20, "width": 30} for n in range(1, count + 1)],
        "categories": [{"id": 1}],
        "annotations": [
            row | {"id": n, "iscrowd": 0, "area": 100.0} for n, row in enumerate(head, start=1)
        ],
    }
    return truth, [row | {"score": 0.5, "segmentation": [list(corners[1])]} for row in head]


def spelled(truth, rows, how):
    first = truth["annotations"][0]
    if how == "no iscrowd and area":
        for row in truth["annotations"]:
            del row["iscrowd"], row["area"]
    elif how == "null":
        first |= {"iscrowd": None, "ignore": None, "area": None}
    elif how == "bools":
        first |= {"iscrowd": False}
    elif how == "a stray point":
        first["segmentation"].append([5.0, 5.0])
    elif how == "a stray line before it":
        first["segmentation"].insert(0, [5.0, 5.0, 9.0, 9.0])
    elif how == "an odd value":
        first["segmentation"][0].append(7.0)
    elif how == "an empty object":
        truth["annotations"].append(first | {"id": 99, "area": 0, "segmentation": []})
    elif how == "other spellings of ids":
        truth["images"][0]["id"], first["image_id"], rows[0]["image_id"] = "000001", 1, 1.0
        rows[1]["category_id"] = "1"
        truth["images"][0]["height"] = "20"
    elif how == "names":
        for row in (*truth["annotations"], *rows):
            row["image_id"] = f"bus {row['image_id']}"
            row["category_id"] = "bus"
        for image in truth["images"]:
            image["id"] = f"bus {image['id']}"
        truth["categories"] = [{"id": "bus"}]
        truth["annotations"][0]["id"] = "a"


SPELLINGS = (
    "no iscrowd and area",
    "null",
    "bools",
    "a stray point",
    "a stray line before it",
    "an odd value",
    "an empty object",
    "other spellings of ids",
    "names",
)


@pytest.mark.parametrize("how", SPELLINGS)
@pytest.mark.parametrize("iou_type", ["segm", "boundary"])
def test_home_made_files_have_the_numbers_of_clean_ones(tmp_path, how, iou_type):
    truth, rows = square()
    want = score(tmp_path, truth, rows, iou_type=iou_type)
    assert 0 < want.metrics["AP"] < 1
    spelled(truth, rows, how)
    got = score(tmp_path, truth, rows, iou_type=iou_type)
    assert got.metrics == want.metrics
    assert len(got.warnings) == (how == "an empty object")


def test_tubes_without_areas_are_counted(tmp_path):
    folder = GOLDEN / "video_ytvis"
    truth, rows = (json.loads((folder / name).read_text()) for name in ("gt.json", "results.json"))
    want = score(tmp_path, truth, rows, function=score_ytvis_files).metrics
    truth["annotations"] = [
        {k: v for k, v in row.items() if k != "areas"} for row in truth["annotations"]
    ]
    assert score(tmp_path, truth, rows, function=score_ytvis_files).metrics == want


def test_a_flat_polygon_is_named_as_one(tmp_path):
    truth, rows = square()
    truth["annotations"][0]["segmentation"] = truth["annotations"][0]["segmentation"][0]
    with pytest.raises(
        UserError, match=r"must be a list of polygons \[\[x, y, ...\], ...\], is one flat list"
    ):
        score(tmp_path, truth, rows)


def test_two_images_whose_ids_are_one_number_are_named(tmp_path):
    truth, rows = square()
    truth["images"][1]["id"] = "01"
    with pytest.raises(UserError, match="image id 1 is there more than once"):
        score(tmp_path, truth, rows)


def test_marks_of_one_measure_only_are_told(tmp_path, coco_set):
    """Two objects, one marked `ignore`, one hit: by the Boundary IoU API all is found, by pycocotools half of it."""
    truth, rows = square(2)
    rows = [row | {"segmentation": truth["annotations"][0]["segmentation"]} for row in rows[:1]]
    truth["annotations"][1]["ignore"] = 1
    mask, boundary = (score(tmp_path, truth, rows, iou_type=kind) for kind in ("segm", "boundary"))
    assert mask.metrics["AP"] == pytest.approx(51 / 101) and boundary.metrics[
        "AP"
    ] == pytest.approx(1)
    said = (
        "1 annotations have `ignore`: mask AP counts them, as pycocotools does not look at it; "
        "boundary AP ignores them"
    )
    assert any(w.startswith(said) for w in mask.warnings) and any(
        w.startswith(said) for w in boundary.warnings
    )


def test_coco_file_given_to_lvis(tmp_path, coco_set):
    with pytest.raises(UserError, match="LVIS file"):
        score(tmp_path, *coco_set, function=score_lvis_files)


def test_lvis_file_given_to_coco(tmp_path, coco_set):
    truth, rows = coco_set
    for image in truth["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    (said,) = (w for w in score(tmp_path, truth, rows).warnings if "LVIS" in w)
    assert "`hqsam score lvis`" in said


def squares(ids):
    """One square of each category in an image of its own, and a detection that is the same."""
    box = np.zeros((20, 20), bool)
    box[5:15, 5:15] = True
    truth = {
        "images": [{"id": n, "height": 20, "width": 20} for n in range(len(ids))],
        "categories": [{"id": one} for one in ids],
    }
    rows = [
        {"image_id": n, "category_id": one, "segmentation": encode_rle(box), "score": 0.9}
        for n, one in enumerate(ids)
    ]
    objects = [row | {"id": n + 1, "area": 100, "iscrowd": 0} for n, row in enumerate(rows)]
    return truth | {"annotations": objects}, rows


def as_video(truth, rows):
    """The same as videos of one frame."""

    def of_video(row):
        row = row | {"video_id": row["image_id"], "segmentations": [row["segmentation"]]}
        return row | {"areas": [100]}

    videos = [row | {"length": 1} for row in truth["images"]]
    annotations = [of_video(row) for row in truth["annotations"]]
    return truth | {"videos": videos, "annotations": annotations}, [of_video(row) for row in rows]


@pytest.mark.parametrize("function", [score_coco_files, score_lvis_files, score_ytvis_files])
@pytest.mark.parametrize(
    ("ids", "written", "cure"),
    [
        ([1, 2, 3, 4], lambda one, n: one - 1, "add 1 to each"),
        ([1], lambda one, n: one - 1, "add 1 to each"),
        ([0, 1, 2, 3], lambda one, n: one + 1, "take 1 from each"),
        ([1, 5, 9, 90], lambda one, n: n, "counted from 0: write the id"),
        ([3, 5, 9, 90], lambda one, n: n + 1, "counted from 1: write the id"),
        ([1, 2, 3, 4], lambda one, n: one, None),
        ([1, 2, 3, 4], lambda one, n: 1 + n % 2, None),
    ],
)
def test_categories_that_are_counted_otherwise_are_named(tmp_path, ids, written, cure, function):
    truth, rows = squares(ids)
    for record in [*truth["categories"], *truth["images"]]:
        record |= {"frequency": "f", "neg_category_ids": [], "not_exhaustive_category_ids": []}
    for n, one in enumerate(ids):
        rows[n]["category_id"] = written(one, n)
    if function is score_ytvis_files:
        truth, rows = as_video(truth, rows)
    got = score(tmp_path, truth, rows, function)
    said = [w for w in got.warnings if "seem to be" in w]
    assert (cure is None) == (not said) and (
        cure is None or (got.metrics["AP"] == 0 and cure in said[0])
    )
    assert not [w for w in score(tmp_path, *squares(ids)).warnings if "seem" in w]


def test_annotations_that_count_categories_otherwise_are_named(tmp_path):
    truth, rows = squares([1, 2, 3, 4])
    for n, annotation in enumerate(truth["annotations"]):
        annotation["category_id"] = n
    for got in (
        score(tmp_path, truth, rows),
        score(tmp_path, *as_video(truth, rows), score_ytvis_files),
    ):
        assert any("the annotations seem to count" in w and "add 1" in w for w in got.warnings)


def test_tubes(tmp_path):
    folder = GOLDEN / "video_ytvis"
    truth, rows = (json.loads((folder / name).read_text()) for name in ("gt.json", "results.json"))
    cases = [
        ({"video_id": 99}, "video_id 99"),
        ({"score": math.nan}, "score"),
        ({"segmentations": None}, "one entry a frame"),
        ({"segmentations": [{"size": [1, 1], "counts": "1"}]}, "frame 0"),
    ]
    for values, words in cases:
        changed = [rows[0] | values, *rows[1:]]
        with pytest.raises(UserError, match=words):
            score(tmp_path, truth, changed, function=score_ytvis_files)
    size = rows[0]["segmentations"][12]["size"]
    broken = rows[0] | {
        "segmentations": [{"size": size, "counts": "zz\x01"}] * len(rows[0]["segmentations"])
    }
    with pytest.raises(UserError, match="result 0"):
        score(tmp_path, truth, [broken, *rows[1:]], function=score_ytvis_files)
    cut = broken | {"category_id": 99}
    with pytest.raises(UserError, match=f"result {len(rows)}: malformed"):
        score(tmp_path, truth, [*rows, cut], function=score_ytvis_files)
    without = [{k: v for k, v in row.items() if k not in ("height", "width")} for row in rows]
    full = score(tmp_path, truth, rows, function=score_ytvis_files, iou_type="boundary")
    same = score(
        tmp_path, truth, without, function=score_ytvis_files, iou_type="boundary", workers=2
    )
    assert same.metrics == full.metrics
    # The official program takes whatever is false for a frame without the object.
    loose = [
        row
        | {
            "segmentations": [
                f or ([], {}, None)[i % 3] for i, f in enumerate(row["segmentations"])
            ]
        }
        for row in rows
    ]
    assert any([] in row["segmentations"] and {} in row["segmentations"] for row in loose)
    assert (
        score(tmp_path, truth, loose, function=score_ytvis_files, iou_type="boundary").metrics
        == full.metrics
    )
    with pytest.raises(UserError, match="the list `results`"):
        score(tmp_path, truth, {"results": rows}, function=score_ytvis_files)
    with pytest.raises(UserError, match="in YouTube-VIS format"):
        score(
            tmp_path,
            {"images": [], "annotations": [], "categories": []},
            rows,
            function=score_ytvis_files,
        )
    short = [row | {"segmentations": row["segmentations"][:3]} for row in rows]
    result = score(tmp_path, truth, short, function=score_ytvis_files)
    assert result.warnings and "shorter list" in result.warnings[0]


@pytest.mark.parametrize("window", [64, 1000, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_large_lists_are_read_in_parts(tmp_path, monkeypatch, window, encoding):
    """Tools on Windows write byte order marks: a large file with one was refused, a small one read."""
    monkeypatch.setattr(json_stream, "_CHUNK", window)
    monkeypatch.setattr(json_stream, "_TOGETHER", 7)
    rows = [{"a": i, "b": {"c": "}],[{" * (i % 3)}, "d": [{"e": [1, {}]}]} for i in range(200)]
    for text in (
        json.dumps(rows),
        json.dumps(rows, indent=1),
        " " + json.dumps(rows, separators=(",", ":")) + "\n",
    ):
        (tmp_path / "x.json").write_text(text, encoding)
        assert [
            row for part in iterate_results(tmp_path / "x.json", whole=0) for row in part
        ] == rows
        assert list(iterate_results(tmp_path / "x.json")) == [rows]
    for broken in (
        json.dumps(rows)[:-1],
        json.dumps(rows) + "]",
        json.dumps(rows).replace('"a": 77', '"a" 77'),
    ):
        (tmp_path / "x.json").write_text(broken, encoding)
        with pytest.raises(UserError, match="not valid JSON"):
            list(iterate_results(tmp_path / "x.json", whole=0))


def test_files_that_are_no_list_say_what_they_are(tmp_path):
    file = tmp_path / "x.json"
    for content, cure in (
        (b'{"info": {}, "predictions": []}', "the list `predictions`"),
        (b'{"a": 1}\n{"a": 2}\n', "JSON lines"),
        (gzip.compress(b"[]"), "packed \\(gzip\\): unpack it"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=cure):
            list(iterate_results(file))
    with pytest.raises(UserError, match="unpack it"):
        list(iterate_results(file, whole=0))
    with pytest.raises(UserError, match="is a folder"):
        list(iterate_results(tmp_path))


def test_arrays_that_are_no_masks():
    from hqsam_metrics import boundary_band, boundary_iou, mask_iou

    good = np.zeros((4, 5), bool)
    for bad in (np.zeros((4, 5, 1), bool), np.zeros((4, 5)), np.full((4, 5), 255, np.uint8)):
        with pytest.raises(ValueError, match="mask"):
            mask_iou(pred=good, target=bad)
    with pytest.raises(ValueError, match="differ in size"):
        boundary_iou(pred=good, target=good.T)
    for ratio in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="dilation_ratio"):
            boundary_band(good, dilation_ratio=ratio)
    with pytest.raises(ValueError, match="at least 1"):
        boundary_band(good, dilation=0)
    assert encode_rle(good.astype(np.uint8)) == encode_rle(good)
