"""Models of the `transformers` library as systems: the library's own masks and scores, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from hqsam import pretrained, systems
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.prompt import Prompt
from hqsam.systems.base import Context, Entry
from hqsam.systems.transformers import TransformersModel
from hqsam_base.errors import UserError
from tests.hqsam import hub_models
from tests.hqsam.models import picture

CONTEXT = Context(None, None, PredictOptions(device="cpu"))
BOXES = ((10.0, 5.0, 60.0, 40.0), (3.0, 2.0, 20.5, 30.0), (50.3, 9.0, 90.0, 46.0))
POINTS = (((30.0, 20.0), (60.0, 30.0)), ((12.5, 9.0), (70.0, 40.0)), ((80.0, 40.0), (5.0, 5.0)))
LABELS = ((1, 0), (1, 1), (1, 0))
IMAGE = picture(48, 96)

Built = tuple[Path, Any, Any, TransformersModel]


KIND = systems.load("transformers")


def entry(folder: Path | str, **more: Any) -> Entry:
    return Entry("x", KIND.options(kind="transformers", model=str(folder), **more))


def opened(folder: Path, **more: Any) -> TransformersModel:
    found = KIND.open(entry(folder, **more), CONTEXT)
    assert isinstance(found, TransformersModel)
    return found


@pytest.fixture(scope="module", params=sorted(hub_models.MAKERS))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A tiny model of each family: its folder, the library's two parts, and ours."""
    folder = tmp_path_factory.mktemp("hub") / request.param
    model, processor = hub_models.build(request.param, folder)
    return folder, model, processor, opened(folder)


def masks(
    one: TransformersModel, image: Any, prompts: list[Prompt]
) -> tuple[np.ndarray, list[float]]:
    """Masks bool [P, H, W] and predicted IoUs of one picture."""
    [encoded] = one.encode([one.prepare(image)])
    found = one.decode(encoded, prompts)["x"]
    return np.stack([one.to_image(encoded, v).full() for v in found.values]), list(found.iou)


def theirs(built: Built, choose: str, **prompts: Any) -> tuple[np.ndarray, np.ndarray]:
    """The library's own processor, model and post_process_masks."""
    _, model, processor, _ = built
    given = processor(images=[IMAGE], return_tensors="pt", **prompts)
    sizes, reshaped = given.pop("original_sizes"), given.pop("reshaped_input_sizes", None)
    with torch.no_grad():
        found = model(**given, multimask_output=choose == "best_iou")
    [whole] = processor.post_process_masks(
        found.pred_masks, original_sizes=sizes, reshaped_input_sizes=reshaped
    )
    iou = found.iou_scores[0]
    best = iou.argmax(1)
    rows = torch.arange(len(best))
    return whole[rows, best].numpy(), iou[rows, best].numpy()


def lists(values: Any) -> Any:
    return [lists(value) for value in values] if isinstance(values, tuple) else values


@pytest.mark.parametrize("choose", ["family", "best_iou"])
def test_the_librarys_own_masks_and_scores(built: Built, choose: str) -> None:
    one = opened(built[0], choose=choose)
    cases: list[tuple[list[Prompt], dict[str, Any]]] = [
        ([Prompt(box=box) for box in BOXES], {"input_boxes": [lists(BOXES)]}),
        (
            [Prompt(points=p, labels=n) for p, n in zip(POINTS, LABELS, strict=True)],
            {"input_points": [lists(POINTS)], "input_labels": [lists(LABELS)]},
        ),
        (
            [
                Prompt(box=b, points=p, labels=n)
                for b, p, n in zip(BOXES, POINTS, LABELS, strict=True)
            ],
            {
                "input_boxes": [lists(BOXES)],
                "input_points": [lists(POINTS)],
                "input_labels": [lists(LABELS)],
            },
        ),
    ]
    for prompts, given in cases:
        found, iou = masks(one, IMAGE, prompts)
        expected, expected_iou = theirs(built, choose, **given)
        assert 0 < expected.mean() < 1
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(iou, expected_iou, atol=1e-6)


def test_what_a_mask_depends_on(built: Built) -> None:
    """Its own image, prompt and mask prompt; not what else is decoded or encoded with it."""
    one = built[3]
    blob = np.zeros(IMAGE.shape[:2], bool)
    blob[10:35, 20:60] = True
    prompts = [Prompt(box=box, mask=np.roll(blob, 9 * n, 1)) for n, box in enumerate(BOXES)]
    other = picture(40, 80, seed=3)
    images = one.encode([one.prepare(other), one.prepare(IMAGE)])
    [alone] = one.encode([one.prepare(IMAGE)])

    def logits(image: Any, some: list[Prompt]) -> np.ndarray:
        return np.stack(one.decode(image, some)["x"].values)

    every = logits(images[1], prompts)
    single = np.concatenate([logits(alone, [prompt]) for prompt in prompts])
    np.testing.assert_allclose(every, single, atol=2e-4)  # a padded point: 0.01 and more
    boxes = [Prompt(box=box) for box in BOXES]
    assert np.abs(logits(alone, boxes) - every).max() > 0.01, "a mask prompt changes nothing"
    assert np.abs(logits(images[0], boxes) - logits(alone, boxes)).max() > 0.01, "blind"
    fed = [Prompt(box=BOXES[0], mask_input=one.as_input(every[0]))]
    assert np.abs(logits(alone, fed) - logits(alone, boxes[:1])).max() > 0.01


def test_an_ideal_box_lands_where_it_was_drawn(built: Built) -> None:
    """A low-resolution mask of the box that the prompt has in the model is that box in the image."""
    one = built[3]
    [image] = one.encode([one.prepare(picture(500, 1000))])
    frame, side = image.frame, one.mask_side
    x0, y0, x1, y1 = frame.boxes(np.array([200.0, 150, 500, 400])) * side / one.side
    x, y = (np.arange(side) + 0.5,) * 2
    across = np.minimum(x - x0, x1 - x)[None]
    down = np.minimum(y - y0, y1 - y)[:, None]
    mask = one.to_image(image, np.minimum(across, down).astype(np.float32)).full()
    ys, xs = np.nonzero(mask)
    cell = 1000 / side  # a low-resolution pixel; corners are rounded off by less than half of it
    found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(found - [200, 150, 500, 400]).max() <= cell / 2


def test_the_protocol_holds_what_differs_between_families(built: Built) -> None:
    folder, _, processor, one = built
    kind = folder.name
    block = one.protocol
    assert block["library"].startswith("transformers 5.") and block["torch"] == torch.__version__
    assert block["resize"] == ("longest_side" if kind == "sam" else "stretch")
    assert block["input_side"] == (56 if kind == "sam3_tracker" else 64)
    assert block["low_res_side"] == 16 and block["mask_threshold"] == 0.0
    assert block["image_mean"] == list(processor.image_processor.image_mean)
    assert block["iou_scale"] == ("linear" if kind == "sam" else "sigmoid")
    assert block["model_type"] == kind
    assert set(block["files"]) == {"config.json", "model.safetensors", "processor_config.json"}
    json.dumps(block)
    told = json.dumps(opened(folder, choose="best_iou").protocol)
    assert told != json.dumps(block)


@pytest.mark.parametrize("kind", ["sam2", "sam3_tracker"])
def test_the_image_half_of_a_video_folder(tmp_path: Path, kind: str) -> None:
    """With the names that the published files have: every tensor finds its place."""
    folder = tmp_path / "model"
    if kind == "sam2":
        model, _ = hub_models.build("sam2_video", folder)
    else:
        model, _ = hub_models.build(kind, folder)
        published = {}
        for name, tensor in model.state_dict().items():
            for old, new in (
                ("vision_encoder.backbone.", "detector_model.vision_encoder.backbone."),
                ("vision_encoder.neck.", "tracker_neck."),
            ):
                if name.startswith(old):
                    published[new + name.removeprefix(old)] = tensor
                    break
            else:
                published[f"tracker_model.{name}"] = tensor
        safetensors.torch.save_file(
            {name: tensor.clone() for name, tensor in published.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        config = json.loads((folder / "config.json").read_bytes())
        config = {"model_type": "sam3_video", "tracker_config": config}
        (folder / "config.json").write_text(json.dumps(config))
    one = opened(folder)
    weights = dict(model.state_dict())
    own = one._model.state_dict()
    assert len(own) > 100
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
    found, _ = masks(one, IMAGE, [Prompt(box=box) for box in BOXES])
    assert 0 < found.mean() < 1


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    hub_models.build("sam2", tmp_path)
    path = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    del weights["mask_decoder.iou_token.weight"]
    safetensors.torch.save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError) as error:
        opened(tmp_path)
    assert error.value.key == "systems.x.model" and "random" in error.value.problem
    assert "such as mask_decoder.iou_token.weight" in error.value.problem


def config(folder: Path, **content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_bad_folders_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    def refused(folder: Path) -> UserError:
        with pytest.raises(UserError) as error:
            KIND.inputs(entry(folder))
        assert error.value.cure and error.value.key
        return error.value

    found = refused(config(tmp_path / "hq", model_type="sam_hq"))
    assert "does not compute HQ-SAM" in found.problem and "sam_hq_vit" in str(found.cure)
    found = refused(config(tmp_path / "concept", model_type="sam3"))
    assert "no mask per box" in found.problem
    found = refused(config(tmp_path / "bert", model_type="bert"))
    assert "bert" in found.problem and "sam2, sam2_video" in str(found.cure)
    found = refused(config(tmp_path / "bare", model_type="sam2"))
    assert "no processor" in found.problem and str(found.file).endswith("processor_config.json")
    (tmp_path / "bare" / "processor_config.json").write_text("{}")
    (tmp_path / "bare" / "pytorch_model.bin").write_bytes(b"code")
    assert "safetensors" in refused(tmp_path / "bare").problem
    assert "no model folder" in refused(tmp_path).problem
    (tmp_path / "bare" / "config.json").write_text("[" * 100_000)
    assert "no model folder" in refused(tmp_path / "bare").problem
    assert "no such folder" in refused(tmp_path / "a" / "b" / "c").problem
    os.mkfifo(tmp_path / "bert" / "preprocessor_config.json")  # nobody writes into it
    assert "no regular file" in refused(tmp_path / "bert").problem
    with pytest.raises(UserError, match="the processor makes images of"):
        hub_models.build("sam2", tmp_path / "sizes")
        hub_models.transformers.Sam2ImageProcessor(
            size={"height": 32, "width": 32}
        ).save_pretrained(tmp_path / "sizes")
        (tmp_path / "sizes" / "processor_config.json").unlink()
        opened(tmp_path / "sizes")


ELSEWHERE: dict[str, dict[str, Any]] = {
    "code of a part": {"vision_config": {"auto_map": {"AutoModel": "own.Own"}}},
    "code of the hub": {"parts": [{"auto_map": {"AutoModel": "owner/name--own.Own"}}]},
    "a backbone of the hub": {"vision_config": {"backbone": "owner/name"}},
    "a backbone that is fetched": {"vision_config": {"architecture": "hf-hub:owner/name"}},
    "other weights": {"vision_config": {"model_args": {"checkpoint_path": "../weights.pth"}}},
    "weights by name": {"transformers_weights": "other.safetensors"},
    "kernels of the hub": {"_attn_implementation": "owner/name"},
    "kernels of a part": {"attn_implementation": {"vision_config": "owner/name"}},
    "fewer bits": {"quantization_config": {"quant_method": "bitsandbytes"}},
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_settings_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    """Parts of a model are opened without the word by which the library runs no code."""
    folder = config(tmp_path / "x", model_type="sam2", **ELSEWHERE[name])
    with pytest.raises(UserError, match="leads to code, weights or kernels outside") as error:
        KIND.inputs(entry(folder))
    assert str(error.value.file).endswith("config.json")


@pytest.mark.parametrize("shard", ["../other.safetensors", "weights.bin", "none.safetensors", [1]])
def test_shards_are_safetensors_of_the_folder(tmp_path: Path, shard: Any) -> None:
    """The library opens whatever file the index names, pickles too."""
    folder = tmp_path / "model"
    hub_models.build("sam2", folder)
    (folder / "model.safetensors").rename(folder / "first.safetensors")
    (folder / "weights.bin").write_bytes(b"")
    with safetensors.safe_open(folder / "first.safetensors", "pt") as file:
        places = dict.fromkeys(file.keys(), "first.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert opened(folder).protocol["model_type"] == "sam2"
    index.write_text(json.dumps({"weight_map": {**places, next(iter(places)): shard}}))
    with pytest.raises(UserError, match="`weight_map` leads to"):
        KIND.inputs(entry(folder))


def test_a_folder_is_opened_without_the_network(tmp_path: Path) -> None:
    """A backbone's name alone has the library ask the hub; here it gets no answer, at once."""
    import huggingface_hub as hub

    before = hub.constants.HF_HUB_OFFLINE
    source = pretrained.Source(str(tmp_path), None, "x", "systems")
    with pytest.raises(UserError, match="offline"), source.opening():
        hub.HfApi().repo_exists("owner/name")
    assert before == hub.constants.HF_HUB_OFFLINE


def test_a_name_on_the_hub_needs_a_commit_and_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    def refused(revision: str | None) -> UserError:
        with pytest.raises(UserError) as error:
            KIND.inputs(entry("owner/name", revision=revision))
        return error.value

    assert refused(None).key == "systems.x.revision"
    assert "main" in refused("main").problem
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the client tries for 20 s otherwise
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = refused("0" * 40)
    assert "cannot be fetched" in found.problem and "hf download owner/name" in str(found.cure)
