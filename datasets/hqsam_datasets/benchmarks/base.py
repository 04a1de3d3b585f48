"""What an evaluation set hands over: images with their ground truth and prompts, in one schema for all sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hqsam_datasets.prompts.sets import examples, mask_set
from hqsam_datasets.sources.base import InnerPath

Kind = Literal["masks", "coco", "lvis", "ytvis", "davis"]
PromptSet = Literal["gt_box", "detector_box", "tracker_box", "coarse_mask"]
"""Prompt sets that adapters make; others are made from the ground truth (`hqsam_datasets.prompts.sets`)."""
Box = tuple[float, float, float, float]


class DetectorOptions(BaseModel):
    """``benchmarks.<name>.index.prompts``: a detector of the ``transformers`` library.

    Attributes:
        detector: A folder that ``save_pretrained`` wrote, with its processor; or a name on the hub,
            ``owner/name``, with `revision`.
        revision: Commit of the hub's repository, 40 hexadecimal digits.
        threshold: Boxes below this score are left out.
        per_image: The best boxes of an image that are kept.
        device: ``auto``: a GPU if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str = Field(min_length=1)
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    threshold: float = Field(default=0.05, ge=0, lt=1)
    per_image: int = Field(default=100, ge=1, le=10_000)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class BenchmarkOptions(BaseModel):
    """``benchmarks.<name>.index`` of params.yaml.

    Attributes:
        expected_images: Number of images (frames) that the set must have; None switches the check
            off.
        prompt_sets: Which prompts to write: those of the set (``gt_box``, ``detector_box``,
            ``tracker_box``,
            ``coarse_mask``), and those that any benchmark can have, made from the ground-truth
            masks (`hqsam_datasets.prompts.sets`).
        seed: Of the prompt sets that are drawn, and of nothing else.
        box_side: Take the boxes of ``gt_box`` from the mask resized to a square of this side; None:
            from the mask at full resolution.
        images_per_shard: Images per tar.
        images: For own data, the folder of the images inside the archive.
        masks: For own data, the folder of the masks (it may be the same).
        annotations: For own data, the annotation file inside the archive.
        detections: For own data with an annotation file, boxes in the COCO results format inside
            the archive.
        skip: For own data, stems of files to leave out.
        prompts: A detector that makes the boxes of ``detector_box``, in place of a published file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    expected_images: int | None = Field(default=None, ge=1)
    prompt_sets: tuple[str, ...] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    box_side: int | None = Field(default=None, ge=16)
    images_per_shard: int = Field(default=1024, ge=1)
    images: InnerPath | None = None
    masks: InnerPath | None = None
    annotations: InnerPath | None = None
    detections: InnerPath | None = None
    skip: tuple[str, ...] = ()
    prompts: DetectorOptions | None = None

    @field_validator("prompt_sets")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in get_args(PromptSet) and mask_set(name) is None:
                known = (*get_args(PromptSet), *examples())
                raise ValueError(f"there is no prompt set {name}; use some of {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _seed_is_used(self) -> Self:
        found = [mask_set(name) for name in self.prompt_sets]
        if "seed" in self.model_fields_set and not any(one and one.random for one in found):
            raise ValueError("seed: no prompt set of this benchmark is drawn; leave the seed out")
        return self

    @model_validator(mode="after")
    def _detector_is_used(self) -> Self:
        if self.prompts is not None and "detector_box" not in self.prompt_sets:
            raise ValueError("prompts: a detector makes detector_box; add it to prompt_sets")
        if self.prompts is not None and self.detections is not None:
            raise ValueError("prompts and detections both give boxes; remove one of them")
        return self


OWN_DATA = ("images", "masks", "annotations", "detections", "skip")
"""Options that only own data have: the adapter of a published set knows its files."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One annotated object in one image.

    Attributes:
        instance_id: Unique in the set.
        rle: COCO compressed counts at the image's size.
        area: The annotation's area in pixels (for some sets not the mask's pixel count).
        category_id: The set's own category number.
        track_id: Object identity over the frames of a video, None for still images.
        iscrowd: Whether the mask is a crowd region.
    """

    instance_id: str
    rle: str
    area: float
    category_id: int = 1
    track_id: int | None = None
    iscrowd: bool = False


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt for one image.

    Attributes:
        prompt_id: Unique in the set; its order is the order of the results.
        prompt_set: Where it comes from.
        box: xyxy in pixels of the original image, or None for a mask prompt.
        rle: Mask prompt at the image's size (COCO compressed counts), or None for a box.
        score: The detector's or tracker's confidence, None for prompts made from ground truth.
        category_id: The detector's class.
        track_id: The tracker's identity.
        instance_id: The ground-truth object that the prompt was made from.
    """

    prompt_id: str
    prompt_set: PromptSet
    box: Box | None = None
    rle: str | None = None
    score: float | None = None
    category_id: int | None = None
    track_id: int | None = None
    instance_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image (or frame) of an evaluation set with everything that belongs to it.

    Attributes:
        key: Unique, ``[a-z0-9_-]+``; keys in sorted order are the order of the set.
        path: The image file.
        image_id: The official number (running from 1 where there is none).
        height: Rows that the ground truth has; the decoded image must agree.
        width: Columns that the ground truth has.
        video: Name of the video; images of one video are resampled together in intervals.
        video_id: Official number of the video.
        frame: 0-based position in the video.
        truths: Annotated objects.
        prompts: Prompts of every set that the adapter knows.
    """

    key: str
    path: Path
    image_id: int
    height: int
    width: int
    video: str | None = None
    video_id: int | None = None
    frame: int | None = None
    truths: tuple[Truth, ...] = ()
    prompts: tuple[Prompt, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Content:
    """What ``Benchmark.read`` returns.

    Attributes:
        items: Images in ascending key order; read lazily.
        n_images: How many, for the progress display.
        ground_truth: The official annotation file cut down to these images, or None for sets of
            plain masks. Long lists may be `PackedRecords`.
        left_out: Reason to number of what the annotations hold and no item shows (crowds, images
            without object).
    """

    items: Iterator[Item]
    n_images: int
    ground_truth: dict[str, Any] | None = field(default=None)
    left_out: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Benchmark(Protocol):
    """An evaluation set. Its file opens with the data sheet.

    One whose files may lie anywhere also has ``of_section(name, options) -> Benchmark`` (see
    `own.OwnSet`), one whose boxes a detector can make ``without_boxes() -> Benchmark``, which reads
    no published ones, and one that comes with prompts that no other set of its kind has
    ``given_prompts``, the names of their sets.
    """

    name: str
    kind: Kind
    dataset_version: str
    class_agnostic: bool

    def read(self, root: Path) -> Content:
        """Read the extracted archive at ``root``.

        Raises:
            UserError: the layout is not as published, an image has no ground truth, or the other
                way round.
        """
        ...
