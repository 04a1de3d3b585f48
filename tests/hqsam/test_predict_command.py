"""`hqsam predict`: what it reads, writes and refuses."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from hqsam.model import convert
from hqsam.model.backbones import bundled_weights
from hqsam_base import rle
from hqsam_datasets.formats.images import encode_png
from tests.hqsam.models import picture


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    code = "from hqsam_pipelines.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def merged(tmp_path_factory, nano) -> str:
    """The miniature with an HQ head, in one file."""
    path = tmp_path_factory.mktemp("merged") / "nano.pth"
    convert.write(nano, path, "hq_sam")
    return str(path)


def test_predict_command(tmp_path, merged):
    from hqsam_pipelines.cli import run

    image, weights = tmp_path / "a.png", merged
    image.write_bytes(encode_png(picture(80, 100)))
    outs = {name: str(tmp_path / name) for name in ("m.png", "o.png", "m.json")}
    words = ["predict", str(image), "--checkpoint", weights, "--out", outs["m.png"]]
    assert (
        run(
            [
                *words,
                "--box",
                "10",
                "10",
                "70",
                "60",
                "--overlay",
                outs["o.png"],
                "--json",
                outs["m.json"],
            ]
        )
        == 0
    )
    mask = cv2.imread(outs["m.png"], cv2.IMREAD_UNCHANGED)
    assert mask.shape == (80, 100)
    assert set(np.unique(mask)) <= {0, 255}
    assert cv2.imread(outs["o.png"]).shape == (80, 100, 3)
    found = json.loads(Path(outs["m.json"]).read_text())
    assert found["area"] == (mask == 255).sum()
    assert (found["backbone"], found["variant"]) == ("nano", "hq")
    assert np.array_equal(
        rle.decode(found["segmentation"]["counts"], height=80, width=100), mask == 255
    )
    assert run([*words, "--point", "20", "30", "50", "40", "--negative", "5,5"]) == 0
    coarse = tmp_path / "coarse.png"
    coarse.write_bytes(encode_png(mask))
    assert run([*words, "--mask", str(coarse), "--output", "sam"]) == 0


def _written(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def test_predict_command_reads_what_pictures_come_as(tmp_path, merged):
    """16 bit, palette, RGBA, grey, CMYK, EXIF-rotated: the mask is that of the plain picture, at its upright size."""
    from hqsam_pipelines.cli import run

    grey = picture(80, 100)[:, :, 0]
    plain = Image.fromarray(grey)
    alpha = Image.fromarray(np.full((80, 100), 7, np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise for display
    files = [
        _written(tmp_path / "plain.png", plain.convert("RGB")),
        _written(tmp_path / "grey.png", plain),
        _written(tmp_path / "deep.png", Image.fromarray(grey.astype(np.uint16) * 257)),
        _written(tmp_path / "deep.tif", Image.fromarray(grey.astype(np.uint16) * 257)),
        _written(tmp_path / "palette.png", plain.convert("P")),
        _written(tmp_path / "alpha.png", Image.merge("RGBA", [plain] * 3 + [alpha])),
        _written(tmp_path / "grey_alpha.png", Image.merge("LA", [plain, alpha])),
        _written(
            tmp_path / "rotated.png", plain.convert("RGB").rotate(90, expand=True), exif=turned
        ),
        _written(
            tmp_path / "rotated.jpg",
            plain.convert("RGB").rotate(90, expand=True),
            exif=turned,
            quality=98,
        ),
        _written(tmp_path / "cmyk.jpg", plain.convert("RGB").convert("CMYK"), quality=98),
    ]
    masks = []
    for file in files:
        out = tmp_path / f"{file.name}.mask.png"
        words = ["predict", str(file), "--checkpoint", merged, "--out", str(out)]
        assert run([*words, "--box", "10", "10", "70", "60"]) == 0, file.name
        masks.append(cv2.imread(str(out), cv2.IMREAD_UNCHANGED))
        assert masks[-1].shape == (80, 100), file.name
        assert (masks[-1] != masks[0]).mean() < (0.02 if file.suffix == ".jpg" else 1e-9), file.name
    assert 0 < (masks[0] > 0).mean() < 1


def test_predict_command_refuses_pictures_that_say_nothing(tmp_path, merged, capsys):
    from hqsam_pipelines.cli import run

    box = ["--box", "1", "1", "40", "40"]
    good = _written(tmp_path / "good.png", Image.fromarray(picture(50, 60)))
    dark = np.full((50, 60), 200, np.uint16)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.png").write_text("<html>not found</html>")
    cv2.imwrite(str(tmp_path / "rgb16.png"), np.dstack([dark] * 3))
    huge = Image.new("1", (20_000, 9_000))
    cases = [
        ([_written(tmp_path / "dark.png", Image.fromarray(dark)), *box], "nearly black"),
        ([tmp_path / "rgb16.png", *box], "nearly black"),
        (
            [_written(tmp_path / "float.tif", Image.fromarray(dark.astype(np.float32))), *box],
            "mode F",
        ),
        ([_written(tmp_path / "huge.png", huge), *box], "180000000 pixels"),
        ([tmp_path / "empty.png", *box], "the file is empty"),
        ([tmp_path / "page.png", *box], "HTML"),
        ([tmp_path, *box], "cannot be read"),
        (
            [
                good,
                "--mask",
                _written(tmp_path / "none.png", Image.fromarray(np.zeros((50, 60), np.uint8))),
            ],
            "is empty",
        ),
        (
            [
                good,
                "--mask",
                _written(tmp_path / "small.png", Image.fromarray(np.full((9, 9), 255, np.uint8))),
            ],
            "9 x 9",
        ),
        ([good, "--box", "nan", "1", "9", "9"], "finite"),
        ([good, "--point", "5", "500"], "outside"),
        ([good, "--box", "-9", "-9", "-1", "-1"], "outside"),
    ]
    out = tmp_path / "out" / "m.png"
    for words, message in cases:
        words = ["predict", *map(str, words), "--checkpoint", merged, "--out", str(out)]
        assert run(words) == 1, words
        captured = capsys.readouterr().err
        assert message in captured
        assert "Traceback" not in captured
    assert not out.exists()


def test_predict_command_refuses_bad_input(tmp_path, merged, capsys):
    from hqsam_pipelines.cli import run

    image, weights = tmp_path / "a.png", merged
    image.write_bytes(encode_png(picture(80, 100)))
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:99])
    out = tmp_path / "m.png"
    box = ["--box", "1", "1", "9", "9"]
    cases = [
        ([str(image), "--checkpoint", weights], "neither box"),
        ([str(image), "--checkpoint", weights, "--box", "9", "1", "1", "9"], "reversed"),
        ([str(image), "--checkpoint", weights, "--box", "900", "1", "910", "9"], "outside"),
        # the prompt is looked at before the weights are loaded
        ([str(image), "--checkpoint", "no.pth", "--point", "900", "1"], "100 x 80"),
        ([str(image), "--checkpoint", str(tmp_path / "no.pth"), *box], "no.pth"),
        ([str(image), "--checkpoint", str(image), *box], "not a readable checkpoint"),
        ([str(tmp_path / "no.png"), "--checkpoint", weights, *box], "no.png"),
        ([str(tmp_path / "broken.png"), "--checkpoint", weights, *box], "broken.png"),
        ([str(image), "--checkpoint", weights, "--backbone", "vit_q", *box], "vit_q"),
        ([str(image), "--checkpoint", weights, "--backbone", "vit_b", *box], "does not fit"),
        ([str(image), "--checkpoint", weights, "--mask", str(image)], "mask"),
        *(
            []
            if torch.cuda.is_available()
            else [([str(image), "--checkpoint", weights, *box, "--device", "cuda"], "CUDA")]
        ),
        ([str(image), "--checkpoint", str(bundled_weights("nano")), *box], "no HQ parameters"),
    ]
    for words, message in cases:
        assert run(["predict", *words, "--out", str(out)]) == 1
        captured = capsys.readouterr().err
        assert message in captured
        assert "Traceback" not in captured
    assert not out.exists()
    assert (
        run(
            [
                "predict",
                str(image),
                "--checkpoint",
                weights,
                "--point",
                "3",
                "4",
                "5",
                "--out",
                str(out),
            ]
        )
        == 2
    )
    assert "'5' is left over" in capsys.readouterr().err


def test_a_plain_sam_gives_its_own_mask_only(tmp_path, capsys):
    """Its HQ head would be random numbers: SAM's mask is what there is, and the message says how to get it."""
    from hqsam_pipelines.cli import run

    image, out = tmp_path / "a.png", tmp_path / "m.png"
    image.write_bytes(encode_png(picture(80, 100)))
    words = [
        "predict",
        str(image),
        "--checkpoint",
        str(bundled_weights("nano")),
        "--box",
        "10",
        "10",
        "70",
        "60",
    ]
    assert run([*words, "--out", str(out)]) == 1
    assert "--output sam" in capsys.readouterr().err
    assert not out.exists()
    assert run([*words, "--out", str(out), "--output", "sam"]) == 0


def test_predict_command_overwrites_nothing_and_says_where_it_cannot_write(
    tmp_path, merged, capsys
):
    from hqsam_pipelines.cli import run

    image, mask, locked = tmp_path / "a.png", tmp_path / "mask.png", tmp_path / "file"
    image.write_bytes(encode_png(picture(80, 100)))
    mask.write_bytes(encode_png(np.full((80, 100), 255, np.uint8)))
    locked.write_text("")
    before = {path: path.read_bytes() for path in (image, mask, Path(merged))}
    out = ["--out", str(tmp_path / "m.png")]
    cases = [
        (["--out", str(image)], "the input"),
        ([*out, "--mask", str(mask), "--overlay", str(mask)], "the input"),
        ([*out, "--json", merged], "the input"),
        ([*out, "--overlay", str(tmp_path / "x" / ".." / "m.png")], "--out already"),
        (["--out", str(tmp_path)], "a folder"),
        (["--out", str(tmp_path / "m.jpg")], ".png"),
        (["--out", str(locked / "m.png")], "cannot be written"),
    ]
    for words, message in cases:
        assert (
            run(
                ["predict", str(image), "--checkpoint", merged, "--box", "1", "1", "9", "9", *words]
            )
            == 1
        ), words
        said = capsys.readouterr().err
        assert message in said
        assert "Traceback" not in said
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "m.png").exists()


def test_help_does_not_import_torch():
    done = _command("predict", "--help")
    assert done.returncode == 0, done.stderr
    assert "--overlay" in done.stdout
    code = "import sys, hqsam_pipelines.commands.predict, hqsam; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
