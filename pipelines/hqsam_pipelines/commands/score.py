"""`hqsam score ...`: the metrics on files that anyone may have, without the rest of the pipeline.

Needs the base install only (no torch, Prefect or DVC).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hqsam_base.terminal import say
from hqsam_pipelines.commands._outputs import check_outputs
from hqsam_pipelines.runner.progress import ProgressDisplay

if TYPE_CHECKING:
    from hqsam_metrics.evaluate import Result

app = typer.Typer(
    no_args_is_help=True,
    help="Score masks, COCO, LVIS, YouTube-VIS or DAVIS results: mask and boundary metrics.",
)


class IouType(StrEnum):
    """Which IoU the AP is about."""

    segm = "segm"
    boundary = "boundary"


class AreaRule(StrEnum):
    """How the area of a detection is found (it decides the size bins)."""

    mask = "mask"
    bbox = "bbox"


Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result to this JSON file.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes; changes no number.")]
Ratio = Annotated[
    float,
    typer.Option(help="Width of the boundary band as a fraction of the image diagonal (0.02; strict: 0.01)."),
]
Results = Annotated[Path, typer.Option("--pred", metavar="FILE", help="Results in JSON.")]
Truth = Annotated[Path, typer.Option("--gt", metavar="FILE", help="Annotations in JSON.")]
Kind = Annotated[IouType, typer.Option("--iou-type", help="Mask AP or boundary AP.")]
Agnostic = Annotated[bool, typer.Option("--class-agnostic", help="Match whatever the category (UVO).")]
MaxDets = Annotated[int | None, typer.Option(min=1, help="Detections that count; default: the protocol's own number.")]
CrossCheck = Annotated[
    bool, typer.Option("--cross-check", help="Also run the reference program on the first 200 images and compare.")
]
Area = Annotated[
    AreaRule,
    typer.Option(help="bbox: as the official loader does when the results have a `bbox` key; moves APs, APm, APl."),
]


def _run(
    score: Callable[..., Result], json_file: Path | None, check: Callable[[], str] | None = None, **arguments: Any
) -> None:
    """Scores, checks, prints the metrics, writes the JSON."""
    from hqsam_metrics.files import write_json

    with _messages(json_file):
        check_outputs({"--json": json_file}, inputs=[arguments["pred"], arguments["gt"]])
        with ProgressDisplay("score") as progress:
            result = score(progress=progress, **arguments)
        checked = None if check is None else check()
    _show(result)  # first: a file that cannot be written must not cost the numbers
    if checked is not None:
        say(checked)
    if json_file is not None:
        with _messages(json_file):
            write_json(json_file, result.to_dict())


@contextlib.contextmanager
def _messages(json_file: Path | None) -> Iterator[None]:
    """A user error, or a file that cannot be read or written, is one message and exit code 1."""
    from hqsam_base.errors import UserError

    try:
        yield
    except UserError as error:
        say(f"error: {error}", err=True, lines=True)
        raise typer.Exit(1) from None
    except OSError as error:
        # Of a file that was opened already, such as the result on a full disk, the system says no name.
        say(f"error: {error.filename or json_file}: {error.strerror or error}", err=True)
        raise typer.Exit(1) from None


def _show(result: Result) -> None:
    for name, value in result.metrics.items():
        say(f"{name:<10} {'undefined' if value is None else f'{value:.4f}'}")
    say(f"scored {result.n_scored} of {result.n_expected}, protocol {result.to_dict()['protocol_hash']}")
    for warning in result.warnings:
        say(f"warning: {warning}", err=True)


@app.command()
def masks(
    pred: Annotated[Path, typer.Option("--pred", metavar="DIR", help="Predicted masks, PNG, foreground 255.")],
    gt: Annotated[Path, typer.Option("--gt", metavar="DIR", help="Ground-truth masks of the same file names.")],
    dilation_ratio: Ratio = 0.02,
    cascadepsp: Annotated[
        bool, typer.Option("--cascadepsp", help="Add CascadePSP's own metrics of BIG: pooled IoU and mBA.")
    ] = False,
    recall_curve: Annotated[
        bool, typer.Option("--recall-curve", help="Add the share of pairs above each boundary-IoU threshold.")
    ] = False,
    workers: Workers = 1,
    json: Json = None,
) -> None:
    """Mask IoU and boundary IoU of PNG pairs, and their means (mIoU, mBIoU)."""
    from hqsam_metrics.evaluate import score_mask_folders

    _run(
        score_mask_folders, json, pred=pred, gt=gt, dilation_ratio=dilation_ratio, cascadepsp=cascadepsp,
        curve=recall_curve, workers=workers,
    )  # fmt: skip


@app.command()
def coco(
    pred: Results,
    gt: Truth,
    iou_type: Kind = IouType.segm,
    dilation_ratio: Ratio = 0.02,
    class_agnostic: Agnostic = False,
    max_dets: MaxDets = None,
    area_rule: Area = AreaRule.mask,
    cross_check: CrossCheck = False,
    workers: Workers = 1,
    json: Json = None,
) -> None:
    """COCO AP and AR of masks or boundaries."""
    from hqsam_metrics.evaluate import score_coco_files

    def check() -> str:
        from hqsam_metrics.crosscheck import check_coco

        return check_coco(
            pred=pred, gt=gt, iou_type=iou_type.value, dilation_ratio=dilation_ratio, class_agnostic=class_agnostic,
            max_dets=max_dets, area_rule=area_rule.value,
        )  # fmt: skip

    _run(
        score_coco_files, json, check if cross_check else None,
        pred=pred, gt=gt, iou_type=iou_type.value, dilation_ratio=dilation_ratio,
        class_agnostic=class_agnostic, max_dets=max_dets, area_rule=area_rule.value, workers=workers,
    )  # fmt: skip


@app.command()
def lvis(
    pred: Results,
    gt: Truth,
    iou_type: Kind = IouType.segm,
    dilation_ratio: Ratio = 0.02,
    max_dets: MaxDets = None,
    area_rule: Area = AreaRule.mask,
    cross_check: CrossCheck = False,
    workers: Workers = 1,
    json: Json = None,
) -> None:
    """LVIS v1 federated AP and AR of masks or boundaries, 300 detections an image."""
    from hqsam_metrics.evaluate import score_lvis_files

    def check() -> str:
        from hqsam_metrics.crosscheck import check_lvis

        return check_lvis(
            pred=pred, gt=gt, iou_type=iou_type.value, dilation_ratio=dilation_ratio, max_dets=max_dets,
            area_rule=area_rule.value,
        )  # fmt: skip

    _run(
        score_lvis_files, json, check if cross_check else None,
        pred=pred, gt=gt, iou_type=iou_type.value, dilation_ratio=dilation_ratio,
        max_dets=max_dets, area_rule=area_rule.value, workers=workers,
    )  # fmt: skip


@app.command()
def ytvis(
    pred: Results,
    gt: Truth,
    iou_type: Kind = IouType.segm,
    class_agnostic: Agnostic = False,
    workers: Workers = 1,
    json: Json = None,
) -> None:
    """HQ-YTVIS / YouTube-VIS tube AP and AR of masks or boundaries (band 0.02, fixed by the protocol)."""
    from hqsam_metrics.evaluate import score_ytvis_files

    _run(
        score_ytvis_files, json, pred=pred, gt=gt, iou_type=iou_type.value, class_agnostic=class_agnostic,
        workers=workers,
    )  # fmt: skip


@app.command()
def davis(
    pred: Annotated[Path, typer.Option("--pred", metavar="DIR", help="Results: <sequence>/<frame>.png.")],
    gt: Annotated[Path, typer.Option("--gt", metavar="DIR", help="The DAVIS folder (Annotations, ImageSets).")],
    split: Annotated[str, typer.Option(help="The list in ImageSets/2017.")] = "val",
    workers: Workers = 1,
    json: Json = None,
) -> None:
    """DAVIS 2017 semi-supervised J, F and J&F, per object."""
    from hqsam_metrics.evaluate import score_davis_folders

    _run(score_davis_folders, json, pred=pred, gt=gt, split=split, workers=workers)


@app.command()
def sginw(
    pred: Annotated[Path, typer.Option("--pred", metavar="DIR", help="Results: seginw-<Set>_val.json.")],
    gt: Annotated[Path, typer.Option("--gt", metavar="DIR", help="The unpacked seginw folder.")],
    iou_type: Kind = IouType.segm,
    dilation_ratio: Ratio = 0.02,
    workers: Workers = 1,
    json: Json = None,
) -> None:
    """SGinW: mean AP over its 25 sets."""
    from hqsam_metrics.sginw import score_sginw_folders

    _run(
        score_sginw_folders, json, pred=pred, gt=gt, iou_type=iou_type.value, dilation_ratio=dilation_ratio,
        workers=workers,
    )  # fmt: skip
