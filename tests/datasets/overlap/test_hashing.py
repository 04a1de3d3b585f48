"""Fingerprints: exact, stable where pictures stay the same, different where they differ, right under turns."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam_datasets.embedded.scenes import EVAL_FAMILIES
from hqsam_datasets.overlap import hashing
from hqsam_datasets.overlap.candidates import (
    descriptor_variants,
    pdq_variants,
    position_variants,
    variant_image,
)
from hqsam_datasets.overlap.hashing import MAGIC, MAX_TILES, RECORD, hash_image, read_tiles
from hqsam_datasets.overlap.tiles import TileTable
from perf.data.overlap_recall import scene

SCENES = [scene((5, i), EVAL_FAMILIES)[0] for i in range(8)]


def bits(pdq: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(pdq, np.uint8))


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return int(
        (
            bits(hash_image(np.ascontiguousarray(a)).pdq)
            != bits(hash_image(np.ascontiguousarray(b)).pdq)
        ).sum()
    )


def table(image: np.ndarray) -> TileTable:
    height, width = (np.array([side]) for side in image.shape[:2])
    return TileTable.of([hash_image(image).tiles], height, width)


def test_the_exact_hash_is_that_of_the_pixels() -> None:
    image = SCENES[0]
    assert hash_image(image).pixel_digest == xxhash.xxh128_hexdigest(image.tobytes())
    assert hash_image(np.asfortranarray(image)) == hash_image(image)
    changed = image.copy()
    changed[3, 4, 1] ^= 1
    assert hash_image(changed).pixel_digest != hash_image(image).pixel_digest


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        hash_image(bad)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["noise", "flat", "edge"]),
)
def test_any_size_and_content_gives_a_bounded_readable_signature(
    height: int, width: int, seed: int, what: str
) -> None:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(256), np.uint8)
    if what == "noise":
        image = rng.integers(0, 256, image.shape, np.uint8)
    elif what == "edge":
        image[:, width // 2 :] = 255 - image[0, 0]
    found = hash_image(image)
    assert len(found.pdq) == 32
    assert 0 <= found.pdq_quality <= 100
    records = read_tiles(found.tiles)
    assert len(records) <= MAX_TILES
    assert len(found.tiles) == 2 + len(records) * RECORD.itemsize < 4096
    assert hash_image(image) == found
    if what == "flat":
        assert found.tiles == MAGIC


def test_pdq_is_that_of_the_library() -> None:
    import pdqhash

    rng = np.random.default_rng(0)
    for picture in SCENES:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        for _ in range(4):
            small = cv2.resize(
                grey, tuple(rng.integers(70, 700, 2).tolist()), interpolation=cv2.INTER_LINEAR
            )
            area = cv2.resize(small, (64, 64), interpolation=cv2.INTER_AREA)
            expected, quality = pdqhash.compute(cv2.merge((area, area, area)))
            found, found_quality = hashing.pdq_of(small)
            assert bits(found).tolist() == list(expected) and found_quality == quality


def test_the_perceptual_hash_survives_what_leaves_the_picture_alone() -> None:
    for image in SCENES:
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
        half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        darker = (image * 0.7).astype(np.uint8)
        for copy in (cv2.imdecode(encoded, cv2.IMREAD_COLOR), half, grey, darker):
            assert distance(image, copy) <= 16


def test_the_perceptual_hash_tells_pictures_apart() -> None:
    for i, image in enumerate(SCENES):
        for other in SCENES[:i]:
            assert distance(image, other) > 60


@pytest.mark.parametrize("variant", range(8))
def test_variants_are_derived_without_looking_at_the_turned_picture(variant: int) -> None:
    for image in SCENES:
        # Sides that the halvings divide: an odd row is left out on one side, which moves everything
        # by half a pixel.
        image = np.ascontiguousarray(image[: image.shape[0] // 8 * 8, : image.shape[1] // 8 * 8])
        turned = variant_image(image, variant)
        derived = pdq_variants(np.frombuffer(hash_image(image).pdq, np.uint8)[None])[variant, 0]
        assert (np.unpackbits(derived) != bits(hash_image(turned).pdq)).sum() <= (
            0 if variant == 0 else 24
        )
        straight, real = table(image), table(turned)
        x, y = position_variants(straight.x, straight.y, *straight.frame[0], variant)
        expected = descriptor_variants(straight.bits)[variant]
        apart = np.hypot(x[:, None] - real.x, y[:, None] - real.y) + 100.0 * (
            straight.level[:, None] != real.level
        )
        nearest = apart.argmin(1)
        close = apart.min(1) < 4
        assert close.mean() > 0.85
        differing = np.unpackbits(expected[close] ^ real.bits[nearest[close]], axis=1).sum(1)
        assert np.median(differing) <= 3


@given(st.binary(min_size=32, max_size=32))
def test_flips_undo_themselves_and_quarter_turns_undo_each_other(raw: bytes) -> None:
    pdq = np.frombuffer(raw, np.uint8)[None]
    variants = pdq_variants(pdq)
    for variant in (1, 2, 3, 4, 7):
        assert np.array_equal(pdq_variants(variants[variant])[variant], pdq)
    assert np.array_equal(pdq_variants(variants[5])[6], pdq)
    assert np.array_equal(pdq_variants(variants[6])[5], pdq)


def test_variant_names_mean_what_they_say() -> None:
    image = SCENES[0]
    assert np.array_equal(variant_image(image, 1), image[:, ::-1])
    assert np.array_equal(variant_image(image, 2), image[::-1])
    assert np.array_equal(variant_image(image, 5), np.rot90(image, -1))
    assert np.array_equal(variant_image(image, 6), np.rot90(image, 1))


def test_descriptor_sums_are_exact_in_single_precision() -> None:
    basis = hashing._basis()
    assert np.array_equal(basis, np.rint(basis))
    assert 127 * np.abs(basis).sum(0).max() < 2**24
    assert np.abs(basis.sum(0)).max() < 0.02 * np.abs(basis).sum(0).min()


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 15), st.integers(1, 4)), max_size=400),
    st.integers(0, 2**32 - 1),
)
def test_features_are_chosen_by_strength_rank_and_quota(
    peaks: list[tuple[int, int, int]], seed: int
) -> None:
    """Against the rule spelled out one feature at a time, with many ties."""
    atlas = hashing._atlas(192, 192)
    rng = np.random.default_rng(seed)
    response = np.zeros(atlas.inside.shape, np.float32)
    for level, cell, strength in peaks:
        places = np.flatnonzero((atlas.cell == level * 16 + cell) & atlas.inside.ravel())
        response.ravel()[rng.choice(places)] = strength
    expected = []
    maxima = (
        (response >= np.maximum(cv2.dilate(response, hashing._PEAK), 1)) & atlas.inside
    ).ravel()
    for level, quota in enumerate(hashing.LEVEL_QUOTA):
        ranked = []
        for cell in range(16):
            inside = (atlas.cell == level * 16 + cell) & maxima
            strongest = sorted(
                (-float(response.ravel()[i]), int(i)) for i in np.flatnonzero(inside)
            )
            ranked += [(value / rank, i) for rank, (value, i) in enumerate(strongest, start=1)]
        expected += [i for _, i in sorted(ranked, key=lambda item: item[0])[:quota]]
    found, levels = hashing._strongest(response, atlas)
    assert found.tolist() == expected
    assert levels.tolist() == (atlas.cell[expected] // 16).tolist()


@pytest.mark.parametrize("shape", [(1, 300), (5, 335), (2, 900), (400, 3)])
def test_a_sliver_has_no_features_near_its_frame(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert len(read_tiles(hash_image(image).tiles)) == 0


@pytest.mark.parametrize("tiles", [b"", b"T", b"T0", b"T1x", b"T1" + bytes(20)])
def test_damaged_signatures_are_refused(tiles: bytes) -> None:
    with pytest.raises(ValueError, match="tile signature"):
        read_tiles(tiles)
