"""ONNX files of a model: an encoder and a decoder, checked with onnxruntime before they get their names.

The encoder runs once per image, the decoder for any number of prompts of that image with any number
of points each. What a file is, and how to prepare its inputs, is in its metadata (``METADATA``).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hqsam.export.check import Difference, compare_decoder, compare_encoder
from hqsam.export.parts import (
    DecoderOptions,
    DecoderPart,
    EncoderPart,
    Part,
    decoder_inputs,
    decoder_outputs,
)
from hqsam.model import checkpoint, variants
from hqsam.model.build import build_model
from hqsam.model.hq_sam import HQSam
from hqsam.model.load import load_any
from hqsam.model.options import ModelOptions
from hqsam_base import atomic
from hqsam_base.errors import UserError
from hqsam_base.locks import locked

OPSET = 18  # the newest that every runtime of the last three years reads
TOLERANCE = 1e-3
"""Largest accepted difference from PyTorch: in logits, or relative to the largest value if above 1."""

METADATA = "hqsam"
"""Key of the file's metadata that holds a JSON object: backbone, part, image_size, pixel_mean, pixel_std, ..."""

_WEIGHTS = ".data"  # added to a file's name by the exporter
_LARGEST_FILE = (
    1_800_000_000  # protobuf ends at 2 GiB: larger models keep their weights beside the file
)


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        path: The file.
        size: Bytes, with the weights beside it if there are any.
        difference: From PyTorch.
    """

    path: Path
    size: int
    difference: Difference


def load_for_export(
    path: Path, *, head: Path | None, backbone: str | None, needs_hq: bool
) -> HQSam:
    """Load a model from files; never one whose HQ parameters are random although the decoder uses them.

    Args:
        path: A whole SAM or HQ-SAM, or (for backbones that bring their own SAM) a trained head.
        head: Trained HQ parameters for ``path``.
        backbone: Its name; None: detected from the weights.
        needs_hq: Whether HQ parameters must be there.

    Raises:
        UserError: Missing or unfitting files, or an HQ output without HQ parameters.
    """
    if head is None:
        return load_any(
            path,
            backbone=backbone,
            without_hq="give --head or choose --output sam" if needs_hq else None,
        )
    name = backbone or checkpoint.backbone_of(checkpoint.read(path))
    if name is None:
        raise UserError(
            "the backbone cannot be detected from this file", file=path, cure="give --backbone"
        )
    return build_model(
        ModelOptions.model_construct(backbone=name, checkpoint=path), head=head
    ).eval()


def export_onnx(
    model: HQSam,
    out: Path,
    *,
    parts: Sequence[Part] = ("encoder", "decoder"),
    options: DecoderOptions | None = None,
) -> list[Exported]:
    """Write ``<backbone>_encoder.onnx`` and ``<backbone>_decoder_<output>.onnx``.

    Each file is compared with PyTorch before it gets its name, so a wrong one never appears.

    Args:
        model: In eval mode, on the CPU.
        out: Folder; made if it is not there.
        parts: What to write.
        options: Of the decoder.

    Returns:
        One per part.

    Raises:
        ModuleNotFoundError: The ``onnx`` extra is not installed.
        UserError: Another variant than ``hq``, a folder that cannot be written, or a file's results
            differ from the model's.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        importlib.import_module(name)  # a missing package is reported before minutes of work
    options = options or DecoderOptions()
    if model.variant != variants.DEFAULT:
        raise UserError(
            f"the model is the variant {model.variant}; ONNX export knows {variants.DEFAULT}",
            key="variant",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder cannot be made ({error.strerror})", file=out, cure="give another --out"
        ) from error
    return [_export(model, out, part, options) for part in parts]


def file_name(model: HQSam, part: Part, options: DecoderOptions) -> str:
    """Return the name of a part's file."""
    if part == "encoder":
        return f"{model.backbone.name}_encoder.onnx"
    extra = ("_multimask" if options.multimask else "") + (
        "_low_res" if options.low_res_only else ""
    )
    return f"{model.backbone.name}_decoder_{options.output}{extra}.onnx"


def _export(model: HQSam, out: Path, part: Part, options: DecoderOptions) -> Exported:
    path = out / file_name(model, part, options)
    with _work_folder(path) as work:
        file = work / path.name
        _write(model, file, part, options)
        encoder = part == "encoder"
        difference = (
            compare_encoder(model, file) if encoder else compare_decoder(model, file, options)
        )
        if not difference.share <= TOLERANCE:
            raise UserError(
                f"the exported {part} differs from PyTorch by {difference.largest:.1e} (values up "
                f"to {difference.scale:.1e})",
                file=path,
                cure="try the pinned versions of torch, onnxscript and onnxruntime "
                "(constraints.txt)",
            )
        return Exported(path, _publish(work, path), difference)


def _publish(work: Path, path: Path) -> int:
    """Move a checked file, and its weights if they lie beside it, to their place; bytes of both.

    One rename is atomic, two are not: where weights are involved the old file goes first, so that a
    killed export leaves no file rather than one beside another one's weights.
    """
    new, weights = work / path.name, path.with_name(f"{path.name}{_WEIGHTS}")
    files = [file for file in (work / weights.name, new) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    for file in files:
        with file.open("rb") as written:
            os.fsync(written.fileno())
    if len(files) > 1 or weights.exists():
        path.unlink(missing_ok=True)
        weights.unlink(missing_ok=True)
    for file in files:
        file.replace(path.with_name(file.name))
    atomic.fsync_folder(path.parent)
    return size


def _write(model: HQSam, path: Path, part: Part, options: DecoderOptions) -> None:
    module, inputs, names, axes = _encoder(model) if part == "encoder" else _decoder(model, options)
    outputs = (
        ("image_embeddings", "early_features") if part == "encoder" else decoder_outputs(options)
    )
    with _quiet(), torch.no_grad():
        # Traced here: left to itself, the exporter would go on with fixed sizes where dynamic ones
        # fail.
        traced = torch.export.export(
            module.eval(), tuple(inputs), dynamic_shapes=axes, strict=False
        )
        program = torch.onnx.export(
            traced,
            input_names=list(names),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
        )
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(
        metadata(model, part, options), sort_keys=True
    )
    # A traced decoder keeps far fewer bytes than its model has.
    constants = (value.const_value for value in program.model.graph.initializers.values())
    n_bytes = sum(constant.nbytes for constant in constants if constant is not None)
    program.save(str(path), external_data=n_bytes > _LARGEST_FILE)


def _encoder(model: HQSam) -> tuple[nn.Module, list[Tensor], tuple[str, ...], Any]:
    size = model.backbone.image_size
    return (
        EncoderPart(model),
        [torch.zeros(2, 3, size, size)],
        ("image",),
        ({0: torch.export.Dim("images")},),
    )


def _decoder(
    model: HQSam, options: DecoderOptions
) -> tuple[nn.Module, list[Tensor], tuple[str, ...], Any]:
    prompts, points = torch.export.Dim("prompts"), torch.export.Dim("points")
    shapes: Mapping[str, dict[int, Any]] = {
        "point_coords": {0: prompts, 1: points},
        "point_labels": {0: prompts, 1: points},
        "mask_input": {0: prompts},
        "has_mask_input": {0: prompts},
    }
    names = decoder_inputs(options)
    values = example_inputs(model, prompts=2, points=3)
    # The forward takes *inputs: its dynamic shapes are one tuple inside the tuple of arguments.
    return (
        DecoderPart(model, options),
        [values[name] for name in names],
        names,
        (tuple(shapes.get(name, {}) for name in names),),
    )


def example_inputs(model: HQSam, *, prompts: int, points: int) -> dict[str, Tensor]:
    """Return inputs of the right shapes for every decoder file, by name."""
    backbone = model.backbone
    side = backbone.embedding_size
    return {
        "image_embeddings": torch.zeros(1, backbone.decoder_dim, side, side),
        "early_features": torch.zeros(1, backbone.vit_dim, side, side),
        "point_coords": torch.zeros(prompts, points, 2),
        "point_labels": torch.ones(prompts, points),
        "mask_input": torch.zeros(prompts, 1, backbone.mask_size, backbone.mask_size),
        "has_mask_input": torch.zeros(prompts),
        "orig_im_size": torch.tensor([float(backbone.image_size), float(backbone.image_size)]),
    }


def metadata(model: HQSam, part: Part, options: DecoderOptions) -> dict[str, Any]:
    """Return what somebody who has only the file needs to know."""
    backbone = model.backbone
    known: dict[str, Any] = {
        "backbone": backbone.name,
        "part": part,
        "image_size": backbone.image_size,
        "mask_size": backbone.mask_size,
    }
    if part == "encoder":
        mean, std = (t.flatten().tolist() for t in (model.sam.pixel_mean, model.sam.pixel_std))
        text = (
            "RGB 0..255, longest side resized to image_size, normalised, then padded with zeros "
            "right and bottom"
        )
        return known | {"image": text, "pixel_mean": mean, "pixel_std": std}
    labels = (
        "1 foreground, 0 background, 2 and 3 corners of a box, -1 padding (one where there is no "
        "box)"
    )
    return known | {
        "output": options.output,
        "multimask": options.multimask,
        "point_coords": "(x, y) pixels of the resized image",
        "point_labels": labels,
        "orig_im_size": "height, width",
    }


@contextlib.contextmanager
def _work_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder beside ``path``; what a killed run left behind is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        locked(path.parent / f".{path.name}.lock", remove=True),
        atomic.disk_full_is_user_error(path),
    ):
        atomic.clear_stale(path)
        work = atomic.temporary_sibling(path)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's progress and its warnings about its own code; errors still propagate."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
