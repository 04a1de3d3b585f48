"""predict: Segment one image with HQ-SAM.

`hqsam predict photo.jpg --checkpoint sam_hq_vit_l.pth --box 80 40 610 420 --out mask.png --overlay
overlay.png`
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from hqsam.model.outputs import Output
from hqsam_base.terminal import say
from hqsam_pipelines.commands._outputs import check_outputs

if TYPE_CHECKING:
    from hqsam.api.predictor import Prediction
    from hqsam.model.hq_sam import HQSam
    from hqsam.prediction.postprocess import MaskPatch
    from hqsam.prediction.prompt import Prompt

app = typer.Typer(help="Segment one image with HQ-SAM.")


_NO_HEAD = "choose --output sam, or give a trained head as --checkpoint and this file as --base"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Box = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(metavar="X0 Y0 X1 Y1", help="Box around the object, in pixels of the image."),
]
Points = Annotated[
    list[str] | None,
    typer.Option("--point", metavar="X Y ...", help="Points on the object."),
]
Negatives = Annotated[
    list[str] | None,
    typer.Option("--negative", metavar="X Y ...", help="Points on the background."),
]


class _PointsCommand(TyperCommand):
    """Lets an option take any number of points: `--point X Y X Y` becomes `--point X,Y --point X,Y`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined: list[str] = []
        option: str | None = None
        rest = list(args)
        while rest:
            word = rest.pop(0)
            if option and _is_number(word) and rest and _is_number(rest[0]):
                joined += [option, f"{word},{rest.pop(0)}"]
                continue
            if option and _is_number(word):
                raise typer.BadParameter(
                    f"{word!r} is left over: points are pairs X Y", param_hint=option
                )
            option = None
            if word in ("--point", "--negative") and rest and _is_number(rest[0]):
                option = word
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _parse_points(words: list[str], option: str) -> list[tuple[float, float]]:
    points = []
    for word in words:
        numbers = word.split(",")
        if len(numbers) != 2 or not all(map(_is_number, numbers)):
            raise typer.BadParameter(f"{word!r} is not a pair X Y", param_hint=option)
        points.append((float(numbers[0]), float(numbers[1])))
    return points


@app.command(cls=_PointsCommand)
def predict(
    image: Annotated[Path, typer.Argument(help="JPEG, PNG, ...; its EXIF orientation is applied.")],
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="Weights: a whole SAM or HQ-SAM, or a trained head (then with --base, unless it "
            "is nano's)."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="PNG", help="Where to write the mask, 0 and 255.")],
    box: Box = None,
    point: Points = None,
    negative: Negatives = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Coarse mask of the image's size.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="vit_b, vit_l, ...; default: detected from the weights.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="SAM's weights, if --checkpoint holds a trained head only.")
    ] = None,
    output: Annotated[
        Output,
        typer.Option(
            help="SAM + HQ logits, the HQ token alone (best for single objects), or plain SAM."
        ),
    ] = Output.hq_sum,
    device: Annotated[
        Device, typer.Option(help="Device; auto: a GPU if there is one.")
    ] = Device.auto,
    multimask: Annotated[
        bool, typer.Option("--multimask", help="SAM's best of three masks, for ambiguous points.")
    ] = False,
    overlay: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Picture of the mask over the image.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Mask as COCO RLE, predicted IoU, area, box."),
    ] = None,
) -> None:
    """Segment the object that a box, points, a coarse mask or a mixture of them mark."""
    from hqsam.api.predictor import SamHQPredictor
    from hqsam.model.device import pick_device
    from hqsam.model.load import load_any

    outputs = {"--out": out, "--overlay": overlay, "--json": json_file}
    check_outputs(outputs, inputs=[image, mask, checkpoint, base], png=True)
    where = pick_device(device.value)
    pixels = _read_image(image)
    points = _parse_points(point or [], "--point")
    negatives = _parse_points(negative or [], "--negative")
    # before the weights are loaded, which takes seconds for the large models
    prompt = _checked_prompt(
        image,
        pixels,
        box=box,
        points=(*points, *negatives),
        labels=(1,) * len(points) + (0,) * len(negatives),
        mask=None if mask is None else _read_mask(mask),
    )
    model = load_any(
        checkpoint,
        backbone=backbone,
        base=base,
        without_hq=None if output is Output.sam else _NO_HEAD,
    )
    predictor = SamHQPredictor(model.to(where))
    [found] = predictor.predict_batch(
        [pixels], [[prompt]], output=output.value, multimask=multimask
    )
    patch = found.mask
    _write(
        image,
        pixels,
        prompt,
        found,
        patch,
        model,
        out=out,
        overlay=overlay,
        json_file=json_file,
        output=output,
    )
    say(
        f"{out}: {patch.area} of {pixels.shape[0] * pixels.shape[1]} pixels, predicted IoU "
        f"{found.iou:.3f}"
    )


def _checked_prompt(image: Path, pixels: Any, **parts: Any) -> Prompt:
    from hqsam.errors import InputError, UserError
    from hqsam.model.preprocess import Frame
    from hqsam.prediction.prompt import Prompt

    height, width = pixels.shape[:2]
    try:
        prompt = Prompt(**parts)
        prompt.check_inside(Frame(height, width, max(height, width)))
    except InputError as error:
        cure = (
            "give --box X0 Y0 X1 Y1, --point X Y or --mask PNG in pixels of the upright image, "
            f"{width} x {height}"
        )
        raise UserError(error.problem, file=image, cure=cure) from error
    return prompt


def _read_image(path: Path) -> Any:
    from hqsam.errors import UserError
    from hqsam_datasets.formats.image_files import ImageError
    from hqsam_datasets.formats.images import decode_image

    try:
        return decode_image(path.read_bytes())
    except OSError as error:
        cure = "give the path of a picture"
        raise UserError(
            f"the image cannot be read ({error.strerror})", file=path, cure=cure
        ) from error
    except ImageError as error:
        cure = error.cure or "give a whole JPEG, PNG, TIFF, BMP, WebP or GIF"
        raise UserError(
            f"the image cannot be used ({error.detail})", file=path, cure=cure
        ) from error


def _read_mask(path: Path) -> Any:
    from hqsam.errors import UserError
    from hqsam_datasets.formats.image_files import ImageError
    from hqsam_datasets.formats.masks import decode_mask

    try:
        mask = decode_mask(path.read_bytes()).foreground
    except OSError as error:
        cure = "give the path of a 0/255 PNG"
        raise UserError(
            f"the mask cannot be read ({error.strerror})", file=path, cure=cure
        ) from error
    except ImageError as error:
        raise UserError(
            f"the mask cannot be used ({error.detail})", file=path, cure="give a 0/255 PNG"
        ) from error
    if not mask.any():
        raise UserError(
            "the mask is empty: it shows no object", file=path, cure="give a mask with a foreground"
        )
    return mask


def _write(
    image: Path,
    pixels: Any,
    prompt: Prompt,
    found: Prediction,
    patch: MaskPatch,
    model: HQSam,
    *,
    out: Path,
    overlay: Path | None,
    json_file: Path | None,
    output: Output,
) -> None:
    import numpy as np

    from hqsam.prediction.overlay import overlay as draw
    from hqsam_base import atomic, rle
    from hqsam_datasets.formats.images import encode_png

    mask = patch.full()
    atomic.write_bytes(out, encode_png(np.where(mask, np.uint8(255), np.uint8(0))))
    if overlay is not None:
        atomic.write_bytes(overlay, encode_png(draw(pixels, mask, prompt)))
    if json_file is not None:
        result = {
            "image": image.name,
            "backbone": model.backbone.name,
            "variant": model.variant,
            "output": output.value,
            "iou_pred": round(found.iou, 6),
            "area": patch.area,
            "box": rle.tight_box(mask),
            "segmentation": {"size": [int(n) for n in mask.shape], "counts": patch.rle()},
        }
        atomic.write_json(json_file, result)
