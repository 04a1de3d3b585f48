"""Masks of a pass as run-length codes: the compiled kernel gives what `mask_patch` gives, wherever it is taken."""

import cv2
import numpy as np
import pytest

from hqsam.model.preprocess import Frame
from hqsam.prediction import postprocess
from hqsam.prediction.postprocess import MaskCodes, mask_codes, mask_patch
from hqsam_base import compiled

ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38], np.float32)


@pytest.fixture
def at_once(monkeypatch):
    """The kernel, from the first mask on."""
    pytest.importorskip("numba")
    if (why := compiled.fill(postprocess.KERNELS)) is not None:
        pytest.skip(why)
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    monkeypatch.setattr(postprocess, "_WORTH", 0)


def _logits(rng: np.random.Generator, side: int):
    """Blobs of any coarseness and noise, edges of the image included; nothing, everything, and values that no model should give."""
    noise = rng.normal(0, 1, (side, side)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.3, 4)) + rng.uniform(-0.4, 0.4)
    strange = np.where(rng.random((side, side)) < 0.02, rng.choice(ODD, (side, side)), smooth)
    corner = np.full((side, side), -1.0)
    corner[-1, -1] = 0.5
    flat = [np.full((side, side), value) for value in (-1.0, 1.0, 0.0, np.nan)]
    return np.stack([smooth, -smooth, noise, strange, corner, *flat]).astype(np.float32)


def _equal(found: MaskCodes | None, expected: MaskCodes) -> None:
    assert found is not None
    assert [found.codes.string(n) for n in range(len(found.codes))] == [
        expected.codes.string(n) for n in range(len(expected.codes))
    ]
    for name in ("heights", "widths"):
        assert np.array_equal(getattr(found.codes, name), getattr(expected.codes, name))
    assert np.array_equal(found.areas, expected.areas)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("resize", ["longest_side", "stretch"])
def test_compiled_codes_are_those_of_the_plain_path(at_once, resize):
    rng = np.random.default_rng(7)
    sizes = [(1, 1), (1, 300), (300, 1), (3, 2), (480, 640), (128, 128), (1500, 40)]
    for height, width in [*sizes, *rng.integers(1, 400, (20, 2)).tolist()]:
        frame = Frame(height, width, 128, resize)
        logits = _logits(rng, 32)
        _equal(mask_codes(logits, frame), MaskCodes.of([mask_patch(one, frame) for one in logits]))
    empty = mask_codes(np.zeros((0, 32, 32), np.float32), frame)
    assert empty is not None and len(empty.codes) == len(empty.areas) == 0


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_view_of_other_logits_is_taken(at_once):
    """SAM's decoder gives four masks a prompt; the first of each is no contiguous array."""
    frame, logits = Frame(60, 90, 128), _logits(np.random.default_rng(0), 32)
    view = np.stack([logits, -logits], axis=1)[:, 0]
    _equal(mask_codes(view, frame), MaskCodes.of([mask_patch(one, frame) for one in logits]))


def test_numba_is_imported_only_after_masks_that_pay_for_it(at_once, monkeypatch):
    frame, logits = Frame(20, 30, 128), np.ones((4, 32, 32), np.float32)
    monkeypatch.setattr(postprocess, "_WORTH", 10)
    monkeypatch.setattr(postprocess, "_made", 0)
    assert [mask_codes(logits, frame) is None for _ in range(4)] == [True, True, False, False]
    monkeypatch.setenv(compiled.SWITCH, "0")
    assert mask_codes(logits, frame) is None
