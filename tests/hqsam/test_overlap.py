"""Reading, decoding, making masks and writing a part overlap, with bounds; nobody needs a GPU to see it.

The stand-in's calls wait for what must be able to happen meanwhile: a build that does one after the
other would wait for ever, so each wait ends in an error after `PATIENCE` seconds.
"""

import threading
from pathlib import Path

import numpy as np
import pytest

from hqsam import systems
from hqsam.model.options import ModelOptions
from hqsam.prediction import part, parts, passes
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.passes import BenchmarkImages, Engine
from hqsam.prediction.postprocess import MaskCodes, MaskPatch
from hqsam.systems import Decoded, Promptable
from hqsam_base import rle
from hqsam_datasets.formats import manifest
from tests.hqsam.test_predict import _write_benchmark

PATIENCE = 20
IMAGES = 4  # with prompts; the fifth has none


class StandIn(Promptable):
    """Fills the image; says what it does, and does what a test hangs into it."""

    def __init__(self) -> None:
        self.decoding = [threading.Event() for _ in range(IMAGES)]
        self.before_masks = lambda image: None
        self.making, self.most, self._lock = 0, 0, threading.Lock()
        self.images = 0

    def prepare(self, image):
        return image.shape[:2]

    def encode(self, prepared):
        numbers = range(self.images, self.images + len(prepared))
        self.images += len(prepared)
        return list(zip(numbers, prepared, strict=True))

    def decode(self, image, prompts):
        self.decoding[image[0]].set()
        return {"stand_in": Decoded([image[1]] * len(prompts), [0.5] * len(prompts))}

    def to_image(self, image, values):
        return MaskPatch.of(np.ones(values, bool))

    def to_codes(self, image, values):
        with self._lock:
            self.making += 1
            self.most = max(self.most, self.making)
        self.before_masks(image[0])
        try:
            return super().to_codes(image, values)
        finally:
            with self._lock:
                self.making -= 1


@pytest.fixture
def folder(tmp_path):
    return _write_benchmark(tmp_path / "toy")


def _write(folder: Path, one: Promptable, monkeypatch, **options) -> passes.Figures:
    """Write all parts with a system that is already open."""

    class Kind:
        def open(self, entry, context):
            return one

        def systems(self, entry):
            return ()

    monkeypatch.setattr(systems, "load", lambda name: Kind())
    entry = systems.Entry("stand_in", systems.SystemOptions(kind="stand_in"))
    chosen = PredictOptions(batch_images=1, threads=1, **options)
    context = systems.Context(ModelOptions(backbone="nano"), folder, chosen)
    with BenchmarkImages(folder) as images:
        writer = part.PartWriter(part.Job(folder, context, (entry,)), images, folder)
        planned = dict(enumerate(parts.spans(len(images), chosen.images_per_part)))
        figures, failed = writer.write(folder, planned, lambda some: None)
    for error in failed.values():
        raise error
    return figures


def test_masks_are_made_while_the_next_image_is_decoded(folder, monkeypatch):
    one = StandIn()

    def next_is_decoded(image: int) -> None:
        if image + 1 < IMAGES:
            assert one.decoding[image + 1].wait(PATIENCE)

    one.before_masks = next_is_decoded
    figures = _write(folder, one, monkeypatch, images_per_part=64)
    assert (figures.images, figures.prompts) == (5, 20)
    rows = manifest.read_rows(part.part_path(folder, 0))
    assert [row["prompt_id"] for row in rows] == sorted(row["prompt_id"] for row in rows)
    assert len(rows) == 20
    assert {row["mask_area"] for row in rows if row["key"] == "img_0"} == {60 * 90}
    assert rows[0]["rle"] == rle.encode(np.ones((60, 90), bool))


def test_a_part_is_written_while_the_next_is_decoded(folder, monkeypatch):
    one = StandIn()
    write = part.manifest.write_table

    def slow(path: Path, *words, **options) -> None:
        if path.name == "part-00000.parquet":
            assert one.decoding[2].wait(PATIENCE)
        write(path, *words, **options)

    monkeypatch.setattr(part.manifest, "write_table", slow)
    _write(folder, one, monkeypatch, images_per_part=2)
    found = [manifest.read_rows(part.part_path(folder, number)) for number in range(3)]
    assert [sorted({row["key"] for row in rows}) for rows in found] == [
        ["img_0", "img_1"],
        ["img_2", "img_3"],
        [],
    ]


def test_no_more_masks_are_pending_than_the_bound(folder, monkeypatch):
    """The logits of what is not made yet lie in memory: the device waits rather than that they fill it."""
    one, blocked = StandIn(), threading.Event()
    one.before_masks = lambda image: blocked.wait(PATIENCE)
    engine = Engine([("one", one)], PredictOptions(batch_images=1, prompts_per_pass=1), threads=2)
    monkeypatch.setattr(passes, "_PENDING", 2)
    decoded: list[MaskCodes] = []

    def run() -> None:
        with BenchmarkImages(folder) as images:
            for of_image in engine.run(images, [range(5)]):
                decoded.extend(rows.masks for rows in of_image)

    thread = threading.Thread(target=run)
    thread.start()
    assert one.decoding[0].wait(PATIENCE)
    thread.join(0.3)
    assert thread.is_alive() and not decoded and one.making == 2
    assert not one.decoding[1].is_set()  # 5 prompts of the first image: 4 pending, the fifth waits
    blocked.set()
    thread.join(PATIENCE)
    assert len(decoded) == 20 and one.most == 2


def test_what_goes_wrong_in_a_thread_ends_the_stage(folder, monkeypatch):
    one = StandIn()

    def fail(image: int) -> None:
        if image == 1:
            raise ArithmeticError("a mask that cannot be made")

    one.before_masks = fail
    with pytest.raises(ArithmeticError, match="cannot be made"):
        _write(folder, one, monkeypatch, images_per_part=1)
    assert part.part_path(folder, 0).is_file() and not parts.part_path(folder, 1).exists()


def test_the_share_of_waiting_is_what_the_systems_calls_leave():
    figures = passes.Figures(images=10, prompts=300, wall_s=4.0, device_s=3.0)
    figures.add(passes.Figures(images=10, prompts=100, wall_s=6.0, device_s=3.0))
    assert figures.rates(2) == {"images_per_s": 4.0, "prompts_per_s": 80.0, "device_waited": 0.4}
