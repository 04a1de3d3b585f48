"""Folders of masks that somebody else wrote: nothing is read as an empty mask, and nothing is passed over, without a word."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from hqsam_metrics import UserError
from hqsam_metrics.masks.png import read_mask_png
from tests.metrics.test_cli import run


def test_a_mask_in_colours_is_no_empty_mask(tmp_path):
    """Red was the channel that counted: a green mask was empty, and a cut-out on white was full, without a word."""
    inside = np.eye(5, dtype=np.uint8)
    none = np.zeros_like(inside)
    palette = Image.fromarray(inside, "P")
    palette.putpalette([0, 0, 0, 0, 128, 0])
    palette.save(tmp_path / "palette.png")
    cv2.imwrite(str(tmp_path / "green.png"), np.dstack([none, inside * 100, none]))
    cv2.imwrite(str(tmp_path / "shaped.png"), np.dstack([none, inside * 255, none, inside * 255]))
    for name in ("palette", "green", "shaped"):
        with pytest.raises(UserError, match=f"{name}.png: has colours"):
            read_mask_png(tmp_path / f"{name}.png")
    for colour in (0, 90, 255):
        cv2.imwrite(str(tmp_path / "cut.png"), np.dstack([np.full_like(inside, colour)] * 3 + [inside * 255]))
        assert (read_mask_png(tmp_path / "cut.png") == (inside > 0)).all(), colour
    cv2.imwrite(str(tmp_path / "opaque.png"), np.dstack([inside * 255] * 3 + [np.full_like(inside, 255)]))
    assert (read_mask_png(tmp_path / "opaque.png") == (inside > 0)).all()
    cv2.imwrite(str(tmp_path / "near.png"), np.dstack([inside * 255, inside * 254, inside * 253]))
    assert (read_mask_png(tmp_path / "near.png") == (inside > 0)).all()


def test_no_mask_file_is_passed_over(tmp_path):
    for folder in ("pred", "gt"):
        (tmp_path / folder).mkdir()
        for name in ("01", "02"):
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), 255 * np.eye(9, dtype=np.uint8))

    def message():
        done = run("masks", "--pred", tmp_path / "pred", "--gt", tmp_path / "gt")
        assert done.exit_code == 1 and done.output.startswith("error: "), done.output
        return done.output

    (tmp_path / "gt" / "notes.txt").write_text("no mask")
    for folder in ("pred", "gt"):
        (tmp_path / folder / "01.png").rename(tmp_path / folder / "01.jpg")
    assert "01.jpg: is no PNG (1 such files, --pred)" in message()
    for folder in ("pred", "gt"):
        (tmp_path / folder / "01.jpg").rename(tmp_path / folder / "01.PNG")
    assert run("masks", "--pred", tmp_path / "pred", "--gt", tmp_path / "gt").exit_code == 0
    (tmp_path / "pred" / "01.png").write_bytes((tmp_path / "pred" / "02.png").read_bytes())
    assert "lies beside it (--pred)" in message()
