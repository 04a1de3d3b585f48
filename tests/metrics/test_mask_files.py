"""Folders of masks that others wrote: nothing is read as an empty mask, and nothing is passed over, without a word."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from hqsam_base import png
from hqsam_metrics import UserError
from hqsam_metrics.masks.png import read_index_png, read_mask_png
from hqsam_metrics.scores.davis import score_davis_folders
from hqsam_metrics.scores.masks import score_mask_folders
from tests.metrics.synthetic import label_png
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
        cv2.imwrite(
            str(tmp_path / "cut.png"),
            np.dstack([np.full_like(inside, colour)] * 3 + [inside * 255]),
        )
        assert (read_mask_png(tmp_path / "cut.png") == (inside > 0)).all(), colour
    cv2.imwrite(
        str(tmp_path / "opaque.png"), np.dstack([inside * 255] * 3 + [np.full_like(inside, 255)])
    )
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
    assert "01.jpg: is not a PNG (1 such files, --pred)" in message()
    for folder in ("pred", "gt"):
        (tmp_path / folder / "01.jpg").rename(tmp_path / folder / "01.PNG")
    assert run("masks", "--pred", tmp_path / "pred", "--gt", tmp_path / "gt").exit_code == 0
    (tmp_path / "pred" / "01.png").write_bytes((tmp_path / "pred" / "02.png").read_bytes())
    assert "lies beside it (--pred)" in message()


def test_companions_and_unicode_forms_of_names(tmp_path):
    """macOS puts a `._x.png` beside each x.png on other disks, and writes `ö` as two characters."""
    for folder, name in (("pred", "Vo\u0308gel.png"), ("gt", "V\u00f6gel.png")):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / name), 255 * np.eye(9, dtype=np.uint8))
        (tmp_path / folder / f"._{name}").write_bytes(b"Mac OS X")
        (tmp_path / folder / "._02.jpg").write_bytes(b"Mac OS X")
    result = score_mask_folders(pred=tmp_path / "pred", gt=tmp_path / "gt")
    assert result.metrics["mIoU"] == 1 and result.n_expected == 1


def test_masks_without_any_pixel_are_no_success(tmp_path):
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(UserError, match="nothing to score"):
        score_mask_folders(pred=tmp_path / "masks", gt=tmp_path / "masks")


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_object_numbers_are_read_as_they_are_stored(tmp_path, capfd, depth, palette):
    """OpenCV stretches few bits to 0..255, so object 1 of a two-level file was void; 16 bits were shifted."""
    labels = np.arange(24).reshape(4, 6) % min(1 << depth, 255)
    (tmp_path / "a.png").write_bytes(label_png(labels, depth, palette=palette and depth < 16))
    assert (read_index_png(tmp_path / "a.png") == labels).all()
    assert not capfd.readouterr().err, "libpng finds a chunk that is right for a palette only"


def test_object_numbers_beyond_8_bits_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4), 257, np.uint16))
    with pytest.raises(UserError, match="has the value 257"):
        read_index_png(tmp_path / "a.png")


def davis_tree(root, **sequences):
    """Ground truth and results of 4 frames, each full of one value."""
    (root / "D" / "ImageSets" / "2017").mkdir(parents=True)
    (root / "D" / "ImageSets" / "2017" / "val.txt").write_text("\n".join(sequences))
    for name, value in sequences.items():
        for folder in (root / "D" / "Annotations" / "480p" / name, root / "P" / name):
            folder.mkdir(parents=True)
            for frame in range(4):
                cv2.imwrite(str(folder / f"{frame}.png"), np.diag([value] * 5).astype(np.uint8))
    return {"pred": root / "P", "gt": root / "D"}


def test_a_davis_ground_truth_without_objects_is_named(tmp_path):
    """DAVIS 2016 writes its one object as 255, which is void in DAVIS 2017: it was scored as nothing, with exit status 0."""
    with pytest.raises(UserError, match=r"sequence bear, frame 0: .* DAVIS 2016"):
        score_davis_folders(**davis_tree(tmp_path / "2016", goat=1, bear=255))
    with pytest.raises(UserError, match="no sequence has an object"):
        score_davis_folders(**davis_tree(tmp_path / "none", bear=0))
    mixed = score_davis_folders(**davis_tree(tmp_path / "mixed", goat=1, bear=0))
    assert mixed.metrics["J&F"] == 1 and mixed.n_scored == 1


def test_what_has_no_end_or_too_many_pixels_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")  # nobody writes into it
    (tmp_path / "device.png").symlink_to(os.devnull)
    for name in ("pipe", "device"):
        with pytest.raises(UserError, match="no regular file"):
            read_mask_png(tmp_path / f"{name}.png")
    (tmp_path / "small.png").write_bytes(label_png(np.eye(9, dtype=np.uint8), 8, palette=True))
    monkeypatch.setattr(png, "MAX_PIXELS", 80)
    for read in (read_mask_png, read_index_png):
        with pytest.raises(UserError, match="9 x 9 pixels, the limit is 80"):
            read(tmp_path / "small.png")


def test_a_list_of_sequences_names_no_folder_outside(tmp_path):
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("bear\n../../bear\n")
    with pytest.raises(UserError, match="leaves the folder"):
        score_davis_folders(pred=tmp_path, gt=tmp_path)


def test_davis_numbers_that_the_first_frame_does_not_show_are_named(tmp_path):
    """Palette pictures converted to grey: their colours are no object numbers, and all below count as found."""
    got = score_davis_folders(**davis_tree(tmp_path / "grey", bear=38))
    assert got.metrics["J"] == 1 and got.n_scored == 38
    assert (
        got.warnings[0].startswith("37 of 38 objects are numbers that")
        and "grey" in got.warnings[0]
    )
    assert not score_davis_folders(**davis_tree(tmp_path / "right", bear=1)).warnings


def test_davis_files_that_do_not_fit_are_named_for_what_they_are(tmp_path):
    tree = davis_tree(tmp_path, bear=1)
    for folder in (tmp_path / "D/Annotations/480p/bear", tmp_path / "P/bear"):
        for path in folder.iterdir():
            path.rename(path.with_suffix(".PNG"))
    assert score_davis_folders(**tree).metrics["J"] == 1
    for path in (tmp_path / "P/bear").iterdir():
        path.rename(path.with_suffix(".jpg"))
    with pytest.raises(UserError, match=r"no such result .*bear holds 0\.jpg"):
        score_davis_folders(**tree)
    one, none = davis_tree(tmp_path / "one", bear=1), davis_tree(tmp_path / "none", bear=0)
    with pytest.raises(UserError, match="ground truth's first frame has no object"):
        score_davis_folders(pred=one["pred"], gt=none["gt"])
