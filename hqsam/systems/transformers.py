"""Promptable models of the ``transformers`` library: SAM, SAM 2 and 2.1, EdgeTAM, SAM 3's tracker.

systems:
sam_hq: {kind: sam_hq}
sam2: {kind: transformers, model: ../models/sam2.1-hiera-tiny}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hqsam.model.options import Resize
from hqsam.systems._transformers_model import TransformersModel
from hqsam.systems.base import (
    Context,
    Entry,
    Promptable,
    SystemKind,
    SystemOptions,
)
from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


Embedding = list["Tensor"]
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""Names under which the library has stored a processor; the second is that of versions before 5."""

REFUSED = {
    "sam_hq": "the library's SamHQModel does not compute HQ-SAM: its decoder drops what the "
    "transformer made of the image (seen in 5.23 and 5.24)",
    "sam3": "this is the concept model: it finds what a text names and gives no mask per box",
    "sam3_lite_text": "this is a concept model: it finds what a text names, no mask per box",
}
"""Model types that look as if they fitted, and why they do not."""

_INSTEAD = {
    "sam_hq": "give the authors' sam_hq_vit_*.pth as a checkpoint: `hqsam evaluate --model FILE`",
    "sam3": "give a folder whose config.json says sam3_video or sam3_tracker",
    "sam3_lite_text": "give a folder whose config.json says sam3_video or sam3_tracker",
}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class TransformersOptions(SystemOptions):
    """``systems.<name>`` of this kind.

    Attributes:
        model: A folder with the model's ``config.json``, ``*.safetensors`` and processor; or
            its name on the hub.
        revision: The commit of a name on the hub, 40 hex digits: a branch would be another model
            tomorrow.
        choose: ``family``: the one mask that the library itself chooses (``multimask_output``
            False); ``best_iou``: of its three, the one with the highest predicted IoU.
    """

    model: str
    revision: str | None = None
    choose: Literal["family", "best_iou"] = "family"


def folder_of(options: TransformersOptions, key: str) -> Path:
    """Find the folder of a model, downloading it from the hub if it has a name there.

    Args:
        options: The entry.
        key: Its place in params.yaml or on the command line, for messages.

    Raises:
        UserError: There is no such folder, the revision is no commit, or the hub cannot be reached.
    """
    folder = Path(options.model).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_NAME.fullmatch(options.model):
        raise UserError(
            "there is no such folder, and it is no name on the hub",
            file=folder,
            key=key,
            cure="give a folder with config.json, or OWNER/NAME with a revision",
        )
    if not _COMMIT.fullmatch(options.revision or ""):
        raise UserError(
            f"{options.model}: the revision is {options.revision or 'not given'}",
            key=f"{key}.revision",
            cure="give the commit as 40 hex digits (it stands on the model's page): a branch can "
            "change",
        )
    from huggingface_hub import snapshot_download

    wanted: dict[str, Any] = {
        "repo_id": options.model,
        "revision": options.revision,
        "allow_patterns": ["*.json", "*.safetensors"],
    }
    try:
        return Path(snapshot_download(**wanted))
    except Exception as error:  # the client raises what its HTTP library raises, too
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{options.model} cannot be fetched from the hub, and the local cache does not "
            f"have it: {reason}",
            key=key,
            cure=f"on a machine with a network: `hf download {options.model} --revision "
            f"{options.revision} --local-dir DIR`, then give DIR",
        ) from error


def read_config(folder: Path, key: str) -> dict[str, Any]:
    """Read a model's ``config.json``.

    Raises:
        UserError: It is missing or no JSON object with a model type.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        _ = str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"this is no model folder of the transformers library ({type(error).__name__})",
            file=path,
            key=key,
            cure="give the folder that `save_pretrained` or `hf download` wrote",
        ) from error
    return cast(dict[str, Any], config)


@dataclass(frozen=True)
class Family:
    """Models of the library that are used in one way.

    Attributes:
        model: Name of the library's class.
        pixels: Name of the class of its image processor.
        resize: How an image lies in the input square.
        iou: Range of the predicted IoU: an AP that is ranked by it is comparable within one range
            only.
        double: Whether the library scales coordinates in float64; float32 otherwise.
    """

    model: str
    pixels: str
    resize: Resize = "stretch"
    iou: Literal["linear", "sigmoid"] = "sigmoid"
    double: bool = False


_SAM2 = Family("Sam2Model", "Sam2ImageProcessor")
_EDGETAM = Family("EdgeTamModel", "Sam2ImageProcessor")
_SAM3 = Family("Sam3TrackerModel", "Sam3ImageProcessor")
FAMILIES: Mapping[str, Family] = {
    "sam": Family("SamModel", "SamImageProcessor", "longest_side", "linear", double=True),
    "sam2": _SAM2,
    "sam2_video": _SAM2,
    "edgetam": _EDGETAM,
    "edgetam_video": _EDGETAM,
    "sam3_tracker": _SAM3,
    "sam3_video": _SAM3,
}
"""Supported values of ``model_type`` in a model's config.json."""


class TransformersKind(SystemKind):
    """See the module."""

    def inputs(self, entry: Entry) -> dict[str, str]:
        """See `SystemKind.inputs`."""
        folder, _ = _checked(entry)
        paths = [folder / "config.json", *(folder / name for name in PROCESSORS)]
        paths += sorted(folder.glob("*.safetensors"))
        return {path.name: sha256_file(path) for path in paths if path.is_file()}

    def open(self, entry: Entry, context: Context) -> Promptable:
        """Load the model with all of its weights; code that comes with it is never run."""
        folder, model_type = _checked(entry)
        family, options = FAMILIES[model_type], cast(TransformersOptions, entry.options)
        model, library = _load_model(family, folder, f"systems.{entry.name}.model"), _library()
        pixels = getattr(library, family.pixels).from_pretrained(folder, local_files_only=True)
        files = {"model_type": model_type, "files": self.inputs(entry)}
        return TransformersModel(entry.name, family, model, pixels, options, context.options, files)


def _checked(entry: Entry) -> tuple[Path, str]:
    """The folder and its model type, once everything in it that can be wrong was looked at."""
    key = f"systems.{entry.name}.model"
    _library()
    folder = folder_of(cast(TransformersOptions, entry.options), key)
    model_type = str(read_config(folder, key)["model_type"])
    if model_type not in FAMILIES:
        raise UserError(
            REFUSED.get(model_type, f"models of the type {model_type} are not supported"),
            file=folder / "config.json",
            key=key,
            cure=_INSTEAD.get(model_type, f"use one of the types {', '.join(FAMILIES)}"),
        )
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise UserError(
            "the model folder has no processor: size, mean and deviation of its images are unknown",
            file=folder / PROCESSORS[0],
            key=key,
            cure="copy processor_config.json (or preprocessor_config.json) from the model's page "
            "into the folder",
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            "the model folder has no weights as safetensors (files that need code to load are not "
            "read)",
            file=folder,
            key=key,
            cure="save the model with `save_pretrained`, which writes model.safetensors",
        )
    return folder, model_type


def _library() -> Any:
    """The library, torchvision mended first.

    Raises:
        UserError: It is not installed.
    """
    from hqsam.model._torchvision import ensure_torchvision

    try:
        ensure_torchvision()
        import transformers
    except ImportError as error:
        raise UserError(
            f"the package {error.name} is not installed",
            key="systems",
            cure="pip install 'hqsam-pipeline[systems]'",
        ) from error
    return transformers


def _load_model(family: Family, folder: Path, key: str) -> Any:
    """The model in float32 and eval mode; every one of its parameters must be in the file."""
    transformers = _library()
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # what it reports is checked below
    transformers.logging.disable_progress_bar()
    try:
        model, report = getattr(transformers, family.model).from_pretrained(
            folder,
            config=transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            ),
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            dtype="float32",
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"the model cannot be loaded: {str(error).partition(chr(10))[0]}",
            file=folder,
            key=key,
            cure="save it again with `save_pretrained`, or download it again",
        ) from error
    finally:
        transformers.logging.set_verbosity(level)
        transformers.logging.enable_progress_bar()
    lacking = sorted({*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])})
    if lacking:
        raise UserError(
            f"{len(lacking)} tensors of {family.model} are not in the file or have another shape; "
            f"they would be random",
            file=folder,
            key=lacking[0],
            cure="use the files as published; a sam3_video model that was saved again has its names "
            "doubled",
        )
    return model.eval()


SYSTEM = TransformersKind("transformers", TransformersOptions)
