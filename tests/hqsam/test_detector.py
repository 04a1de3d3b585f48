"""Detectors of the ``transformers`` library as prompts, tiny and random: against the library's own boxes, and through the index stage."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hqsam.detector import Detector
from hqsam.model._torchvision import ensure_torchvision
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import BenchmarkOptions, DetectorOptions
from hqsam_datasets.benchmarks.results import read_detections
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.prepare.index import index
from tests.datasets.benchmarks.test_own import scored
from tests.datasets.embedded_tree import params, tree

ensure_torchvision()
t = pytest.importorskip("transformers")

KEY = "benchmarks.x.index.prompts.detector"
WORDS = ["cat", "dog", "traffic", "light", "object", "bird"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of DETR's kind and a Grounding DINO; weights drawn anew, so that boxes differ by query and image."""
    home = tmp_path_factory.mktemp("detectors")
    torch.manual_seed(0)
    # Names of the embedded sets, of LVIS's kind too, and one that no set has.
    names = ["Traffic-Light", "cat", "nothing such", *_embedded_names()]
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    small["intermediate_size"] = 32
    labels = dict(enumerate(names))
    sides = {"shortest_edge": 64, "longest_edge": 96}
    classed = t.YolosForObjectDetection(
        t.YolosConfig(
            **small,
            image_size=[64, 64],
            patch_size=16,
            num_detection_tokens=12,
            id2label=labels,
            label2id={name: label for label, name in labels.items()},
        )
    )
    vocabulary = home / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]))
    swin = t.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )
    heads = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    heads |= {f"{part}_ffn_dim": 32 for part in ("encoder", "decoder")}
    grounding = t.GroundingDinoForObjectDetection(
        t.GroundingDinoConfig(
            backbone_config=swin,
            text_config=t.BertConfig(vocab_size=12, **small),
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            num_queries=10,
            max_text_len=10,
            **heads,
        )
    )
    for model in (classed, grounding):
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(0, 1.5 * weight[0].numel() ** -0.5)
    classed.save_pretrained(home / "classed")
    t.YolosImageProcessor(size=sides).save_pretrained(home / "classed")
    grounding.save_pretrained(home / "grounding")
    t.GroundingDinoProcessor(
        t.GroundingDinoImageProcessor(size=sides), t.BertTokenizer(str(vocabulary))
    ).save_pretrained(home / "grounding")
    return {name: home / name for name in ("classed", "grounding")}


def _embedded_names() -> list[str]:
    names = set()
    for archive, file in (("coco", "instances_val2017.json"), ("lvis", "lvis_v1_val.json")):
        (path,) = tree(SECTIONS[archive]["archive"]).rglob(file)
        names |= {row["name"] for row in json.loads(path.read_text())["categories"]}
    (path,) = tree(SECTIONS["hq_ytvis"]["archive"]).rglob("ytvis_hq-test.json")
    return sorted(names | {row["name"] for row in json.loads(path.read_text())["categories"]})


SECTIONS = params()["benchmarks"]


def detector(folder: Path | str, **options: Any) -> Detector:
    made = {"detector": str(folder), "threshold": 0.0, "device": "cpu", **options}
    return Detector(DetectorOptions(**made), KEY)


def pictures(n: int) -> list[Any]:
    draw = np.random.default_rng(1)
    return [draw.integers(0, 256, (48, 96, 3), np.uint8) for _ in range(n)]


def test_boxes_of_a_classed_detector_are_the_librarys_own(models: dict[str, Path]) -> None:
    names = ["cat", "traffic_light", "unicorn"]
    opened = detector(models["classed"]).open(names, any_class=False)
    assert list(opened.without) == ["unicorn"]
    processor = t.YolosImageProcessor.from_pretrained(models["classed"])
    model = t.YolosForObjectDetection.from_pretrained(models["classed"])
    seen = []
    for image in pictures(2):
        with torch.no_grad():
            outputs = model(**processor(image, return_tensors="pt"))
        (theirs,) = processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[(48, 96)]
        )
        every = detector(models["classed"], per_image=50).open(names, any_class=True).find(image)
        order = theirs["scores"].argsort(descending=True, stable=True)
        boxes = theirs["boxes"][order].clamp(min=0).minimum(torch.tensor([96, 48, 96, 48]))
        assert len(every) == 12 and {place for place, _, _ in every} == {0}
        np.testing.assert_allclose([box for _, box, _ in every], boxes, atol=1e-4)
        np.testing.assert_allclose([s for _, _, s in every], theirs["scores"][order], atol=1e-6)
        named = Counter(model.config.id2label[label] for label in theirs["labels"].tolist())
        mine = Counter(place for place, _, _ in opened.find(image))
        assert (mine[0], mine[1]) == (named["cat"], named["Traffic-Light"])
        seen.append(every)
    assert seen[0] != seen[1]
    assert (
        len(detector(models["classed"], per_image=5).open(names, any_class=True).find(image)) == 5
    )


def test_boxes_of_grounding_dino_are_the_librarys_own(models: dict[str, Path]) -> None:
    """Names of one token: their score is the one that the library gives a box."""
    names = ["Cat", "dog", "bird"]
    processor = t.AutoProcessor.from_pretrained(models["grounding"])
    model = t.GroundingDinoForObjectDetection.from_pretrained(models["grounding"]).eval()
    opened = detector(models["grounding"]).open(names, any_class=False)
    for image in pictures(2):
        inputs = processor(images=image, text="cat. dog. bird.", return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        probabilities = outputs.logits[0].sigmoid()[:, [1, 3, 5]]
        (theirs,) = processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=0.0, target_sizes=[(48, 96)]
        )
        found = opened.find(image)
        assert len(found) == 30
        np.testing.assert_allclose(
            [score for _, _, score in found],
            probabilities.flatten().sort(descending=True).values,
            atol=1e-6,
        )
        query, place = divmod(int(probabilities.argmax()), 3)
        assert found[0][0] == place
        box = theirs["boxes"][query].clamp(min=0).minimum(torch.tensor([96, 48, 96, 48]))
        np.testing.assert_allclose(found[0][1], box, atol=1e-4)


def test_more_names_than_grounding_dino_takes_at_once(models: dict[str, Path]) -> None:
    """Ten tokens: four names of one word and a full stop; a name of two words counts with their mean."""
    from hqsam.detector import _texts

    tokenizer = t.AutoProcessor.from_pretrained(models["grounding"]).tokenizer
    texts = _texts(["cat", "traffic_light", "dog", "bird", "object"], tokenizer, 10, KEY)
    assert [text.text for text in texts] == ["cat. traffic light. dog.", "bird. object."]
    assert [text.first for text in texts] == [0, 3]
    rows = [{i: w for i, w in enumerate(row) if w} for row in texts[0].weights.tolist()]
    assert rows == [{1: 1.0}, {3: 0.5, 4: 0.5}, {6: 1.0}]
    found = detector(models["grounding"]).open(WORDS, any_class=False).find(pictures(1)[0])
    assert len(found) == 60 and {place for place, _, _ in found} == set(range(6))
    with pytest.raises(UserError, match="has 12 tokens"):
        _texts(["cat " * 12], tokenizer, 10, KEY)


class Closed(Detector):
    """Must not be asked for anything."""

    def open(self, names: Any, *, any_class: bool) -> Any:
        raise AssertionError("opened")


def run(name: str, root: Path, out: Path, made: Detector, **changes: Any) -> dict[str, Any]:
    section = {**SECTIONS[name]["index"], "prompt_sets": ["detector_box"]}
    section["prompts"] = {"detector": "x", "revision": "0" * 40}
    options = BenchmarkOptions(**section)
    return index(
        name,
        root=root,
        out=out / "set",
        options=options,
        progress=lambda *_: None,
        detector=made,
        detections=out / "kept",
        **changes,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def tree_without_boxes(name: str, tmp_path: Path) -> Path:
    root = tmp_path / "tree" / name
    shutil.copytree(tree(SECTIONS[name]["archive"]), root)
    for path in root.rglob("*results*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return root


@pytest.mark.parametrize("name", ["coco", "lvis", "uvo", "hq_ytvis", "davis"])
def test_a_set_without_published_boxes_gets_those_of_a_detector(
    name: str, models: dict[str, Path], tmp_path: Path
) -> None:
    root = tree_without_boxes(name, tmp_path)
    summary = run(name, root, tmp_path, detector(models["classed"], per_image=6))
    prompts = read_rows(tmp_path / "set" / "prompts.parquet")
    images = {row["key"]: row for row in read_rows(tmp_path / "set" / "images.parquet")}
    assert summary["n_prompts"] == {"detector_box": len(prompts)} and prompts
    assert summary["detector"]["threshold"] == 0.0
    (kept,) = (tmp_path / "kept").iterdir()
    boxes = read_detections(kept / "results.json")
    for row in prompts:
        box = tuple(row[corner] for corner in ("x0", "y0", "x1", "y1"))
        known = [found for _, found, _ in boxes.of(images[row["key"]]["image_id"])]
        # DAVIS: an object that no box fits keeps its last one.
        assert name == "davis" or box in known
        assert 0 <= box[0] < box[2] <= row["width"] and 0 <= box[1] < box[3] <= row["height"]
    if name in ("hq_ytvis", "davis"):
        tracks = Counter((row["key"], row["track_id"]) for row in prompts)
        assert None not in {track for _, track in tracks} and set(tracks.values()) == {1}
        classes: dict[Any, set[int]] = {}
        for row in prompts:
            track = images[row["key"]]["video"], row["track_id"]
            classes.setdefault(track, set()).add(row["category_id"])
        assert all(len(found) == 1 for found in classes.values())
    metric = SECTIONS[name]["score"]["metric"]
    result = scored(tmp_path / "set", tmp_path, metric)
    assert result["protocol"]["detector"] == summary["detector"]["detector"]
    # DAVIS gives the objects of the first frame.
    assert result["metrics"]["J&F"] > 0 if name == "davis" else result["metrics"]["AP"] is not None
    first = files_of(tmp_path / "set")
    # What is kept is used, in any number of processes, and no model is opened.
    other = Closed(
        DetectorOptions(detector=str(models["classed"]), threshold=0.0, per_image=6), KEY
    )
    run(name, root, tmp_path, other, workers=2)
    assert files_of(tmp_path / "set") == first


def test_a_stopped_run_goes_on_and_a_changed_image_is_asked_anew(
    models: dict[str, Path], tmp_path: Path
) -> None:
    root = tree_without_boxes("coco", tmp_path)
    whole = detector(models["classed"], per_image=6)
    run("coco", root, tmp_path, whole)
    first, kept = files_of(tmp_path / "set"), files_of(tmp_path / "kept")
    shutil.rmtree(tmp_path / "kept")

    asked: list[Any] = []

    class Some(Detector):
        limit = 7

        def open(self, names: Any, *, any_class: bool) -> Any:
            opened = super().open(names, any_class=any_class)

            def find(image: Any) -> Any:
                if len(asked) >= self.limit:
                    raise KeyboardInterrupt
                asked.append(image)
                return opened.find(image)

            return type(opened)(find, opened.without)

    some = Some(DetectorOptions(detector=str(models["classed"]), threshold=0.0, per_image=6), KEY)
    with pytest.raises(KeyboardInterrupt):
        run("coco", root, tmp_path, some)
    assert len(asked) == 7
    some.limit = 100
    run("coco", root, tmp_path, some)
    assert len(asked) == 20
    assert (files_of(tmp_path / "set"), files_of(tmp_path / "kept")) == (first, kept)
    some.limit = 101
    image = sorted(root.rglob("*.jpg"))[3]
    image.write_bytes(image.read_bytes() + b"more behind the picture")
    run("coco", root, tmp_path, some)
    assert len(asked) == 21
    (folder,) = (tmp_path / "kept").iterdir()
    head = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**head, "threshold": 0.5}))
    with pytest.raises(UserError, match="not the boxes that its name promises"):
        run("coco", root, tmp_path, some)


def test_what_cannot_be_a_detector_is_one_message(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no such folder, and it is no name on the hub"):
        detector(tmp_path / "none")
    with pytest.raises(ValueError, match="revision"):
        detector("owner/name", revision="main")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"owner/name cannot be fetched from the hub") as error:
        detector("owner/name", revision="0" * 40).open(["cat"], any_class=False)
    assert "hf download owner/name" in str(error.value)
    with pytest.raises(UserError, match=r"it has Traffic-Light, cat, .* and \d+ more; .* unicorn"):
        detector(models["classed"]).open(["unicorn"], any_class=False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="models of the type bert are not supported") as error:
        detector(tmp_path).open(["cat"], any_class=False)
    assert "grounding-dino" in str(error.value) and "yolos" in str(error.value)
    (tmp_path / "code").mkdir()
    own = {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}
    for name, content in (("config", {"model_type": "detr"}), ("preprocessor_config", own)):
        (tmp_path / "code" / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "code" / "model.safetensors").write_bytes(b"")
    (tmp_path / "code" / "own.py").write_text("raise SystemExit('code of a model ran')")
    monkeypatch.setattr("builtins.input", lambda _: "y")  # nobody is asked
    with pytest.raises(UserError, match=r"`auto_map` leads to code"):
        detector(tmp_path / "code").open(["cat"], any_class=False)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="no model folder"):
        detector(tmp_path).open(["cat"], any_class=False)
    shutil.copytree(models["classed"], tmp_path / "lost")
    from safetensors.torch import load_file, save_file

    path = tmp_path / "lost" / "model.safetensors"
    weights = load_file(path)
    del weights["bbox_predictor.layers.0.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights .* bbox_predictor"):
        detector(tmp_path / "lost").open(["cat"], any_class=False)
    from hqsam_datasets.benchmarks.base import Content
    from hqsam_datasets.prepare.index import _categories

    for row in ("cat", {"id": 1}, {"id": 1, "name": " "}, {"id": "1", "name": "cat"}):
        with pytest.raises(UserError, match=r"`categories`|category"):
            _categories(
                Content(items=iter(()), n_images=0, ground_truth={"categories": [row]}), "x"
            )
    for section, problem in (
        ({"prompt_sets": ["gt_box"]}, "add it to prompt_sets"),
        ({"prompt_sets": ["detector_box"], "detections": "boxes.json"}, "both give boxes"),
    ):
        with pytest.raises(ValueError, match=problem):
            BenchmarkOptions(**section, prompts={"detector": "x"})
