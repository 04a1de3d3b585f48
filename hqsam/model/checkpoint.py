"""Checkpoints: read any published file, say what it is, load it strictly; write our own.

The format is detected from the keys, not from the file name:

=============== =======================================================================
``sam``         a whole plain SAM: sam_vit_l_0b3195.pth, MobileSAM's mobile_sam.pt
``hq_sam``      a whole SAM with the HQ parameters merged in: sam_hq_vit_l.pth, Light HQ-SAM, an HQSam's state_dict()
``hq_decoder``  the HQ decoder alone, SAM's frozen decoder included: epoch_11.pth of the official training code
``sam_decoder`` SAM's mask decoder alone: sam_vit_l_maskdecoder.pth
``hq_head``     what trains, alone: this project's own hq_head.safetensors; its note tells the variant
``hf_sam_hq``   Hugging Face ``SamHQModel``
``hf_sam``      Hugging Face ``SamModel``
=============== =======================================================================

In memory every one becomes two dicts: SAM's weights under ``segment_anything``'s names, and the HQ
head's under the published names without prefix.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors.torch import save
from torch import Tensor, nn

from hqsam.model import backbones, hf_format, weight_files
from hqsam.model.backbones.base import Backbone
from hqsam.model.hq_decoder import HQ_PREFIXES
from hqsam.model.weight_files import State
from hqsam_base.atomic import write_bytes
from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError

Format = Literal["sam", "hq_sam", "hq_decoder", "sam_decoder", "hq_head", "hf_sam_hq", "hf_sam"]
FORMATS: tuple[Format, ...] = get_args(Format)

HEAD_VERSION = 1
_DECODER = "mask_decoder."
_MODULES = ("sam.", "head.")  # of HQSam
# MobileSAM's files carry the classifier that its encoder was distilled with; no SAM uses it.
_IGNORED = ("image_encoder.norm_head.", "image_encoder.head.")

KNOWN_SHA256 = {
    "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912": "sam_vit_b_01ec64.pth",
    "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622": "sam_vit_l_0b3195.pth",
    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e": "sam_vit_h_4b8939.pth",
    "14a9d662cd6f5a9c2dba6d40ab0058d88d287e4a18fd6fdc6ad5fb1a3fdeaa57": "sam_hq_vit_b.pth",
    "e1a6c385d62bf005ded91a54d5ec55c985cfc4103ef89c08d90f39f04934c343": "sam_hq_vit_l.pth",
    "a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35": "sam_hq_vit_h.pth",
    "0f32c075ccdd870ae54db2f7630e7a0878ede5a2b06d05d6fe02c65a82fb7196": "sam_hq_vit_tiny.pth",
    "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f": "mobile_sam.pt",
    "cc04d992a240528fa104032dd62e1217a97a1562fc47fb5c89c2c50b395469b9": "sam_vit_b_maskdecoder.pth",
    "7afd39a1935e2f06e3a06f010b26967ff749007bf438082668bfc97b67caaddc": "sam_vit_h_maskdecoder.pth",
}
_KNOWN_NAMES = {name: digest for digest, name in KNOWN_SHA256.items()}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in this project's terms.

    Attributes:
        path: Where it came from, for messages.
        format: What the file is.
        sam: SAM weights (``image_encoder.*``, ``prompt_encoder.*``, ``mask_decoder.*``), possibly
            the decoder's only.
        head: HQ weights without prefix; empty if the file has none.
        metadata: Of an ``hq_head`` file: backbone, variant and what training wrote down.
    """

    path: Path
    format: Format
    sam: State
    head: State
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def has_encoder(self) -> bool:
        """Whether this is a whole model."""
        return any(key.startswith("image_encoder.") for key in self.sam)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint of any known format.

    Args:
        path: A file of safetensors or of ``torch.save`` (read with ``weights_only=True``: no code
            is executed), the index of several, or a folder with one (``weight_files``).

    Raises:
        UserError: Missing, unreadable, or of no known format.
    """
    path = weight_files.weights_file(path)
    if not path.is_file():
        raise UserError(
            "the checkpoint does not exist",
            file=path,
            cure="download it (README, section on the paper's data) or correct `checkpoint` in "
            "params.yaml",
        )
    state, metadata = weight_files.read_tensors(path)
    return classify(path, state, metadata)


def classify(
    path: Path, state: Mapping[str, Tensor], metadata: dict[str, Any] | None = None
) -> Checkpoint:
    """Tell the format by the keys and split into SAM's and the HQ head's weights.

    Raises:
        UserError: The keys fit no known format; the message shows some of them.
    """
    if (metadata or {}).get("format") == "hq_head":  # first: a tuned SAM has SAM's own keys
        return Checkpoint(path, "hq_head", {}, dict(state), metadata or {})
    if hf_format.matches(state):
        sam, head = _split(hf_format.to_published(state))
        return Checkpoint(path, "hf_sam_hq" if head else "hf_sam", sam, head)
    if state and all(
        k.startswith(_MODULES) for k in state
    ):  # HQSam.state_dict(), as torch.save writes it
        state = {published_name(k): v for k, v in state.items()}
    if any(k.startswith("image_encoder.") for k in state):
        sam, head = _split(state)
        return Checkpoint(path, "hq_sam" if head else "sam", sam, head)
    if "mask_tokens.weight" in state:
        sam = {_DECODER + k: v for k, v in state.items() if not is_hq(k)}
        head = {k: v for k, v in state.items() if is_hq(k)}
        return Checkpoint(path, "hq_decoder" if head else "sam_decoder", sam, head)
    if "hf_token.weight" in state:
        return Checkpoint(path, "hq_head", {}, dict(state), metadata or {})
    some = ", ".join(sorted(state)[:4])
    raise UserError(
        f"none of the known checkpoint formats ({', '.join(FORMATS)}); keys: {some}, ...",
        file=path,
        cure="give one of these (docs/model.md, Checkpoints); keys need their published names",
    )


def load_strict(module: nn.Module, state: Mapping[str, Tensor], *, path: Path, what: str) -> None:
    """``load_state_dict`` where every missing, unexpected or wrongly shaped key is an error, and so is a NaN.

    Args:
        module: Whose parameters to fill.
        state: Weights.
        path: The file, for the message.
        what: What is being loaded, e.g. "SAM vit_l".

    Raises:
        UserError: With a table of the offending keys, what was expected and what was found; or
            values that are not finite, with which every mask would be empty.
    """
    expected = module.state_dict()
    rows = [
        (key, _shape(expected.get(key)), _shape(state.get(key)))
        for key in sorted(expected.keys() | state.keys())
        if _shape(expected.get(key)) != _shape(state.get(key))
    ]
    if rows:
        raise UserError(
            f"the file does not fit {what}: {len(rows)} of {len(expected)} keys differ",
            details=_table(rows),
            file=path,
            cure="use the checkpoint of this backbone; `hqsam checkpoint inspect FILE` tells what "
            "a file is",
        )
    broken = [key for key, value in state.items() if not is_finite(value)]
    if broken:
        raise UserError(
            f"{len(broken)} of {len(state)} tensors have values that are not finite",
            file=path,
            key=broken[0],
            cure="use an earlier checkpoint of that training",
        )
    module.load_state_dict(dict(state), strict=True)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are."""
    return not tensor.numel() or all(math.isfinite(end) for end in tensor.detach().aminmax())


def save_head(path: Path, head: nn.Module, *, metadata: Mapping[str, Any]) -> None:
    """Write the HQ parameters as ``hq_head.safetensors``: atomically, the same weights giving the same bytes.

    Args:
        path: File to write.
        head: The HQ head (or another variant's).
        metadata: JSON values to keep beside the weights; ``backbone`` and ``variant`` are checked
            on loading.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in sorted(head.state_dict().items())}
    text = json.dumps({"format": "hq_head", "version": HEAD_VERSION, **metadata}, sort_keys=True)
    write_bytes(path, save(state, metadata={weight_files.METADATA_KEY: text}))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file or of the weights in a folder; of several parts, that of their digests.

    Raises:
        UserError: The file does not exist.
    """
    path = weight_files.weights_file(path)
    if not path.is_file():
        raise UserError("the checkpoint does not exist", file=path, cure="correct the path")
    digests = [sha256_file(part) for part in weight_files.files_of(path)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def check_published(path: Path, digest: str) -> str | None:
    """Compare a file that carries a published name with the published SHA-256.

    Args:
        path: The file.
        digest: Its SHA-256.

    Returns:
        The published name of exactly this content, if it is known.

    Raises:
        UserError: The name is a published one and the content is not: a damaged or exchanged
            download.
    """
    expected = _KNOWN_NAMES.get(path.name)
    if expected is not None and expected != digest:
        raise UserError(
            f"SHA-256 is {digest[:12]}..., the published file's is {expected[:12]}...",
            file=path,
            cure="download it again, or rename it if it is meant to differ",
        )
    return KNOWN_SHA256.get(digest)


def backbone_of(found: Checkpoint) -> str | None:
    """The backbone whose sizes the weights have, or None.

    A whole model is identified by its encoder; a decoder or head by the widths that the HQ head connects.
    """
    noted = found.metadata.get("backbone")
    if noted in backbones.names():
        return str(noted)
    for name in backbones.names():
        backbone = backbones.load(name)
        if (
            _fits_encoder(backbone, found.sam)
            if found.has_encoder
            else _fits_head(backbone, found.head)
        ):
            return name
    return None


def _fits_encoder(backbone: Backbone, sam: Mapping[str, Tensor]) -> bool:
    if not any(key.startswith(f"image_encoder.{backbone.early}.") for key in sam):
        return False
    position = sam.get("image_encoder.pos_embed")
    side = backbone.embedding_size
    if position is not None:
        return tuple(position.shape) == (1, side, side, backbone.vit_dim)
    return backbone.early_layout == "BCHW"  # the hierarchical encoders have no absolute position


def _fits_head(backbone: Backbone, head: Mapping[str, Tensor]) -> bool:
    first = head.get("compress_vit_feat.0.weight")
    return first is not None and tuple(first.shape[:2]) == (backbone.vit_dim, backbone.decoder_dim)


def _split(state: Mapping[str, Tensor]) -> tuple[State, State]:
    """Whole-model weights under published names to (SAM's, the HQ head's without prefix)."""
    sam = {k: v for k, v in state.items() if not is_hq(k, _DECODER) and not k.startswith(_IGNORED)}
    return sam, {k.removeprefix(_DECODER): v for k, v in state.items() if is_hq(k, _DECODER)}


def published_name(key: str) -> str:
    """A key of ``HQSam.state_dict()`` as the published ``sam_hq_*.pth`` name it."""
    return (
        _DECODER + key.removeprefix("head.")
        if key.startswith("head.")
        else key.removeprefix("sam.")
    )


def is_hq(key: str, prefix: str = "") -> bool:
    """Whether a key is one of the HQ head's, below a prefix."""
    return key.startswith(tuple(prefix + p for p in HQ_PREFIXES))


def _shape(tensor: Tensor | None) -> str:
    return "-" if tensor is None else "x".join(map(str, tensor.shape)) or "scalar"


def _table(rows: Iterable[tuple[str, str, str]], limit: int = 24) -> list[str]:
    shown = [("key", "expected", "found"), *rows]
    more = len(shown) - 1 - limit
    shown = shown[: limit + 1]
    widths = [max(len(row[i]) for row in shown) for i in range(3)]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
    return [*lines, f"... and {more} more"] if more > 0 else lines
