"""Detector result files are read record by record, whatever the spacing, and a damaged one is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hqsam_base import json_stream
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.cocolike import read_annotations
from hqsam_datasets.benchmarks.results import iterate_records, read_detections

number = st.floats(0, 2000, allow_nan=False, width=32)
record = st.fixed_dictionaries(
    {
        "image_id": st.integers(0, 10**12),
        "category_id": st.integers(0, 1300),
        "bbox": st.lists(number, min_size=4, max_size=4),
        "score": st.floats(0, 1, allow_nan=False),
    },
    optional={
        "segmentation": st.fixed_dictionaries(
            {"counts": st.text(max_size=20), "size": st.just([4, 4])}
        )
    },
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(record, max_size=12),
    indent=st.sampled_from([None, 0, 3]),
    chunk=st.integers(1, 50),
)
def test_reads_what_json_reads(
    rows: list[dict[str, Any]],
    indent: int | None,
    chunk: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows, indent=indent) + "\n")
    assert list(iterate_records(path)) == rows
    found = read_detections(path)
    for image in {r["image_id"] for r in rows}:
        mine = [r for r in rows if r["image_id"] == image]
        assert [
            (c, [x0, y0, x1 - x0, y1 - y0], s) for c, (x0, y0, x1, y1), s in found.of(image)
        ] == [(r["category_id"], pytest.approx(r["bbox"], abs=1e-9), r["score"]) for r in mine]


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    text = json.dumps([{"image_id": 1, "category_id": 2, "bbox": [0, 1, 2, 3], "score": 0.5}] * 3)
    path = tmp_path / "results.json"
    for length in range(len(text)):
        path.write_text(text[:length])
        with pytest.raises(UserError) as error:
            read_detections(path)
        assert error.value.file == str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "top level"),
        ("[1, 2]", "not an object"),
        ("[{}]", "record 0"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1], "score": 1}]', "record 0"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": NaN}]', "record 0"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}] x', "follows"),
        ("<html>quota exceeded</html>", "top level"),
    ],
)
def test_wrong_content_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_detections(path)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(UserError, match="does not exist"):
        read_detections(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        read_detections(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(record, max_size=6),
    info=st.one_of(number, st.text(max_size=9), st.none(), st.lists(record, max_size=3)),
    indent=st.sampled_from([None, 0, 3]),
    chunk=st.integers(1, 50),
    first=st.booleans(),
)
def test_annotation_files_are_packed_and_written_back_the_same(
    rows: list[dict[str, Any]],
    info: Any,
    indent: int | None,
    chunk: int,
    first: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    rows = [{"id": number} | row for number, row in enumerate(rows)]
    value = (
        {"annotations": rows, "images": [], "zinfo": info}
        if first
        else {"zinfo": info, "images": [], "annotations": rows}
    )
    path, copy = tmp_path / "a.json", tmp_path / "b.json"
    copy.unlink(missing_ok=True)
    path.write_text(json.dumps(value, indent=indent))
    found = read_annotations(path)
    truth, by_image = found.truth, found.by_image
    assert {**truth, "annotations": list(truth["annotations"])} == value
    for image, places in by_image.items():
        assert [truth["annotations"][place] for place in places] == [
            r for r in rows if r["image_id"] == image
        ]
    json_stream.write_packed(copy, truth)
    assert copy.read_bytes() == json_stream.canonical(value) + b"\n"


def test_every_truncation_of_an_annotation_file_is_an_error(tmp_path: Path) -> None:
    text = json.dumps(
        {"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1}], "info": 12}
    )
    path = tmp_path / "a.json"
    for length in range(len(text)):
        path.write_text(text[:length])
        with pytest.raises(UserError, match="not valid JSON"):
            read_annotations(path)
