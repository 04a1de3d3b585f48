"""Decoding by written rules: every mode, every orientation, every mask encoding, and damage."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hqsam_datasets.formats.images import (
    ImageError,
    decode_image,
    decode_labels,
    decode_mask,
    encode_png,
    probe,
    upright,
)
from hqsam_datasets.sample import Instance, Sample, make_key, parse_sample, sample_json
from tests.datasets.trees import fault_count
from tests.metrics.synthetic import label_png

FUZZ = fault_count(150, 1000)
RNG = np.random.default_rng(0)
PHOTO = cv2.resize(
    RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8), (50, 40), interpolation=cv2.INTER_CUBIC
)
SHAPE = np.zeros((40, 50), np.uint8)
SHAPE[10:20, 10:30] = 1


def encode(
    content: np.ndarray | Image.Image, fmt: str = "PNG", mode: str | None = None, **options: Any
) -> bytes:
    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, fmt, **options)
    return buffer.getvalue()


LONG_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    b' xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize(
    "block", [{"exif": LONG_EXIF}, {"xmp": XMP}], ids=lambda block: next(iter(block))
)
def test_orientations_that_other_readers_pass_over(block: dict[str, bytes]) -> None:
    """EXIF may hold the orientation as a number of 32 bits, and some cameras write it as XMP alone."""
    data = encode(PHOTO, "JPEG", **block)
    assert probe(data).orientation == 6 and decode_image(data).shape == (50, 40, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(PHOTO, "JPEG", exif=exif.tobytes())
    reference = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode_image(data), reference)
    found = probe(data)
    assert found.orientation == orientation and found.upright_size == reference.shape[:2]
    assert np.array_equal(
        decode_image(data, apply_exif=False), np.asarray(Image.open(io.BytesIO(data)))
    )
    assert np.array_equal(upright(np.asarray(Image.open(io.BytesIO(data))), orientation), reference)


@pytest.mark.parametrize(
    ("data", "mode", "tolerance"),
    [
        (encode(PHOTO), "RGB", 0),
        (encode(PHOTO, "BMP"), "RGB", 0),
        (encode(PHOTO, "TIFF"), "RGB", 0),
        (encode(PHOTO, "WEBP", lossless=True), "RGB", 0),
        (encode(PHOTO, "JPEG", quality=98), "RGB", 25),
        (encode(PHOTO, "JPEG", quality=98, progressive=True), "RGB", 25),
        (encode(PHOTO, "JPEG", mode="CMYK", quality=98), "CMYK", 20),
        (encode(PHOTO, mode="RGBA"), "RGBA", 0),
        (encode(PHOTO, mode="P"), "P", 60),
    ],
)
def test_colour_modes(data: bytes, mode: str, tolerance: int) -> None:
    found = decode_image(data)
    assert probe(data).mode == mode and found.shape == PHOTO.shape and found.dtype == np.uint8
    assert found.flags.c_contiguous and abs(found.astype(int) - PHOTO).max() <= tolerance


def test_grey_modes_are_replicated() -> None:
    grey = PHOTO[..., 0]
    for data, mode in (
        (encode(grey), "L"),
        (encode(grey.astype(np.uint16) * 257), "I;16"),
        (encode(np.dstack([grey, grey]).reshape(40, 50, 2)), "LA"),
    ):
        assert probe(data).mode == mode
        assert np.array_equal(decode_image(data), np.repeat(grey[..., None], 3, axis=2))
    assert set(np.unique(decode_image(encode(grey, mode="1")))) == {0, 255}


def test_alpha_is_dropped_not_composited() -> None:
    assert np.array_equal(decode_image(encode(np.dstack([PHOTO, SHAPE]))), PHOTO)


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def turned(where: str, what: str) -> bytes:
    """A PNG of PHOTO with an orientation of 6 in one of the ways that a PNG can hold it, before or behind its pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes().removeprefix(b"Exif\0\0")
    hexed = f"\nexif\n{len(raw) + 6:8d}\n{(b'Exif' + bytes(2) + raw).hex()}\n".encode()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = {
        "exif": chunk(b"eXIf", raw),
        "xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "raw text": chunk(b"tEXt", b"Raw profile type exif\0" + hexed),
        "raw compressed": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexed)),
    }[what]
    data = encode(PHOTO)
    at = data.index(b"IDAT") - 4 if where == "before" else len(data) - 12
    return data[:at] + content + data[at:]


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("what", ["exif", "xmp", "raw text", "raw compressed"])
def test_a_png_is_turned_wherever_it_says_so(where: str, what: str) -> None:
    data = turned(where, what)
    reference = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert reference.shape[:2] == PHOTO.shape[1::-1]
    assert probe(data).orientation == 6 and np.array_equal(decode_image(data), reference)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(orientation: int) -> None:
    """Pillow turns it while it reads the pixels, and gives the size of afterwards before that."""
    for content in (PHOTO, PHOTO[..., 0]):
        data = encode(content, "TIFF", tiffinfo={274: orientation})
        reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        found = probe(data)
        assert (found.orientation, found.upright_size) == (orientation, reference.shape[:2])
        assert np.array_equal(decode_image(data), reference)
        stored = decode_image(data, apply_exif=False)
        assert np.array_equal(stored, np.asarray(Image.fromarray(content).convert("RGB")))


def test_unsupported_modes_are_named_with_a_cure_that_fits() -> None:
    grey = SHAPE.astype(np.float32)
    for data, problem, cure in (
        (
            encode(Image.fromarray(grey), "TIFF"),
            "mode F, floating-point samples",
            "scale its values to 0..255",
        ),
        (
            encode(Image.fromarray(grey.astype(np.int32)), "TIFF"),
            "mode I, 32-bit samples",
            "scale its values",
        ),
        (
            cv2.imencode(".tif", np.dstack([grey] * 3))[1].tobytes(),
            "a TIFF of bands",
            "convert it to 8-bit RGB",
        ),
    ):
        with pytest.raises(ImageError, match=problem) as caught:
            decode_image(data)
        assert cure in str(caught.value.cure) and cure in str(caught.value)
        assert pickle.loads(pickle.dumps(caught.value)).told == caught.value.told


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_are_converted(mode: str) -> None:
    data = encode(PHOTO, "TIFF", mode=mode)
    assert probe(data).mode == mode
    assert abs(decode_image(data).astype(int) - PHOTO).mean() < 4


def deep(extension: str, samples: np.ndarray) -> bytes:
    done, data = cv2.imencode(extension, samples)
    assert done
    return data.tobytes()


def pnm(samples: np.ndarray, largest: int) -> bytes:
    kind = "P6" if samples.ndim == 3 else "P5"
    return (
        f"{kind} {samples.shape[1]} {samples.shape[0]} {largest}\n".encode()
        + samples.astype(">u2").tobytes()
    )


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("extension", [".png", ".tif", ".jp2", ".pnm"])
def test_deep_samples_keep_their_high_byte_and_dark_ones_are_refused(
    extension: str, colours: int
) -> None:
    """12-bit values in a 16-bit file would be a nearly black picture; in one of 12 bits they are what they are."""
    whole = PHOTO.astype(np.uint16) * 257
    whole = whole if colours == 3 else whole[..., 0]
    make = (lambda s: pnm(s, 65535)) if extension == ".pnm" else (lambda s: deep(extension, s))
    assert probe(make(whole)).depth == 16 and PHOTO.max() == 255
    wanted = np.repeat(PHOTO[..., :1], 3, axis=2) if colours == 1 else PHOTO
    wanted = (
        wanted.astype(int) if extension == ".pnm" else wanted[..., ::-1].astype(int)
    )  # OpenCV writes BGR
    assert abs(decode_image(make(whole)) - wanted).max() <= (
        2 if extension == ".jp2" else 1
    )  # OpenCV's JPEG 2000 is lossy
    with pytest.raises(
        ImageError, match="16-bit samples below 4096 only: its high bytes are nearly black"
    ) as caught:
        decode_image(make(whole // 17))
    assert "scale its values to 0..65535" in str(caught.value.cure)
    if extension == ".pnm":
        assert abs(decode_image(pnm(whole >> 4, 4095)) - wanted).max() <= 1


def voc_palette() -> Image.Image:
    image = Image.fromarray(SHAPE, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    return image


SOFT = cv2.GaussianBlur(SHAPE * 255, (5, 5), 2)
ENCODINGS = {
    "0/255": encode(SHAPE * 255),
    "0/1": encode(SHAPE),
    "bilevel": encode(SHAPE * 255, mode="1"),
    "16 bit": encode(SHAPE.astype(np.uint16) * 65535),
    "8 bit values in 16 bit": encode(SHAPE.astype(np.uint16) * 255),
    "grey palette": encode(SHAPE * 255, mode="P"),
    "VOC palette": encode(voc_palette()),
    "three channels": encode(np.repeat(SHAPE[..., None] * 255, 3, 2)),
    "three channels 0/1": encode(np.repeat(SHAPE[..., None], 3, 2)),
    "one colour": encode(np.stack([SHAPE * 128, SHAPE * 0, SHAPE * 0], -1)),
    "opaque RGBA": encode(np.dstack([SHAPE * 255] * 3 + [SHAPE * 0 + 255])),
    "cut-out": encode(np.dstack([PHOTO, SHAPE * 255])),
    "alpha alone": encode(np.dstack([SHAPE * 0] * 3 + [SHAPE * 255])),
    "LA": encode(np.dstack([SHAPE * 255, SHAPE * 0 + 255])),
    "JPEG": encode(SHAPE * 255, "JPEG", quality=95),
}
NAMES = {
    "bilevel": "0/255",
    "16 bit": "0/255",
    "8 bit values in 16 bit": "0/255",
    "grey palette": "palette",
    "VOC palette": "palette",
    "three channels": "rgb",
    "three channels 0/1": "rgb",
    "one colour": "rgb",
    "opaque RGBA": "rgb",
    "cut-out": "alpha",
    "alpha alone": "alpha",
    "LA": "rgb",
    "JPEG": "soft",
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_mask_encodings_are_named_and_agree(name: str) -> None:
    found = decode_mask(ENCODINGS[name])
    assert found.encoding == NAMES.get(name, name)
    assert np.array_equal(found.foreground, SHAPE.astype(bool))
    assert found.mask.dtype == np.uint8 and (
        name == "JPEG" or set(np.unique(found.mask)) == {0, 255}
    )


def test_soft_masks_keep_their_values() -> None:
    found = decode_mask(encode(SOFT))
    assert found.encoding == "soft" and np.array_equal(found.mask, SOFT)
    assert found.soft_fraction == np.mean((SOFT > 0) & (SOFT < 255))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(PHOTO), "not_a_mask"),
        (encode(PHOTO[..., 0]), "not_a_mask"),
        (encode(PHOTO, mode="P"), "not_a_mask"),
        (encode(SHAPE * 3), "ambiguous_mask"),
        (encode(SHAPE + (SHAPE.T.sum() > 0)), "ambiguous_mask"),
        (b"", "unreadable_mask"),
        (b"<html>404</html>", "unreadable_mask"),
        (ENCODINGS["0/255"][:60], "unreadable_mask"),
    ],
)
def test_what_is_no_mask_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_mask(data)
    assert caught.value.reason == reason and caught.value.detail


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_labels_of_any_depth(depth: int) -> None:
    """Pillow stretches grey values of 2 and 4 bits to 0..255, and 255 is void: the highest label was lost."""
    labels = np.arange(20).reshape(4, 5) % min(1 << depth, 255)
    assert np.array_equal(decode_labels(label_png(labels, depth, palette=False)), labels)


def test_labels_are_indices() -> None:
    assert np.array_equal(decode_labels(encode(voc_palette())), SHAPE)
    assert np.array_equal(decode_labels(encode(SHAPE * 7)), SHAPE * 7)
    with pytest.raises(ImageError, match="no label indices"):
        decode_labels(encode(PHOTO))


def test_png_round_trip() -> None:
    assert np.array_equal(decode_image(encode_png(PHOTO)), PHOTO)
    assert np.array_equal(decode_mask(encode_png(SOFT)).mask, SOFT)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_fuzzed_files_decode_or_are_rejected(fmt: str) -> None:
    good = encode(PHOTO, fmt)
    dice = random.Random(fmt)
    rejected = 0
    for _ in range(FUZZ):
        data = bytearray(good)
        for _ in range(dice.choice((1, 2, 8))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        for decode in (decode_image, lambda d: decode_mask(d).mask):
            try:
                assert decode(bytes(data)).dtype == np.uint8
            except ImageError as error:
                rejected += 1
                assert error.detail
    assert rejected


@pytest.mark.parametrize("fmt", ["PNG", "JPEG"])
def test_truncation_is_never_taken_for_an_image(fmt: str) -> None:
    good = encode(PHOTO, fmt)
    for cut in range(0, len(good) - 2, 37):
        with pytest.raises(ImageError):
            decode_image(good[:cut])


def test_a_picture_too_large_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    data += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + encode(SHAPE)[33:]
    for decode in (decode_image, decode_mask):
        with pytest.raises(ImageError, match="too_large"):
            decode(data)


@given(st.text(max_size=60))
def test_keys_are_safe(name: str) -> None:
    key = make_key("src", name)
    assert key.startswith("src_") and "." not in key and key == key.lower()
    Sample(key, "src", PHOTO, (Instance(0, SHAPE),))


def test_samples_are_validated() -> None:
    good = Instance(0, SHAPE * 255)
    for key, image, instances, says in (
        ("A.b", PHOTO, (good,), "may hold only"),
        ("a", PHOTO[..., 0], (good,), "image must be"),
        ("a", PHOTO.astype(float), (good,), "image must be"),
        ("a", PHOTO, (), "at least one"),
        ("a", PHOTO, (Instance(1, SHAPE),), "ids must be"),
        ("a", PHOTO, (Instance(0, SHAPE[:-1]),), "mask"),
    ):
        with pytest.raises(ValueError, match=says):
            Sample(key, "s", image, instances)
    with pytest.raises(ValueError, match="mask must be"):
        Instance(0, SHAPE.astype(bool))


def test_samples_are_rebuilt_from_their_members() -> None:
    members = {
        "png": encode(PHOTO),
        "mask.png": encode(SHAPE * 255),
        "mask1.png": encode(SOFT),
        "json": sample_json(
            key="s_a",
            source="s",
            height=40,
            width=50,
            categories=(None, "dog"),
            origin_image="i",
            origin_mask="m",
        ),
    }
    sample = parse_sample("s_a", members)
    assert [i.category for i in sample.instances] == [None, "dog"] and (
        sample.height,
        sample.width,
    ) == (40, 50)
    assert (
        np.array_equal(sample.instances[1].mask, SOFT)
        and sample.instances[0].foreground.sum() == 200
    )
    for broken in ({**members, "png": b""}, {k: v for k, v in members.items() if k != "mask1.png"}):
        with pytest.raises(Exception, match="key: s_a"):
            parse_sample("s_a", broken)
