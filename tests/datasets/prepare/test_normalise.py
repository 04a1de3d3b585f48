"""Sources and normalisation: layouts, pairing, rules, rejects, and the embedded sample with its planted quirks."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from PIL import Image

from hqsam_base.errors import UserError
from hqsam_datasets import sources
from hqsam_datasets.formats import manifest, tar
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.prepare import normalise
from hqsam_datasets.sample import parse_sample
from tests.datasets.embedded_tree import params, tree
from tests.datasets.trees import contents, ecssd, encoded, jpeg, photo, put, run, shape

EXPECTED = {"dis5k": 60, "thinobject5k": 70, "fss1000": 60, "ecssd": 40, "msra10k": 60, "duts": 70}


def samples(out: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(out.glob("samples-*.tar")):
        found.update({key: parse_sample(key, files) for key, files in tar.iterate_samples(path)})
    return found


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("samples")
    for name, options in params()["sources"].items():
        run(name, tree(options["archive"]), home / name, **options)
    return home


def test_every_source_has_a_data_sheet_and_a_scan() -> None:
    assert set(sources.names()) >= set(EXPECTED)
    for name in EXPECTED:
        sheet = sources.load(name).sheet
        assert sheet.licence and sheet.url.startswith("http") and sheet.citation and sheet.layout
    assert sum(sources.load(name).sheet.n_pairs for name in EXPECTED) == 44_320
    with pytest.raises(UserError, match="dut_omron, duts, ecssd"):
        sources.load("nope")


def in_other_case(root: Path) -> Path:
    for folder in sorted((p for p in root.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
        folder.rename(folder.with_name(folder.name.swapcase()))
    return root


@pytest.mark.parametrize("name", EXPECTED)
def test_the_case_of_folders_does_not_matter(normalised: Path, name: str, tmp_path: Path) -> None:
    options = params()["sources"][name]
    root = in_other_case(Path(shutil.copytree(tree(options["archive"]), tmp_path / "in")))
    run(name, root, tmp_path / "out", **options)
    one, two = (
        manifest.read_rows(out / "manifest.parquet")
        for out in (normalised / name, tmp_path / "out")
    )
    assert [(r["key"], r["image_digest"]) for r in one] == [
        (r["key"], r["image_digest"]) for r in two
    ]


@pytest.mark.parametrize(
    "folders", [("images", "ground_truth_mask"), ("ecssd/Images", "ECSSD/Ground_Truth_Mask")]
)
def test_original_archives_in_another_case(folders: tuple[str, str], tmp_path: Path) -> None:
    files = {f"{folders[0]}/1.jpg": jpeg(1), f"{folders[1]}/1.png": encoded(shape())}
    assert run("ecssd", put(tmp_path / "in", files), tmp_path / "out")["n_samples"] == 1


def test_original_duts_in_another_case(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for part in ("TR", "TE"):
        files |= {
            f"DUTS-{part}/duts-{part}-image/{part}.jpg": jpeg(1),
            f"DUTS-{part}/duts-{part}-mask/{part}.png": encoded(shape()),
        }
    assert run("duts", put(tmp_path / "in", files), tmp_path / "out")["n_samples"] == 2


def test_folders_that_differ_only_in_case_are_named(tmp_path: Path) -> None:
    files = {"Photos/1.jpg": jpeg(1), "PHOTOS/2.jpg": jpeg(1), "masks/1.png": encoded(shape())}
    with pytest.raises(
        UserError,
        match="PHOTOS and Photos differ only in case or spelling, and neither is called photos",
    ):
        run("own", put(tmp_path / "in", files), tmp_path / "out", kind="folder", images="photos")


@pytest.mark.parametrize("name", EXPECTED)
def test_the_embedded_sources_come_out_as_expected(normalised: Path, name: str) -> None:
    record = json.loads((normalised / name / "normalise.json").read_bytes())
    rows = manifest.read_rows(normalised / name / "manifest.parquet")
    assert record["n_samples"] == len(rows) == EXPECTED[name]
    found = samples(normalised / name)
    assert sorted(found) == [row["key"] for row in rows]
    for row in rows:
        sample = found[row["key"]]
        assert (sample.height, sample.width, len(sample.instances)) == (
            row["height"],
            row["width"],
            1,
        )
        assert xxhash.xxh128_hexdigest(sample.image.tobytes()) == row["pixel_digest"]
        fraction = np.count_nonzero(sample.instances[0].foreground) / sample.instances[0].mask.size
        assert fraction == row["fg_fraction"] > 0
        assert len(row["pdq"]) == 32 and row["key"].startswith(f"{name}_")
        original = (tree(params()["sources"][name]["archive"]) / row["origin_image"]).read_bytes()
        kept = xxhash.xxh128_hexdigest(original) == row["image_digest"]
        assert kept == (row["image_mode"] == "RGB" and row["exif_orientation"] == 1)


def test_the_planted_quirks_are_seen(normalised: Path) -> None:
    def column(name: str, key: str) -> list[Any]:
        return [row[key] for row in manifest.read_rows(normalised / name / "manifest.parquet")]

    assert sorted(set(column("dis5k", "exif_orientation"))) == [1, 3, 6, 8]
    assert (
        set(column("dis5k", "mask_encoding")) == {"soft"}
        and max(column("dis5k", "soft_fraction")) > 0
    )
    assert "CMYK" in column("ecssd", "image_mode") and 6 in column("ecssd", "exif_orientation")
    assert column("msra10k", "mask_encoding").count("0/1") == 1
    assert column("duts", "image_mode").count("L") == 3
    assert set(column("fss1000", "mask_encoding")) == {"rgb"}
    rejects = [
        json.loads(line)
        for line in (normalised / "fss1000" / "rejects.jsonl").read_text().splitlines()
    ]
    reasons = {Path(r["origin"]).name: r["reason"] for r in rejects}
    assert len(reasons) == 14
    assert (
        reasons["peregine_falcon_8.jpg"] == "known_bad"
        and reasons["pteropus_9.jpeg"] == "stray_file"
    )
    assert "97915" in (normalised / "msra10k" / "rejects.jsonl").read_text()


def test_known_bad_files_can_be_judged_like_any_other(tmp_path: Path) -> None:
    root = tree("cascade_psp")
    result = run("fss1000", root, tmp_path / "out", drop_known_bad=False)
    assert result["n_samples"] == 60 + 6
    assert result["rejects_by_reason"] == {"empty_mask": 1, "not_a_mask": 1, "stray_file": 6}
    odd = samples(tmp_path / "out")["fss1000_ruler_10"]
    assert odd.instances[0].mask.shape == odd.image.shape[:2]
    assert run("msra10k", root, tmp_path / "msra", drop_known_bad=False)["n_samples"] == 61


def test_original_layouts_give_the_same_samples_as_the_repack(tmp_path: Path) -> None:
    """The authors' archives have other folders than HQ-SAM's repack; names and pixels must agree."""
    repack, original = tmp_path / "repack", tmp_path / "original"
    pairs = [(jpeg(i), encoded(shape())) for i in range(4)]
    layouts: dict[str, list[tuple[str, str]]] = {
        "ecssd": [
            ("cascade_psp/ecssd/{}", "cascade_psp/ecssd/{}"),
            ("images/{}", "ground_truth_mask/{}"),
        ],
        "msra10k": [
            ("MSRA_10K/{}", "MSRA_10K/{}"),
            ("MSRA10K_Imgs_GT/Imgs/{}", "MSRA10K_Imgs_GT/Imgs/{}"),
        ],
        "dis5k": [
            ("DIS5K/DIS-TR/im/{}", "DIS5K/DIS-TR/gt/{}"),
            ("x/DIS5K/DIS-TR/im/{}", "x/DIS5K/DIS-TR/gt/{}"),
        ],
    }
    for name, (new, old) in layouts.items():
        for folder, (images, masks) in ((repack / name, new), (original / name, old)):
            for i, (image, mask) in enumerate(pairs):
                put(folder, {images.format(f"a#{i}.jpg"): image, masks.format(f"a#{i}.png"): mask})
        runs = [
            run(name, base / name, tmp_path / f"{base.name}-{name}") for base in (repack, original)
        ]
        assert runs[0]["n_samples"] == runs[1]["n_samples"] == 4
        found = [samples(tmp_path / f"{base.name}-{name}") for base in (repack, original)]
        assert list(found[0]) == list(found[1]) == [f"{name}_a-{i}" for i in range(4)]


def test_duts_joins_both_splits_in_either_layout(tmp_path: Path) -> None:
    for layout in ("{0}/{1}", "{0}/{0}-{2}/{1}"):
        root = tmp_path / str(len(layout))
        for split, stem in (("DUTS-TR", "n01"), ("DUTS-TR", "n02"), ("DUTS-TE", "sun_a")):
            put(
                root,
                {
                    layout.format(split, f"{stem}.jpg", "Image"): jpeg(1),
                    layout.format(split, f"{stem}.png", "Mask"): encoded(shape()),
                },
            )
        assert run("duts", root, tmp_path / f"out{len(layout)}")["n_samples"] == 3


def test_fss_original_with_class_folders_and_thinobject_with_lists(tmp_path: Path) -> None:
    root = tmp_path / "fss"
    for stem in ("ab_wheel/1", "ab_wheel/2", "bamboo_slip/7", "abe's_flyingfish/1"):
        put(
            root,
            {
                f"fewshot_data/fewshot_data/{stem}.jpg": jpeg(1),
                f"fewshot_data/fewshot_data/{stem}.png": encoded(
                    np.repeat(shape()[..., None], 3, 2)
                ),
            },
        )
    put(root, {"fewshot_data/fewshot_data/har_gow/4.jpeg": jpeg(3)})
    result = run("fss1000", root, tmp_path / "out-fss")
    assert list(samples(tmp_path / "out-fss")) == [
        "fss1000_ab_wheel-1",
        "fss1000_ab_wheel-2",
        "fss1000_abe-s_flyingfish-1",
    ]
    assert result["rejects_by_reason"] == {"known_bad": 1, "stray_file": 1}
    thin = tmp_path / "thin"
    for stem in ("tennis_1", "tennis_2", "tennis_3"):
        put(
            thin,
            {
                f"ThinObject5K/images/{stem}.jpg": jpeg(2),
                f"ThinObject5K/masks/{stem}.png": encoded(shape()),
            },
        )
    put(thin, {"ThinObject5K/list/train.txt": b"tennis_1.png\ntennis_3.png\n"})
    run("thinobject5k", thin, tmp_path / "out-thin")
    assert list(samples(tmp_path / "out-thin")) == [
        "thinobject5k_tennis_1",
        "thinobject5k_tennis_3",
    ]


def test_files_without_partner_stop_the_run(tmp_path: Path) -> None:
    root = ecssd(tmp_path / "in")
    (root / "cascade_psp/ecssd/0003.png").unlink()
    with pytest.raises(UserError) as caught:
        run("ecssd", root, tmp_path / "out")
    text = str(caught.value)
    folder = root / "cascade_psp" / "ecssd"
    assert (
        f"{folder / '0003.jpg'} has no {folder / '0003.png'}" in text
        and "sources.ecssd.skip" in text
    )
    assert not (tmp_path / "out").exists() and list(tmp_path.iterdir()) == [tmp_path / "in"]
    (root / "cascade_psp/ecssd/0005.jpg").unlink()
    put(root, {"cascade_psp/ecssd/notes.txt": b""})
    with pytest.raises(UserError, match="3 files of ecssd have no partner") as caught:
        run("ecssd", root, tmp_path / "out")
    assert f"{folder / '0005.png'} has no {folder / '0005.jpg'}" in str(caught.value)
    assert run("ecssd", root, tmp_path / "out", skip=["0003", "0005", "notes"])["n_samples"] == 4


def test_a_wrong_layout_says_what_is_there(tmp_path: Path) -> None:
    put(tmp_path / "in", {"stuff/x.jpg": jpeg(1)})
    with pytest.raises(
        UserError, match=r"the archive holds stuff; dis5k needs DIS-TR/im \+ DIS-TR/gt"
    ):
        run("dis5k", tmp_path / "in", tmp_path / "out")


def test_bad_pixels_are_rejected_with_reasons_and_the_count_stops_the_run(tmp_path: Path) -> None:
    root = ecssd(tmp_path / "in", n=12)
    small, other = shape(20, 20), encoded(photo(5))
    bad = {
        "0001.jpg": jpeg(1)[:300],
        "0002.jpg": b"<html>",
        "0003.png": encoded(shape())[:50],
        "0004.png": other,
        "0005.png": encoded(small),
        "0006.png": encoded(np.zeros((40, 52), np.uint8)),
        "0007.png": encoded(shape() // 255 * 3),
        "0008.jpg": b"",
    }
    put(root, {f"cascade_psp/ecssd/{name}": data for name, data in bad.items()})
    with pytest.raises(UserError, match="ecssd gives 4 samples, expected 12") as caught:
        run("ecssd", root, tmp_path / "out", expected=12)
    text = str(caught.value)
    assert (
        "empty_mask: 1" in text
        and "cascade_psp/ecssd/0005.png: size_mismatch (image 52x40, mask 20x20)" in text
    )
    assert not (tmp_path / "out").exists()
    result = run("ecssd", root, tmp_path / "out", expected=4)
    assert result["rejects_by_reason"] == {
        "ambiguous_mask": 1,
        "empty_mask": 1,
        "not_a_mask": 1,
        "size_mismatch": 1,
        "unreadable_image": 3,
        "unreadable_mask": 1,
    }
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    ]
    assert [line["origin"] for line in lines] == [
        f"cascade_psp/ecssd/{name}" for name in sorted(bad)
    ]


def test_nothing_left_is_an_error_too(tmp_path: Path) -> None:
    root = ecssd(tmp_path / "in", n=1)
    put(root, {"cascade_psp/ecssd/0001.png": encoded(np.zeros((40, 52), np.uint8))})
    with pytest.raises(UserError, match="expected at least 1"):
        run("ecssd", root, tmp_path / "out")


def test_image_rules(tmp_path: Path) -> None:
    base = photo(3)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(base, "JPEG", quality=95, exif=exif.tobytes())
    grey = encoded(base[..., 0], "JPEG")
    cases = {
        "upright": (turned, encoded(np.rot90(shape(), -1))),  # the mask is upright already
        "stored": (turned, encoded(shape())),  # the mask lies as the pixels are stored
        "grey": (grey, encoded(shape())),
        "plain": (jpeg(3), encoded(shape() // 255)),
    }
    for name, (image, mask) in cases.items():
        put(tmp_path / "in", {f"ecssd/{name}.jpg": image, f"ecssd/{name}.png": mask})
    run("ecssd", tmp_path / "in", tmp_path / "out")
    found = samples(tmp_path / "out")
    upright, stored = found["ecssd_upright"], found["ecssd_stored"]
    assert upright.image.shape == (52, 40, 3) and np.array_equal(upright.image, stored.image)
    assert np.array_equal(upright.instances[0].mask, stored.instances[0].mask)
    assert np.array_equal(upright.image, decode_image(turned))
    assert np.array_equal(found["ecssd_grey"].image, decode_image(grey))
    with tar.TarReader(tmp_path / "out" / "samples-00000.tar") as reader:
        assert reader.read("ecssd_plain.jpg") == jpeg(3), "JPEG bytes are kept"
        assert Image.open(io.BytesIO(reader.read("ecssd_grey.png"))).mode == "RGB"
        assert set(
            np.unique(np.asarray(Image.open(io.BytesIO(reader.read("ecssd_plain.mask.png")))))
        ) == {0, 255}


def test_keys_that_fall_together_are_told_apart(tmp_path: Path) -> None:
    for stem in ("a b", "a#b", "A-b", "c"):
        put(tmp_path / "in", {f"ecssd/{stem}.jpg": jpeg(1), f"ecssd/{stem}.png": encoded(shape())})
    run("ecssd", tmp_path / "in", tmp_path / "out")
    keys = list(samples(tmp_path / "out"))
    assert (
        len(set(keys)) == 4
        and "ecssd_c" in keys
        and sum(key.startswith("ecssd_a-b-") for key in keys) == 3
    )


@pytest.mark.parametrize("workers", [2, 9])
@pytest.mark.parametrize(
    ("bad", "archives"), [((3, 10), 4), ((3, 13, 14), 3), ((1, 2, 3, 4, 9, 10, 11, 14), 3)]
)
def test_the_number_of_workers_changes_no_byte(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    bad: tuple[int, ...],
    archives: int,
) -> None:
    """Rejects in shards made whole, in shards made in parts, whole parts and whole shards of them."""
    monkeypatch.setattr(normalise, "MIN_SHARD", 4)
    root = ecssd(tmp_path / "in", n=14)
    put(
        root, {f"cascade_psp/ecssd/{n:04d}.png": encoded(np.zeros((40, 52), np.uint8)) for n in bad}
    )
    run("ecssd", root, tmp_path / "one", workers=1)
    run("ecssd", root, tmp_path / "several", workers=workers)
    one, several = contents(tmp_path / "one"), contents(tmp_path / "several")
    assert one == several and sum(name.endswith(".tar") for name in one) == archives
    rows = manifest.read_rows(tmp_path / "several" / "manifest.parquet", ["key", "shard"])
    assert {row["shard"] for row in rows} == {name for name in several if name.endswith(".tar")}


def test_the_same_key_twice_names_both_files(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"images/a#.jpg").hexdigest()[
        :8
    ]  # what tells a# and a& apart, as somebody's file name
    names = ("a#", "a&", f"a-{digest}")
    files = {f"images/{name}.jpg": jpeg(1) for name in names} | {
        f"masks/{n}.png": encoded(shape()) for n in names
    }
    with pytest.raises(
        UserError, match=rf"images/a-{digest}\.jpg give the same key own_a-{digest}"
    ):
        run("own", put(tmp_path / "in", files), tmp_path / "out", kind="folder")
