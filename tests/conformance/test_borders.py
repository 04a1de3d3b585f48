"""Malformed input at every border: what comes back is a value or one error, soon, and nothing is written anywhere else.

Good files are damaged (bytes changed, cut, doubled, replaced by what parsers trip over), and some
input is junk from the start. A hundred of each by default, ten thousand with `make test-all`.
"""

from __future__ import annotations

import base64
import io
import json
import lzma
import os
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from hqsam.model import checkpoint
from hqsam_base import atomic, json_stream, rle, runs
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks import cocolike
from hqsam_datasets.fetch import content, extract, first_use, members
from hqsam_datasets.fetch.transfer import DownloadError, Transfer
from hqsam_datasets.formats import images, labelme, masks, tar
from hqsam_datasets.formats.image_files import ImageError
from hqsam_datasets.formats.jpeg_header import plain_jpeg_size
from hqsam_datasets.formats.png_chunks import png_damage
from hqsam_datasets.sources.annotations import _read as read_own_annotations
from hqsam_metrics.ap.resample import Matches, Truth
from hqsam_metrics.masks import png
from hqsam_metrics.matches_file import MATCHES, TRUTH, MatchesWriter, read_matches
from hqsam_pipelines.compare.dvc_cache import Listing
from hqsam_pipelines.compare.recorded import Lock, RunParams
from hqsam_pipelines.config import strict
from hqsam_pipelines.report.results import parse_metrics
from hqsam_pipelines.report.units import units_frame
from tests import FULL

EXAMPLES = 10_000 if FULL else 100
SIDE = 12

Read = Callable[[bytes, Path], Any]


@dataclass(frozen=True)
class Border:
    """How a border is tried: good inputs to damage, the reader, and what it may raise beside UserError."""

    good: tuple[bytes, ...]
    read: Read
    raises: tuple[type[Exception], ...] = ()


def drained(items: Any) -> None:
    for _ in items:
        pass


def at(name: str, read: Callable[[Path], Any]) -> Read:
    """A reader of a file of that name in the example's own folder."""

    def from_file(data: bytes, folder: Path) -> Any:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return from_file


def unpack(suffix: str) -> Read:
    def read(data: bytes, folder: Path) -> None:
        name = f"a.{suffix}"
        (folder / "set").mkdir()
        (folder / "set" / name).write_bytes(data)
        (folder / "set" / "fetch.json").write_bytes(
            dumped({"files": [{"name": name, "sha256": "0"}]})
        )
        content.check_structure(folder / "set" / name, name)
        extract.extracted(folder / "set", folder / "work")

    return read


def picture_members(data: bytes, folder: Path) -> None:
    (folder / "a.zip").write_bytes(data)
    names = {f"d/{n}.jpg" for n in range(2)}
    members.download_members((folder / "a.zip").as_uri(), names, folder / "a.tar", Transfer())


def segmentation(data: bytes, folder: Path) -> None:
    try:
        value = json.loads(data)
    except RecursionError:  # the reader of the file refuses it
        return
    counts = rle.from_segmentation(value, height=SIDE, width=SIDE)
    mask = rle.decode(counts, height=SIDE, width=SIDE)
    assert int(mask.sum()) == rle.area(counts, height=SIDE, width=SIDE)
    assert rle.decode(rle.encode(mask), height=SIDE, width=SIDE).tobytes() == mask.tobytes()


def scored_segmentation(data: bytes, folder: Path) -> None:
    try:
        value = json.loads(data)
    except RecursionError:
        return
    run_lengths(rle.segmentation_string(value, SIDE, SIDE), folder)


def run_lengths(data: bytes, folder: Path) -> None:
    decoded = runs.decode_runs(runs.RleBatch.of([data, b""], [SIDE, 0], [SIDE, 0]))
    assert 0 <= int(decoded.areas()[0]) <= SIDE * SIDE


def picture(data: bytes, folder: Path) -> None:
    plain_jpeg_size(data)
    png_damage(data)
    for decode in (images.decode_image, masks.decode_mask, masks.decode_labels):
        try:
            decode(data)
        except ImageError as error:
            assert str(error)


def mask_files(data: bytes, folder: Path) -> None:
    (folder / "a.png").write_bytes(data)
    for read in (png.read_mask_png, png.read_index_png):
        try:
            read(folder / "a.png")
        except UserError as error:
            assert str(error)


def revision_files(data: bytes, folder: Path) -> None:
    value = strict.parse_yaml(data, "x")
    for kind in (Lock, RunParams):
        try:
            strict.outlined(kind, value or {}, "x")
        except UserError as error:
            assert str(error)


def listing(data: bytes, folder: Path) -> None:
    found = strict.outlined(Listing, {"entries": strict.parse_json(data, "x")}, "x")
    assert all(".." not in Path(entry.relpath).parts for entry in found.entries)


# --- good inputs ---


def a_zip(
    names: tuple[str, ...] = ("d/0.jpg", "d/1.jpg"), data: bytes = b"0123456789" * 9
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def a_tar(kind: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name in ("d/0.jpg", "d/" + "n" * 120 + ".png"):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 90, {"comment": "ä"}
            archive.addfile(info, io.BytesIO(b"0123456789" * 9))
    return out.getvalue()


def a_shard() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("a.jpg", "a.json", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"12345"))
    return out.getvalue()


def pictures() -> tuple[bytes, ...]:
    from PIL import Image

    grey = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 2 * 255).astype(np.uint8)
    found = []
    for picture_, fmt, options in (
        (Image.fromarray(grey), "PNG", {}),
        (Image.fromarray(grey).convert("P"), "PNG", {}),
        (Image.fromarray(grey).convert("1"), "PNG", {}),
        (Image.fromarray(np.dstack([grey] * 4)), "PNG", {}),
        (Image.fromarray(grey.astype(np.uint16) * 257), "PNG", {}),
        (Image.fromarray(np.dstack([grey] * 3)), "JPEG", {}),
        (Image.fromarray(grey), "GIF", {}),
        (Image.fromarray(grey), "TIFF", {}),
        (Image.fromarray(grey), "BMP", {}),
        (Image.fromarray(np.dstack([grey] * 3)), "WEBP", {}),
    ):
        out = io.BytesIO()
        picture_.save(out, fmt, **options)
        found.append(out.getvalue())
    return tuple(found)


def a_table() -> bytes:
    import pandas as pd

    out = io.BytesIO()
    texts = {name: ["a", "b"] for name in ("prompt_set", "system", "key", "cluster", "unit")}
    pd.DataFrame({**texts, "iou": [0.5, 0.25]}).to_parquet(out)
    return out.getvalue()


def some_matches(folder: Path) -> dict[str, bytes]:
    """Both files of a small set, as the score stage writes them."""
    names = ("AP", "AP_B")
    numbers = np.arange(3, dtype=np.int32)
    truth = Truth(
        ["1", "2", "3"], numbers, 0 * numbers, numbers, 0 * numbers, dict.fromkeys(names, numbers)
    )
    bits = {name: numbers.astype(np.uint16) for name in names}
    with MatchesWriter(folder) as writer:
        writer.add("box", "sam", Matches(truth, numbers, 0 * numbers, bits, bits))
    return {name: (folder / name).read_bytes() for name in (MATCHES, TRUTH)}


def matches_reader(name: str, good: dict[str, bytes]) -> Read:
    """Reads the matches with one file damaged."""

    def read(data: bytes, folder: Path) -> Any:
        files = {key: io.BytesIO(content) for key, content in (good | {name: data}).items()}
        return read_matches(files, "box", "sam", "x")

    return read


with tempfile.TemporaryDirectory() as _folder:
    MATCHED = some_matches(Path(_folder))


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def torch_saved(value: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


STATE = {"hf_token.weight": torch.zeros(1, 4), "other": torch.ones(2)}
COUNTS = rle.encode(np.eye(SIDE, dtype=bool))
ITEM = {
    "prompt_set": "gt_box",
    "system": "sam",
    "metrics": {"mIoU": 0.5},
    "n_expected": 3,
    "n_scored": 3,
    "protocol": {"metric": "masks"},
    "protocol_hash": "ab12",
}
LOCK = {
    "stages": {
        "a@b": {"outs": [{"path": "x", "md5": "0" * 32}], "params": {"params.yaml": {"k": 1}}}
    }
}
NAMES = dumped({"images": [{"coco_url": "http://x/d/0.jpg"}]})
PART = base64.b64encode(images.encode_png(np.full((2, 3), 255, np.uint8))).decode()
LABELME = {
    "imagePath": "a.jpg",
    "imageHeight": SIDE,
    "imageWidth": SIDE,
    "shapes": [
        {
            "label": "a",
            "shape_type": kind,
            "group_id": group,
            "points": [[1, 1], [6, 2], [5, 9]][:n],
            "mask": PART,
        }
        for kind, group, n in (
            ("polygon", None, 3),
            ("circle", 1, 2),
            ("rectangle", 1, 2),
            ("mask", None, 1),
        )
    ],
}
RECORDS = [
    {"id": 1, "segmentation": {"size": [2, 2], "counts": [1, 2, 1]}},
    {"id": 2, "bbox": [0.5, 1e9]},
]

BORDERS = {
    "segmentation": Border(
        (
            dumped({"size": [SIDE, SIDE], "counts": COUNTS}),
            dumped({"size": [SIDE, SIDE], "counts": [5, 100, 39]}),
            dumped([[1, 1, 9, 1.5, 9, 9], [0, 0, 2, 0, 2, 2]]),
        ),
        segmentation,
        (ValueError,),
    ),
    "scored segmentation": Border(
        (
            dumped({"size": [SIDE, SIDE], "counts": COUNTS}),
            dumped({"size": [SIDE, SIDE], "counts": [5, 100, 39]}),
            dumped([[1, 1, 9, 1.5, 9, 9], [0, 0, 2, 0, 2, 2]]),
        ),
        scored_segmentation,
        (ValueError,),
    ),
    "run lengths": Border((COUNTS.encode(),), run_lengths, (runs.RleError,)),
    "pictures": Border(pictures(), picture),
    "mask files": Border(pictures(), mask_files),
    "JSON list": Border(
        (dumped(RECORDS),), at("a.json", lambda p: drained(json_stream.iterate_results(p, whole=0)))
    ),
    "JSON records": Border(
        (dumped(RECORDS),),
        at("a.json", lambda p: drained(json_stream.iterate_list(p, problem="x", cure="y"))),
    ),
    "JSON members": Border(
        (dumped({"info": {}, "images": RECORDS}),),
        at(
            "a.json",
            lambda p: drained(json_stream.iterate_members(p, ("images",), problem="x", cure="y")),
        ),
    ),
    "labelme": Border((dumped(LABELME),), at("a.json", lambda p: labelme.convert(p.parent))),
    "annotations of own data": Border(
        (
            dumped(
                {
                    "images": [{"id": 1, "file_name": "a"}],
                    "annotations": RECORDS,
                    "categories": [{"id": 1, "name": "x"}],
                }
            ),
        ),
        at("a.json", read_own_annotations),
    ),
    "annotations of a set": Border(
        (
            dumped(
                {"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1}], "categories": []}
            ),
        ),
        at("a.json", cocolike.read_annotations),
    ),
    "JSON file": Border((dumped(RECORDS),), at("a.json", atomic.read_json)),
    "JSON lines": Border((b'{"a": 1}\n{"b": [2]}\n',), at("a.jsonl", atomic.read_jsonl)),
    "names of pictures": Border((NAMES, a_zip(("a.json",), NAMES)), at("a", members.image_names)),
    "tar": Border(
        tuple(map(a_tar, (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))), unpack("tar"), (DownloadError,)
    ),
    "packed tar": Border(
        (lzma.compress(a_tar(tarfile.PAX_FORMAT)),), unpack("tar.xz"), (DownloadError,)
    ),
    "zip": Border((a_zip(), a_zip(("a.json",))), unpack("zip"), (DownloadError,)),
    "members of a zip": Border((a_zip(),), picture_members, (DownloadError,)),
    "shard": Border((a_shard(),), at("a.tar", lambda p: drained(tar.iterate_samples(p)))),
    "safetensors": Border(
        (save(STATE), save(STATE, {"hqsam": '{"format": "hq_head"}'})),
        at("a.safetensors", checkpoint.read),
    ),
    "torch.save": Border(
        (torch_saved(STATE), torch_saved({"model": STATE}, _use_new_zipfile_serialization=False)),
        at("a.pth", checkpoint.read),
    ),
    "YAML of a revision": Border(
        (yaml.safe_dump(LOCK).encode(), b"a: &a {x: 1}\nb: *a\nc: {<<: *a}\n"), revision_files
    ),
    "metrics of a revision": Border(
        (dumped({"benchmark": "a", "model": "b", "results": [ITEM]}),),
        lambda data, folder: parse_metrics(data, "x"),
    ),
    "listing of DVC": Border((dumped([{"relpath": "a/b.parquet", "md5": "0" * 32}]),), listing),
    "table of a revision": Border(
        (a_table(),), lambda data, folder: units_frame(io.BytesIO(data), "x")
    ),
    "matches of a revision": Border((MATCHED[MATCHES],), matches_reader(MATCHES, MATCHED)),
    "ground truth of a revision": Border((MATCHED[TRUTH],), matches_reader(TRUTH, MATCHED)),
    "first digests": Border(
        (f"# x\n{'0' * 64}  a/b.zip\n".encode(),), at("a.sha256", first_use.read)
    ),
}

# What parsers trip over.
TOKENS = (
    b"[" * 5000,
    b'{"a":' * 5000,
    b"{" * 300,
    b"\xff" * 8,
    b"\x00" * 8,
    b"\x00" * 600,
    b"../",
    b"/",
    b"\\",
    b"..",
    b"&a ",
    b"*a",
    b"<<: ",
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e999",
    b"9" * 400,
    b"0x" + b"f" * 300,
    b"\x80\x00\x00\x00\x7f\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"null",
    b'"',
    b"\n",
    b"\r",
    b"\t",
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"!!python/object/apply:os.getcwd []",
    b"30 path=../../x\n",
    b"\x1b[2J",
)
place = st.integers(0, 4000)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("insert"), place, st.sampled_from(TOKENS) | st.binary(max_size=12)),
        st.tuples(st.just("cut"), place, st.integers(1, 600).map(bytes)),
        st.tuples(st.just("end"), place, st.just(b"")),
        st.tuples(st.just("double"), place, st.integers(1, 600).map(bytes)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(good: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    data = bytearray(good)
    for kind, where, what in changes:
        spot = where % (len(data) + 1)
        if kind == "set":
            data[spot : spot + len(what)] = what
        elif kind == "insert":
            data[spot:spot] = what
        elif kind == "cut":
            del data[spot : spot + len(what)]
        elif kind == "end":
            del data[spot:]
        else:
            data[spot:spot] = data[spot : spot + len(what)]
    return bytes(data)


class Outside:
    """Notes what the interpreter opens for writing, makes or renames outside a folder, while it is told to."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.found: list[str] = []
        sys.addaudithook(self._hear)  # for good: hooks cannot be taken away

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event not in (
            "open",
            "os.mkdir",
            "os.rename",
            "os.link",
            "os.symlink",
            "os.truncate",
        ):
            return
        writes = event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        target = arguments[1] if event in ("os.rename", "os.link", "os.symlink") else arguments[0]
        if writes and isinstance(target, (str, bytes, os.PathLike)):
            path = Path(os.fsdecode(target))
            if not (path.parent.resolve() / path.name).is_relative_to(self.folder):
                self.found.append(f"{event} {path}")


OUTSIDE = Outside()


def attempt(border: Border, data: bytes, folder: Path) -> bool:
    """Whether the input is taken; it must be refused by one of the errors that the border tells of."""
    taken, seconds = _read(border, data, folder)
    # The first call of a kind of input may import what it needs: a second call tells.
    assert seconds < 1.0 or _read(border, data, folder)[1] < 1.0, "it hangs"
    return taken


def _read(border: Border, data: bytes, folder: Path) -> tuple[bool, float]:
    """Whether the input is taken, and the processor time."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    OUTSIDE.folder, OUTSIDE.found = os.path.realpath(folder), []
    begin, taken = time.process_time(), True
    try:
        border.read(data, folder)
    except (UserError, *border.raises) as error:
        str(error).encode()
        taken = False
    finally:
        OUTSIDE.folder = None
        assert OUTSIDE.found == [], "it writes elsewhere"
    return taken, time.process_time() - begin


@pytest.mark.parametrize("name", BORDERS)
def test_good_input_is_taken(name: str, tmp_path: Path) -> None:
    for data in BORDERS[name].good:
        assert attempt(BORDERS[name], data, tmp_path / "x")


@pytest.mark.parametrize("name", BORDERS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    which=st.integers(0, 99),
    changes=edits,
    junk=st.none() | st.none() | st.none() | st.binary(max_size=200),
)
def test_malformed_input_is_refused_or_read(
    name: str, which: int, changes: list[tuple[str, int, bytes]], junk: bytes | None, tmp_path: Path
) -> None:
    border = BORDERS[name]
    attempt(border, junk or damaged(border.good[which % len(border.good)], changes), tmp_path / "x")


# IHDR holds what a decoder allocates by; with a right checksum nothing stops it before.
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    size=st.tuples(
        *[
            st.sampled_from(
                [0, 1, SIDE, SIDE + 1, 20_000, 65_536, 1 << 20, 2**31 - 1, 2**31, 2**32 - 1]
            )
        ]
        * 2
    ),
    rest=st.tuples(st.sampled_from([0, 1, 2, 4, 8, 16, 255]), *[st.integers(0, 7)] * 4),
    which=st.integers(0, 4),
)
def test_png_headers(
    size: tuple[int, int], rest: tuple[int, ...], which: int, tmp_path: Path
) -> None:
    good = BORDERS["pictures"].good[which]
    header = b"IHDR" + struct.pack(">II5B", *size, *rest)
    data = good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:]
    for name in ("pictures", "mask files"):
        attempt(BORDERS[name], data, tmp_path / "x")
